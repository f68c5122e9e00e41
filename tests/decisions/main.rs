//! The decision corpus, natively: every case comes out as its file says.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use meridian_engine::step::Verify;
use meridian_tests::corpus::{self, expect};
use meridian_wire::signature::verify_token;

/// Least number of cases: fewer means that files were lost.
const CASES_MIN: usize = 150;

#[test]
fn every_case_comes_out_as_its_file_says() {
    let cases = corpus::prepare().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let differences = expect::differences(&case.expect, &decide(&case.input));
        if !differences.is_empty() {
            wrong.push(format!("{}: {}\n  {}", case.name, case.about, differences.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
}

fn decide(input: &[u8]) -> Vec<u8> {
    let verify = async |asked: &Verify, _now_ms| verify_token(asked);
    let mut run = pin!(meridian_corpus::run(input, verify));
    match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("nothing here waits"),
    }
}
