//! The cache as requests meet it, with the host's store and the origin played by the test.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::bounded::Keyed;
use crate::fixtures::request;
use crate::fixtures::rule;
use crate::ruleset::KeyPart;
use crate::step::{Purge, ResponseHead};

const NOW_MS: u64 = 1_800_000_000_000;

/// Everything in the key by query alone; negative caching of 404; stale service by default.
pub(super) fn policy() -> CachePolicy {
    CachePolicy {
        rule: rule("CachePolicy"),
        default_ttl_ms: BTreeMap::from([(404, 5_000)]),
        query: KeyPart::All,
        headers: vec![],
        cookies: vec![],
        claims: vec![],
        variants: false,
        values: vec![],
        stale_while_revalidate_ms: 2_000,
        stale_if_error_ms: 4_000,
        heuristic: 0,
        store_cookies: false,
        tags: vec!["from-policy".to_owned()],
        bypass: None,
    }
}

/// A host with a store, and an origin that answers what it is told.
struct World {
    policy: CachePolicy,
    tenant: &'static str,
    store: HashMap<CacheKey, Entry>,
    journal: PurgeJournal,
    now_ms: u64,
    positions: Vec<(u16, u64)>,
    /// Status and fields of the origin's next answer; status 0: it does not answer.
    origin: (u16, Headers),
    /// Fields of the request that the origin saw last.
    forwarded: Option<Headers>,
    /// A field that rules take out of what goes forward.
    removed: &'static str,
}

/// What a client sees.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    cache: String,
    headers: Headers,
    body: bool,
}

fn world(origin: &[(&str, &str)]) -> World {
    let mut world = World {
        policy: policy(),
        tenant: "acme",
        store: HashMap::new(),
        journal: PurgeJournal::new(Keyed::default()),
        now_ms: NOW_MS,
        positions: vec![],
        origin: (200, Headers::default()),
        forwarded: None,
        removed: "x-none",
    };
    world.journal.read(&crate::step::SyncNews::default(), 0);
    world.answers(200, origin);
    world
}

pub(super) fn get(path: &str, fields: &[(&str, &str)]) -> Facts {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut facts = request("GET", "acme.example", path);
    facts.query = query.map(str::to_owned);
    facts.headers = fields.iter().copied().collect();
    facts
}

/// Who asks for this, by the only route and without a name.
pub(super) fn subject(facts: &Facts) -> Subject<'_> {
    Subject {
        tenant: "acme",
        route: "r",
        rewrites: &[],
        facts,
        identity: None,
        variants: &[],
        values: &[],
        tells_language: false,
        positions: &[],
    }
}

/// The only route, which stores by this policy.
pub(super) fn keying(policy: &CachePolicy) -> Keying<'_> {
    Keying { policy, route: "r", rewrites: vec![], values: vec![] }
}

impl World {
    fn answers(&mut self, status: u16, fields: &[(&str, &str)]) {
        self.origin = (status, fields.iter().copied().collect());
    }

    fn ask(&mut self, facts: &Facts) -> Seen {
        let variants = [("colour".into(), "blue".into())];
        let positions = self.positions.clone();
        let subject =
            Subject { tenant: self.tenant, variants: &variants, positions: &positions, ..subject(facts) };
        match begin(&self.policy, &subject, false) {
            Begin::Pass(status) => {
                let head = self.forward(facts.headers.clone());
                let policy = &self.policy;
                let keyings = |_: &str, _: Option<&str>| vec![keying(policy)];
                let invalidation = invalidate(&subject, Some(policy), &keyings, &head, self.now_ms);
                for key in invalidation.forget {
                    self.store.remove(&key);
                }
                for purge in &invalidation.purges {
                    self.journal.mark(purge);
                }
                Seen { status: head.status, cache: status.to_string(), headers: head.headers, body: true }
            }
            Begin::LookUp(lookup) => self.drive(*lookup, facts),
        }
    }

    fn drive(&mut self, mut lookup: Lookup, facts: &Facts) -> Seen {
        let mut key = lookup.key().clone();
        let serve = loop {
            match lookup.found(self.store.get(&key).cloned(), &facts.headers, &self.journal, self.now_ms) {
                Found::LookUp(next) => key = next,
                Found::Serve(serve) => break Some(serve),
                Found::Forward => break None,
                Found::OnlyIfCached(status) => {
                    return Seen {
                        status: 504,
                        cache: status.to_string(),
                        headers: Headers::default(),
                        body: false,
                    };
                }
            }
        };
        if let Some(serve) = serve {
            if serve.revalidate {
                self.drive(lookup.revalidation(), facts);
            }
            return seen(serve);
        }
        let mut headers = facts.headers.clone();
        headers.remove(self.removed);
        lookup.condition(&mut headers);
        let head = self.forward(headers);
        if head.status == 0 {
            return lookup.failed(&facts.headers, self.now_ms).map_or_else(
                || Seen { status: 502, cache: String::new(), headers: Headers::default(), body: false },
                seen,
            );
        }
        let responded = lookup.responded(&Arrival {
            rewritten: &[],
            policy: &self.policy,
            request: &facts.headers,
            head: &head,
            journal: &self.journal,
            content_bytes_max: 1_000,
            requested_ms: self.now_ms,
            now_ms: self.now_ms,
        });
        if let Some(store) = responded.store {
            assert_eq!(store.refresh, head.status == 304);
            assert!(store.keep_ms > 0);
            self.store.insert(store.key, store.entry);
        }
        match responded.serve {
            Some(serve) => seen(serve),
            None => {
                let cache = responded.status_line.to_string();
                Seen { status: head.status, cache, headers: head.headers, body: facts.method != "HEAD" }
            }
        }
    }

    fn forward(&mut self, headers: Headers) -> ResponseHead {
        self.forwarded = Some(headers);
        ResponseHead { status: self.origin.0, headers: self.origin.1.clone(), elapsed_ms: 0, ran: None }
    }

    fn cache(&mut self, facts: &Facts) -> String {
        self.ask(facts).cache
    }

    fn purge(&mut self, tag: &str, source: u16, position: u64) {
        let at_ms = self.now_ms;
        self.journal.mark(&Purge {
            tenant: "acme".to_owned(),
            tag: tag.to_owned(),
            source,
            position,
            at_ms,
            soft: false,
        });
    }
}

fn seen(serve: Serve) -> Seen {
    Seen {
        status: serve.status,
        cache: serve.status_line.to_string(),
        headers: serve.headers,
        body: serve.body != ReplyBody::Empty,
    }
}

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
