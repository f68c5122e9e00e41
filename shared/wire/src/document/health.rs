//! Health checks: how the origins ask upstreams and one another.

use serde::{Deserialize, Serialize};

use super::unit::{Span, statuses};

spec! {
/// How the origin of each region asks an upstream's service there whether it is well: a `GET` without the client's fields and
/// with those of the upstream's `headers`, no redirect followed, nothing read of the content. Where it fails, edges go to another
/// region, and to this one only where no other is left. Which addresses are asked is for whoever runs the origin to say.
#[derive(Eq)]
pub struct HealthCheckSpec {
    /// Path behind the base URL, with a query if need be.
    #[serde(default = "path")]
    pub path: String,
    /// Time from one check to the next, 1s to 5m.
    #[serde(default = "interval")]
    pub interval: Span,
    /// Until the head of the response must be there, the connection included: 100ms to 10s, and at most `interval`; by
    /// default 2s, or `interval` where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Checks in a row that have to fail until the upstream is unhealthy there, 1 to 10.
    #[serde(default = "failures")]
    pub failures: u32,
    /// Checks in a row that have to pass until it is healthy again, 1 to 10.
    #[serde(default = "successes")]
    pub successes: u32,
    /// Statuses that pass: `404`, or a class such as `2xx`.
    #[serde(default = "passing")]
    pub statuses: Vec<String>,
}
}

spec! {
/// How the other regions' origins ask a region's origin whether it is ready, and how far it has come: what is known of
/// both is as old as the last check.
#[derive(Eq)]
pub struct RegionCheckSpec {
    /// Time from one check to the next, 1s to 5m.
    #[serde(default = "region_interval")]
    pub interval: Span,
    /// Until the answer must be there, 100ms to 10s, and at most `interval`.
    #[serde(default = "region_timeout")]
    pub timeout: Span,
    /// Checks in a row that have to fail until the region is unhealthy, 1 to 10.
    #[serde(default = "once")]
    pub failures: u32,
    /// Checks in a row that have to pass until it is healthy again, 1 to 10.
    #[serde(default = "once")]
    pub successes: u32,
}
}

impl HealthCheckSpec {
    /// Until the head of the response must be there.
    #[must_use]
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or_else(|| self.interval.min(Span::from_secs(2)))
    }

    /// Whether a response with this status passes. What can't be statuses lets nothing pass.
    #[must_use]
    pub fn passes(&self, status: u16) -> bool {
        self.statuses.iter().filter_map(|text| statuses(text)).any(|range| range.contains(&status))
    }
}

impl Default for RegionCheckSpec {
    fn default() -> Self {
        Self { interval: region_interval(), timeout: region_timeout(), failures: once(), successes: once() }
    }
}

fn path() -> String {
    "/".to_owned()
}

fn interval() -> Span {
    Span::from_secs(10)
}

fn failures() -> u32 {
    3
}

fn successes() -> u32 {
    2
}

fn passing() -> Vec<String> {
    vec!["2xx".to_owned(), "3xx".to_owned()]
}

fn region_interval() -> Span {
    Span::from_secs(1)
}

fn region_timeout() -> Span {
    Span::from_ms(800)
}

fn once() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::UpstreamSpec;

    #[test]
    fn what_is_not_said_is_usual() {
        let check: HealthCheckSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (check.path.as_str(), check.interval, check.timeout()),
            ("/", interval(), Span::from_secs(2))
        );
        assert_eq!((check.failures, check.successes), (3, 2));
        let often: HealthCheckSpec = serde_json::from_str(r#"{"interval": "1s"}"#).unwrap();
        assert_eq!(often.timeout(), Span::from_secs(1));
        let region: RegionCheckSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(region, RegionCheckSpec::default());
        assert!(serde_json::from_str::<RegionCheckSpec>(r#"{"path": "/"}"#).is_err());
    }

    /// Rules that name no check are the bytes that they were before there were any.
    #[test]
    fn what_has_no_check_says_nothing_of_one() {
        let upstream: UpstreamSpec = serde_json::from_str(r#"{"regions": {}}"#).unwrap();
        assert!(!serde_json::to_string(&upstream).unwrap().contains("healthCheck"));
        let checked: UpstreamSpec = serde_json::from_str(r#"{"regions": {}, "healthCheck": {}}"#).unwrap();
        // What origins look for in the text of bundles.
        assert!(serde_json::to_string(&checked).unwrap().contains(r#""healthCheck":{"#));
    }

    #[test]
    fn statuses_pass_by_themselves_or_by_their_class() {
        let check = |statuses: &str| -> HealthCheckSpec {
            serde_json::from_str(&format!(r#"{{"statuses": {statuses}}}"#)).unwrap()
        };
        for (statuses, passes, fails) in [
            (r#"["2xx", "3xx"]"#, [200, 399], [199, 400]),
            (r#"["204", "404"]"#, [204, 404], [200, 405]),
            (r#"["5xx", "odd"]"#, [500, 599], [499, 600]),
        ] {
            let check = check(statuses);
            assert!(passes.into_iter().all(|status| check.passes(status)), "{statuses}");
            assert!(!fails.into_iter().any(|status| check.passes(status)), "{statuses}");
        }
    }
}
