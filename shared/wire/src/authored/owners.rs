//! Which requests changed hands between two sets of documents: a sample of each route's requests is asked of both.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use meridian_engine::expr::Inputs;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::policy::route::{Matched, RouteIndex};
use meridian_engine::ruleset::{Matcher, Route, Ruleset, Segment, Target, Version};

use super::diff::OwnerChange;
use crate::bundle::{Rules, compile};
use crate::document::{Body, Document};

/// What changed hands. A condition on more than the request's line and fields is not tried: whether it holds depends on
/// who asks, from where and when.
pub(super) fn owners(before: &[Document], after: &[Document]) -> Vec<OwnerChange> {
    let (before, after) = (Routing::of(before), Routing::of(after));
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    for matcher in before.matchers().chain(after.matchers()) {
        let domain = after.domain().or_else(|| before.domain()).unwrap_or("tenant.invalid");
        let (facts, words) = sample(matcher, domain);
        if !seen.insert(words.clone()) {
            continue;
        }
        let (was, is) = (before.owner(&facts), after.owner(&facts));
        if was != is {
            changes.push(OwnerChange { requests: words, before: was, after: is });
        }
    }
    changes.sort_by(|a, b| a.requests.cmp(&b.requests));
    changes
}

/// Routes that can be asked. Documents that don't hold together answer nothing.
struct Routing {
    rules: Option<(Box<Ruleset>, RouteIndex)>,
}

impl Routing {
    fn of(documents: &[Document]) -> Self {
        let slug = documents.iter().find(|document| matches!(document.body, Body::Tenant(_)));
        let rules = slug.and_then(|tenant| {
            let target = Target::Tenant(tenant.metadata.name.clone());
            match compile(documents, &target, Version { sequence: 0, hash: String::new() }) {
                Ok(Rules::Tenant(ruleset)) => {
                    let index = RouteIndex::new(&ruleset.routes);
                    Some((ruleset, index))
                }
                Ok(Rules::Platform(_)) | Err(_) => None,
            }
        });
        Self { rules }
    }

    fn routes(&self) -> &[Route] {
        self.rules.as_ref().map_or(&[], |(rules, _)| &rules.routes)
    }

    fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.routes().iter().map(|route| &route.matcher)
    }

    fn domain(&self) -> Option<&str> {
        let (rules, _) = self.rules.as_ref()?;
        rules.tenant.domains.iter().find(|domain| !domain.starts_with("*.")).map(String::as_str)
    }

    /// Name of the route that answers.
    fn owner(&self, facts: &Facts) -> Option<String> {
        let (rules, index) = self.rules.as_ref()?;
        let inputs = Inputs::anonymous(facts, &rules.tenant.slug);
        match index.find(&rules.routes, &inputs, &mut Vec::new()) {
            Matched::Route(number) => rules.routes.get(number).map(|route| route.rule.name.to_string()),
            Matched::None | Matched::Methods(_) => None,
        }
    }
}

/// A request that a route is for, and the requests that it stands for in a few words.
fn sample(matcher: &Matcher, domain: &str) -> (Facts, String) {
    let method = matcher.methods.first().map_or("GET", String::as_str);
    let host = match matcher.hosts.first() {
        Some(wildcard) if wildcard.starts_with("*.") => format!("any{}", wildcard.trim_start_matches('*')),
        Some(host) => host.clone(),
        None => domain.to_owned(),
    };
    let (mut path, mut pattern) = (String::new(), String::new());
    for segment in &matcher.path.segments {
        let (real, shown) = match segment {
            Segment::Literal(text) => (text.clone(), text.clone()),
            Segment::Capture(name) => ("any".to_owned(), format!("{{{name}}}")),
        };
        path = format!("{path}/{real}");
        pattern = format!("{pattern}/{shown}");
    }
    if matcher.path.open {
        path.push_str("/any/more");
        pattern.push_str("/**");
    }
    let or_slash = |text: String| if text.is_empty() { "/".to_owned() } else { text };
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "any".to_owned());
    let query: Vec<String> = matcher.query.iter().map(|(name, it)| format!("{name}={}", value(it))).collect();
    let fields: Vec<String> =
        matcher.headers.iter().map(|(name, it)| format!("{name}: {}", value(it))).collect();
    let headers: Headers = matcher.headers.iter().map(|(name, it)| (name.clone(), value(it))).collect();
    let mut words = format!("{method} {host}{}", or_slash(pattern));
    if !query.is_empty() {
        words = format!("{words}?{}", query.join("&"));
    }
    if !fields.is_empty() {
        words = format!("{words} with {}", fields.join(", "));
    }
    let facts = Facts {
        method: method.to_owned(),
        scheme: Scheme::Https,
        host,
        path: or_slash(path),
        query: (!query.is_empty()).then(|| query.join("&")),
        headers,
        client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        place: Place::default(),
        body: BodySize::Empty,
        now_ms: 0,
        random: [0; 16],
    };
    (facts, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(routes: &[(&str, &str, &str)]) -> Vec<Document> {
        let document = |kind: &str, name: &str, spec: serde_json::Value| {
            let json = serde_json::json!({"kind": kind, "spec": spec, "metadata": {"name": name}, "source": {"file": "", "line": 1}});
            serde_json::from_value(json).unwrap()
        };
        let mut all = vec![
            document("Tenant", "acme", serde_json::json!({"homeRegion": "a", "allowedRegions": ["a"]})),
            document("Domain", "acme.example", serde_json::json!({"tenant": "acme"})),
        ];
        all.extend(routes.iter().map(|(name, method, path)| {
            document("Route", name, serde_json::json!({"match": {"path": path, "methods": [method]}}))
        }));
        all
    }

    #[test]
    fn a_new_route_that_shadows_an_old_one_is_told() {
        let before = documents(&[("orders", "GET", "/v1/{collection}/**")]);
        let after =
            documents(&[("orders", "GET", "/v1/{collection}/**"), ("invoices", "GET", "/v1/invoices/{id}")]);
        let change = OwnerChange {
            requests: "GET acme.example/v1/invoices/{id}".into(),
            before: Some("orders".into()),
            after: Some("invoices".into()),
        };
        assert_eq!(owners(&before, &after), [change]);
        assert_eq!(owners(&before, &before), []);
        let gone = owners(&before, &documents(&[]));
        assert_eq!(gone.len(), 1);
        assert_eq!((gone[0].before.as_deref(), gone[0].after.as_deref()), (Some("orders"), None));
    }
}
