//! Health checks of regions and upstreams. The engine hears only what comes of them: origins read how they are made from the
//! documents.

use super::{Compiler, short};
use crate::document::{HealthCheckSpec, RegionCheckSpec, Span, statuses};
use crate::limits::{
    CHECK_INTERVAL_MS_MAX, CHECK_INTERVAL_MS_MIN, CHECK_PATH_BYTES_MAX, CHECK_TIMEOUT_MS_MIN,
    CHECKS_IN_A_ROW_MAX, HEALTH_CHECKS_MAX,
};

impl Compiler {
    pub(super) fn region_check(&mut self, spec: &RegionCheckSpec) {
        self.pace(spec.interval, spec.timeout);
        self.in_a_row(spec.failures, "failures");
        self.in_a_row(spec.successes, "successes");
    }

    /// `count` are the upstreams with a check so far, this one among them.
    pub(super) fn health_check(&mut self, spec: &HealthCheckSpec, count: usize) {
        if count == HEALTH_CHECKS_MAX + 1 {
            let found = format!("more than {HEALTH_CHECKS_MAX} upstreams with one");
            self.flaw("spec.healthCheck", found, "fewer of them (HEALTH_CHECKS_MAX)");
        }
        if !is_path(&spec.path) {
            let expected = format!(
                "a path that begins with \"/\", with a query if need be and without a fragment, \
                 {CHECK_PATH_BYTES_MAX} bytes at the most"
            );
            self.flaw("spec.healthCheck.path", format_args!("{:?}", short(&spec.path)), expected);
        }
        self.pace(spec.interval, spec.timeout());
        self.in_a_row(spec.failures, "failures");
        self.in_a_row(spec.successes, "successes");
        if spec.statuses.is_empty() {
            self.flaw("spec.healthCheck.statuses", "an empty list", "at least one status");
        }
        for (at, text) in spec.statuses.iter().enumerate() {
            if statuses(text).is_none() {
                let path = format!("spec.healthCheck.statuses[{at}]");
                let expected = "a status such as 404, or a class such as 2xx";
                self.flaw(path, format_args!("{:?}", short(text)), expected);
            }
        }
    }

    fn pace(&mut self, interval: Span, timeout: Span) {
        if !(CHECK_INTERVAL_MS_MIN..=CHECK_INTERVAL_MS_MAX).contains(&interval.ms) {
            self.flaw("spec.healthCheck.interval", interval, "1s to 5m");
        }
        if timeout.ms < CHECK_TIMEOUT_MS_MIN || timeout > interval {
            self.flaw(
                "spec.healthCheck.timeout",
                timeout,
                "100ms or more, and at most spec.healthCheck.interval",
            );
        }
    }

    fn in_a_row(&mut self, checks: u32, name: &str) {
        if !(1..=CHECKS_IN_A_ROW_MAX).contains(&checks) {
            let expected = format!("1 to {CHECKS_IN_A_ROW_MAX} (CHECKS_IN_A_ROW_MAX)");
            self.flaw(format!("spec.healthCheck.{name}"), checks, expected);
        }
    }
}

/// Whether it is what stands in a request for a path with a query (RFC 9112, section 3.2.1).
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= CHECK_PATH_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte))
}
