//! How much of a limit may pass at the most: what its name promises, and the overshoot that leases add.

use super::lease::lease_ms;
use crate::ruleset::{LimitAlgorithm, LimitScope, RateLimit};

/// The most units of one key that may pass in any `span_ms`, both ends included, however its requests differ in cost and
/// however many nodes they come through.
///
/// `counters` is how many count on their own: for scope `node` the nodes, for `global` 1, for `region` the regions' authorities
/// that the clients reach.
///
/// A node counts what passes when it passes. An authority counts when it grants a lease, of which a unit is spent up to
/// `late` after it was asked for: a tenth of the window, at least [`LEASE_MS_MIN`](crate::limits::LEASE_MS_MIN) and at most
/// [`LEASE_MS_MAX`](crate::limits::LEASE_MS_MAX). So what passes in any time `T` was counted in `T + late`: that is
/// `burst + quota × (T + late) / window` by the generic cell rate algorithm, and by a sliding window the quota for each window
/// that `T + late` takes, one that has begun included.
///
/// What is let through uncounted comes on top: all of a limit in shadow, and of one that fails open what comes while its
/// authority is away. An authority that loses its counts begins anew, and a lease outlives its time by as much as the clock of
/// its node is set back meanwhile.
///
/// So does what is forgotten: a node, and an authority that keeps its counters in memory alone, hold
/// [`LIMIT_KEYS_MAX`](crate::limits::LIMIT_KEYS_MAX) of them, of all limits and tenants. Where more count at once, tenants with
/// more than an even share lose those that owe the least. Each time that a key's counter goes, as much as it owed may pass once more:
/// at most the burst, or the quota of a sliding window. Leases that are forgotten let nothing more pass, as they were counted.
#[must_use]
pub fn passed_max(limit: &RateLimit, counters: u32, span_ms: u64) -> u64 {
    let late_ms = match limit.scope {
        LimitScope::Node => 0,
        LimitScope::Region | LimitScope::Global => lease_ms(limit.window_ms),
    };
    let (quota, window_ms) = (u128::from(limit.quota), u128::from(limit.window_ms.max(1)));
    let span_ms = u128::from(span_ms);
    let each = match limit.algorithm {
        LimitAlgorithm::Gcra => u128::from(limit.burst) + quota * (span_ms + u128::from(late_ms)) / window_ms,
        // A unit lapses before `late` has passed: its end is the one moment that is not included.
        LimitAlgorithm::SlidingWindow => {
            quota.saturating_mul((span_ms + u128::from(late_ms.max(1))).div_ceil(window_ms))
        }
    };
    u64::try_from(each.saturating_mul(u128::from(counters))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::limit;
    use super::*;

    #[test]
    fn leases_add_what_comes_back_while_they_last() {
        let check = |scope, algorithm, window_ms, counters, span_ms, expected| {
            let rule = RateLimit { algorithm, window_ms, ..limit("l", scope, 60, 60) };
            assert_eq!(
                passed_max(&rule, counters, span_ms),
                expected,
                "{scope:?} {algorithm:?} {span_ms} ms"
            );
        };
        use LimitAlgorithm::{Gcra, SlidingWindow};
        use LimitScope::{Global, Node, Region};
        check(Node, Gcra, 60_000, 1, 0, 60);
        check(Node, Gcra, 60_000, 1, 60_000, 120);
        check(Node, Gcra, 60_000, 8, 60_000, 960);
        check(Global, Gcra, 60_000, 1, 0, 65);
        check(Global, Gcra, 60_000, 1, 60_000, 125);
        check(Region, Gcra, 60_000, 3, 60_000, 375);
        check(Global, Gcra, 1_000, 1, 0, 120);
        check(Global, Gcra, 3_600_000, 1, 0, 60);
        check(Node, SlidingWindow, 60_000, 1, 59_999, 60);
        check(Node, SlidingWindow, 60_000, 1, 60_000, 120);
        check(Global, SlidingWindow, 60_000, 1, 55_000, 60);
        check(Global, SlidingWindow, 60_000, 1, 55_001, 120);
        check(Region, SlidingWindow, 60_000, 3, 55_001, 360);
        check(Region, Gcra, u64::MAX, u32::MAX, u64::MAX, u64::from(u32::MAX) * 120);
    }
}
