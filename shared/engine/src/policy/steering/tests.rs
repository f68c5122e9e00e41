//! Plans as requests meet them.

mod addresses;

use std::collections::BTreeSet;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::fixtures::{platform, request, route, ruleset, upstream};
use crate::limits::{EJECT_FAILURES, EJECT_MS_MIN};
use crate::ruleset::Strategy;

const NOW_MS: u64 = 1_800_000_000_000;
const US: &str = "us-east-1";
const EU: &str = "eu-west-1";
const AP: &str = "ap-southeast-1";

/// Id, ordinal, health and applied positions of a region.
type News<'a> = (&'a str, u16, bool, &'a [(u16, u64)]);

/// Everything that a plan is made from, to be changed by a test.
struct World {
    platform: Platform,
    tenant: Tenant,
    steering: Steering,
    facts: Facts,
    subject: Option<&'static str>,
    sticky: Option<&'static str>,
    positions: Vec<(u16, u64)>,
    upstream: Option<Upstream>,
    memory: SteeringMemory,
}

fn world() -> World {
    World {
        platform: platform(),
        tenant: ruleset(vec![]).tenant,
        steering: route("/").steering,
        facts: request("GET", "acme.example", "/"),
        subject: None,
        sticky: None,
        positions: vec![],
        upstream: None,
        memory: SteeringMemory::new(Keyed::default()),
    }
}

impl World {
    fn plan(&self, now_ms: u64) -> Plan {
        let ask = Ask {
            platform: &self.platform,
            tenant: &self.tenant,
            steering: &self.steering,
            facts: &self.facts,
            person: self.subject,
            sticky: self.sticky,
            positions: &self.positions,
            upstream: self.upstream.as_ref(),
        };
        self.memory.plan(&ask, now_ms)
    }

    fn order(&self, now_ms: u64) -> Vec<String> {
        self.plan(now_ms).candidates.iter().map(|candidate| candidate.region.to_string()).collect()
    }

    fn at(mut self, longitude: f64, latitude: f64) -> Self {
        self.facts.place.coordinates = Some(Point::new(longitude, latitude));
        self
    }

    fn hear(&mut self, news: &[News<'_>]) {
        let news = news.iter().map(|(id, ordinal, healthy, applied)| RegionNews {
            id: (*id).into(),
            ordinal: *ordinal,
            healthy: *healthy,
            applied: applied.to_vec(),
            unhealthy: BTreeSet::new(),
        });
        self.memory.heard(news.collect(), NOW_MS);
    }

    /// Regions are well; of each, these upstreams are not.
    fn hear_of_upstreams(&mut self, unhealthy: &[(&str, u16, &[&str])]) {
        let news = unhealthy.iter().map(|(id, ordinal, services)| RegionNews {
            id: (*id).into(),
            ordinal: *ordinal,
            healthy: true,
            applied: vec![],
            unhealthy: services.iter().map(|service| (*service).to_owned()).collect(),
        });
        self.memory.heard(news.collect(), NOW_MS);
    }

    fn fail(&mut self, region: &str, times: u32, now_ms: u64) {
        self.ends(AttemptOutcome::Failed, region, times, now_ms);
    }

    fn ends(&mut self, outcome: AttemptOutcome, region: &str, times: u32, now_ms: u64) {
        let tenant = Arc::from(self.tenant.slug.as_str());
        let plan = self.plan(now_ms);
        let candidate = plan.candidates.into_iter().find(|candidate| &*candidate.region == region).unwrap();
        for _ in 0..times {
            self.memory.record(&tenant, &candidate, outcome, None, now_ms);
        }
    }
}

fn acme() -> Arc<str> {
    "acme".into()
}

#[test]
fn the_nearest_region_is_by_great_circle() {
    assert_eq!(world().at(-6.26, 53.35).order(NOW_MS), [EU, US, AP], "Dublin");
    assert_eq!(world().at(139.7, 35.7).order(NOW_MS), [AP, EU, US], "Tokyo");
    assert_eq!(world().at(-122.4, 37.8).order(NOW_MS), [US, EU, AP], "San Francisco");
    assert_eq!(world().at(178.0, -18.0).order(NOW_MS)[0], AP, "Fiji, over the date line");
    assert_eq!(world().order(NOW_MS), [US, EU, AP], "nobody knows: from home");
}

#[test]
fn distances_are_those_of_the_globe() {
    let check = |a: (f64, f64), b: (f64, f64), expect: u32| {
        assert_eq!(distance_km(Point::new(a.0, a.1), Point::new(b.0, b.1)), expect);
    };
    check((0.0, 0.0), (0.0, 0.0), 0);
    check((0.0, 0.0), (180.0, 0.0), 20_015);
    check((0.0, 90.0), (123.0, -90.0), 20_015);
    check((-179.0, 0.0), (179.0, 0.0), 222);
    check((-0.1278, 51.5074), (2.3522, 48.8566), 344);
    check((f64::NAN, 0.0), (0.0, 0.0), 0);
}

#[test]
fn strategies_order_what_residency_allows() {
    let mut world = world().at(103.8, 1.35);
    world.steering.strategy = Strategy::Home;
    assert_eq!(world.order(NOW_MS), [US, AP, EU]);
    world.steering.strategy = Strategy::Priority(vec![EU.into(), "nowhere".into()]);
    assert_eq!(world.order(NOW_MS), [EU, AP, US]);
    world.tenant.allowed_regions = vec![US.into(), EU.into()];
    world.steering.strategy = Strategy::Priority(vec![AP.into(), US.into()]);
    let plan = world.plan(NOW_MS);
    assert_eq!(world.order(NOW_MS), [US, EU]);
    assert_eq!(plan.excluded, [(AP.into(), Excluded::Residency)]);
    assert_eq!(plan.nearest.as_deref(), Some(EU), "the nearest that is allowed");
}

#[test]
fn residency_holds_when_everything_else_is_lost() {
    let mut world = world();
    world.tenant.allowed_regions = vec![US.into()];
    world.hear(&[(US, 1, false, &[]), (EU, 2, true, &[]), (AP, 3, true, &[])]);
    let plan = world.plan(NOW_MS);
    assert_eq!(world.order(NOW_MS), [US]);
    assert_eq!(plan.candidates[0].standing, Standing::LastResort);
    world.platform.regions[2].state = RegionState::Down;
    assert!(world.order(NOW_MS).is_empty());
}

#[test]
fn unhealthy_and_down_regions_are_left_out_while_others_are_there() {
    let mut world = world();
    world.platform.regions[0].state = RegionState::Down;
    world.hear(&[(US, 1, false, &[]), (EU, 2, true, &[])]);
    assert_eq!(world.order(NOW_MS), [EU]);
    let excluded = world.plan(NOW_MS).excluded;
    assert_eq!(excluded, [(AP.into(), Excluded::Down), (US.into(), Excluded::Unhealthy)]);
    assert_eq!(world.order(NOW_MS + NEWS_MS_MAX + 1), [US, EU], "old news count for nothing");
    world.hear(&[(EU, 2, false, &[]), (US, 1, false, &[])]);
    assert_eq!(world.order(NOW_MS), [US, EU], "all unwell: better than nothing");
}

#[test]
fn an_upstream_whose_check_fails_is_left_out_while_it_is_well_elsewhere() {
    let mut world = world();
    let everywhere: Vec<(RegionId, String)> =
        [US, EU, AP].map(|id| (id.into(), format!("https://up-{id}.example"))).to_vec();
    world.upstream = Some(upstream(everywhere));
    let (service, other) = ("acme/r", "other/r");
    world.hear_of_upstreams(&[(US, 1, &[other, service]), (EU, 2, &[other]), (AP, 3, &[])]);
    assert_eq!(world.order(NOW_MS), [EU, AP]);
    assert_eq!(world.plan(NOW_MS).excluded, [(US.into(), Excluded::Unhealthy)]);
    assert_eq!(world.order(NOW_MS + NEWS_MS_MAX + 1)[0], US, "old news count for nothing");
    world.hear_of_upstreams(&[(US, 1, &[service]), (EU, 2, &[service]), (AP, 3, &[service])]);
    assert_eq!(world.order(NOW_MS), [US, EU, AP], "all unwell: better than nothing");
    let plan = world.plan(NOW_MS);
    assert!(plan.candidates.iter().all(|candidate| candidate.standing == Standing::LastResort));
    // The regions' own origins are none of it, and they say nothing of an upstream.
    world.upstream = None;
    assert!(world.plan(NOW_MS).excluded.is_empty());
    world.upstream = Some(upstream(vec![(US.into(), "https://up.example".into())]));
    world.hear(&[(US, 1, false, &[])]);
    assert_eq!(world.plan(NOW_MS).candidates[0].standing, Standing::Ready);
}

#[test]
fn a_region_is_ejected_probed_and_taken_back() {
    let mut world = world();
    world.fail(US, 2, NOW_MS);
    assert_eq!(world.order(NOW_MS)[0], US);
    world.fail(US, 1, NOW_MS);
    assert_eq!(world.order(NOW_MS), [EU, AP]);
    assert_eq!(world.plan(NOW_MS).excluded, [(US.into(), Excluded::Ejected)]);
    let later = NOW_MS + 1_000;
    let probe = world.plan(later).take_next().unwrap();
    assert_eq!(&*probe.region, US);
    assert!(world.memory.attempt(&acme(), &probe, 0, later));
    assert_eq!(world.order(later), [EU, AP], "one probe at a time");
    world.memory.record(&acme(), &probe, AttemptOutcome::Answered, Some(5), later);
    assert_eq!(world.order(later)[0], US);
}

#[test]
fn a_session_goes_where_it_is_caught_up_with() {
    let mut world = world();
    world.positions = vec![(1, 100), (2, 50)];
    world.hear(&[(US, 1, true, &[(2, 49)]), (EU, 2, true, &[(1, 100)]), (AP, 3, true, &[(1, 99), (2, 50)])]);
    assert_eq!(world.order(NOW_MS), [EU, US, AP]);
    let standing =
        |plan: Plan| plan.candidates.iter().map(|candidate| candidate.standing).collect::<Vec<_>>();
    assert_eq!(standing(world.plan(NOW_MS)), [Standing::Ready, Standing::Behind, Standing::Behind]);
    world.positions.clear();
    assert_eq!(world.order(NOW_MS), [US, EU, AP]);
}

#[test]
fn a_region_that_says_it_is_behind_sends_to_the_source() {
    let mut plan = world().at(-6.26, 53.35).plan(NOW_MS);
    assert_eq!(plan.take_next().unwrap().ordinal, 2);
    plan.prefer_source(&EU.into(), 3);
    assert_eq!(plan.candidates.iter().map(|candidate| candidate.ordinal).collect::<Vec<_>>(), [3, 1]);
    plan.prefer_source(&EU.into(), 9);
    assert_eq!(plan.take_next().unwrap().ordinal, 3);
    assert_eq!(plan.take_next().unwrap().ordinal, 1);
    assert_eq!(plan.take_next(), None);
}

#[test]
fn a_draining_region_keeps_its_sessions_and_gets_no_new_ones() {
    let mut world = world();
    world.platform.regions[2].state = RegionState::Draining;
    assert_eq!(world.order(NOW_MS), [EU, AP, US]);
    world.positions = vec![(1, 7)];
    assert_eq!(world.order(NOW_MS), [US, EU, AP]);
}

#[test]
fn an_upstream_has_its_own_addresses_and_its_own_health() {
    let mut world = world();
    world.fail(EU, 3, NOW_MS);
    world.hear(&[(US, 1, false, &[])]);
    let regions =
        vec![(US.into(), "https://us.example".to_owned()), (EU.into(), "https://eu.example".to_owned())];
    world.upstream = Some(upstream(regions));
    let plan = world.plan(NOW_MS);
    assert_eq!(world.order(NOW_MS), [US, EU]);
    assert_eq!(&*plan.candidates[1].base, "https://eu.example");
    assert_eq!(plan.candidates[1].service.as_deref(), Some("acme/r"));
    assert_eq!(plan.excluded, [(AP.into(), Excluded::NoUpstream)]);
}

#[test]
fn attempts_beyond_the_first_take_from_the_budget() {
    let mut world = world();
    let candidate = world.plan(NOW_MS).take_next().unwrap();
    assert!((0..10_000).all(|_| world.memory.attempt(&acme(), &candidate, 0, NOW_MS)));
    let retries = (0..10_000).filter(|_| world.memory.attempt(&acme(), &candidate, 1, NOW_MS)).count();
    assert_eq!(retries as u64, crate::limits::RETRY_TOKENS_MAX);
}

#[test]
fn only_pinned_regions_are_tried() {
    let mut world = world();
    world.steering.strategy = Strategy::Pinned(vec![AP.into(), EU.into()]);
    assert_eq!(world.order(NOW_MS), [AP, EU]);
    assert_eq!(world.plan(NOW_MS).excluded, [(US.into(), Excluded::NotPinned)]);
    world.tenant.allowed_regions = vec![US.into()];
    assert!(world.order(NOW_MS).is_empty(), "a pin is no leave to go where the tenant's data may not");
}

#[test]
fn the_fastest_region_is_first_until_its_measurement_is_old() {
    let mut world = world().at(-6.26, 53.35);
    world.steering.strategy = Strategy::Latency;
    assert_eq!(world.order(NOW_MS), [EU, US, AP], "nothing is known but the distance");
    let plan = world.plan(NOW_MS);
    for _ in 0..20 {
        world.memory.record(&acme(), &plan.candidates[0], AttemptOutcome::Answered, Some(900), NOW_MS);
        world.memory.record(&acme(), &plan.candidates[2], AttemptOutcome::Answered, Some(20), NOW_MS);
    }
    assert_eq!(world.order(NOW_MS), [AP, US, EU]);
    assert_eq!(world.order(NOW_MS + 600_000), [EU, US, AP]);
}

#[test]
fn weights_share_out_and_a_hash_keeps_a_client() {
    let mut world = world();
    world.steering.strategy = Strategy::Weighted([(US.into(), 1), (EU.into(), 1), (AP.into(), 0)].into());
    let first = |world: &mut World, random: u8| {
        world.facts.random = [random; 16];
        world.order(NOW_MS)
    };
    let chosen: Vec<_> = (0..=255).map(|random| first(&mut world, random)).collect();
    assert!(chosen.iter().all(|order| order[2] == AP), "a weight of 0 is for when the others fail");
    let share = chosen.iter().filter(|order| order[0] == EU).count();
    assert!((96..160).contains(&share), "{share} of 256");
    world.steering.affinity = Affinity::Subject;
    world.subject = Some("ada");
    let kept = first(&mut world, 0);
    assert!((1..=255).all(|random| first(&mut world, random) == kept));
    let others = ["bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida"];
    let orders: Vec<_> = others
        .iter()
        .map(|subject| {
            world.subject = Some(subject);
            first(&mut world, 0)
        })
        .collect();
    assert!(orders.iter().any(|order| *order != kept), "not everybody goes there");
}

#[test]
fn a_cookie_keeps_a_client_where_it_was_as_long_as_that_is_well() {
    let mut world = world();
    world.sticky = Some(AP);
    assert_eq!(world.order(NOW_MS), [AP, US, EU]);
    world.platform.regions[0].state = RegionState::Draining;
    assert_eq!(world.order(NOW_MS), [AP, US, EU], "a session that it has");
    world.fail(AP, 3, NOW_MS);
    assert_eq!(world.order(NOW_MS), [US, EU]);
    world.tenant.allowed_regions = vec![US.into()];
    assert_eq!(world.order(NOW_MS + 60_000), [US], "residency beats a cookie");
}

proptest! {
    #[test]
    fn residency_and_determinism_hold_whatever_is_known(
        allowed in proptest::collection::vec(0usize..3, 0..3),
        states in proptest::collection::vec(0u8..3, 3),
        healthy in proptest::collection::vec(any::<bool>(), 3),
        failures in proptest::collection::vec(0u32..5, 3),
        place in proptest::option::of((-180.0f64..180.0, -90.0f64..90.0)),
        positions in proptest::collection::vec((1u16..4, 0u64..10), 0..3),
        strategy in 0usize..6,
        sticky in proptest::option::of(0usize..3),
    ) {
        let ids = [AP, EU, US];
        let mut world = world();
        world.facts.place.coordinates = place.map(|(x, y)| Point::new(x, y));
        for (at, count) in failures.iter().enumerate() {
            world.fail(ids[at], *count, NOW_MS);
        }
        world.tenant.allowed_regions = allowed.iter().map(|at| ids[*at].into()).collect();
        for (region, state) in world.platform.regions.iter_mut().zip(&states) {
            region.state = [RegionState::Active, RegionState::Draining, RegionState::Down][usize::from(*state)];
        }
        world.hear(&[(AP, 3, healthy[0], &[(1, 5)]), (EU, 2, healthy[1], &[]), (US, 1, healthy[2], &[(2, 5)])]);
        world.positions = positions;
        world.sticky = sticky.map(|at| ids[at]);
        let order = || vec![EU.into(), AP.into(), US.into()];
        world.steering.strategy = [
            Strategy::Nearest,
            Strategy::Latency,
            Strategy::Weighted([(AP.into(), 5)].into()),
            Strategy::Priority(order()),
            Strategy::Pinned(order()),
            Strategy::Home,
        ][strategy].clone();
        let plan = world.plan(NOW_MS);
        prop_assert_eq!(&plan, &world.plan(NOW_MS));
        let usable = |id: &str| {
            let at = ids.iter().position(|have| *have == id).unwrap();
            allowed.contains(&at) && states[at] != 2
        };
        prop_assert!(plan.candidates.iter().all(|candidate| usable(&candidate.region)));
        prop_assert_eq!(plan.candidates.is_empty(), !ids.iter().any(|id| usable(id)));
        for pair in plan.candidates.windows(2) {
            prop_assert!(pair[0].standing <= pair[1].standing);
        }
    }
}

#[test]
fn what_one_tenant_asks_for_ejects_no_region_for_another() {
    let mut world = world();
    world.ends(AttemptOutcome::FailedRoute, US, 20, NOW_MS);
    assert_eq!(world.order(NOW_MS), [EU, AP]);
    world.tenant.slug = "globex".to_owned();
    assert_eq!(world.order(NOW_MS), [US, EU, AP]);
    // A region that nobody reaches is known to all.
    world.ends(AttemptOutcome::Failed, US, EJECT_FAILURES, NOW_MS);
    assert_eq!(world.order(NOW_MS), [EU, AP]);
    world.tenant.slug = "third".to_owned();
    assert_eq!(world.order(NOW_MS), [EU, AP]);
    // One that answers again is as well as before, but for whom it still does not do what is asked.
    let later = NOW_MS + EJECT_MS_MIN;
    world.ends(AttemptOutcome::Answered, US, 1, later);
    assert_eq!(world.order(later), [US, EU, AP]);
    world.tenant.slug = "acme".to_owned();
    assert_eq!(world.order(later - 1), [EU, AP]);
    world.ends(AttemptOutcome::Answered, US, 1, later);
    assert_eq!(world.order(later - 1), [US, EU, AP]);
}

#[test]
fn a_tenants_retries_are_its_own() {
    let mut world = world();
    let candidate = world.plan(NOW_MS).candidates.remove(0);
    let mut retry = |tenant: &str| world.memory.attempt(&tenant.into(), &candidate, 1, NOW_MS);
    assert!((0..10_000).any(|_| !retry("acme")));
    assert!(retry("globex"));
}
