//! A sliding window in equal slots: what passed in the window that ends now is at most the quota, whenever now is.
//!
//! A window is [`SLOTS`] slots and the one that has begun. A slot counts as a whole until its last moment has left the
//! window, so that no window of the limit's length ever holds more than the quota; a unit comes back up to one slot, a
//! tenth of the window, later than its own moment would have it.
//!
//! A clock that steps back takes no time, and no step of it does: slots are those of a time that counts on from where it was,
//! and only what the clock advances by after the step is added. Steps back of less than [`CLOCK_JITTER_MS`] are waited out, so
//! that exchanges whose clocks differ a little never count the same time twice.

use super::counter::Rate;
use crate::limits::CLOCK_JITTER_MS;

/// Whole slots in a window.
const SLOTS: u64 = 10;
/// Those and the slot that has begun.
const COUNTS: usize = 11;

/// One counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Number of the newest slot, in the window's own time.
    pub(super) slot: u64,
    /// Units by slot, the newest first.
    pub(super) counts: [u32; COUNTS],
    /// The last look, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// How far the window's own time is ahead of the clock: all that the clock was set back by.
    pub(super) ahead_ms: u64,
}

impl Window {
    /// An empty window.
    pub(super) fn at(rate: Rate, now_ms: u64) -> Self {
        Self { slot: now_ms / slot_ms(rate), counts: [0; COUNTS], at_ms: now_ms, ahead_ms: 0 }
    }

    /// Lets go of what has left the window.
    pub(super) fn settle(&mut self, rate: Rate, now_ms: u64) {
        match self.at_ms.checked_sub(now_ms) {
            None | Some(0) => self.at_ms = now_ms,
            Some(back_ms) if back_ms > CLOCK_JITTER_MS => {
                self.ahead_ms = self.ahead_ms.saturating_add(back_ms);
                self.at_ms = now_ms;
            }
            Some(_) => {}
        }
        let slot = self.own_ms(self.at_ms) / slot_ms(rate);
        let passed = usize::try_from(slot.saturating_sub(self.slot)).unwrap_or(COUNTS).min(COUNTS);
        self.counts.rotate_right(passed);
        self.counts.iter_mut().take(passed).for_each(|count| *count = 0);
        self.slot = self.slot.max(slot);
    }

    /// Whether the newest slot is the one of the last look, as it always is in slots of this rate's length.
    pub(super) fn is_of(&self, rate: Rate) -> bool {
        self.slot == self.own_ms(self.at_ms) / slot_ms(rate)
    }

    /// The window's own time at this time of the clock.
    fn own_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.ahead_ms)
    }

    fn used(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Units left. Settle first.
    pub(super) fn remaining(&self, rate: Rate) -> u32 {
        let left = u64::from(rate.quota()).saturating_sub(self.used());
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How long until `cost` units, at most the quota, may be taken; 0 is now. Settle first.
    pub(super) fn wait_ms(&self, rate: Rate, cost: u32, now_ms: u64) -> u64 {
        // More than the quota counts where the limit has become smaller.
        let mut short = (self.used() + u64::from(cost)).saturating_sub(rate.quota().into());
        for (age, count) in self.counts.iter().enumerate().rev() {
            if short == 0 {
                break;
            }
            short = short.saturating_sub(u64::from(*count));
            if short == 0 {
                return self.gone_ms(rate, age).saturating_sub(self.own_ms(now_ms)).max(1);
            }
        }
        0
    }

    /// How long until the window is empty. Settle first.
    pub(super) fn whole_ms(&self, rate: Rate, now_ms: u64) -> u64 {
        let newest = self.counts.iter().position(|count| *count > 0);
        newest.map_or(0, |age| self.gone_ms(rate, age).saturating_sub(self.own_ms(now_ms)))
    }

    /// When the slot of this age will have left, in the window's own time.
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

/// When a slot begins, in the window's own time.
pub(super) fn slot_begins_ms(rate: Rate, slot: u64) -> u64 {
    slot.saturating_mul(slot_ms(rate))
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
    fn who_used_more_than_a_smaller_quota_waits_for_as_much_to_leave() {
        let mut window = Window::at(rate(4, 10_000), 20_000);
        window.spend(2);
        window.settle(rate(4, 10_000), 25_000);
        window.spend(2);
        let smaller = rate(2, 10_000);
        // When the first two leave, two are too many still.
        assert_eq!(window.wait_ms(smaller, 1, 25_000), 11_000);
        window.settle(smaller, 36_000);
        assert_eq!(window.remaining(smaller), 2);
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

    #[test]
    fn small_steps_over_the_edge_of_a_slot_take_no_time() {
        let rate = rate(5, 60_000);
        let mut window = Window::at(rate, 600_000);
        window.spend(5);
        for now_ms in [599_999, 600_000].repeat(11) {
            window.settle(rate, now_ms);
            assert_eq!(window.remaining(rate), 0, "a millisecond back is no slot");
        }
        for now_ms in [598_000, 600_000].repeat(11) {
            window.settle(rate, now_ms);
        }
        assert_eq!(window.remaining(rate), 0, "22 seconds have passed, of 66");
        window.settle(rate, 600_000 + 65_999 - 22_000);
        assert_eq!(window.remaining(rate), 0);
        assert_eq!(window.wait_ms(rate, 1, 600_000 + 65_999 - 22_000), 1);
        window.settle(rate, 600_000 + 66_000 - 22_000);
        assert_eq!(window.remaining(rate), 5);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_quota(
            quota in 1u32..100,
            window_ms in 10u64..100_000,
            steps in proptest::collection::vec((-5_000i64..20_000, 1u32..20), 1..200),
        ) {
            let rate = rate(quota, window_ms);
            let (mut now_ms, mut high_ms) = (10_000_000u64, 10_000_000u64);
            // Time as somebody without the counter would measure it: each moment once, and again after a real step back.
            let mut passed_ms = 0;
            let mut window = Window::at(rate, now_ms);
            let mut passed: Vec<(u64, u32)> = Vec::new();
            for (step, cost) in steps {
                now_ms = now_ms.checked_add_signed(step).unwrap();
                if now_ms >= high_ms {
                    passed_ms += now_ms - high_ms;
                    high_ms = now_ms;
                } else if high_ms - now_ms > CLOCK_JITTER_MS {
                    high_ms = now_ms;
                }
                window.settle(rate, now_ms);
                if cost <= quota && window.wait_ms(rate, cost, now_ms) == 0 {
                    window.spend(cost);
                    passed.push((passed_ms, cost));
                }
                let inside = passed.iter().filter(|(at_ms, _)| at_ms + window_ms > passed_ms);
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
