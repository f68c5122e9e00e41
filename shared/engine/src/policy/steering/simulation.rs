//! Edges and thousands of clients in virtual time, while a region, or one address of it, dies, flaps, is slow and comes back.
//! Everything is drawn from one seed, so that what fails once fails again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;
use crate::fixtures::{platform, request, route, ruleset};

const US: &str = "us-east-1";
const EU: &str = "eu-west-1";
const AP: &str = "ap-southeast-1";
const EDGES: usize = 6;
const CLIENTS: u64 = 4_000;
/// Requests a second of each edge.
const RATE: u64 = 50;
const START_MS: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 1_000;
const ATTEMPTS: u32 = 3;
/// Weights by region: what each gets when all are well.
const WEIGHTS: [(&str, u32); 3] = [(US, 5), (EU, 3), (AP, 2)];

/// What happens to the region in the middle, or to the first address that it has, by second.
const DEAD: std::ops::Range<u64> = 60..90;
const FLAPPING: std::ops::Range<u64> = 150..180;
const SLOW: std::ops::Range<u64> = 240..270;
const END_S: u64 = 360;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// One request on its way.
struct Flight {
    edge: usize,
    begun_s: u64,
    restricted: bool,
    plan: Plan,
    candidate: Candidate,
    attempt: u32,
    succeeds: bool,
    elapsed_ms: u64,
}

/// What was seen.
#[derive(Default)]
struct Seen {
    /// Attempts by second and region.
    attempts: BTreeMap<(u64, RegionId), u64>,
    /// Those at the first of several addresses of a region, by second.
    firsts: BTreeMap<u64, u64>,
    /// Requests, and those that nobody answered, by the second in which they began.
    requests: BTreeMap<u64, u64>,
    lost: BTreeMap<u64, u64>,
    forbidden: u64,
}

struct World {
    platform: Platform,
    tenants: [Tenant; 2],
    steering: Steering,
    edges: Vec<SteeringMemory>,
    random: Random,
    seen: Seen,
}

/// Whether a region answers an attempt that begins now, and after how long.
fn behaviour(candidate: &Candidate, at_ms: u64, random: &mut Random) -> (bool, u64) {
    let at_s = (at_ms - START_MS) / 1_000;
    let usual_ms = 10 + random.next() % 20;
    match &*candidate.region {
        _ if candidate.number.is_some_and(|number| number > 1) => (true, usual_ms),
        EU if DEAD.contains(&at_s) => (false, 1),
        EU if FLAPPING.contains(&at_s) && at_s % 4 < 2 => (false, 1),
        EU if SLOW.contains(&at_s) => (false, TIMEOUT_MS),
        _ => (true, usual_ms),
    }
}

impl World {
    /// A world whose region in the middle has as many addresses.
    fn new(seed: u64, addresses: usize) -> Self {
        let mut platform = platform();
        for region in platform.regions.iter_mut().filter(|region| &*region.id == EU) {
            region.origins = (0..addresses).map(|number| format!("http://{number}.example").into()).collect();
        }
        let everywhere = ruleset(vec![]).tenant;
        let mut restricted = everywhere.clone();
        restricted.slug = "restricted".to_owned();
        restricted.allowed_regions = vec![US.into(), EU.into()];
        let mut steering = route("/").steering;
        steering.strategy = Strategy::Weighted(WEIGHTS.map(|(id, weight)| (id.into(), weight)).into());
        steering.affinity = Affinity::Client;
        Self {
            platform,
            tenants: [everywhere, restricted],
            steering,
            edges: (0..EDGES).map(|_| SteeringMemory::new(Keyed::default())).collect(),
            random: Random(seed),
            seen: Seen::default(),
        }
    }

    fn begin(&mut self, edge: usize, now_ms: u64) -> Option<Flight> {
        let client = self.random.next() % CLIENTS;
        let restricted = client.is_multiple_of(2);
        let mut facts = request("GET", "acme.example", "/");
        facts.client = IpAddr::from((0x0a00_0000 + client as u32).to_be_bytes());
        let ask = Ask {
            platform: &self.platform,
            tenant: &self.tenants[usize::from(restricted)],
            steering: &self.steering,
            facts: &facts,
            person: None,
            sticky: None,
            positions: &[],
            upstream: None,
        };
        let mut plan = self.edges[edge].plan(&ask, now_ms);
        let begun_s = (now_ms - START_MS) / 1_000;
        *self.seen.requests.entry(begun_s).or_default() += 1;
        let candidate = plan.take_next()?;
        self.attempt(
            Flight { edge, begun_s, restricted, plan, candidate, attempt: 0, succeeds: false, elapsed_ms: 0 },
            now_ms,
        )
    }

    /// Sends a flight on its way, unless the budget forbids it.
    fn attempt(&mut self, mut flight: Flight, now_ms: u64) -> Option<Flight> {
        let tenant = self.slug(&flight);
        if !self.edges[flight.edge].attempt(&tenant, &flight.candidate, flight.attempt, now_ms) {
            return self.lose(&flight);
        }
        let (region, second) = (flight.candidate.region.clone(), (now_ms - START_MS) / 1_000);
        self.seen.forbidden += u64::from(flight.restricted && &*region == AP);
        *self.seen.firsts.entry(second).or_default() += u64::from(flight.candidate.number == Some(1));
        (flight.succeeds, flight.elapsed_ms) = behaviour(&flight.candidate, now_ms, &mut self.random);
        *self.seen.attempts.entry((second, region)).or_default() += 1;
        Some(flight)
    }

    fn slug(&self, flight: &Flight) -> Arc<str> {
        self.tenants[usize::from(flight.restricted)].slug.as_str().into()
    }

    fn lose(&mut self, flight: &Flight) -> Option<Flight> {
        *self.seen.lost.entry(flight.begun_s).or_default() += 1;
        None
    }

    /// A flight has come back: the next attempt, if it failed and there is one.
    fn landed(&mut self, mut flight: Flight, now_ms: u64) -> Option<Flight> {
        let outcome = match flight.succeeds {
            true => AttemptOutcome::Answered,
            false if flight.elapsed_ms >= TIMEOUT_MS => AttemptOutcome::FailedRoute,
            false => AttemptOutcome::Failed,
        };
        let tenant = self.slug(&flight);
        let elapsed_ms = flight.succeeds.then(|| u32::try_from(flight.elapsed_ms).unwrap());
        self.edges[flight.edge].record(&tenant, &flight.candidate, outcome, elapsed_ms, now_ms);
        if flight.succeeds {
            return None;
        }
        flight.attempt += 1;
        match flight.plan.take_next().filter(|_| flight.attempt < ATTEMPTS) {
            Some(next) => {
                flight.candidate = next;
                self.attempt(flight, now_ms)
            }
            None => self.lose(&flight),
        }
    }

    fn run(mut self) -> Seen {
        let mut flights: BTreeMap<u64, Flight> = BTreeMap::new();
        let mut landings: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut number = 0;
        let mut depart =
            |flight: Flight, now_ms, flights: &mut BTreeMap<_, _>, landings: &mut BinaryHeap<_>| {
                number += 1;
                landings.push(Reverse((now_ms + flight.elapsed_ms, number)));
                flights.insert(number, flight);
            };
        for now_ms in START_MS..START_MS + END_S * 1_000 {
            while let Some(Reverse((_, number))) = landings.peek().copied().filter(|next| next.0.0 <= now_ms)
            {
                landings.pop();
                let flight = flights.remove(&number).unwrap();
                if let Some(flight) = self.landed(flight, now_ms) {
                    depart(flight, now_ms, &mut flights, &mut landings);
                }
            }
            for edge in 0..EDGES {
                if (now_ms + edge as u64).is_multiple_of(1_000 / RATE)
                    && let Some(flight) = self.begin(edge, now_ms)
                {
                    depart(flight, now_ms, &mut flights, &mut landings);
                }
            }
        }
        self.seen
    }
}

impl Seen {
    fn attempts(&self, region: &str, seconds: std::ops::Range<u64>) -> u64 {
        let of = |id: &str| id.is_empty() || id == region;
        let inside = self
            .attempts
            .iter()
            .filter(|((second, id), _)| seconds.contains(second) && (region.is_empty() || of(id)));
        inside.map(|(_, count)| count).sum()
    }

    fn sum(counts: &BTreeMap<u64, u64>, seconds: std::ops::Range<u64>) -> u64 {
        counts.range(seconds).map(|(_, count)| count).sum()
    }

    /// How the load is shared, in per cent, in the order of [`WEIGHTS`].
    fn shares(&self, seconds: std::ops::Range<u64>) -> [f64; 3] {
        let all = self.attempts("", seconds.clone()) as f64;
        WEIGHTS.map(|(region, _)| 100.0 * self.attempts(region, seconds.clone()) as f64 / all)
    }
}

#[test]
fn a_region_fails_in_every_way_and_comes_back() {
    for seed in [1, 20_261_120] {
        let seen = World::new(seed, 1).run();

        assert_eq!(seen.forbidden, 0, "seed {seed}: residency beats everything");

        // No request that began after the first second of the death was lost.
        let dead = Seen::sum(&seen.lost, DEAD.start + 1..DEAD.end);
        assert_eq!(dead, 0, "seed {seed}: lost while a region was dead");

        // No retry storm: a fifth of the requests may be tried again, and what the budget had at first.
        for trouble in [DEAD, FLAPPING, SLOW] {
            let (attempts, requests) =
                (seen.attempts("", trouble.clone()), Seen::sum(&seen.requests, trouble.clone()));
            let budget = requests / 5 + EDGES as u64 * (100 + 3 * (trouble.end - trouble.start));
            assert!(attempts <= requests + budget, "seed {seed}, {trouble:?}: {attempts} for {requests}");
        }

        // A dead region is only probed, ever more rarely: six times by each edge in half a minute.
        let probes = seen.attempts(EU, DEAD.start + 2..DEAD.end);
        assert!(probes <= EDGES as u64 * 6, "seed {seed}: {probes} attempts at a dead region");

        // Before, and a minute after each trouble at the latest, the load is in proportion again.
        let usual = seen.shares(0..DEAD.start);
        for after in [DEAD.end + 40..FLAPPING.start, FLAPPING.end + 40..SLOW.start, SLOW.end + 40..END_S] {
            let shares = seen.shares(after.clone());
            for (share, usual) in shares.iter().zip(usual) {
                assert!((share - usual).abs() < 2.0, "seed {seed}, {after:?}: {shares:?}, before {usual:?}");
            }
        }
    }
}

#[test]
fn an_address_fails_in_every_way_and_its_region_goes_on_with_the_other() {
    for seed in [1, 20_261_120] {
        let seen = World::new(seed, 2).run();
        assert_eq!(seen.forbidden, 0, "seed {seed}");
        assert_eq!(
            Seen::sum(&seen.lost, DEAD.start + 1..DEAD.end),
            0,
            "seed {seed}: lost though one was well"
        );

        // What is dead is only probed, as a region is.
        let probes = Seen::sum(&seen.firsts, DEAD.start + 2..DEAD.end);
        assert!(probes <= EDGES as u64 * 6, "seed {seed}: {probes} attempts at a dead address");

        // No other region is asked in its place, whatever happens to it.
        let usual = seen.shares(0..DEAD.start);
        for trouble in [DEAD, FLAPPING, SLOW] {
            let shares = seen.shares(trouble.start + 2..trouble.end);
            for (share, usual) in shares.iter().zip(usual) {
                assert!(
                    (share - usual).abs() < 5.0,
                    "seed {seed}, {trouble:?}: {shares:?}, usually {usual:?}"
                );
            }
        }

        // It is preferred again once it is well.
        let after = DEAD.end + 40..FLAPPING.start;
        assert_eq!(Seen::sum(&seen.firsts, after.clone()), seen.attempts(EU, after), "seed {seed}");
    }
}
