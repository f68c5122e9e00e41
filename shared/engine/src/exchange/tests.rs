//! The whole pipeline against a host that answers from memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::decision::Outcome;
use crate::facts::BodySize;
use crate::facts::tests::request;
use crate::headers::Headers;
use crate::policy::experiment::UNIT_COOKIE;
use crate::ruleset::tests::{platform, route, rule, ruleset};
use crate::ruleset::{
    Auth, CachePolicy, Experiment, HeaderChange, HeaderValue, KeyPart, Mode, Ruleset, Security, Target,
    TenantState, Transform, Unit, Variant,
};
use crate::step::{CacheKey, Entry, Forward, Loaded, Reply, ReplyBody, ResponseHead, SyncNews};

const NOW: u64 = 1_800_000_000_000;

/// A host that holds everything in memory and has no network: what targets say is a queue for each region.
struct Host {
    node: Node,
    hosts: BTreeMap<String, String>,
    rules: Option<Arc<Ruleset>>,
    platform: Option<Arc<Platform>>,
    news: Option<SyncNews>,
    store: HashMap<CacheKey, Entry>,
    responses: BTreeMap<&'static str, VecDeque<Result<ResponseHead, ForwardFault>>>,
    forwards: Vec<Forward>,
    asked: Vec<&'static str>,
    now_ms: u64,
}

impl Host {
    fn new(rules: Ruleset) -> Self {
        let hosts =
            rules.tenant.domains.iter().map(|host| (host.clone(), rules.tenant.slug.clone())).collect();
        Self {
            node: Node::new("test-1", [7; 32]),
            hosts,
            rules: Some(Arc::new(rules)),
            platform: Some(Arc::new(platform())),
            news: Some(SyncNews { now_ms: NOW, ..SyncNews::default() }),
            store: HashMap::new(),
            responses: BTreeMap::new(),
            forwards: Vec::new(),
            asked: Vec::new(),
            now_ms: NOW,
        }
    }

    fn says(&mut self, region: &'static str, response: Result<ResponseHead, ForwardFault>) {
        self.responses.entry(region).or_default().push_back(response);
    }

    fn get(&mut self, path: &str) -> Reply {
        self.send(request("GET", "acme.example", path))
    }

    fn send(&mut self, mut facts: Facts) -> Reply {
        facts.now_ms = self.now_ms;
        let (mut exchange, mut step) = Exchange::begin(&mut self.node, facts);
        loop {
            let answer = match step {
                Step::Reply(reply) => return self.after(*reply),
                step => self.answer(step),
            };
            step = exchange.resume(&mut self.node, answer, self.now_ms);
        }
    }

    fn after(&mut self, mut reply: Reply) -> Reply {
        for after in std::mem::take(&mut reply.after) {
            match after {
                After::Store { key, entry, .. } => drop(self.store.insert(key, entry)),
                After::Forget(keys) => keys.iter().for_each(|key| drop(self.store.remove(key))),
                After::Run(mut exchange, step) => {
                    let mut step = *step;
                    loop {
                        let answer = match step {
                            Step::Reply(reply) => break drop(self.after(*reply)),
                            step => self.answer(step),
                        };
                        step = exchange.resume(&mut self.node, answer, self.now_ms);
                    }
                }
                After::Sync(_) => {
                    self.asked.push("sync after");
                    self.node.synced(self.news.clone(), self.now_ms);
                }
                After::FetchKeys(_) => self.asked.push("keys after"),
                After::Log => self.asked.push("log"),
            }
        }
        reply
    }

    fn answer(&mut self, step: Step) -> Answer {
        match step {
            Step::Sync(_) => {
                self.asked.push("sync");
                Answer::Synced(self.news.clone())
            }
            Step::Load(keys) => {
                self.asked.push("load");
                Answer::Loaded(keys.iter().map(|key| self.load(key)).collect())
            }
            Step::FetchKeys(_) => Answer::Keys(Err(FetchFault::Unreachable)),
            Step::Verify(_) => Answer::Verified(true),
            Step::Take(takes) => Answer::Taken(vec![None; takes.len()]),
            Step::LookUp(key) => Answer::Found(self.store.get(&key).cloned()),
            Step::Forward(forward) => {
                let region = forward.region.clone().unwrap();
                self.forwards.push(*forward);
                let queue = self.responses.get_mut(&*region);
                let said = queue.and_then(VecDeque::pop_front);
                Answer::Forwarded(said.unwrap_or_else(|| ok(200, &[])))
            }
            Step::Reply(_) => panic!("a reply has no answer"),
        }
    }

    fn load(&self, key: &LoadKey) -> Loaded {
        match key {
            LoadKey::Host(host) => Loaded::Host(self.hosts.get(host).cloned()),
            LoadKey::Target(Target::Platform) => {
                self.platform.clone().map_or(Loaded::Unavailable("away".to_owned()), Loaded::Platform)
            }
            LoadKey::Target(_) => {
                self.rules.clone().map_or(Loaded::Unavailable("away".to_owned()), Loaded::Ruleset)
            }
        }
    }

    fn regions(&self) -> Vec<&str> {
        self.forwards.iter().filter_map(|forward| forward.region.as_deref()).collect()
    }
}

fn ok(status: u16, headers: &[(&str, &str)]) -> Result<ResponseHead, ForwardFault> {
    Ok(ResponseHead { status, headers: headers.iter().copied().collect(), elapsed_ms: 5 })
}

fn cached(mut rules: Ruleset) -> Ruleset {
    rules.caches.push(CachePolicy {
        rule: rule("CachePolicy"),
        default_ttl_ms: BTreeMap::from([(200, 60_000)]),
        query: KeyPart::All,
        headers: vec![],
        cookies: vec![],
        claims: vec![],
        variants: true,
        stale_while_revalidate_ms: 30_000,
        stale_if_error_ms: 300_000,
        tags: vec![],
        bypass: None,
    });
    rules.routes.iter_mut().for_each(|route| route.cache = Some(0));
    rules
}

fn body(reply: &Reply) -> serde_json::Value {
    match &reply.body {
        ReplyBody::Bytes(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn stages(reply: &Reply) -> String {
    reply.decision.explanation.to_string()
}

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
    assert_eq!((sign.tenant.as_str(), sign.consistency.as_str(), sign.attempt), ("acme", "session", 0));

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
    closed.auth = Auth::Required { scopes: vec![] };
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
    let reply = Host::new(rules).get("/");
    assert_eq!((reply.status, body(&reply)["title"].as_str()), (403, Some("This tenant is suspended")));
}

#[test]
fn addresses_are_refused_or_noted() {
    for (mode, status) in [(Mode::Block, 403), (Mode::Log, 200), (Mode::Off, 200)] {
        let mut rules = ruleset(vec![route("/**")]);
        let deny = vec!["192.0.2.0/24".parse().unwrap()];
        rules.security.push(Security { rule: rule("Security"), allow: vec![], deny, mode });
        rules.tenant.security.push(0);
        let reply = Host::new(rules).get("/");
        assert_eq!(reply.status, status, "{mode:?}");
        assert_eq!(stages(&reply).contains("in the deny list"), mode != Mode::Off, "{}", stages(&reply));
    }
}

#[test]
fn nothing_loadable_is_a_503_and_the_last_good_rules_keep_serving() {
    let mut host = Host::new(ruleset(vec![route("/**")]));
    let good = host.rules.take();
    let reply = host.get("/");
    assert_eq!((reply.status, reply.headers.get("retry-after")), (503, Some("1")));

    host.now_ms += 10_000;
    host.rules = good;
    assert_eq!(host.get("/").status, 200);

    // A newer release is promised and can't be had: the old one serves, and the explanation says so.
    host.rules = None;
    host.now_ms += 2_000;
    host.news.as_mut().unwrap().heads = vec![(Target::Tenant("acme".to_owned()), 2)];
    let reply = host.get("/");
    assert_eq!((reply.status, reply.headers.get("meridian-bundle")), (200, Some("00000000000000aa")));
    assert!(stages(&reply).contains("fault: tenant:acme: away"), "{}", stages(&reply));

    // It comes: it serves, for the very request that finds it.
    host.now_ms += 1_000;
    let mut newer = ruleset(vec![route("/**")]);
    newer.version = crate::ruleset::Version { sequence: 2, hash: "newer".to_owned() };
    host.rules = Some(Arc::new(newer));
    assert_eq!(host.get("/").headers.get("meridian-bundle"), Some("newer"));

    // An older one comes: it does not.
    host.rules = Some(Arc::new(ruleset(vec![route("/**")])));
    host.now_ms += 2_000;
    host.news.as_mut().unwrap().heads = vec![(Target::Tenant("acme".to_owned()), 3)];
    let reply = host.get("/");
    assert_eq!(reply.headers.get("meridian-bundle"), Some("newer"));
    assert!(stages(&reply).contains("found sequence 1, expected 2 or newer"), "{}", stages(&reply));
}

#[test]
fn news_are_asked_for_when_they_are_old_and_by_one_exchange_at_a_time() {
    let mut host = Host::new(ruleset(vec![route("/**")]));
    host.get("/");
    let mut check = |later_ms, expect: &[&str]| {
        host.asked.clear();
        host.now_ms += later_ms;
        host.get("/");
        assert_eq!(host.asked, expect, "{later_ms} ms later");
    };
    check(400, &["log"]);
    check(200, &["sync after", "log"]);
    check(1_100, &["sync", "log"]);
    host.news = None;
    let mut check = |later_ms, expect: &[&str]| {
        host.asked.clear();
        host.now_ms += later_ms;
        host.get("/");
        assert_eq!(host.asked, expect, "{later_ms} ms later, no origin");
    };
    check(1_100, &["sync", "log"]);
    check(100, &["log"]);
    check(500, &["sync after", "log"]);

    host.now_ms += 5_000;
    host.news = Some(SyncNews::default());
    host.get("/");
    host.now_ms += 1_100;
    let mut facts = request("GET", "acme.example", "/");
    facts.now_ms = host.now_ms;
    let (_, first) = Exchange::begin(&mut host.node, facts.clone());
    let (_, second) = Exchange::begin(&mut host.node, facts);
    assert!(matches!((&first, &second), (Step::Sync(_), Step::Forward(_))), "{first:?} {second:?}");
}

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
    check("POST", false, ok(503, &[]), 503, 1);
    check("POST", false, Err(ForwardFault::Timeout), 504, 1);
    check("POST", false, Err(ForwardFault::Connect), 200, 2);
    check("POST", true, Err(ForwardFault::Timeout), 200, 2);
    check("PUT", false, ok(502, &[]), 200, 2);
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
fn a_variant_sticks_to_the_cookie_and_reaches_the_origin() {
    let mut rules = ruleset(vec![route("/**")]);
    rules.experiments.push(Experiment {
        rule: rule("Experiment"),
        layer: None,
        salt: "s".to_owned(),
        audience: None,
        unit: Unit::Cookie,
        ramp: 10_000,
        variants: ["a", "b"].map(|name| Variant { name: name.to_owned(), weight: 1 }).to_vec(),
    });
    rules.routes[0].experiments.push(0);
    let mut host = Host::new(rules);
    let reply = host.get("/");
    let variant = reply.decision.variants[0].clone();
    assert_eq!(host.forwards[0].sign.as_ref().unwrap().variants, std::slice::from_ref(&variant));
    assert_eq!(reply.headers.get("meridian-variant"), Some(format!("r={}", variant.1).as_str()));
    let cookie = reply.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with(UNIT_COOKIE));
    for random in 0..20 {
        let mut facts = request("GET", "acme.example", "/");
        facts.random = [random; 16];
        facts.headers.append("cookie", cookie.clone());
        let reply = host.send(facts);
        assert_eq!(reply.decision.variants, std::slice::from_ref(&variant));
        assert_eq!(reply.headers.get("set-cookie"), None);
        assert_eq!(host.forwards.last().unwrap().headers.get("cookie"), None);
    }
}

#[test]
fn transforms_change_both_ways_but_not_what_is_ours() {
    let set =
        |name: &str, value: &str| HeaderChange::Set(name.to_owned(), HeaderValue::Text(value.to_owned()));
    let mut rules = ruleset(vec![route("/**")]);
    rules.transforms.push(Transform {
        rule: rule("Transform"),
        when: None,
        request: vec![set("x-in", "1"), set("x-forwarded-for", "6.6.6.6")],
        response: vec![set("x-out", "1"), set("meridian-decision", "forged")],
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

fn any_facts() -> impl Strategy<Value = Facts> {
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("DELETE"), Just("P\0T")];
    let host = prop_oneof![4 => Just("acme.example"), 1 => Just("other.example"), 1 => Just("a b")];
    let path = prop_oneof![
        Just("/open/a".to_owned()),
        Just("/closed".to_owned()),
        Just("/denied".to_owned()),
        "/[a-z/%.]{0,12}",
        ".{0,8}"
    ];
    let name = prop_oneof![
        Just("authorization"),
        Just("cookie"),
        Just("if-none-match"),
        Just("cache-control"),
        Just("connection"),
        Just("content-length"),
        Just("transfer-encoding"),
        Just("traceparent"),
        Just("meridian-session"),
        Just("x-a")
    ];
    let value = prop_oneof![
        Just("Bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln".to_owned()),
        Just("chunked".to_owned()),
        "[0-9]{1,3}",
        ".{0,20}"
    ];
    let headers = proptest::collection::vec((name, value), 0..6);
    (method, host, path, headers, any::<[u8; 16]>(), 0u64..100_000).prop_map(
        |(method, host, path, headers, random, later_ms)| {
            let mut facts = request(method, host, &path);
            facts.headers = headers.into_iter().collect();
            (facts.random, facts.now_ms) = (random, NOW + later_ms);
            facts
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let rules = Arc::new(guarded());
    let entry = Entry {
        status: 200,
        headers: Headers::from_iter([("etag", "\"1\"")]),
        meta: "odd".to_owned(),
        body_bytes: 1,
    };
    let loaded = prop_oneof![
        Just(Loaded::Host(Some("acme".to_owned()))),
        Just(Loaded::Host(None)),
        Just(Loaded::Platform(Arc::new(platform()))),
        Just(Loaded::Ruleset(rules)),
        Just(Loaded::Missing),
        Just(Loaded::Unavailable("away".to_owned()))
    ];
    let head = (0u16..700, "[a-z=0-9-]{0,12}").prop_map(|(status, value)| {
        ok(status, &[("cache-control", &value), ("meridian-behind", &value), ("vary", &value)])
    });
    prop_oneof![
        any::<bool>().prop_map(|any| Answer::Synced(any.then(SyncNews::default))),
        proptest::collection::vec(loaded, 0..3).prop_map(Answer::Loaded),
        Just(Answer::Keys(Err(FetchFault::Timeout))),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|keys| Answer::Keys(Ok(keys))),
        any::<bool>().prop_map(Answer::Verified),
        Just(Answer::Taken(vec![None])),
        any::<bool>().prop_map(move |any| Answer::Found(any.then(|| entry.clone()))),
        head.prop_map(Answer::Forwarded),
        Just(Answer::Forwarded(Err(ForwardFault::Connect)))
    ]
}

/// `/open/**` may be forwarded, `/closed` needs a token that nobody can have, `/denied` refuses every address.
fn guarded() -> Ruleset {
    let (open, mut closed, mut denied) = (route("/open/**"), route("/closed"), route("/denied"));
    closed.auth = Auth::Required { scopes: vec![] };
    denied.security.push(0);
    let mut rules = cached(ruleset(vec![open, closed, denied]));
    let deny = vec!["0.0.0.0/0".parse().unwrap()];
    rules.security.push(Security { rule: rule("Security"), allow: vec![], deny, mode: Mode::Block });
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever a client sends and a host answers, an exchange ends, and it forwards only what has passed.
    #[test]
    fn an_exchange_is_total_and_forwards_only_what_has_passed(
        requests in proptest::collection::vec((any_facts(), any::<bool>()), 1..4),
        answers in proptest::collection::vec(any_answer(), 1..12),
    ) {
        let mut host = Host::new(guarded());
        let mut answers = answers.into_iter().cycle();
        for (facts, odd) in requests {
            host.now_ms = facts.now_ms;
            let path = facts.path.clone();
            let (mut exchange, mut step) = Exchange::begin(&mut host.node, facts);
            let mut forwarded = false;
            for count in 0.. {
                prop_assert!(count < STEPS_MAX, "no end");
                match &step {
                    Step::LookUp(CacheKey(key)) => prop_assert!(key.contains("acme"), "{}", key),
                    Step::Forward(forward) => {
                        prop_assert!(path.starts_with("/open"), "{}", path);
                        prop_assert!(forward.url.starts_with("http://"));
                        forwarded = true;
                    }
                    Step::Reply(reply) => {
                        let stages: Vec<_> = reply.decision.explanation.stages.iter().map(|s| s.stage).collect();
                        let has = |stage| stages.contains(&stage);
                        prop_assert!(!forwarded || has("host") && has("route") && has("auth") && has("steering"));
                        prop_assert!((200..600).contains(&reply.status));
                        for name in ["meridian-decision", "meridian-region", "meridian-bundle", "traceparent"] {
                            prop_assert_eq!(reply.headers.get_all(name).count(), 1, "{}", name);
                        }
                        break;
                    }
                    _ => {}
                }
                let answer = if odd { answers.next().unwrap() } else { host.answer(step) };
                step = exchange.resume(&mut host.node, answer, host.now_ms);
            }
        }
    }
}
