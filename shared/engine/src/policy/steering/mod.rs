//! Which region answers: residency first, then health, then the route's strategy.

use crate::bounded::Keyed;
use crate::facts::Place;
use crate::ruleset::{Platform, RegionId, Steering, Tenant, Upstream};
use crate::step::RegionNews;

/// What a node remembers of the regions: news from the origins, its own experience, the retry budget. Bounded.
#[derive(Debug)]
pub struct SteeringMemory {
    keyed: Keyed,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The regions.
    pub platform: &'a Platform,
    /// Whose allowed regions bind.
    pub tenant: &'a Tenant,
    /// The route's strategy.
    pub steering: &'a Steering,
    /// Where the client is.
    pub place: &'a Place,
    /// Position that the client has seen of each source, by ordinal: from its session token; empty without one.
    pub positions: &'a [(u16, u64)],
    /// The upstream that the route goes to; `None` for the regions' own origins.
    pub upstream: Option<&'a Upstream>,
}

/// Regions to try, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to try them.
    pub candidates: Vec<Candidate>,
    /// Those that will not be tried, and why; by id.
    pub excluded: Vec<(RegionId, Excluded)>,
    /// The nearest of the allowed regions, whatever its health.
    pub nearest: Option<RegionId>,
}

/// One region to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The region.
    pub region: RegionId,
    /// Its ordinal.
    pub ordinal: u16,
    /// The upstream there, as `tenant/name`; `None` for the region's own origin. Health is kept for each.
    pub service: Option<String>,
    /// Base URL: the region's first origin, or the upstream's.
    pub base: String,
    /// Great-circle distance from the client, or from the home region where the place is unknown.
    pub distance_km: u32,
    /// How it stands.
    pub standing: Standing,
}

/// How a candidate stands; the order of the variants is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Healthy, and has what the session has seen, as far as is known.
    Ready,
    /// Healthy, but was behind the session when last heard of.
    Behind,
    /// Draining, and the session is not one of its own.
    Draining,
    /// Not healthy: only tried because nothing better is there.
    LastResort,
}

/// Why a region is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// The tenant's data may not go there.
    Residency,
    /// Its state is `down`.
    Down,
    /// Its health check fails.
    Unhealthy,
    /// It failed too often just now.
    Ejected,
    /// The upstream is not there.
    NoUpstream,
}

/// How an attempt ended, as far as the region's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It answered, and not with a status that counts as a failure.
    Answered,
    /// It did not, or with one that does.
    Failed,
}

impl Plan {
    /// Takes the next region to try.
    pub fn take_next(&mut self) -> Option<Candidate> {
        None
    }

    /// A region said that it is behind this source: the source itself comes next, if it is among the candidates left.
    pub fn prefer_source(&mut self, ordinal: u16) {
        let _ = ordinal;
    }
}

impl SteeringMemory {
    /// An empty memory.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self { keyed }
    }

    /// Takes the news of the regions.
    pub fn heard(&mut self, regions: Vec<RegionNews>, now_ms: u64) {
        let _ = (regions, now_ms);
    }

    /// The regions to try.
    #[must_use]
    pub fn plan(&self, ask: &Ask<'_>, now_ms: u64) -> Plan {
        let _ = (ask, now_ms);
        Plan::default()
    }

    /// Call before each attempt, `attempt` counting from 0. The first pays into the retry budget and is always allowed;
    /// each other takes from it, and `false` means that it is used up: don't try. A region on probation gets no second
    /// request until this one is answered.
    #[must_use]
    pub fn attempt(&mut self, candidate: &Candidate, attempt: u32, now_ms: u64) -> bool {
        let _ = (candidate, attempt, now_ms);
        false
    }

    /// Takes the outcome of an attempt.
    pub fn record(&mut self, candidate: &Candidate, outcome: AttemptOutcome, now_ms: u64) {
        let _ = (candidate, outcome, now_ms);
    }
}
