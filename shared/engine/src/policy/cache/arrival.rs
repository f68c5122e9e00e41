//! What a response means for the cache and for the client: whether it is stored, whether it confirms what is stored, and
//! whether that is served in its place.

use super::freshness::{Freshness, Times, has_validator, judge, write_seen};
use super::notes::Notes;
use super::validate::{is_about, storable_headers, updated};
use super::{CacheStatus, Fwd, Lookup, Serve, groups, vary};
use crate::headers::Headers;
use crate::purge::{PurgeJournal, Purged};
use crate::ruleset::CachePolicy;
use crate::step::{CacheKey, Entry, ResponseHead};

/// Why a response that varies by what the edge itself writes is not stored.
pub const VARY_REWRITTEN: &str = "vary-rewritten";

/// A response to a forwarded request, and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The route's policy.
    pub policy: &'a CachePolicy,
    /// Header fields of the client's request.
    pub request: &'a Headers,
    /// Header fields whose forwarded values don't follow from the client's alone, as rules set them by expressions or
    /// conditions. What varies by one of them is not stored: no later request would tell which answer is for it.
    pub rewritten: &'a [&'a str],
    /// The response with all the header fields that came, `Meridian-Seen` too.
    pub head: &'a ResponseHead,
    /// What was purged.
    pub journal: &'a PurgeJournal,
    /// Bytes of the response's content that the host can store: one that says it has more is not stored.
    pub content_bytes_max: u64,
    /// When the request was sent.
    pub requested_ms: u64,
    /// When the response came.
    pub now_ms: u64,
}

/// What a response means for the cache and the client.
#[derive(Clone, Debug)]
pub struct Responded {
    /// Answer from the entry found rather than with the response (after a 304, or stale because of an error); `None`:
    /// the response goes to the client.
    pub serve: Option<Serve>,
    /// What to store.
    pub store: Option<Store>,
    /// The key of the entry found, where the response takes its place and is not stored: nobody is to be answered with it again.
    /// What another request has stored there since goes with it, which costs a miss and no more.
    pub forget: Option<CacheKey>,
    /// A 304 to our own condition, about another response than the one stored: nothing may be made of it (RFC 9111, section
    /// 4.3.4). Forward again, after [`Lookup::disown`].
    pub is_other: bool,
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

impl Responded {
    /// The response goes to the client, and nothing of it is kept.
    fn of(status_line: CacheStatus) -> Self {
        Self { serve: None, store: None, forget: None, is_other: false, status_line }
    }
}

impl Lookup {
    /// Takes the response to the forwarded request.
    #[must_use]
    pub fn responded(&self, arrival: &Arrival<'_>) -> Responded {
        let head = arrival.head;
        let status_line = self.forwarded(self.detail);
        if let Some((entry, notes)) = self.found.as_ref().filter(|_| head.status == 304 && self.is_asked) {
            return match is_about(&entry.headers, &head.headers) {
                true => self.validated(entry, notes, arrival),
                false => Responded { is_other: true, ..Responded::of(status_line) },
            };
        }
        if matches!(head.status, 500 | 502 | 503 | 504)
            && let Some(mut serve) = self.failed(arrival.request, arrival.now_ms)
        {
            serve.status_line.fwd_status = Some(head.status);
            return Responded { serve: Some(serve), ..Responded::of(status_line) };
        }
        let fields = storable_headers(&head.headers, arrival.policy.store_cookies);
        let is_too_large = head.body_bytes().is_some_and(|bytes| bytes > arrival.content_bytes_max);
        let stored = self.store(arrival, head.status, fields, &head.headers);
        match stored.and_then(|stored| if is_too_large { Err("too-large") } else { Ok(stored) }) {
            Ok((store, freshness)) => {
                let ttl_s = Some(freshness.ttl_s());
                let status_line = CacheStatus { stored: true, ttl_s, ..status_line };
                Responded { store: Some(store), ..Responded::of(status_line) }
            }
            Err(why) => {
                let detail = status_line.detail.or(Some(why));
                let status_line = CacheStatus { detail, ..status_line };
                let forget = self.takes_its_place(arrival, why).then(|| self.place().clone());
                Responded { forget, ..Responded::of(status_line) }
            }
        }
    }

    /// A 304 to our own condition (RFC 9111, section 4.3.3): the entry as the 304 changes it, stored and served.
    fn validated(&self, entry: &Entry, notes: &Notes, arrival: &Arrival<'_>) -> Responded {
        let came = &arrival.head.headers;
        let headers = updated(&entry.headers, came, arrival.policy.store_cookies);
        // Age and positions are those of the 304; without positions, those that the entry had.
        let mut judged = headers.clone();
        if let Some(age) = came.get("age") {
            judged.set("age", age);
        }
        judged.set(
            "meridian-seen",
            came.get("meridian-seen").map_or_else(|| write_seen(&notes.seen), str::to_owned),
        );
        let stored =
            self.store(arrival, entry.status, headers.clone(), &judged).map(|(mut store, freshness)| {
                store.refresh = true;
                store.entry.body_bytes = entry.body_bytes;
                (store, freshness)
            });
        let freshness = stored.as_ref().map_or(Freshness::default(), |(_, freshness)| *freshness);
        let entry = Entry { headers, ..entry.clone() };
        let mut serve = self.serve(entry, arrival.request, freshness, false);
        serve.status_line = CacheStatus {
            fwd_status: Some(304),
            stored: stored.is_ok(),
            ttl_s: Some(freshness.ttl_s()),
            ..self.forwarded(self.detail)
        };
        let status_line = serve.status_line.clone();
        let store = stored.ok().map(|(store, _)| store);
        Responded { serve: Some(serve), store, ..Responded::of(status_line) }
    }

    /// Whether a response that is not stored, for this reason, is what there is from now on in the place of the entry found, which
    /// must not be served stale any more then (RFC 9111, sections 4.2.4 and 4.3.3). It is where it is whole, answers the request
    /// that was forwarded with what its URI has become, and not with what became of the request, the connection or a part. An
    /// error of the server says nothing of that. What is for who asks alone, as far as credentials say so (section 3.5; cookies
    /// are some), is in nobody else's place, and what was purged on its way in nobody's. An entry that still serves others stays
    /// where only this client's wish goes past it: nobody shall empty the cache by asking.
    fn takes_its_place(&self, arrival: &Arrival<'_>, why: &'static str) -> bool {
        let Some((_, notes)) = &self.found else { return false };
        let serves_others = notes.freshness(arrival.now_ms).is_fresh() && !notes.no_cache;
        let status = arrival.head.status;
        let is_of_bearer = ["authorization", "cookie"].iter().any(|name| arrival.request.get(name).is_some())
            && (matches!(why, "authorization" | "private" | "set-cookie") || matches!(status, 401 | 403));
        let is_whole = matches!(status, 200..=399 | 401 | 403 | 404 | 405 | 410 | 451)
            && !matches!(status, 206 | 304)
            && self.is_for_whole
            && !self.is_head;
        let is_for_all = self.fwd != Fwd::Request || !serves_others;
        is_for_all && is_whole && !is_of_bearer && why != "purged"
    }

    /// What to store for a response, or in a word why nothing. `judged` are the fields to judge it by.
    fn store(
        &self,
        arrival: &Arrival<'_>,
        status: u16,
        headers: Headers,
        judged: &Headers,
    ) -> Result<(Store, Freshness), &'static str> {
        if self.is_head {
            return Err("head");
        }
        let times = Times { requested_ms: arrival.requested_ms, received_ms: arrival.now_ms };
        let mut notes = judge(arrival.policy, arrival.request, status, judged, times, self.ties)?;
        notes.tags.extend(groups::of(&self.host, judged)?);
        // RFC 9111, section 4.1: what counts is the request that the response was selected by, which the client's is not.
        let is_rewritten = |name: &str| arrival.rewritten.contains(&name) || vary::is_of_edge(name);
        if notes.vary.iter().any(|(name, _)| is_rewritten(name)) {
            return Err(VARY_REWRITTEN);
        }
        // Purged while it was on its way, or of a region that has not heard of the change: of no use.
        if self.purged(&notes, arrival.journal) == Some(Purged::Hard) {
            return Err("purged");
        }
        let names = notes.vary.iter().map(|(name, _)| name);
        let key = match &self.variant {
            Some((key, of)) if names.eq(of) => key.clone(),
            _ => self.key.clone(),
        };
        notes.generation = self.generation.unwrap_or(self.random);
        let keep_ms = notes.keep_ms(has_validator(&headers));
        let entry = Entry { status, headers, meta: notes.write(), body_bytes: 0 };
        Ok((Store { key, entry, keep_ms, refresh: false }, notes.freshness(arrival.now_ms)))
    }

    /// No attempt brought a response: a stale answer, where that is allowed (RFC 5861, section 4). `stale-if-error` of a request
    /// is for that request alone: it takes no staler answer, though the response would allow it, and asks for one that stale
    /// where the response does not forbid it to clients (RFC 9111, section 4.2.4).
    #[must_use]
    pub fn failed(&self, request: &Headers, now_ms: u64) -> Option<Serve> {
        let (entry, notes) = self.found.as_ref()?;
        let freshness = notes.freshness(now_ms);
        let asked_ms = self.directives.stale_if_error.map(|seconds| seconds.saturating_mul(1_000));
        let may_be_stale = match asked_ms {
            None => notes.may_be_stale(freshness, notes.stale_if_error_ms, false),
            Some(asked_ms) => {
                notes.may_be_stale(freshness, asked_ms.min(notes.stale_if_error_ms), false)
                    || notes.may_be_stale(freshness, asked_ms, true)
            }
        };
        let is_allowed = (freshness.is_fresh() && !notes.no_cache) || may_be_stale;
        if self.is_outdated || self.background || !is_allowed {
            return None;
        }
        let mut serve = self.serve(entry.clone(), request, freshness, false);
        serve.status_line =
            CacheStatus { ttl_s: Some(freshness.ttl_s()), ..self.forwarded(Some("stale-if-error")) };
        Some(serve)
    }
}
