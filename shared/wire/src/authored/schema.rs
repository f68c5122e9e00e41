//! The JSON Schema (draft 2020-12) of documents, made from their types: for editors, and for the first check of a push.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::trial::TestSpec;
use crate::document::{
    API_VERSION, CachePolicySpec, DomainSpec, ExperimentSpec, FunctionSpec, IssuerSpec, Metadata,
    RateLimitSpec, RegionSpec, RouteSpec, SecuritySpec, SegmentSpec, TenantSpec, TransformSpec, UpstreamSpec,
};

/// The kinds of documents that people write, in alphabetical order.
pub const KINDS: [&str; 14] = [
    "CachePolicy",
    "Domain",
    "Experiment",
    "Function",
    "Issuer",
    "RateLimit",
    "Region",
    "Route",
    "RuleTest",
    "Security",
    "Segment",
    "Tenant",
    "Transform",
    "Upstream",
];

/// The published schemas: a file name and its content for each kind, and `document.json` for any of them.
#[must_use]
pub fn schemas() -> Vec<(String, Value)> {
    let mut files: Vec<(String, Value)> =
        KINDS.iter().filter_map(|kind| Some((format!("{}.json", file_stem(kind)), schema(kind)?))).collect();
    let branch = |kind: &&str| {
        json!({
            "if": { "required": ["kind"], "properties": { "kind": { "const": kind } } },
            "then": { "$ref": format!("{}.json", file_stem(kind)) }
        })
    };
    let union = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Meridian rule document",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": { "apiVersion": { "const": API_VERSION }, "kind": { "enum": KINDS } },
        "allOf": KINDS.iter().map(branch).collect::<Vec<_>>()
    });
    files.push(("document.json".to_owned(), union));
    files
}

/// The schema of one kind.
pub(super) fn schema(kind: &str) -> Option<Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let spec = match kind {
        "CachePolicy" => of::<CachePolicySpec>(&mut generator),
        "Domain" => of::<DomainSpec>(&mut generator),
        "Experiment" => of::<ExperimentSpec>(&mut generator),
        "Function" => of::<FunctionSpec>(&mut generator),
        "Issuer" => of::<IssuerSpec>(&mut generator),
        "RateLimit" => of::<RateLimitSpec>(&mut generator),
        "Region" => of::<RegionSpec>(&mut generator),
        "Route" => of::<RouteSpec>(&mut generator),
        "RuleTest" => of::<TestSpec>(&mut generator),
        "Security" => of::<SecuritySpec>(&mut generator),
        "Segment" => of::<SegmentSpec>(&mut generator),
        "Tenant" => of::<TenantSpec>(&mut generator),
        "Transform" => of::<TransformSpec>(&mut generator),
        "Upstream" => of::<UpstreamSpec>(&mut generator),
        _ => return None,
    };
    let metadata = of::<Metadata>(&mut generator);
    let definitions: Map<String, Value> = generator.take_definitions(true);
    Some(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Meridian {kind}"),
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": { "type": "string", "enum": [API_VERSION] },
            "kind": { "type": "string", "enum": [kind] },
            "metadata": metadata,
            "spec": spec
        },
        "$defs": definitions
    }))
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// `RateLimit` → `rate-limit`.
fn file_stem(kind: &str) -> String {
    let mut stem = String::new();
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !stem.is_empty() {
            stem.push('-');
        }
        stem.push(letter.to_ascii_lowercase());
    }
    stem
}
