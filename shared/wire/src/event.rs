//! `POST /edge/v1/events`: what an edge decided, one event a request, in batches.

use std::collections::BTreeMap;

use meridian_engine::decision::Decision;
use meridian_engine::facts::Facts;
use meridian_engine::ruleset;
use serde::{Deserialize, Serialize};

pub use outbox::{Batch, Outbox};
use written::Written;

mod outbox;
mod written;

/// Events and faults of one edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Name of the edge.
    pub edge: String,
    /// What was decided.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What the edge could not accept.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// What was decided about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Id of the decision.
    pub id: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Tenant, once known.
    pub tenant: Option<String>,
    /// Version of the tenant's bundle.
    pub bundle: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// `forwarded`, `cached`, `answered`, `denied`, `limited` or `failed`.
    pub outcome: String,
    /// Status that the client got.
    pub status: u16,
    /// Region that answered.
    pub region: Option<String>,
    /// Keyed hash of tenant, issuer and verified subject: tells people apart without naming them.
    pub subject_hash: Option<String>,
    /// Variant by experiment.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// Variants that were given by assignment, not by force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposures: Vec<Exposure>,
    /// Goals of experiments that were reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conversions: Vec<Conversion>,
    /// What the cache did.
    pub cache: Option<String>,
    /// Method of the request.
    pub method: String,
    /// Host of the request.
    pub host: String,
    /// Path of the request, without its query; of the route, or a hash, where `personal` says so.
    pub path: String,
    /// Path of the route, where `path` is the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Country of the client.
    pub country: Option<String>,
    /// What it tells of persons.
    #[serde(default, skip_serializing_if = "Personal::is_keep")]
    pub personal: Personal,
    /// Milliseconds from the request's arrival to the head of the reply.
    pub elapsed_ms: u32,
    /// Bytes of the request's body, as its head says; none where that doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Bytes of the body that the client was to get, as far as they were known when the reply began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// How many decisions it stands for: more than 1 where others of its kind were not written down.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// Its part of a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TracePart>,
    /// What the request waited for, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Stages in order.
    #[serde(default)]
    pub explanation: Vec<ExplainedStage>,
}

/// What is told of persons, from all to nothing: [`ruleset::Personal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Personal {
    /// All that an edge knows.
    #[default]
    Keep,
    /// Hashes, and the route's path.
    Hash,
    /// Nothing.
    Drop,
}

impl Personal {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

impl From<ruleset::Personal> for Personal {
    fn from(personal: ruleset::Personal) -> Self {
        match personal {
            ruleset::Personal::Keep => Self::Keep,
            ruleset::Personal::Hash => Self::Hash,
            ruleset::Personal::Drop => Self::Drop,
        }
    }
}

/// The part of a trace that the edge was (W3C Recommendation "Trace Context", level 2). Numbers are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePart {
    /// The trace, 32 digits.
    pub id: String,
    /// The edge's span, 16 digits: the parent of the origin's.
    pub span: String,
    /// The client's span, where the trace was the client's already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether it is followed.
    pub sampled: bool,
}

/// Something that a request waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// `sync`, `load`, `keys`, `signature`, `take`, `lookup`, `forward`.
    pub what: String,
    /// How long after its arrival, in milliseconds.
    pub after_ms: u32,
    /// How long, in milliseconds.
    pub ms: u32,
}

fn one() -> u32 {
    1
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// A unit was given a variant of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Name of the experiment.
    pub experiment: String,
    /// Its version.
    pub version: String,
    /// Keyed hash of the unit.
    pub unit: String,
    /// The variant.
    pub variant: String,
}

/// A unit reached a goal of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversion {
    /// Name of the experiment.
    pub experiment: String,
    /// Its version.
    pub version: String,
    /// The unit, as in its exposure.
    pub unit: String,
    /// Name of the goal.
    pub goal: String,
}

/// One stage of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStage {
    /// Name of the stage.
    pub stage: String,
    /// Rule that decided, where one did.
    pub rule: Option<RulePlace>,
    /// What was decided.
    pub outcome: String,
    /// What it was decided by.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulePlace {
    /// Kind of the document.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

/// Something that an edge could not accept; what it had before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Target of the bundle.
    pub target: String,
    /// Version of the bundle, as far as it could be told.
    pub version: Option<String>,
    /// What was wrong.
    pub what: String,
}

/// What a host knows of a request beside the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the request arrived, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path without the query.
    pub path: String,
    /// Country of the client.
    pub country: Option<String>,
    /// Milliseconds to the head of the reply.
    pub elapsed_ms: u32,
}

impl Seen {
    /// What the facts of a request tell, before there is a reply.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        Self {
            at_ms: facts.now_ms,
            method: facts.method.clone(),
            host: facts.host.clone(),
            path: facts.path.clone(),
            country: facts.place.country.clone(),
            elapsed_ms: 0,
        }
    }
}

impl Event {
    /// The event of a decision, as an origin reads what an edge writes.
    ///
    /// # Errors
    /// None that can happen: both are one shape.
    pub fn of(decision: &Decision, seen: &Seen) -> serde_json::Result<Self> {
        serde_json::from_slice(&serde_json::to_vec(&Written::of(decision, seen))?)
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::decision::{self, Outcome};
    use meridian_engine::explanation::Explanation;
    use meridian_engine::ruleset::RuleRef;
    use meridian_engine::trace::Trace;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn decision() -> Decision {
        let mut explanation = Explanation::default();
        let rule = RuleRef { kind: "RateLimit", name: "r".into(), file: "f.yaml".into(), line: 3 };
        explanation.note("limit", Some(&rule), "limited").with("remaining", 0);
        Decision {
            id: "01J".into(),
            tenant: Some("acme".into()),
            bundle: Some("ab".into()),
            route: Some("orders".into()),
            outcome: Outcome::Limited,
            status: 429,
            region: None,
            subject: Some("ada@example.com".into()),
            subject_hash: Some("5ab3".into()),
            variants: vec![("checkout".into(), "b".into())],
            participation: decision::Participation {
                exposures: vec![decision::Exposure {
                    experiment: "checkout".into(),
                    version: "1".into(),
                    unit: "0f".into(),
                    variant: "b".into(),
                }],
                conversions: vec![decision::Conversion {
                    experiment: "checkout".into(),
                    version: "1".into(),
                    unit: "0f".into(),
                    goal: "ordered".into(),
                }],
            },
            cache: None,
            bytes: decision::Bytes { request: Some(12), response: None },
            persons: decision::Persons::default(),
            weight: 20,
            trace: Trace::of(&[("traceparent", PARENT)].into_iter().collect(), [5; 16]),
            waits: vec![decision::Wait { what: "take", after_ms: 1, ms: 4 }],
            explanation,
        }
    }

    #[test]
    fn what_is_told_of_persons_is_what_the_rule_says() {
        let seen = Seen { path: "/people/ada".into(), country: Some("DE".into()), ..Seen::default() };
        let mut decision = decision();
        decision.explanation.note("route", None, "matched").with("method", "GET").with("path", &seen.path);
        decision.explanation.note("security", None, "passed").with("client", "192.0.2.0/24");
        let mut told = |rule, path: &str, client: Option<&str>| {
            let client = client.map(str::to_owned);
            decision.persons = decision::Persons { rule, path: Some(path.into()), client };
            let event = Event::of(&decision, &seen).unwrap();
            assert_eq!((event.exposures.len(), event.conversions.len()), (1, 1), "counted in any case");
            event
        };
        let inputs = |event: &Event| {
            let stages = event.explanation.iter().skip(1);
            stages.flat_map(|stage| stage.inputs.values().cloned()).collect::<Vec<_>>().join(" ")
        };
        let pattern = "/people/{name}";
        let keep = told(ruleset::Personal::Keep, pattern, None);
        assert_eq!(
            (keep.path.as_str(), keep.pattern.as_deref(), keep.personal),
            ("/people/ada", Some(pattern), Personal::Keep)
        );
        assert_eq!(inputs(&keep), "GET /people/ada 192.0.2.0/24");
        let hash = told(ruleset::Personal::Hash, pattern, Some("#12"));
        assert_eq!((hash.path.as_str(), hash.pattern, hash.personal), (pattern, None, Personal::Hash));
        assert_eq!((hash.country.as_deref(), hash.subject_hash.as_deref()), (Some("DE"), Some("5ab3")));
        assert_eq!(inputs(&told(ruleset::Personal::Hash, pattern, Some("#12"))), "GET /people/{name} #12");
        let drop = told(ruleset::Personal::Drop, pattern, None);
        assert_eq!(
            (drop.path.as_str(), drop.country.as_ref(), drop.subject_hash.as_ref()),
            (pattern, None, None)
        );
        assert_eq!((inputs(&drop).as_str(), drop.personal), ("", Personal::Drop));
        assert!(drop.explanation[0].inputs.is_empty() && drop.explanation[1].outcome == "matched");
    }

    #[test]
    fn an_event_never_names_the_subject() {
        let decision = decision();
        let seen = Seen { at_ms: 1, method: "GET".into(), ..Seen::default() };
        let event = Event::of(&decision, &seen).unwrap();
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("ada"), "{text}");
        let trace = event.trace.as_ref().unwrap();
        assert_eq!((trace.id.as_str(), trace.parent.as_deref()), (&PARENT[3..35], Some(&PARENT[36..52])));
        assert!(trace.sampled && trace.span.len() == 16 && trace.parent.as_ref() != Some(&trace.span));
        assert_eq!((event.weight, event.waits[0].what.as_str()), (20, "take"));
        assert_eq!(event.outcome, "limited");
        assert_eq!((event.request_bytes, event.response_bytes), (Some(12), None));
        assert_eq!((event.exposures[0].unit.as_str(), event.exposures[0].variant.as_str()), ("0f", "b"));
        assert_eq!(event.explanation[0].rule.as_ref().unwrap().line, 3);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
