//! Rules on trial: a described request goes through the real engine, with an origin and an authority that answer as the
//! test says. Tests that stand beside rules (`kind: RuleTest`) and `rules explain --request` are run by it.
//!
//! Signatures are not made and not checked here: the request says who it comes from, and that is believed.

mod run;
mod token;

pub use run::{Answered, Trial};

use std::collections::BTreeMap;

use meridian_engine::ruleset::{Platform, Ruleset};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Invalid, Test};

/// A test of rules: a request, and what must come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestSpec {
    /// The request.
    pub request: RequestSpec,
    /// How often it is sent, at one moment; the last answer counts.
    #[serde(default = "once")]
    pub repeat: u32,
    /// What the origin of a region does. Without an entry it answers 200.
    #[serde(default)]
    pub origins: BTreeMap<String, OriginAnswer>,
    /// What must come of it. All that is given must hold.
    pub expect: Expectation,
}

/// A described request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestSpec {
    /// Method.
    #[serde(default = "get")]
    pub method: String,
    /// Host. Without it, the tenant's first exact domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path, with its query if it has one.
    pub path: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Where the client is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceSpec>,
    /// Who it comes from. Without it, nobody who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentitySpec>,
}

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceSpec {
    /// ISO 3166-1 alpha-2 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Two-letter continent code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continent: Option<String>,
    /// First-level subdivision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdivision: Option<String>,
    /// City.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// IANA time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Autonomous system number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Degrees north.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    /// Degrees east.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
}

/// Who a request comes from: it carries a token of the tenant's issuer that says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySpec {
    /// Name of the `Issuer` document. Without it, the tenant's only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Subject.
    pub subject: String,
    /// Scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claims beside those that every token has.
    #[serde(default)]
    pub claims: BTreeMap<String, Value>,
    /// Whether the signature is right.
    #[serde(default = "yes")]
    pub signed: bool,
    /// Whether the token has expired.
    #[serde(default)]
    pub expired: bool,
}

/// What an origin does: a status, or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum OriginAnswer {
    /// Answers with this status.
    Status(u16),
    /// Does not answer.
    Word(OriginWord),
}

/// How an origin does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OriginWord {
    /// No connection.
    Down,
    /// No answer in time.
    Slow,
    /// Its health check fails, and everybody knows.
    Unhealthy,
}

/// What must come of a request. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// Status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Name of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `forwarded`, `cached`, `denied`, `limited` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Region that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Variant by experiment.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// Header fields of the reply; `null` where the field must not be there.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// Name of the test.
    pub name: String,
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
    /// What was not as expected; empty where the test passed.
    pub failures: Vec<TestFailure>,
}

/// Something that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestFailure {
    /// Path in the test, `spec.expect.status`.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl TestReport {
    /// Whether everything was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The failures as what is wrong with a push.
    #[must_use]
    pub fn invalid(&self) -> Vec<Invalid> {
        let invalid = |failure: &TestFailure| Invalid {
            file: self.file.clone(),
            line: self.line,
            column: 1,
            path: format!("{} of the test {:?}", failure.path, self.name),
            found: failure.found.clone(),
            expected: failure.expected.clone(),
            suggestion: None,
        };
        self.failures.iter().map(invalid).collect()
    }
}

/// Runs tests against rules, each with an edge of its own.
#[must_use]
pub fn run_tests(ruleset: &Ruleset, platform: &Platform, tests: &[Test]) -> Vec<TestReport> {
    let ruleset = std::sync::Arc::new(ruleset.clone());
    let platform = std::sync::Arc::new(platform.clone());
    let report = |test: &Test| {
        let mut trial = Trial::new(ruleset.clone(), platform.clone());
        let mut answered = trial.send(&test.spec.request, &test.spec.origins);
        for _ in 1..test.spec.repeat.clamp(1, REPEAT_MAX) {
            answered = answered.and_then(|_| trial.send(&test.spec.request, &test.spec.origins));
        }
        let failures = match answered {
            Ok(answered) => test.spec.expect.failures(&answered),
            Err(failure) => vec![failure],
        };
        TestReport {
            name: test.name.clone(),
            file: test.source.file.clone(),
            line: test.source.line,
            failures,
        }
    };
    tests.iter().map(report).collect()
}

/// How often a test may send its request.
const REPEAT_MAX: u32 = 10_000;

impl Expectation {
    fn failures(&self, answered: &Answered) -> Vec<TestFailure> {
        let decision = &answered.decision;
        let mut failures = Vec::new();
        let mut check = |path: &str, expected: Option<String>, found: Option<String>| {
            if let Some(expected) = expected
                && found.as_ref() != Some(&expected)
            {
                let found = found.unwrap_or_else(|| "nothing".to_owned());
                failures.push(TestFailure { path: format!("spec.expect.{path}"), found, expected });
            }
        };
        check("status", self.status.map(|status| status.to_string()), Some(answered.status.to_string()));
        check("route", self.route.clone(), decision.route.as_deref().map(str::to_owned));
        check("outcome", self.outcome.clone(), Some(decision.outcome.as_str().to_owned()));
        check("region", self.region.clone(), decision.region.as_deref().map(str::to_owned));
        for (experiment, variant) in &self.variants {
            let found = decision.variants.iter().find(|(name, _)| **name == **experiment);
            let found = found.map(|(_, variant)| variant.to_string());
            check(&format!("variants.{experiment}"), Some(variant.clone()), found);
        }
        for (name, value) in &self.headers {
            let found = answered.headers.joined(&name.to_ascii_lowercase());
            let path = format!("headers.{name}");
            match value {
                Some(value) => check(&path, Some(value.clone()), found),
                None => check(
                    &path,
                    Some("nothing".to_owned()),
                    Some(found.unwrap_or_else(|| "nothing".to_owned())),
                ),
            }
        }
        failures
    }
}

fn once() -> u32 {
    1
}

fn get() -> String {
    "GET".to_owned()
}

fn yes() -> bool {
    true
}
