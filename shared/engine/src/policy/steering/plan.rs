//! A plan: the regions to try, in order, and why the others are not.

use std::sync::Arc;

use super::ServiceKey;
use crate::ruleset::RegionId;

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
    pub service: Option<Arc<str>>,
    /// Base URL: the region's origin, or the upstream's.
    pub base: Arc<str>,
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
    /// Draining, and the session has seen nothing of it.
    Draining,
    /// Not healthy: only tried because nothing better is there.
    LastResort,
}

/// Why a region is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// The tenant's data may not go there.
    Residency,
    /// The route is pinned to others.
    NotPinned,
    /// Its state is `down`.
    Down,
    /// The origins say that its health check fails: the region's, or where the route goes to an upstream, the upstream's there.
    Unhealthy,
    /// It failed too often just now.
    Ejected,
    /// The upstream is not there.
    NoUpstream,
    /// The upstream is where the origin of a region is: to an origin nothing goes but what is signed for it.
    AtAnOrigin,
}

impl Plan {
    /// Takes the next region to try.
    pub fn take_next(&mut self) -> Option<Candidate> {
        (!self.candidates.is_empty()).then(|| self.candidates.remove(0))
    }

    /// A region said that it is behind this source: the source itself, which can't be, comes next, if it is among the
    /// candidates left.
    pub fn prefer_source(&mut self, ordinal: u16) {
        if let Some(at) = self.candidates.iter().position(|candidate| candidate.ordinal == ordinal) {
            let source = self.candidates.remove(at);
            self.candidates.insert(0, source);
        }
    }
}

impl Candidate {
    /// What its health is kept by.
    pub(super) fn key(&self) -> ServiceKey {
        (self.region.clone(), self.service.clone())
    }
}
