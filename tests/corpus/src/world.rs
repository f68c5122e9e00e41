//! What answers an exchange in place of origins, stores and issuers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use meridian_engine::ruleset::{Platform, RegionId, Ruleset, Target};
use meridian_engine::step::function::of_ended_field;
use meridian_engine::step::{
    AddressName, Answer, CacheKey, ClientFault, Entry, FetchFault, Forward, ForwardFault, Lease, LoadKey,
    Loaded, Peeked, Purge, RegionNews, ResponseHead, Step, SyncAsk, SyncNews, Take,
};
use std::sync::Arc;

use crate::case::{Input, News, Reaction, Request};
use meridian_engine::policy::rate_limit::Authority;
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::lease::LeaseRequest;

struct Attempt {
    due_ms: u64,
    number: u32,
    result: Result<ResponseHead, ForwardFault>,
    body: String,
}

pub struct World {
    platform: Result<Arc<Platform>, String>,
    tenants: BTreeMap<String, Result<Arc<Ruleset>, String>>,
    origins: BTreeMap<String, Vec<Reaction>>,
    keys: BTreeMap<String, String>,
    news: Option<News>,
    away: Vec<String>,
    /// Body of the request that is on its way.
    body: Option<String>,
    authority: Authority,
    cache: BTreeMap<String, (Entry, String)>,
    /// Attempts that are out: when each ends, its number and how.
    out: Vec<Attempt>,
    /// Body of the last response forwarded and of the last entry found.
    pub forwarded: String,
    pub found: String,
}

impl World {
    pub fn new(input: &Input) -> Self {
        let tenants = input.tenants.iter().map(|(slug, bytes)| (slug.clone(), tenant(bytes, slug))).collect();
        Self {
            platform: platform(&input.platform),
            tenants,
            origins: input.case.origins.clone(),
            keys: input.case.keys.clone(),
            news: Some(News::default()),
            away: Vec::new(),
            body: None,
            authority: Authority::default(),
            cache: BTreeMap::new(),
            out: Vec::new(),
            forwarded: String::new(),
            found: String::new(),
        }
    }

    /// Takes what is different from this request on.
    pub fn turn_to(&mut self, request: &Request) {
        self.origins.extend(request.origins.clone());
        self.keys.extend(request.keys.clone());
        self.away.clone_from(&request.away);
        self.body.clone_from(&request.body);
        if let Some(news) = &request.news {
            self.news = Some(news.clone());
        }
    }

    /// The answer to a step, and after how many milliseconds it comes.
    pub fn answer(&mut self, step: Step, now_ms: u64) -> (Answer, u64) {
        if !matches!(step, Step::Forward(_) | Step::Await) {
            self.out.clear();
        }
        let answer = match step {
            Step::Sync(ask) => Answer::Synced(self.news(&ask, now_ms)),
            Step::Load(keys) => Answer::Loaded(keys.iter().map(|key| self.load(key)).collect()),
            Step::FetchKeys(asked) => Answer::Keys(self.keys(&asked.url).into()),
            Step::Peek { bytes_max } => Answer::Peeked(self.peek(bytes_max)),
            Step::Take(takes) => Answer::Taken(takes.iter().map(|take| self.take(take, now_ms)).collect()),
            Step::LookUp(key) => Answer::Found(self.look_up(&key)),
            Step::Forward(forward) => {
                let attempt = self.forward(&forward, now_ms);
                self.out.push(attempt);
                return self.next_to_end(forward.patience_ms, now_ms);
            }
            Step::Await => return self.next_to_end(None, now_ms),
            // These are answered by the caller.
            Step::Verify(_) | Step::Pause { .. } | Step::Reply(_) => Answer::Verified(false),
        };
        (answer, 0)
    }

    /// What comes of the attempts that are out: the first to end, or none within the patience.
    fn next_to_end(&mut self, patience_ms: Option<u32>, now_ms: u64) -> (Answer, u64) {
        let first = (0..self.out.len()).min_by_key(|at| self.out.get(*at).map(|attempt| attempt.due_ms));
        let Some(first) = first else {
            return (Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Broken) }, 0);
        };
        let elapsed_ms = self.out.get(first).map_or(0, |attempt| attempt.due_ms.saturating_sub(now_ms));
        if let Some(patience_ms) = patience_ms.map(u64::from).filter(|ms| *ms < elapsed_ms) {
            return (Answer::Slow, patience_ms);
        }
        let Attempt { number, result, body, .. } = self.out.remove(first);
        self.forwarded = body;
        (Answer::Forwarded { attempt: number, result }, elapsed_ms)
    }

    pub fn news(&self, ask: &SyncAsk, now_ms: u64) -> Option<SyncNews> {
        if self.is_away("sync") {
            return None;
        }
        let news = self.news.as_ref()?;
        let regions = self.platform.as_ref().map_or_else(|_| Vec::new(), |platform| platform.regions.clone());
        Some(SyncNews {
            heads: news.heads.iter().map(|(target, sequence)| (target_of(target), *sequence)).collect(),
            purges: purges(news, now_ms),
            purge_cursor: vec![(
                RegionId::from("us-east-1"),
                (news.purges.len() + news.soft_purges.len()) as u64,
            )],
            reset: news.reset,
            names: ask.addresses.iter().filter_map(|address| name(news, *address)).collect(),
            now_ms,
            regions: regions
                .iter()
                .map(|region| RegionNews {
                    id: region.id.clone(),
                    ordinal: region.ordinal,
                    healthy: !news.unhealthy.iter().any(|id| **id == *region.id),
                    applied: news
                        .applied
                        .get(&*region.id)
                        .map(|applied| {
                            applied.iter().map(|(source, position)| (*source, *position)).collect()
                        })
                        .unwrap_or_default(),
                    unhealthy: news.unhealthy_upstreams.get(&*region.id).cloned().unwrap_or_default(),
                })
                .collect(),
        })
    }

    pub fn keys(&self, url: &str) -> Result<Vec<u8>, FetchFault> {
        match self.keys.get(url) {
            Some(text) if !text.is_empty() => Ok(text.clone().into_bytes()),
            Some(_) => Err(FetchFault::Unreachable),
            None => Err(FetchFault::Status(404)),
        }
    }

    pub fn store(&mut self, key: CacheKey, mut entry: Entry, refresh: bool) {
        let body = if refresh { self.found.clone() } else { self.forwarded.clone() };
        entry.body_bytes = body.len() as u64;
        self.cache.insert(key.0, (entry, body));
    }

    pub fn forget(&mut self, keys: &[CacheKey]) {
        for key in keys {
            self.cache.remove(&key.0);
        }
    }

    fn is_away(&self, part: &str) -> bool {
        self.away.iter().any(|away| away == part)
    }

    fn load(&self, key: &LoadKey) -> Loaded {
        if self.is_away("rules") {
            return Loaded::Unavailable("out of reach".to_owned());
        }
        match key {
            LoadKey::Host(host) | LoadKey::StoredHost(host) => Loaded::Host(self.tenant_of(host)),
            LoadKey::Target(Target::Platform) => match &self.platform {
                Ok(platform) => Loaded::Platform(Arc::clone(platform)),
                Err(error) => Loaded::Unavailable(error.clone()),
            },
            LoadKey::Target(Target::Tenant(slug)) => match self.tenants.get(slug) {
                Some(Ok(ruleset)) => Loaded::Ruleset(Arc::clone(ruleset)),
                Some(Err(error)) => Loaded::Unavailable(error.clone()),
                None => Loaded::Missing,
            },
        }
    }

    fn tenant_of(&self, host: &str) -> Option<String> {
        let claims = |domain: &str| match domain.strip_prefix("*.") {
            Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => domain == host,
        };
        let rulesets = self.tenants.values().filter_map(|ruleset| ruleset.as_ref().ok());
        rulesets
            .filter(|ruleset| {
                let tenant = &ruleset.tenant;
                tenant.domains.iter().chain(&tenant.unverified).any(|domain| claims(domain))
            })
            .map(|ruleset| ruleset.tenant.slug.clone())
            .next()
    }

    fn peek(&self, bytes_max: u32) -> Option<Peeked> {
        let mut bytes = self.body.clone()?.into_bytes();
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let whole = bytes.len() <= bytes_max;
        bytes.truncate(bytes_max);
        Some(Peeked { bytes, whole })
    }

    fn take(&mut self, take: &Take, now_ms: u64) -> Option<Lease> {
        let makes_sense = LeaseRequest::from(take).check().is_ok();
        (makes_sense && !self.is_away("authority")).then(|| self.authority.take(take, now_ms))
    }

    fn look_up(&mut self, key: &CacheKey) -> Option<Entry> {
        let (entry, body) = self.cache.get(&key.0)?;
        self.found.clone_from(body);
        Some(entry.clone())
    }

    fn forward(&mut self, forward: &Forward, now_ms: u64) -> Attempt {
        let reactions = self.origins.iter_mut().find(|(prefix, _)| forward.url.starts_with(prefix.as_str()));
        let reaction = match reactions {
            None => Reaction { fault: Some("connect".to_owned()), ..Reaction::default() },
            Some((_, reactions)) if reactions.len() > 1 => reactions.remove(0),
            Some((_, reactions)) => reactions.first().cloned().unwrap_or_default(),
        };
        let elapsed_ms = u32::try_from(reaction.after_ms).unwrap_or(u32::MAX).max(5);
        let headers = reaction.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let ended = reaction.function.as_deref().unwrap_or("sent-on");
        let ended = forward.function.as_ref().map(|_| of_ended_field(Some(ended))).transpose();
        let result = match (reaction.fault.as_deref(), ended) {
            (Some("connect"), _) => Err(ForwardFault::Connect),
            (Some("timeout"), _) => Err(ForwardFault::Timeout),
            (Some("body broke off"), _) => Err(ForwardFault::Client(ClientFault::BrokeOff)),
            (Some("body paused"), _) => Err(ForwardFault::Client(ClientFault::Paused)),
            (Some(_), _) => Err(ForwardFault::Broken),
            (None, Err(fault)) => Err(ForwardFault::Function(fault)),
            (None, Ok(ran)) => Ok(ResponseHead { status: reaction.status, headers, elapsed_ms, ran }),
        };
        let due_ms = now_ms.saturating_add(reaction.after_ms);
        Attempt { due_ms, number: forward.attempt, result, body: reaction.body }
    }
}

fn purges(news: &News, at_ms: u64) -> Vec<Purge> {
    let hard = news.purges.iter().map(|(tenant, tag, source, position)| Purge {
        tenant: tenant.clone(),
        tag: tag.clone(),
        source: *source,
        position: *position,
        at_ms,
        soft: false,
    });
    let soft = news.soft_purges.iter().map(|(tenant, tag)| Purge {
        tenant: tenant.clone(),
        tag: tag.clone(),
        source: 0,
        position: 0,
        at_ms,
        soft: true,
    });
    hard.chain(soft).collect()
}

/// What is known of an address that is asked for.
fn name(news: &News, address: IpAddr) -> Option<AddressName> {
    let name = news.names.get(&address)?;
    let name = Some(name.clone()).filter(|name| !name.is_empty());
    Some(AddressName { address, name, keep_ms: 60_000 })
}

fn platform(bytes: &str) -> Result<Arc<Platform>, String> {
    match Bundle::parse(bytes.as_bytes(), &Target::Platform, 1) {
        Ok(Rules::Platform(platform)) => Ok(Arc::new(platform)),
        Ok(Rules::Tenant(_)) => Err("a tenant's rules in the place of the platform's".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn tenant(bytes: &str, slug: &str) -> Result<Arc<Ruleset>, String> {
    match Bundle::parse(bytes.as_bytes(), &Target::Tenant(slug.to_owned()), 1) {
        Ok(Rules::Tenant(ruleset)) => Ok(Arc::from(ruleset)),
        Ok(Rules::Platform(_)) => Err("the platform's rules in the place of a tenant's".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn target_of(name: &str) -> Target {
    match name.strip_prefix("tenant:") {
        Some(slug) => Target::Tenant(slug.to_owned()),
        None => Target::Platform,
    }
}

impl Default for Reaction {
    fn default() -> Self {
        Self {
            fault: None,
            function: None,
            status: 200,
            headers: Vec::new(),
            body: String::new(),
            after_ms: 0,
        }
    }
}
