//! The whole pipeline against a host that answers from memory.

mod caching;
mod collapsing;
mod configuration;
mod experiments;
mod failover;
mod functions;
mod guards;
mod hedging;
mod pipeline;
mod properties;
mod upstreams;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::*;
use crate::decision::Outcome;
use crate::facts::BodySize;
use crate::fixtures::{platform, request, route, rule, ruleset, upstream};
use crate::headers::Headers;
use crate::node::Fetched;
use crate::policy::rate_limit::Authority;
use crate::policy::security::{AddressSet, Injection, Security};
use crate::ruleset::{
    Auth, CachePolicy, Fail, HeaderChange, HeaderValue, KeyPart, Mode, Personal, Piece, Rewrite, RouteTarget,
    Ruleset, Target, Template, TenantState, Transform, UpstreamRef, Version,
};
use crate::secret::Secrets;
use crate::step::{
    CacheKey, ClientFault, Entry, Forward, ForwardFault, Loaded, Peeked, Reply, ReplyBody, ResponseHead,
    SyncNews,
};

const NOW: u64 = 1_800_000_000_000;

/// A host that holds everything in memory and has no network: what targets say is a queue for each region.
struct Host {
    node: Node,
    hosts: BTreeMap<String, String>,
    /// Those that the host has stored.
    stored_hosts: BTreeMap<String, String>,
    rules: Option<Arc<Ruleset>>,
    platform: Option<Arc<Platform>>,
    news: Option<SyncNews>,
    store: HashMap<CacheKey, Entry>,
    responses: BTreeMap<&'static str, VecDeque<Result<ResponseHead, ForwardFault>>>,
    forwards: Vec<Forward>,
    asked: Vec<&'static str>,
    /// How often a signature was asked for, and whether it is right.
    verified: u32,
    right: bool,
    authority: Option<Authority>,
    /// What is at hand of each request's body.
    body: Option<Peeked>,
    now_ms: u64,
}

impl Host {
    fn new(rules: Ruleset) -> Self {
        let hosts =
            rules.tenant.domains.iter().map(|host| (host.clone(), rules.tenant.slug.clone())).collect();
        Self {
            node: Node::new("test-1", Secrets::new(&[7; 32], &[7; 32])),
            hosts,
            stored_hosts: BTreeMap::new(),
            rules: Some(Arc::new(rules)),
            platform: Some(Arc::new(platform())),
            news: Some(SyncNews { now_ms: NOW, ..SyncNews::default() }),
            store: HashMap::new(),
            responses: BTreeMap::new(),
            forwards: Vec::new(),
            asked: Vec::new(),
            verified: 0,
            right: true,
            authority: None,
            body: None,
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
                After::Store { key, entry, .. } => {
                    self.node.fetched(&key, &reply.decision.id, Fetched::Stored, self.now_ms);
                    self.store.insert(key, entry);
                }
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
                let is_stored = keys.iter().all(|key| matches!(key, LoadKey::StoredHost(_)));
                self.asked.push(if is_stored { "look" } else { "load" });
                Answer::Loaded(keys.iter().map(|key| self.load(key)).collect())
            }
            Step::FetchKeys(_) => Answer::Keys(Err(FetchFault::Unreachable).into()),
            Step::Verify(_) => {
                self.verified += 1;
                Answer::Verified(self.right)
            }
            Step::Peek { .. } => {
                self.asked.push("peek");
                Answer::Peeked(self.body.clone())
            }
            Step::Take(takes) => {
                let take = |take| Some(self.authority.as_mut()?.take(take, self.now_ms));
                Answer::Taken(takes.iter().map(take).collect())
            }
            Step::LookUp(key) => Answer::Found(self.store.get(&key).cloned()),
            Step::Pause { ms } => {
                self.now_ms += u64::from(ms);
                Answer::Paused
            }
            Step::Forward(forward) => {
                let region = forward.region.clone().unwrap();
                self.forwards.push(*forward);
                let queue = self.responses.get_mut(&*region);
                let said = queue.and_then(VecDeque::pop_front);
                let attempt = self.forwards.last().map_or(0, |forward| forward.attempt);
                Answer::Forwarded { attempt, result: said.unwrap_or_else(|| ok(200, &[])) }
            }
            Step::Await => panic!("nothing is out"),
            Step::Reply(_) => panic!("a reply has no answer"),
        }
    }

    fn load(&self, key: &LoadKey) -> Loaded {
        match key {
            LoadKey::Host(host) => Loaded::Host(self.hosts.get(host).cloned()),
            LoadKey::StoredHost(host) => self
                .stored_hosts
                .get(host)
                .map_or(Loaded::Missing, |tenant| Loaded::Host(Some(tenant.clone()))),
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
    Ok(ResponseHead { status, headers: headers.iter().copied().collect(), elapsed_ms: 5, ran: None })
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
        values: vec![],
        stale_while_revalidate_ms: 30_000,
        stale_if_error_ms: 300_000,
        heuristic: 0,
        store_cookies: false,
        tags: vec![],
        bypass: None,
    });
    rules.routes.iter_mut().for_each(|route| route.cache = Some(0));
    rules
}

/// A policy that looks into so many bytes of a body.
fn looks_into(bytes_max: u32) -> Security {
    let injection = Injection {
        mode: Mode::Block,
        paranoia: 1,
        threshold: 5,
        headers: vec![],
        body_bytes_max: Some(bytes_max),
        fail: Fail::Open,
        exclude: vec![],
    };
    Security { injection: Some(injection), ..Security::new(rule("Security"), Mode::Block) }
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
