//! Keys of the cache: one text for one set of answers, so that two requests share a key only if they may share an answer.
//!
//! Parts are separated by `|`, which no part holds: everything but plain characters is percent-encoded. The tenant is the
//! first part, always in the clear. Values of header fields, cookies and claims are hashed: keys end up in places where
//! secrets should not.
//!
//! A URL alone does not say what answers it: routes of one path may differ by conditions, in who may use them and in where
//! they go, and a route may rewrite a URL under a condition. Both are in the key; the rest of a rewritten URL follows from
//! the URL.
//!
//! What a policy names of a request is in the key as it came, as far as any target may read it: all fields, parameters and
//! cookies of a name, in their order. A target may take the first, the last or all of them.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::Subject;
use super::names::{cookies, query_part};
use super::vary::{self, Reader, Ties};
use crate::facts::Scheme;
use crate::headers::Headers;
use crate::limits::CACHE_KEY_BYTES_MAX;
use crate::ruleset::{Auth, CachePolicy, Route, RouteTarget, Ruleset, UpstreamRef};
use crate::step::CacheKey;

/// A text made of parts.
pub(super) struct Parts(String);

impl Parts {
    fn of_tenant(tenant: &str) -> Self {
        let mut parts = Self(String::with_capacity(192));
        parts.0.push_str("2|");
        escape(&mut parts.0, tenant);
        parts
    }

    fn part(&mut self, kind: &str, text: &str) {
        self.0.push('|');
        self.0.push_str(kind);
        escape(&mut self.0, text);
    }

    /// A named value, or that there is none.
    fn named(&mut self, kind: &str, name: &str, value: Option<&str>) {
        self.part(kind, name);
        if let Some(value) = value {
            self.0.push('=');
            self.0.push_str(value);
        }
    }

    /// The key, and the text that it is made from where that is something else: a long key is a hash, behind the tenant.
    fn key(self, tenant: &str) -> (CacheKey, Option<String>) {
        if self.0.len() <= CACHE_KEY_BYTES_MAX {
            return (CacheKey(self.0), None);
        }
        let mut short = Self::of_tenant(tenant);
        if short.0.len() > CACHE_KEY_BYTES_MAX - 64 {
            short.0.clear();
        }
        short.0.push_str("|#");
        short.0.push_str(&URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.as_bytes())));
        (CacheKey(short.0), Some(self.0))
    }
}

/// Percent-encodes everything but characters that mean nothing in keys and notes.
pub(super) fn escape(to: &mut String, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@!$&'()*+?;".contains(&byte);
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
        // Plain characters are ASCII: what follows them begins a character.
        let (plain, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        to.push_str(plain);
        let mut odd = after.chars();
        if let Some(c) = odd.next() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(to, "%{byte:02X}");
            }
        }
        rest = odd.as_str();
    }
    to.push_str(rest);
}

/// 128 bits of a value's SHA-256: enough to tell values apart, nothing to read.
pub(super) fn digest(value: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(value.as_bytes()).into();
    URL_SAFE_NO_PAD.encode(hash.first_chunk::<16>().unwrap_or(&[0; 16]))
}

/// What tells the answers of one route from those of others: its name, who may use it, and what answers. Names hold no line
/// feed, and no colon: a tenant's own upstream has another mark than the platform's of the same name.
pub(crate) fn route_mark(ruleset: &Ruleset, route: &Route) -> String {
    let auth = match route.auth {
        Auth::Anonymous => "anonymous",
        Auth::Optional => "optional",
        Auth::Required { .. } => "required",
    };
    let upstream: &str = match &route.target {
        RouteTarget::Origin => "",
        RouteTarget::Upstream(UpstreamRef::Platform(name)) => name,
        RouteTarget::Upstream(UpstreamRef::Own(number)) => {
            ruleset.upstreams.get(*number).map_or("", |upstream| &upstream.rule.name)
        }
    };
    let function = route.function.and_then(|number| ruleset.functions.get(number));
    let function = function.map_or("", |function| &function.sha256);
    digest(&[&*route.rule.name, auth, upstream, function].join("\n"))
}

/// The key of a `GET` for a subject, and the text that it is made from where that is something else.
pub(super) fn primary(policy: &CachePolicy, subject: &Subject<'_>) -> (CacheKey, Option<String>) {
    let facts = subject.facts;
    at(policy, subject, &facts.path, facts.query.as_deref())
}

/// The same for another path and query of the same host.
pub(super) fn at(
    policy: &CachePolicy,
    subject: &Subject<'_>,
    path: &str,
    query: Option<&str>,
) -> (CacheKey, Option<String>) {
    let facts = subject.facts;
    let mut parts = Parts::of_tenant(subject.tenant);
    parts.part(if facts.scheme == Scheme::Https { "https" } else { "http" }, "");
    parts.part("", &facts.host);
    parts.part("", path);
    match query_part(policy, query) {
        Some(query) => parts.part("?", &query),
        None => parts.part("", ""),
    }
    parts.part("r:", subject.route);
    for rewrite in subject.rewrites {
        parts.part("w:", rewrite);
    }
    for name in &policy.headers {
        parts.named("h:", name, vary::value(name, &facts.headers, Reader::Any).as_deref());
    }
    for name in &policy.cookies {
        parts.named("k:", name, cookies(&facts.headers, name).as_deref().map(digest).as_deref());
    }
    for name in &policy.claims {
        let claim = subject.identity.and_then(|identity| identity.claims.get(name));
        // A subject is one person with its issuer only.
        let issuer = subject.identity.filter(|_| name == "sub").map_or("", |identity| &identity.iss);
        parts.named("c:", name, claim.map(|claim| digest(&format!("{issuer}{claim}"))).as_deref());
    }
    if policy.variants {
        let mut variants: Vec<_> = subject.variants.iter().collect();
        variants.sort();
        for (experiment, variant) in variants {
            let mut value = String::new();
            escape(&mut value, variant);
            parts.named("v:", experiment, Some(&value));
        }
    }
    for value in subject.values {
        parts.named("x:", "", value.as_deref().map(digest).as_deref());
    }
    parts.key(subject.tenant)
}

/// The key of this request's variant of a response that varies by these fields (RFC 9111, section 4.1). `text` is what
/// the primary key is made from, `generation` that of the entry there.
pub(super) fn secondary(
    tenant: &str,
    text: &str,
    generation: u64,
    names: &[String],
    request: &Headers,
    ties: Ties,
) -> CacheKey {
    let mut parts = Parts(text.to_owned());
    parts.part("g:", &generation.to_string());
    for name in names {
        parts.named("y:", name, vary::value(name, request, Reader::Variant(ties)).as_deref());
    }
    parts.key(tenant).0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::{get, policy, subject};
    use super::super::{Begin, begin};
    use super::*;
    use crate::fixtures::{route, rule, ruleset, upstream};
    use crate::policy::jwt::Identity;
    use crate::ruleset::{Fail, Function, KeyPart, RuleRef, Upstream};

    /// What goes into a key, drawn from few values so that equal ones occur.
    #[derive(Clone, Debug, PartialEq)]
    struct Keyed3 {
        tenant: String,
        route: String,
        rewrite: Option<String>,
        path: String,
        query: Option<String>,
        header: Option<String>,
        claim: Option<String>,
        variant: Option<String>,
    }

    fn keyed() -> impl Strategy<Value = Keyed3> {
        let text = "[a|=%#?:.]{0,3}";
        let maybe = || proptest::option::of(text);
        let names = ("[a|]{1,2}", "[a|]{1,2}", maybe());
        (names, "/[a|=%#?]{0,2}", maybe(), maybe(), maybe(), maybe()).prop_map(
            |((tenant, route, rewrite), path, query, header, claim, variant)| Keyed3 {
                tenant,
                route,
                rewrite,
                path,
                query,
                header,
                claim,
                variant,
            },
        )
    }

    fn key_of(keyed: &Keyed3, pad: &str) -> CacheKey {
        let mut policy = policy();
        policy.headers = vec!["x-h".to_owned()];
        policy.claims = vec!["c".to_owned()];
        policy.variants = true;
        let mut facts = get("/", &[]);
        facts.path = format!("{}{pad}", keyed.path);
        facts.query.clone_from(&keyed.query);
        if let Some(header) = &keyed.header {
            facts.headers.append("x-h", header.as_str());
        }
        let claims = keyed.claim.iter().map(|claim| ("c".to_owned(), json!(claim))).collect();
        let identity = Identity { claims, ..Identity::default() };
        let variants: Vec<_> =
            keyed.variant.iter().map(|variant| ("e".into(), variant.as_str().into())).collect();
        let rewrites: Vec<Arc<str>> = keyed.rewrite.iter().map(|name| name.as_str().into()).collect();
        let subject = Subject {
            tenant: &keyed.tenant,
            route: &keyed.route,
            rewrites: &rewrites,
            identity: Some(&identity),
            variants: &variants,
            ..subject(&facts)
        };
        let Begin::LookUp(lookup) = begin(&policy, &subject, false) else { panic!() };
        lookup.key().clone()
    }

    #[test]
    fn routes_are_told_apart_by_name_auth_and_what_answers() {
        let named = |name: &str| RuleRef { name: name.into(), ..rule("Route") };
        let mut rules = ruleset(vec![]);
        for name in ["main", "fr"] {
            rules.upstreams.push(Upstream { rule: named(name), ..upstream(vec![]) });
        }
        for sha256 in ["aa", "bb"] {
            rules.functions.push(Function {
                rule: rule("Function"),
                sha256: sha256.into(),
                component_bytes: 1,
                memory_bytes_max: 1,
                cpu_ms_max: 1,
                timeout_ms: 1,
                fail: Fail::Closed,
            });
        }
        let base = route("/a");
        let required = Auth::Required { scopes: vec![], when: None };
        let routes = [
            base.clone(),
            Route { rule: named("other"), ..base.clone() },
            Route { auth: Auth::Optional, ..base.clone() },
            Route { auth: required.clone(), ..base.clone() },
            Route { target: RouteTarget::Upstream(UpstreamRef::Own(0)), ..base.clone() },
            Route { target: RouteTarget::Upstream(UpstreamRef::Own(1)), ..base.clone() },
            Route {
                target: RouteTarget::Upstream(UpstreamRef::Platform("platform:main".into())),
                ..base.clone()
            },
            Route { function: Some(0), ..base.clone() },
            Route { function: Some(1), ..base.clone() },
        ];
        let marks: Vec<_> = routes.iter().map(|route| route_mark(&rules, route)).collect();
        let distinct: BTreeSet<_> = marks.iter().collect();
        assert_eq!(distinct.len(), routes.len(), "{marks:?}");
        // What does not change the answer of a URL leaves entries where they are.
        let with_scope = Auth::Required { scopes: vec!["a".to_owned()], when: None };
        let mark = |auth| route_mark(&rules, &Route { auth, limits: vec![3], ..base.clone() });
        assert_eq!(mark(with_scope), mark(required));
        assert_eq!(mark(Auth::Anonymous), route_mark(&rules, &base));
    }

    #[test]
    fn one_subject_of_two_issuers_has_two_keys() {
        let key = |iss: &str, claim: &str| {
            let policy = CachePolicy { claims: vec![claim.to_owned()], ..policy() };
            let identity = Identity {
                iss: iss.to_owned(),
                subject: Some("ada".into()),
                claims: BTreeMap::from([
                    ("sub".to_owned(), json!("ada")),
                    ("plan".to_owned(), json!("gold")),
                ]),
                ..Identity::default()
            };
            let facts = get("/", &[]);
            let identity = Some(&identity);
            primary(&policy, &Subject { identity, ..subject(&facts) }).0
        };
        assert_ne!(key("https://a.example", "sub"), key("https://b.example", "sub"));
        assert_eq!(key("https://a.example", "plan"), key("https://b.example", "plan"), "a plan is no person");
    }

    #[test]
    fn all_cookies_and_fields_of_a_name_are_in_the_key_as_they_came() {
        let policy = CachePolicy {
            cookies: vec!["theme".to_owned()],
            headers: vec!["x-theme".to_owned(), "accept".to_owned()],
            ..policy()
        };
        let key = |fields: &[(&str, &str)]| primary(&policy, &subject(&get("/", fields))).0;
        let distinct = |requests: &[&[(&str, &str)]]| {
            let keys: Vec<_> = requests.iter().map(|fields| key(fields).0).collect();
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{keys:#?}");
        };
        distinct(&[
            &[],
            &[("cookie", "theme=a")],
            &[("cookie", "theme=b")],
            &[("cookie", "theme=\"a\"")],
            &[("cookie", "theme=a; theme=b")],
            &[("cookie", "theme=b; theme=a")],
            &[("cookie", "theme=a; theme=a")],
            &[("cookie", "theme=a; Theme=b")],
            &[("cookie", "theme=a; %74heme=b")],
            &[("cookie", "theme=a; theme[x]=b")],
            &[("cookie", "theme =a")],
            &[("cookie", "theme=a ; x=1")],
            &[("cookie", "theme=")],
            &[("cookie", "theme")],
        ]);
        assert_eq!(key(&[("cookie", "x=1; theme=a; y=2")]), key(&[("cookie", "theme=a; x=theme")]));
        let own = "theme=a; meridian_unit=u1.a.b; meridian_session=s1";
        assert_eq!(key(&[("cookie", own)]), key(&[("cookie", "theme=a")]));
        assert_eq!(key(&[("cookie", "x=1")]), key(&[]));
        distinct(&[
            &[],
            &[("x-theme", "")],
            &[("x-theme", "a")],
            &[("x-theme", "A")],
            &[("x-theme", "a,")],
            &[("x-theme", "\"a,b\"")],
            &[("x-theme", "\"a, b\"")],
            &[("x-theme", "a"), ("x-theme", "b")],
            &[("x-theme", "b"), ("x-theme", "a")],
        ]);
        let lines = [("x-theme", "a"), ("x-theme", "b")];
        assert_eq!(key(&lines), key(&[("x-theme", "a, b")]), "RFC 9110 5.2");
        assert_eq!(
            key(&[("accept", "text/html,*/*")]),
            key(&[("accept", "Text/HTML, */*")]),
            "RFC 9110 5.6.1"
        );
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_for_equal_inputs(a in keyed(), b in keyed(), long in any::<bool>()) {
            let pad = if long { "x".repeat(600) } else { String::new() };
            let (one, other) = (key_of(&a, &pad), key_of(&b, &pad));
            prop_assert_eq!(one.tenant() == other.tenant(), a.tenant == b.tenant);
            prop_assert_eq!(one == other, a == b, "{:?} {:?}", one, other);
            prop_assert!(one.0.len() <= crate::limits::CACHE_KEY_BYTES_MAX);
            prop_assert!(one.0.bytes().all(|byte| byte.is_ascii_graphic()));
        }

        #[test]
        fn tenants_and_routes_never_share_an_entry(a in "[a-z|]{1,80}", b in "[a-z|]{1,80}", path in "/[ -~]{0,700}") {
            prop_assume!(a != b);
            let keyed = |tenant: &str, route: &str| Keyed3 {
                tenant: tenant.to_owned(),
                route: route.to_owned(),
                rewrite: None,
                path: path.clone(),
                query: None,
                header: None,
                claim: None,
                variant: None,
            };
            prop_assert_ne!(key_of(&keyed(&a, "r"), ""), key_of(&keyed(&b, "r"), ""));
            prop_assert_ne!(key_of(&keyed("acme", &a), ""), key_of(&keyed("acme", &b), ""));
        }

        #[test]
        fn listed_parameters_alone_count_in_any_order(
            pairs in proptest::collection::vec(("[abc]", "[0-9]"), 0..5),
            seed in any::<u64>(),
        ) {
            let mut policy = policy();
            policy.query = KeyPart::Only(vec!["a".to_owned(), "b".to_owned()]);
            let key = |pairs: &[(String, String)]| {
                let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let mut facts = get("/", &[]);
                facts.query = (!query.is_empty()).then(|| query.join("&"));
                primary(&policy, &subject(&facts)).0
            };
            let mut moved: Vec<_> = pairs.iter().filter(|(name, _)| name != "c").cloned().collect();
            if seed % 2 == 0 {
                moved.sort_by(|(a, _), (b, _)| b.cmp(a));
            }
            prop_assert_eq!(key(&pairs), key(&moved));
        }
    }
}
