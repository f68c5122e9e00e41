//! Rules and news: loaded, refreshed, and the last good ones kept.

use super::*;

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
