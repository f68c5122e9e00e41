//! A shared HTTP cache as decisions: RFC 9111, with RFC 5861 (stale service), RFC 9211 (`Cache-Status`), RFC 9213
//! (targeted fields), RFC 9875 (groups), tags and the purge journal.
//!
//! One [`Lookup`] goes with one request: the host looks its key up, [`Lookup::found`] judges the entry, and
//! [`Lookup::responded`] judges what came where the request was forwarded. A response that varies is stored at the primary
//! key if nothing is there yet, and each further variant at a key of its own, which is found through the `Vary` of the first.
//! It is of the generation of that one, too: where the primary key is forgotten, as by an unsafe request, nobody finds any of
//! its variants again, whatever an instance of the edge has heard.
//!
//! A request with `Range` gets its part of an entry that may be served, and is forwarded as it is otherwise; partial
//! responses are not stored.
//!
//! Where the target's whole answer is not stored, it takes the place of the entry found all the same, which is forgotten
//! ([`Responded::forget`]): with all variants where that is at the primary key, and alone at a key of its own. Requests that
//! go past the cache forget nothing, nor do those that ask past an entry which still serves others.

mod arrival;
mod date;
mod directives;
mod freshness;
mod groups;
mod invalidate;
mod key;
mod names;
mod notes;
mod range;
mod status;
mod structured;
mod validate;
mod vary;

use std::sync::Arc;

pub use self::arrival::{Arrival, Responded, Store, VARY_REWRITTEN};
pub(crate) use self::date::date_text;
use self::directives::Directives;
pub(in crate::policy) use self::directives::split;
use self::freshness::{Freshness, has_validator};
use self::invalidate::uri_tags;
pub use self::invalidate::{Invalidation, Keying, invalidate, url_tag};
pub(crate) use self::key::route_mark;
pub(crate) use self::names::query_part;
use self::notes::Notes;
use self::range::Wanted;
pub use self::status::{CacheStatus, Fwd};
use self::validate::{condition, is_not_modified, of_part, remove_conditions, take_content};
use self::vary::{Reader, Ties};
use crate::facts::{BodySize, Facts};
use crate::headers::Headers;
use crate::policy::jwt::Identity;
use crate::purge::{PurgeJournal, Purged};
use crate::ruleset::CachePolicy;
use crate::step::{BODY_BYTES_UNKNOWN, CacheKey, Entry, ReplyBody};

/// What the key of a request is made from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Tenant: always in the key.
    pub tenant: &'a str,
    /// What tells the answers of its route from those of others ([`Compiled::mark`](crate::compiled::Compiled::mark)): always
    /// in the key as well.
    pub route: &'a str,
    /// The rewrites that are for this request and not for every one of its route, by name, in the route's order.
    pub rewrites: &'a [Arc<str>],
    /// The request.
    pub facts: &'a Facts,
    /// Its verified identity.
    pub identity: Option<&'a Identity>,
    /// Variant by experiment.
    pub variants: &'a [(Arc<str>, Arc<str>)],
    /// Values of the policy's expressions, in its order.
    pub values: &'a [Option<String>],
    /// Whether the target is told the attribute `language`, of which the first of equal weight is the client's: an answer that
    /// varies by `Accept-Language` may then differ by it.
    pub tells_language: bool,
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
    tenant: String,
    /// Host of the request, which the groups of its response are of.
    host: String,
    directives: Directives,
    is_head: bool,
    positions: Vec<(u16, u64)>,
    /// What the order of languages says to the target.
    ties: Ties,
    /// Tags by which a change of the URI itself makes entries stale.
    uri_tags: Vec<String>,
    key: CacheKey,
    /// What the key is made from, where that is something else.
    key_text: Option<String>,
    /// What makes the generation of an entry that is stored where there was none.
    random: u64,
    /// Generation of the entry at the primary key, if it varies and is none that must not be served any more.
    generation: Option<u64>,
    /// Key of this request's variant, once it is known what the response varies by, and by what.
    variant: Option<(CacheKey, Vec<String>)>,
    /// Answers nobody: validates whatever is there.
    background: bool,
    /// The entry for this request, and why it was not simply served.
    found: Option<(Entry, Notes)>,
    /// It may be validated, but must not be served without.
    is_outdated: bool,
    /// The request that went forward is conditional on it.
    is_asked: bool,
    /// The request that went forward asks for no part.
    is_for_whole: bool,
    /// What came to that was about another response: it is not asked about again.
    is_other: bool,
    /// It goes forward for others too, without the client's own condition.
    is_for_all: bool,
    fwd: Fwd,
    detail: Option<&'static str>,
    /// Waited in vain for the fetch of another request.
    waited: bool,
}

/// What a request that goes forward is to others for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its response may be of use to them all.
    Leads,
    /// So it would, but for the client's own condition.
    Asks,
    /// Its response is a range, which is stored for nobody; that of another may hold it.
    Follows,
    /// A `HEAD`: it has no part in any of this.
    Alone,
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
    /// Status: the entry's, 304 where the client has it already, 206 or 416 where it asks for a part.
    pub status: u16,
    /// Header fields, `Age` included, `Cache-Status` not.
    pub headers: Headers,
    /// Of a 304: the entry's status, and its fields that describe the content which does not come.
    pub confirms: Option<(u16, Headers)>,
    /// What of the entry's body goes with it (nothing for 304, 416 and HEAD).
    pub body: ReplyBody,
    /// Length of the entry's body, where it is known.
    pub stored_bytes: Option<u64>,
    /// Revalidate it off the critical path: drive [`Lookup::revalidation`] (RFC 5861, section 3).
    pub revalidate: bool,
    /// For `Cache-Status`.
    pub status_line: CacheStatus,
}

/// Whether the cache has a part in this request. `bypass`: the policy's condition, evaluated by the caller.
#[must_use]
pub fn begin(policy: &CachePolicy, subject: &Subject<'_>, bypass: bool) -> Begin {
    let facts = subject.facts;
    let pass = |fwd, detail| Begin::Pass(CacheStatus::forwarded(fwd, detail));
    if !matches!(facts.method.as_str(), "GET" | "HEAD") {
        return pass(Fwd::Method, None);
    }
    if bypass {
        return pass(Fwd::Bypass, None);
    }
    let directives = Directives::of_request(&facts.headers);
    if directives.no_store {
        return pass(Fwd::Bypass, Some("no-store"));
    }
    // Preconditions on the state of the target, and content that it may answer by, are the origin's to judge.
    let precondition =
        ["if-match", "if-unmodified-since"].iter().any(|name| facts.headers.get(name).is_some());
    if precondition || facts.body != BodySize::Empty {
        return pass(Fwd::Bypass, Some(if precondition { "precondition" } else { "content" }));
    }
    let (key, key_text) = key::primary(policy, subject);
    Begin::LookUp(Box::new(Lookup {
        tenant: subject.tenant.to_owned(),
        host: facts.host.clone(),
        directives,
        is_head: facts.method == "HEAD",
        positions: subject.positions.to_vec(),
        ties: if subject.tells_language { Ties::Ordered } else { Ties::Unordered },
        uri_tags: uri_tags(policy, facts),
        key,
        key_text,
        random: facts.random.first_chunk().map_or(0, |random| u64::from_le_bytes(*random)),
        generation: None,
        variant: None,
        background: false,
        found: None,
        is_outdated: false,
        is_asked: false,
        is_for_whole: false,
        is_other: false,
        is_for_all: false,
        fwd: Fwd::UriMiss,
        detail: None,
        waited: false,
    }))
}

impl Lookup {
    /// Key to look up first.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Key at which the answer to this request is looked for: that of its variant, as far as that is known.
    #[must_use]
    pub fn place(&self) -> &CacheKey {
        self.variant.as_ref().map_or(&self.key, |(key, _)| key)
    }

    /// Why the request goes forward.
    #[must_use]
    pub fn fwd(&self) -> Fwd {
        self.fwd
    }

    /// What the response to the forwarded request may be to others.
    #[must_use]
    pub fn part(&self, request: &Headers) -> Part {
        let has_condition =
            ["if-none-match", "if-modified-since"].iter().any(|name| request.get(name).is_some());
        match (self.is_head, request.get("range")) {
            (true, _) => Part::Alone,
            (false, Some(_)) => Part::Follows,
            (false, None) if has_condition && !self.is_conditional(request) => Part::Asks,
            (false, None) => Part::Leads,
        }
    }

    /// Asks for the whole, for others too, in the place of what the client's own condition would bring: what comes is
    /// stored, and answers the conditions of the others (RFC 9111, section 4.3.2).
    pub fn ask_for_all(&mut self) {
        self.is_for_all = true;
    }

    /// Whether another request's fetch may bring what answers this one too: not where each one has to validate the entry.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let is_never_fresh = |notes: &Notes| {
            notes.no_cache || (notes.lifetime_ms == 0 && notes.stale_while_revalidate_ms == 0)
        };
        self.fwd != Fwd::Request && !self.found.as_ref().is_some_and(|(_, notes)| is_never_fresh(notes))
    }

    /// Begins again with [`Lookup::key`] after waiting for the fetch of another request.
    pub fn again(&mut self) {
        (self.variant, self.found, self.is_outdated) = (None, None, false);
        (self.is_asked, self.is_other, self.is_for_all) = (false, false, false);
        (self.fwd, self.detail, self.waited) = (Fwd::UriMiss, None, true);
    }

    /// Takes what the lookup of the last key brought. `request` are the header fields of the client's request, here and
    /// below.
    pub fn found(
        &mut self,
        entry: Option<Entry>,
        request: &Headers,
        journal: &PurgeJournal,
        now_ms: u64,
    ) -> Found {
        let read = entry.and_then(|entry| Notes::read(&entry.meta).map(|notes| (entry, notes)));
        let is_primary = self.variant.is_none();
        if is_primary {
            let varying = read.as_ref().filter(|(_, notes)| !notes.vary.is_empty());
            self.generation = varying.map(|(_, notes)| notes.generation);
        }
        let Some((entry, mut notes)) = read else {
            self.fwd = if is_primary { Fwd::UriMiss } else { Fwd::VaryMiss };
            return self.forward();
        };
        let is_for_it = |(name, value): &(String, Option<String>)| {
            vary::value(name, request, Reader::Of(&entry.headers, self.ties)) == *value
                || (name == "accept-language" && vary::is_preferred(&entry.headers, request))
        };
        if !notes.vary.iter().all(is_for_it) {
            if !is_primary {
                self.fwd = Fwd::VaryMiss;
                return self.forward();
            }
            let names: Vec<_> = notes.vary.into_iter().map(|(name, _)| name).collect();
            let text = self.key_text.as_deref().unwrap_or(&self.key.0);
            let key = key::secondary(&self.tenant, text, notes.generation, &names, request, self.ties);
            self.variant = Some((key.clone(), names));
            return Found::LookUp(key);
        }
        let purged = self.purged(&notes, journal);
        if is_primary && purged == Some(Purged::Hard) {
            self.generation = None;
        }
        if let Some(Purged::Soft { at_ms }) = purged
            && notes.ends_by(at_ms.min(now_ms))
        {
            self.detail = Some("soft-purged");
        }
        let freshness = notes.freshness(now_ms);
        let outdated = match purged {
            Some(Purged::Hard) => Some("purged"),
            _ => self.is_behind(&notes).then_some("session"),
        };
        self.is_outdated = outdated.is_some();
        let standing = match outdated {
            Some(_) => Err(Fwd::Stale),
            None => self.standing(&notes, freshness),
        };
        match standing {
            Ok(revalidate) => Found::Serve(self.serve(entry, request, freshness, revalidate)),
            Err(fwd) => {
                self.fwd = fwd;
                self.detail = outdated.or(self.detail);
                self.found = Some((entry, notes));
                self.forward()
            }
        }
    }

    fn forward(&self) -> Found {
        if self.directives.only_if_cached && !self.background {
            let detail = Some("only-if-cached");
            return Found::OnlyIfCached(CacheStatus { detail, ..CacheStatus::default() });
        }
        Found::Forward
    }

    fn forwarded(&self, detail: Option<&'static str>) -> CacheStatus {
        let collapsed = self.waited.then_some(false);
        CacheStatus { collapsed, ..CacheStatus::forwarded(self.fwd, detail) }
    }

    /// Whether an entry reflects less than this client has seen.
    fn is_behind(&self, notes: &Notes) -> bool {
        let reflects = |source: u16| {
            notes.seen.iter().find(|(of, _)| *of == source).map_or(0, |(_, position)| *position)
        };
        // Only the answers of Meridian's origins say what they reflect.
        !notes.seen.is_empty()
            && self.positions.iter().any(|(source, position)| reflects(*source) < *position)
    }

    fn purged(&self, notes: &Notes, journal: &PurgeJournal) -> Option<Purged> {
        let tags = notes.tags.iter().chain(&self.uri_tags).map(String::as_str);
        journal.purged(&self.tenant, tags, &notes.seen, notes.requested_ms)
    }

    /// Whether an entry may be served: `Ok`, and whether to revalidate it too, or why it has to be validated first.
    fn standing(&self, notes: &Notes, freshness: Freshness) -> Result<bool, Fwd> {
        if self.background {
            return Err(Fwd::Stale);
        }
        let ms = |seconds: u64| seconds.saturating_mul(1_000);
        let asked = &self.directives;
        let is_refused = asked.no_cache
            || asked
                .max_age
                .is_some_and(|max_age| freshness.age_ms > ms(max_age) && asked.max_stale.is_none())
            || asked.min_fresh.is_some_and(|min_fresh| freshness.left_ms() < ms(min_fresh));
        if is_refused {
            return Err(Fwd::Request);
        }
        if freshness.is_fresh() && !notes.no_cache {
            return Ok(false);
        }
        if notes.may_be_stale(freshness, notes.stale_while_revalidate_ms, false) {
            return Ok(true);
        }
        if asked.max_stale.is_some_and(|max_stale| notes.may_be_stale(freshness, ms(max_stale), true)) {
            return Ok(false);
        }
        Err(Fwd::Stale)
    }

    fn serve(&self, entry: Entry, request: &Headers, freshness: Freshness, revalidate: bool) -> Serve {
        let has_it = is_not_modified(request, entry.status, &entry.headers);
        let wanted =
            match has_it || self.is_head || entry.status != 200 || entry.body_bytes == BODY_BYTES_UNKNOWN {
                true => Wanted::Whole,
                false => range::wanted(request, &entry.headers, entry.body_bytes),
            };
        let mut headers = entry.headers;
        headers.set("age", (freshness.age_ms / 1_000).to_string());
        let length = entry.body_bytes;
        let (status, body) = match wanted {
            Wanted::Whole if has_it => (304, ReplyBody::Empty),
            Wanted::Whole if self.is_head => (entry.status, ReplyBody::Empty),
            Wanted::Whole => (entry.status, ReplyBody::Cached),
            Wanted::Part { first, bytes } => {
                headers.set("content-range", format!("bytes {first}-{}/{length}", first + bytes - 1));
                of_part(&mut headers);
                (206, ReplyBody::CachedPart { first, bytes })
            }
            Wanted::Beyond => (416, ReplyBody::Empty),
        };
        let content = matches!(status, 304 | 416).then(|| take_content(&mut headers));
        if status == 416 {
            headers.set("content-range", format!("bytes */{length}"));
        }
        let ttl_s = Some(freshness.ttl_s());
        let detail = revalidate.then_some(self.detail.unwrap_or("stale-while-revalidate"));
        // The next GET does it for a HEAD, which brings no body to store.
        let revalidate = revalidate && !self.is_head;
        Serve {
            status,
            headers,
            confirms: content.filter(|_| status == 304).map(|content| (entry.status, content)),
            body,
            stored_bytes: (length != BODY_BYTES_UNKNOWN).then_some(length),
            revalidate,
            status_line: CacheStatus { hit: true, ttl_s, detail, ..CacheStatus::default() },
        }
    }

    /// Whether the forwarded request is to be conditional on the entry found. A `HEAD` has no body to save, and a range
    /// of a body is not the body that is stored.
    fn is_conditional(&self, request: &Headers) -> bool {
        let is_whole = self.background || request.get("range").is_none();
        !self.is_head
            && is_whole
            && !self.is_other
            && self.found.as_ref().is_some_and(|(entry, _)| has_validator(&entry.headers))
    }

    /// Makes the forwarded request, whose header fields these are, conditional on the entry found (RFC 9111, section
    /// 4.3.1), if that can be validated. Rules may have made it ask for a range or for the whole where the client does not:
    /// what is sent decides, here and in what becomes of the answer.
    pub fn condition(&mut self, headers: &mut Headers) {
        if self.background || self.is_for_all {
            remove_conditions(headers);
        }
        if self.background {
            headers.remove("range");
            headers.remove("if-range");
        }
        self.is_asked = self.is_conditional(headers);
        self.is_for_whole = headers.get("range").is_none();
        if let Some((entry, _)) = self.found.as_ref().filter(|_| self.is_asked) {
            condition(&entry.headers, headers);
        }
    }

    /// The target has another response than the entry found, and did not send it: the request goes forward once more, not
    /// conditional on the entry.
    pub fn disown(&mut self) {
        self.is_other = true;
    }

    /// Whether a 304 answers nobody's condition: the target was asked for what it has, and says only that it has it.
    #[must_use]
    pub fn is_odd(&self, status: u16, request: &Headers) -> bool {
        let is_client = ["if-none-match", "if-modified-since"].iter().any(|name| request.get(name).is_some());
        status == 304 && self.is_other && (self.background || !is_client)
    }

    /// The same lookup for a revalidation that answers nobody: begins again with [`Lookup::key`], never serves.
    #[must_use]
    pub fn revalidation(&self) -> Self {
        let (is_other, is_for_all) = (false, false);
        Self { variant: None, found: None, is_other, is_for_all, background: true, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
