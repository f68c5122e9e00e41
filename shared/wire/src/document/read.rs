//! Reading a document of a bundle. What is derived for flattened and tagged shapes first builds a tree of everything, and
//! reads that: of ten thousand documents this is most of the time that an edge stands still for a new bundle. A bundle names
//! the kind before the spec, so that each spec is read as what it is at once; in any other order it is put aside.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{
    Body, CachePolicySpec, Document, DomainSpec, ExperimentSpec, FunctionSpec, IssuerSpec, RateLimitSpec,
    RegionSpec, RouteSpec, SecuritySpec, SegmentSpec, TenantSpec, TransformSpec, UpstreamSpec,
};

/// Kinds of documents, in the order of [`Body`].
const KINDS: &[&str] = &[
    "Region",
    "Upstream",
    "Tenant",
    "Domain",
    "Issuer",
    "Route",
    "RateLimit",
    "Experiment",
    "CachePolicy",
    "Transform",
    "Security",
    "Segment",
    "Function",
];

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Takes the members of a document.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Document, A::Error> {
        let (mut kind, mut body, mut metadata, mut source) = (None::<String>, None, None, None);
        let mut aside: Option<Value> = None;
        while let Some(name) = members.next_key::<String>()? {
            match (name.as_str(), &kind) {
                ("kind", None) => kind = Some(members.next_value()?),
                ("kind", Some(_)) => return Err(de::Error::duplicate_field("kind")),
                ("spec", _) if body.is_some() || aside.is_some() => {
                    return Err(de::Error::duplicate_field("spec"));
                }
                ("spec", Some(kind)) => body = Some(members.next_value_seed(SpecOf(kind))?),
                ("spec", None) => aside = Some(members.next_value()?),
                ("metadata", _) if metadata.is_some() => return Err(de::Error::duplicate_field("metadata")),
                ("metadata", _) => metadata = Some(members.next_value()?),
                ("source", _) if source.is_some() => return Err(de::Error::duplicate_field("source")),
                ("source", _) => source = Some(members.next_value()?),
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        let body = match (body, kind, aside) {
            (Some(body), ..) => body,
            (None, None, _) => return Err(de::Error::missing_field("kind")),
            (None, Some(_), None) => return Err(de::Error::missing_field("spec")),
            (None, Some(kind), Some(spec)) => SpecOf(&kind).deserialize(spec).map_err(de::Error::custom)?,
        };
        Ok(Document {
            body,
            metadata: metadata.ok_or_else(|| de::Error::missing_field("metadata"))?,
            source: source.ok_or_else(|| de::Error::missing_field("source"))?,
        })
    }
}

/// Reads the spec of a document of this kind.
struct SpecOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for SpecOf<'_> {
    type Value = Body;

    fn deserialize<D: Deserializer<'de>>(self, spec: D) -> Result<Body, D::Error> {
        match self.0 {
            "Region" => RegionSpec::deserialize(spec).map(Body::Region),
            "Upstream" => UpstreamSpec::deserialize(spec).map(Body::Upstream),
            "Tenant" => TenantSpec::deserialize(spec).map(Body::Tenant),
            "Domain" => DomainSpec::deserialize(spec).map(Body::Domain),
            "Issuer" => IssuerSpec::deserialize(spec).map(Body::Issuer),
            "Route" => RouteSpec::deserialize(spec).map(Body::Route),
            "RateLimit" => RateLimitSpec::deserialize(spec).map(Body::RateLimit),
            "Experiment" => ExperimentSpec::deserialize(spec).map(Body::Experiment),
            "CachePolicy" => CachePolicySpec::deserialize(spec).map(Body::CachePolicy),
            "Transform" => TransformSpec::deserialize(spec).map(Body::Transform),
            "Security" => SecuritySpec::deserialize(spec).map(Body::Security),
            "Segment" => SegmentSpec::deserialize(spec).map(Body::Segment),
            "Function" => FunctionSpec::deserialize(spec).map(Body::Function),
            other => Err(de::Error::unknown_variant(other, KINDS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(document: &Value) -> String {
        serde_json::from_str::<Document>(&document.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_is_read_as_what_it_is() {
        let derived = serde_json::from_value::<Body>(json!({"kind": "Odd", "spec": {}})).unwrap_err();
        let ours: serde_json::Error = de::Error::unknown_variant("Odd", KINDS);
        assert_eq!(ours.to_string(), derived.to_string(), "the same kinds");
        for kind in KINDS {
            let body = json!({"kind": kind, "spec": {}});
            let derived = serde_json::from_value::<Body>(body.clone()).map(|body| body.kind());
            let document = json!({"kind": kind, "spec": {}, "metadata": {"name": "a"}, "source": {"file": "", "line": 1}});
            let ours = serde_json::from_str::<Document>(&document.to_string()).map(|it| it.body.kind());
            match (ours, derived) {
                (Ok(ours), Ok(derived)) => assert_eq!((ours, derived), (*kind, *kind)),
                (Err(ours), Err(derived)) => {
                    let (ours, derived) = (ours.to_string(), derived.to_string());
                    assert!(ours.starts_with(&derived), "{kind}: {ours}, derived: {derived}");
                }
                (ours, derived) => panic!("{kind}: {ours:?}, derived: {derived:?}"),
            }
        }
    }

    #[test]
    fn members_come_in_any_order_and_once() {
        let (spec, metadata) = (json!({"tenant": "acme"}), json!({"name": "a.example"}));
        let source = json!({"file": "a.yaml", "line": 3});
        let before = format!(r#"{{"kind":"Domain","spec":{spec},"metadata":{metadata},"source":{source}}}"#);
        let after = format!(
            r#"{{"source":{source},"more":[1],"spec":{spec},"metadata":{metadata},"kind":"Domain"}}"#
        );
        let read = |text: &str| serde_json::from_str::<Document>(text).unwrap();
        assert_eq!(read(&before), read(&after));
        assert_eq!(serde_json::to_string(&read(&after)).unwrap(), before);
        for (name, member) in [("spec", &spec), ("metadata", &metadata), ("source", &source)] {
            let twice = format!(r#"{{"kind":"Domain","{name}":{member},"{name}":{member}}}"#);
            let fault = serde_json::from_str::<Document>(&twice).unwrap_err().to_string();
            assert!(fault.contains(&format!("duplicate field `{name}`")), "{fault}");
        }
        assert!(refused(&json!({"spec": {}})).contains("missing field `kind`"));
        assert!(refused(&json!({"kind": "Domain"})).contains("missing field `spec`"));
        assert!(
            refused(&json!({"kind": "Domain", "spec": {"tenant": "a"}})).contains("missing field `metadata`")
        );
        assert!(refused(&json!([])).contains("expected a document"));
    }
}
