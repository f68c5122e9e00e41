//! What the host answers by itself, to a request or to a client that never sent a whole one.

use std::{
    fmt::Write as _,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode};
use meridian_engine::{problem::Problem, refusal::Refusal};

/// The problem, with what every reply of an edge says; `trace` is the request's `traceparent`.
pub fn refusal(problem: &Problem, trace: Option<&HeaderValue>, elapsed: Duration) -> Refusal {
    let trace = trace.and_then(|trace| trace.to_str().ok());
    let request = trace.map(|trace| ("traceparent", trace)).into_iter().collect();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    Refusal::new(problem, &request, now_ms, random(), elapsed)
}

/// A problem as the last answer on a connection of HTTP/1.1 (RFC 9112), for where no server is at hand that would write it.
pub fn last_answer(problem: &Problem) -> Vec<u8> {
    let refusal = refusal(problem, None, Duration::ZERO);
    tracing::info!(
        decision = refusal.decision,
        status = refusal.status,
        "the host answers: {}",
        problem.title
    );
    let reason = StatusCode::from_u16(refusal.status).ok().and_then(|status| status.canonical_reason());
    let date = httpdate::fmt_http_date(SystemTime::now());
    let reason = reason.unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\ndate: {date}\r\nconnection: close\r\n", refusal.status);
    for (name, value) in refusal.headers.iter() {
        // Writing into a string does not fail.
        let _written = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    [head.into_bytes(), refusal.body].concat()
}

/// Random bits that tell decisions apart; nothing secret is made of them.
fn random() -> [u8; 16] {
    // Each state has keys of its own, made from the operating system's randomness.
    let bits = || RandomState::new().build_hasher().finish();
    (u128::from(bits()) << 64 | u128::from(bits())).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_whole() {
        let problem = Problem::new(408, "head-too-slow", "The request's head came too slowly");
        let text = String::from_utf8(last_answer(&problem)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\ndate: "), "{head}");
        for field in ["connection: close", "meridian-region: edge", "content-type: application/problem+json"]
        {
            assert!(head.lines().any(|line| line == field), "{head}");
        }
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("head-too-slow"), "{body}");
    }

    #[test]
    fn no_two_refusals_have_one_decision() {
        let problem = Problem::new(503, "overloaded", "Too many");
        let decision = || refusal(&problem, None, Duration::ZERO).decision;
        assert_ne!(decision(), decision());
        assert_ne!(random(), random());
    }
}
