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
use super::vary::{self, Reader, Ties};
use crate::facts::{Scheme, percent_decode};
use crate::headers::{Headers, is_token};
use crate::limits::CACHE_KEY_BYTES_MAX;
use crate::policy::request::is_own_cookie;
use crate::ruleset::{Auth, CachePolicy, KeyPart, Route, RouteTarget, Ruleset, UpstreamRef};
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

/// What of a query is in the key. One with a `;`, or with a name that is odd, is all of it where only some parameters count:
/// origins that take this for `&` read other parameters than those that do not, and either would poison the entry of the other.
pub(super) fn query_part(policy: &CachePolicy, query: Option<&str>) -> Option<String> {
    let is_ambiguous = |query: &str| query.contains(';') || query.split('&').map(name_of).any(is_odd);
    match (&policy.query, query) {
        (KeyPart::None, _) | (_, None) => None,
        (KeyPart::All, Some(query)) => Some(query.to_owned()),
        (KeyPart::Only(_), Some(query)) if is_ambiguous(query) => Some(query.to_owned()),
        (KeyPart::Only(names), Some(query)) => Some(only(query, names)).filter(|query| !query.is_empty()),
    }
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

/// The listed parameters of a query, sorted by name, in their order among equals. Pairs stay as they came.
fn only(query: &str, names: &[String]) -> String {
    let wanted: Vec<String> = names.iter().map(|name| broad(name)).collect();
    let named = |pair| (broad(name_of(pair)), pair);
    let mut pairs: Vec<_> = query.split('&').map(named).filter(|(name, _)| wanted.contains(name)).collect();
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().join("&")
}

/// All cookies of a name with their names, in their order; `None` where there is none. Which of several counts is the target's to
/// say (RFC 6265, section 5.4). Where any cookie holds what none may, targets disagree about where each of them begins and ends:
/// some read quotes, some split at commas or spaces, some read no more. All cookies that a target sees are in the key then.
fn cookies(request: &Headers, name: &str) -> Option<String> {
    let name = broad(name);
    let pairs = request.get_all("cookie").flat_map(|cookies| cookies.split(';')).map(str::trim_start);
    let mut pairs: Vec<&str> = pairs.filter(|pair| !is_own_cookie(pair)).collect();
    if pairs.iter().all(|pair| is_plain(pair)) {
        pairs.retain(|pair| broad(name_of(pair)) == name);
    } else {
        let mut parts = pairs.iter().flat_map(|pair| pair.split(|letter| !is_of_cookie(letter))).map(name_of);
        if !parts.any(|part| broad(part) == name || is_odd(part)) {
            return None;
        }
    }
    // No pair holds what stands between them.
    (!pairs.is_empty()).then(|| pairs.join(";"))
}

/// Whether a cookie is as servers may set it (RFC 6265, section 4.1.1), without quotes and with a name that is not odd.
fn is_plain(pair: &str) -> bool {
    let pair = pair.trim_end();
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    !is_odd(name) && name.bytes().all(is_token) && value.chars().all(is_of_cookie)
}

/// Whether a character may stand in a cookie (`cookie-octet` of RFC 6265, section 4.1.1).
fn is_of_cookie(letter: char) -> bool {
    letter.is_ascii_graphic() && !matches!(letter, '"' | ',' | ';' | '\\')
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// Whether targets disagree about where a name ends: at a zero byte, or at brackets that are not those of a list behind it.
fn is_odd(name: &str) -> bool {
    let name = percent_decode(name, true);
    let is_list = match name.split_once('[') {
        Some((before, list)) => !before.trim().is_empty() && !before.contains(']') && list.contains(']'),
        None => !name.contains(']'),
    };
    name.contains('\0') || !is_list
}

/// A name that is not odd in one form for all in which some target takes it for the same: decoded, in any case, with white space
/// around it, as one of a list (`name[]`), or with `_` for a `.` or a space, as PHP reads it. Where others tell them apart, a few
/// more entries are the price.
fn broad(name: &str) -> String {
    let name = percent_decode(name, true);
    let name = name.split('[').next().unwrap_or_default().trim_start();
    let name = name.to_ascii_lowercase().replace(['.', ' '], "_");
    // A space at the end may be one, or be left out.
    name.trim_end_matches(|letter: char| letter.is_whitespace() || letter == '_').to_owned()
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
    use crate::ruleset::{Fail, Function, RuleRef, Upstream};

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
    fn a_query_that_can_be_split_in_two_ways_is_in_the_key_as_it_is() {
        let policy =
            CachePolicy { query: KeyPart::Only(vec!["q".to_owned(), "page".to_owned()]), ..policy() };
        let part = |query: &str| query_part(&policy, Some(query));
        assert_eq!(part("utm=1&q=a&page=2"), Some("page=2&q=a".to_owned()));
        assert_eq!(part("utm=1"), None);
        for query in ["utm=1;q=evil", "q=a;page=2", "page=2&q=a;", ";", "utm=1&q=a;utm=2"] {
            assert_eq!(part(query).as_deref(), Some(query), "neither that of `&` nor that of `;`");
        }
        assert_eq!(part("q=a%3Bpage=2"), Some("q=a%3Bpage=2".to_owned()), "encoded it splits nothing");
        let none = CachePolicy { query: KeyPart::None, ..policy.clone() };
        assert_eq!(query_part(&none, Some("a;b")), None);
    }

    #[test]
    fn all_parameters_of_a_name_are_in_the_key_however_a_target_may_read_it() {
        let policy =
            CachePolicy { query: KeyPart::Only(vec!["q".to_owned(), "ids[]".to_owned()]), ..policy() };
        let check = |query: &str, expect: Option<&str>| {
            assert_eq!(query_part(&policy, Some(query)).as_deref(), expect, "{query}");
        };
        check("q=1&x=2&q=3", Some("q=1&q=3"));
        check("q=3&q=1", Some("q=3&q=1"));
        for other in ["%71=1", "Q=1", "q[]=1", "q%5Ba%5D=1", "+q=1", "q", "q="] {
            check(&format!("x=1&{other}"), Some(other));
            check(&format!("q=1&{other}"), Some(&format!("q=1&{other}")));
        }
        check("ids[]=1&ids%5B%5D=2&ids=3", Some("ids[]=1&ids%5B%5D=2&ids=3"));
        check("xq=1&qx=2&x=q", None);
        check("x=1&[]=2", Some("x=1&[]=2"));
    }

    #[test]
    fn names_that_some_targets_take_for_one_are_one() {
        let policy = CachePolicy { query: KeyPart::Only(vec!["page_id".to_owned()]), ..policy() };
        let check = |query: &str, expect: Option<&str>| {
            assert_eq!(query_part(&policy, Some(query)).as_deref(), expect, "{query}");
        };
        // PHP has `_` for what no name of a variable can hold.
        for name in
            ["page.id", "page+id", "page%20id", "page%2Eid", "PAGE_ID", "page.id[]", "+page_id", "page_id+"]
        {
            check(&format!("x=1&{name}=2"), Some(&format!("{name}=2")));
            check(&format!("page_id=1&{name}=2"), Some(&format!("page_id=1&{name}=2")));
        }
        // Where a name ends is the target's to say: nothing is left out.
        for name in [
            "page[id",
            "page%5Bid",
            "page_id%00x",
            "[page_id]",
            "%5Bpage_id%5D",
            "page_id]",
            "page_id[x",
            "[[page_id",
        ] {
            check(&format!("x=1&{name}=2"), Some(&format!("x=1&{name}=2")));
        }
        check("x=1&page=2&id=3&pageid=4&page-id=5", None);
    }

    #[test]
    fn cookies_that_can_be_split_in_two_ways_are_in_the_key_as_they_are() {
        let of = |field: &str, name: &str| cookies(&Headers::from_iter([("cookie", field)]), name);
        for field in [
            r#"x="; theme=dark; y=""#,
            r#"x="a\"; theme=dark"#,
            r#"theme=dark; x={"a":1}"#,
            "x=1, theme=dark",
            "x=1,theme=dark; y=2",
            "x=1 theme=dark",
            "x=1;theme =dark",
            "x=1;theme= dark",
            "theme=dark;x=ä",
            "x=1;[theme]=dark",
            "x=1;theme[=dark",
            "x=1;theme%00y=dark",
        ] {
            let whole = field.split(';').map(str::trim_start).collect::<Vec<_>>().join(";");
            assert_eq!(of(field, "theme"), Some(whole), "RFC 6265 4.1.1: {field}");
        }
        let own = r#"theme="a"; meridian_unit=u1.a.b;x=1"#;
        assert_eq!(of(own, "theme").as_deref(), Some(r#"theme="a";x=1"#), "no target sees the edge's own");
        for field in [r#"x={"a":1,"b":"c d"}; y=2"#, "x=1, y=2", "x=theme y=2", "x==theme"] {
            assert_eq!(of(field, "theme"), None, "no cookie of the name: {field}");
        }
        assert_eq!(of("my.theme=a; x=1", "my_theme").as_deref(), Some("my.theme=a"), "as PHP reads it");
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
