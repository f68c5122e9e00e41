//! Rules and news: loaded, refreshed, and the last good ones kept.

use super::*;
use crate::limits::HOST_ASKS_CLIENT_MAX;

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
fn whoever_names_many_hosts_costs_an_origin_few_questions_and_others_nothing() {
    let mut rules = ruleset(vec![route("/**")]);
    rules.tenant.domains.push("*.example".to_owned());
    let mut host = Host::new(rules);
    assert_eq!(host.get("/").status, 200);
    host.hosts.insert("below.example".to_owned(), "acme".to_owned());
    host.asked.clear();
    let mut statuses = BTreeMap::new();
    for number in 0..2_000 {
        let reply = host.send(request("GET", &format!("x{number}.example"), "/"));
        if reply.status == 503 {
            assert_eq!(reply.headers.get("retry-after"), Some("1"));
            assert!(stages(&reply).contains("not asked for: too many are"), "{}", stages(&reply));
        }
        *statuses.entry(reply.status).or_insert(0) += 1;
    }
    // The first request has asked for its own host.
    let asked = HOST_ASKS_CLIENT_MAX - 1;
    assert_eq!(statuses, BTreeMap::from([(421, asked), (503, 2_000 - asked)]));
    assert_eq!(host.asked.iter().filter(|what| **what == "load").count() as u64, asked);
    assert_eq!(host.get("/").status, 200, "what is known needs no question");
    host.stored_hosts.insert("kept.example".to_owned(), "acme".to_owned());
    assert_eq!(
        host.send(request("GET", "kept.example", "/")).status,
        200,
        "what is stored needs none either"
    );
    let mut other = request("GET", "below.example", "/");
    other.client = "198.51.100.1".parse().unwrap();
    assert_eq!(host.send(other).status, 200, "another client may ask");
    host.now_ms += 30_001;
    host.send(request("GET", "y.example", "/"));
    for number in 0..HOST_ASKS_CLIENT_MAX {
        host.send(request("GET", &format!("z{number}.example"), "/"));
    }
    let late = host.send(request("GET", "below.example", "/"));
    assert_eq!(late.status, 200, "who had it last keeps it: {}", stages(&late));
    assert!(stages(&late).contains("not asked for: too many are"), "{}", stages(&late));
}
