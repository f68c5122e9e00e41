//! Drives one exchange after another through the engine, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use meridian_engine::decision::Decision;
use meridian_engine::exchange::Exchange;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::node::{Fetched, Node};
use meridian_engine::ruleset::{Platform, RegionId, Ruleset, Target};
use meridian_engine::secret::Secrets;
use meridian_engine::step::{
    After, Answer, Forward, ForwardFault, Lease, LoadKey, Loaded, Peeked, Ran, RegionNews, ReplyBody,
    ResponseHead, Step, SyncNews, Take,
};
use sha2::{Digest as _, Sha256};

use super::token::{key_set, token};
use super::{OriginAnswer, OriginWord, PlaceSpec, RequestSpec, TestFailure};
use crate::limits::TRIAL_STEPS_MAX;

/// When every trial takes place, in milliseconds since the Unix epoch: 2026-01-01T12:00:00Z.
pub(super) const NOW_MS: u64 = 1_767_268_800_000;

/// An edge on trial, with what it remembers between requests.
#[derive(Debug)]
pub struct Trial {
    ruleset: Arc<Ruleset>,
    platform: Arc<Platform>,
    node: Node,
    /// Units that the authority has given out, by limit and key.
    taken: BTreeMap<(String, String), u32>,
    sent: u64,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Status.
    pub status: u16,
    /// Header fields of the reply.
    pub headers: Headers,
    /// Body, where the edge itself made it.
    pub body: Option<String>,
    /// The decision with its explanation.
    pub decision: Decision,
}

impl Trial {
    /// An edge that knows these rules.
    #[must_use]
    pub fn new(mut ruleset: Arc<Ruleset>, platform: Arc<Platform>) -> Self {
        if !ruleset.tenant.unverified.is_empty() {
            // Rules are tried before their hostnames are verified.
            let tenant = &mut Arc::make_mut(&mut ruleset).tenant;
            tenant.domains.append(&mut tenant.unverified);
        }
        let node = Node::new("trial", Secrets::new(&[0; 32], &[0; 32]));
        Self { ruleset, platform, node, taken: BTreeMap::new(), sent: 0 }
    }

    /// Sends a request, with origins that answer as said.
    ///
    /// # Errors
    /// Where the request itself is not described well.
    pub fn send(
        &mut self,
        request: &RequestSpec,
        origins: &BTreeMap<String, OriginAnswer>,
    ) -> Result<Answered, TestFailure> {
        let signed = request.identity.as_ref().is_none_or(|identity| identity.signed);
        let facts = self.facts(request)?;
        self.sent += 1;
        let (mut exchange, mut step) = Exchange::begin(&mut self.node, facts);
        for _ in 0..TRIAL_STEPS_MAX {
            let answer = match step {
                Step::Reply(reply) => {
                    let body = match reply.body {
                        ReplyBody::Bytes(bytes) => String::from_utf8(bytes).ok(),
                        ReplyBody::Empty
                        | ReplyBody::Forwarded
                        | ReplyBody::Cached
                        | ReplyBody::CachedPart { .. } => None,
                    };
                    for item in reply.after {
                        // Nothing is kept from one request to the next.
                        if let After::Store { key, .. } = item {
                            self.node.fetched(&key, &reply.decision.id, Fetched::NotForOthers, NOW_MS);
                        }
                    }
                    return Ok(Answered {
                        status: reply.status,
                        headers: reply.headers,
                        body,
                        decision: reply.decision,
                    });
                }
                Step::Sync(_) => Answer::Synced(Some(self.news(origins))),
                Step::Load(keys) => Answer::Loaded(keys.iter().map(|key| self.load(key)).collect()),
                Step::FetchKeys(ask) => Answer::Keys(Ok(key_set(&self.ruleset, &ask.issuer)).into()),
                Step::Verify(_) => Answer::Verified(signed),
                Step::Take(takes) => Answer::Taken(takes.iter().map(|take| Some(self.take(take))).collect()),
                Step::LookUp(_) => Answer::Found(None),
                Step::Peek { bytes_max } => Answer::Peeked(peeked(request, bytes_max)),
                Step::Pause { .. } => Answer::Paused,
                Step::Forward(forward) => {
                    Answer::Forwarded { attempt: forward.attempt, result: answer(&forward, origins) }
                }
                // Every attempt ends at once.
                Step::Await => Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Broken) },
            };
            step = exchange.resume(&mut self.node, answer, NOW_MS);
        }
        Err(TestFailure {
            path: "spec.request".to_owned(),
            found: format!("no reply after {TRIAL_STEPS_MAX} steps"),
            expected: "a reply".to_owned(),
        })
    }

    fn facts(&self, request: &RequestSpec) -> Result<Facts, TestFailure> {
        let wrong = |path: &str, found: &str, expected: &str| TestFailure {
            path: format!("spec.request.{path}"),
            found: format!("{found:?}"),
            expected: expected.to_owned(),
        };
        if !request.path.starts_with('/') {
            return Err(wrong("path", &request.path, "a path that begins with \"/\""));
        }
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (request.path.as_str(), None),
        };
        let client = match &request.client {
            None => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            Some(text) => text.parse().map_err(|_| wrong("client", text, "an IP address"))?,
        };
        let host = request
            .host
            .clone()
            .or_else(|| self.ruleset.tenant.domains.iter().find(|domain| !domain.starts_with("*.")).cloned());
        let host = host.ok_or_else(|| wrong("host", "nothing", "a host, as the tenant has no domain"))?;
        let mut headers: Headers =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Some(identity) = &request.identity {
            let token = token(&self.ruleset, identity)
                .map_err(|(path, found, expected)| wrong(path, &found, &expected))?;
            headers.set("authorization", format!("Bearer {token}"));
        }
        let seed = Sha256::digest(format!("{}\n{}", request.path, self.sent));
        let mut random = [0; 16];
        random.iter_mut().zip(seed).for_each(|(to, from)| *to = from);
        Ok(Facts {
            method: request.method.to_ascii_uppercase(),
            scheme: Scheme::Https,
            host,
            path: path.to_owned(),
            query,
            headers,
            client,
            place: request.place.as_ref().map(place).unwrap_or_default(),
            body: request.body.as_ref().map_or(BodySize::Empty, |body| BodySize::Bytes(body.len() as u64)),
            now_ms: NOW_MS,
            random,
        })
    }

    fn news(&self, origins: &BTreeMap<String, OriginAnswer>) -> SyncNews {
        let shared = || self.platform.upstreams.values().map(|shared| &shared.upstream);
        let services = || self.ruleset.upstreams.iter().chain(shared()).map(|of| of.service.to_string());
        let news = |region: &meridian_engine::ruleset::Region| {
            let healthy = origins.get(&*region.id) != Some(&OriginAnswer::Word(OriginWord::Unhealthy));
            RegionNews {
                id: region.id.clone(),
                ordinal: region.ordinal,
                healthy,
                applied: Vec::new(),
                unhealthy: if healthy { BTreeSet::new() } else { services().collect() },
            }
        };
        SyncNews {
            now_ms: NOW_MS,
            regions: self.platform.regions.iter().map(news).collect(),
            ..SyncNews::default()
        }
    }

    fn load(&self, key: &LoadKey) -> Loaded {
        let tenant = &self.ruleset.tenant;
        match key {
            LoadKey::Host(host) | LoadKey::StoredHost(host) => {
                let covers = |domain: &String| match domain.strip_prefix('*') {
                    Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                    None => domain == host,
                };
                Loaded::Host(tenant.domains.iter().any(covers).then(|| tenant.slug.clone()))
            }
            LoadKey::Target(Target::Platform) => Loaded::Platform(self.platform.clone()),
            LoadKey::Target(Target::Tenant(slug)) if *slug == tenant.slug => {
                Loaded::Ruleset(self.ruleset.clone())
            }
            LoadKey::Target(Target::Tenant(_)) => Loaded::Missing,
        }
    }

    /// The authority of a limit, at one moment: what was given out does not come back.
    fn take(&mut self, take: &Take) -> Lease {
        let taken = self.taken.entry((take.limit.clone(), take.key.clone())).or_default();
        let left = take.burst.saturating_sub(*taken);
        let granted = if left < take.cost { 0 } else { take.amount.max(take.cost).min(left) };
        *taken += granted;
        let remaining = left - granted;
        let reset_ms = take.window_ms / u64::from(take.quota.max(1));
        let short = if granted == 0 { u64::from(take.cost.saturating_sub(remaining)) } else { 0 };
        let wait_ms = reset_ms.saturating_mul(short);
        Lease { granted, remaining, reset_ms, wait_ms, expires_ms: NOW_MS + take.window_ms }
    }
}

/// The beginning of a request's body.
fn peeked(request: &RequestSpec, bytes_max: u32) -> Option<Peeked> {
    let body = request.body.as_ref()?.as_bytes();
    let first = body.get(..usize::try_from(bytes_max).unwrap_or(usize::MAX)).unwrap_or(body);
    Some(Peeked { bytes: first.to_vec(), whole: first.len() == body.len() })
}

fn answer(forward: &Forward, origins: &BTreeMap<String, OriginAnswer>) -> Result<ResponseHead, ForwardFault> {
    let region: Option<&RegionId> = forward.region.as_ref();
    let said = region.and_then(|region| origins.get(&**region)).copied().unwrap_or(OriginAnswer::Status(200));
    match said {
        OriginAnswer::Word(OriginWord::Down | OriginWord::Unhealthy) => Err(ForwardFault::Connect),
        OriginAnswer::Word(OriginWord::Slow) => Err(ForwardFault::Timeout),
        OriginAnswer::Status(status) => {
            let headers = Headers::from_iter([("content-type", "application/json")]);
            // Components are not run here: one that lets requests pass is what a test supposes.
            let ran = forward.function.as_ref().map(|_| Ran::SentOn);
            Ok(ResponseHead { status, headers, elapsed_ms: 1, ran })
        }
    }
}

fn place(spec: &PlaceSpec) -> Place {
    let coordinates =
        spec.latitude.zip(spec.longitude).map(|(latitude, longitude)| (longitude, latitude).into());
    Place {
        country: spec.country.clone(),
        continent: spec.continent.clone(),
        subdivision: spec.subdivision.clone(),
        city: spec.city.clone(),
        timezone: spec.timezone.clone(),
        asn: spec.asn,
        coordinates,
    }
}
