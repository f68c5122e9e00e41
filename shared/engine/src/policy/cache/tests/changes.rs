//! What purges, sessions and unsafe requests make stale.

use super::*;

#[test]
fn a_purge_makes_stale_what_reflects_less() {
    let fields = [
        ("cache-control", "s-maxage=60, stale-while-revalidate=30"),
        ("cache-tag", "orders, orders/1"),
        ("meridian-seen", "1=100;2=50"),
    ];
    let mut world = world(&fields);
    world.ask(&get("/a", &[]));
    for (tag, source, position) in [("orders/2", 1, 999), ("orders", 1, 100), ("orders", 2, 50)] {
        world.purge(tag, source, position);
        assert_eq!(world.cache(&get("/a", &[])), "hit; ttl=60", "{tag} {source} {position}");
    }
    world.purge("orders/1", 2, 51);
    assert_eq!(
        world.cache(&get("/a", &[])),
        "fwd=stale; detail=purged",
        "of a region that has not heard of it: not stored"
    );
    world.answers(0, &[]);
    assert_eq!(world.ask(&get("/a", &[])).status, 502, "a purged entry does not serve in need");
    world.answers(200, &[fields[0], fields[1], ("meridian-seen", "1=100;2=51")]);
    assert_eq!(world.cache(&get("/a", &[])), "fwd=stale; ttl=60; stored; detail=purged");
    assert_eq!(world.cache(&get("/a", &[])), "hit; ttl=60");
    world.now_ms += 1;
    world.purge("*", 0, 0);
    assert_eq!(
        world.cache(&get("/a", &[])),
        "fwd=stale; detail=purged",
        "by hand: what was asked for before counts"
    );
    world.now_ms += 1;
    assert_eq!(world.cache(&get("/a", &[])), "fwd=stale; ttl=60; stored; detail=purged");
}

#[test]
fn a_session_is_not_served_less_than_it_has_seen() {
    let mut world =
        world(&[("cache-control", "s-maxage=60"), ("meridian-seen", "1=100;2=50"), ("etag", "\"1\"")]);
    world.ask(&get("/a", &[]));
    world.positions = vec![(2, 50)];
    assert_eq!(world.cache(&get("/a", &[])), "hit; ttl=60");
    world.positions = vec![(1, 101)];
    world.answers(304, &[("cache-control", "s-maxage=60"), ("meridian-seen", "1=101;2=50")]);
    assert_eq!(world.cache(&get("/a", &[])), "fwd=stale; fwd-status=304; ttl=60; stored; detail=session");
    assert_eq!(world.cache(&get("/a", &[])), "hit; ttl=60", "the 304 says what it reflects");
    world.now_ms += 70_000;
    world.answers(304, &[("cache-control", "s-maxage=60")]);
    world.ask(&get("/a", &[]));
    assert_eq!(
        world.cache(&get("/a", &[])),
        "hit; ttl=60",
        "a 304 that does not say reflects what the entry did"
    );
    world.answers(200, &[("cache-control", "max-age=60")]);
    world.ask(&get("/upstream", &[]));
    assert_eq!(
        world.cache(&get("/upstream", &[])),
        "hit; ttl=60",
        "answers without positions are not Meridian's"
    );
}

#[test]
fn unsafe_requests_make_stale_what_they_change() {
    let check = |rule: &str, method: &str, status: u16, fields: &[(&str, &str)], path: &str, expect: &str| {
        let mut world = world(&[("cache-control", "max-age=60")]);
        world.ask(&get(path, &[("x-variant", "1")]));
        world.now_ms += 1_000;
        world.answers(status, fields);
        world.ask(&Facts { method: method.to_owned(), ..get("/a/b?q=1", &[]) });
        world.now_ms += 1_000;
        world.answers(200, &[]);
        assert!(world.cache(&get(path, &[("x-variant", "1")])).starts_with(expect), "RFC 9111 4.4, {rule}");
    };
    check("its own", "POST", 201, &[], "/a/b?q=1", "fwd");
    check("its own", "DELETE", 204, &[], "/a/b?q=1", "fwd");
    check("an unknown method", "FROB", 200, &[], "/a/b?q=1", "fwd");
    check("a redirect", "POST", 303, &[], "/a/b?q=1", "fwd");
    check("an error", "POST", 409, &[], "/a/b?q=1", "hit");
    check("a safe method", "OPTIONS", 200, &[], "/a/b?q=1", "hit");
    check("another URI", "POST", 201, &[], "/a/b", "hit");
    check("Location, path", "POST", 201, &[("location", "/a/7")], "/a/7", "fwd");
    check("Location, relative", "POST", 201, &[("location", "7#x")], "/a/7", "fwd");
    check(
        "Location, same host",
        "POST",
        201,
        &[("location", "https://acme.example:8443/a/7?x=1")],
        "/a/7?x=1",
        "fwd",
    );
    check("Location, another host", "POST", 201, &[("location", "https://evil.example/a/7")], "/a/7", "hit");
    check("Location, no scheme", "POST", 201, &[("location", "//evil.example/a/7")], "/a/7", "hit");
    check("Content-Location", "POST", 200, &[("content-location", "/a/7")], "/a/7", "fwd");
}

#[test]
fn an_unsafe_request_reaches_every_variant_of_this_node() {
    let mut world = world(&[("cache-control", "max-age=60"), ("vary", "x-a")]);
    world.policy.headers = vec!["x-k".to_owned()];
    let variants = [get("/a", &[("x-a", "1")]), get("/a", &[("x-a", "2")]), get("/a", &[("x-k", "3")])];
    for variant in &variants {
        assert!(world.cache(variant).ends_with("stored"));
        assert!(world.cache(variant).starts_with("hit"));
    }
    world.now_ms += 1;
    world.ask(&Facts { method: "PUT".to_owned(), ..get("/a", &[]) });
    world.now_ms += 1;
    for variant in &variants {
        assert!(world.cache(variant).starts_with("fwd"), "{variant:?}");
    }
}

#[test]
fn an_unsafe_request_reaches_every_variant_of_nodes_with_the_same_store() {
    let mut world = world(&[("cache-control", "max-age=60"), ("vary", "x-a"), ("etag", "\"1\"")]);
    let mut asked = 0;
    let mut variant = |value: &str| {
        asked += 1;
        Facts { random: [asked; 16], ..get("/a", &[("x-a", value)]) }
    };
    for value in ["1", "2", "3"] {
        assert!(world.cache(&variant(value)).ends_with("stored"));
        assert!(world.cache(&variant(value)).starts_with("hit"));
    }
    // What takes the place of the first, validated or new, leaves the others where they are.
    for status in [304, 200] {
        world.answers(status, &[("cache-control", "max-age=60"), ("vary", "x-a"), ("etag", "\"1\"")]);
        let first = Facts { random: [99; 16], ..get("/a", &[("x-a", "1"), ("cache-control", "no-cache")]) };
        assert!(world.cache(&first).starts_with("fwd=request"));
        assert!(world.cache(&variant("2")).starts_with("hit"), "{status}");
    }
    world.now_ms += 1;
    world.ask(&Facts { method: "PUT".to_owned(), ..variant("1") });
    world.now_ms += 1;
    // A node that has heard of nothing.
    world.journal = PurgeJournal::new(Keyed::default());
    world.journal.read(&crate::step::SyncNews::default(), 0);
    for value in ["3", "1", "2"] {
        assert!(world.cache(&variant(value)).ends_with("stored"), "RFC 9111 4.4: {value}");
        assert!(world.cache(&variant(value)).starts_with("hit"), "{value}");
    }
}

#[test]
fn what_takes_the_place_of_a_purged_entry_has_variants_of_its_own() {
    let mut world = world(&[("cache-control", "max-age=60"), ("vary", "x-a"), ("cache-tag", "a")]);
    let variant = |value: &str, random| Facts { random: [random; 16], ..get("/a", &[("x-a", value)]) };
    world.ask(&variant("1", 1));
    world.ask(&variant("2", 2));
    world.purge("a", 0, 0);
    world.now_ms += 1;
    assert!(world.cache(&variant("1", 3)).ends_with("detail=purged"));
    world.journal = PurgeJournal::new(Keyed::default());
    world.journal.read(&crate::step::SyncNews::default(), 0);
    assert!(world.cache(&variant("1", 4)).starts_with("hit"));
    assert!(world.cache(&variant("2", 5)).starts_with("fwd=vary-miss"));
}
