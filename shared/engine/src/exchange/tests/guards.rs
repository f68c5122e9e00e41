//! Tokens, limits and targets: what has to be passed before a request goes anywhere, and what goes with it.

use super::*;
use crate::ruleset::{
    Cors, Cost, Fail, Issuer, IssuerKey, Jwks, LimitAlgorithm, LimitKey, LimitScope, Mode, OriginPattern,
    Piece, RateLimit, Redirect, RouteTarget, RuleRef, Template, Upstream,
};
use crate::step::{Algorithm, VerificationKey};

/// `{"alg":"HS256","kid":"k"}` and `{"iss":"https://i.example","sub":"ada","scope":"orders:read","exp":1900000000}`.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ.\
    eyJpc3MiOiJodHRwczovL2kuZXhhbXBsZSIsInN1YiI6ImFkYSIsInNjb3BlIjoib3JkZXJzOnJlYWQiLCJleHAiOjE5MDAwMDAwMDB9.\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn issuer(keys: &[&str], jwks: bool) -> Issuer {
    let key = |kid: &&str| IssuerKey {
        kid: Some((*kid).to_owned()),
        algorithm: Algorithm::HS256,
        key: Arc::new(VerificationKey::Secret(vec![7; 32])),
    };
    Issuer {
        rule: rule("Issuer"),
        iss: "https://i.example".to_owned(),
        audiences: vec![],
        algorithms: vec![Algorithm::HS256, Algorithm::ES256],
        keys: keys.iter().map(key).collect(),
        jwks: jwks.then(|| Jwks {
            url: "https://i.example/keys".to_owned(),
            discovery: false,
            refresh_ms: 60_000,
            stale_ms: 600_000,
            refetch_interval_ms: 10_000,
        }),
        skew_ms: 0,
        life_ms_max: 0,
        required_claims: vec![],
        scope_claim: "scope".to_owned(),
        attributes: BTreeMap::from([("scope".to_owned(), "scope".to_owned())]),
        revoked: Default::default(),
    }
}

fn limit(scope: LimitScope, fail: Fail, quota: u32) -> RateLimit {
    RateLimit {
        rule: rule("RateLimit"),
        key: vec![LimitKey::Subject],
        algorithm: LimitAlgorithm::Gcra,
        quota,
        window_ms: 60_000,
        burst: quota,
        cost: Cost::Units(1),
        scope,
        fail,
        mode: Mode::Block,
    }
}

fn with_token(token: &str) -> Facts {
    let mut facts = request("GET", "acme.example", "/");
    facts.headers.append("authorization", format!("Bearer {token}"));
    facts
}

fn guarded_by(scopes: &[&str]) -> Ruleset {
    let mut rules = ruleset(vec![route("/**")]);
    let scopes = scopes.iter().map(ToString::to_string).collect();
    rules.routes[0].auth = Auth::Required { scopes, when: None };
    rules.issuers.push(issuer(&["k"], false));
    rules
}

#[test]
fn a_verified_token_goes_on_as_signed_context_and_is_remembered() {
    let mut host = Host::new(guarded_by(&["orders:read"]));
    let reply = host.send(with_token(TOKEN));
    assert_eq!(reply.status, 200, "{}", stages(&reply));
    assert_eq!(reply.decision.subject.as_deref(), Some("ada"));
    assert!(!stages(&reply).contains("ada"), "{}", stages(&reply));
    let identity = host.forwards[0].sign.as_ref().unwrap().identity.as_ref().unwrap();
    assert_eq!(identity.subject.as_deref(), Some("ada"));
    assert_eq!(identity.scopes, ["orders:read"]);
    assert_eq!(host.forwards[0].headers.get("authorization"), None);
    assert_eq!(host.verified, 1);
    host.send(with_token(TOKEN));
    assert_eq!(host.verified, 1, "remembered");
}

#[test]
fn a_token_that_will_not_do_is_refused_with_its_challenge() {
    let check = |scopes: &[&str], token: Option<&str>, right: bool, status: u16, challenge: &str| {
        let mut host = Host::new(guarded_by(scopes));
        host.right = right;
        let facts = token.map_or_else(|| request("GET", "acme.example", "/"), with_token);
        let reply = host.send(facts);
        assert_eq!((reply.status, host.forwards.len()), (status, 0), "{}", stages(&reply));
        assert_eq!(reply.decision.outcome, Outcome::Denied);
        let field = reply.headers.get("www-authenticate").unwrap();
        assert!(field.starts_with("Bearer realm=\"acme.example\"") && field.contains(challenge), "{field}");
    };
    check(&[], None, true, 401, "");
    check(&[], Some("x"), true, 401, "error=\"invalid_token\"");
    check(&[], Some(TOKEN), false, 401, "error=\"invalid_token\"");
    check(&["orders:write"], Some(TOKEN), true, 403, "error=\"insufficient_scope\"");
}

#[test]
fn an_optional_token_may_be_missing_but_not_wrong() {
    let mut rules = guarded_by(&[]);
    rules.routes[0].auth = Auth::Optional;
    let mut host = Host::new(rules);
    assert_eq!(host.get("/").status, 200);
    assert_eq!(host.send(with_token("x")).status, 401);
}

#[test]
fn keys_that_can_not_be_had_are_nobodys_fault_but_ours() {
    let mut rules = guarded_by(&[]);
    rules.issuers = vec![issuer(&[], true)];
    let mut host = Host::new(rules);
    let reply = host.send(with_token(TOKEN));
    assert_eq!((reply.status, reply.headers.get("retry-after")), (503, Some("1")), "{}", stages(&reply));
    assert_eq!(reply.headers.get("www-authenticate"), None);
}

#[test]
fn a_limit_counts_and_then_denies_with_its_problem() {
    let mut rules = ruleset(vec![route("/**")]);
    rules.limits.push(limit(LimitScope::Node, Fail::Closed, 2));
    rules.routes[0].limits.push(0);
    let mut host = Host::new(rules);
    for left in ["1", "0"] {
        let reply = host.get("/");
        assert_eq!(reply.status, 200);
        assert!(
            reply.headers.get("ratelimit").unwrap().contains(&format!("r={left}")),
            "{:?}",
            reply.headers
        );
    }
    let reply = host.get("/");
    assert_eq!((reply.status, reply.decision.outcome), (429, Outcome::Limited));
    assert_eq!(body(&reply)["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body(&reply)["violated-policies"], serde_json::json!(["r"]));
    assert!(reply.headers.get("ratelimit-policy").is_some() && reply.headers.get("retry-after").is_some());
    host.now_ms += 60_000;
    assert_eq!(host.get("/").status, 200);
}

#[test]
fn a_plan_counts_all_requests_of_the_tenant_before_any_limit_of_its_own() {
    let mut rules = ruleset(vec![route("/**")]);
    let mut plan = limit(LimitScope::Node, Fail::Closed, 2);
    plan.rule = RuleRef { name: "plan:1".into(), ..rule("Tenant") };
    plan.key = vec![LimitKey::Plan];
    rules.limits = vec![limit(LimitScope::Node, Fail::Closed, 9), plan];
    rules.routes[0].limits.push(0);
    rules.tenant.limits.push(1);
    let mut host = Host::new(rules.clone());
    let policies = |reply: &Reply| reply.headers.get("ratelimit-policy").unwrap_or_default().to_owned();
    let reply = host.get("/");
    assert_eq!((reply.status, policies(&reply).as_str()), (200, "\"plan:1\";q=2;w=60, \"r\";q=9;w=60"));
    let mut other = request("GET", "acme.example", "/");
    other.client = [198, 51, 100, 9].into();
    assert_eq!(host.send(other.clone()).status, 200);
    let reply = host.send(other);
    assert_eq!((reply.status, reply.decision.outcome), (429, Outcome::Limited));
    assert_eq!(body(&reply)["violated-policies"], serde_json::json!(["plan:1"]));
    assert!(stages(&reply).contains("Tenant plan:1"), "{}", stages(&reply));

    // A route without a limit of its own is under the plan all the same.
    rules.routes[0].limits.clear();
    let mut host = Host::new(rules);
    assert_eq!([host.get("/").status, host.get("/").status, host.get("/").status], [200, 200, 429]);
}

#[test]
fn a_region_wide_limit_asks_its_authority_and_fails_as_the_rule_says() {
    for (fail, status) in [(Fail::Open, 200), (Fail::Closed, 503)] {
        let mut rules = ruleset(vec![route("/**")]);
        rules.limits.push(limit(LimitScope::Region, fail, 2));
        rules.routes[0].limits.push(0);
        let mut host = Host::new(rules.clone());
        assert_eq!(host.get("/").status, status, "{fail:?}, the authority is away");
        let mut host = Host::new(rules);
        host.authority = Some(Authority::default());
        let statuses: Vec<u16> = (0..4).map(|_| host.get("/").status).collect();
        assert_eq!(statuses, [200, 200, 429, 429], "{fail:?}");
    }
}

#[test]
fn what_is_said_of_a_limit_whose_authority_is_away_is_what_it_did() {
    for (fail, mode, status, said) in [
        (Fail::Open, Mode::Block, 200, "passed  (RateLimit"),
        (Fail::Closed, Mode::Block, 503, "denied: the authority is away"),
        (Fail::Open, Mode::Log, 200, "passed  (RateLimit"),
        (Fail::Closed, Mode::Log, 200, "denied, in shadow: the authority is away"),
    ] {
        let mut rules = ruleset(vec![route("/**")]);
        rules.limits.push(RateLimit { mode, ..limit(LimitScope::Region, fail, 2) });
        rules.routes[0].limits.push(0);
        let reply = Host::new(rules).get("/");
        assert_eq!(reply.status, status, "{fail:?}, {mode:?}");
        assert!(stages(&reply).contains(said), "{fail:?}, {mode:?}: {}", stages(&reply));
    }
}

#[test]
fn only_regions_that_the_tenant_allows_count_for_one_that_is_away() {
    let asked = |scope| {
        let mut rules = ruleset(vec![route("/**")]);
        rules.tenant.allowed_regions = vec!["eu-west-1".into(), "us-east-1".into()];
        rules.limits.push(limit(scope, Fail::Closed, 2));
        rules.routes[0].limits.push(0);
        let mut host = Host::new(rules);
        let (mut exchange, mut step) = Exchange::begin(&mut host.node, request("GET", "acme.example", "/"));
        loop {
            step = match step {
                Step::Take(takes) => break takes.into_iter().next().unwrap().others.join(" "),
                Step::Reply(reply) => panic!("{reply:?}"),
                step => {
                    let answer = host.answer(step);
                    exchange.resume(&mut host.node, answer, NOW)
                }
            };
        }
    };
    assert_eq!(asked(LimitScope::Region), "eu-west-1");
    assert_eq!(asked(LimitScope::Global), "", "one place or nowhere");
}

#[test]
fn what_the_rules_answer_themselves_is_limited_by_what_needs_no_token() {
    let redirects = Transform {
        redirect: Some(Redirect { status: 302, location: Template(vec![Piece::Text("/b".to_owned())]) }),
        ..Transform::new(rule("Transform"))
    };
    let cors = Cors {
        origins: vec![OriginPattern::Any],
        methods: vec!["PATCH".to_owned()],
        headers: vec![],
        expose: vec![],
        credentials: false,
        max_age_s: 5,
    };
    let shares = Transform { cors: Some(cors), ..Transform::new(rule("Transform")) };
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "PATCH")];
    let by_address =
        [vec![LimitKey::Client], vec![LimitKey::Tenant], vec![LimitKey::Tenant, LimitKey::Client]];
    // All that come without one would share what a header, a claim or an expression counts.
    let by_more = [
        vec![LimitKey::Subject],
        vec![LimitKey::Header("x-key".to_owned())],
        vec![LimitKey::Claim("c".to_owned())],
    ];
    for (transform, method, status) in [(redirects, "GET", 302), (shares, "OPTIONS", 204)] {
        for (keys, last) in [(&by_address, 429), (&by_more, status)] {
            for (key, scope) in keys.iter().zip([LimitScope::Node, LimitScope::Region, LimitScope::Node]) {
                let mut rules = guarded_by(&[]);
                rules.transforms.push(transform.clone());
                rules.routes[0].transforms.push(0);
                rules.limits.push(RateLimit { key: key.clone(), ..limit(scope, Fail::Closed, 2) });
                rules.routes[0].limits.push(0);
                let mut host = Host::new(rules);
                host.authority = Some(Authority::default());
                let mut ask = || {
                    let mut facts = request(method, "acme.example", "/");
                    facts.headers = preflight.into_iter().collect();
                    host.send(facts).status
                };
                assert_eq!([ask(), ask(), ask()], [status, status, last], "{method} by {key:?}");
            }
        }
    }
}

#[test]
fn a_preflight_finds_a_route_by_the_fields_that_the_page_will_send() {
    for value in [None, Some("1".to_owned())] {
        let mut rules = ruleset(vec![route("/")]);
        rules.routes[0].matcher.headers = vec![("x-beta".to_owned(), value)];
        let cors = Cors {
            origins: vec![OriginPattern::Any],
            methods: vec!["PATCH".to_owned()],
            headers: vec!["x-beta".to_owned()],
            expose: vec![],
            credentials: false,
            max_age_s: 5,
        };
        rules.transforms.push(Transform { cors: Some(cors), ..Transform::new(rule("Transform")) });
        rules.routes[0].transforms.push(0);
        let mut host = Host::new(rules);
        let mut ask = |fields: &str| {
            let mut facts = request("OPTIONS", "acme.example", "/");
            facts.headers = Headers::from_iter([
                ("origin", "https://a.example"),
                ("access-control-request-method", "PATCH"),
                ("access-control-request-headers", fields),
            ]);
            let reply = host.send(facts);
            (reply.status, reply.headers.get("access-control-allow-headers").map(str::to_owned))
        };
        assert_eq!(ask("x-other, X-Beta"), (204, Some("X-Beta".to_owned())));
        assert_eq!(ask("x-other"), (404, None));
    }
}

#[test]
fn an_upstream_gets_the_token_but_neither_context_nor_session() {
    let mut rules = ruleset(vec![route("/**")]);
    let regions = vec![("eu-west-1".into(), "https://shop.example/base/".to_owned())];
    rules.upstreams.push(Upstream { timeout_ms: 700, ..upstream(regions) });
    rules.routes[0].target = RouteTarget::Upstream(UpstreamRef::Own(0));
    let mut host = Host::new(rules);
    let mut facts = with_token("x");
    facts.headers.append("meridian-session", "s1.k.p.m");
    host.says("eu-west-1", ok(200, &[("meridian-session", "s1.k.forged.m")]));
    let reply = host.send(facts);
    let forward = &host.forwards[0];
    assert_eq!(forward.url, "https://shop.example/base/");
    assert_eq!((forward.timeout_ms, forward.sign.is_none()), (700, true));
    assert_eq!(forward.headers.get("authorization"), Some("Bearer x"));
    assert_eq!(forward.headers.get("meridian-session"), None);
    assert_eq!((reply.headers.get("meridian-session"), reply.headers.get("set-cookie")), (None, None));
    assert_eq!(reply.headers.get("meridian-region"), Some("eu-west-1"));
}

#[test]
fn a_client_that_wants_a_stored_answer_only_gets_none_or_that() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let mut facts = request("GET", "acme.example", "/");
    facts.headers.append("cache-control", "only-if-cached");
    let reply = host.send(facts.clone());
    assert_eq!((reply.status, host.forwards.len()), (504, 0));
    host.says("us-east-1", ok(200, &[("cache-control", "public, s-maxage=60")]));
    host.get("/");
    assert_eq!(host.send(facts).decision.outcome, Outcome::Cached);
}

#[test]
fn a_shadow_refuses_nobody_and_knows_nobody() {
    let mut rules = guarded_by(&["orders:write"]);
    rules.routes[0].auth_shadow = true;
    let mut host = Host::new(rules);
    let mut check = |token: Option<&str>, right, why: &str| {
        host.right = right;
        let facts = token.map_or_else(|| request("GET", "acme.example", "/"), with_token);
        let reply = host.send(facts);
        let said = format!("denied, in shadow: {why}");
        assert!(reply.status == 200 && stages(&reply).contains(&said), "{}", stages(&reply));
        assert_eq!(reply.decision.subject, None);
    };
    check(None, true, "no bearer token");
    check(Some(TOKEN), false, "wrong signature");
    check(Some(TOKEN), true, "scope `orders:write` is missing");
}

#[test]
fn keys_that_can_not_be_had_let_a_request_pass_where_the_route_fails_open() {
    let mut rules = guarded_by(&["orders:write"]);
    rules.issuers = vec![issuer(&[], true)];
    rules.routes[0].auth_fail = Fail::Open;
    let mut host = Host::new(rules);
    let reply = host.send(with_token(TOKEN));
    assert!(
        reply.status == 200 && stages(&reply).contains("passed without an identity"),
        "{}",
        stages(&reply)
    );
    assert_eq!((reply.decision.subject, host.forwards.len()), (None, 1));
    assert_eq!((host.get("/").status, host.send(with_token("x")).status), (401, 401));
}
