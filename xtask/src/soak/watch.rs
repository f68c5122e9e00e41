//! The processes: memory, open files and connections, from time to time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::processes::{Look, Processes};
use crate::limits::{
    SOAK_GROWTH_CONNECTIONS_MAX, SOAK_GROWTH_FILES_MAX, SOAK_GROWTH_MB_MAX, SOAK_GROWTH_SHARE_MAX,
    SOAK_LOOK_PAUSE,
};
use crate::report::Spread;

/// Share of the time in which nothing is compared yet.
const WARM_UP: f64 = 0.1;
/// Names of database servers begin so.
const POSTGRES: &str = "postgres-";

/// What was seen of one process, and of those that took its place.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    lives: Vec<Life>,
}

/// One process, from its start to its end.
#[derive(Clone, Debug, Serialize)]
struct Life {
    pid: u32,
    samples: Vec<Sample>,
}

/// One look at a process.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// Share of the time that had passed.
    at: f64,
    #[serde(flatten)]
    look: Look,
}

/// Looks at processes.
pub struct Watch {
    started: Instant,
    lasts: Duration,
    looked: Option<Instant>,
    processes: BTreeMap<String, Series>,
}

impl Watch {
    /// For a time that has begun.
    pub fn new(started: Instant, lasts: Duration) -> Self {
        Self { started, lasts, looked: None, processes: BTreeMap::new() }
    }

    /// Looks at these processes, unless that was just done.
    pub fn look(&mut self, pids: &BTreeMap<String, u32>) {
        if self.looked.is_some_and(|looked| looked.elapsed() < SOAK_LOOK_PAUSE) {
            return;
        }
        self.looked = Some(Instant::now());
        let at = self.started.elapsed().as_secs_f64() / self.lasts.as_secs_f64();
        let processes = Processes::now();
        for (name, pid) in pids {
            if let Some(look) = processes.look(*pid) {
                self.processes.entry(name.clone()).or_default().saw(*pid, Sample { at, look });
            }
        }
    }

    /// Processes that grew, or were restarted and not by these names, in words. PostgreSQL's memory and files go by what lies in its
    /// tables, which a load fills, and by its own workers: of ours it has connections alone.
    pub fn faults(&self, restarted: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, series) in &self.processes {
            let restarts = series.restarts();
            if restarts > 0 && !restarted.contains(&name.as_str()) {
                faults.push(format!("{name} was restarted {restarts} times"));
            }
            let Some([then, _, now]) = series.compared() else { continue };
            let is_ours = !name.starts_with(POSTGRES);
            let is_more = now.mb > then.mb * SOAK_GROWTH_SHARE_MAX && now.mb > then.mb + SOAK_GROWTH_MB_MAX;
            if is_ours && is_more {
                faults.push(format!("{name} grew from {:.0} to {:.0} MB", then.mb, now.mb));
            }
            if is_ours && now.files > then.files + SOAK_GROWTH_FILES_MAX {
                faults.push(format!("{name} had {:.0} open files, then {:.0}", then.files, now.files));
            }
            if now.connections > then.connections + SOAK_GROWTH_CONNECTIONS_MAX {
                let (then, now) = (then.connections, now.connections);
                faults.push(format!("{name} had {then:.0} connections, then {now:.0}"));
            }
        }
        faults
    }

    /// What was seen.
    pub fn into_series(self) -> BTreeMap<String, Series> {
        self.processes
    }
}

impl Series {
    fn saw(&mut self, pid: u32, sample: Sample) {
        match self.lives.last_mut().filter(|life| life.pid == pid) {
            Some(life) => life.samples.push(sample),
            None => self.lives.push(Life { pid, samples: vec![sample] }),
        }
    }

    /// Times that another process took its place.
    fn restarts(&self) -> usize {
        self.lives.len().saturating_sub(1)
    }

    /// What is compared, with what lies between. Of a process that ran all the time: medians of the second tenth, of the
    /// tenth in the middle and of the last tenth of the time. Of one that was killed again and again: the ends of the
    /// first, the middle and the last of its lives that began after the first tenth, while there is little to keep yet, and
    /// lasted from one kill to another, and so equally long; none where there are no two of them.
    fn compared(&self) -> Option<[Look; 3]> {
        match self.lives.as_slice() {
            [life] => {
                Some([life.median(WARM_UP, 0.2)?, life.median(0.45, 0.55)?, life.median(0.9, f64::INFINITY)?])
            }
            [_, whole @ .., _] => {
                let early = whole.iter().take_while(|life| life.began() < WARM_UP).count();
                let whole = whole.get(early..).filter(|whole| whole.len() > 1)?;
                let [first, middle, last] = [0, whole.len() / 2, whole.len() - 1].map(|at| whole.get(at));
                Some([first?.end()?, middle?.end()?, last?.end()?])
            }
            _ => None,
        }
    }

    /// The memory in each of so many equal parts of the time, in megabytes: medians of what was seen, of whichever process there
    /// was.
    pub fn course(&self, parts: u64) -> String {
        let part = |number: u64| {
            let (from, to) = (number as f64 / parts as f64, (number + 1) as f64 / parts as f64);
            let seen = self.lives.iter().flat_map(|life| &life.samples);
            let within = seen.filter(|sample| (from..to).contains(&sample.at));
            let spread = Spread::of(within.map(|sample| sample.look.mb));
            spread.map_or("–".to_owned(), |mb| format!("{:.0}", mb.median))
        };
        (0..parts).map(part).collect::<Vec<_>>().join(" ")
    }

    /// A row of the report.
    pub fn row(&self, name: &str) -> Vec<String> {
        let cells = match self.compared() {
            Some([then, between, now]) => {
                let memory =
                    [then, between, now].map(|look| format!("{:.0} ({:.0})", look.mb, look.anonymous_mb));
                let [files, connections] = [
                    format!("{:.0}, {:.0}", then.files, now.files),
                    format!("{:.0}, {:.0}", then.connections, now.connections),
                ];
                memory.into_iter().chain([files, connections]).collect()
            }
            None => vec![String::new(); 5],
        };
        [vec![name.to_owned()], cells, vec![self.restarts().to_string()]].concat()
    }
}

impl Life {
    /// What was seen last.
    fn end(&self) -> Option<Look> {
        self.samples.last().map(|sample| sample.look)
    }

    /// Share of the time that had passed when it was seen first.
    fn began(&self) -> f64 {
        self.samples.first().map_or(0.0, |sample| sample.at)
    }

    /// Medians of what was seen in this part of the time; none where nothing was.
    fn median(&self, from: f64, to: f64) -> Option<Look> {
        let within: Vec<Look> = self
            .samples
            .iter()
            .filter(|sample| (from..to).contains(&sample.at))
            .map(|sample| sample.look)
            .collect();
        let middle = |of: fn(&Look) -> f64| {
            let mut values: Vec<f64> = within.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Look {
            mb: middle(|look| look.mb)?,
            anonymous_mb: middle(|look| look.anonymous_mb)?,
            files: middle(|look| look.files)?,
            connections: middle(|look| look.connections)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(lives: &[&[(f64, f64, f64, f64)]]) -> Watch {
        let mut series = Series::default();
        for (pid, life) in (1..).zip(lives) {
            for (at, mb, files, connections) in *life {
                let look = Look { mb: *mb, anonymous_mb: *mb, files: *files, connections: *connections };
                series.saw(pid, Sample { at: *at, look });
            }
        }
        let mut watch = Watch::new(Instant::now(), Duration::from_secs(1));
        watch.processes.insert("edge".to_owned(), series);
        watch
    }

    #[test]
    fn growth_is_a_fault_and_wavering_is_not() {
        let middle = (0.5, 500.0, 500.0, 500.0);
        let wavering = watch(&[&[(0.15, 100.0, 20.0, 9.0), middle, (0.95, 110.0, 25.0, 12.0)]]);
        assert_eq!(wavering.faults(&[]), Vec::<String>::new());
        let grown = watch(&[&[(0.15, 100.0, 20.0, 9.0), middle, (0.95, 200.0, 200.0, 99.0)]]).faults(&[]);
        assert_eq!(grown.len(), 3, "{grown:?}");
        assert!(watch(&[&[(0.95, 200.0, 200.0, 99.0)]]).faults(&[]).is_empty(), "too young");
        let mut database = watch(&[&[(0.15, 100.0, 20.0, 9.0), middle, (0.95, 200.0, 200.0, 99.0)]]);
        database.processes =
            database.processes.into_values().map(|it| ("postgres-a".to_owned(), it)).collect();
        assert_eq!(database.faults(&[]), ["postgres-a had 9 connections, then 99"]);
    }

    #[test]
    fn the_course_of_the_memory_is_that_of_all_lives() {
        let watch = watch(&[&[(0.1, 10.0, 0.0, 0.0), (0.2, 20.0, 0.0, 0.0)], &[(0.8, 5.0, 0.0, 0.0)]]);
        assert_eq!(watch.into_series()["edge"].course(4), "15 – – 5");
    }

    #[test]
    fn lives_of_one_length_are_compared() {
        let life = |mb| [(0.3, 10.0, 9.0, 9.0), (0.4, mb, 9.0, 9.0)];
        let lives = [life(500.0), life(50.0), life(90.0), life(100.0), life(500.0)];
        let lives: Vec<_> = lives.iter().map(<[_; 2]>::as_slice).collect();
        assert_eq!(watch(&lives).faults(&["edge"]), ["edge grew from 50 to 100 MB"]);
        assert_eq!(watch(&lives[..4]).faults(&["edge"]), ["edge grew from 50 to 90 MB"]);
        assert!(watch(&lives[..3]).faults(&["edge"]).is_empty(), "nothing to compare with");
        let early = [(0.02, 10.0, 9.0, 9.0), (0.12, 10.0, 9.0, 9.0)];
        let warm = [&early[..], &early[..], &life(50.0)[..], &life(60.0)[..], &life(10.0)[..]];
        assert!(watch(&warm).faults(&["edge"]).is_empty(), "it had little to keep in the beginning");
        assert_eq!(watch(&lives[..3]).faults(&[]), ["edge was restarted 2 times"]);
    }
}
