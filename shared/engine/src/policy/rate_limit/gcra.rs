//! The generic cell rate algorithm in integers.
//!
//! A unit costs `unit_ns = ⌈window / quota⌉` nanoseconds of debt, a limit bears `depth_ns = burst × unit_ns` of it, and
//! time pays debt off one for one. A request of `cost` units passes iff `debt_ns + cost × unit_ns ≤ depth_ns`. (The usual
//! "theoretical arrival time" is the time of the last look plus the debt.) Rounding up can only grant less, by less than
//! `quota` nanoseconds a window. What passes in any time is thus at most `burst + quota × time / window`. A depth is at most
//! [`LIMIT_DEPTH_NS_MAX`](crate::limits::LIMIT_DEPTH_NS_MAX), which the debt and the cost of a request that may pass overflow
//! not even together.
//!
//! A clock that steps back pays nothing and takes nothing: debt is kept as a duration, and only the time of the last look
//! moves. Steps back of less than [`CLOCK_JITTER_MS`] count as no time at all, so that exchanges whose clocks differ a
//! little never pay the same time twice.

use super::counter::{NS_PER_MS, Rate};
use crate::limits::CLOCK_JITTER_MS;

/// One counter: the debt at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Debt, in nanoseconds of the limit's time.
    pub(super) debt_ns: u64,
    /// The last look, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
}

impl Gcra {
    /// Pays off what the time since the last look is worth.
    pub(super) fn settle(&mut self, rate: Rate, now_ms: u64) {
        if let Some(passed_ms) = now_ms.checked_sub(self.at_ms) {
            self.debt_ns = self.debt_ns.saturating_sub(passed_ms.saturating_mul(NS_PER_MS));
            self.at_ms = now_ms;
        } else if self.at_ms - now_ms > CLOCK_JITTER_MS {
            self.at_ms = now_ms;
        }
        // A rule that has become smaller must not lock anybody out for longer than it would itself.
        self.debt_ns = self.debt_ns.min(rate.depth_ns());
    }

    /// How long until `cost` units may be taken; 0 is now. Settle first.
    pub(super) fn wait_ms(&self, rate: Rate, cost: u32) -> u64 {
        let over_ns = self.debt_ns.saturating_add(rate.units_ns(cost)).saturating_sub(rate.depth_ns());
        over_ns.div_ceil(NS_PER_MS)
    }

    /// Takes `cost` units.
    pub(super) fn spend(&mut self, rate: Rate, cost: u32) {
        self.debt_ns = self.debt_ns.saturating_add(rate.units_ns(cost));
    }

    /// Units left. Settle first.
    pub(super) fn remaining(&self, rate: Rate) -> u32 {
        let left = rate.depth_ns().saturating_sub(self.debt_ns) / rate.unit_ns().max(1);
        u32::try_from(left).unwrap_or(u32::MAX).min(rate.burst())
    }

    /// How long until nothing is owed. Settle first.
    pub(super) fn whole_ms(&self) -> u64 {
        self.debt_ns.div_ceil(NS_PER_MS)
    }

    /// The counter with this theoretical arrival time.
    pub(super) fn of_arrival(arrival_ms: u64) -> Self {
        Self { debt_ns: arrival_ms.saturating_mul(NS_PER_MS), at_ms: 0 }
    }

    /// The theoretical arrival time, when nothing is owed any more: what a counter is then, a new one would be too.
    pub(super) fn whole_at_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.whole_ms())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ruleset::LimitAlgorithm;

    fn rate(quota: u32, window_ms: u64, burst: u32) -> Rate {
        Rate::new(LimitAlgorithm::Gcra, quota, window_ms, burst)
    }

    fn allows(counter: &Gcra, rate: Rate, cost: u32) -> bool {
        rate.bears(cost) && counter.wait_ms(rate, cost) == 0
    }

    #[test]
    fn units_come_back_evenly() {
        let rate = rate(60, 60_000, 5);
        let mut counter = Gcra::default();
        let mut take = |now_ms, cost| {
            counter.settle(rate, now_ms);
            let passes = allows(&counter, rate, cost);
            if passes {
                counter.spend(rate, cost);
            }
            (passes, counter.remaining(rate), counter.wait_ms(rate, cost))
        };
        for left in (0..5).rev() {
            assert!(matches!(take(1_000, 1), (true, remaining, _) if remaining == left));
        }
        assert_eq!(take(1_000, 1), (false, 0, 1_000));
        assert_eq!(take(1_999, 1), (false, 0, 1));
        assert_eq!(take(2_000, 1), (true, 0, 1_000));
        assert_eq!(take(5_000, 3), (true, 0, 3_000));
        assert_eq!(take(60_000, 6), (false, 5, 1_000), "beyond the burst: never");
    }

    #[test]
    fn a_quota_of_nothing_grants_nothing() {
        let rate = rate(0, 60_000, 5);
        assert!(!allows(&Gcra::default(), rate, 1));
        assert_eq!(Gcra::default().remaining(rate), 0);
    }

    #[test]
    fn a_clock_that_steps_back_neither_locks_nor_frees() {
        let rate = rate(60, 60_000, 5);
        let mut counter = Gcra { debt_ns: 0, at_ms: 1_000_000_000 };
        counter.spend(rate, 5);
        counter.settle(rate, 1_000);
        assert!(!allows(&counter, rate, 1));
        counter.settle(rate, 2_000);
        assert!(allows(&counter, rate, 1), "an hour back costs no hour");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_quota_by_time(
            quota in 1u32..1_000,
            window_ms in 1u64..100_000,
            burst in 1u32..1_000,
            steps in proptest::collection::vec((-5_000i64..20_000, 1u32..50), 1..300),
        ) {
            let rate = rate(quota, window_ms, burst);
            let mut counter = Gcra { debt_ns: 0, at_ms: 10_000_000 };
            let (mut now_ms, mut high_ms) = (10_000_000u64, 10_000_000u64);
            let (mut passed_ms, mut granted) = (0u64, 0u64);
            for (step, cost) in steps {
                now_ms = now_ms.checked_add_signed(step).unwrap();
                // Time as somebody without the counter would measure it: each moment once, and again after a real step back.
                if now_ms >= high_ms {
                    passed_ms += now_ms - high_ms;
                    high_ms = now_ms;
                } else if high_ms - now_ms > CLOCK_JITTER_MS {
                    high_ms = now_ms;
                }
                counter.settle(rate, now_ms);
                if allows(&counter, rate, cost) {
                    counter.spend(rate, cost);
                    granted += u64::from(cost);
                }
                let bound = u128::from(burst) * u128::from(window_ms) + u128::from(quota) * u128::from(passed_ms);
                prop_assert!(u128::from(granted) * u128::from(window_ms) <= bound);
            }
        }

        #[test]
        fn no_burst_is_too_large_and_no_window_too_long_to_be_counted(
            quota in 1u32..1_000,
            window_ms in 1_000u64..=366 * 86_400_000,
            burst in any::<u32>(),
            steps in proptest::collection::vec((0u64..86_400_000, 0u32..=100), 1..100),
        ) {
            let rate = rate(quota, window_ms, burst);
            let (mut counter, mut now_ms, mut granted) = (Gcra::default(), 0u64, 0u64);
            for (step_ms, percent) in steps {
                now_ms += step_ms;
                let cost = (burst / 100).saturating_mul(percent).max(1);
                counter.settle(rate, now_ms);
                if allows(&counter, rate, cost) {
                    counter.spend(rate, cost);
                    granted += u64::from(cost);
                }
                let bound = u128::from(burst) * u128::from(window_ms) + u128::from(quota) * u128::from(now_ms);
                prop_assert!(u128::from(granted) * u128::from(window_ms) <= bound);
            }
        }

        #[test]
        fn whoever_waits_as_told_passes(
            quota in 1u32..100_000,
            window_ms in 1u64..1_000_000,
            burst in 1u32..1_000,
            debts in proptest::collection::vec(1u32..50, 1..50),
            cost in 1u32..50,
        ) {
            prop_assume!(cost <= burst);
            let rate = rate(quota, window_ms, burst);
            let mut counter = Gcra { debt_ns: 0, at_ms: 1_000 };
            for cost in debts {
                if allows(&counter, rate, cost) {
                    counter.spend(rate, cost);
                }
            }
            let wait_ms = counter.wait_ms(rate, cost);
            counter.settle(rate, 1_000 + wait_ms);
            prop_assert!(allows(&counter, rate, cost));
        }
    }
}
