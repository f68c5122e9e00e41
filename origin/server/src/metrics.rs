//! Numbers for Prometheus (text format). Labels are route templates, methods, status classes, outcomes and regions: their
//! number is bounded by the code and the configuration, never by what clients send. Tenants have labels as far as
//! [`METRIC_TENANTS_MAX`] goes, and their routes have none: those are in the roll-ups.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use meridian_store::rollup::{Measure, OTHER};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::edge::journal::Counts;
use crate::limits::METRIC_TENANTS_MAX;

/// Upper ends of the duration histogram's buckets, in seconds.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    status: String,
}

/// Labels of a duration: fewer, because each is a whole histogram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// What a read found in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    result: &'static str,
}

/// How a health check of an upstream ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    outcome: &'static str,
}

/// Labels of decisions: at most 6 outcomes and 5 classes of status for each tenant, and one more of each for what is
/// unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    tenant: String,
    outcome: &'static str,
    status: &'static str,
}

/// Decisions that edges reported, by tenant. The first tenants that are seen have labels of their own, the rest share one.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    decisions: Family<Decision, Counter>,
    unwritten: Counter,
    tenants: Arc<Mutex<HashSet<String>>>,
}

impl Decided {
    /// Counts one, and those that it stands for.
    pub fn count(&self, tenant: Option<&str>, measure: &Measure) {
        let labels = Decision {
            tenant: self.label(tenant.unwrap_or_default()),
            outcome: measure.outcome,
            status: status_label(measure.status),
        };
        self.decisions.get_or_create(&labels).inc_by(u64::from(measure.weight.max(1)));
        self.unwritten.inc_by(u64::from(measure.weight.saturating_sub(1)));
    }

    fn label(&self, tenant: &str) -> String {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if !tenants.contains(tenant) {
            if tenants.len() >= METRIC_TENANTS_MAX {
                return OTHER.to_owned();
            }
            tenants.insert(tenant.to_owned());
        }
        tenant.to_owned()
    }
}

/// The numbers of this process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    cache: Family<Found, Counter>,
    checks: Family<Checked, Counter>,
    /// Requests refused for their context.
    pub refused_contexts: Counter,
    /// Session tokens that counted as none.
    pub ignored_sessions: Counter,
    /// Reads that ended because the region was behind what the session had seen.
    pub behind: Counter,
    /// Events written and dropped.
    pub events: Counts,
    /// Reports of events that found no room.
    pub events_refused: Counter,
    /// Bundles that edges refused.
    pub edge_faults: Counter,
    /// Units granted by the limit authority.
    pub lease_units: Counter,
}

/// Counts a request as in flight until dropped.
pub struct InFlight<'a>(&'a Gauge<i64, AtomicI64>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All at 0.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("meridian"),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            cache: Family::default(),
            checks: Family::default(),
            refused_contexts: Counter::default(),
            ignored_sessions: Counter::default(),
            behind: Counter::default(),
            events: Counts::default(),
            events_refused: Counter::default(),
            edge_faults: Counter::default(),
            lease_units: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time to the answer's head",
            self.durations.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being handled", self.in_flight.clone());
        registry.register("cache_reads", "Reads by what was found in memory", self.cache.clone());
        registry.register("upstream_checks", "Health checks of upstreams by outcome", self.checks.clone());
        registry.register(
            "contexts_refused",
            "Requests refused for their context",
            self.refused_contexts.clone(),
        );
        registry.register(
            "sessions_ignored",
            "Session tokens that counted as none",
            self.ignored_sessions.clone(),
        );
        registry.register(
            "session_behind",
            "Reads given up because the region was behind",
            self.behind.clone(),
        );
        registry.register("events_written", "Decisions written", self.events.written.clone());
        registry.register(
            "events_dropped",
            "Decisions that the database will not have",
            self.events.dropped.clone(),
        );
        registry.register(
            "decisions",
            "Decisions of edges, by tenant, outcome and class of status; estimated where routes sample",
            self.events.decided.decisions.clone(),
        );
        registry.register(
            "decisions_unwritten",
            "Decisions among those that were sampled out and are counted through others",
            self.events.decided.unwritten.clone(),
        );
        registry.register("events_refused", "Reports that found no room", self.events_refused.clone());
        registry.register("edge_faults", "Bundles that edges refused", self.edge_faults.clone());
        registry.register("lease_units", "Units of limits granted to edges", self.lease_units.clone());
    }

    /// Counts a request while the returned value lives.
    pub fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// A request was answered.
    pub fn answered(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let labels = Request {
            route: route.to_owned(),
            method: method_label(method),
            status: format!("{}xx", status.as_u16() / 100),
        };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&Route { route: route.to_owned() }).observe(elapsed.as_secs_f64());
    }

    /// A read found its answer in memory, or not.
    pub fn cache_read(&self, hit: bool) {
        self.cache.get_or_create(&Found { result: if hit { "hit" } else { "miss" } }).inc();
    }

    /// A health check of an upstream ended like this.
    pub fn upstream_checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&Checked { outcome }).inc();
    }

    /// All of it as text; `extra` adds numbers that are read when they are asked for.
    #[must_use]
    pub fn render(&self, extra: &[Sample]) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = encode(&mut text, &self.registry);
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.truncate(end);
        let mut before = "";
        for sample in extra {
            if sample.name != before {
                let _ = writeln!(text, "# TYPE meridian_{} {}", sample.name, sample.kind.name());
                before = sample.name;
            }
            let suffix = sample.kind.suffix();
            let _ =
                writeln!(text, "meridian_{}{suffix}{} {}", sample.name, labels(&sample.labels), sample.value);
        }
        text.push_str("# EOF\n");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Kind of a [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
        }
    }
}

/// A number that is read when it is asked for. Samples of one name follow one another.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name without the prefix.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels.
    pub labels: Vec<(&'static str, String)>,
    /// Value.
    pub value: f64,
}

fn labels(labels: &[(&'static str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn status_label(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_have_a_bounded_number_of_series() {
        let metrics = Metrics::new();
        for tenant in 0..METRIC_TENANTS_MAX + 50 {
            for status in 0..1000 {
                let measure =
                    Measure { route: format!("r{status}"), outcome: "denied", status, ..Measure::default() };
                metrics.events.decided.count(Some(&format!("t{tenant}")), &measure);
            }
        }
        let text = metrics.render(&[]);
        let of =
            |tenant: &str| text.matches(&format!("meridian_decisions_total{{tenant=\"{tenant}\",")).count();
        assert_eq!((of("t0"), of(OTHER)), (6, 6));
        assert_eq!(text.matches("meridian_decisions_total{").count(), (METRIC_TENANTS_MAX + 1) * 6);
    }

    #[test]
    fn renders_what_was_counted() {
        let metrics = Metrics::new();
        metrics.answered(&Method::GET, "/v1/whoami", StatusCode::OK, Duration::from_millis(2));
        metrics.answered(
            &Method::from_bytes(b"BREW").unwrap(),
            "unmatched",
            StatusCode::NOT_FOUND,
            Duration::ZERO,
        );
        let lag = |peer: &str| Sample {
            name: "replication_lag_seconds",
            kind: Kind::Gauge,
            labels: vec![("peer", peer.to_owned())],
            value: 0.5,
        };
        let text = metrics.render(&[lag("a\"b"), lag("c")]);
        assert!(
            text.contains(r#"meridian_http_requests_total{route="/v1/whoami",method="GET",status="2xx"} 1"#)
        );
        assert!(text.contains(r#"method="other",status="4xx"} 1"#), "{text}");
        assert!(text.contains("meridian_replication_lag_seconds{peer=\"a\\\"b\"} 0.5\n"), "{text}");
        assert_eq!(text.matches("# TYPE meridian_replication_lag_seconds gauge").count(), 1);
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }
}
