//! What a node has seen of a service itself: ejection after failures in a row, probation, and a tenant's budget of retries.

use crate::clock::Until;
use crate::limits::{
    EJECT_FAILURES, EJECT_FORGIVE_MS, EJECT_MS_MAX, EJECT_MS_MIN, PROBE_MS, RETRY_EACH_MILLI,
    RETRY_FLOOR_PER_S, RETRY_TOKENS_MAX,
};

/// How one service has done lately. After [`EJECT_FAILURES`] failures in a row it is ejected, for twice as long each time;
/// then one request tries it, and the others wait for its outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// Failures in a row.
    failures: u32,
    /// Ejections since it was last well for a while.
    ejections: u32,
    /// Ejected, and not answered since.
    open: bool,
    until: Until,
    /// When it is as good as new.
    remembered_until: Until,
    /// When it ends that a request tries it.
    probed_until: Until,
}

impl Health {
    /// Whether it is to be left alone.
    pub(super) fn is_ejected(&self, now_ms: u64) -> bool {
        self.open && (self.until.is_ahead(now_ms) || self.probed_until.is_ahead(now_ms))
    }

    /// A request goes there now.
    pub(super) fn attempt(&mut self, now_ms: u64) {
        if self.open && !self.is_ejected(now_ms) {
            self.probed_until = Until::after(now_ms, PROBE_MS);
        }
    }

    pub(super) fn answered(&mut self, now_ms: u64) {
        self.failures = 0;
        self.open = false;
        if !self.remembered_until.is_ahead(now_ms) {
            self.ejections = 0;
        }
    }

    pub(super) fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        // Requests that were under way when it was ejected say nothing new.
        let known = self.open && self.until.is_ahead(now_ms);
        if known || (!self.open && self.failures < EJECT_FAILURES) {
            return;
        }
        let pause_ms = EJECT_MS_MIN.saturating_mul(1 << self.ejections.min(16)).min(EJECT_MS_MAX);
        self.ejections = self.ejections.saturating_add(1);
        self.open = true;
        self.until = Until::after(now_ms, pause_ms);
        self.remembered_until = Until::after(now_ms, pause_ms + EJECT_FORGIVE_MS);
        self.probed_until = Until::default();
    }
}

/// Retries as a share of requests, so that a failing region does not multiply the load on the others: each request pays
/// in a part of a retry, each retry takes a whole one, and a small floor comes with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryBudget {
    /// Thousandths of retries.
    milli: u64,
    at_ms: u64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { milli: RETRY_TOKENS_MAX * 1_000, at_ms: 0 }
    }
}

impl RetryBudget {
    fn add(&mut self, milli: u64) {
        self.milli = self.milli.saturating_add(milli).min(RETRY_TOKENS_MAX * 1_000);
    }

    pub(super) fn request(&mut self) {
        self.add(RETRY_EACH_MILLI);
    }

    pub(super) fn retry(&mut self, now_ms: u64) -> bool {
        // `RETRY_FLOOR_PER_S` a second are as many thousandths a millisecond.
        self.add(now_ms.saturating_sub(self.at_ms).saturating_mul(RETRY_FLOOR_PER_S));
        self.at_ms = now_ms;
        match self.milli.checked_sub(1_000) {
            Some(left) => {
                self.milli = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_grow_and_are_forgiven() {
        let mut health = Health::default();
        let mut now_ms = 1_000_000;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            for _ in 0..EJECT_FAILURES {
                health.failed(now_ms);
            }
            assert!(health.is_ejected(now_ms + pause_ms - 1), "{pause_ms}");
            assert!(!health.is_ejected(now_ms + pause_ms), "{pause_ms}");
            now_ms += pause_ms;
            health.answered(now_ms);
            assert!(!health.is_ejected(now_ms));
        }
        now_ms += EJECT_FORGIVE_MS;
        health.answered(now_ms);
        for _ in 0..EJECT_FAILURES {
            health.failed(now_ms);
        }
        assert!(!health.is_ejected(now_ms + 1_000), "forgiven");
    }

    #[test]
    fn one_request_probes_and_its_failure_ejects_again() {
        let mut health = Health::default();
        for _ in 0..20 {
            health.failed(1_000);
        }
        assert!(!health.is_ejected(2_000), "failures under way don't add up");
        health.attempt(2_000);
        assert!(health.is_ejected(2_001), "the others wait for the probe");
        assert!(!health.is_ejected(2_000 + PROBE_MS), "a probe that never came back");
        health.failed(2_100);
        assert!(health.is_ejected(4_099));
        assert!(!health.is_ejected(4_100));
        health.answered(4_200);
        assert!(!health.is_ejected(4_200));
    }

    #[test]
    fn failures_between_answers_do_not_eject() {
        let mut health = Health::default();
        for _ in 0..100 {
            health.failed(1_000);
            health.failed(1_000);
            health.answered(1_000);
        }
        assert!(!health.is_ejected(1_000));
    }

    #[test]
    fn a_clock_set_back_ends_an_ejection() {
        let mut health = Health::default();
        for _ in 0..EJECT_FAILURES {
            health.failed(10_000_000);
        }
        assert!(health.is_ejected(10_000_000));
        assert!(!health.is_ejected(1_000_000));
    }

    #[test]
    fn retries_are_a_share_of_requests_and_a_floor() {
        let mut budget = RetryBudget::default();
        let burst = (0..1_000).filter(|_| budget.retry(5_000)).count() as u64;
        assert_eq!(burst, RETRY_TOKENS_MAX);
        for _ in 0..100 {
            budget.request();
        }
        let share = (0..1_000).filter(|_| budget.retry(5_000)).count() as u64;
        assert_eq!(share, 100 * RETRY_EACH_MILLI / 1_000);
        let floor = (0..1_000).filter(|_| budget.retry(6_000)).count() as u64;
        assert_eq!(floor, RETRY_FLOOR_PER_S);
        assert!(!budget.retry(1_000), "a clock set back gives none");
    }
}
