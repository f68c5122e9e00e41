//! Limits as a request meets them, with the authority played by the real one.

use super::*;
use crate::expr::{Comparison, Expr, Fact, Value};
use crate::fixtures::request;
use crate::fixtures::{route, ruleset};
use crate::ruleset::{LimitKey, Route, RuleRef};

mod crowd;

const NOW_MS: u64 = 1_800_000_000_000;

pub(super) fn limit(name: &str, scope: LimitScope, quota: u32, burst: u32) -> RateLimit {
    RateLimit {
        rule: RuleRef { kind: "RateLimit", name: name.into(), file: "limits.yaml".into(), line: 1 },
        key: vec![LimitKey::Client],
        algorithm: LimitAlgorithm::Gcra,
        quota,
        window_ms: 60_000,
        burst,
        cost: Cost::Units(1),
        scope,
        fail: Fail::Closed,
        mode: Mode::Block,
    }
}

fn rules(limits: Vec<RateLimit>) -> (Ruleset, Route) {
    let mut route = route("/");
    route.limits = (0..limits.len()).collect();
    let mut ruleset = ruleset(vec![route.clone()]);
    ruleset.limits = limits;
    (ruleset, route)
}

fn check((ruleset, route): &(Ruleset, Route), client: &str) -> LimitCheck {
    let mut facts = request("GET", "acme.example", "/");
    facts.client = client.parse().unwrap();
    let inputs = Inputs::anonymous(&facts, "acme");
    LimitCheck::new(ruleset, &route.limits, &inputs, None, || &ruleset.tenant.home_region)
}

fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 32])
}

fn memory() -> LimitMemory {
    LimitMemory::new(Keyed::default())
}

/// Drives one request to its end. `None` for the authority: it is away.
fn drive(
    memory: &mut LimitMemory,
    mut check: LimitCheck,
    mut authority: Option<&mut Authority>,
    now_ms: u64,
) -> (Result<LimitReport, Denial>, usize) {
    let mut asked = 0;
    loop {
        match check.poll(memory, &secret(7), now_ms) {
            LimitVerdict::Passed(report) => return (Ok(report), asked),
            LimitVerdict::Denied(_, denial) => return (Err(denial), asked),
            LimitVerdict::NeedTake(takes) => {
                asked += takes.len();
                let answers: Vec<_> = takes
                    .iter()
                    .map(|take| authority.as_mut().map(|authority| authority.take(take, now_ms)))
                    .collect();
                check.taken(memory, &answers, now_ms);
            }
        }
    }
}

#[test]
fn a_node_limit_counts_each_client_by_itself() {
    let (mut memory, rules) = (memory(), rules(vec![limit("l", LimitScope::Node, 60, 3)]));
    let mut pass = |client: &str, now_ms| drive(&mut memory, check(&rules, client), None, now_ms).0;
    for left in [2, 1, 0] {
        assert_eq!(pass("192.0.2.1", NOW_MS).unwrap().limits[0].remaining, left);
    }
    let denial = pass("192.0.2.1", NOW_MS).unwrap_err();
    assert_eq!((denial.status, denial.retry_after_s, denial.violated), (429, 1, vec!["l".to_owned()]));
    assert!(pass("192.0.2.2", NOW_MS).is_ok());
    assert!(
        pass("::ffff:192.0.2.2", NOW_MS).is_ok_and(|report| report.limits[0].remaining == 1),
        "the same client"
    );
    assert!(pass("2001:db8::1", NOW_MS).is_ok());
    assert!(pass("2001:db8::2", NOW_MS).is_ok_and(|report| report.limits[0].remaining == 1), "the same /64");
    assert!(
        pass("2001:db8:0:1::1", NOW_MS).is_ok_and(|report| report.limits[0].remaining == 2),
        "another /64"
    );
    assert!(pass("192.0.2.1", NOW_MS + 1_000).is_ok(), "one unit came back");
}

#[test]
fn nothing_is_taken_where_one_limit_says_no() {
    let rules = rules(vec![
        limit("wide", LimitScope::Node, 60, 10),
        limit("region", LimitScope::Region, 60, 10),
        limit("tight", LimitScope::Node, 60, 1),
    ]);
    let (mut memory, mut authority) = (memory(), Authority::default());
    let report = drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS).0.unwrap();
    assert_eq!(report.limits.iter().map(|limit| limit.remaining).collect::<Vec<_>>(), [9, 9, 0]);
    for _ in 0..20 {
        let (outcome, asked) = drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS);
        assert_eq!((outcome.unwrap_err().violated, asked), (vec!["tight".to_owned()], 0));
    }
    let report =
        drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS + 1_000).0.unwrap();
    assert_eq!(report.limits[0].remaining, 9, "nine and one that came back, less this one");
}

#[test]
fn what_the_authority_set_aside_goes_back_where_another_limit_says_no() {
    let rules = rules(vec![limit("a", LimitScope::Region, 60, 100), limit("b", LimitScope::Region, 60, 1)]);
    let (mut memory, mut authority) = (memory(), Authority::default());
    assert!(drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS).0.is_ok());
    let (outcome, asked) = drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS);
    assert_eq!((outcome.unwrap_err().violated, asked), (vec!["b".to_owned()], 2));
    let mut third = check(&rules, "192.0.2.1");
    let LimitVerdict::Denied(report, _) = third.poll(&mut memory, &secret(7), NOW_MS) else { panic!() };
    assert_eq!(report.limits[0].remaining, 99, "what was granted for the second is still here");
}

#[test]
fn a_limit_is_asked_about_when_its_units_are_gone_once_another_has_answered() {
    let limits = ["a", "b"].map(|name| limit(name, LimitScope::Region, 600, 600));
    let (first, both) = (rules(vec![limits[0].clone()]), rules(limits.to_vec()));
    let (mut memory, mut authority) = (memory(), Authority::default());
    for _ in 0..2 {
        assert!(drive(&mut memory, check(&first, "192.0.2.1"), Some(&mut authority), NOW_MS).0.is_ok());
    }
    let mut check_both = check(&both, "192.0.2.1");
    let mut asked = Vec::new();
    let report = loop {
        match check_both.poll(&mut memory, &secret(7), NOW_MS) {
            LimitVerdict::Passed(report) => break report,
            LimitVerdict::Denied(_, denial) => panic!("{denial:?}"),
            LimitVerdict::NeedTake(takes) => {
                asked.push(takes.iter().map(|take| take.limit.clone()).collect::<Vec<_>>());
                // Meanwhile another request spends what was left of `a`.
                let other = drive(&mut memory, check(&first, "192.0.2.1"), None, NOW_MS).0;
                assert_eq!(other.is_ok(), asked.len() == 1);
                let answers: Vec<_> = takes.iter().map(|take| Some(authority.take(take, NOW_MS))).collect();
                check_both.taken(&mut memory, &answers, NOW_MS);
            }
        }
    };
    assert_eq!(asked, [["b"], ["a"]]);
    assert_eq!(report.limits.iter().map(|limit| limit.exceeded).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn a_busy_key_asks_ever_more_rarely_and_gets_its_whole_quota() {
    let rules = rules(vec![limit("l", LimitScope::Region, 300, 300)]);
    let (mut memory, mut authority) = (memory(), Authority::default());
    let (mut passed, mut asked) = (0, 0);
    for _ in 0..400 {
        let (outcome, asks) = drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS);
        passed += u32::from(outcome.is_ok());
        asked += asks;
    }
    assert_eq!(passed, 300);
    assert!(asked < 400 / 3, "{asked}");
}

#[test]
fn an_authority_that_said_no_is_not_asked_for_every_request() {
    let rules = rules(vec![limit("l", LimitScope::Region, 1, 1)]);
    let (mut memory, mut authority) = (memory(), Authority::default());
    let mut pass = |now_ms| {
        let (outcome, asked) = drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), now_ms);
        (outcome.map(|_| ()).map_err(|denial| denial.retry_after_s), asked)
    };
    assert_eq!(pass(NOW_MS), (Ok(()), 1));
    assert_eq!(pass(NOW_MS), (Err(60), 1));
    assert_eq!(pass(NOW_MS + 999), (Err(60), 0));
    assert_eq!(pass(NOW_MS + 1_000), (Err(59), 1));
    assert_eq!(pass(NOW_MS + 60_000), (Ok(()), 1));
}

#[test]
fn a_request_that_costs_too_much_stops_no_cheaper_one() {
    let of =
        |cost| rules(vec![RateLimit { cost: Cost::Units(cost), ..limit("l", LimitScope::Region, 60, 10) }]);
    let (cheap, dear) = (of(1), of(8));
    let (mut memory, mut authority) = (memory(), Authority::default());
    let mut pass = |rules| {
        let (outcome, asked) = drive(&mut memory, check(rules, "192.0.2.1"), Some(&mut authority), NOW_MS);
        (outcome.map(|_| ()).map_err(|denial| denial.retry_after_s), asked)
    };
    assert_eq!(pass(&dear), (Ok(()), 1));
    assert_eq!(pass(&dear), (Err(6), 1));
    assert_eq!(pass(&dear), (Err(6), 0), "it said no just now");
    assert_eq!(pass(&cheap), (Ok(()), 1), "two are left");
    assert_eq!(pass(&cheap), (Ok(()), 1));
    assert_eq!(pass(&cheap), (Err(1), 1));
    assert_eq!(pass(&cheap), (Err(1), 0));
}

#[test]
fn the_rule_says_what_happens_while_the_authority_is_away() {
    let outcome = |fail, mode| {
        let rules = rules(vec![RateLimit { fail, mode, ..limit("l", LimitScope::Region, 60, 10) }]);
        drive(&mut memory(), check(&rules, "192.0.2.1"), None, NOW_MS).0
    };
    assert!(outcome(Fail::Open, Mode::Block).is_ok_and(|report| report.limits[0].away == Some(Fail::Open)));
    assert!(outcome(Fail::Closed, Mode::Log).is_ok_and(|report| report.limits[0].away == Some(Fail::Closed)));
    let denial = outcome(Fail::Closed, Mode::Block).unwrap_err();
    assert_eq!((denial.status, denial.problem_type), (503, fields::REDUCED_CAPACITY));
}

#[test]
fn when_there_is_more_is_told_to_who_passes_and_to_who_does_not() {
    for (algorithm, more_ms) in [(LimitAlgorithm::Gcra, 20_000), (LimitAlgorithm::SlidingWindow, 66_000)] {
        for scope in [LimitScope::Node, LimitScope::Global] {
            let rules = rules(vec![RateLimit { algorithm, ..limit("l", scope, 3, 3) }]);
            let (mut memory, mut authority) = (memory(), Authority::default());
            let mut told = || {
                let mut check = check(&rules, "192.0.2.1");
                loop {
                    match check.poll(&mut memory, &secret(7), NOW_MS) {
                        LimitVerdict::Passed(report) => return (report.limits[0].more_ms, None),
                        LimitVerdict::Denied(report, denial) => {
                            return (report.limits[0].more_ms, Some(denial.retry_after_s));
                        }
                        LimitVerdict::NeedTake(takes) => {
                            let answers: Vec<_> =
                                takes.iter().map(|take| Some(authority.take(take, NOW_MS))).collect();
                            check.taken(&mut memory, &answers, NOW_MS);
                        }
                    }
                }
            };
            let passed = [told(), told(), told()];
            assert_eq!(passed, [(Some(more_ms), None); 3], "{algorithm:?} {scope:?}");
            assert_eq!(told(), (Some(more_ms), Some(more_ms / 1_000)), "{algorithm:?} {scope:?}");
        }
    }
}

#[test]
fn nobody_is_told_to_come_again_before_there_is_more() {
    // More than the window bears is refused for a window's time, and the slot that is full goes a tenth of it later.
    let of = |cost| {
        let algorithm = LimitAlgorithm::SlidingWindow;
        rules(vec![RateLimit { algorithm, cost: Cost::Units(cost), ..limit("l", LimitScope::Node, 3, 3) }])
    };
    let mut memory = memory();
    assert!(drive(&mut memory, check(&of(3), "192.0.2.1"), None, NOW_MS).0.is_ok());
    let denial = drive(&mut memory, check(&of(4), "192.0.2.1"), None, NOW_MS).0.unwrap_err();
    assert_eq!((denial.status, denial.retry_after_s), (429, 66));
}

#[test]
fn no_limit_is_told_beside_one_that_nobody_can_count() {
    let slow = RateLimit { window_ms: 3_600_000, ..limit("slow", LimitScope::Node, 10, 10) };
    let told = |fail| {
        let away = RateLimit { fail, ..limit("away", LimitScope::Region, 60, 10) };
        let rules = rules(vec![slow.clone(), away]);
        let (mut memory, mut check) = (memory(), check(&rules, "192.0.2.1"));
        let LimitVerdict::NeedTake(_) = check.poll(&mut memory, &secret(7), NOW_MS) else { panic!() };
        check.taken(&mut memory, &[None], NOW_MS);
        let report = match check.poll(&mut memory, &secret(7), NOW_MS) {
            LimitVerdict::Passed(report) | LimitVerdict::Denied(report, _) => report,
            LimitVerdict::NeedTake(takes) => panic!("{takes:?}"),
        };
        report.told().map(|limit| limit.name.to_string())
    };
    assert_eq!(told(Fail::Open).as_deref(), Some("slow"));
    assert_eq!(told(Fail::Closed), None);
}

#[test]
fn leases_go_on_while_the_authority_is_away_and_lapse() {
    let rules = rules(vec![limit("l", LimitScope::Region, 600, 600)]);
    let (mut memory, mut authority) = (memory(), Authority::default());
    for _ in 0..4 {
        assert!(drive(&mut memory, check(&rules, "192.0.2.1"), Some(&mut authority), NOW_MS).0.is_ok());
    }
    assert!(drive(&mut memory, check(&rules, "192.0.2.1"), None, NOW_MS + 1).0.is_ok(), "from the lease");
    assert!(drive(&mut memory, check(&rules, "192.0.2.1"), None, NOW_MS + 5_000).0.is_err(), "lapsed");
}

#[test]
fn a_shadow_limit_only_reports() {
    let rules = rules(vec![RateLimit { mode: Mode::Log, ..limit("l", LimitScope::Node, 1, 1) }]);
    let mut memory = memory();
    let mut exceeded =
        || drive(&mut memory, check(&rules, "192.0.2.1"), None, NOW_MS).0.unwrap().limits[0].exceeded;
    assert_eq!([exceeded(), exceeded(), exceeded()], [false, true, true]);
}

#[test]
fn another_shape_of_the_limit_drops_what_was_leased_and_keeps_what_was_counted() {
    let mut memory = memory();
    let mut authority = Authority::default();
    let old = rules(vec![limit("l", LimitScope::Region, 600, 600)]);
    for _ in 0..10 {
        assert!(drive(&mut memory, check(&old, "192.0.2.1"), Some(&mut authority), NOW_MS).0.is_ok());
    }
    let new = rules(vec![limit("l", LimitScope::Region, 60, 5)]);
    let (outcome, asked) = drive(&mut memory, check(&new, "192.0.2.1"), Some(&mut authority), NOW_MS);
    assert_eq!((outcome.is_ok(), asked), (true, 1));
}

#[test]
fn keys_of_all_kinds_are_told_apart() {
    let hash = |tenant: &str, keys: Vec<LimitKey>, headers: &[(&str, &str)]| {
        let mut facts = request("GET", "acme.example", "/");
        facts.headers = headers.iter().copied().collect();
        key::hash(
            tenant,
            &RateLimit { key: keys, ..limit("l", LimitScope::Node, 1, 1) },
            &Inputs::anonymous(&facts, tenant),
            None,
        )
    };
    let header = |name: &str| LimitKey::Header(name.to_owned());
    let hashes = [
        hash("acme", vec![LimitKey::Tenant], &[]),
        hash("globex", vec![LimitKey::Tenant], &[]),
        hash("acme", vec![LimitKey::Client], &[]),
        hash("acme", vec![LimitKey::Client, LimitKey::Tenant], &[]),
        hash("acme", vec![header("a")], &[]),
        hash("acme", vec![header("a")], &[("a", "")]),
        hash("acme", vec![header("a")], &[("a", "x")]),
        hash("acme", vec![header("a"), header("b")], &[("a", "xy"), ("b", "")]),
        hash("acme", vec![header("a"), header("b")], &[("a", "x"), ("b", "y")]),
    ];
    for (at, one) in hashes.iter().enumerate() {
        assert!(hashes.iter().skip(at + 1).all(|other| other != one), "{at}");
    }
    let subject = hash("acme", vec![LimitKey::Subject], &[]);
    assert_eq!(subject, hashes[2], "no subject: the client");
}

#[test]
fn who_counts_elsewhere_gets_a_hash_that_takes_the_secret_to_make() {
    let facts = request("GET", "acme.example", "/");
    let inputs = Inputs::anonymous(&facts, "acme");
    for scope in [LimitScope::Region, LimitScope::Global] {
        let rules = rules(vec![limit("l", scope, 1, 1)]);
        let told = |byte| {
            let mut check = check(&rules, "192.0.2.1");
            match check.poll(&mut memory(), &secret(byte), NOW_MS) {
                LimitVerdict::NeedTake(takes) => takes[0].key.clone(),
                verdict => panic!("{verdict:?}"),
            }
        };
        assert_eq!(told(7), told(7), "the same on every edge");
        assert_ne!(told(7), told(8));
        let own = key::hash("acme", &rules.0.limits[0], &inputs, None);
        assert_ne!(told(7), URL_SAFE_NO_PAD.encode(own), "what the edge remembers does not leave it");
    }
}

#[test]
fn an_expression_says_whom_and_how_much() {
    let fact = |name: &str| Expr::Fact(Fact::Header(name.to_owned()));
    let units = |units| Box::new(Expr::Literal(Value::Int(units)));
    let is_large = Box::new(Expr::Fact(Fact::QueryText));
    let is_large = Box::new(Expr::Compare(
        Comparison::NotEqual,
        is_large,
        Box::new(Expr::Literal(Value::Text(String::new()))),
    ));
    let rule = RateLimit {
        key: vec![LimitKey::Expr(fact("x-device"))],
        cost: Cost::Expr(Expr::Choose(is_large, units(3), units(-1))),
        ..limit("l", LimitScope::Node, 60, 10)
    };
    let (ruleset, route) = rules(vec![rule]);
    let mut memory = memory();
    let mut remaining = |device: &str, query: Option<&str>| {
        let mut facts = request("GET", "acme.example", "/");
        facts.headers.append("x-device", device);
        facts.query = query.map(str::to_owned);
        let inputs = Inputs::anonymous(&facts, "acme");
        let check = LimitCheck::new(&ruleset, &route.limits, &inputs, None, || &ruleset.tenant.home_region);
        drive(&mut memory, check, None, NOW_MS).0.unwrap().limits[0].remaining
    };
    assert_eq!(remaining("a", Some("all")), 7);
    assert_eq!(remaining("a", None), 6, "nobody passes uncounted");
    assert_eq!(remaining("b", None), 9);
}

#[test]
fn a_sliding_window_is_counted_here_and_by_its_authority() {
    for (scope, has_authority) in [(LimitScope::Node, false), (LimitScope::Global, true)] {
        let rule = RateLimit { algorithm: LimitAlgorithm::SlidingWindow, ..limit("l", scope, 40, 40) };
        let rules = rules(vec![rule]);
        let (mut memory, mut authority) = (memory(), Authority::default());
        let mut pass = |now_ms| {
            let authority = has_authority.then_some(&mut authority);
            drive(&mut memory, check(&rules, "192.0.2.1"), authority, now_ms).0.is_ok()
        };
        assert_eq!((0..100).filter(|_| pass(NOW_MS)).count(), 40, "{scope:?}");
        assert!(!pass(NOW_MS + 60_000), "{scope:?}: the slot that had begun counts to its end");
        assert!(pass(NOW_MS + 66_000), "{scope:?}");
    }
}

#[test]
fn a_global_limit_is_counted_at_home_and_a_regions_own_there() {
    let asked = |scope| {
        let (mut ruleset, route) = rules(vec![limit("l", scope, 60, 10)]);
        ruleset.tenant.home_region = "eu-west-1".into();
        let facts = request("GET", "acme.example", "/");
        let inputs = Inputs::anonymous(&facts, "acme");
        let nearest = "us-east-1".into();
        let mut check = LimitCheck::new(&ruleset, &route.limits, &inputs, None, || &nearest);
        match check.poll(&mut memory(), &secret(7), NOW_MS) {
            LimitVerdict::NeedTake(takes) => takes[0].region.to_string(),
            verdict => panic!("{verdict:?}"),
        }
    };
    assert_eq!(asked(LimitScope::Region), "us-east-1");
    assert_eq!(asked(LimitScope::Global), "eu-west-1");
}
