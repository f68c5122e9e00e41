//! A second attempt beside a slow one: the first good answer wins, a failure waits for the other.

use super::*;
use crate::limits::{EJECT_FAILURES, HEDGE_AFTER_MS_MIN, LATENCY_RECENT_MIN, RETRY_TOKENS_MAX};
use crate::ruleset::{Hedge, Strategy};

fn hedged(hedge: Hedge) -> Host {
    let mut open = route("/**");
    open.steering.hedge = Some(hedge);
    open.steering.timeout_ms = 1_000;
    let mut host = Host::new(ruleset(vec![open]));
    host.get("/before");
    host
}

/// Drives an exchange up to its first attempt.
fn begin(host: &mut Host, facts: Facts) -> (Exchange, Forward) {
    let (mut exchange, mut step) = Exchange::begin(&mut host.node, Facts { now_ms: host.now_ms, ..facts });
    loop {
        step = match step {
            Step::Forward(forward) => return (exchange, *forward),
            step => {
                let answer = host.answer(step);
                exchange.resume(&mut host.node, answer, host.now_ms)
            }
        }
    }
}

fn get(host: &mut Host) -> (Exchange, Forward) {
    begin(host, request("GET", "acme.example", "/"))
}

fn resume(host: &mut Host, exchange: &mut Exchange, after_ms: u64, answer: Answer) -> Step {
    host.now_ms += after_ms;
    exchange.resume(&mut host.node, answer, host.now_ms)
}

fn answered(attempt: u32, result: Result<ResponseHead, ForwardFault>) -> Answer {
    Answer::Forwarded { attempt, result }
}

fn reply(step: Step) -> Reply {
    let Step::Reply(reply) = step else { panic!("{step:?}") };
    *reply
}

fn forward(step: Step) -> Forward {
    let Step::Forward(forward) = step else { panic!("{step:?}") };
    *forward
}

#[test]
fn the_first_good_answer_wins_and_the_other_is_given_up() {
    for winner in [0, 1] {
        let mut host = hedged(Hedge::After(80));
        let (mut exchange, first) = get(&mut host);
        assert_eq!((first.attempt, first.patience_ms), (0, Some(80)));
        let second = forward(resume(&mut host, &mut exchange, 80, Answer::Slow));
        assert_eq!((second.attempt, second.patience_ms), (1, None), "no third beside the second");
        assert_ne!(first.region, second.region);
        let reply = reply(resume(&mut host, &mut exchange, 20, answered(winner, ok(200, &[]))));
        let won = if winner == 0 { &first } else { &second };
        assert_eq!(reply.headers.get("meridian-region"), won.region.as_deref());
        let told = stages(&reply);
        assert!(told.contains("hedge       no answer yet, another region is asked too"), "{told}");
        let lost = if winner == 0 { &second } else { &first };
        let line = format!(
            "given up: another region answered first  region={} attempt={}",
            lost.region.as_deref().unwrap(),
            lost.attempt
        );
        assert!(told.contains(&line), "{told}");
    }
}

#[test]
fn a_failure_waits_for_the_other_and_only_two_failures_fail() {
    let mut host = hedged(Hedge::After(80));
    let (mut exchange, _) = get(&mut host);
    resume(&mut host, &mut exchange, 80, Answer::Slow);
    let step = resume(&mut host, &mut exchange, 5, answered(1, ok(503, &[])));
    assert!(matches!(step, Step::Await), "{step:?}");
    let answer = resume(&mut host, &mut exchange, 500, answered(0, ok(200, &[])));
    assert_eq!(reply(answer).status, 200);

    let (mut exchange, _) = get(&mut host);
    resume(&mut host, &mut exchange, 80, Answer::Slow);
    resume(&mut host, &mut exchange, 5, answered(1, Err(ForwardFault::Connect)));
    let third = forward(resume(&mut host, &mut exchange, 900, answered(0, Err(ForwardFault::Timeout))));
    assert_eq!((third.attempt, third.patience_ms), (2, None));
}

#[test]
fn what_was_given_up_is_no_failure_but_is_known_to_be_slow() {
    let mut open = route("/**");
    open.steering.hedge = Some(Hedge::After(80));
    open.steering.strategy = Strategy::Latency;
    let mut host = Host::new(ruleset(vec![open]));
    host.get("/before");
    let mut regions = Vec::new();
    for _ in 0..2 * EJECT_FAILURES {
        let (mut exchange, first) = get(&mut host);
        regions.push(first.region.unwrap().to_string());
        resume(&mut host, &mut exchange, 80, Answer::Slow);
        let mut quick = ok(200, &[]).unwrap();
        quick.elapsed_ms = 10;
        resume(&mut host, &mut exchange, 90, answered(1, Ok(quick)));
    }
    assert_eq!(regions.first().map(String::as_str), Some("us-east-1"));
    assert!(regions.iter().any(|region| region != "us-east-1"), "never known to be slow: {regions:?}");

    let mut host = hedged(Hedge::After(80));
    for _ in 0..2 * EJECT_FAILURES {
        let (mut exchange, first) = get(&mut host);
        assert_eq!(first.region.as_deref(), Some("us-east-1"), "not ejected");
        resume(&mut host, &mut exchange, 80, Answer::Slow);
        resume(&mut host, &mut exchange, 90, answered(1, ok(200, &[])));
    }
}

#[test]
fn a_hedge_that_the_budget_refuses_leaves_the_other_region_for_a_failure() {
    let mut open = route("/**");
    open.steering.hedge = Some(Hedge::After(80));
    open.steering.strategy = Strategy::Priority(vec!["us-east-1".into(), "eu-west-1".into()]);
    let mut host = Host::new(ruleset(vec![open]));
    host.get("/before");
    loop {
        let (mut exchange, _) = get(&mut host);
        if matches!(resume(&mut host, &mut exchange, 0, Answer::Slow), Step::Await) {
            // The budget grows again by the second.
            let second =
                forward(resume(&mut host, &mut exchange, 1_000, answered(0, Err(ForwardFault::Timeout))));
            assert_eq!(second.region.as_deref(), Some("eu-west-1"));
            return;
        }
        resume(&mut host, &mut exchange, 0, answered(0, ok(200, &[])));
    }
}

#[test]
fn hedges_are_paid_from_the_retry_budget() {
    let mut host = hedged(Hedge::After(80));
    let mut hedges = 0;
    for _ in 0..1_000 {
        let (mut exchange, _) = get(&mut host);
        let second = matches!(resume(&mut host, &mut exchange, 0, Answer::Slow), Step::Forward(_));
        hedges += u64::from(second);
        resume(&mut host, &mut exchange, 0, answered(0, ok(200, &[])));
    }
    assert!((RETRY_TOKENS_MAX..RETRY_TOKENS_MAX + 1_000 / 4).contains(&hedges), "{hedges}");
}

#[test]
fn only_safe_requests_without_a_body_are_hedged() {
    let mut host = hedged(Hedge::After(80));
    let mut patience = |method: &str, body| {
        let facts = Facts { body, ..request(method, "acme.example", "/") };
        begin(&mut host, facts).1.patience_ms
    };
    assert_eq!(patience("HEAD", BodySize::Empty), Some(80));
    assert_eq!(patience("GET", BodySize::Bytes(1)), None);
    assert_eq!(patience("PUT", BodySize::Empty), None);
    assert_eq!(patience("DELETE", BodySize::Empty), None);

    let mut alone = route("/**");
    alone.steering.hedge = Some(Hedge::After(80));
    alone.steering.strategy = Strategy::Pinned(vec!["eu-west-1".into()]);
    let mut host = Host::new(ruleset(vec![alone]));
    assert_eq!(get(&mut host).1.patience_ms, None, "there is no other region");
}

#[test]
fn the_percentile_is_that_of_the_region_and_nothing_is_known_at_first() {
    let mut host = hedged(Hedge::Percentile95);
    let region = get(&mut host).1.region;
    for number in 1..LATENCY_RECENT_MIN as u32 {
        assert_eq!(get(&mut host).1.patience_ms, None, "{number}");
        let mut head = ok(200, &[]).unwrap();
        head.elapsed_ms = number * 10;
        host.says("us-east-1", Ok(head));
        host.get("/");
    }
    let (_, first) = get(&mut host);
    assert_eq!((first.region, first.patience_ms), (region, Some(180)), "of 5, 10, 20 … 190 ms");
    for _ in 0..100 {
        host.get("/");
    }
    assert_eq!(get(&mut host).1.patience_ms, Some(HEDGE_AFTER_MS_MIN));
}

#[test]
fn a_hedge_is_at_another_region_and_a_failure_at_the_next_address() {
    let mut open = route("/**");
    open.steering.hedge = Some(Hedge::After(80));
    let mut host = Host::new(ruleset(vec![open]));
    let mut platform = platform();
    for region in &mut platform.regions {
        region.origins.push(format!("http://{}.second.example", region.id).into());
    }
    host.platform = Some(Arc::new(platform));
    host.get("/before");
    let (mut exchange, first) = get(&mut host);
    let second = forward(resume(&mut host, &mut exchange, 80, Answer::Slow));
    assert_eq!((first.region.as_deref(), second.region.as_deref()), (Some("us-east-1"), Some("eu-west-1")));

    let (mut exchange, first) = get(&mut host);
    assert_eq!(first.patience_ms, Some(80));
    let second = forward(resume(&mut host, &mut exchange, 5, answered(0, Err(ForwardFault::Connect))));
    assert_eq!((second.url.as_str(), second.patience_ms), ("http://us-east-1.second.example/", Some(80)));
}
