//! A plan: the regions to try, in order, each at its addresses one after the other, and why the others are not.

use std::fmt;
use std::sync::Arc;

use super::{AddressKey, ServiceKey};
use crate::ruleset::RegionId;

/// Regions to try, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to try them.
    pub candidates: Vec<Candidate>,
    /// Those that will not be tried, and why; by id.
    pub excluded: Vec<(RegionId, Excluded)>,
    /// Addresses that failed too often just now, of regions that have others; see [`Candidate::number`].
    pub ejected: Vec<(RegionId, u32)>,
    /// The nearest of the allowed regions, whatever its health.
    pub nearest: Option<RegionId>,
}

/// One region to try, at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The region.
    pub region: RegionId,
    /// Its ordinal.
    pub ordinal: u16,
    /// The upstream there, as `tenant/name`; `None` for the region's own origin.
    pub service: Option<Arc<str>>,
    /// Base URL: the region's origin, or the upstream's. Health is kept for each.
    pub base: Arc<str>,
    /// Which of the region's addresses that is, from 1; `None` where it has no other.
    pub number: Option<u32>,
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

    /// A region said that it is behind this source. Its other addresses would say the same; the source itself, which can't be,
    /// comes next, if it is among the candidates left.
    pub fn prefer_source(&mut self, behind: &RegionId, source: u16) {
        self.candidates.retain(|candidate| candidate.region != *behind);
        self.candidates.sort_by_key(|candidate| candidate.ordinal != source);
    }

    /// The first candidate that is of another region.
    #[must_use]
    pub fn elsewhere(&self, region: &RegionId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.region != *region)
    }

    /// Another region comes next, if there is one among the candidates left that stands no worse than the one that would.
    pub fn prefer_elsewhere(&mut self, region: &RegionId) {
        let Some(standing) = self.candidates.first().map(|first| first.standing) else { return };
        let is_as_good =
            |candidate: &Candidate| candidate.region != *region && candidate.standing <= standing;
        if let Some(at) = self.candidates.iter().position(is_as_good) {
            let next = self.candidates.remove(at);
            self.candidates.insert(0, next);
        }
    }

    /// The regions in order, each once.
    pub(crate) fn order(&self) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let regions = self.candidates.chunk_by(|one, next| one.region == next.region);
            regions.filter_map(|addresses| addresses.first()).enumerate().try_for_each(|(at, candidate)| {
                f.write_str(if at == 0 { "" } else { ", " })?;
                f.write_str(&candidate.region)
            })
        })
    }

    /// What is not tried, and why, for people; empty where all is.
    pub(crate) fn left_out(&self) -> String {
        let regions = self.excluded.iter().map(|(region, why)| format!("{region} {why:?}").to_lowercase());
        let addresses =
            self.ejected.iter().map(|(region, number)| format!("{region} address {number} ejected"));
        regions.chain(addresses).collect::<Vec<_>>().join(", ")
    }
}

impl Candidate {
    /// What it is known by how fast it is, and how many connections to it are in use.
    pub(super) fn key(&self) -> ServiceKey {
        (self.region.clone(), self.service.clone())
    }

    /// What its health is kept by.
    pub(super) fn address(&self) -> AddressKey {
        (self.region.clone(), self.service.clone(), self.base.clone())
    }
}
