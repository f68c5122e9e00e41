use std::time::Duration;

/// Exponential back-off with full jitter: when to try again, decided without a clock or a random source.
///
/// The caller passes randomness in. The wait is uniform in `[step/2, step]`, where the step doubles from
/// `first` to `most`, so that peers that lost the same region don't all return in the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that has not failed yet.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// Counts a failure and says how long to wait. `random` is any 32 random bits.
    #[must_use]
    pub fn fail(&mut self, random: u32) -> Duration {
        let step = self.first.saturating_mul(1u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX));
        let step = step.min(self.most);
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Forgets the failures: it worked.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let steps: Vec<u128> = (0..6).map(|_| backoff.fail(u32::MAX).as_millis()).collect();
        assert_eq!(steps, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.fail(0).as_millis(), 500);
        backoff.succeed();
        assert_eq!(backoff.fail(u32::MAX).as_millis(), 100);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for _ in 0..10_000 {
            assert!(backoff.fail(7) <= Duration::from_secs(5));
        }
    }
}
