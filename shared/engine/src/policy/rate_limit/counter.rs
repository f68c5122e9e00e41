//! The counter of one key of a limit, by either algorithm, and a bounded set of them.

use std::sync::Arc;

use super::gcra::Gcra;
use super::window::{self, Window};
use crate::bounded::Keyed;
use crate::fair::Fair;
use crate::limits::LIMIT_DEPTH_NS_MAX;
use crate::ruleset::LimitAlgorithm;

pub(super) const NS_PER_MS: u64 = 1_000_000;

/// The most units that may be taken at once where so many come back in a window: as many as come back within
/// [`LIMIT_DEPTH_NS_MAX`]. None where the quota is 0.
#[must_use]
pub fn burst_max(quota: u32, window_ms: u64) -> u32 {
    u32::try_from(LIMIT_DEPTH_NS_MAX / unit_ns(quota, window_ms)).unwrap_or(u32::MAX)
}

/// How long a unit takes to come back: at least 1.
fn unit_ns(quota: u32, window_ms: u64) -> u64 {
    let window_ns = u128::from(window_ms) * u128::from(NS_PER_MS);
    match u128::from(quota) {
        0 => u64::MAX,
        quota => u64::try_from(window_ns.div_ceil(quota)).unwrap_or(u64::MAX).max(1),
    }
}

/// How fast a limit refills and how much it bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    algorithm: LimitAlgorithm,
    quota: u32,
    window_ms: u64,
    burst: u32,
    unit_ns: u64,
}

impl Rate {
    /// `burst` is for the generic cell rate algorithm, [`burst_max`] at the most; a sliding window bears its quota.
    pub(super) fn new(algorithm: LimitAlgorithm, quota: u32, window_ms: u64, burst: u32) -> Self {
        let burst = match algorithm {
            LimitAlgorithm::Gcra => burst.min(burst_max(quota, window_ms)),
            LimitAlgorithm::SlidingWindow => quota,
        };
        Self { algorithm, quota, window_ms, burst, unit_ns: unit_ns(quota, window_ms) }
    }

    pub(super) fn quota(self) -> u32 {
        self.quota
    }

    pub(super) fn window_ms(self) -> u64 {
        self.window_ms
    }

    pub(super) fn burst(self) -> u32 {
        self.burst
    }

    pub(super) fn unit_ns(self) -> u64 {
        self.unit_ns
    }

    pub(super) fn units_ns(self, units: u32) -> u64 {
        self.unit_ns.saturating_mul(u64::from(units))
    }

    pub(super) fn depth_ns(self) -> u64 {
        self.units_ns(self.burst)
    }

    /// Whether a request of this cost could ever pass.
    pub(super) fn bears(self, cost: u32) -> bool {
        cost <= self.burst
    }
}

/// What one key has used of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    rate: Rate,
    used: Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    Gcra(Gcra),
    Window(Window),
}

impl Counter {
    fn new(rate: Rate, now_ms: u64) -> Self {
        let used = match rate.algorithm {
            LimitAlgorithm::Gcra => Used::Gcra(Gcra { debt_ns: 0, at_ms: now_ms }),
            LimitAlgorithm::SlidingWindow => Used::Window(Window::at(rate, now_ms)),
        };
        Self { rate, used }
    }

    /// Follows the clock, and the limit where that is another one now.
    fn settle(&mut self, rate: Rate, now_ms: u64) {
        let is_other = self.rate.algorithm != rate.algorithm || self.rate.window_ms != rate.window_ms;
        self.rate = rate;
        match &mut self.used {
            Used::Gcra(used) if rate.algorithm == LimitAlgorithm::Gcra => used.settle(rate, now_ms),
            Used::Window(used) if !is_other => used.settle(rate, now_ms),
            // Slots of another length say nothing, and neither does the other algorithm's count.
            _ => *self = Self::new(rate, now_ms),
        }
    }

    /// How long until `cost` units may be taken; 0 is now.
    pub(super) fn wait_ms(&self, cost: u32, now_ms: u64) -> u64 {
        match &self.used {
            Used::Gcra(used) => used.wait_ms(self.rate, cost),
            Used::Window(used) => used.wait_ms(self.rate, cost, now_ms),
        }
    }

    /// Whether `cost` units may be taken.
    pub(super) fn allows(&self, cost: u32, now_ms: u64) -> bool {
        self.rate.bears(cost) && self.wait_ms(cost, now_ms) == 0
    }

    /// Takes `cost` units.
    pub(super) fn spend(&mut self, cost: u32) {
        match &mut self.used {
            Used::Gcra(used) => used.spend(self.rate, cost),
            Used::Window(used) => used.spend(cost),
        }
    }

    /// Units left.
    pub(super) fn remaining(&self) -> u32 {
        match &self.used {
            Used::Gcra(used) => used.remaining(self.rate),
            Used::Window(used) => used.remaining(self.rate),
        }
    }

    /// How long until there are more units than now; `None` where all are there.
    pub(super) fn more_ms(&self, now_ms: u64) -> Option<u64> {
        let left = self.remaining();
        (left < self.rate.burst()).then(|| self.wait_ms(left.saturating_add(1), now_ms))
    }

    /// When nothing counts any more: what a counter is then, a new one would be too.
    fn whole_at_ms(&self) -> u64 {
        match &self.used {
            Used::Gcra(used) => used.whole_at_ms(),
            Used::Window(used) => used.whole_ms(self.rate, 0),
        }
    }

    /// As text, [`Counter::whole_at_ms`] first.
    pub(super) fn write(&self) -> String {
        let whole_at_ms = self.whole_at_ms();
        match &self.used {
            Used::Gcra(_) => whole_at_ms.to_string(),
            Used::Window(used) => {
                let counts: Vec<_> = used.counts.iter().map(u32::to_string).collect();
                let counts = counts.join(",");
                format!("{whole_at_ms} {} {counts} {} {}", used.slot, used.at_ms, used.ahead_ms)
            }
        }
    }

    /// What [`Counter::write`] gave, of a limit of this rate. `None` for what can't be read, and for what was counted in slots
    /// of another length: a limit that is changed starts anew, as in [`Counter::settle`].
    pub(super) fn read(text: &str, rate: Rate) -> Option<Self> {
        let mut words = text.split(' ');
        let whole_at_ms = words.next()?.parse().ok()?;
        let used = match (rate.algorithm, words.next()) {
            (LimitAlgorithm::Gcra, None) => Used::Gcra(Gcra::of_arrival(whole_at_ms)),
            (LimitAlgorithm::SlidingWindow, Some(slot)) => {
                let counts: Result<Vec<u32>, _> = words.next()?.split(',').map(str::parse).collect();
                let slot = slot.parse().ok()?;
                // Before there were the two, the beginning of the newest slot was all that was known of the last look.
                let at_ms =
                    words.next().map_or(Some(window::slot_begins_ms(rate, slot)), |at| at.parse().ok())?;
                let ahead_ms = words.next().map_or(Some(0), |ahead| ahead.parse().ok())?;
                let counts = counts.ok()?.try_into().ok()?;
                let used = Window { slot, counts, at_ms, ahead_ms };
                // The text has no length of a slot, but its numbers only agree where it is the same.
                if !used.is_of(rate) || used.whole_ms(rate, 0) != whole_at_ms {
                    return None;
                }
                Used::Window(used)
            }
            _ => return None,
        };
        Some(Self { rate, used })
    }
}

/// Whom a limit counts, hashed.
pub(super) type KeyHash = [u8; 32];

/// At most `max` counters of all tenants. When there is no room, those that are whole again are forgotten, which changes
/// nothing; if too many still owe, tenants with more than an even share lose those that owe the least.
#[derive(Debug)]
pub(super) struct Counters(Fair<KeyHash, Counter>);

impl Counters {
    pub(super) fn new(max: usize, keyed: Keyed) -> Self {
        Self(Fair::new(max, keyed))
    }

    /// The counter of a tenant's key, settled.
    pub(super) fn get(&mut self, tenant: &Arc<str>, key: KeyHash, rate: Rate, now_ms: u64) -> &mut Counter {
        self.make_room(tenant, &key, now_ms);
        let counter = self.0.get_or_insert_with(tenant, key, || Counter::new(rate, now_ms));
        counter.settle(rate, now_ms);
        counter
    }

    /// The counter of a tenant's key as it was left.
    pub(super) fn peek(&self, tenant: &str, key: &KeyHash) -> Option<&Counter> {
        self.0.get(tenant, key)
    }

    /// Puts a counter in the place of the one that is there.
    pub(super) fn restore(&mut self, tenant: &Arc<str>, key: KeyHash, counter: Counter, now_ms: u64) {
        self.make_room(tenant, &key, now_ms);
        *self.0.get_or_insert_with(tenant, key, || counter) = counter;
    }

    fn make_room(&mut self, tenant: &str, key: &KeyHash, now_ms: u64) {
        if self.0.is_full_for(tenant, key) {
            self.0.retain(|counter| counter.whole_at_ms() > now_ms);
            self.0.make_room(Counter::whole_at_ms, |_, _| {});
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcra(quota: u32, window_ms: u64, burst: u32) -> Rate {
        Rate::new(LimitAlgorithm::Gcra, quota, window_ms, burst)
    }

    #[test]
    fn a_burst_comes_back_within_what_can_be_counted() {
        const DAY_MS: u64 = 86_400_000;
        let check = |quota, window_ms, burst, expected| {
            let rate = gcra(quota, window_ms, burst);
            assert_eq!(rate.burst(), expected, "{quota} in {window_ms} ms, {burst} at once");
            assert!(rate.depth_ns() <= LIMIT_DEPTH_NS_MAX && rate.unit_ns() > 0);
        };
        check(10, 30 * DAY_MS, 100_000, 35_583);
        check(1, 366 * DAY_MS, 1_000, 291);
        check(1, 366 * DAY_MS, 291, 291);
        check(u32::MAX, 366 * DAY_MS, u32::MAX, u32::MAX);
        check(u32::MAX, 1, u32::MAX, u32::MAX);
        check(1, u64::MAX, 10, 0);
        check(0, 60_000, 10, 0);
    }

    #[test]
    fn more_is_there_when_one_more_unit_is() {
        let window = Rate::new(LimitAlgorithm::SlidingWindow, 5, 10_000, 5);
        for (rate, next_ms) in
            [(gcra(5, 10_000, 5), [2_000, 2_000, 1_500]), (window, [11_000, 11_000, 10_500])]
        {
            let mut counter = Counter::new(rate, 20_000);
            assert_eq!(counter.more_ms(20_000), None, "{rate:?}");
            counter.spend(1);
            assert_eq!(counter.more_ms(20_000), Some(next_ms[0]), "{rate:?}");
            counter.spend(4);
            assert_eq!(counter.more_ms(20_000), Some(next_ms[1]), "{rate:?}");
            counter.settle(rate, 20_500);
            assert_eq!(counter.more_ms(20_500), Some(next_ms[2]), "{rate:?}");
            counter.settle(rate, 40_000);
            assert_eq!(counter.more_ms(40_000), None, "{rate:?}");
        }
    }

    #[test]
    fn counters_are_bounded_and_whole_ones_go_first() {
        let (rate, acme) = (gcra(1, 1_000, 10), Arc::from("acme"));
        let mut counters = Counters::new(16, Keyed::default());
        let key = |n: u8| [n; 32];
        for n in 0..16 {
            counters.get(&acme, key(n), rate, 0).spend(if n < 8 { 1 } else { 10 });
        }
        counters.get(&acme, key(100), rate, 1_000);
        assert_eq!(counters.len(), 9, "the eight whole ones went");
        for n in 0..200 {
            counters.get(&acme, key(n), rate, 1_000).spend(1);
            assert!(counters.len() <= 16);
        }
        assert_eq!(counters.get(&acme, key(15), rate, 1_000).remaining(), 0, "who owes most stays");
    }

    #[test]
    fn what_a_forgotten_counter_owed_may_be_had_once_more() {
        let (rate, acme) = (gcra(1, 60_000, 10), Arc::from("acme"));
        let mut counters = Counters::new(16, Keyed::default());
        counters.get(&acme, [0; 32], rate, 0).spend(3);
        for n in 1..16 {
            counters.get(&acme, [n; 32], rate, 0).spend(10);
        }
        assert_eq!(counters.get(&acme, [0; 32], rate, 0).remaining(), 7);
        counters.get(&acme, [16; 32], rate, 0).spend(10);
        assert_eq!(counters.get(&acme, [0; 32], rate, 0).remaining(), 10, "its burst and no more");
    }

    #[test]
    fn a_flood_of_one_tenants_keys_leaves_the_others_their_counts() {
        let rate = gcra(1, 1_000, 10);
        let mut counters = Counters::new(100, Keyed::default());
        let (acme, globex) = (Arc::from("acme"), Arc::from("globex"));
        for n in 0..40 {
            counters.get(&globex, [n; 32], rate, 0).spend(1);
        }
        for n in 0..10_000u32 {
            let mut key = [255; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            counters.get(&acme, key, rate, 0).spend(10);
            assert!(counters.len() <= 100);
        }
        for n in 0..40 {
            assert_eq!(counters.get(&globex, [n; 32], rate, 0).remaining(), 9);
        }
    }

    #[test]
    fn what_is_kept_elsewhere_comes_back() {
        let window = Rate::new(LimitAlgorithm::SlidingWindow, 10, 60_000, 10);
        for rate in [gcra(10, 60_000, 10), window] {
            let mut counter = Counter::new(rate, 120_000);
            counter.spend(4);
            let text = counter.write();
            let mut back = Counter::read(&text, rate).unwrap();
            back.settle(rate, 120_000);
            assert_eq!((back.remaining(), back.write()), (6, text), "{rate:?}");
        }
        let before = Counter::read("186000 20 4,0,0,0,0,0,0,0,0,0,0", window).unwrap();
        assert_eq!((before.remaining(), before.whole_at_ms()), (6, 186_000), "as it was written before");
        for text in ["", "x", "1 2", "1 2 3,4", "1 2 1,2,3,4,5,6,7,8,9,10,x"] {
            assert_eq!(Counter::read(text, window), None, "{text:?}");
        }
    }

    #[test]
    fn what_was_counted_in_slots_of_another_length_is_not_read() {
        let sliding = |window_ms| Rate::new(LimitAlgorithm::SlidingWindow, 10, window_ms, 10);
        let mut counter = Counter::new(sliding(60_000), 1_800_000_000_000);
        counter.spend(4);
        let text = counter.write();
        let before: String = text.split(' ').take(3).collect::<Vec<_>>().join(" ");
        for text in [&text, &before] {
            assert!(Counter::read(text, sliding(60_000)).is_some(), "{text}");
            for window_ms in [1_000, 30_000, 61_000, 3_600_000, 86_400_000] {
                assert_eq!(Counter::read(text, sliding(window_ms)), None, "{text} under {window_ms} ms");
            }
        }
        // An hour's slots, numbered as if they were those of a minute: the end is right for that, the last look is not.
        let misread = "108000003960000 300000000 4,0,0,0,0,0,0,0,0,0,0 1800000000000 0";
        assert_eq!(Counter::read(misread, sliding(3_600_000)), None);
    }

    #[test]
    fn a_limit_that_changes_is_counted_anew_where_its_count_says_nothing() {
        let sliding = |window_ms| Rate::new(LimitAlgorithm::SlidingWindow, 10, window_ms, 10);
        let left = |from: Rate, to: Rate| {
            let mut counter = Counter::new(from, 0);
            counter.spend(4);
            counter.settle(to, 0);
            counter.remaining()
        };
        assert_eq!(left(gcra(10, 60_000, 10), gcra(10, 60_000, 20)), 16);
        assert_eq!(left(sliding(60_000), Rate::new(LimitAlgorithm::SlidingWindow, 20, 60_000, 20)), 16);
        assert_eq!(left(sliding(60_000), sliding(30_000)), 10);
        assert_eq!(left(sliding(60_000), gcra(10, 60_000, 10)), 10);
    }
}
