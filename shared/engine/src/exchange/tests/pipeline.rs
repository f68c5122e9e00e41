//! What a request meets on its way, and what every reply carries.

use super::*;

#[test]
fn a_request_goes_to_a_region_and_back_with_everything_that_a_reply_carries() {
    let mut host = Host::new(ruleset(vec![route("/v1/**")]));
    let mut facts = request("GET", "acme.example", "/v1/orders");
    facts.query = Some("a=1".to_owned());
    facts.headers = Headers::from_iter([
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("meridian-context", "forged"),
        ("authorization", "Bearer x"),
        ("cookie", "a=1; meridian_session=s1.k.eyJwIjp7IjEiOjd9fQ.m; b=2"),
    ]);
    let response = [
        ("content-type", "application/json"),
        ("meridian-seen", "1=7"),
        ("meridian-decision", "forged"),
        ("meridian-session", "s1.k.p.m"),
        ("cache-tag", "orders"),
        ("connection", "x-private"),
        ("x-private", "1"),
    ];
    host.says("us-east-1", ok(200, &response));
    let reply = host.send(facts);
    let forward = &host.forwards[0];
    assert_eq!(forward.url, "http://us-east-1.origin.example/v1/orders?a=1");
    let names: Vec<&str> = forward.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "tracestate",
            "cookie",
            "via",
            "cdn-loop",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "traceparent",
            "meridian-session"
        ]
    );
    assert_eq!(forward.headers.get("cookie"), Some("a=1; b=2"));
    assert_eq!(forward.headers.get("forwarded"), Some("for=192.0.2.7;host=\"acme.example\";proto=https"));
    assert_eq!(forward.headers.get("meridian-session"), Some("s1.k.eyJwIjp7IjEiOjd9fQ.m"));
    let sign = forward.sign.as_ref().unwrap();
    assert_eq!((&*sign.tenant, sign.consistency, sign.attempt), ("acme", "session", 0));

    assert_eq!((reply.status, &reply.body), (200, &ReplyBody::Forwarded));
    assert_eq!(reply.decision.outcome, Outcome::Forwarded);
    let get = |name| reply.headers.get(name);
    assert_eq!(get("meridian-decision"), Some(reply.decision.id.as_str()));
    assert_eq!(get("meridian-region"), Some("us-east-1"));
    assert_eq!(get("meridian-bundle"), Some("00000000000000aa"));
    assert_eq!(get("traceparent"), forward.headers.get("traceparent"));
    assert!(get("traceparent").unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert!(get("set-cookie").unwrap().starts_with("meridian_session=s1.k.p.m; Path=/;"));
    assert_eq!(get("meridian-session"), Some("s1.k.p.m"));
    assert!(get("cache-status").unwrap().starts_with("meridian; "));
    for stripped in ["meridian-seen", "cache-tag", "x-private", "connection"] {
        assert_eq!(get(stripped), None, "{stripped}");
    }
    assert_eq!(host.asked, ["sync", "load", "load", "log"]);
}

#[test]
fn problems_carry_the_decision_and_say_what_is_wrong() {
    let mut closed = route("/closed");
    closed.auth = Auth::Required { scopes: vec![], when: None };
    let mut get_only = route("/get");
    get_only.matcher.methods = vec!["GET".to_owned()];
    let mut host = Host::new(ruleset(vec![closed, get_only]));
    let mut check =
        |method: &str, name: &str, path: &str, status, kind: &str, header: Option<(&str, &str)>| {
            let reply = host.send(request(method, name, path));
            assert_eq!(reply.status, status, "{method} {name} {path}");
            assert_eq!(reply.headers.get("content-type"), Some("application/problem+json"));
            assert_eq!(reply.headers.get("meridian-region"), Some("edge"));
            assert_eq!(body(&reply)["type"], format!("https://meridian.example/problems/{kind}"));
            assert_eq!(body(&reply)["decision"], reply.decision.id);
            if let Some((name, value)) = header {
                assert!(reply.headers.get(name).unwrap().contains(value), "{:?}", reply.headers);
            }
            assert!(host.forwards.is_empty());
        };
    check("GET", "other.example", "/", 421, "unknown-host", Some(("meridian-bundle", "none")));
    check("GET", "acme.example", "/nothing", 404, "no-route", Some(("meridian-bundle", "00000000000000aa")));
    check("POST", "acme.example", "/get", 405, "method-not-allowed", Some(("allow", "GET, HEAD")));
    check("GET", "acme.example", "/closed", 401, "token-missing", Some(("www-authenticate", "Bearer")));
    check("GET", "acme.example", "/a/../b", 400, "malformed-request", None);
    check("GET", "a b", "/", 400, "malformed-request", None);
    let reply = host.send(request("HEAD", "acme.example", "/nothing"));
    assert_eq!((reply.status, reply.body), (404, ReplyBody::Empty));
}

#[test]
fn a_suspended_tenant_gets_a_clear_403() {
    let mut rules = ruleset(vec![route("/**")]);
    rules.tenant.state = TenantState::Suspended;
    let reply = Host::new(rules.clone()).get("/");
    assert_eq!((reply.status, body(&reply)["title"].as_str()), (403, Some("This tenant is suspended")));
    assert!(!stages(&reply).contains("partner"), "{}", stages(&reply));
    // Who above it is suspended is for those who run it, not for whoever asks.
    rules.tenant.suspended_by = Some("partner".to_owned());
    let reply = Host::new(rules).get("/");
    assert_eq!((reply.status, body(&reply)["detail"].as_str()), (403, None));
    assert!(stages(&reply).contains("suspended, by partner above it"), "{}", stages(&reply));
}

#[test]
fn a_host_is_served_once_the_rules_say_that_it_is_verified() {
    let rules = ruleset(vec![route("/**")]);
    let mut host = Host::new(rules.clone());
    assert_eq!(host.get("/").status, 200);
    for (unverified, problem) in
        [(vec!["acme.example".to_owned()], "host-unverified"), (Vec::new(), "unknown-host")]
    {
        let mut rules = rules.clone();
        rules.tenant.domains.clear();
        rules.tenant.unverified = unverified;
        let mut host = Host::new(rules);
        host.hosts.insert("acme.example".to_owned(), "acme".to_owned());
        let reply = host.get("/");
        assert_eq!((reply.status, host.forwards.len()), (421, 0), "{}", stages(&reply));
        assert!(body(&reply)["type"].as_str().unwrap().ends_with(problem), "{}", body(&reply));
        assert_eq!(reply.decision.outcome, Outcome::Denied);
    }
}

#[test]
fn addresses_are_refused_or_noted() {
    for (mode, status) in [(Mode::Block, 403), (Mode::Log, 200), (Mode::Off, 200)] {
        let mut rules = ruleset(vec![route("/**")]);
        let deny = AddressSet::new(&["192.0.2.0/24".parse().unwrap()]);
        rules.security.push(Security { deny, ..Security::new(rule("Security"), mode) });
        rules.tenant.security.push(0);
        let reply = Host::new(rules).get("/");
        assert_eq!(reply.status, status, "{mode:?}");
        assert_eq!(stages(&reply).contains("in the deny list"), mode != Mode::Off, "{}", stages(&reply));
    }
}

#[test]
fn a_body_is_read_once_for_the_policies_of_the_tenant_and_of_the_route() {
    let mut rules = ruleset(vec![route("/**")]);
    rules.security.extend([looks_into(4), looks_into(64)]);
    rules.tenant.security.push(0);
    rules.routes[0].security.push(1);
    let mut facts = request("POST", "acme.example", "/");
    facts.headers.append("content-type", "text/plain");
    facts.body = BodySize::Unknown;
    let mut host = Host::new(rules.clone());
    let mut status = |text: Option<&str>, whole| {
        host.asked.clear();
        host.body = text.map(|text| Peeked { bytes: text.as_bytes().to_vec(), whole });
        let reply = host.send(facts.clone());
        assert_eq!(host.asked.iter().filter(|step| **step == "peek").count(), 1, "{:?}", host.asked);
        (
            reply.status,
            stages(&reply).matches("body=cut").count(),
            stages(&reply).matches("not at hand").count(),
        )
    };
    assert_eq!(status(Some("abcd"), true), (200, 0, 0));
    assert_eq!(status(Some("abcde"), true), (200, 1, 0));
    assert_eq!(status(Some("abcd"), false), (200, 2, 0));
    assert_eq!(status(Some("<script>"), true), (403, 1, 0));
    assert_eq!(status(None, true), (200, 0, 2));
    let (mut exchange, mut step) = Exchange::begin(&mut host.node, facts);
    while !matches!(step, Step::Peek { .. }) {
        let answer = host.answer(step);
        step = exchange.resume(&mut host.node, answer, NOW);
    }
    assert!(matches!(step, Step::Peek { bytes_max: 64 }), "as much as any policy wants: {step:?}");
    let step = exchange.resume(&mut host.node, Answer::Verified(true), NOW);
    assert!(matches!(step, Step::Forward(_)), "an answer that does not fit is no body at hand: {step:?}");
}

#[test]
fn a_decision_says_how_long_the_bodies_are_as_far_as_anybody_knows() {
    let mut host = Host::new(ruleset(vec![route("/v1/**")]));
    let mut check = |method, body, response, expect| {
        host.says("us-east-1", response);
        let reply = host.send(Facts { body, ..request(method, "acme.example", "/v1/a") });
        let bytes = reply.decision.bytes;
        assert_eq!((bytes.request, bytes.response), expect, "{method} {body:?}");
    };
    let length = [("content-length", "12")];
    check("GET", BodySize::Empty, ok(200, &length), (Some(0), Some(12)));
    check("GET", BodySize::Empty, ok(200, &[]), (Some(0), None));
    check("HEAD", BodySize::Empty, ok(200, &length), (Some(0), Some(0)));
    check("POST", BodySize::Bytes(7), ok(204, &[]), (Some(7), Some(0)));
    check("POST", BodySize::Unknown, ok(200, &length), (None, Some(12)));
    let refused = host.send(Facts { body: BodySize::Bytes(7), ..request("POST", "acme.example", "/") });
    let ReplyBody::Bytes(body) = &refused.body else { panic!("{refused:?}") };
    let bytes = refused.decision.bytes;
    assert_eq!((bytes.request, bytes.response), (Some(7), Some(body.len() as u64)));
}

#[test]
fn a_decision_tells_of_persons_what_the_route_says() {
    let mut rules = ruleset(vec![route("/people/{name}")]);
    let deny = AddressSet::new(&["198.51.100.0/24".parse().unwrap()]);
    rules.security.push(Security { deny, ..Security::new(rule("Security"), Mode::Block) });
    rules.tenant.security.push(0);
    let mut told = |personal, path: &str| {
        rules.routes[0].personal = personal;
        let persons = Host::new(rules.clone()).get(path).decision.persons;
        assert!(persons.client.as_deref().is_none_or(|client| client.starts_with('#') && client.len() == 17));
        (persons.path.as_deref().map(str::to_owned), persons.client.is_some(), persons.rule)
    };
    let pattern = Some("/people/{name}".to_owned());
    assert_eq!(told(Personal::Keep, "/people/ada"), (pattern.clone(), false, Personal::Keep));
    assert_eq!(told(Personal::Hash, "/people/ada"), (pattern.clone(), true, Personal::Hash));
    assert_eq!(told(Personal::Drop, "/people/ada"), (pattern, false, Personal::Drop));
    // Where no route is found, no rule says more than the least that may be told.
    let (path, _, rule) = told(Personal::Keep, "/nobody/ada");
    let hash = path.unwrap();
    assert!(hash.starts_with('#') && hash.len() == 17, "{hash}");
    assert_eq!((told(Personal::Keep, "/nobody/ada").0, rule), (Some(hash.clone()), Personal::Hash));
    assert_ne!(told(Personal::Keep, "/nobody/bob").0, Some(hash));
}

#[test]
fn transforms_change_both_ways_but_not_what_is_ours() {
    let set =
        |name: &str, value: &str| HeaderChange::Set(name.to_owned(), HeaderValue::Text(value.to_owned()));
    let mut rules = ruleset(vec![route("/**")]);
    rules.transforms.push(Transform {
        request: vec![set("x-in", "1"), set("x-forwarded-for", "6.6.6.6")],
        response: vec![set("x-out", "1"), set("meridian-decision", "forged")],
        ..Transform::new(rule("Transform"))
    });
    rules.routes[0].transforms.push(0);
    let mut host = Host::new(rules);
    let reply = host.get("/");
    assert_eq!(host.forwards[0].headers.get("x-in"), Some("1"));
    assert_eq!(host.forwards[0].headers.get("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(reply.headers.get("x-out"), Some("1"));
    assert_eq!(reply.headers.get("meridian-decision"), Some(reply.decision.id.as_str()));
    assert!(stages(&reply).contains("applied but for meridian-decision: reserved"), "{}", stages(&reply));
}
