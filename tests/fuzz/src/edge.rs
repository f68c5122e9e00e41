//! A small edge around the engine: the corpus's rules, a cache, and one origin that answers as it is told.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use meridian_engine::exchange::Exchange;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::limits::STEPS_MAX;
use meridian_engine::node::{Fetched, Node};
use meridian_engine::policy::rate_limit::Authority;
use meridian_engine::ruleset::{Platform, Ruleset, Target};
use meridian_engine::secret::Secrets;
use meridian_engine::step::{
    After, Answer, CacheKey, Entry, FetchFault, Forward, LoadKey, Loaded, Peeked, Reply, ReplyBody,
    ResponseHead, Step, SyncNews,
};
use meridian_wire::authored::{File, compile};
use meridian_wire::bundle::Rules;

use crate::input::Head;
use crate::jwt::check;

/// When every input happens: 2026-01-01T00:00:00Z.
pub(crate) const START_MS: u64 = 1_767_225_600_000;
/// From where requests come.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

/// The rules of the decision corpus.
pub(crate) struct World {
    pub platform: Arc<Platform>,
    pub shop: Arc<Ruleset>,
    pub rival: Arc<Ruleset>,
}

pub(crate) fn rules() -> &'static World {
    static RULES: OnceLock<World> = OnceLock::new();
    RULES.get_or_init(|| {
        let Rules::Platform(platform) = folder("platform", &Target::Platform) else {
            panic!("the platform's documents make the platform's rules")
        };
        World { platform: Arc::new(platform), shop: tenant("shop"), rival: tenant("rival") }
    })
}

fn tenant(slug: &str) -> Arc<Ruleset> {
    match folder(slug, &Target::Tenant(slug.to_owned())) {
        Rules::Tenant(rules) => Arc::from(rules),
        Rules::Platform(_) => panic!("a tenant's documents make a tenant's rules"),
    }
}

fn folder(name: &str, target: &Target) -> Rules {
    let path = rules_of(name);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        File::of(name, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut files: Vec<File> = entries.flatten().map(|entry| file(entry.path())).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    compile(target, &files, None).unwrap_or_else(|invalid| panic!("{name}: {invalid:?}")).rules
}

/// Name and text of each document of the corpus's rules.
pub(crate) fn documents(folder: &str) -> Vec<(String, String)> {
    crate::seeds::files(&rules_of(folder))
}

fn rules_of(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/rules/shop").join(folder)
}

/// What the origin answers.
#[derive(Clone)]
pub(crate) struct Origin {
    pub status: u16,
    pub headers: Headers,
    pub body: String,
}

/// What one request came to.
pub(crate) struct Replied {
    pub reply: Reply,
    /// The body of the reply, as the host would send it, in no coding.
    pub body: Vec<u8>,
    /// What was forwarded for it.
    pub forwards: Vec<Forward>,
    /// What was looked up for it.
    pub keys: Vec<CacheKey>,
}

pub(crate) struct Edge {
    node: Node,
    authority: Authority,
    cache: BTreeMap<String, (Entry, String)>,
    found: String,
    pub origin: Origin,
    pub now_ms: u64,
}

impl Edge {
    pub(crate) fn new() -> Self {
        Self {
            node: Node::new("fuzz", Secrets::new(&[7; 32], &[7; 32])),
            authority: Authority::default(),
            cache: BTreeMap::new(),
            found: String::new(),
            origin: Origin { status: 200, headers: Headers::default(), body: String::new() },
            now_ms: START_MS,
        }
    }

    /// Drives a request to its reply, and what is to be done after it.
    pub(crate) fn answer(&mut self, head: &Head<'_>) -> Replied {
        let (exchange, step) = Exchange::begin(&mut self.node, facts(head, self.now_ms));
        let mut replied = self.drive(exchange, step, head.body);
        let id = replied.reply.decision.id.clone();
        for after in std::mem::take(&mut replied.reply.after) {
            match after {
                After::Store { key, mut entry, refresh, .. } => {
                    let body = if refresh { self.found.clone() } else { self.origin.body.clone() };
                    entry.body_bytes = body.len() as u64;
                    self.node.fetched(&key, &id, Fetched::Stored, self.now_ms);
                    self.cache.insert(key.0, (entry, body));
                }
                After::Forget(keys) => keys.iter().for_each(|key| _ = self.cache.remove(&key.0)),
                After::Run(exchange, step) => _ = self.drive(*exchange, *step, ""),
                After::Sync(_) => self.node.synced(Some(self.news()), self.now_ms),
                After::FetchKeys(asked) => {
                    self.node.keys_fetched(&asked, Err(FetchFault::Unreachable), self.now_ms);
                }
                After::Log => {}
            }
        }
        replied
    }

    fn drive(&mut self, mut exchange: Exchange, mut step: Step, body: &str) -> Replied {
        let (mut forwards, mut keys) = (Vec::new(), Vec::new());
        for _ in 0..=STEPS_MAX {
            let answer = match step {
                Step::Reply(reply) => {
                    let body = self.body_of(&reply);
                    return Replied { reply: *reply, body, forwards, keys };
                }
                Step::Sync(_) => Answer::Synced(Some(self.news())),
                Step::Load(keys) => Answer::Loaded(keys.iter().map(load).collect()),
                Step::FetchKeys(_) => Answer::Keys(Err(FetchFault::Unreachable).into()),
                Step::Verify(verify) => Answer::Verified(check(&verify)),
                Step::Peek { bytes_max } => {
                    let bytes: Vec<u8> = body.bytes().take(bytes_max as usize).collect();
                    Answer::Peeked(Some(Peeked { whole: bytes.len() == body.len(), bytes }))
                }
                Step::Take(takes) => {
                    let now_ms = self.now_ms;
                    Answer::Taken(takes.iter().map(|take| Some(self.authority.take(take, now_ms))).collect())
                }
                Step::LookUp(key) => {
                    let found = self.cache.get(&key.0).cloned();
                    keys.push(key);
                    Answer::Found(found.map(|(entry, body)| {
                        self.found = body;
                        entry
                    }))
                }
                Step::Pause { ms } => {
                    self.now_ms += u64::from(ms);
                    Answer::Paused
                }
                Step::Forward(forward) => {
                    let head = ResponseHead {
                        status: self.origin.status,
                        headers: self.origin.headers.clone(),
                        elapsed_ms: 5,
                        ran: None,
                    };
                    let attempt = forward.attempt;
                    forwards.push(*forward);
                    Answer::Forwarded { attempt, result: Ok(head) }
                }
                Step::Await => panic!("nothing is out"),
            };
            step = exchange.resume(&mut self.node, answer, self.now_ms);
        }
        panic!("no end");
    }

    fn news(&self) -> SyncNews {
        SyncNews { now_ms: self.now_ms, ..SyncNews::default() }
    }

    fn body_of(&self, reply: &Reply) -> Vec<u8> {
        match &reply.body {
            ReplyBody::Empty => Vec::new(),
            ReplyBody::Bytes(bytes) => bytes.clone(),
            ReplyBody::Forwarded => self.origin.body.clone().into_bytes(),
            ReplyBody::Cached => self.found.clone().into_bytes(),
            ReplyBody::CachedPart { first, bytes } => {
                let (first, bytes) = (*first as usize, *bytes as usize);
                assert!(bytes >= 1, "a part has something in it");
                let part = self.found.as_bytes().get(first..first + bytes);
                part.expect("a part lies within the body").to_vec()
            }
        }
    }
}

fn load(key: &LoadKey) -> Loaded {
    let rules = rules();
    match key {
        LoadKey::Target(Target::Platform) => Loaded::Platform(Arc::clone(&rules.platform)),
        LoadKey::Target(Target::Tenant(slug)) => match slug.as_str() {
            "shop" => Loaded::Ruleset(Arc::clone(&rules.shop)),
            "rival" => Loaded::Ruleset(Arc::clone(&rules.rival)),
            _ => Loaded::Missing,
        },
        LoadKey::Host(host) if host == "rival.test" => Loaded::Host(Some("rival".to_owned())),
        LoadKey::Host(host) if host == "shop.test" || host.ends_with(".shop.test") => {
            Loaded::Host(Some("shop".to_owned()))
        }
        LoadKey::Host(_) => Loaded::Host(None),
        LoadKey::StoredHost(_) => Loaded::Missing,
    }
}

/// What a host would gather of such a request.
pub(crate) fn facts(head: &Head<'_>, now_ms: u64) -> Facts {
    let headers: Headers = head.fields.iter().copied().collect();
    Facts {
        method: head.method.to_owned(),
        scheme: Scheme::Https,
        host: head.host.to_owned(),
        path: head.path.to_owned(),
        query: head.query.map(str::to_owned),
        body: BodySize::of(&headers, !head.body.is_empty()),
        headers,
        client: CLIENT,
        place: Place::default(),
        now_ms,
        random: [9; 16],
    }
}
