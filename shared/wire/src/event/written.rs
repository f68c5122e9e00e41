//! An event as an edge writes it: the JSON of [`Event`](super::Event), straight from the decision and without copies, as
//! there is one for every request.

use std::fmt;
use std::sync::Arc;

use meridian_engine::decision::{self, Decision, Persons};
use meridian_engine::explanation::{Explanation, Stage};
use meridian_engine::ruleset::RuleRef;
use meridian_engine::trace::Trace;
use serde::{Serialize, Serializer};

use super::{Personal, Seen, is_one};

#[derive(Serialize)]
pub(super) struct Written<'a> {
    id: &'a str,
    at_ms: u64,
    tenant: Option<&'a str>,
    bundle: Option<&'a str>,
    route: Option<&'a str>,
    outcome: &'static str,
    status: u16,
    region: Option<&'a str>,
    subject_hash: Option<&'a str>,
    #[serde(serialize_with = "variants")]
    variants: &'a [(Arc<str>, Arc<str>)],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "each::<_, Exposure, _>")]
    exposures: &'a [decision::Exposure],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "each::<_, Conversion, _>")]
    conversions: &'a [decision::Conversion],
    cache: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    country: Option<&'a str>,
    #[serde(skip_serializing_if = "Personal::is_keep")]
    personal: Personal,
    elapsed_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_bytes: Option<u64>,
    #[serde(skip_serializing_if = "is_one")]
    weight: u32,
    trace: TracePart,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "each::<_, Wait, _>")]
    waits: &'a [decision::Wait],
    explanation: Stages<'a>,
}

impl<'a> Written<'a> {
    pub(super) fn of(decision: &'a Decision, seen: &'a Seen) -> Self {
        let persons = &decision.persons;
        let (personal, pattern) = (Personal::from(persons.rule), persons.path.as_deref());
        let is_told = personal < Personal::Drop;
        Self {
            id: &decision.id,
            at_ms: seen.at_ms,
            tenant: decision.tenant.as_deref(),
            bundle: decision.bundle.as_deref(),
            route: decision.route.as_deref(),
            outcome: decision.outcome.as_str(),
            status: decision.status,
            region: decision.region.as_deref(),
            subject_hash: decision.subject_hash.as_deref().filter(|_| is_told),
            variants: &decision.variants,
            exposures: &decision.participation.exposures,
            conversions: &decision.participation.conversions,
            cache: decision.cache.as_deref(),
            method: &seen.method,
            host: &seen.host,
            path: if personal.is_keep() { &seen.path } else { pattern.unwrap_or_default() },
            pattern: pattern.filter(|_| personal.is_keep()),
            country: seen.country.as_deref().filter(|_| is_told),
            personal,
            elapsed_ms: seen.elapsed_ms,
            request_bytes: decision.bytes.request,
            response_bytes: decision.bytes.response,
            weight: decision.weight.max(1),
            trace: TracePart::from(decision.trace),
            waits: &decision.waits,
            explanation: Stages { explanation: &decision.explanation, persons },
        }
    }
}

#[derive(Serialize)]
struct TracePart {
    id: Hex<32>,
    span: Hex<16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Hex<16>>,
    sampled: bool,
}

impl From<Trace> for TracePart {
    fn from(trace: Trace) -> Self {
        Self {
            id: Hex(trace.id()),
            span: Hex(trace.span().into()),
            parent: trace.parent().map(|parent| Hex(parent.into())),
            sampled: trace.is_sampled(),
        }
    }
}

#[derive(Serialize)]
struct Exposure<'a> {
    experiment: &'a str,
    version: &'a str,
    unit: &'a str,
    variant: &'a str,
}

impl<'a> From<&'a decision::Exposure> for Exposure<'a> {
    fn from(exposure: &'a decision::Exposure) -> Self {
        let decision::Exposure { experiment, version, unit, variant } = exposure;
        Self { experiment, version, unit, variant }
    }
}

#[derive(Serialize)]
struct Conversion<'a> {
    experiment: &'a str,
    version: &'a str,
    unit: &'a str,
    goal: &'a str,
}

impl<'a> From<&'a decision::Conversion> for Conversion<'a> {
    fn from(conversion: &'a decision::Conversion) -> Self {
        let decision::Conversion { experiment, version, unit, goal } = conversion;
        Self { experiment, version, unit, goal }
    }
}

#[derive(Serialize)]
struct Wait {
    what: &'static str,
    after_ms: u32,
    ms: u32,
}

impl From<&decision::Wait> for Wait {
    fn from(wait: &decision::Wait) -> Self {
        let decision::Wait { what, after_ms, ms } = *wait;
        Self { what, after_ms, ms }
    }
}

/// An explanation, with what is told of persons.
struct Stages<'a> {
    explanation: &'a Explanation,
    persons: &'a Persons,
}

impl Serialize for Stages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.explanation.stages().map(|stage| ExplainedStage::of(stage, self.persons)))
    }
}

#[derive(Serialize)]
struct ExplainedStage<'a> {
    stage: &'static str,
    rule: Option<RulePlace<'a>>,
    outcome: &'a str,
    inputs: Inputs<'a>,
}

impl<'a> ExplainedStage<'a> {
    fn of(stage: Stage<'a>, persons: &'a Persons) -> Self {
        let Stage { stage: name, rule, outcome, .. } = stage;
        Self { stage: name, rule: rule.map(RulePlace::from), outcome, inputs: Inputs { stage, persons } }
    }
}

/// What a stage was decided by.
struct Inputs<'a> {
    stage: Stage<'a>,
    persons: &'a Persons,
}

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = |(name, value)| Some((name, self.persons.input(name, value)?));
        serializer.collect_map(self.stage.inputs().filter_map(told))
    }
}

#[derive(Serialize)]
struct RulePlace<'a> {
    kind: &'static str,
    name: &'a str,
    file: &'a str,
    line: u32,
}

impl<'a> From<&'a RuleRef> for RulePlace<'a> {
    fn from(rule: &'a RuleRef) -> Self {
        Self { kind: rule.kind, name: &rule.name, file: &rule.file, line: rule.line }
    }
}

/// A number in so many hexadecimal digits.
struct Hex<const DIGITS: usize>(u128);

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl<const DIGITS: usize> Serialize for Hex<DIGITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn variants<S: Serializer>(variants: &[(Arc<str>, Arc<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(variants.iter().map(|(experiment, variant)| (&**experiment, &**variant)))
}

fn each<'a, T, W: From<&'a T> + Serialize, S: Serializer>(
    items: &'a [T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(W::from))
}
