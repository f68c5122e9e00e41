//! How long a service takes to answer: an exponentially weighted mean that is forgotten as it ages.
//!
//! What is not known is what light in glass would need there and back over the distance, and a little for the server. A
//! measurement counts half after [`LATENCY_HALF_LIFE_MS`], so that a service that was slow is tried again by and by.

use std::collections::VecDeque;

use crate::limits::{LATENCY_HALF_LIFE_MS, LATENCY_RECENT_MAX, LATENCY_RECENT_MIN, LATENCY_SAMPLE_MILLI};

/// Kilometres there and back in a millisecond, at two thirds of the speed of light.
const KM_PER_MS: u32 = 100;
/// What a server needs, at the least.
const SERVER_MS: u32 = 2;

/// How long one service takes.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    /// The mean, in thousandths of a millisecond.
    mean_us: u64,
    at_ms: u64,
    /// The last answers, in milliseconds.
    recent: VecDeque<u32>,
}

impl Latency {
    pub(super) fn new(elapsed_ms: u32, now_ms: u64) -> Self {
        Self { mean_us: u64::from(elapsed_ms) * 1_000, at_ms: now_ms, recent: VecDeque::from([elapsed_ms]) }
    }

    pub(super) fn add(&mut self, elapsed_ms: u32, now_ms: u64) {
        let sample_us = u64::from(elapsed_ms) * 1_000;
        self.mean_us =
            (self.mean_us * (1_000 - LATENCY_SAMPLE_MILLI) + sample_us * LATENCY_SAMPLE_MILLI) / 1_000;
        self.at_ms = now_ms;
        self.note(elapsed_ms);
    }

    /// Takes that an answer would have taken longer than this. Where even this is less than the mean, it says nothing of it.
    pub(super) fn add_at_least(&mut self, elapsed_ms: u32, now_ms: u64) {
        match u64::from(elapsed_ms) * 1_000 > self.mean_us {
            true => self.add(elapsed_ms, now_ms),
            false => self.note(elapsed_ms),
        }
    }

    /// Notes an answer among the last ones, without a part in the mean.
    fn note(&mut self, elapsed_ms: u32) {
        if self.recent.len() >= LATENCY_RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(elapsed_ms);
    }

    /// The 95th percentile of the last answers, by nearest rank.
    pub(super) fn percentile_95_ms(&self) -> Option<u32> {
        if self.recent.len() < LATENCY_RECENT_MIN {
            return None;
        }
        let mut sorted: Vec<u32> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// What is expected now, in thousandths of a millisecond: the mean, and the more of what distance says the older it is.
    fn expected_us(&self, prior_us: u64, now_ms: u64) -> u64 {
        // A clock that was set back makes it as good as new.
        let age_ms = now_ms.saturating_sub(self.at_ms);
        let halvings = (age_ms / LATENCY_HALF_LIFE_MS).min(63);
        let (whole, part_ms) = (1u64 << halvings, age_ms % LATENCY_HALF_LIFE_MS);
        // Between two halvings the weight goes down in a line.
        let weight_milli = (1_000 - part_ms * 500 / LATENCY_HALF_LIFE_MS) / whole;
        (self.mean_us * weight_milli + prior_us * (1_000 - weight_milli)) / 1_000
    }
}

/// What is expected of a service at this distance, in milliseconds.
pub(super) fn expected_ms(measured: Option<&Latency>, distance_km: u32, now_ms: u64) -> u32 {
    let prior_us = u64::from(distance_km / KM_PER_MS + SERVER_MS) * 1_000;
    let expected_us = measured.map_or(prior_us, |latency| latency.expected_us(prior_us, now_ms));
    u32::try_from(expected_us / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn the_unknown_is_judged_by_its_distance() {
        assert_eq!(expected_ms(None, 0, NOW_MS), 2);
        assert_eq!(expected_ms(None, 6_000, NOW_MS), 62);
    }

    #[test]
    fn measurements_count_and_are_forgotten() {
        let mut latency = Latency::new(202, NOW_MS);
        let after = |latency: &Latency, ms| expected_ms(Some(latency), 0, NOW_MS + ms);
        assert_eq!(after(&latency, 0), 202);
        assert_eq!(after(&latency, LATENCY_HALF_LIFE_MS), 102);
        assert_eq!(after(&latency, 2 * LATENCY_HALF_LIFE_MS), 52);
        assert_eq!(after(&latency, 100 * LATENCY_HALF_LIFE_MS), 2);
        let falling: Vec<_> = (0..40).map(|step| after(&latency, step * LATENCY_HALF_LIFE_MS / 8)).collect();
        assert!(falling.is_sorted_by(|earlier, later| earlier >= later), "{falling:?}");
        for _ in 0..50 {
            latency.add(10, NOW_MS);
        }
        assert!((10..=12).contains(&after(&latency, 0)));
        assert_eq!(expected_ms(Some(&latency), 0, 5), after(&latency, 0), "a clock set back");
    }

    #[test]
    fn the_percentile_is_exact_over_the_last_answers() {
        let mut latency = Latency::new(1, NOW_MS);
        for ms in 2..LATENCY_RECENT_MIN as u32 {
            latency.add(ms, NOW_MS);
            assert_eq!(latency.percentile_95_ms(), None);
        }
        latency.add(20, NOW_MS);
        assert_eq!(latency.percentile_95_ms(), Some(19));
        for _ in 0..LATENCY_RECENT_MAX - 4 {
            latency.add(7, NOW_MS);
        }
        assert_eq!(latency.percentile_95_ms(), Some(17), "of 17, 18, 19, 20 and sixty times 7, the 61st");
        for _ in 0..4 {
            latency.note(100);
        }
        assert_eq!(latency.percentile_95_ms(), Some(100));
    }
}
