//! When checks in a row make something unhealthy, and when healthy again.

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// That fail, until it is unhealthy; at least 1.
    pub failures: u32,
    /// That pass, until it is healthy; at least 1.
    pub successes: u32,
}

/// Whether something is healthy, by the checks so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    is_healthy: bool,
    /// Checks in a row that speak against it.
    against: u32,
}

impl Verdict {
    /// What counts before any check.
    #[must_use]
    pub fn new(is_healthy: bool) -> Self {
        Self { is_healthy, against: 0 }
    }

    /// Whether it is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    /// Takes the outcome of a check, and says whether that changed the verdict.
    pub fn take(&mut self, passed: bool, thresholds: Thresholds) -> bool {
        if passed == self.is_healthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if passed { thresholds.successes } else { thresholds.failures };
        if self.against < needed {
            return false;
        }
        *self = Self::new(passed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is healthy after each of these checks: `+` passes, `-` fails.
    fn after(checks: &str, failures: u32, successes: u32, before: bool) -> String {
        let mut verdict = Verdict::new(before);
        let each = checks.chars().map(|check| {
            let was = verdict.is_healthy();
            let changed = verdict.take(check == '+', Thresholds { failures, successes });
            assert_eq!(changed, was != verdict.is_healthy(), "{checks}");
            if verdict.is_healthy() { '+' } else { '-' }
        });
        each.collect()
    }

    #[test]
    fn only_checks_in_a_row_change_the_verdict() {
        for (checks, failures, successes, expect) in [
            ("+-+-", 1, 1, "+-+-"),
            ("--+--+---", 3, 2, "++++++++-"),
            ("---+-++-", 3, 2, "++----++"),
            ("----", 10, 1, "++++"),
        ] {
            let found = after(checks, failures, successes, true);
            assert_eq!(found, expect, "{checks} with {failures} and {successes}");
        }
        assert_eq!(after("-+++", 1, 3, false), "---+");
    }
}
