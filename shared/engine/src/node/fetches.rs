//! Which cache keys are being fetched (request collapsing): one fetch a key at a time, and the others wait for what it
//! stores. A key whose answer turned out to be for nobody else is fetched by everybody for a moment, so that requests
//! for it don't queue behind one another.

use crate::bounded::{Bounded, Keyed};
use crate::clock::Since;
use crate::limits::{COLLAPSE_JOINED_MAX, COLLAPSE_WAIT_MS, FETCHES_MAX, REVALIDATION_LOST_MS, UNSHARED_MS};
use crate::step::CacheKey;

/// The fetches of one node. What gets lost, with a client that left or because there are too many, lapses.
#[derive(Debug)]
pub(crate) struct Fetches {
    keys: Bounded<CacheKey, Fetch>,
}

#[derive(Debug)]
enum Fetch {
    /// On its way.
    UnderWay {
        /// Decision that fetches.
        by: String,
        since: Since,
        /// It takes the place of one that was lost.
        again: bool,
        /// How many wait, those that gave up included.
        joined: u32,
    },
    /// One request asked with its client's own condition, which may bring it a 304 and nothing to others.
    Asked {
        /// Its decision.
        by: String,
        since: Since,
    },
    /// What came was for one request alone.
    Unshared { since: Since },
    /// Nothing came: whoever waited for it waits for the next one.
    Lost,
}

/// What became of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fetched {
    /// It is stored.
    Stored,
    /// It is of no use to others, and so will be what comes next: it may not, or can't, be stored, or the target failed.
    NotForOthers,
    /// It broke off, which says nothing of what comes next.
    #[default]
    Lost,
}

/// Whom a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Any fetch.
    Any,
    /// One that takes the place of a lost one: it has waited once.
    Again,
    /// Nobody.
    None,
}

/// What a request for a key does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Fetches for the others too.
    Lead,
    /// Waits for this decision.
    Wait(String),
    /// Asks as its client does, the only one so far.
    Ask,
    /// Fetches for itself.
    Alone,
}

impl Fetches {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self { keys: Bounded::new(FETCHES_MAX, keyed) }
    }

    /// The turn of a request, named by its decision. A fetch that takes longer than anybody waits for it is led anew.
    pub(crate) fn begin(&mut self, key: &CacheKey, by: &str, patience: Patience, now_ms: u64) -> Turn {
        match self.keys.get(key) {
            Some(Fetch::UnderWay { by, since, again, joined })
                if since.is_within(COLLAPSE_WAIT_MS.into(), now_ms) =>
            {
                let may_wait = match patience {
                    Patience::Any => true,
                    Patience::Again => *again,
                    Patience::None => false,
                };
                if !may_wait || *joined >= COLLAPSE_JOINED_MAX {
                    return Turn::Alone;
                }
                *joined += 1;
                Turn::Wait(by.clone())
            }
            Some(Fetch::Unshared { since }) if since.is_within(UNSHARED_MS, now_ms) => Turn::Alone,
            _ => {
                self.lead(key, by, now_ms);
                Turn::Lead
            }
        }
    }

    /// The turn of a request with a condition of its client's. One by itself asks as it came; where others ask for the same, it
    /// leads them like any other, without its condition.
    pub(crate) fn ask(&mut self, key: &CacheKey, by: &str, patience: Patience, now_ms: u64) -> Turn {
        if self.keys.peek(key).is_some_and(|fetch| !fetch.has_lapsed(now_ms)) {
            return self.begin(key, by, patience, now_ms);
        }
        self.keys.insert(key.clone(), Fetch::Asked { by: by.to_owned(), since: Since(now_ms) });
        Turn::Ask
    }

    /// What a decision asked for itself alone came to its end.
    pub(crate) fn asked(&mut self, key: &CacheKey, of: &str) {
        if matches!(self.keys.peek(key), Some(Fetch::Asked { by, .. }) if by == of) {
            self.keys.remove(key);
        }
    }

    /// The turn of a request whose answer is of no use to others: it waits where somebody leads, and never leads.
    pub(crate) fn follow(&mut self, key: &CacheKey, by: &str, patience: Patience, now_ms: u64) -> Turn {
        let is_led = self
            .keys
            .peek(key)
            .is_some_and(|fetch| matches!(fetch, Fetch::UnderWay { .. }) && !fetch.has_lapsed(now_ms));
        if is_led { self.begin(key, by, patience, now_ms) } else { Turn::Alone }
    }

    /// Begins a fetch that no client waits for, unless one is on its way.
    pub(crate) fn begin_background(&mut self, key: &CacheKey, by: &str, now_ms: u64) -> bool {
        let is_under_way = self.keys.peek(key).is_some_and(|fetch| match fetch {
            Fetch::UnderWay { since, .. } => since.is_within(REVALIDATION_LOST_MS, now_ms),
            Fetch::Asked { .. } | Fetch::Unshared { .. } | Fetch::Lost => false,
        });
        if !is_under_way {
            self.lead(key, by, now_ms);
        }
        !is_under_way
    }

    /// Whether this decision still fetches the key.
    pub(crate) fn is_under_way(&self, key: &CacheKey, of: &str) -> bool {
        matches!(self.keys.peek(key), Some(Fetch::UnderWay { by, .. }) if by == of)
    }

    /// What a decision fetched came to its end. Only the one that leads a fetch ends it.
    pub(crate) fn end(&mut self, key: &CacheKey, of: &str, fetched: Fetched, now_ms: u64) {
        let is_other = match self.keys.peek(key) {
            Some(Fetch::UnderWay { by, .. }) => by != of,
            // Something was stored after all.
            Some(Fetch::Asked { .. } | Fetch::Unshared { .. } | Fetch::Lost) => fetched != Fetched::Stored,
            None => true,
        };
        if is_other {
            return;
        }
        match fetched {
            Fetched::Stored => drop(self.keys.remove(key)),
            Fetched::NotForOthers => self.keys.insert(key.clone(), Fetch::Unshared { since: Since(now_ms) }),
            Fetched::Lost => self.keys.insert(key.clone(), Fetch::Lost),
        }
    }

    fn lead(&mut self, key: &CacheKey, by: &str, now_ms: u64) {
        let again = matches!(self.keys.peek(key), Some(Fetch::Lost));
        let fetch = Fetch::UnderWay { by: by.to_owned(), since: Since(now_ms), again, joined: 0 };
        self.keys.insert(key.clone(), fetch);
    }
}

impl Fetch {
    /// Whether nobody heeds it any more.
    fn has_lapsed(&self, now_ms: u64) -> bool {
        match self {
            Self::UnderWay { since, .. } | Self::Asked { since, .. } => {
                !since.is_within(COLLAPSE_WAIT_MS.into(), now_ms)
            }
            Self::Unshared { since } => !since.is_within(UNSHARED_MS, now_ms),
            Self::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn key(text: &str) -> CacheKey {
        CacheKey(text.to_owned())
    }

    fn fetches() -> Fetches {
        Fetches::new(Keyed::default())
    }

    #[test]
    fn one_leads_and_the_others_wait_until_it_ends() {
        let mut fetches = fetches();
        assert_eq!(fetches.begin(&key("k"), "a", Patience::Any, NOW), Turn::Lead);
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Any, NOW), Turn::Wait("a".to_owned()));
        assert_eq!(fetches.begin(&key("k"), "c", Patience::None, NOW), Turn::Alone);
        assert_eq!(fetches.begin(&key("other"), "d", Patience::Any, NOW), Turn::Lead);
        fetches.end(&key("k"), "b", Fetched::Stored, NOW);
        assert!(fetches.is_under_way(&key("k"), "a"), "only the one that leads ends it");
        fetches.end(&key("k"), "a", Fetched::Stored, NOW);
        assert!(!fetches.is_under_way(&key("k"), "a"));
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Any, NOW), Turn::Lead);
    }

    #[test]
    fn who_asks_with_a_condition_leads_where_others_ask_as_well() {
        let mut fetches = fetches();
        let ask = |fetches: &mut Fetches, by: &str, now_ms| fetches.ask(&key("k"), by, Patience::Any, now_ms);
        assert_eq!(ask(&mut fetches, "a", NOW), Turn::Ask);
        fetches.asked(&key("k"), "other");
        assert_eq!(ask(&mut fetches, "b", NOW), Turn::Lead, "a crowd");
        fetches.asked(&key("k"), "a");
        assert_eq!(ask(&mut fetches, "c", NOW), Turn::Wait("b".to_owned()));
        fetches.end(&key("k"), "b", Fetched::NotForOthers, NOW);
        assert_eq!(ask(&mut fetches, "c", NOW), Turn::Alone);
        assert_eq!(ask(&mut fetches, "d", NOW + UNSHARED_MS), Turn::Ask, "alone again");
        fetches.asked(&key("k"), "d");
        assert_eq!(ask(&mut fetches, "e", NOW + UNSHARED_MS), Turn::Ask, "one after the other is no crowd");
        let lost_ms = NOW + UNSHARED_MS + u64::from(COLLAPSE_WAIT_MS);
        assert_eq!(ask(&mut fetches, "f", lost_ms), Turn::Ask, "the one before was lost");
        assert_eq!(fetches.begin(&key("k"), "g", Patience::Any, lost_ms), Turn::Lead);
    }

    #[test]
    fn who_follows_waits_and_never_leads() {
        let mut fetches = fetches();
        let follow = |fetches: &mut Fetches, now_ms| fetches.follow(&key("k"), "f", Patience::Any, now_ms);
        assert_eq!(follow(&mut fetches, NOW), Turn::Alone);
        fetches.ask(&key("k"), "a", Patience::Any, NOW);
        assert_eq!(follow(&mut fetches, NOW), Turn::Alone, "what is asked for may be a 304");
        fetches.begin(&key("k"), "b", Patience::Any, NOW);
        assert_eq!(follow(&mut fetches, NOW), Turn::Wait("b".to_owned()));
        assert_eq!(fetches.follow(&key("k"), "f", Patience::Again, NOW), Turn::Alone);
        assert_eq!(follow(&mut fetches, NOW + u64::from(COLLAPSE_WAIT_MS)), Turn::Alone, "lost");
        fetches.end(&key("k"), "b", Fetched::Lost, NOW);
        assert_eq!(follow(&mut fetches, NOW), Turn::Alone);
    }

    #[test]
    fn what_is_for_nobody_else_is_not_waited_for() {
        let mut fetches = fetches();
        fetches.begin(&key("k"), "a", Patience::Any, NOW);
        fetches.end(&key("k"), "a", Fetched::NotForOthers, NOW);
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Any, NOW + UNSHARED_MS - 1), Turn::Alone);
        fetches.end(&key("k"), "d", Fetched::Stored, NOW + 1);
        assert_eq!(
            fetches.begin(&key("k"), "c", Patience::Any, NOW + 1),
            Turn::Lead,
            "something was stored after all"
        );
        fetches.end(&key("k"), "c", Fetched::NotForOthers, NOW + 1);
        assert_eq!(
            fetches.begin(&key("k"), "d", Patience::Any, NOW + 1 + UNSHARED_MS),
            Turn::Lead,
            "tried anew"
        );
    }

    #[test]
    fn what_breaks_off_is_fetched_once_more_and_waited_for() {
        let mut fetches = fetches();
        fetches.begin(&key("k"), "a", Patience::Any, NOW);
        for fetched in [Fetched::Stored, Fetched::NotForOthers, Fetched::Lost] {
            fetches.end(&key("k"), "alone", fetched, NOW);
            assert!(
                fetches.is_under_way(&key("k"), "a"),
                "{fetched:?} is not what the one that leads fetched"
            );
        }
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Again, NOW), Turn::Alone);
        fetches.end(&key("k"), "a", Fetched::Lost, NOW);
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Again, NOW), Turn::Lead);
        assert_eq!(fetches.begin(&key("k"), "c", Patience::Again, NOW), Turn::Wait("b".to_owned()));
        fetches.end(&key("k"), "b", Fetched::Stored, NOW);
        assert_eq!(fetches.begin(&key("k"), "d", Patience::Any, NOW), Turn::Lead);
        assert_eq!(fetches.begin(&key("k"), "e", Patience::Again, NOW), Turn::Alone);
    }

    #[test]
    fn a_lost_fetch_lapses_whatever_the_clock_does() {
        let wait_ms = u64::from(COLLAPSE_WAIT_MS);
        for now_ms in [NOW + wait_ms, NOW - wait_ms, 0] {
            let mut fetches = fetches();
            fetches.begin(&key("k"), "lost", Patience::Any, NOW);
            assert_eq!(fetches.begin(&key("k"), "a", Patience::Any, now_ms), Turn::Lead, "{now_ms}");
            assert!(!fetches.is_under_way(&key("k"), "lost"));
        }
    }

    #[test]
    fn one_background_fetch_runs_at_a_time() {
        let mut fetches = fetches();
        assert!(fetches.begin_background(&key("k"), "a", NOW));
        assert!(!fetches.begin_background(&key("k"), "b", NOW + REVALIDATION_LOST_MS - 1));
        assert_eq!(fetches.begin(&key("k"), "c", Patience::Any, NOW), Turn::Wait("a".to_owned()));
        assert!(fetches.begin_background(&key("k"), "b", NOW + REVALIDATION_LOST_MS));
    }

    #[test]
    fn only_so_many_wait_for_one() {
        let mut fetches = fetches();
        fetches.begin(&key("k"), "a", Patience::Any, NOW);
        for _ in 0..COLLAPSE_JOINED_MAX {
            assert_eq!(fetches.begin(&key("k"), "b", Patience::Any, NOW), Turn::Wait("a".to_owned()));
        }
        assert_eq!(fetches.begin(&key("k"), "b", Patience::Any, NOW), Turn::Alone);
    }
}
