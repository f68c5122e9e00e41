//! Health checks of regions and upstreams. The engine hears only what comes of them: origins read how they are made from the
//! documents.

use super::{Compiler, short};
use crate::document::{HealthCheckSpec, RegionCheckSpec, Span, statuses};
use crate::limits::{
    CHECK_INTERVAL_MS_MAX, CHECK_INTERVAL_MS_MIN, CHECK_PATH_BYTES_MAX, CHECK_TIMEOUT_MS_MAX,
    CHECK_TIMEOUT_MS_MIN, CHECKS_IN_A_ROW_MAX, HEALTH_CHECKS_MAX,
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
        if !(CHECK_TIMEOUT_MS_MIN..=CHECK_TIMEOUT_MS_MAX).contains(&timeout.ms) || timeout > interval {
            self.flaw(
                "spec.healthCheck.timeout",
                timeout,
                "100ms to 10s, and at most spec.healthCheck.interval",
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

#[cfg(test)]
mod tests {
    use meridian_engine::ruleset::{Target, Version};
    use serde_json::{Value, json};

    use super::super::{Document, Flaw, compile};
    use super::*;

    /// What is wrong with a tenant that has so many upstreams checked.
    fn flaws(checked: usize) -> Vec<Flaw> {
        let source = json!({"file": "a", "line": 1});
        let document = |kind: &str, name: String, spec: Value| json!({"kind": kind, "spec": spec, "metadata": {"name": name}, "source": source});
        let tenant = json!({"homeRegion": "us-east-1", "allowedRegions": ["us-east-1"]});
        let upstream = json!({"regions": {"us-east-1": "https://up.example"}, "healthCheck": {}});
        let mut documents = vec![document("Tenant", "acme".to_owned(), tenant)];
        documents
            .extend((0..checked).map(|number| document("Upstream", format!("u{number}"), upstream.clone())));
        let documents: Vec<Document> = serde_json::from_value(Value::Array(documents)).unwrap();
        let version = Version { sequence: 1, hash: "00000000000000aa".to_owned() };
        compile(&documents, &Target::Tenant("acme".to_owned()), version).err().unwrap_or_default()
    }

    #[test]
    fn a_tenant_has_no_more_checks_than_may_be() {
        assert!(flaws(HEALTH_CHECKS_MAX).is_empty());
        let over = flaws(HEALTH_CHECKS_MAX + 2);
        let [flaw] = over.as_slice() else { panic!("it is said once: {over:?}") };
        assert_eq!(
            flaw.to_string(),
            "spec.healthCheck: found more than 50 upstreams with one, expected fewer of them (HEALTH_CHECKS_MAX)"
        );
    }

    #[test]
    fn paths_are_those_of_requests() {
        for path in ["/", "/healthz", "/a/b?c=d&e", "/%20"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "a", "?a", "/a b", "/a#b", "/é", "/a\r\nx-b: c", "https://up.example/"] {
            assert!(!is_path(path), "{path}");
        }
        assert!(!is_path(&format!("/{}", "a".repeat(CHECK_PATH_BYTES_MAX))));
    }
}
