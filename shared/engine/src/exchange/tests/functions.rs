//! What comes of requests that go through a function.

use super::*;
use crate::ruleset::{Fail, Function};
use crate::step::{FunctionFailure, FunctionFault, Ran};

/// A function of a tenant.
pub(super) fn function(fail: Fail) -> Function {
    Function {
        rule: rule("Function"),
        sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into(),
        component_bytes: 1_000,
        memory_bytes_max: 2_000_000,
        cpu_ms_max: 50,
        timeout_ms: 900,
        fail,
    }
}

/// Rules of one open route through a function.
fn rules(fail: Fail) -> Ruleset {
    let mut rules = ruleset(vec![route("/**")]);
    rules.functions.push(function(fail));
    rules.routes[0].function = Some(0);
    rules
}

fn ran(status: u16, ran: Ran) -> Result<ResponseHead, ForwardFault> {
    ok(status, &[]).map(|head| ResponseHead { ran: Some(ran), ..head })
}

fn failed(sent_on: bool) -> Result<ResponseHead, ForwardFault> {
    Err(ForwardFault::Function(FunctionFault { why: FunctionFailure::Cpu, sent_on }))
}

fn post() -> Facts {
    let mut facts = request("POST", "acme.example", "/");
    facts.body = BodySize::Bytes(10);
    facts
}

#[test]
fn an_attempt_says_which_function_of_whom_and_what_it_may() {
    let mut host = Host::new(rules(Fail::Closed));
    host.says("us-east-1", ran(200, Ran::SentOn));
    let reply = host.get("/");
    let call = host.forwards[0].function.clone().unwrap();
    assert_eq!((&*call.tenant, &*call.name, call.bundle.as_str()), ("acme", "r", "00000000000000aa"));
    assert_eq!((call.memory_bytes_max, call.cpu_ms_max, call.timeout_ms), (2_000_000, 50, 900));
    let said = stages(&reply);
    assert!(said.contains("sent on") && said.contains("0123456789abcdef"), "{said}");
    assert_eq!(reply.headers.get("meridian-region"), Some("us-east-1"));
}

#[test]
fn what_a_function_answers_by_itself_says_nothing_of_the_region() {
    let mut host = Host::new(rules(Fail::Closed));
    for _ in 0..10 {
        host.says("us-east-1", ran(503, Ran::Answered));
        let reply = host.get("/");
        assert_eq!((reply.status, reply.headers.get("meridian-region")), (503, Some("edge")));
        assert!(stages(&reply).contains("answered by itself"), "{}", stages(&reply));
    }
    assert!(host.regions().iter().all(|region| *region == "us-east-1"), "{:?}", host.regions());
}

#[test]
fn a_failure_of_the_target_goes_to_the_next_region_through_the_function_again() {
    for first in [ran(503, Ran::SentOn), Err(ForwardFault::Connect)] {
        let mut host = Host::new(rules(Fail::Open));
        host.says("us-east-1", first);
        host.says("eu-west-1", ran(200, Ran::SentOn));
        assert_eq!(host.get("/").status, 200);
        assert!(host.forwards.len() == 2 && host.forwards.iter().all(|forward| forward.function.is_some()));
    }
}

#[test]
fn a_function_that_fails_closed_ends_the_request_and_no_region_is_blamed() {
    let mut host = Host::new(rules(Fail::Closed));
    for _ in 0..10 {
        host.says("us-east-1", failed(false));
        let reply = host.get("/");
        assert_eq!((reply.status, reply.decision.outcome), (502, Outcome::Failed));
        assert!(body(&reply)["type"].as_str().unwrap().ends_with("function-failed"));
        assert!(stages(&reply).contains("failed: cpu"), "{}", stages(&reply));
    }
    assert!(host.regions().iter().all(|region| *region == "us-east-1"));
}

#[test]
fn one_that_fails_open_is_left_out_where_nobody_saw_the_request() {
    for facts in [request("GET", "acme.example", "/"), post()] {
        let mut rules = rules(Fail::Open);
        // Leaving it out is no other attempt.
        rules.routes[0].steering.attempts_max = 1;
        let mut host = Host::new(rules);
        host.says("us-east-1", failed(false));
        host.says("us-east-1", ok(200, &[]));
        let has_body = facts.body != BodySize::Empty;
        let reply = host.send(facts);
        assert_eq!((reply.status, host.regions()), (200, vec!["us-east-1", "us-east-1"]));
        assert_eq!(host.forwards[0].keep_body, has_body);
        assert!(host.forwards[0].function.is_some() && host.forwards[1].function.is_none());
        assert!(stages(&reply).contains("failed: cpu; forwarded without it"), "{}", stages(&reply));
    }
}

#[test]
fn one_that_fails_open_still_fails_where_its_request_may_have_been_seen_or_its_body_is_gone() {
    let mut long = post();
    long.body = BodySize::Bytes(crate::limits::REPLAY_BODY_BYTES_MAX + 1);
    for (facts, sent_on) in [(request("GET", "acme.example", "/"), true), (long, false)] {
        let mut host = Host::new(rules(Fail::Open));
        host.says("us-east-1", failed(sent_on));
        assert_eq!((host.send(facts).status, host.forwards.len()), (502, 1));
    }
}
