//! The authority's side of a limit that several edges share: it alone counts, and hands out leases of the quota.
//!
//! A lease is counted when it is granted, so whatever the edges do, what passes is at most what was granted. What an edge
//! doesn't spend before its lease lapses is lost to the client: at most `1 / LEASE_SHARE` of what was left for each edge and
//! life of a lease. Units may be spent up to a lease's life after they were counted: what that adds to the limit in any time,
//! [`passed_max`](super::passed_max) says.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::counter::{Counter, Counters, Rate};
use super::lease::lease_ms;
use crate::bounded::Keyed;
use crate::limits::{LEASE_SHARE, LEASE_UNITS_MAX, LIMIT_KEYS_MAX};
use crate::step::{Lease, Take};

/// Grants from one counter: `amount` at most, `cost` at the least, or nothing. The counter is changed only by what is
/// granted.
fn grant(counter: &mut Counter, rate: Rate, take: &Take, now_ms: u64) -> Lease {
    let available = counter.remaining();
    if !counter.allows(take.cost, now_ms) {
        let wait_ms = if rate.bears(take.cost) { counter.wait_ms(take.cost, now_ms) } else { take.window_ms };
        let reset_ms = counter.more_ms(now_ms).unwrap_or(0);
        return Lease { granted: 0, remaining: available, reset_ms, wait_ms, expires_ms: now_ms };
    }
    let share = (available / LEASE_SHARE).min(LEASE_UNITS_MAX);
    let granted = take.amount.min(share).max(take.cost);
    counter.spend(granted);
    Lease {
        granted,
        remaining: counter.remaining(),
        reset_ms: counter.more_ms(now_ms).unwrap_or(0),
        wait_ms: 0,
        expires_ms: now_ms.saturating_add(lease_ms(take.window_ms)),
    }
}

/// The counters of all limits that an authority keeps, at most [`LIMIT_KEYS_MAX`], of which each tenant has its share.
#[derive(Debug)]
pub struct Authority {
    counters: Counters,
}

impl Default for Authority {
    fn default() -> Self {
        Self { counters: Counters::new(LIMIT_KEYS_MAX, Keyed::default()) }
    }
}

impl Authority {
    /// Grants what can be granted: `amount` at most, `cost` at the least, or nothing.
    pub fn take(&mut self, take: &Take, now_ms: u64) -> Lease {
        let rate = rate(take);
        let tenant = Arc::from(take.tenant.as_str());
        grant(self.counters.get(&tenant, hash(take), rate, now_ms), rate, take, now_ms)
    }

    /// What has to be kept of the counter that `take` is about, for an authority that does not stay in memory. `None` where
    /// it is not in memory.
    #[must_use]
    pub fn saved(&self, take: &Take) -> Option<String> {
        self.counters.peek(&take.tenant, &hash(take)).map(Counter::write)
    }

    /// When what [`Authority::saved`] gave is of no use any more, in milliseconds since the Unix epoch. `None` where it is
    /// something else.
    #[must_use]
    pub fn whole_at_ms(saved: &str) -> Option<u64> {
        saved.split(' ').next()?.parse().ok()
    }

    /// Puts back what [`Authority::saved`] gave, before [`Authority::take`]. What can't be read is left out, and so is what was
    /// counted by a sliding window of another length.
    pub fn restore(&mut self, take: &Take, saved: &str, now_ms: u64) {
        if let Some(counter) = Counter::read(saved, rate(take)) {
            self.counters.restore(&take.tenant.as_str().into(), hash(take), counter, now_ms);
        }
    }
}

fn rate(take: &Take) -> Rate {
    Rate::new(take.algorithm, take.quota, take.window_ms, take.burst)
}

fn hash(take: &Take) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&take.tenant, &take.limit, &take.key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{LimitAlgorithm, LimitScope};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn ask(tenant: &str, key: &str, amount: u32, cost: u32) -> Take {
        let (quota, window_ms, burst) = (60, 60_000, 40);
        let (scope, algorithm) = (LimitScope::Region, LimitAlgorithm::Gcra);
        Take {
            tenant: tenant.to_owned(),
            limit: "l".to_owned(),
            key: key.to_owned(),
            amount,
            cost,
            scope,
            region: "us-east-1".into(),
            others: Vec::new(),
            algorithm,
            quota,
            window_ms,
            burst,
        }
    }

    #[test]
    fn grants_are_bounded_by_what_is_asked_and_by_a_share_of_what_is_left() {
        let mut authority = Authority::default();
        let mut granted = |amount, cost| authority.take(&ask("acme", "k", amount, cost), NOW_MS).granted;
        assert_eq!(granted(1, 1), 1);
        assert_eq!(granted(100, 1), 39 / LEASE_SHARE);
        assert_eq!(granted(0, 20), 20, "a request is never cut");
        assert_eq!(granted(1, 30), 0);
    }

    #[test]
    fn the_last_units_are_granted_and_then_the_wait_is_told() {
        let mut authority = Authority::default();
        let total: u32 = (0..100).map(|_| authority.take(&ask("acme", "k", 10, 1), NOW_MS).granted).sum();
        assert_eq!(total, 40);
        let lease = authority.take(&ask("acme", "k", 10, 1), NOW_MS);
        assert_eq!((lease.granted, lease.remaining, lease.reset_ms, lease.wait_ms), (0, 0, 1_000, 1_000));
        assert_eq!(authority.take(&ask("acme", "k", 10, 1), NOW_MS + 1_000).granted, 1);
        assert_eq!(authority.take(&ask("globex", "k", 1, 1), NOW_MS).granted, 1, "another tenant");
        assert_eq!(authority.take(&ask("acme", "k2", 1, 1), NOW_MS).granted, 1, "another key");
    }

    #[test]
    fn a_counter_survives_its_authority() {
        let mut first = Authority::default();
        let take = ask("acme", "k", 1, 1);
        assert_eq!(first.saved(&take), None);
        while first.take(&take, NOW_MS).granted > 0 {}
        let mut second = Authority::default();
        second.restore(&take, &first.saved(&take).unwrap(), NOW_MS + 500);
        assert_eq!(second.take(&take, NOW_MS + 500).granted, 0);
        assert_eq!(second.take(&take, NOW_MS + 1_000), first.take(&take, NOW_MS + 1_000));
    }

    #[test]
    fn a_counter_that_comes_back_under_another_window_locks_nobody() {
        const HOUR_MS: u64 = 3_600_000;
        for algorithm in [LimitAlgorithm::SlidingWindow, LimitAlgorithm::Gcra] {
            for (before_ms, after_ms) in [(60_000, HOUR_MS), (HOUR_MS, 60_000)] {
                let of = |window_ms| Take { algorithm, window_ms, burst: 60, ..ask("acme", "k", 50, 50) };
                let mut first = Authority::default();
                assert_eq!(first.take(&of(before_ms), NOW_MS).granted, 50);
                let saved = first.saved(&of(before_ms)).unwrap();
                let mut second = Authority::default();
                second.restore(&of(after_ms), &saved, NOW_MS);
                // Whatever the old count is worth, the new limit bears no longer wait than its own.
                let answer = second.take(&of(after_ms), NOW_MS);
                assert!(answer.wait_ms <= after_ms + after_ms / 10, "{algorithm:?}: {answer:?}");
                let later_ms = NOW_MS + after_ms + after_ms / 10;
                assert_eq!(second.take(&of(after_ms), later_ms).granted, 50, "{algorithm:?}");
                let whole_at_ms = Authority::whole_at_ms(&second.saved(&of(after_ms)).unwrap()).unwrap();
                assert!(whole_at_ms <= later_ms + after_ms + after_ms / 10, "{algorithm:?}: it is swept");
            }
        }
    }

    #[test]
    fn a_cost_beyond_the_burst_never_passes() {
        let lease = Authority::default().take(&ask("acme", "k", 50, 41), NOW_MS);
        assert_eq!((lease.granted, lease.reset_ms, lease.wait_ms), (0, 0, 60_000), "all units are there");
    }

    #[test]
    fn when_there_is_more_is_told_apart_from_when_there_is_enough() {
        let mut authority = Authority::default();
        let lease = authority.take(&ask("acme", "k", 38, 38), NOW_MS);
        assert_eq!((lease.granted, lease.remaining, lease.reset_ms, lease.wait_ms), (38, 2, 1_000, 0));
        let lease = authority.take(&ask("acme", "k", 8, 8), NOW_MS + 400);
        assert_eq!((lease.granted, lease.remaining, lease.reset_ms, lease.wait_ms), (0, 2, 600, 5_600));
    }
}
