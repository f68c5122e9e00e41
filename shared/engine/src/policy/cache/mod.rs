//! A shared HTTP cache as decisions: RFC 9111, with RFC 5861 (stale service), RFC 9211 (`Cache-Status`), RFC 9213
//! (targeted fields), tags and the purge journal.

use crate::facts::Facts;
use crate::headers::Headers;
use crate::policy::jwt::Identity;
use crate::purge::PurgeJournal;
use crate::ruleset::CachePolicy;
use crate::step::{CacheKey, Entry, Purge, ResponseHead};

/// What the key of a request is made from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Tenant: always in the key.
    pub tenant: &'a str,
    /// The request.
    pub facts: &'a Facts,
    /// Its verified identity.
    pub identity: Option<&'a Identity>,
    /// Variant by experiment.
    pub variants: &'a [(String, String)],
    /// Position that the client has seen of each source, by ordinal: an entry that reflects less is not for this client.
    pub positions: &'a [(u16, u64)],
}

/// Whether the cache has a part in a request.
#[derive(Clone, Debug)]
pub enum Begin {
    /// It has not: forward, don't store. The status says why.
    Pass(CacheStatus),
    /// Look this up ([`Lookup::key`]).
    LookUp(Box<Lookup>),
}

/// The part that the cache has in one request.
#[derive(Clone, Debug)]
pub struct Lookup {
    key: CacheKey,
}

/// What an entry, or its absence, means for the request.
#[derive(Clone, Debug)]
pub enum Found {
    /// Look this key up too: the entry is for other header values (`Vary`).
    LookUp(CacheKey),
    /// Answer with the entry found last.
    Serve(Serve),
    /// Forward; [`Lookup::condition`] makes the request conditional where an entry can be validated.
    Forward,
    /// The client wants a stored answer only, and there is none: 504 (RFC 9111, section 5.2.1.7).
    OnlyIfCached(CacheStatus),
}

/// An answer from the entry found last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Status: the entry's, or 304 where the client has it already.
    pub status: u16,
    /// Header fields, `Age` included, `Cache-Status` not.
    pub headers: Headers,
    /// Whether the entry's body goes with it (not for 304 and HEAD).
    pub body: bool,
    /// Revalidate it off the critical path: drive [`Lookup::revalidation`] (RFC 5861, section 3).
    pub revalidate: bool,
    /// For `Cache-Status`.
    pub status_line: CacheStatus,
}

/// What a response means for the cache and the client.
#[derive(Clone, Debug)]
pub struct Responded {
    /// Answer from the entry found rather than with the response (after a 304, or stale because of an error); `None`:
    /// the response goes to the client.
    pub serve: Option<Serve>,
    /// What to store.
    pub store: Option<Store>,
    /// For `Cache-Status`, where `serve` is `None`.
    pub status_line: CacheStatus,
}

/// Something to store: the fields of [`After::Store`](crate::step::After::Store).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Key.
    pub key: CacheKey,
    /// Head and notes.
    pub entry: Entry,
    /// How long it is of any use.
    pub keep_ms: u64,
    /// With the body of the entry found.
    pub refresh: bool,
}

/// What an unsafe request made stale (RFC 9111, section 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Keys to forget in the host's store.
    pub forget: Vec<CacheKey>,
    /// Marks for the journal of this node: every stored variant of these URIs is stale.
    pub purges: Vec<Purge>,
}

/// `Cache-Status` of this cache (RFC 9211).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered without going forward.
    pub hit: bool,
    /// Why it went forward.
    pub fwd: Option<Fwd>,
    /// Status of the response that came, where it is not the one given to the client.
    pub fwd_status: Option<u16>,
    /// Stored.
    pub stored: bool,
    /// Collapsed with another request.
    pub collapsed: bool,
    /// Freshness left in seconds; negative where stale.
    pub ttl_s: Option<i64>,
    /// More, for people: a token.
    pub detail: Option<&'static str>,
}

/// Why a request went forward (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    /// The rules say so.
    Bypass,
    /// The method is not answered from the cache.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// What is stored is for other header values.
    VaryMiss,
    /// The client wants it validated.
    Request,
    /// What is stored is stale.
    Stale,
}

impl CacheStatus {
    /// Value of the field with the cache's name: `meridian; hit; ttl=30`.
    #[must_use]
    pub fn field(&self) -> String {
        format!("meridian; {self}")
    }
}

/// The parameters without the cache's name.
impl std::fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hit")
    }
}

/// Whether the cache has a part in this request. `bypass`: the policy's condition, evaluated by the caller.
#[must_use]
pub fn begin(policy: &CachePolicy, subject: &Subject<'_>, bypass: bool) -> Begin {
    let _ = (policy, subject, bypass);
    Begin::Pass(CacheStatus::default())
}

impl Lookup {
    /// Key to look up first.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Takes what the lookup of the last key brought.
    pub fn found(&mut self, entry: Option<Entry>, journal: &PurgeJournal, now_ms: u64) -> Found {
        let _ = (entry, journal, now_ms);
        Found::Forward
    }

    /// Makes the forwarded request conditional on the entry found (RFC 9111, section 4.3.1), if that can be validated.
    pub fn condition(&self, headers: &mut Headers) {
        let _ = headers;
    }

    /// Takes the response to the forwarded request, with all the header fields that came (`Meridian-Seen` too).
    /// `requested_ms` is when it was sent.
    #[must_use]
    pub fn responded(
        &self,
        head: &ResponseHead,
        journal: &PurgeJournal,
        requested_ms: u64,
        now_ms: u64,
    ) -> Responded {
        let _ = (head, journal, requested_ms, now_ms);
        Responded { serve: None, store: None, status_line: CacheStatus::default() }
    }

    /// No attempt brought a response: a stale answer, where that is allowed (RFC 5861, section 4).
    #[must_use]
    pub fn failed(&self, now_ms: u64) -> Option<Serve> {
        let _ = now_ms;
        None
    }

    /// The same lookup for a revalidation that answers nobody: begins again with [`Lookup::key`], never serves.
    #[must_use]
    pub fn revalidation(&self) -> Self {
        self.clone()
    }
}

/// What the response to an unsafe request makes stale. `policy` is that of the route, for the key.
#[must_use]
pub fn invalidate(
    subject: &Subject<'_>,
    policy: Option<&CachePolicy>,
    head: &ResponseHead,
    now_ms: u64,
) -> Invalidation {
    let _ = (subject, policy, head, now_ms);
    Invalidation::default()
}
