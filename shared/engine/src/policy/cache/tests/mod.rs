//! The cache as requests meet it, with the host's store and the origin played by the test.

mod changes;
mod serving;
mod stale;
mod validating;
mod variants;

use std::collections::{BTreeMap, HashMap};

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
        if let Some(key) = responded.forget {
            assert!(self.store.remove(&key).is_some(), "what was found is forgotten");
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
