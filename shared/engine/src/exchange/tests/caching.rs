//! Stored answers: served, refreshed, and stale ones where nothing else can answer.

use super::*;

#[test]
fn a_stored_answer_is_served_without_going_forward() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let fresh = [("cache-control", "public, s-maxage=60"), ("meridian-seen", "1=7"), ("cache-tag", "orders")];
    host.says("us-east-1", ok(200, &fresh));
    assert_eq!(host.get("/a").decision.outcome, Outcome::Forwarded);
    host.now_ms += 1_000;
    let reply = host.get("/a");
    assert_eq!((reply.decision.outcome, host.forwards.len()), (Outcome::Cached, 1));
    assert_eq!(reply.body, ReplyBody::Cached);
    assert_eq!(reply.headers.get("meridian-region"), Some("edge"));
    assert!(reply.headers.get("cache-status").unwrap().starts_with("meridian; hit"), "{:?}", reply.headers);

    // Another tenant's answers are somewhere else.
    assert!(host.store.keys().all(|key| key.0.contains("acme")), "{:?}", host.store.keys());

    // A session that has seen more than the entry reflects does not get it.
    let mut facts = request("GET", "acme.example", "/a");
    facts.headers.append("meridian-session", "s1.k.eyJwIjp7IjEiOjh9fQ.m");
    assert_eq!(host.send(facts).decision.outcome, Outcome::Forwarded);

    // A change of what it is tagged with makes it stale everywhere.
    host.says("us-east-1", ok(200, &fresh));
    host.get("/b");
    let purge = crate::step::Purge {
        tenant: "acme".to_owned(),
        tag: "orders".to_owned(),
        source: 1,
        position: 8,
        at_ms: host.now_ms,
        soft: false,
    };
    host.node.synced(Some(SyncNews { purges: vec![purge], ..SyncNews::default() }), host.now_ms);
    assert_eq!(host.get("/b").decision.outcome, Outcome::Forwarded);
}

#[test]
fn a_stale_answer_is_served_while_it_is_fetched_anew() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let fresh = [("cache-control", "public, s-maxage=60, stale-while-revalidate=30"), ("etag", "\"1\"")];
    host.says("us-east-1", ok(200, &fresh));
    host.get("/a");
    host.now_ms += 70_000;
    host.says("us-east-1", ok(304, &fresh));
    let reply = host.get("/a");
    assert_eq!((reply.decision.outcome, host.forwards.len()), (Outcome::Cached, 2));
    assert_eq!(host.forwards[1].headers.get("if-none-match"), Some("\"1\""));
    let (first, second) = (&host.forwards[0].sign, &host.forwards[1].sign);
    assert_ne!(first.as_ref().unwrap().decision, second.as_ref().unwrap().decision);
    host.now_ms += 1_000;
    assert_eq!(host.get("/a").decision.outcome, Outcome::Cached);
    assert_eq!(host.forwards.len(), 2, "fresh again");
}

#[test]
fn what_takes_the_place_of_a_stored_answer_and_is_not_stored_has_it_forgotten() {
    let gone = || ok(410, &[("cache-control", "no-store")]);
    // Too stale to be served, and served while it is revalidated.
    for (stale_ms, outcome) in [(400_000, Outcome::Forwarded), (70_000, Outcome::Cached)] {
        let mut host = Host::new(cached(ruleset(vec![route("/**")])));
        host.says("us-east-1", ok(200, &[("cache-control", "max-age=60")]));
        host.get("/a");
        host.now_ms += stale_ms;
        host.says("us-east-1", gone());
        assert_eq!(host.get("/a").decision.outcome, outcome);
        assert!(host.store.is_empty(), "RFC 9111 4.3.3: {outcome:?}");
        host.says("us-east-1", gone());
        assert_eq!(host.get("/a").status, 410);
    }
}

#[test]
fn what_comes_without_a_date_has_that_of_its_arrival() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let control = ("cache-control", "max-age=60, must-revalidate");
    let ask = |host: &mut Host, at_ms: u64| {
        host.now_ms = NOW + at_ms;
        let reply = host.get("/a");
        let of = |name: &str| reply.headers.get_all(name).collect::<Vec<_>>().join(" | ");
        (of("date"), of("age"), of("cache-status"))
    };
    let seen = |date: &str, age: &str, status: &str| (date.to_owned(), age.to_owned(), status.to_owned());
    let arrival = "Fri, 15 Jan 2027 08:00:01 GMT";
    host.says("us-east-1", ok(200, &[control, ("etag", "\"1\"")]));
    assert_eq!(ask(&mut host, 1_500), seen(arrival, "", "meridian; fwd=uri-miss; ttl=60; stored"));
    assert_eq!(ask(&mut host, 11_500), seen(arrival, "10", "meridian; hit; ttl=50"), "RFC 9110 6.6.1");
    host.says("us-east-1", ok(304, &[control]));
    let later = "Fri, 15 Jan 2027 08:01:10 GMT";
    let validated = "meridian; fwd=stale; fwd-status=304; ttl=60; stored";
    assert_eq!(ask(&mut host, 70_500), seen(later, "0", validated), "RFC 9111 3.2");
    assert_eq!(ask(&mut host, 71_500), seen(later, "1", "meridian; hit; ttl=59"));

    // What has one keeps it.
    let said = "Fri, 15 Jan 2027 08:02:00 GMT";
    host.says("us-east-1", ok(200, &[control, ("date", said)]));
    let (date, _, _) = ask(&mut host, 140_000);
    assert_eq!(date, said);
}

#[test]
fn a_304_about_another_response_changes_nothing_stored() {
    let stale = [
        ("cache-control", "max-age=1, stale-if-error=300, stale-while-revalidate=0"),
        ("etag", "\"abcdef\""),
    ];
    let other = [("cache-control", "max-age=60"), ("etag", "\"ghijkl\"")];
    let begun = || {
        let mut host = Host::new(cached(ruleset(vec![route("/**")])));
        host.says("us-east-1", ok(200, &stale));
        host.get("/a");
        host.now_ms += 2_000;
        host.says("us-east-1", ok(304, &other));
        host
    };
    let mut host = begun();
    host.says("us-east-1", ok(200, &other));
    let reply = host.get("/a");
    assert_eq!((reply.status, reply.decision.outcome), (200, Outcome::Forwarded), "RFC 9111 4.3.4");
    assert_eq!(reply.headers.get("etag"), Some("\"ghijkl\""));
    let conditions: Vec<_> = host.forwards.iter().map(|sent| sent.headers.get("if-none-match")).collect();
    assert_eq!(conditions, [None, Some("\"abcdef\""), None]);
    assert_ne!(host.forwards[1].attempt, host.forwards[2].attempt);
    assert!(stages(&reply).contains("fetched anew"), "{}", stages(&reply));
    assert_eq!(host.get("/a").decision.outcome, Outcome::Cached, "the new one");

    // What is stored may still be served where its origin fails.
    for fails in [Err(ForwardFault::Connect), ok(304, &other)] {
        let mut host = begun();
        host.says("us-east-1", fails);
        for region in ["eu-west-1", "ap-southeast-1"] {
            host.says(region, Err(ForwardFault::Connect));
        }
        let reply = host.get("/a");
        assert_eq!(
            (reply.status, reply.headers.get("etag")),
            (200, Some("\"abcdef\"")),
            "{}",
            stages(&reply)
        );
    }

    // A 304 to the client's own condition is the client's.
    let mut host = begun();
    host.says("us-east-1", ok(304, &other));
    let mut facts = request("GET", "acme.example", "/a");
    facts.headers.append("if-none-match", "\"ghijkl\"");
    let reply = host.send(facts);
    assert_eq!((reply.status, reply.body), (304, ReplyBody::Forwarded));
    assert_eq!(host.forwards[2].headers.get("if-none-match"), Some("\"ghijkl\""));
}

#[test]
fn a_stale_answer_is_served_when_nothing_else_can_answer() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let fresh = [("cache-control", "public, s-maxage=60, stale-if-error=300")];
    host.says("us-east-1", ok(200, &fresh));
    host.get("/a");
    host.now_ms += 100_000;
    for region in ["us-east-1", "eu-west-1", "ap-southeast-1"] {
        host.says(region, Err(ForwardFault::Connect));
    }
    let reply = host.get("/a");
    assert_eq!((reply.status, reply.decision.outcome), (200, Outcome::Cached), "{}", stages(&reply));
}

#[test]
fn what_a_host_codes_anew_has_a_weak_tag_and_no_digests() {
    let fields = [
        ("cache-control", "max-age=60"),
        ("content-encoding", "gzip"),
        ("etag", "\"a\""),
        ("repr-digest", "sha-256=:AA==:"),
    ];
    let ask = |host: &mut Host, tag: &str| {
        let mut facts = request("GET", "acme.example", "/a");
        facts.headers.append("if-none-match", tag);
        let reply = host.send(facts);
        let of = |name| reply.headers.get(name).map(str::to_owned);
        (reply.status, of("etag"), of("repr-digest"))
    };
    let (strong, digest) = (Some("\"a\"".to_owned()), Some("sha-256=:AA==:".to_owned()));
    let weak = Some("W/\"a\"".to_owned());
    for recodes in [false, true] {
        let mut host = Host::new(cached(ruleset(vec![route("/**")])));
        if recodes {
            host.node = std::mem::take(&mut host.node).with_recoded_content();
        }
        let (etag, digest) = if recodes { (weak.clone(), None) } else { (strong.clone(), digest.clone()) };
        host.says("us-east-1", ok(200, &fields));
        assert_eq!(ask(&mut host, "\"0\""), (200, etag.clone(), digest.clone()), "RFC 9110 8.8.3: forwarded");
        assert_eq!(ask(&mut host, "\"0\""), (200, etag.clone(), digest.clone()), "stored");
        assert_eq!(ask(&mut host, "\"a\""), (304, etag, digest), "RFC 9110 15.4.5");
        assert_eq!(host.forwards.len(), 1);
        // What is stored has the strong one, which a 304 has to name (RFC 9111, section 4.3.4).
        let stored = host.store.values().next().unwrap();
        assert_eq!(stored.headers.get("etag").map(str::to_owned), strong);
    }

    // Where nothing is stored, what came goes on as it is.
    let mut host = Host::new(ruleset(vec![route("/**")]));
    host.node = std::mem::take(&mut host.node).with_recoded_content();
    host.says("us-east-1", ok(200, &fields));
    assert_eq!(ask(&mut host, "\"0\""), (200, strong.clone(), digest.clone()));
    // Nor does a runtime touch a coding that it doesn't know.
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    host.node = std::mem::take(&mut host.node).with_recoded_content();
    host.says("us-east-1", ok(200, &[fields[0], ("content-encoding", "zstd"), fields[2], fields[3]]));
    assert_eq!(ask(&mut host, "\"0\""), (200, strong, digest));
}

#[test]
fn what_a_host_codes_anew_has_no_length_and_no_parts_to_ask_for() {
    for (recodes, length, ranges) in [(false, Some("30"), Some("bytes")), (true, None, None)] {
        let mut host = Host::new(cached(ruleset(vec![route("/**")])));
        if recodes {
            host.node = std::mem::take(&mut host.node).with_recoded_content();
        }
        let fields = [("content-encoding", "gzip"), ("content-length", "30"), ("accept-ranges", "bytes")];
        for method in ["HEAD", "GET"] {
            host.says("us-east-1", ok(200, &fields));
            let reply = host.send(request(method, "acme.example", "/a"));
            let of = |name| reply.headers.get(name);
            assert_eq!(
                (of("content-length"), of("accept-ranges")),
                (length, ranges),
                "RFC 9110 9.3.2: {method}"
            );
        }
    }
}

/// A route whose forwarded requests say the client's country in a field, and whose answers vary by it.
fn by_country() -> Host {
    let mut rules = cached(ruleset(vec![route("/**")]));
    let country = HeaderValue::Expr(crate::expr::Expr::Fact(crate::expr::Fact::Country));
    let fixed = HeaderValue::Text("1".to_owned());
    rules.transforms.push(Transform {
        request: vec![
            HeaderChange::Set("x-country".to_owned(), country),
            HeaderChange::Set("x-edge".to_owned(), fixed),
        ],
        ..Transform::new(rule("Transform"))
    });
    rules.routes[0].transforms.push(0);
    Host::new(rules)
}

#[test]
fn what_varies_by_a_field_that_the_edge_writes_is_not_stored() {
    for name in ["X-Country", "accept-language, x-country", "X-Forwarded-For", "Via", "Meridian-Context"] {
        let mut host = by_country();
        for country in ["DE", "US"] {
            host.says("us-east-1", ok(200, &[("cache-control", "max-age=60"), ("vary", name)]));
            let mut facts = request("GET", "acme.example", "/a");
            facts.place.country = Some(country.to_owned());
            let reply = host.send(facts);
            assert_eq!(reply.decision.outcome, Outcome::Forwarded, "RFC 9111 4.1: {name} {country}");
            let sent = host.forwards.last().unwrap().headers.get("x-country");
            assert_eq!(sent, Some(country), "{name}");
            let status = reply.headers.get("cache-status").unwrap();
            assert!(status.ends_with("detail=vary-rewritten"), "{name}: {status}");
            assert!(stages(&reply).contains("varies by a field that the edge writes"), "{}", stages(&reply));
        }
        assert!(host.store.is_empty(), "{name}");
    }
}

#[test]
fn what_varies_by_a_field_that_is_alike_for_all_clients_is_stored() {
    for name in ["X-Edge", "Accept-Language", "X-Forwarded-Proto"] {
        let mut host = by_country();
        host.says("us-east-1", ok(200, &[("cache-control", "max-age=60"), ("vary", name)]));
        host.get("/a");
        assert_eq!(host.get("/a").decision.outcome, Outcome::Cached, "RFC 9111 4.1: {name}");
    }
}

/// The outcomes of requests with these languages, each of whose answers from the target varies by them.
fn by_language(rules: Ruleset, languages: &[&str]) -> Vec<Outcome> {
    let mut host = Host::new(rules);
    let ask = |languages: &&str| {
        host.says("us-east-1", ok(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")]));
        host.now_ms += 10;
        let mut facts = request("GET", "acme.example", "/a");
        facts.headers.append("accept-language", languages);
        let outcome = host.send(facts).decision.outcome;
        host.responses.clear();
        outcome
    };
    languages.iter().map(ask).collect()
}

#[test]
fn languages_of_one_weight_have_no_order_unless_the_target_is_told_the_first() {
    use Outcome::{Cached, Forwarded};
    let language = || crate::expr::Expr::Fact(crate::expr::Fact::Language);
    let at_upstream = || {
        let mut rules = cached(ruleset(vec![route("/**")]));
        rules.upstreams.push(upstream(vec![("us-east-1".into(), "https://shop.example".to_owned())]));
        rules.routes[0].target = RouteTarget::Upstream(UpstreamRef::Own(0));
        rules
    };
    let asked = ["en, de", "de, en", "fr, de;q=0.5, en;q=0.5", "fr, en;q=0.5, de;q=0.5", "de, en;q=0.5"];
    let expect = [Forwarded, Cached, Forwarded, Cached, Forwarded];
    assert_eq!(by_language(at_upstream(), &asked), expect, "RFC 9110 12.5.4");

    // The first of the best is what the signed context says, what a rule sets, and what is in a policy's key: a page for `de`
    // is not one for `en`.
    let asked = ["en, de", "de, en", "de, en", "en, de"];
    let expect = [Forwarded, Forwarded, Cached, Cached];
    assert_eq!(by_language(cached(ruleset(vec![route("/**")])), &asked), expect, "in the signed context");
    let mut by_rule = at_upstream();
    by_rule.transforms.push(Transform {
        request: vec![HeaderChange::Set("x-language".to_owned(), HeaderValue::Expr(language()))],
        ..Transform::new(rule("Transform"))
    });
    by_rule.routes[0].transforms.push(0);
    assert_eq!(by_language(by_rule, &asked), expect, "in a field that a rule sets");
    let mut by_value = at_upstream();
    by_value.caches[0].values.push(language());
    assert_eq!(by_language(by_value, &asked), expect, "a value of the key");
    let mut by_field = at_upstream();
    by_field.caches[0].headers.push("accept-language".to_owned());
    assert_eq!(by_language(by_field, &asked), expect, "a field of the key");
}

#[test]
fn what_changes_while_nothing_is_stored_is_noted_once_something_is() {
    let mut host = Host::new(cached(ruleset(vec![route("/**")])));
    let load = |host: &mut Host, sequence, rules: Ruleset| {
        let rules = Ruleset { version: Version { sequence, ..rules.version }, ..rules };
        let key = LoadKey::Target(Target::Tenant("acme".to_owned()));
        host.node.loaded(&key, Loaded::Ruleset(Arc::new(rules)), host.now_ms).unwrap();
    };
    host.says("us-east-1", ok(200, &[("cache-control", "max-age=60")]));
    host.get("/a");
    assert_eq!(host.get("/a").decision.outcome, Outcome::Cached);
    load(&mut host, 2, ruleset(vec![route("/**")]));
    for path in ["/a", "/b", "/c"] {
        host.send(request("POST", "acme.example", path));
    }
    assert!(host.node.purges.is_empty(), "there is nothing that could be stale");
    load(&mut host, 3, cached(ruleset(vec![route("/**")])));
    assert_eq!(host.get("/a").decision.outcome, Outcome::Forwarded);
    host.send(request("POST", "acme.example", "/d"));
    assert_eq!(host.node.purges.len(), 2);
}

/// Routes of one URL: for those who send `x-b`, for changes, which stores nothing, and for all others.
fn of_one_url() -> Host {
    let mut rules = cached(ruleset(vec![route("/a"), route("/a"), route("/a")]));
    for (route, name) in rules.routes.iter_mut().zip(["beta", "change", "all"]) {
        route.rule.name = name.into();
    }
    rules.routes[0].matcher.headers = vec![("x-b".to_owned(), None)];
    rules.routes[1].matcher.methods = vec!["PUT".to_owned()];
    rules.routes[1].cache = None;
    Host::new(rules)
}

#[test]
fn routes_of_one_url_share_nothing_stored_and_lose_it_together() {
    let mut host = of_one_url();
    let ask = |host: &mut Host, is_beta: bool| {
        host.now_ms += 10;
        let mut facts = request("GET", "acme.example", "/a");
        if is_beta {
            facts.headers.append("x-b", "1");
        }
        host.send(facts).decision.outcome
    };
    for outcome in [Outcome::Forwarded, Outcome::Cached] {
        assert_eq!([ask(&mut host, true), ask(&mut host, false)], [outcome, outcome]);
    }
    assert_eq!(host.store.len(), 2);
    let reply = host.send(request("PUT", "acme.example", "/a"));
    assert_eq!((reply.status, reply.decision.route.as_deref()), (200, Some("change")));
    assert!(host.store.is_empty(), "RFC 9111 4.4: other nodes find nothing either");
    assert_eq!([ask(&mut host, true), ask(&mut host, false)], [Outcome::Forwarded; 2]);
}

#[test]
fn what_a_route_stored_while_it_asked_for_a_token_is_not_served_once_it_does_not() {
    let rules = |sequence, auth: Auth| {
        let mut rules = cached(ruleset(vec![route("/a")]));
        rules.version.sequence = sequence;
        rules.routes[0].auth = auth;
        rules
    };
    // In shadow, so that no token is needed here.
    let mut required = rules(1, Auth::Required { scopes: vec![], when: None });
    required.routes[0].auth_shadow = true;
    let mut host = Host::new(required);
    let outcomes = |host: &mut Host| [host.get("/a").decision.outcome, host.get("/a").decision.outcome];
    assert_eq!(outcomes(&mut host), [Outcome::Forwarded, Outcome::Cached]);
    let key = LoadKey::Target(Target::Tenant("acme".to_owned()));
    let anonymous = Loaded::Ruleset(Arc::new(rules(2, Auth::Anonymous)));
    host.node.loaded(&key, anonymous, host.now_ms).unwrap();
    host.now_ms += 10;
    assert_eq!(outcomes(&mut host), [Outcome::Forwarded, Outcome::Cached]);
    assert_eq!(host.store.len(), 2);
}

#[test]
fn what_a_key_leaves_out_of_a_query_reaches_no_target_whose_answer_may_be_kept() {
    let asked = |query: KeyPart, rewrite: Option<Rewrite>, method: &str| {
        let mut rules = cached(ruleset(vec![route("/**")]));
        rules.caches[0].query = query;
        rules.transforms.push(Transform { rewrite, ..Transform::new(rule("Transform")) });
        rules.routes[0].transforms.push(0);
        let mut host = Host::new(rules);
        let mut facts = request(method, "acme.example", "/a");
        facts.query = Some("utm=evil&page=2".to_owned());
        host.send(facts);
        let url = &host.forwards[0].url;
        url.strip_prefix("http://us-east-1.origin.example").unwrap_or(url).to_owned()
    };
    let page = || KeyPart::Only(vec!["page".to_owned()]);
    assert_eq!(asked(KeyPart::All, None, "GET"), "/a?utm=evil&page=2");
    assert_eq!(asked(page(), None, "GET"), "/a?page=2");
    assert_eq!(asked(page(), None, "HEAD"), "/a?page=2");
    assert_eq!(asked(KeyPart::None, None, "GET"), "/a");
    assert_eq!(asked(KeyPart::None, None, "POST"), "/a?utm=evil&page=2", "its answer is kept for nobody");
    let query = Template(vec![Piece::Text("all=1&".to_owned()), Piece::Query]);
    assert_eq!(asked(page(), Some(Rewrite { path: None, query: Some(query) }), "GET"), "/a?all=1&page=2");
    let path = Template(vec![Piece::Text("/b".to_owned())]);
    assert_eq!(asked(page(), Some(Rewrite { path: Some(path), query: None }), "GET"), "/b?page=2");
}
