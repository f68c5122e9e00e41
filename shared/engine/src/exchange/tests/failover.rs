//! Where a request goes when a region does not answer.

use super::*;

#[test]
fn failures_go_to_the_next_region_when_the_request_may_be_repeated() {
    let check = |method: &str, key: bool, first: Result<ResponseHead, ForwardFault>, status, tries| {
        let mut host = Host::new(ruleset(vec![route("/**")]));
        let mut facts = request(method, "acme.example", "/");
        if key {
            facts.headers.append("idempotency-key", "k");
        }
        if method == "POST" {
            facts.body = BodySize::Bytes(10);
        }
        host.says("us-east-1", first.clone());
        let reply = host.send(facts);
        assert_eq!((reply.status, host.forwards.len()), (status, tries), "{method} {key} {first:?}");
        assert_eq!(host.forwards[0].keep_body, method == "POST");
    };
    check("GET", false, Err(ForwardFault::Connect), 200, 2);
    check("GET", false, Err(ForwardFault::Timeout), 200, 2);
    check("GET", false, Err(ForwardFault::Broken), 200, 2);
    check("GET", false, ok(503, &[]), 200, 2);
    check("GET", false, ok(500, &[]), 500, 1);
    check("GET", false, ok(101, &[]), 200, 2);
    check("GET", false, ok(200, &[("content-length", "2"), ("content-length", "45")]), 200, 2);
    check("POST", false, ok(503, &[]), 503, 1);
    check("POST", false, Err(ForwardFault::Timeout), 504, 1);
    check("POST", false, Err(ForwardFault::Connect), 200, 2);
    check("POST", true, Err(ForwardFault::Timeout), 200, 2);
    check("PUT", false, ok(502, &[]), 200, 2);
}

#[test]
fn a_length_that_is_said_again_is_said_once() {
    let mut host = Host::new(ruleset(vec![route("/**")]));
    host.says("us-east-1", ok(200, &[("content-length", "2"), ("content-length", "2")]));
    let reply = host.get("/");
    assert_eq!(reply.headers.get_all("content-length").collect::<Vec<_>>(), ["2"]);
}

#[test]
fn attempts_are_bounded_and_the_last_failure_is_told() {
    let mut host = Host::new(ruleset(vec![route("/**")]));
    for region in ["us-east-1", "eu-west-1", "ap-southeast-1"] {
        host.says(region, Err(ForwardFault::Connect));
    }
    let reply = host.get("/");
    assert_eq!((reply.status, host.forwards.len()), (502, 3));
    assert_eq!(reply.decision.outcome, Outcome::Failed);
    let attempts: Vec<u32> = host.forwards.iter().map(|forward| forward.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
}

#[test]
fn a_region_that_is_behind_sends_us_to_the_source() {
    let mut host = Host::new(ruleset(vec![route("/**")]));
    host.says("us-east-1", ok(503, &[("meridian-behind", "3")]));
    let mut facts = request("GET", "acme.example", "/");
    facts.headers.append("meridian-session", "s1.k.eyJwIjp7IjMiOjd9fQ.m");
    let reply = host.send(facts);
    assert_eq!(host.regions(), ["us-east-1", "ap-southeast-1"]);
    assert_eq!(reply.headers.get("meridian-region"), Some("ap-southeast-1"));
}

/// A body that the client does not send is no failure of the region: it is not asked for again, and nobody is kept away from it.
#[test]
fn what_the_client_does_not_send_is_not_held_against_a_region() {
    for (fault, status) in [(ClientFault::BrokeOff, 400), (ClientFault::Paused, 408)] {
        let mut host = Host::new(ruleset(vec![route("/**")]));
        for _ in 0..4 {
            host.says("us-east-1", Err(ForwardFault::Client(fault)));
            let mut facts = request("PUT", "acme.example", "/");
            facts.body = BodySize::Bytes(10);
            let reply = host.send(facts);
            assert_eq!(
                (reply.status, reply.decision.outcome),
                (status, Outcome::Denied),
                "{}",
                stages(&reply)
            );
        }
        assert_eq!(host.get("/").status, 200);
        assert_eq!(host.regions(), ["us-east-1"; 5]);
    }
}

/// A route may give a region no time at all, or take any answer for a failure: that is between it and its tenant.
#[test]
fn a_route_that_no_region_can_serve_ejects_none_for_others() {
    for first in [Err(ForwardFault::Timeout), Err(ForwardFault::Connect), ok(404, &[])] {
        let mut picky = route("/picky");
        picky.steering.timeout_ms = 10;
        picky.steering.retry_statuses = vec![404];
        let mut host = Host::new(ruleset(vec![picky, route("/**")]));
        for _ in 0..3 {
            host.says("us-east-1", first.clone());
            let mut facts = request("GET", "acme.example", "/picky");
            facts.now_ms = host.now_ms;
            let (mut exchange, mut step) = Exchange::begin(&mut host.node, facts);
            while !matches!(step, Step::Reply(_)) {
                host.now_ms += 10;
                let answer = host.answer(step);
                step = exchange.resume(&mut host.node, answer, host.now_ms);
            }
        }
        host.forwards.clear();
        host.get("/");
        assert_eq!(host.regions(), ["eu-west-1"], "{first:?}");
        let mut other = ruleset(vec![route("/**")]);
        other.tenant.slug = "globex".to_owned();
        other.tenant.domains = vec!["globex.example".to_owned()];
        host.hosts.insert("globex.example".to_owned(), "globex".to_owned());
        host.rules = Some(Arc::new(other));
        host.forwards.clear();
        host.send(request("GET", "globex.example", "/"));
        assert_eq!(host.regions(), ["us-east-1"], "{first:?}");
    }
}

/// A host at whose regions there are so many addresses each, and the authorities that it forwarded to.
fn addressed(count: usize) -> Host {
    let host = Host::new(ruleset(vec![route("/**")]));
    let mut platform = platform();
    for region in &mut platform.regions {
        region.origins = (1..=count).map(|number| format!("http://{}.{number}", region.id).into()).collect();
    }
    Host { platform: Some(Arc::new(platform)), ..host }
}

fn authorities(host: &Host) -> Vec<&str> {
    host.forwards
        .iter()
        .map(|forward| forward.url.trim_start_matches("http://").trim_end_matches('/'))
        .collect()
}

#[test]
fn the_next_address_of_a_region_comes_before_the_next_region() {
    for first in [Err(ForwardFault::Connect), Err(ForwardFault::Timeout), ok(503, &[])] {
        let mut host = addressed(2);
        host.says("us-east-1", first.clone());
        let reply = host.get("/");
        assert_eq!((reply.status, reply.decision.region.as_deref()), (200, Some("us-east-1")), "{first:?}");
        assert_eq!(authorities(&host), ["us-east-1.1", "us-east-1.2"]);
        assert!(host.forwards.iter().all(|forward| forward.sign.is_some()));
        let told = stages(&reply);
        assert!(told.contains("region=us-east-1 attempt=0 address=1"), "{told}");
        assert!(told.contains("region=us-east-1 attempt=1 address=2"), "{told}");
    }
    // What the first may have seen is sent nowhere again.
    let mut host = addressed(2);
    host.says("us-east-1", Err(ForwardFault::Broken));
    let facts = Facts { body: BodySize::Bytes(10), ..request("POST", "acme.example", "/") };
    assert_eq!((host.send(facts).status, host.forwards.len()), (502, 1));
}

#[test]
fn the_last_attempt_is_at_another_region() {
    for (addresses, expect) in [
        (1, ["us-east-1.1", "eu-west-1.1", "ap-southeast-1.1"]),
        (2, ["us-east-1.1", "us-east-1.2", "eu-west-1.1"]),
        (4, ["us-east-1.1", "us-east-1.2", "eu-west-1.1"]),
    ] {
        let mut host = addressed(addresses);
        for region in ["us-east-1", "us-east-1", "eu-west-1"] {
            host.says(region, Err(ForwardFault::Connect));
        }
        host.get("/");
        assert_eq!(authorities(&host), expect, "{addresses}");
    }
}

#[test]
fn an_address_that_fails_again_and_again_is_left_alone() {
    let mut host = addressed(2);
    for _ in 0..3 {
        host.says("us-east-1", Err(ForwardFault::Connect));
        host.says("us-east-1", ok(200, &[]));
        host.get("/");
    }
    host.forwards.clear();
    let reply = host.get("/");
    assert_eq!(authorities(&host), ["us-east-1.2"]);
    assert!(stages(&reply).contains("excluded=\"us-east-1 address 1 ejected\""), "{}", stages(&reply));
    // It is tried again after a while.
    host.now_ms += 1_000;
    host.forwards.clear();
    host.get("/");
    assert_eq!(authorities(&host), ["us-east-1.1"]);
}

#[test]
fn a_region_that_is_behind_is_asked_at_no_other_address() {
    let mut host = addressed(2);
    host.says("us-east-1", ok(503, &[("meridian-behind", "3")]));
    host.get("/");
    assert_eq!(authorities(&host), ["us-east-1.1", "ap-southeast-1.1"]);
}

#[test]
fn no_upstream_leads_to_any_address_of_an_origin() {
    let mut host = addressed(2);
    let mut rules = ruleset(vec![route("/**")]);
    rules.upstreams.push(upstream(vec![("us-east-1".into(), "http://eu-west-1.2/metrics".to_owned())]));
    rules.routes[0].target = RouteTarget::Upstream(UpstreamRef::Own(0));
    host.rules = Some(Arc::new(rules));
    let reply = host.get("/");
    assert_eq!((reply.status, host.forwards.len()), (503, 0));
    assert!(stages(&reply).contains("us-east-1 atanorigin"), "{}", stages(&reply));
}
