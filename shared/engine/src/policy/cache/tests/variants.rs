//! Answers that vary by fields of their requests.

use super::*;

#[test]
fn variants_are_kept_side_by_side() {
    let mut world = world(&[("cache-control", "max-age=60"), ("vary", "Accept-Language, x-b")]);
    world.policy.stale_while_revalidate_ms = 0;
    let lang = |lang: &str| get("/a", &[("accept-language", lang)]);
    assert_eq!(world.cache(&lang("en")), "fwd=uri-miss; ttl=60; stored");
    assert_eq!(world.cache(&lang("de")), "fwd=vary-miss; ttl=60; stored");
    assert_eq!(world.cache(&lang("fr")), "fwd=vary-miss; ttl=60; stored");
    for hit in ["en", "de", "fr", "EN", " en "] {
        assert_eq!(world.cache(&lang(hit)), "hit; ttl=60", "RFC 9111 4.1: {hit}");
    }
    assert_eq!(
        world.cache(&get("/a", &[])),
        "fwd=vary-miss; ttl=60; stored",
        "RFC 9111 4.1: absent is a value"
    );
    assert_eq!(world.store.len(), 4);
    world.now_ms += 60_000;
    assert_eq!(world.cache(&lang("de")), "fwd=stale; ttl=60; stored");
    assert_eq!(world.store.len(), 4, "in its own place");
    world.answers(200, &[("cache-control", "max-age=60"), ("vary", "x-c")]);
    assert_eq!(world.cache(&lang("it")), "fwd=vary-miss; ttl=60; stored");
    assert_eq!(world.cache(&lang("en")), "hit; ttl=60", "it varies by something else now");
}

#[test]
fn secrets_are_neither_in_keys_nor_in_notes() {
    let mut world = world(&[("cache-control", "public, max-age=60"), ("vary", "cookie, authorization")]);
    world.policy.cookies = vec!["sid".to_owned()];
    world.policy.headers = vec!["x-secret".to_owned()];
    let fields = [("cookie", "sid=s3cr3t"), ("authorization", "Bearer s3cr3t"), ("x-secret", "s3cr3t")];
    world.ask(&get("/a", &fields));
    let other = [("cookie", "sid=s3cr3t"), ("authorization", "Bearer s3cr3t2"), ("x-secret", "s3cr3t")];
    assert_eq!(world.cache(&get("/a", &other)), "fwd=vary-miss; ttl=60; stored");
    assert_eq!(world.cache(&get("/a", &fields)), "hit; ttl=60");
    for (key, entry) in &world.store {
        assert!(!key.0.contains("s3cr3t") && !entry.meta.contains("s3cr3t"), "{key:?} {}", entry.meta);
    }
}

#[test]
fn what_takes_the_place_of_a_variant_leaves_the_others() {
    let mut world = world(&[("cache-control", "max-age=60, stale-if-error=900"), ("vary", "x-a")]);
    world.policy.stale_while_revalidate_ms = 0;
    let variant = |value: &str| get("/a", &[("x-a", value)]);
    for value in ["1", "2", "3"] {
        assert!(world.cache(&variant(value)).ends_with("stored"));
    }
    world.now_ms += 61_000;
    let statuses = |world: &mut World| {
        world.answers(503, &[]);
        ["1", "2", "3"].map(|value| world.ask(&variant(value)).status)
    };
    for (gone, left) in [("2", [200, 503, 200]), ("1", [503, 503, 503])] {
        world.answers(410, &[("cache-control", "no-store")]);
        assert_eq!(world.ask(&variant(gone)).status, 410);
        assert_eq!(statuses(&mut world), left, "behind the first nobody finds the others: {gone}");
    }
}
