//! What of a push is beyond the tenant's plan.

use super::invalid::Invalid;
use crate::document::{Body, Document};

/// What the plan among the documents does not allow of them, each at the first document that it does not.
pub(super) fn beyond(documents: &[Document], bundle_bytes: usize) -> Vec<Invalid> {
    let mut tenants = documents.iter().filter_map(|document| match &document.body {
        Body::Tenant(spec) => Some((document, &spec.plan)),
        _ => None,
    });
    let Some((tenant, plan)) = tenants.next() else { return Vec::new() };
    let name = plan.name.as_ref().map_or_else(|| "the plan".to_owned(), |name| format!("the plan {name:?}"));
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document.body.kind() == kind);
    let mut invalid = Vec::new();
    if let Some(most) = plan.max_routes
        && let Some(first) = of_kind("Route").nth(usize::try_from(most).unwrap_or(usize::MAX))
    {
        let found = format!("{} Route documents", of_kind("Route").count());
        invalid.push(at(first, "kind", found, format!("at most {most}, as {name} allows")));
    }
    if plan.functions == Some(false)
        && let Some(first) = of_kind("Function").next()
    {
        let expected = format!("no Function document, as {name} allows none");
        invalid.push(at(first, "kind", "Function".to_owned(), expected));
    }
    if let Some(most) = plan.max_bundle_bytes.filter(|most| bundle_bytes as u64 > *most) {
        let found = format!("a bundle of {bundle_bytes} bytes");
        invalid.push(at(
            tenant,
            "spec.plan.maxBundleBytes",
            found,
            format!("at most {most} bytes, as {name} allows"),
        ));
    }
    invalid
}

fn at(document: &Document, path: &str, found: String, expected: String) -> Invalid {
    let source = &document.source;
    let (file, line) = (source.file.clone(), source.line.max(1));
    Invalid { file, line, column: 1, path: path.to_owned(), found, expected, suggestion: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plan_does_not_allow_is_said_where_it_begins() {
        let check = |plan: &str, expected: &[&str]| {
            let documents: Vec<Document> = serde_json::from_str(&format!(
                r#"[{{"kind":"Function","spec":{{"component":"a.wasm"}},"metadata":{{"name":"f"}},"source":{{"file":"f.yaml","line":3}}}},
                    {{"kind":"Route","spec":{{"match":{{"path":"/a"}}}},"metadata":{{"name":"a"}},"source":{{"file":"r.yaml","line":1}}}},
                    {{"kind":"Route","spec":{{"match":{{"path":"/b"}}}},"metadata":{{"name":"b"}},"source":{{"file":"r.yaml","line":6}}}},
                    {{"kind":"Tenant","spec":{{"homeRegion":"us","allowedRegions":["us"],"plan":{plan}}},
                      "metadata":{{"name":"acme"}},"source":{{"file":"control-plane","line":1}}}}]"#
            ))
            .unwrap();
            let invalid: Vec<String> = beyond(&documents, 900).iter().map(ToString::to_string).collect();
            assert_eq!(invalid, expected, "{plan}");
        };
        check("{}", &[]);
        check(r#"{"maxRoutes":2,"maxBundleBytes":900,"functions":true}"#, &[]);
        check(
            r#"{"name":"small","maxRoutes":1,"maxBundleBytes":899,"functions":false}"#,
            &[
                "r.yaml:6:1: kind: found 2 Route documents, expected at most 1, as the plan \"small\" allows",
                "f.yaml:3:1: kind: found Function, expected no Function document, as the plan \"small\" allows none",
                "control-plane:1:1: spec.plan.maxBundleBytes: found a bundle of 900 bytes, expected at most 899 bytes, \
                 as the plan \"small\" allows",
            ],
        );
        check(
            r#"{"maxRoutes":0}"#,
            &["r.yaml:1:1: kind: found 2 Route documents, expected at most 0, as the plan allows"],
        );
    }
}
