//! What one edge instance remembers from one request to the next. Everything in it is bounded by [`limits`](crate::limits).

mod asks;
mod fetches;
mod held;

use std::net::IpAddr;
use std::sync::Arc;

use asks::HostAsks;
pub use fetches::Fetched;
use fetches::Fetches;
pub(crate) use fetches::{Patience, Turn};
use held::Held;

use crate::bounded::Bounded;
use crate::clock::{Since, Until};
use crate::compiled::Compiled;
use crate::headers::Headers;
use crate::limits::{
    CACHE_BODY_BYTES_MAX, HOST_KNOWN_MS, HOSTS_MAX, LIST_BYTES_MAX, LOAD_RETRY_MS, ROUTE_BYTES_MAX,
    SYNC_FRESH_MS, SYNC_LOST_MS, SYNC_RETRY_MS, SYNC_STALE_MS, TENANTS_MAX, UNKNOWN_HOST_MS,
    UNKNOWN_HOSTS_MAX,
};
use crate::policy::jwt::JwtMemory;
use crate::policy::rate_limit::LimitMemory;
use crate::policy::security::Names;
use crate::policy::steering::SteeringMemory;
use crate::purge::PurgeJournal;
use crate::ruleset::{Platform, Target, Version};
use crate::secret::Secrets;
use crate::step::{CacheKey, FetchKeys, FetchedKeys, LoadKey, Loaded, SyncAsk, SyncNews};

/// What one edge instance remembers: rules, news of the regions, purges, verified tokens, counters, key sets. The host
/// makes one per instance and hands it to every exchange. It grows with the tenants that are served here, up to
/// [`TENANTS_MAX`], and not with those that exist.
#[derive(Debug)]
pub struct Node {
    pub(crate) edge: Arc<str>,
    pub(crate) secrets: Secrets,
    platform: Held<Platform>,
    /// Those that the rules of their tenants name.
    hosts: Bounded<String, KnownHost>,
    /// The others, of which anybody can ask for as many as a wildcard covers.
    unnamed_hosts: Bounded<String, KnownHost>,
    host_asks: HostAsks,
    unknown_hosts: Bounded<String, Until>,
    tenants: Bounded<String, Held<Compiled>>,
    sync: SyncState,
    pub(crate) fetches: Fetches,
    pub(crate) purges: PurgeJournal,
    pub(crate) tokens: JwtMemory,
    pub(crate) limits: LimitMemory,
    pub(crate) regions: SteeringMemory,
    pub(crate) names: Names,
    /// Bytes of content in a content coding that the host can store.
    coded_bytes_max: u64,
    /// The host decodes content in a content coding where it reads it, and codes it again.
    pub(crate) recodes: bool,
    /// Of the reply to a host that is nobody's.
    pub(crate) unknown_host_status: u16,
}

/// Status of the reply to a host that is nobody's (RFC 9110, section 15.5.20).
const UNKNOWN_HOST_STATUS: u16 = 421;

/// Whose a hostname is.
#[derive(Debug)]
struct KnownHost {
    tenant: Arc<str>,
    /// Asked again after this, unless the tenant's own rules name it.
    until: Until,
}

/// How fresh the news of the origins are.
#[derive(Debug, Default)]
struct SyncState {
    /// When an origin last answered.
    heard: Option<Since>,
    /// When one was last asked in vain.
    failed: Option<Since>,
    /// Being asked since.
    asking: Option<Since>,
}

/// Whether the origins are to be asked for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncNeed {
    /// The news are fresh, or somebody is asking already.
    None,
    /// After the reply.
    After,
    /// Before deciding.
    First,
}

/// Whose a hostname is, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostKnown {
    /// This tenant's.
    Tenant(Arc<str>),
    /// Nobody's.
    Nobody,
    /// Not known here.
    No,
}

/// What a request is decided by, as far as it is at hand.
#[derive(Debug)]
pub(crate) struct Look {
    /// What to load first.
    pub(crate) wanted: Vec<LoadKey>,
    /// Whose the host is.
    pub(crate) host: HostKnown,
    /// The last good rules of that tenant.
    pub(crate) rules: Option<Arc<Compiled>>,
}

impl Default for Node {
    fn default() -> Self {
        Self::new("", Secrets::new(&[0; 32], &[0; 32]))
    }
}

impl Node {
    /// An empty memory of the edge with this name.
    #[must_use]
    pub fn new(edge: &str, secrets: Secrets) -> Self {
        let keyed = secrets.keyed;
        Self {
            edge: edge.into(),
            platform: Held::default(),
            hosts: Bounded::new(HOSTS_MAX, keyed),
            unnamed_hosts: Bounded::new(HOSTS_MAX, keyed),
            host_asks: HostAsks::new(keyed),
            unknown_hosts: Bounded::new(UNKNOWN_HOSTS_MAX, keyed),
            tenants: Bounded::new(TENANTS_MAX, keyed),
            sync: SyncState::default(),
            fetches: Fetches::new(keyed),
            purges: PurgeJournal::new(keyed),
            tokens: JwtMemory::new(keyed, secrets.hashing.clone()),
            limits: LimitMemory::new(keyed),
            regions: SteeringMemory::new(keyed),
            names: Names::new(keyed),
            coded_bytes_max: CACHE_BODY_BYTES_MAX,
            recodes: false,
            secrets,
            unknown_host_status: UNKNOWN_HOST_STATUS,
        }
    }

    /// The same for a host that stores content in a content coding up to so many bytes only.
    #[must_use]
    pub fn with_coded_bytes_max(self, bytes_max: u64) -> Self {
        Self { coded_bytes_max: bytes_max, ..self }
    }

    /// The same for a host that decodes content in `gzip` or `br` where it stores or counts it, and codes it again for the
    /// client: the bytes are others then, so that strong entity tags, digests and lengths are not said of them.
    #[must_use]
    pub fn with_recoded_content(self) -> Self {
        Self { recodes: true, ..self }
    }

    /// Bytes of the content of a response with these header fields that the host can store.
    pub(crate) fn content_bytes_max(&self, response: &Headers) -> u64 {
        if response.get("content-encoding").is_some() { self.coded_bytes_max } else { CACHE_BODY_BYTES_MAX }
    }

    /// The same, answering requests for a host that is nobody's with this status, in the place of 421 (RFC 9110, section
    /// 15.5.20).
    #[must_use]
    pub fn with_unknown_host_status(self, status: u16) -> Self {
        Self { unknown_host_status: status, ..self }
    }

    /// Takes the answer to an [`After::Sync`](crate::step::After::Sync); `None` where no origin answered.
    pub fn synced(&mut self, news: Option<SyncNews>, now_ms: u64) {
        self.sync.asking = None;
        let Some(news) = news else {
            self.sync.failed = Some(Since(now_ms));
            return;
        };
        self.sync.heard = Some(Since(now_ms));
        self.sync.failed = None;
        self.purges.read(&news, now_ms);
        for (target, sequence) in &news.heads {
            match target {
                Target::Platform => self.platform.newest = self.platform.newest.max(*sequence),
                Target::Tenant(slug) => {
                    if let Some(held) = self.tenants.get(slug.as_str()) {
                        held.newest = held.newest.max(*sequence);
                    }
                }
            }
        }
        self.names.heard(news.names, now_ms);
        self.regions.heard(news.regions, now_ms);
    }

    /// Takes the answer to an [`After::FetchKeys`](crate::step::After::FetchKeys).
    pub fn keys_fetched(&mut self, ask: &FetchKeys, fetched: impl Into<FetchedKeys>, now_ms: u64) {
        self.tokens.keys_fetched(ask, fetched, now_ms);
    }

    /// Takes the end of an [`After::Store`](crate::step::After::Store) of the decision `of`. Whoever waits for that
    /// decision goes on.
    pub fn fetched(&mut self, key: &CacheKey, of: &str, fetched: Fetched, now_ms: u64) {
        self.fetches.end(key, of, fetched, now_ms);
    }

    /// Releases in memory: each target with its version.
    #[must_use]
    pub fn versions(&self) -> Vec<(Target, Version)> {
        let platform = self.platform.current.as_ref().map(|held| (Target::Platform, held.version.clone()));
        let tenants = self.tenants.iter().filter_map(|(slug, held)| {
            let version = held.current.as_ref()?.ruleset.version.clone();
            Some((Target::Tenant(slug.clone()), version))
        });
        let mut versions: Vec<_> = platform.into_iter().chain(tenants).collect();
        versions.sort_by(|left, right| left.0.cmp(&right.0));
        versions
    }

    /// The newest sequence of a target that an origin told of, as long as something of the target is in memory.
    #[must_use]
    pub fn newest(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Platform => Some(self.platform.newest),
            Target::Tenant(slug) => self.tenants.peek(slug.as_str()).map(|held| held.newest),
        }
    }

    /// The release of a target in memory.
    #[must_use]
    pub fn version(&self, target: &Target) -> Option<&Version> {
        match target {
            Target::Platform => self.platform.current.as_ref().map(|platform| &platform.version),
            Target::Tenant(slug) => {
                self.tenants.peek(slug.as_str())?.current.as_ref().map(|rules| &rules.ruleset.version)
            }
        }
    }

    /// Whether the origins are to be asked for news. While none answers, requests don't wait for news.
    pub(crate) fn sync_need(&self, now_ms: u64) -> SyncNeed {
        let age = |since: Option<Since>| since.map_or(u64::MAX, |since| since.age_ms(now_ms));
        if age(self.sync.asking) < SYNC_LOST_MS || age(self.sync.failed) < SYNC_RETRY_MS {
            SyncNeed::None
        } else if age(self.sync.heard) > SYNC_STALE_MS && self.sync.failed.is_none() {
            SyncNeed::First
        } else if age(self.sync.heard) > SYNC_FRESH_MS {
            SyncNeed::After
        } else {
            SyncNeed::None
        }
    }

    /// The question to the origins, for a host that asks it by itself while no request comes; from now on it counts as
    /// asked, until [`Node::synced`] takes the answer.
    pub fn ask_sync(&mut self, now_ms: u64) -> SyncAsk {
        self.sync.asking = Some(Since(now_ms));
        let targets =
            self.versions().into_iter().map(|(target, version)| (target, version.sequence)).collect();
        let addresses = self.names.ask(now_ms);
        SyncAsk { targets, purge_cursor: self.purges.cursor().to_vec(), addresses }
    }

    /// What a request to this host is decided by, and what has to be loaded first, or should be because it is newer.
    pub(crate) fn look(&mut self, host: &str, now_ms: u64) -> Look {
        let mut wanted = Vec::new();
        let have = self.platform.current.as_ref().map(|platform| platform.version.sequence);
        if self.platform.wants(have, now_ms) {
            wanted.push(LoadKey::Target(Target::Platform));
        }
        let known = self.host(host, now_ms);
        let mut rules = None;
        if known == HostKnown::No {
            wanted.push(LoadKey::Host(host.to_owned()));
        }
        if let HostKnown::Tenant(slug) = &known {
            let held = self.tenants.get(&**slug);
            rules = held.as_ref().and_then(|held| held.current.clone());
            let have = rules.as_ref().map(|rules| rules.ruleset.version.sequence);
            if held.is_none_or(|held| held.wants(have, now_ms)) {
                wanted.push(LoadKey::Target(Target::Tenant(slug.as_ref().to_owned())));
            }
        }
        Look { wanted, host: known, rules }
    }

    /// Whether it may be asked now, for this client, whose a hostname is; it counts as asked then.
    pub(crate) fn may_ask_host(&mut self, client: IpAddr, now_ms: u64) -> bool {
        self.host_asks.take(client, now_ms)
    }

    /// Notes that this is being loaded.
    pub(crate) fn loading(&mut self, keys: &[LoadKey], now_ms: u64) {
        for key in keys {
            match key {
                LoadKey::Target(Target::Platform) => self.platform.begin_loading(now_ms),
                LoadKey::Target(Target::Tenant(slug)) => {
                    self.tenants.get_or_insert_with(slug.clone(), Held::default).begin_loading(now_ms);
                }
                LoadKey::Host(_) | LoadKey::StoredHost(_) => {}
            }
        }
    }

    /// Takes what a key turned out to be. Whatever can't be used leaves the last good in force.
    ///
    /// # Errors
    /// Why it can't be used.
    pub(crate) fn loaded(&mut self, key: &LoadKey, loaded: Loaded, now_ms: u64) -> Result<(), String> {
        match (key, loaded) {
            (LoadKey::Host(host) | LoadKey::StoredHost(host), Loaded::Host(Some(tenant))) => {
                self.forget_host(host);
                let known = KnownHost { tenant: tenant.into(), until: Until::after(now_ms, HOST_KNOWN_MS) };
                self.unnamed_hosts.insert(host.clone(), known);
                Ok(())
            }
            (LoadKey::Host(host), Loaded::Host(None) | Loaded::Missing) => {
                self.forget_host(host);
                self.unknown_hosts.insert(host.clone(), Until::after(now_ms, UNKNOWN_HOST_MS));
                Ok(())
            }
            // Whose it is nobody was asked.
            (LoadKey::StoredHost(_), _) => Ok(()),
            (LoadKey::Host(host), loaded) => {
                // Nobody can say: whoever had it keeps it for a while.
                let known = self.hosts.get(host.as_str()).or_else(|| self.unnamed_hosts.get(host.as_str()));
                if let Some(known) = known {
                    known.until = Until::after(now_ms, LOAD_RETRY_MS);
                }
                Err(format!("{host}: {}", fault(&loaded)))
            }
            (LoadKey::Target(Target::Platform), Loaded::Platform(platform)) => {
                let sequence = platform.version.sequence;
                let have = self.platform.current.as_ref().map(|platform| platform.version.sequence);
                let told = self.platform.take(platform, sequence, have, now_ms);
                told.map_err(|fault| format!("platform: {fault}"))
            }
            (LoadKey::Target(Target::Tenant(slug)), Loaded::Ruleset(ruleset)) => {
                if ruleset.tenant.slug != *slug {
                    let fault = format!("found the rules of {}", ruleset.tenant.slug);
                    return self.refuse(&Target::Tenant(slug.clone()), fault, now_ms);
                }
                let held = self.tenants.get_or_insert_with(slug.clone(), Held::default);
                let sequence = ruleset.version.sequence;
                let have = held.current.as_ref().map(|held| held.ruleset.version.sequence);
                // While nothing was stored, nobody noted what got stale of what had been.
                let stored_nothing = held.current.as_ref().is_some_and(|held| held.ruleset.caches.is_empty());
                let stores_again = stored_nothing && !ruleset.caches.is_empty();
                let told = held.take(Arc::new(Compiled::new(ruleset)), sequence, have, now_ms);
                if stores_again {
                    self.purges.mark_all(slug, now_ms);
                }
                self.make_room(slug, LIST_BYTES_MAX, |rules| rules.ruleset.list_bytes());
                self.make_room(slug, ROUTE_BYTES_MAX, |rules| rules.route_bytes);
                told.map_err(|fault| format!("tenant:{slug}: {fault}"))
            }
            (LoadKey::Target(target), loaded) => self.refuse(target, fault(&loaded), now_ms),
        }
    }

    /// Where what all tenants have of something takes too much, those of the others that have most of it are forgotten until
    /// they are asked for again.
    fn make_room(&mut self, slug: &str, bytes_max: usize, bytes_of: impl Fn(&Compiled) -> usize) {
        let bytes = |held: &Held<Compiled>| held.current.as_ref().map_or(0, |rules| bytes_of(rules.as_ref()));
        let mut total: usize = self.tenants.iter().map(|(_, held)| bytes(held)).sum();
        while total > bytes_max {
            let others = self.tenants.iter().filter(|(key, held)| *key != slug && bytes(held) > 0);
            let largest = others.max_by_key(|(_, held)| bytes(held));
            let Some((key, freed)) = largest.map(|(key, held)| (key.clone(), bytes(held))) else { return };
            self.tenants.remove(key.as_str());
            total -= freed;
        }
    }

    fn refuse(&mut self, target: &Target, fault: String, now_ms: u64) -> Result<(), String> {
        match target {
            Target::Platform => self.platform.failed(now_ms),
            Target::Tenant(slug) => {
                self.tenants.get_or_insert_with(slug.clone(), Held::default).failed(now_ms);
            }
        }
        Err(format!("{target}: {fault}"))
    }

    /// Whose a hostname is. A tenant that names exactly this host in its own rules keeps it until they change.
    fn host(&mut self, host: &str, now_ms: u64) -> HostKnown {
        let tenants = &self.tenants;
        let is_named = |known: &KnownHost| {
            let rules = tenants.peek(&*known.tenant).and_then(|held| held.current.as_ref());
            rules.is_some_and(|rules| rules.names(host))
        };
        let told = |known: &KnownHost| {
            if known.until.is_ahead(now_ms) || is_named(known) {
                HostKnown::Tenant(Arc::clone(&known.tenant))
            } else {
                HostKnown::No
            }
        };
        // A host is in one of the two, and most requests are for one that rules name.
        if let Some(known) = self.hosts.get(host) {
            return told(known);
        }
        if let Some(known) = self.unnamed_hosts.get(host) {
            let (is_named, told) = (is_named(known), told(known));
            if is_named && let Some(known) = self.unnamed_hosts.remove(host) {
                self.hosts.insert(host.to_owned(), known);
            }
            return told;
        }
        match self.unknown_hosts.get(host) {
            Some(until) if until.is_ahead(now_ms) => HostKnown::Nobody,
            _ => HostKnown::No,
        }
    }

    /// Who had the host when that was last known.
    pub(crate) fn host_before(&self, host: &str) -> Option<Arc<str>> {
        let known = self.hosts.peek(host).or_else(|| self.unnamed_hosts.peek(host))?;
        Some(Arc::clone(&known.tenant))
    }

    fn forget_host(&mut self, host: &str) {
        self.hosts.remove(host);
        self.unnamed_hosts.remove(host);
        self.unknown_hosts.remove(host);
    }

    /// The last good rules of a tenant.
    pub(crate) fn rules(&mut self, slug: &str) -> Option<Arc<Compiled>> {
        self.tenants.get(slug)?.current.clone()
    }

    /// The last good platform.
    pub(crate) fn platform(&self) -> Option<Arc<Platform>> {
        self.platform.current.clone()
    }
}

fn fault(loaded: &Loaded) -> String {
    match loaded {
        Loaded::Unavailable(reason) => reason.clone(),
        Loaded::Missing => "there is none".to_owned(),
        Loaded::Host(_) | Loaded::Platform(_) | Loaded::Ruleset(_) => "found something else".to_owned(),
    }
}

#[cfg(test)]
mod tests;
