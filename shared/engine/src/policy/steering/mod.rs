//! Which region answers: residency first, then health, then the route's strategy.
//!
//! Health is what the origins tell of one another and of tenants' upstreams ([`SteeringMemory::heard`]) and what this node
//! has seen itself ([`SteeringMemory::record`]): for all tenants where nothing but the region can have failed, and for a tenant alone where it
//! did not do what that tenant's own rules ask. A region that is not healthy is tried only where no other is left. Equal regions are
//! ordered by id, so that a plan depends on its inputs alone.
//!
//! A region may have several addresses, each as good as the others. What this node has seen is kept for each, and one that fails
//! is left alone while the region has another.

mod choice;
mod connections;
mod health;
mod latency;
mod plan;

use std::net::IpAddr;
use std::sync::Arc;

use geo_types::Point;

pub use self::choice::{REGION_COOKIE, region_cookie, region_of_cookie};
pub use self::connections::Connection;
pub use self::plan::{Candidate, Excluded, Plan, Standing};

use self::connections::Connections;
use self::health::{Health, RetryBudget};
use self::latency::Latency;
use crate::bounded::{Bounded, Keyed};
use crate::clock::Since;
use crate::destination::Destination;
use crate::facts::{Facts, Place};
use crate::limits::{NEWS_MS_MAX, SERVICES_MAX, TENANTS_MAX};
use crate::ruleset::{
    Affinity, Platform, Region, RegionId, RegionState, Steering, Strategy, Tenant, Upstream,
};
use crate::step::RegionNews;

/// What a node remembers of the regions: news from the origins, its own experience, each tenant's retry budget. Bounded.
#[derive(Debug)]
pub struct SteeringMemory {
    news: Vec<RegionNews>,
    heard: Option<Since>,
    addresses: Bounded<AddressKey, Experience>,
    latencies: Bounded<ServiceKey, Latency>,
    /// By tenant: one that takes all that it may have of an upstream of the platform takes none from the others.
    connections: Bounded<(Arc<str>, ServiceKey), Connections>,
    /// By tenant: what one tenant's upstreams need is not taken from the others.
    budgets: Bounded<Arc<str>, RetryBudget>,
    keyed: Keyed,
}

/// How an address of a service has done lately.
#[derive(Debug)]
struct Experience {
    for_all: Health,
    /// As far as it failed for these tenants alone.
    by_tenant: Bounded<Arc<str>, Health>,
}

/// A region and, where it is not the region's own origin, the upstream. What is known by it of an upstream of the platform is of
/// all tenants that use it: how fast it is, and that nobody reaches it, is the same for each of them.
type ServiceKey = (RegionId, Option<Arc<str>>);

/// A service and one of its base URLs.
type AddressKey = (RegionId, Option<Arc<str>>, Arc<str>);

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The regions.
    pub platform: &'a Platform,
    /// Whose allowed regions bind.
    pub tenant: &'a Tenant,
    /// The route's strategy.
    pub steering: &'a Steering,
    /// The request.
    pub facts: &'a Facts,
    /// Its verified subject with the issuer, where the route keeps a subject at its region.
    pub person: Option<&'a str>,
    /// The region that the client's cookie names.
    pub sticky: Option<&'a str>,
    /// Position that the client has seen of each source, by ordinal: from its session token; empty without one.
    pub positions: &'a [(u16, u64)],
    /// The upstream that the route goes to; `None` for the regions' own origins.
    pub upstream: Option<&'a Upstream>,
}

/// How an attempt ended, as far as the region's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It answered, and not with a status that counts as a failure.
    Answered,
    /// It could not be reached, or its connection broke.
    Failed,
    /// It took longer than the route waits, or answered with a status that the route counts as a failure. Another tenant's
    /// rules may ask for less, so that this counts for its own tenant alone.
    FailedRoute,
}

impl SteeringMemory {
    /// An empty memory.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self {
            news: Vec::new(),
            heard: None,
            addresses: Bounded::new(SERVICES_MAX, keyed),
            latencies: Bounded::new(SERVICES_MAX, keyed),
            connections: Bounded::new(SERVICES_MAX, keyed),
            budgets: Bounded::new(TENANTS_MAX, keyed),
            keyed,
        }
    }

    /// Takes the news of the regions; what was heard before is forgotten.
    pub fn heard(&mut self, mut regions: Vec<RegionNews>, now_ms: u64) {
        regions.truncate(SERVICES_MAX);
        self.news = regions;
        self.heard = Some(Since(now_ms));
    }

    /// The regions to try.
    #[must_use]
    pub fn plan(&self, ask: &Ask<'_>, now_ms: u64) -> Plan {
        let from = origin_of_distance(&ask.platform.regions, ask.tenant, &ask.facts.place);
        let origins = ask.forbidden_origins();
        let mut plan = Plan::default();
        let (mut unwell, mut nearest) = (Vec::new(), None);
        for region in &ask.platform.regions {
            let distance_km = from.map_or(0, |from| distance_km(from, point(region)));
            if !ask.tenant.allowed_regions.contains(&region.id) {
                plan.excluded.push((region.id.clone(), Excluded::Residency));
                continue;
            }
            let place = (distance_km, &region.id);
            nearest = Some(nearest.map_or(place, |nearest| place.min(nearest)));
            if let Some(why) = ask.excludes(region, &origins) {
                plan.excluded.push((region.id.clone(), why));
                continue;
            }
            let standing = self.standing(ask, region, now_ms);
            let others = plan.candidates.len();
            for candidate in ask.last_resorts(region, distance_km) {
                match standing {
                    Ok(_) if self.is_ejected(ask, &candidate, now_ms) => {
                        plan.ejected.extend(candidate.number.map(|number| (region.id.clone(), number)));
                        unwell.push(candidate);
                    }
                    Ok(standing) => plan.candidates.push(Candidate { standing, ..candidate }),
                    Err(Excluded::Down) => {}
                    Err(_) => unwell.push(candidate),
                }
            }
            if plan.candidates.len() == others {
                plan.excluded.push((region.id.clone(), standing.err().unwrap_or(Excluded::Ejected)));
                plan.ejected.retain(|(id, _)| *id != region.id);
            }
        }
        plan.nearest = nearest.map(|(_, id)| id.clone());
        if plan.candidates.is_empty() {
            plan.excluded.retain(|(id, _)| !unwell.iter().any(|candidate| candidate.region == *id));
            plan.candidates = unwell;
        }
        // Addresses of one region stay in the order of their list.
        plan.candidates.sort_by_cached_key(|candidate| self.rank(ask, candidate, now_ms));
        plan
    }

    /// Standing, then where the client was before, then the strategy's order, then distance, then id.
    fn rank(
        &self,
        ask: &Ask<'_>,
        candidate: &Candidate,
        now_ms: u64,
    ) -> (Standing, bool, u64, u32, RegionId) {
        let place_in = |order: &[RegionId]| {
            order.iter().position(|id| *id == candidate.region).unwrap_or(order.len()) as u64
        };
        let order = match &ask.steering.strategy {
            Strategy::Nearest => 0,
            Strategy::Latency => {
                let measured = self.latencies.peek(&candidate.key());
                u64::from(latency::expected_ms(measured, candidate.distance_km, now_ms))
            }
            Strategy::Weighted(_) => choice::rank(&ask.seed(), &candidate.region, ask.weight(candidate)),
            Strategy::Priority(order) | Strategy::Pinned(order) => place_in(order),
            Strategy::Home => u64::from(candidate.region != ask.tenant.home_region),
        };
        let is_elsewhere = ask.sticky != Some(&*candidate.region);
        (candidate.standing, is_elsewhere, order, candidate.distance_km, candidate.region.clone())
    }

    fn standing(&self, ask: &Ask<'_>, region: &Region, now_ms: u64) -> Result<Standing, Excluded> {
        if region.state == RegionState::Down {
            return Err(Excluded::Down);
        }
        let is_fresh = self.heard.is_some_and(|heard| heard.age_ms(now_ms) <= NEWS_MS_MAX);
        let news = self.news.iter().find(|news| news.id == region.id && is_fresh);
        let is_unhealthy = news.is_some_and(|news| match ask.upstream {
            Some(upstream) => news.unhealthy.contains(&*upstream.service),
            None => !news.healthy,
        });
        if is_unhealthy {
            return Err(Excluded::Unhealthy);
        }
        let has_session = ask.positions.iter().any(|(ordinal, _)| *ordinal == region.ordinal)
            || ask.sticky == Some(&*region.id);
        if region.state == RegionState::Draining && !has_session {
            return Ok(Standing::Draining);
        }
        // Only the region's own origin has what sessions have seen.
        let own = news.filter(|_| ask.upstream.is_none());
        let is_behind = own.is_some_and(|news| is_behind(news, region.ordinal, ask.positions));
        Ok(if is_behind { Standing::Behind } else { Standing::Ready })
    }

    fn is_ejected(&self, ask: &Ask<'_>, candidate: &Candidate, now_ms: u64) -> bool {
        let experience = self.addresses.peek(&candidate.address());
        experience.is_some_and(|experience| experience.is_ejected(&ask.tenant.slug, now_ms))
    }

    /// Call before each attempt, `attempt` counting from 0. The first pays into the tenant's retry budget and is always
    /// allowed; each other takes from it, and `false` means that it is used up: don't try. An address on probation gets no
    /// second request until this one is answered.
    #[must_use]
    pub fn attempt(&mut self, tenant: &Arc<str>, candidate: &Candidate, attempt: u32, now_ms: u64) -> bool {
        let budget = self.budgets.get_or_insert_with(Arc::clone(tenant), RetryBudget::default);
        if attempt == 0 {
            budget.request();
        } else if !budget.retry(now_ms) {
            return false;
        }
        if let Some(experience) = self.addresses.get(&candidate.address()) {
            experience.each(tenant, |health| health.attempt(now_ms));
        }
        true
    }

    /// A connection for an attempt that may take `timeout_ms`, where the tenant uses fewer than `max` to the candidate's service.
    pub fn connect(
        &mut self,
        tenant: &Arc<str>,
        candidate: &Candidate,
        max: u32,
        timeout_ms: u32,
        now_ms: u64,
    ) -> Option<Connection> {
        let key = (Arc::clone(tenant), candidate.key());
        let connections = self.connections.get_or_insert_with(key, Connections::default);
        connections.take(max, timeout_ms, now_ms)
    }

    /// Takes the end of an attempt that was given up after so long because another one answered first. Its answer would have
    /// taken longer: it counts with what is known, or the percentile would fall with every answer that it makes nobody wait
    /// for, and a service that has become slow would never be known as such.
    pub fn given_up(&mut self, candidate: &Candidate, elapsed_ms: u64, now_ms: u64) {
        let elapsed_ms = u32::try_from(elapsed_ms).unwrap_or(u32::MAX);
        match self.latencies.get(&candidate.key()) {
            Some(latency) => latency.add_at_least(elapsed_ms, now_ms),
            None => self.latencies.insert(candidate.key(), Latency::new(elapsed_ms, now_ms)),
        }
    }

    /// The time within which 95 of 100 of a service's last answers came, where enough is known.
    #[must_use]
    pub fn percentile_95_ms(&self, candidate: &Candidate) -> Option<u32> {
        self.latencies.peek(&candidate.key())?.percentile_95_ms()
    }

    /// Takes the outcome of an attempt, and how long the head of a response took where one came.
    pub fn record(
        &mut self,
        tenant: &Arc<str>,
        candidate: &Candidate,
        outcome: AttemptOutcome,
        elapsed_ms: Option<u32>,
        now_ms: u64,
    ) {
        if let Some(elapsed_ms) = elapsed_ms {
            match self.latencies.get(&candidate.key()) {
                Some(latency) => latency.add(elapsed_ms, now_ms),
                None => self.latencies.insert(candidate.key(), Latency::new(elapsed_ms, now_ms)),
            }
        }
        if outcome == AttemptOutcome::Answered {
            if let Some(experience) = self.addresses.get(&candidate.address()) {
                experience.each(tenant, |health| health.answered(now_ms));
            }
            return;
        }
        let keyed = self.keyed;
        let new = || Experience { for_all: Health::default(), by_tenant: Bounded::new(TENANTS_MAX, keyed) };
        let experience = self.addresses.get_or_insert_with(candidate.address(), new);
        let health = match outcome {
            AttemptOutcome::FailedRoute => {
                experience.by_tenant.get_or_insert_with(Arc::clone(tenant), Health::default)
            }
            AttemptOutcome::Answered | AttemptOutcome::Failed => &mut experience.for_all,
        };
        health.failed(now_ms);
    }
}

impl Experience {
    fn is_ejected(&self, tenant: &str, now_ms: u64) -> bool {
        let of_tenant = self.by_tenant.peek(tenant);
        self.for_all.is_ejected(now_ms) || of_tenant.is_some_and(|health| health.is_ejected(now_ms))
    }

    /// Does this to all that counts for a tenant.
    fn each(&mut self, tenant: &str, mut change: impl FnMut(&mut Health)) {
        change(&mut self.for_all);
        self.by_tenant.get(tenant).map(change);
    }
}

/// Whether a region has not applied all that the session has seen. It has its own changes always.
fn is_behind(news: &RegionNews, ordinal: u16, positions: &[(u16, u64)]) -> bool {
    positions.iter().any(|(source, seen)| {
        let applied =
            || news.applied.iter().find(|(of, _)| of == source).map_or(0, |(_, position)| *position);
        *source != ordinal && applied() < *seen
    })
}

/// Whether a base URL leads to one of these, as far as the texts tell.
fn is_at_one_of(origins: &[Destination<'_>], base: &str) -> bool {
    let is_one = |to: Destination<'_>| origins.iter().any(|origin| origin.is_same(to));
    !origins.is_empty() && Destination::of(base).is_some_and(is_one)
}

impl Ask<'_> {
    /// Base URLs in a region, in order of preference: of its own origin, or of the upstream.
    fn bases<'b>(&'b self, region: &'b Region) -> &'b [Arc<str>] {
        let Some(upstream) = self.upstream else { return &region.origins };
        let there = upstream.regions.iter().find(|(id, _)| *id == region.id);
        there.map_or(&[][..], |(_, url)| std::slice::from_ref(url))
    }

    /// A candidate for each address of a region, as if nothing better were there.
    fn last_resorts<'b>(&'b self, region: &'b Region, distance_km: u32) -> impl Iterator<Item = Candidate> {
        let bases = self.bases(region);
        (1..).zip(bases).map(move |(number, base)| Candidate {
            region: region.id.clone(),
            ordinal: region.ordinal,
            service: self.upstream.map(|upstream| Arc::clone(&upstream.service)),
            base: Arc::clone(base),
            number: (bases.len() > 1).then_some(number),
            distance_km,
            standing: Standing::LastResort,
        })
    }

    /// Why a region that the tenant allows is none to choose from, whatever its health.
    fn excludes(&self, region: &Region, origins: &[Destination<'_>]) -> Option<Excluded> {
        let bases = self.bases(region);
        if matches!(&self.steering.strategy, Strategy::Pinned(only) if !only.contains(&region.id)) {
            Some(Excluded::NotPinned)
        } else if bases.is_empty() {
            Some(Excluded::NoUpstream)
        } else if bases.iter().any(|base| is_at_one_of(origins, base)) {
            Some(Excluded::AtAnOrigin)
        } else {
            None
        }
    }

    /// The origins of all regions, to none of which an upstream may lead; none where no upstream is asked for.
    fn forbidden_origins(&self) -> Vec<Destination<'_>> {
        let regions = self.upstream.map_or(&[][..], |_| self.platform.regions.as_slice());
        let origins = regions.iter().flat_map(|region| &region.origins);
        origins.filter_map(|origin| Destination::of(origin)).collect()
    }

    fn weight(&self, candidate: &Candidate) -> u32 {
        let own = || self.platform.regions.iter().find(|region| region.id == candidate.region);
        match &self.steering.strategy {
            Strategy::Weighted(weights) if !weights.is_empty() => {
                weights.get(&candidate.region).copied().unwrap_or(0)
            }
            _ => own().map_or(0, |region| region.weight),
        }
    }

    /// What an order by weight is drawn from: the client where it is to stay, and chance where not.
    fn seed(&self) -> Vec<u8> {
        match (self.steering.affinity, self.person) {
            (Affinity::Subject, Some(person)) => [b"s", person.as_bytes()].concat(),
            (Affinity::Subject | Affinity::Client, _) => match self.facts.client.to_canonical() {
                IpAddr::V4(address) => [b"4", &address.octets()[..]].concat(),
                IpAddr::V6(address) => [b"6", &(u128::from(address) >> 64).to_be_bytes()[..]].concat(),
            },
            (Affinity::None | Affinity::Cookie, _) => self.facts.random.to_vec(),
        }
    }
}

/// The nearest to a client of the regions that its tenant allows, whatever their health; by id among equals.
#[must_use]
pub fn nearest<'a>(regions: &'a [Region], tenant: &Tenant, place: &Place) -> Option<&'a RegionId> {
    let from = origin_of_distance(regions, tenant, place);
    let allowed = regions.iter().filter(|region| tenant.allowed_regions.contains(&region.id));
    let by_distance =
        allowed.map(|region| (from.map_or(0, |from| distance_km(from, point(region))), &region.id));
    by_distance.min().map(|(_, id)| id)
}

/// Where distances are measured from: the client, or the home region where nobody knows where the client is.
fn origin_of_distance(regions: &[Region], tenant: &Tenant, place: &Place) -> Option<Point<f64>> {
    let home = || regions.iter().find(|region| region.id == tenant.home_region).map(point);
    place.coordinates.or_else(home)
}

fn point(region: &Region) -> Point<f64> {
    Point::new(region.longitude, region.latitude)
}

/// Great-circle distance by the haversine formula on a sphere of 6,371 km, rounded.
fn distance_km(a: Point<f64>, b: Point<f64>) -> u32 {
    let (a_latitude, b_latitude) = (a.y().to_radians(), b.y().to_radians());
    let half_latitude = ((b_latitude - a_latitude) / 2.0).sin();
    let half_longitude = ((b.x() - a.x()).to_radians() / 2.0).sin();
    let h = half_latitude.powi(2) + a_latitude.cos() * b_latitude.cos() * half_longitude.powi(2);
    (2.0 * 6371.0 * h.clamp(0.0, 1.0).sqrt().asin()).round() as u32
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
