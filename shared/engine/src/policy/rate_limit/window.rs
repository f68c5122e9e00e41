//! A sliding window in equal slots: what passed in the window that ends now is at most the quota, whenever now is.
//!
//! A window is [`SLOTS`] slots and the one that has begun. A slot counts as a whole until its last moment has left the
//! window, so that no window of the limit's length ever holds more than the quota; a unit comes back up to one slot, a
//! tenth of the window, later than its own moment would have it.
//!
//! A clock that steps back moves the slots along: what was counted stays as old as it was. Steps back of less than
//! [`CLOCK_JITTER_MS`] count as no time at all.

use super::counter::Rate;
use crate::limits::CLOCK_JITTER_MS;

/// Whole slots in a window.
const SLOTS: u64 = 10;
/// Those and the slot that has begun.
const COUNTS: usize = 11;

/// One counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Number of the newest slot since the Unix epoch.
    pub(super) slot: u64,
    /// Units by slot, the newest first.
    pub(super) counts: [u32; COUNTS],
}

impl Window {
    /// An empty window.
    pub(super) fn at(rate: Rate, now_ms: u64) -> Self {
        Self { slot: now_ms / slot_ms(rate), counts: [0; COUNTS] }
    }

    /// Lets go of what has left the window.
    pub(super) fn settle(&mut self, rate: Rate, now_ms: u64) {
        let slot = now_ms / slot_ms(rate);
        if let Some(passed) = slot.checked_sub(self.slot) {
            let passed = usize::try_from(passed).unwrap_or(COUNTS).min(COUNTS);
            self.counts.rotate_right(passed);
            self.counts.iter_mut().take(passed).for_each(|count| *count = 0);
            self.slot = slot;
        } else if (self.slot - slot).saturating_mul(slot_ms(rate)) > CLOCK_JITTER_MS {
            self.slot = slot;
        }
    }

    fn used(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Units left. Settle first.
    pub(super) fn remaining(&self, rate: Rate) -> u32 {
        rate.quota().saturating_sub(self.used())
    }

    /// How long until `cost` units, at most the quota, may be taken; 0 is now. Settle first.
    pub(super) fn wait_ms(&self, rate: Rate, cost: u32, now_ms: u64) -> u64 {
        let mut short = cost.saturating_sub(self.remaining(rate));
        for (age, count) in self.counts.iter().enumerate().rev() {
            if short == 0 {
                break;
            }
            short = short.saturating_sub(*count);
            if short == 0 {
                return self.gone_ms(rate, age).saturating_sub(now_ms).max(1);
            }
        }
        0
    }

    /// How long until the window is empty. Settle first.
    pub(super) fn whole_ms(&self, rate: Rate, now_ms: u64) -> u64 {
        let newest = self.counts.iter().position(|count| *count > 0);
        newest.map_or(0, |age| self.gone_ms(rate, age).saturating_sub(now_ms))
    }

    /// When the slot of this age will have left.
    fn gone_ms(&self, rate: Rate, age: usize) -> u64 {
        let left = SLOTS.saturating_add(1).saturating_sub(age as u64);
        self.slot.saturating_add(left).saturating_mul(slot_ms(rate))
    }

    /// Takes `cost` units.
    pub(super) fn spend(&mut self, cost: u32) {
        if let Some(newest) = self.counts.first_mut() {
            *newest = newest.saturating_add(cost);
        }
    }
}

fn slot_ms(rate: Rate) -> u64 {
    rate.window_ms().div_ceil(SLOTS).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ruleset::LimitAlgorithm;

    fn rate(quota: u32, window_ms: u64) -> Rate {
        Rate::new(LimitAlgorithm::SlidingWindow, quota, window_ms, quota)
    }

    #[test]
    fn units_come_back_when_their_slot_has_left() {
        let rate = rate(5, 10_000);
        let mut window = Window::at(rate, 20_000);
        let mut take = |now_ms, cost| {
            window.settle(rate, now_ms);
            let wait_ms = window.wait_ms(rate, cost, now_ms);
            if wait_ms == 0 {
                window.spend(cost);
            }
            (window.remaining(rate), wait_ms)
        };
        assert_eq!(take(20_000, 2), (3, 0));
        assert_eq!(take(25_000, 3), (0, 0));
        assert_eq!(take(25_000, 1), (0, 6_000));
        assert_eq!(take(25_000, 3), (0, 11_000), "the first slot's two are not enough");
        assert_eq!(take(30_999, 1), (0, 1));
        assert_eq!(take(31_000, 1), (1, 0));
        assert_eq!(take(90_000, 5), (0, 0));
    }

    #[test]
    fn a_clock_that_steps_back_neither_locks_nor_frees() {
        let rate = rate(5, 10_000);
        let mut window = Window::at(rate, 1_000_000_000);
        window.spend(5);
        window.settle(rate, 1_000);
        assert_eq!(window.remaining(rate), 0);
        window.settle(rate, 12_000);
        assert_eq!(window.remaining(rate), 5, "an hour back costs no hour");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_quota(
            quota in 1u32..100,
            window_ms in 10u64..100_000,
            steps in proptest::collection::vec((0u64..20_000, 1u32..20), 1..200),
        ) {
            let rate = rate(quota, window_ms);
            let mut now_ms = 10_000_000;
            let mut window = Window::at(rate, now_ms);
            let mut passed: Vec<(u64, u32)> = Vec::new();
            for (step, cost) in steps {
                now_ms += step;
                window.settle(rate, now_ms);
                if cost <= quota && window.wait_ms(rate, cost, now_ms) == 0 {
                    window.spend(cost);
                    passed.push((now_ms, cost));
                }
                let inside = passed.iter().filter(|(at_ms, _)| at_ms + window_ms > now_ms);
                prop_assert!(inside.map(|(_, cost)| cost).sum::<u32>() <= quota);
            }
        }

        #[test]
        fn whoever_waits_as_told_passes_and_no_earlier(
            quota in 1u32..100,
            window_ms in 10u64..100_000,
            taken in proptest::collection::vec((0u64..5_000, 1u32..20), 1..50),
            cost in 1u32..20,
        ) {
            prop_assume!(cost <= quota);
            let rate = rate(quota, window_ms);
            let mut now_ms = 10_000_000;
            let mut window = Window::at(rate, now_ms);
            for (step, cost) in taken {
                now_ms += step;
                window.settle(rate, now_ms);
                if window.remaining(rate) >= cost {
                    window.spend(cost);
                }
            }
            let wait_ms = window.wait_ms(rate, cost, now_ms);
            if let Some(before_ms) = wait_ms.checked_sub(1).filter(|before_ms| *before_ms > 0) {
                let mut early = window;
                early.settle(rate, now_ms + before_ms);
                prop_assert!(early.remaining(rate) < cost);
            }
            window.settle(rate, now_ms + wait_ms);
            prop_assert!(window.remaining(rate) >= cost);
        }
    }
}
