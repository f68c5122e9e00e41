//! Which of the counters that an authority stores are forgotten: all that are whole again, however many there are, a bounded
//! number of them at once.

use std::time::Duration;

use meridian_engine::policy::rate_limit::Authority;

use crate::limits::{AUTHORITY_PAGE, AUTHORITY_SWEEP, AUTHORITY_SWEEP_PAUSE, AUTHORITY_SWEPT_MAX};

/// One run over what is stored, page by page in the order of the keys.
#[derive(Debug)]
pub struct Sweep {
    /// Where the next page begins: at this key or, without one, at the first of all.
    begins: Option<String>,
    /// Whether it began at the first of all.
    is_whole: bool,
    looked_at: usize,
    has_kept: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// After which time another run is due; never where nothing is stored any more.
    pub due: Option<Duration>,
    /// Where that one begins, if not at the first key of all.
    pub begins: Option<String>,
}

impl Sweep {
    /// A run that begins where the one before it stopped.
    pub fn new(begins: Option<String>) -> Self {
        Self { is_whole: begins.is_none(), begins, looked_at: 0, has_kept: false }
    }

    /// The first key of the next page, which has up to [`AUTHORITY_PAGE`] counters.
    pub fn begins(&self) -> Option<&str> {
        self.begins.as_deref()
    }

    /// The keys of a page that are to be deleted. A page begins with the last key of the one before it, if that is there still.
    pub fn page(&mut self, counters: Vec<(String, Option<String>)>, now_ms: u64) -> Vec<String> {
        let is_full = counters.len() >= AUTHORITY_PAGE;
        self.begins = counters.last().filter(|_| is_full).map(|(key, _)| key.clone());
        self.looked_at += counters.len();
        let (whole, kept): (Vec<_>, Vec<_>) = counters.into_iter().partition(|(_, saved)| {
            let whole_at_ms = saved.as_deref().and_then(Authority::whole_at_ms);
            whole_at_ms.is_none_or(|whole_at_ms| whole_at_ms <= now_ms)
        });
        self.has_kept |= !kept.is_empty();
        whole.into_iter().map(|(key, _)| key).collect()
    }

    /// Whether another page follows in this run.
    pub fn goes_on(&self) -> bool {
        self.begins.is_some() && self.looked_at < AUTHORITY_SWEPT_MAX
    }

    /// The end of the run.
    pub fn end(self) -> Ended {
        let due = match self.begins {
            Some(_) => Some(AUTHORITY_SWEEP_PAUSE),
            None => (self.has_kept || !self.is_whole).then_some(AUTHORITY_SWEEP),
        };
        Ended { due, begins: self.begins }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOW_MS: u64 = 1_000;

    /// Counters with these numbers, each whole again at the same time.
    fn counters(numbers: std::ops::Range<usize>, whole_at_ms: u64) -> BTreeMap<String, String> {
        numbers.map(|number| (format!("k{number:08}"), whole_at_ms.to_string())).collect()
    }

    fn run(stored: &mut BTreeMap<String, String>, begins: Option<String>) -> Ended {
        let mut sweep = Sweep::new(begins);
        loop {
            let begins = sweep.begins().unwrap_or_default().to_owned();
            let page = stored.range(begins..).take(AUTHORITY_PAGE);
            let page = page.map(|(key, saved)| (key.clone(), Some(saved.clone()))).collect();
            for key in sweep.page(page, NOW_MS) {
                stored.remove(&key);
            }
            if !sweep.goes_on() {
                assert!(sweep.looked_at < AUTHORITY_SWEPT_MAX + AUTHORITY_PAGE);
                return sweep.end();
            }
        }
    }

    #[test]
    fn what_is_whole_is_reached_behind_more_than_one_run_looks_at() {
        let many = 3 * AUTHORITY_SWEPT_MAX;
        let mut stored = counters(0..many, NOW_MS + 1);
        stored.extend(counters(many..many + 500, NOW_MS));
        let mut ended = run(&mut stored, None);
        assert_eq!((stored.len(), ended.due), (many + 500, Some(AUTHORITY_SWEEP_PAUSE)));
        let mut runs = 1;
        while ended.begins.is_some() {
            ended = run(&mut stored, ended.begins);
            runs += 1;
            assert!(runs <= 5, "it comes to an end");
        }
        assert_eq!((stored.len(), ended.due), (many, Some(AUTHORITY_SWEEP)));
    }

    #[test]
    fn pages_follow_one_another_in_one_run() {
        let mut stored = counters(0..AUTHORITY_PAGE, NOW_MS + 1);
        stored.extend(counters(AUTHORITY_PAGE..3 * AUTHORITY_PAGE, NOW_MS));
        let ended = run(&mut stored, None);
        assert_eq!((stored.len(), ended.due), (AUTHORITY_PAGE, Some(AUTHORITY_SWEEP)));
        assert_eq!(ended.begins, None);
    }

    #[test]
    fn the_last_run_is_one_that_saw_all_and_kept_nothing() {
        let nothing = Ended { due: None, begins: None };
        let again = Ended { due: Some(AUTHORITY_SWEEP), begins: None };
        assert_eq!(run(&mut BTreeMap::new(), None), nothing);
        assert_eq!(run(&mut counters(0..10, NOW_MS), None), nothing);
        assert_eq!(run(&mut counters(0..10, NOW_MS + 1), None), again);
        assert_eq!(run(&mut counters(0..10, NOW_MS), Some("k5".to_owned())), again, "what stands before it");
        let mut odd = BTreeMap::from([("k".to_owned(), "what is this?".to_owned())]);
        assert_eq!((run(&mut odd, None), odd.len()), (nothing, 0), "what can't be read is of no use");
    }
}
