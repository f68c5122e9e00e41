//! What is stored, and which requests it answers.

use proptest::prelude::*;

use super::*;

#[test]
fn a_fresh_entry_is_a_hit_with_its_age() {
    let mut world = world(&[("cache-control", "max-age=60"), ("x-a", "1"), ("meridian-session", "s1")]);
    assert_eq!(world.cache(&get("/a", &[])), "fwd=uri-miss; ttl=60; stored");
    world.now_ms += 10_999;
    let seen = world.ask(&get("/a", &[]));
    assert_eq!((seen.status, seen.cache.as_str(), seen.body), (200, "hit; ttl=49", true));
    assert_eq!(seen.headers.get("age"), Some("10"));
    assert_eq!(seen.headers.get("x-a"), Some("1"));
    assert_eq!(seen.headers.get("meridian-session"), None);
    assert_eq!(world.cache(&get("/b", &[])), "fwd=uri-miss; ttl=60; stored");
    assert_eq!(world.cache(&get("/a?x=1", &[])), "fwd=uri-miss; ttl=60; stored");
}

#[test]
fn requests_go_past_the_cache_by_the_rule() {
    let check = |rule: &str, facts: &Facts, expect: &str| {
        let mut world = world(&[("cache-control", "max-age=60")]);
        world.ask(&get("/a", &[]));
        assert_eq!(world.cache(facts), expect, "{rule}");
    };
    let method = |method: &str| Facts { method: method.to_owned(), ..get("/a", &[]) };
    check("RFC 9111 2", &method("OPTIONS"), "fwd=method");
    check("RFC 9111 4, lower case is another method", &method("get"), "fwd=method");
    check("RFC 9111 5.2.1.5", &get("/a", &[("cache-control", "no-store")]), "fwd=bypass; detail=no-store");
    check("RFC 9110 13.1.1", &get("/a", &[("if-match", "*")]), "fwd=bypass; detail=precondition");
    check(
        "RFC 9110 9.3.1",
        &Facts { body: BodySize::Bytes(1), ..get("/a", &[]) },
        "fwd=bypass; detail=content",
    );
    check("RFC 9111 5.2.1.4", &get("/a", &[("cache-control", "no-cache")]), "fwd=request; ttl=60; stored");
    check("RFC 9111 5.4", &get("/a", &[("pragma", "no-cache")]), "fwd=request; ttl=60; stored");
    check("RFC 9111 5.2.1.7", &get("/b", &[("cache-control", "only-if-cached")]), "detail=only-if-cached");
    check("RFC 9111 5.2.1.7", &get("/a", &[("cache-control", "only-if-cached")]), "hit; ttl=60");
    check("RFC 9110 14.2", &get("/a", &[("range", "bytes=0-1")]), "hit; ttl=60");
    check("RFC 9111 4", &method("HEAD"), "hit; ttl=60");
    let mut world = world(&[("cache-control", "max-age=60")]);
    let facts = get("/a", &[]);
    let begun = begin(&world.policy, &subject(&facts), true);
    assert!(matches!(begun, Begin::Pass(status) if status.fwd == Some(Fwd::Bypass)));
    assert_eq!(world.cache(&method("HEAD")), "fwd=uri-miss; detail=head");
    assert!(world.store.is_empty());
}

#[test]
fn clients_may_ask_for_more_or_less_freshness() {
    let check = |rule: &str, control: &str, stored: &str, after_s: u64, expect: &str| {
        let mut world = world(&[("cache-control", stored)]);
        world.policy.stale_while_revalidate_ms = 0;
        world.ask(&get("/a", &[]));
        world.now_ms += after_s * 1_000;
        let cache = world.cache(&get("/a", &[("cache-control", control)]));
        assert!(cache.starts_with(expect), "RFC 9111 {rule}: {control} after {after_s} s: {cache}");
    };
    check("5.2.1.1", "max-age=30", "max-age=60", 30, "hit");
    check("5.2.1.1", "max-age=30", "max-age=60", 31, "fwd=request");
    check("5.2.1.1", "max-age=0", "max-age=60", 1, "fwd=request");
    check("5.2.1.3", "min-fresh=30", "max-age=60", 30, "hit");
    check("5.2.1.3", "min-fresh=31", "max-age=60", 30, "fwd=request");
    check("5.2.1.2", "max-stale", "max-age=60", 1_000, "hit; ttl=-940");
    check("5.2.1.2", "max-stale=10", "max-age=60", 70, "hit; ttl=-10");
    check("5.2.1.2", "max-stale=10", "max-age=60", 71, "fwd=stale");
    check("5.2.2.2", "max-stale", "max-age=60, must-revalidate", 61, "fwd=stale");
    check("5.2.2.8", "max-stale", "max-age=60, proxy-revalidate", 61, "fwd=stale");
    check("5.2.2.10", "max-stale", "s-maxage=60", 61, "fwd=stale");
    check("4.2.4", "foo", "max-age=60", 60, "fwd=stale");
}

#[test]
fn a_part_has_the_digest_of_its_representation_and_not_that_of_the_whole_content() {
    let digest = "sha-256=:AA==:";
    let fields = [("content-digest", digest), ("content-md5", "AA=="), ("repr-digest", digest)];
    let mut world = world(&[&[("cache-control", "max-age=60")][..], &fields].concat());
    world.ask(&get("/a", &[]));
    world.store.values_mut().for_each(|entry| entry.body_bytes = 10);
    let digests = |seen: &Seen| fields.map(|(name, _)| seen.headers.get(name).is_some());
    let whole = world.ask(&get("/a", &[]));
    assert_eq!((whole.status, digests(&whole)), (200, [true; 3]));
    let part = world.ask(&get("/a", &[("range", "bytes=2-4")]));
    assert_eq!((part.status, digests(&part)), (206, [false, false, true]), "RFC 9530 2 and 3");
}

#[test]
fn an_entry_of_another_version_is_a_miss() {
    let mut world = world(&[("cache-control", "max-age=60")]);
    world.ask(&get("/a", &[]));
    for entry in world.store.values_mut() {
        entry.meta = "0 something else".to_owned();
    }
    assert_eq!(world.cache(&get("/a", &[])), "fwd=uri-miss; ttl=60; stored");
}

#[test]
fn what_says_that_it_is_too_large_is_not_stored() {
    let fields = |length| [("cache-control", "max-age=60"), ("etag", "\"1\""), ("content-length", length)];
    let mut world = world(&fields("1001"));
    assert_eq!(world.cache(&get("/a", &[])), "fwd=uri-miss; detail=too-large");
    let head = Facts { method: "HEAD".to_owned(), ..get("/a", &[]) };
    assert_eq!(world.cache(&head), "fwd=uri-miss; detail=head");
    world.answers(200, &fields("1000"));
    assert_eq!(world.cache(&get("/a", &[])), "fwd=uri-miss; ttl=60; stored");
    world.now_ms += 70_000;
    world.answers(200, &fields("1001"));
    assert_eq!(world.cache(&get("/a", &[])), "fwd=stale; detail=too-large");
}

#[test]
fn tenants_share_nothing() {
    let mut world = world(&[("cache-control", "max-age=60")]);
    assert!(world.cache(&get("/a", &[])).ends_with("stored"));
    world.tenant = "globex";
    assert!(world.cache(&get("/a", &[])).ends_with("stored"));
}

proptest! {
    #[test]
    fn nothing_a_server_says_makes_it_panic(
        status in 100u16..600,
        fields in proptest::collection::vec(("cache-control|cdn-cache-control|vary|age|date|expires|etag|cache-tag|meridian-seen", "[ -~]{0,40}"), 0..8),
        request in proptest::collection::vec(("cache-control|if-none-match|if-modified-since|range|pragma", "[ -~]{0,40}"), 0..4),
    ) {
        let mut world = world(&[]);
        world.origin = (status, fields.into_iter().collect());
        let mut facts = get("/a", &[]);
        facts.headers = request.into_iter().collect();
        for _ in 0..3 {
            world.ask(&facts);
            world.now_ms += 700;
        }
    }
}
