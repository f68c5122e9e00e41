//! `POST /edge/v1/events`: what an edge decided, one event a request, in batches.

use std::collections::BTreeMap;

use meridian_engine::decision::{self, Decision};
use meridian_engine::explanation::Stage;
use meridian_engine::ruleset::RuleRef;
use serde::{Deserialize, Serialize};

use crate::encoding::sha256_hex;

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
    /// Hash of tenant and verified subject: tells subjects apart without naming them.
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
    /// Path of the request, without its query.
    pub path: String,
    /// Country of the client.
    pub country: Option<String>,
    /// Milliseconds from the request's arrival to the head of the reply.
    pub elapsed_ms: u32,
    /// Stages in order.
    #[serde(default)]
    pub explanation: Vec<ExplainedStage>,
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

impl Event {
    /// The event of a decision.
    #[must_use]
    pub fn of(decision: &Decision, seen: Seen) -> Self {
        let tenant = decision.tenant.clone();
        let hash = |subject: &String| {
            let mut hash = sha256_hex(format!("{}\n{subject}", tenant.as_deref().unwrap_or("")).as_bytes());
            hash.truncate(32);
            hash
        };
        Self {
            id: decision.id.clone(),
            at_ms: seen.at_ms,
            subject_hash: decision.subject.as_ref().map(hash),
            bundle: decision.bundle.clone(),
            route: decision.route.clone(),
            outcome: decision.outcome.as_str().to_owned(),
            status: decision.status,
            region: decision.region.as_deref().map(str::to_owned),
            variants: decision.variants.iter().cloned().collect(),
            exposures: decision.participation.exposures.iter().map(Exposure::from).collect(),
            conversions: decision.participation.conversions.iter().map(Conversion::from).collect(),
            cache: decision.cache.clone(),
            method: seen.method,
            host: seen.host,
            path: seen.path,
            country: seen.country,
            elapsed_ms: seen.elapsed_ms,
            explanation: decision.explanation.stages.iter().map(ExplainedStage::from).collect(),
            tenant,
        }
    }
}

impl From<&Stage> for ExplainedStage {
    fn from(stage: &Stage) -> Self {
        Self {
            stage: stage.stage.to_owned(),
            rule: stage.rule.as_ref().map(RulePlace::from),
            outcome: stage.outcome.to_string(),
            inputs: stage.inputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }
}

impl From<&decision::Exposure> for Exposure {
    fn from(exposure: &decision::Exposure) -> Self {
        let decision::Exposure { experiment, version, unit, variant } = exposure.clone();
        Self { experiment, version, unit, variant }
    }
}

impl From<&decision::Conversion> for Conversion {
    fn from(conversion: &decision::Conversion) -> Self {
        let decision::Conversion { experiment, version, unit, goal } = conversion.clone();
        Self { experiment, version, unit, goal }
    }
}

impl From<&RuleRef> for RulePlace {
    fn from(rule: &RuleRef) -> Self {
        Self {
            kind: rule.kind.to_owned(),
            name: rule.name.to_string(),
            file: rule.file.to_string(),
            line: rule.line,
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::decision::Outcome;

    use super::*;
    use meridian_engine::explanation::Explanation;

    #[test]
    fn an_event_never_names_the_subject() {
        let decision = Decision {
            id: "01J".into(),
            tenant: Some("acme".into()),
            bundle: Some("ab".into()),
            route: Some("orders".into()),
            outcome: Outcome::Limited,
            status: 429,
            region: None,
            subject: Some("ada@example.com".into()),
            variants: vec![("checkout".into(), "b".into())],
            participation: decision::Participation {
                exposures: vec![decision::Exposure {
                    experiment: "checkout".into(),
                    version: "1".into(),
                    unit: "0f".into(),
                    variant: "b".into(),
                }],
                conversions: vec![],
            },
            cache: None,
            explanation: Explanation {
                stages: vec![Stage {
                    stage: "limit",
                    rule: Some(RuleRef {
                        kind: "RateLimit",
                        name: "r".into(),
                        file: "f.yaml".into(),
                        line: 3,
                    }),
                    outcome: "limited".into(),
                    inputs: vec![("remaining", "0".into())],
                }],
            },
        };
        let event = Event::of(&decision, Seen { at_ms: 1, method: "GET".into(), ..Seen::default() });
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("ada"), "{text}");
        assert_eq!(event.outcome, "limited");
        assert_eq!((event.exposures[0].unit.as_str(), event.exposures[0].variant.as_str()), ("0f", "b"));
        assert_eq!(event.explanation[0].rule.as_ref().unwrap().line, 3);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
