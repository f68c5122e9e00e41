//! Stale answers, and where there are none.

use super::*;

#[test]
fn a_stale_entry_is_served_while_it_is_revalidated() {
    let mut world = world(&[("cache-control", "s-maxage=60, stale-while-revalidate=30")]);
    world.ask(&get("/a", &[]));
    world.now_ms += 90_000;
    world.answers(200, &[("cache-control", "s-maxage=60"), ("x-new", "1")]);
    let seen = world.ask(&get("/a", &[("if-none-match", "\"c\""), ("range", "bytes=0-1")]));
    assert_eq!(seen.cache, "hit; ttl=-30; detail=stale-while-revalidate");
    let forwarded = world.forwarded.take().unwrap();
    assert!(
        forwarded.is_empty(),
        "the client's conditions and range are not the revalidation's: {forwarded:?}"
    );
    let seen = world.ask(&get("/a", &[]));
    assert_eq!((seen.cache.as_str(), seen.headers.get("x-new")), ("hit; ttl=60", Some("1")));
    world.now_ms += 62_001;
    assert!(world.cache(&get("/a", &[])).starts_with("fwd=stale"), "beyond the policy's two seconds");
}

#[test]
fn stale_service_has_its_bounds() {
    let check = |rule: &str, control: &str, after_ms: u64, status: u16, expect: &str| {
        let mut world = world(&[("cache-control", control)]);
        world.policy.stale_while_revalidate_ms = 0;
        world.ask(&get("/a", &[]));
        world.now_ms += after_ms;
        world.answers(status, &[]);
        let seen = world.ask(&get("/a", &[]));
        assert_eq!(seen.cache, expect, "{rule}: {control} {after_ms} {status}: {}", seen.status);
    };
    let stale = |status: &str, ttl: i64| format!("fwd=stale{status}; ttl={ttl}; detail=stale-if-error");
    check("RFC 5861 4", "max-age=60, stale-if-error=9", 69_000, 0, &stale("", -9));
    check("RFC 5861 4", "max-age=60, stale-if-error=9", 69_000, 503, &stale("; fwd-status=503", -9));
    check("RFC 5861 4", "max-age=60, stale-if-error=9", 69_000, 501, "fwd=stale; detail=no-lifetime");
    check("RFC 5861 4", "max-age=60, stale-if-error=9", 69_001, 0, "");
    check("RFC 5861 4", "max-age=60, stale-if-error=0", 60_001, 0, "");
    check("the policy's", "max-age=60", 64_000, 500, &stale("; fwd-status=500", -4));
    check("the policy's", "max-age=60", 64_001, 500, "fwd=stale; detail=no-lifetime");
    check(
        "RFC 9111 5.2.2.2",
        "max-age=60, stale-if-error=9, must-revalidate",
        61_000,
        503,
        "fwd=stale; detail=no-lifetime",
    );
    check("RFC 9111 5.2.2.2, disconnected", "max-age=60, stale-if-error=9, must-revalidate", 61_000, 0, "");
}

#[test]
fn a_request_says_how_stale_an_answer_it_takes_where_the_origin_fails() {
    let check = |rule: &str, stored: &str, asked: &str, status: u16| {
        let mut world = world(&[("cache-control", stored)]);
        (world.policy.stale_while_revalidate_ms, world.policy.stale_if_error_ms) = (0, 0);
        world.ask(&get("/a", &[]));
        world.now_ms += 69_000;
        world.answers(503, &[]);
        let seen = world.ask(&get("/a", &[("cache-control", asked)]));
        assert_eq!(seen.status, status, "RFC 5861 4, {rule}: {stored} | {asked}");
    };
    check("as stale as both take", "max-age=60, stale-if-error=30", "stale-if-error=9", 200);
    check("narrowed", "max-age=60, stale-if-error=30", "stale-if-error=8", 503);
    check("narrowed to nothing", "max-age=60, stale-if-error=30", "stale-if-error=0", 503);
    check("asked for", "max-age=60", "stale-if-error=9", 200);
    check("asked for less", "max-age=60", "stale-if-error=8", 503);
    check("widened", "max-age=60, stale-if-error=1", "stale-if-error=9", 200);
    check("not said", "max-age=60", "max-age=90", 503);
    check("forbidden", "max-age=60, must-revalidate", "stale-if-error=9", 503);
    check("forbidden to clients", "s-maxage=60", "stale-if-error=9", 503);
    check(
        "forbidden to clients, not to this cache",
        "s-maxage=60, stale-if-error=30",
        "stale-if-error=9",
        200,
    );
}

/// Whether an entry that was found stale may still be served after this answer to a request.
fn stays(facts: &Facts, status: u16, answer: &[(&str, &str)]) -> bool {
    stays_after(61_000, "max-age=60, stale-if-error=900", facts, status, answer)
}

/// The same of an entry of this age and with these directives.
fn stays_after(age_ms: u64, stored: &str, facts: &Facts, status: u16, answer: &[(&str, &str)]) -> bool {
    let mut world = world(&[("cache-control", stored)]);
    world.policy.stale_while_revalidate_ms = 0;
    world.ask(&get("/a", &[]));
    world.now_ms += age_ms;
    world.answers(status, answer);
    world.ask(facts);
    world.answers(503, &[]);
    world.ask(&get("/a", &[])).status == 200
}

#[test]
fn an_answer_that_is_not_stored_takes_the_place_of_a_stale_entry() {
    let check = |rule: &str, status: u16, answer: &[(&str, &str)]| {
        assert!(!stays(&get("/a", &[]), status, answer), "RFC 9111 4.3.3, {rule}: {status} {answer:?}");
    };
    let no_store = [("cache-control", "no-store")];
    for status in [200, 204, 301, 302, 401, 403, 404, 405, 410, 451] {
        check("no-store", status, &no_store);
    }
    check("private", 200, &[("cache-control", "private, max-age=60")]);
    check("no lifetime", 200, &[]);
    check("a cookie", 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
    check("varies by everything", 200, &[("cache-control", "max-age=60"), ("vary", "*")]);
    check("too large", 200, &[("cache-control", "max-age=60"), ("content-length", "1001")]);
    let asks = |name: &str, value: &str| get("/a", &[(name, value)]);
    assert!(!stays(&asks("cache-control", "no-cache"), 200, &no_store));
    assert!(!stays(&asks("if-none-match", "\"b\""), 200, &no_store), "the condition did not hold");
    assert!(!stays(&asks("authorization", "Bearer x"), 410, &no_store), "it is gone for all");
}

#[test]
fn an_answer_that_is_about_something_else_leaves_a_stale_entry() {
    let check = |rule: &str, facts: &Facts, status: u16, answer: &[(&str, &str)]| {
        assert!(stays(facts, status, answer), "{rule}: {status} {answer:?}");
    };
    let (plain, no_store) = (get("/a", &[]), [("cache-control", "no-store")]);
    for status in [400, 408, 412, 413, 421, 425, 429, 431, 500, 501, 503, 504, 599] {
        check("about the request, or a failure", &plain, status, &no_store);
    }
    let asks = |name: &str, value: &str| get("/a", &[(name, value)]);
    let range = asks("range", "bytes=0-1");
    for status in [200, 206, 404, 416] {
        check("RFC 9110 14.2", &range, status, &no_store);
    }
    check("RFC 9110 13.1.2", &asks("if-none-match", "\"b\""), 304, &no_store);
    check("RFC 9111 5.2.1.5", &asks("cache-control", "no-store"), 200, &no_store);
    let head = Facts { method: "HEAD".to_owned(), ..get("/a", &[]) };
    check("RFC 9110 9.3.2", &head, 410, &no_store);
    let bearer = asks("authorization", "Bearer x");
    check("RFC 9111 3.5", &bearer, 200, &[("cache-control", "max-age=60")]);
    check("RFC 9111 3.5", &bearer, 200, &[("cache-control", "private")]);
    check("RFC 9111 3.5", &bearer, 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
    check("RFC 9110 15.5.2", &bearer, 401, &no_store);
    let known = asks("cookie", "session=1");
    check("RFC 6265 8.2", &known, 200, &[("cache-control", "private")]);
    check("RFC 6265 8.2", &known, 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
    check("RFC 6265 8.2", &known, 403, &no_store);
    assert!(!stays(&known, 410, &no_store), "it is gone for all");
}

#[test]
fn nobody_empties_the_cache_by_asking_past_it() {
    let stored = "max-age=60, stale-if-error=900";
    let stays = |facts: &Facts, status: u16, answer: &[(&str, &str)]| {
        stays_after(30_000, stored, facts, status, answer)
    };
    for asked in ["no-cache", "max-age=0", "max-age=9", "min-fresh=50"] {
        let plain = get("/a", &[("cache-control", asked)]);
        let known = get("/a", &[("cache-control", asked), ("cookie", "session=1")]);
        for (status, answer) in [
            (200, [("cache-control", "private")]),
            (200, [("set-cookie", "a=1")]),
            (302, [("location", "/")]),
            (403, [("cache-control", "no-store")]),
            (404, [("cache-control", "no-store")]),
        ] {
            assert!(stays(&plain, status, &answer), "RFC 9111 5.2.1, {asked}: {status} {answer:?}");
            assert!(stays(&known, status, &answer), "RFC 9111 5.2.1, {asked}, a cookie: {status} {answer:?}");
        }
    }
}

#[test]
fn what_a_revalidation_brings_takes_the_place_of_what_it_was_begun_for() {
    let mut world = world(&[("cache-control", "max-age=60, stale-while-revalidate=900")]);
    world.ask(&get("/a", &[]));
    world.now_ms += 61_000;
    world.answers(410, &[("cache-control", "no-store")]);
    assert!(world.cache(&get("/a", &[])).starts_with("hit; ttl=-1"));
    let seen = world.ask(&get("/a", &[]));
    assert_eq!((seen.status, seen.cache.as_str()), (410, "fwd=uri-miss; detail=no-store"));
}
