//! Several edges of one authority, and the bound on what passes through all of them.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Edges of one authority, and what passed through them.
struct Crowd {
    authority: Authority,
    edges: Vec<LimitMemory>,
    /// Those whose answers are still on their way.
    waiting: VecDeque<Asking>,
    /// Units of the limit `l` that the authority counted.
    granted: u64,
    /// When, by nobody's clock, and how many units of `l`.
    passed: Vec<(u64, u32)>,
}

struct Asking {
    edge: usize,
    cost: u32,
    check: LimitCheck,
    answers: Vec<Option<Lease>>,
}

/// What becomes of an authority's answer.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Comes,
    IsLate,
    IsLost,
}

/// How far the clocks of the edges are ahead, and the authority's.
const EDGES_AHEAD_MS: [u64; 3] = [0, 7_000, 20_000];
const AUTHORITY_AHEAD_MS: u64 = 10_000;

impl Crowd {
    fn new() -> Self {
        Self {
            authority: Authority::default(),
            edges: EDGES_AHEAD_MS.iter().map(|_| memory()).collect(),
            waiting: VecDeque::new(),
            granted: 0,
            passed: Vec::new(),
        }
    }

    /// Drives a request to its end, or to where its answer does not come yet.
    fn go_on(&mut self, mut asking: Asking, fate: Fate, now_ms: u64) {
        let edge_ms = now_ms + EDGES_AHEAD_MS[asking.edge];
        loop {
            match asking.check.poll(&mut self.edges[asking.edge], &secret(7), edge_ms) {
                LimitVerdict::Passed(_) => return self.passed.push((now_ms, asking.cost)),
                LimitVerdict::Denied(..) => return,
                LimitVerdict::NeedTake(takes) => {
                    asking.answers.clear();
                    for take in &takes {
                        let lease = self.authority.take(take, now_ms + AUTHORITY_AHEAD_MS);
                        self.granted += u64::from(lease.granted) * u64::from(take.limit == "l");
                        asking.answers.push(Some(lease));
                    }
                }
            }
            match fate {
                Fate::Comes => {
                    asking.check.taken(&mut self.edges[asking.edge], &asking.answers, edge_ms);
                }
                Fate::IsLate => return self.waiting.push_back(asking),
                Fate::IsLost => return,
            }
        }
    }

    /// The answer that has been on its way for longest comes.
    fn answer(&mut self, now_ms: u64) {
        if let Some(mut asking) = self.waiting.pop_front() {
            let edge_ms = now_ms + EDGES_AHEAD_MS[asking.edge];
            asking.check.taken(&mut self.edges[asking.edge], &asking.answers, edge_ms);
            self.go_on(asking, Fate::Comes, now_ms);
        }
    }

    /// The first time before the last request in which more passed than may: its length, what passed and what may.
    fn exceeded(&self, rule: &RateLimit) -> Option<(u64, u64, u64)> {
        let (end_ms, _) = *self.passed.last()?;
        let mut sum = 0;
        self.passed.iter().rev().find_map(|(at_ms, cost)| {
            sum += u64::from(*cost);
            let (span_ms, bound) = (end_ms - at_ms, passed_max(rule, 1, end_ms - at_ms));
            (sum > bound).then_some((span_ms, sum, bound))
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Several edges with clocks of their own, requests of several costs, some of which another limit refuses so that they
    /// give back what they got, answers that come late and such that never do.
    #[test]
    fn in_any_time_no_more_passes_than_the_bound(
        sliding in any::<bool>(),
        burst in 40u32..3_000,
        dear in 2u32..40,
        events in proptest::collection::vec(
            (0usize..3, prop_oneof![0u64..50, 0u64..5_000], 0usize..3, 0u8..8),
            1..400,
        ),
    ) {
        let (algorithm, quota) =
            if sliding { (LimitAlgorithm::SlidingWindow, burst) } else { (LimitAlgorithm::Gcra, 120) };
        let rule = RateLimit { algorithm, ..limit("l", LimitScope::Region, quota, burst) };
        let of = |cost| RateLimit { cost: Cost::Units(cost), ..rule.clone() };
        let never = RateLimit { window_ms: 3_600_000, ..limit("never", LimitScope::Region, 1, 1) };
        let kinds = [
            (1, rules(vec![of(1)])),
            (dear, rules(vec![of(dear)])),
            (dear, rules(vec![of(dear), never])),
        ];
        let (mut crowd, mut now_ms) = (Crowd::new(), NOW_MS);
        for (edge, step_ms, kind, fate) in events {
            now_ms += step_ms;
            let (cost, rules) = &kinds[kind];
            let asking =
                Asking { edge, cost: *cost, check: check(rules, "192.0.2.1"), answers: Vec::new() };
            match fate {
                0 => crowd.answer(now_ms),
                1 => crowd.go_on(asking, Fate::IsLate, now_ms),
                2 => crowd.go_on(asking, Fate::IsLost, now_ms),
                _ => crowd.go_on(asking, Fate::Comes, now_ms),
            }
            let passed: u64 = crowd.passed.iter().map(|(_, cost)| u64::from(*cost)).sum();
            prop_assert!(passed <= crowd.granted, "{passed} of {}", crowd.granted);
            prop_assert_eq!(crowd.exceeded(&rule), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Windows up to the longest, and bursts of which no count would hold how long they take to come back.
    #[test]
    fn however_much_may_come_at_once_no_more_passes_than_the_bound(
        sliding in any::<bool>(),
        scope in prop_oneof![Just(LimitScope::Node), Just(LimitScope::Region)],
        quota in prop_oneof![1u32..20, any::<u32>().prop_map(|quota| quota.max(1))],
        window_ms in 1_000u64..=366 * 86_400_000,
        burst in prop_oneof![1u32..100_000, any::<u32>().prop_map(|burst| burst.max(1))],
        events in proptest::collection::vec((prop_oneof![0u64..5, 0u64..86_400_000], 1u32..=100), 1..60),
    ) {
        let (algorithm, burst) =
            if sliding { (LimitAlgorithm::SlidingWindow, quota) } else { (LimitAlgorithm::Gcra, burst) };
        let rule = RateLimit { algorithm, window_ms, ..limit("l", scope, quota, burst) };
        let (mut crowd, mut now_ms) = (Crowd::new(), NOW_MS);
        for (step_ms, percent) in events {
            now_ms += step_ms;
            let cost = (burst / 100).saturating_mul(percent).max(1);
            let rules = rules(vec![RateLimit { cost: Cost::Units(cost), ..rule.clone() }]);
            let asking = Asking { edge: 0, cost, check: check(&rules, "192.0.2.1"), answers: Vec::new() };
            crowd.go_on(asking, Fate::Comes, now_ms);
            prop_assert_eq!(crowd.exceeded(&rule), None);
        }
    }
}

#[test]
fn what_another_limit_refuses_keeps_nothing_beyond_its_time() {
    let rule = limit("l", LimitScope::Region, 600, 1_600);
    let of = |cost| RateLimit { cost: Cost::Units(cost), ..rule.clone() };
    let never = RateLimit { window_ms: 3_600_000, ..limit("never", LimitScope::Region, 1, 1) };
    let (once, cheap) = (rules(vec![never.clone()]), rules(vec![of(1)]));
    let refused = rules(vec![of(150), never]);
    let mut crowd = Crowd::new();
    let mut go = |rules, cost, now_ms| {
        let asking = Asking { edge: 0, cost, check: check(rules, "192.0.2.1"), answers: Vec::new() };
        crowd.go_on(asking, Fate::Comes, now_ms);
        assert_eq!(crowd.exceeded(&rule), None);
    };
    go(&once, 0, NOW_MS);
    // Leases of ever more units, 15 of which are left; a request that gets 150 and gives them back; then all that can be had.
    for _ in 0..16 {
        go(&cheap, 1, NOW_MS);
    }
    go(&refused, 150, NOW_MS + 4_000);
    for _ in 0..2_000 {
        go(&cheap, 1, NOW_MS + 8_900);
    }
    assert!(crowd.passed.len() > 1_600, "{}", crowd.passed.len());
}
