//! What a rule says of a tenant's own service, and of one of the platform's.

use super::*;
use crate::ruleset::{Canary, SHARE_ALL, SharedUpstream, Upstream};

/// Rules of one open route to an upstream in two regions.
fn rules(change: impl FnOnce(&mut Upstream)) -> Ruleset {
    let mut rules = ruleset(vec![route("/**")]);
    let region = |id: &str| (id.into(), format!("https://{id}.shop.example"));
    let mut upstream = upstream(vec![region("us-east-1"), region("eu-west-1")]);
    change(&mut upstream);
    rules.upstreams.push(upstream);
    rules.routes[0].target = RouteTarget::Upstream(UpstreamRef::Own(0));
    rules
}

fn length(bytes: &str) -> Result<ResponseHead, ForwardFault> {
    ok(200, &[("content-length", bytes), ("cache-control", "public, max-age=60")])
}

#[test]
fn a_response_that_says_it_is_too_long_is_not_passed_on_and_asked_for_nowhere_else() {
    let mut host = Host::new(cached(rules(|upstream| upstream.response_bytes_max = Some(10))));
    host.says("us-east-1", length("11"));
    let reply = host.get("/");
    assert_eq!((reply.status, host.forwards.len()), (502, 1));
    assert!(body(&reply)["type"].as_str().unwrap().ends_with("response-too-large"), "{}", body(&reply));
    assert!(host.store.is_empty());
    assert!(stages(&reply).contains("response too large"), "{}", stages(&reply));
    assert_eq!(host.forwards[0].response_bytes_max, Some(10));
    for long_enough in [length("10"), ok(200, &[]), ok(304, &[("content-length", "11")])] {
        host.says("us-east-1", long_enough);
        assert_eq!(host.get("/a").decision.outcome, Outcome::Forwarded);
        host.store.clear();
    }
}

#[test]
fn to_head_a_length_is_not_that_of_what_comes() {
    let mut host = Host::new(rules(|upstream| upstream.response_bytes_max = Some(10)));
    host.says("us-east-1", length("11"));
    assert_eq!(host.send(request("HEAD", "acme.example", "/")).status, 200);
}

#[test]
fn something_stale_is_better_than_a_response_that_is_too_long() {
    let mut host = Host::new(cached(rules(|upstream| upstream.response_bytes_max = Some(10))));
    host.says("us-east-1", length("10"));
    host.get("/");
    host.now_ms += 100_000;
    host.says("us-east-1", length("11"));
    let reply = host.get("/");
    assert_eq!((reply.status, reply.decision.outcome), (200, Outcome::Cached));
}

#[test]
fn an_upstream_gets_its_fields_whatever_clients_and_transforms_say() {
    let mut rules = rules(|upstream| {
        upstream.headers = vec![("x-key".to_owned(), "ours".to_owned())];
        upstream.body_timeout_ms = Some(300);
        upstream.connect_timeout_ms = Some(200);
    });
    let set = HeaderChange::Set("x-key".to_owned(), HeaderValue::Text("transformed".to_owned()));
    rules.transforms.push(Transform { request: vec![set], ..Transform::new(rule("Transform")) });
    rules.routes[0].transforms = vec![0];
    let mut host = Host::new(rules);
    let mut facts = request("GET", "acme.example", "/");
    facts.headers.append("x-key", "theirs");
    let reply = host.send(facts);
    let sent: Vec<&str> = host.forwards[0].headers.get_all("x-key").collect();
    let forward = &host.forwards[0];
    assert_eq!((sent, forward.body_timeout_ms, forward.connect_timeout_ms), (vec!["ours"], Some(300), 200));
    assert_eq!(reply.headers.get("x-key"), None);
    assert!(!stages(&reply).contains("ours"));
}

#[test]
fn a_region_whose_connections_are_in_use_is_passed_over() {
    let mut host = Host::new(rules(|upstream| upstream.connections_max = Some(1)));
    host.says("us-east-1", length("1"));
    host.says("eu-west-1", length("1"));
    let (first, second, third) = (host.get("/"), host.get("/"), host.get("/"));
    let region = |reply: &Reply| reply.decision.region.as_deref().map(str::to_owned);
    assert_eq!(
        (region(&first).as_deref(), region(&second).as_deref()),
        (Some("us-east-1"), Some("eu-west-1"))
    );
    assert!(stages(&second).contains("passed over: all connections are in use"), "{}", stages(&second));
    assert_eq!((third.status, third.headers.get("retry-after")), (503, Some("1")));
    assert!(body(&third)["type"].as_str().unwrap().ends_with("upstream-busy"), "{}", body(&third));
    // The bodies have come.
    host.forwards.clear();
    host.says("us-east-1", length("1"));
    assert_eq!(region(&host.get("/")).as_deref(), Some("us-east-1"));
}

#[test]
fn something_stale_is_better_than_an_upstream_that_is_busy() {
    let mut host = Host::new(cached(rules(|upstream| upstream.connections_max = Some(1))));
    host.says("us-east-1", length("10"));
    host.get("/");
    host.forwards.clear();
    host.now_ms += 100_000;
    for (region, path) in [("us-east-1", "/one"), ("eu-west-1", "/other")] {
        host.says(region, length("10"));
        assert_eq!(host.get(path).status, 200);
    }
    let reply = host.get("/");
    assert_eq!((reply.status, reply.decision.outcome), (200, Outcome::Cached));
}

#[test]
fn no_upstream_leads_to_the_origin_of_any_region() {
    let at = |us: &str| {
        let us = us.to_owned();
        rules(move |upstream| upstream.regions[0].1 = us.into())
    };
    for us in ["http://us-east-1.origin.example", "http://ap-southeast-1.origin.example:80/metrics"] {
        let mut host = Host::new(at(us));
        let reply = host.get("/");
        assert_eq!((reply.status, host.regions()), (200, vec!["eu-west-1"]), "{us}");
        assert!(stages(&reply).contains("us-east-1 atanorigin"), "{}", stages(&reply));
    }
    let mut host = Host::new(at("http://us-east-1.origin.example:81"));
    host.get("/");
    assert_eq!(host.regions(), ["us-east-1"]);
    let mut host = Host::new(rules(|upstream| {
        upstream.regions = vec![("us-east-1".into(), "http://eu-west-1.origin.example".into())];
    }));
    let reply = host.get("/");
    assert_eq!((reply.status, host.forwards.len()), (503, 0));
    assert!(body(&reply)["type"].as_str().unwrap().ends_with("no-region"), "{}", body(&reply));
}

/// A host whose one route goes to the platform's upstream `shared`, which is there for these tenants.
fn shared(tenants: Option<&[&str]>) -> Host {
    let mut rules = ruleset(vec![route("/**")]);
    rules.routes[0].target = RouteTarget::Upstream(UpstreamRef::Platform("platform:shared".into()));
    let mut upstream = upstream(vec![("us-east-1".into(), "https://shared.example".to_owned())]);
    upstream.service = "platform:shared".into();
    upstream.headers = vec![("x-key".to_owned(), "hush".to_owned())];
    let tenants = tenants.map(|slugs| slugs.iter().map(|slug| (*slug).to_owned()).collect());
    let mut platform = platform();
    platform.upstreams.insert("platform:shared".into(), SharedUpstream { upstream, tenants });
    Host { platform: Some(Arc::new(platform)), ..Host::new(cached(rules)) }
}

fn is_missing(host: &mut Host) {
    let reply = host.get("/");
    assert_eq!((reply.status, reply.decision.outcome, host.forwards.len()), (503, Outcome::Failed, 0));
    assert!(body(&reply)["type"].as_str().unwrap().ends_with("no-upstream"), "{}", body(&reply));
    let told = stages(&reply);
    let line = "the platform has no such upstream for this tenant  upstream=platform:shared";
    assert!(told.contains(line), "{told}");
}

/// The same, with what the platform says of it changed.
fn shared_but(change: impl FnOnce(&mut Upstream)) -> Host {
    let mut host = shared(None);
    let mut platform = platform();
    let said = host.platform.as_ref().unwrap().upstreams.get("platform:shared").unwrap();
    let SharedUpstream { mut upstream, tenants } = said.clone();
    upstream.rule.file = "platform.yaml".into();
    change(&mut upstream);
    platform.upstreams.insert("platform:shared".into(), SharedUpstream { upstream, tenants });
    host.platform = Some(Arc::new(platform));
    host
}

#[test]
fn where_the_platforms_rules_stand_is_told_to_no_tenant() {
    let mut host = shared_but(|upstream| {
        upstream.response_bytes_max = Some(10);
        upstream.connections_max = Some(1);
    });
    host.says("us-east-1", length("11"));
    let too_large = host.get("/");
    // Its body has not come yet.
    let busy = host.get("/other");
    for (reply, said) in [(too_large, "response too large"), (busy, "passed over")] {
        let told = stages(&reply);
        assert!(told.contains(said) && !told.contains("platform.yaml"), "{told}");
    }
}

#[test]
fn what_one_tenant_uses_of_an_upstream_of_the_platform_is_taken_from_no_other() {
    let mut host = shared_but(|upstream| upstream.connections_max = Some(1));
    assert_eq!((host.get("/").status, host.get("/other").status), (200, 503));
    let mut rules = (**host.rules.as_ref().unwrap()).clone();
    rules.tenant.slug = "other".to_owned();
    rules.tenant.domains = vec!["other.example".to_owned()];
    host.hosts.insert("other.example".to_owned(), "other".to_owned());
    host.rules = Some(Arc::new(rules));
    let statuses = ["/", "/other"].map(|path| host.send(request("GET", "other.example", path)).status);
    assert_eq!(statuses, [200, 503], "it has as many of its own");
}

#[test]
fn an_upstream_of_the_platform_is_for_those_that_it_names() {
    for tenants in [None, Some(&["other", "acme"][..])] {
        let mut host = shared(tenants);
        let reply = host.get("/");
        assert_eq!(reply.status, 200);
        let forward = &host.forwards[0];
        assert_eq!((forward.url.as_str(), forward.sign.is_none()), ("https://shared.example/", true));
        assert_eq!(forward.headers.get("x-key"), Some("hush"));
        let told = stages(&reply);
        assert!(told.contains("service=platform:shared") && !told.contains("hush"), "{told}");
    }
    is_missing(&mut shared(Some(&["other"])));
    is_missing(&mut shared(Some(&[])));
    let mut host = shared(None);
    host.platform = Some(Arc::new(platform()));
    is_missing(&mut host);
}

#[test]
fn a_canary_to_an_upstream_that_is_not_there_goes_to_no_origin() {
    let mut rules = ruleset(vec![route("/**")]);
    let upstream = UpstreamRef::Platform("platform:shared".into());
    rules.routes[0].steering.canary = Some(Canary { share: SHARE_ALL, upstream });
    is_missing(&mut Host::new(rules));
}

#[test]
fn something_stale_is_better_than_an_upstream_that_is_not_there() {
    let mut host = shared(None);
    host.says("us-east-1", length("10"));
    host.get("/");
    host.now_ms += 100_000;
    let mut without = platform();
    without.version.sequence = 2;
    host.platform = Some(Arc::new(without));
    let heads = vec![(Target::Platform, 2)];
    host.news = Some(SyncNews { now_ms: host.now_ms, heads, ..SyncNews::default() });
    host.forwards.clear();
    let reply = host.get("/");
    assert_eq!((reply.status, reply.decision.outcome, host.forwards.len()), (200, Outcome::Cached, 0));
    assert!(stages(&reply).contains("no such upstream"), "{}", stages(&reply));
}
