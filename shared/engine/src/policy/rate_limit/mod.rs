//! Rate limits: GCRA with burst and cost, counted by the node itself or spent from leases of the region's authority.

use crate::bounded::Keyed;
use crate::facts::Facts;
use crate::headers::Headers;
use crate::policy::jwt::Identity;
use crate::ruleset::{Route, Ruleset};
use crate::step::{Lease, Take};

/// What a node remembers of limits: its own counters and the leases that it holds. Bounded.
#[derive(Debug)]
pub struct LimitMemory {
    keyed: Keyed,
}

impl LimitMemory {
    /// An empty memory.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self { keyed }
    }
}

/// The limits of one request: made once, polled until it says something other than [`LimitVerdict::NeedTake`].
#[derive(Debug, Default)]
pub struct LimitCheck {}

impl LimitCheck {
    /// The limits of this route, with whom each counts.
    #[must_use]
    pub fn new(ruleset: &Ruleset, route: &Route, facts: &Facts, identity: Option<&Identity>) -> Self {
        let _ = (ruleset, route, facts, identity);
        Self {}
    }

    /// Checks all limits, and takes from all of them or from none. At most one `NeedTake` a check.
    pub fn poll(&mut self, memory: &mut LimitMemory, now_ms: u64) -> LimitVerdict {
        let _ = (memory, now_ms);
        LimitVerdict::Passed(LimitReport::default())
    }

    /// Takes the answers to [`LimitVerdict::NeedTake`], in the order asked. A missing answer counts as `None`.
    pub fn taken(&mut self, memory: &mut LimitMemory, answers: &[Option<Lease>], now_ms: u64) {
        let _ = (memory, answers, now_ms);
    }
}

/// What the limits say.
#[derive(Debug)]
pub enum LimitVerdict {
    /// The request may pass and has been counted.
    Passed(LimitReport),
    /// It may not and has not been counted.
    Denied(LimitReport, Denial),
    /// Ask the authority for these, hand the answers to [`LimitCheck::taken`], poll again.
    NeedTake(Vec<Take>),
}

/// How each limit of a request stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitReport {
    /// In the route's order.
    pub limits: Vec<LimitState>,
}

/// How one limit stands after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// Index into [`Ruleset::limits`].
    pub index: usize,
    /// Name of the limit.
    pub name: String,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window_ms: u64,
    /// Units left.
    pub remaining: u64,
    /// Until the limit is whole again, or, where it denied, until the request would pass.
    pub reset_ms: u64,
    /// Only counts and reports.
    pub shadow: bool,
    /// Whether it said, or would have said, no.
    pub exceeded: bool,
    /// The authority was away; `fail` decided.
    pub away: bool,
}

/// What a client is told that may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// 429, or 503 where the authority is away and the limit fails closed.
    pub status: u16,
    /// `type` of the problem (draft-ietf-httpapi-ratelimit-headers-11, section 6).
    pub problem_type: &'static str,
    /// `title` of the problem.
    pub title: &'static str,
    /// `violated-policies` of the problem.
    pub violated: Vec<String>,
    /// `Retry-After` in seconds.
    pub retry_after_s: u64,
}

impl LimitReport {
    /// Adds `RateLimit-Policy` and `RateLimit` (the tightest) to a reply. Shadow limits are not shown.
    pub fn write_headers(&self, headers: &mut Headers) {
        let _ = headers;
    }
}

/// The authority's side: hands out leases. Pure; the Durable Object and the origin keep one and hand in the time.
#[derive(Debug, Default)]
pub struct Authority {}

impl Authority {
    /// Grants what can be granted: `amount` at most, `cost` at least, or nothing.
    pub fn take(&mut self, take: &Take, now_ms: u64) -> Lease {
        let _ = (take, now_ms);
        Lease { granted: 0, remaining: 0, reset_ms: 0, expires_ms: 0 }
    }
}
