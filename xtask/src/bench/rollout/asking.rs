//! Traffic: the same request again and again, and which answer came when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::limits::{ROLLOUT_POLL, ROLLOUT_SEEN_MAX};
use crate::report::quantile;
use crate::scratch::Stop;
use crate::stack::http::{Answer, Request, agent};

/// What is asked, again and again.
#[derive(Clone)]
pub struct Question {
    /// Full URL.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// What of an answer tells those after a change from those before.
    pub mark: fn(&Answer) -> String,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was asked for.
    pub sent: Instant,
    /// When it was there, whole.
    pub answered: Instant,
    /// Its mark; nothing where there was no answer.
    pub mark: String,
}

/// Some who ask one question at the same time, each again when it has its answer and after a pause.
pub struct Asking {
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<Mutex<Vec<Seen>>>>,
    threads: Vec<JoinHandle<()>>,
}

/// When a change was made.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When it was asked for.
    pub sent: Instant,
    /// When the answer was there that it is made.
    pub accepted: Instant,
}

/// How long a change took to arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reach {
    /// From when it was asked for to the first answer by it, in milliseconds.
    pub first_ms: f64,
    /// From when it was accepted to the first answer by it.
    pub accepted_ms: f64,
    /// From when it was asked for to the last answer without it.
    pub last_ms: f64,
}

/// Some times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Question {
    /// Asks once.
    fn ask(&self, agent: &ureq::Agent) -> Seen {
        let mut request = Request::get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let sent = Instant::now();
        let answer = request.send_by(agent);
        let answered = Instant::now();
        Seen { sent, answered, mark: answer.map(|answer| (self.mark)(&answer)).unwrap_or_default() }
    }
}

impl Asking {
    /// So many begin to ask.
    pub fn start(question: &Question, threads: usize, pause: Duration) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let seen: Vec<Arc<Mutex<Vec<Seen>>>> = (0..threads).map(|_| Arc::default()).collect();
        let start = |seen: &Arc<Mutex<Vec<Seen>>>| {
            let (question, stop, seen) = (question.clone(), Arc::clone(&stop), Arc::clone(seen));
            std::thread::spawn(move || {
                let agent = agent();
                while !stop.load(Ordering::Relaxed) {
                    let one = question.ask(&agent);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    std::thread::sleep(pause);
                }
            })
        };
        let threads = seen.iter().map(start).collect();
        Self { stop, seen, threads }
    }

    /// What each of them saw since this was last asked.
    pub fn take(&self) -> Vec<Vec<Seen>> {
        let taken = self
            .seen
            .iter()
            .map(|seen| std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner)));
        taken.collect()
    }

    /// Waits until one of them has an answer with such a mark; all answers since they were last taken.
    ///
    /// # Errors
    /// When none has in time.
    pub fn until_some(&self, is_new: impl Fn(&str) -> bool, stop: &Stop) -> Result<Vec<Seen>> {
        self.until(Instant::now(), stop, |all| all.iter().flatten().any(|seen| is_new(&seen.mark)))
    }

    /// Waits until each of them has an answer with such a mark to what it asked last, after a moment; all answers since
    /// they were last taken.
    ///
    /// # Errors
    /// When one has not in time.
    pub fn until_all(&self, since: Instant, is_new: impl Fn(&str) -> bool, stop: &Stop) -> Result<Vec<Seen>> {
        let is_done =
            |seen: &Vec<Seen>| seen.last().is_some_and(|last| last.sent >= since && is_new(&last.mark));
        self.until(since, stop, |all| all.iter().all(is_done))
    }

    fn until(&self, since: Instant, stop: &Stop, done: impl Fn(&[Vec<Seen>]) -> bool) -> Result<Vec<Seen>> {
        let mut all = vec![Vec::new(); self.seen.len()];
        loop {
            stop.check()?;
            for (all, new) in all.iter_mut().zip(self.take()) {
                all.extend(new);
            }
            if done(&all) {
                return Ok(all.concat());
            }
            let last: Vec<_> = all.iter().filter_map(|seen| Some(&seen.last()?.mark)).collect();
            ensure!(
                since.elapsed() < ROLLOUT_SEEN_MAX,
                "a change is not seen after {ROLLOUT_SEEN_MAX:?}: {last:?}"
            );
            std::thread::sleep(ROLLOUT_POLL);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whoever panicked has said so.
            let _panicked = thread.join();
        }
    }
}

impl Reach {
    /// Of a change. What was answered by it before it was accepted counts as at once since then.
    pub fn of(seen: &[Seen], change: Change, is_new: impl Fn(&str) -> bool) -> Self {
        let (new, old): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| is_new(&seen.mark));
        let first = new.into_iter().map(|seen| seen.answered).min();
        let last = old.into_iter().map(|seen| seen.answered).max();
        let ms = |answered: Option<Instant>, since: Instant| {
            answered.map_or(0.0, |answered| answered.saturating_duration_since(since).as_secs_f64() * 1e3)
        };
        let Change { sent, accepted } = change;
        Self { first_ms: ms(first, sent), accepted_ms: ms(first, accepted), last_ms: ms(last, sent) }
    }
}

impl Times {
    /// Of `values`; none if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let of = |share| quantile(values, share);
        Some(Self { p50: of(0.5)?, p99: of(0.99)?, max: of(1.0)? })
    }

    /// As cells of a table.
    pub fn cells(times: Option<Self>) -> [String; 3] {
        match times {
            Some(Self { p50, p99, max }) => [p50, p99, max].map(|ms| format!("{ms:.0}")),
            None => [const { String::new() }; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::upstream::Upstream;

    fn question(upstream: &Upstream) -> Question {
        let mark = |answer: &Answer| answer.status.to_string();
        Question { url: format!("{}/open/a", upstream.url), headers: vec![], mark }
    }

    #[test]
    fn all_ask_until_it_is_over() {
        let upstream = Upstream::start(0).unwrap();
        let stop = Stop(Arc::default());
        let asking = Asking::start(&question(&upstream), 3, Duration::from_millis(1));
        let since = Instant::now();
        let seen = asking.until_all(since, |mark| mark == "200", &stop).unwrap();
        assert!(seen.len() >= 3 && seen.iter().all(|seen| seen.mark == "200"), "{seen:?}");
        assert!(!asking.until_some(|mark| mark == "200", &stop).unwrap().is_empty());
        drop(asking);
        let served = upstream.served();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(upstream.served(), served);
    }

    #[test]
    fn the_first_by_a_change_and_the_last_without_it_count() {
        let start = Instant::now();
        let seen = |ms: u64, mark: &str| {
            let answered = start + Duration::from_millis(ms);
            Seen { sent: answered - Duration::from_millis(1), answered, mark: mark.to_owned() }
        };
        let all = [seen(90, "old"), seen(150, "new"), seen(170, "old"), seen(180, "new")];
        let at = |ms: u64| start + Duration::from_millis(ms);
        let change = Change { sent: at(100), accepted: at(110) };
        let reach = Reach::of(&all, change, |mark| mark == "new");
        assert_eq!(reach, Reach { first_ms: 50.0, accepted_ms: 40.0, last_ms: 70.0 });
        let early = [seen(90, "old"), seen(105, "new")];
        let reach = Reach::of(&early, change, |mark| mark == "new");
        assert_eq!(reach, Reach { first_ms: 5.0, ..Reach::default() });
    }
}
