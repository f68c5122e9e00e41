//! The processes: memory and open files, from time to time.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::limits::{SOAK_GROWTH_FILES_MAX, SOAK_GROWTH_MB_MAX, SOAK_GROWTH_SHARE_MAX, SOAK_LOOK_PAUSE};

/// What was seen of one process, and of those that took its place.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    pid: u32,
    /// Times that another process took its place.
    pub restarts: u32,
    samples: Vec<Sample>,
}

/// One look at a process.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// Share of the time that had passed.
    at: f64,
    /// Resident memory.
    mb: f64,
    /// Open files, sockets among them.
    files: f64,
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
        for (name, pid) in pids {
            let series = self.processes.entry(name.clone()).or_default();
            if series.pid != 0 && series.pid != *pid {
                series.restarts += 1;
                series.samples.clear();
            }
            series.pid = *pid;
            if let (Some(mb), Some(files)) = (memory_mb(*pid), open_files(*pid)) {
                series.samples.push(Sample { at, mb, files });
            }
        }
    }

    /// Processes that grew, or were restarted and not by these names, in words.
    pub fn faults(&self, restarted: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, series) in &self.processes {
            if series.restarts > 0 && !restarted.contains(&name.as_str()) {
                faults.push(format!("{name} was restarted {} times", series.restarts));
            }
            let Some((then, now)) = series.then_and_now() else { continue };
            if now.mb > then.mb * SOAK_GROWTH_SHARE_MAX && now.mb > then.mb + SOAK_GROWTH_MB_MAX {
                faults.push(format!("{name} grew from {:.0} to {:.0} MB", then.mb, now.mb));
            }
            if now.files > then.files + SOAK_GROWTH_FILES_MAX {
                faults.push(format!("{name} had {:.0} open files, then {:.0}", then.files, now.files));
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
    /// Medians of the second tenth and of the last tenth of the time; none where the process is too young.
    fn then_and_now(&self) -> Option<(Sample, Sample)> {
        let median = |from: f64, to: f64| {
            let within: Vec<&Sample> =
                self.samples.iter().filter(|sample| (from..to).contains(&sample.at)).collect();
            let middle = |of: fn(&Sample) -> f64| {
                let mut values: Vec<f64> = within.iter().map(|sample| of(sample)).collect();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).copied()
            };
            Some(Sample { at: from, mb: middle(|sample| sample.mb)?, files: middle(|sample| sample.files)? })
        };
        Some((median(0.1, 0.2)?, median(0.9, f64::INFINITY)?))
    }

    /// A row of the report.
    pub fn row(&self, name: &str) -> Vec<String> {
        let numbers = match self.then_and_now() {
            Some((then, now)) => [then.mb, now.mb, then.files, now.files].map(|value| format!("{value:.0}")),
            None => ["", "", "", ""].map(str::to_owned),
        };
        let [mb_then, mb_now, files_then, files_now] = numbers;
        vec![name.to_owned(), mb_then, mb_now, files_then, files_now, self.restarts.to_string()]
    }
}

fn memory_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = resident.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes / 1_024.0)
}

fn open_files(pid: u32) -> Option<f64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[(f64, f64, f64)]) -> Watch {
        let samples =
            values.iter().map(|(at, mb, files)| Sample { at: *at, mb: *mb, files: *files }).collect();
        let mut watch = Watch::new(Instant::now(), Duration::from_secs(1));
        watch.processes.insert("edge".to_owned(), Series { pid: 1, restarts: 0, samples });
        watch
    }

    #[test]
    fn growth_is_a_fault_and_wavering_is_not() {
        assert!(series(&[(0.15, 100.0, 20.0), (0.95, 110.0, 25.0)]).faults(&[]).is_empty());
        let grown = series(&[(0.15, 100.0, 20.0), (0.95, 200.0, 200.0)]).faults(&[]);
        assert_eq!(grown.len(), 2, "{grown:?}");
        assert!(series(&[(0.95, 200.0, 200.0)]).faults(&[]).is_empty(), "too young");
    }
}
