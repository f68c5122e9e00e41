//! Entries that the target is asked about.

use super::*;

#[test]
fn a_stale_entry_is_validated_and_a_304_makes_it_fresh() {
    let mut world =
        world(&[("cache-control", "max-age=60"), ("etag", "\"1\""), ("content-type", "text/html")]);
    world.policy.stale_while_revalidate_ms = 0;
    world.ask(&get("/a", &[]));
    world.now_ms += 60_000;
    world.answers(304, &[("cache-control", "max-age=90"), ("etag", "\"1\"")]);
    let seen = world.ask(&get("/a", &[("if-none-match", "\"0\"")]));
    assert_eq!(world.forwarded.take().unwrap().get("if-none-match"), Some("\"1\""), "ours, not the client's");
    assert_eq!((seen.status, seen.body), (200, true), "the client has another");
    assert_eq!(seen.cache, "fwd=stale; fwd-status=304; ttl=90; stored");
    assert_eq!(seen.headers.get("content-type"), Some("text/html"));
    world.now_ms += 89_000;
    assert_eq!(world.cache(&get("/a", &[])), "hit; ttl=1");
    let seen = world.ask(&get("/a", &[("if-none-match", "W/\"1\"")]));
    assert_eq!((seen.status, seen.body, seen.headers.get("content-type")), (304, false, None));
    world.now_ms += 1_000;
    world.answers(200, &[("cache-control", "max-age=60"), ("etag", "\"2\"")]);
    assert_eq!(world.cache(&get("/a", &[])), "fwd=stale; ttl=60; stored");
    assert_eq!(world.ask(&get("/a", &[("if-none-match", "\"2\"")])).status, 304);
}

#[test]
fn what_is_sent_says_whose_condition_a_304_answers() {
    let mut world = world(&[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
    world.policy.stale_while_revalidate_ms = 0;
    world.removed = "range";
    world.ask(&get("/a", &[]));
    world.store.values_mut().for_each(|entry| entry.body_bytes = 10);
    world.now_ms += 60_000;
    world.answers(304, &[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
    let seen = world.ask(&get("/a", &[("range", "bytes=0-1")]));
    assert_eq!(world.forwarded.take().unwrap().get("if-none-match"), Some("\"1\""), "the whole is asked for");
    assert_eq!((seen.status, seen.body), (206, true), "the client asked for a part, and for no 304");
    assert_eq!(seen.cache, "fwd=stale; fwd-status=304; ttl=60; stored");
}

#[test]
fn without_a_validator_the_clients_condition_goes_on() {
    let mut world = world(&[("cache-control", "max-age=0, stale-if-error=60")]);
    world.policy.stale_while_revalidate_ms = 0;
    world.ask(&get("/a", &[]));
    world.now_ms += 1_000;
    world.answers(304, &[("etag", "\"c\"")]);
    let seen = world.ask(&get("/a", &[("if-none-match", "\"c\"")]));
    assert_eq!(world.forwarded.take().unwrap().get("if-none-match"), Some("\"c\""));
    assert_eq!((seen.status, seen.cache.as_str()), (304, "fwd=stale; detail=status"));
}
