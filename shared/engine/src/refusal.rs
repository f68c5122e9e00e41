//! What a host answers by itself, where no exchange can be begun or its reply can't be sent.

use std::fmt;
use std::time::Duration;

use crate::decision::decision_id;
use crate::headers::Headers;
use crate::problem::{MEDIA_TYPE, Problem};
use crate::trace::Trace;

/// A reply that no rule had a part in. It says all the same who decided, as every reply does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Id of the decision: that of the exchange, where there was one with the same time and random bits.
    pub decision: String,
    /// Status code.
    pub status: u16,
    /// Header fields, complete.
    pub headers: Headers,
    /// The problem as JSON.
    pub body: Vec<u8>,
}

impl Refusal {
    /// The reply to a request with these header fields. `now_ms` and `random` are what [`Facts`](crate::facts::Facts)
    /// have or would have; `elapsed` is the time since the request came.
    #[must_use]
    pub fn new(
        problem: &Problem,
        request: &Headers,
        now_ms: u64,
        random: [u8; 16],
        elapsed: Duration,
    ) -> Self {
        let decision = decision_id(now_ms, random);
        let body = problem.body(&decision);
        let mut headers = problem_headers(problem);
        headers.append("content-length", body.len().to_string());
        say_who(&mut headers, &decision, None, None);
        headers.append_display("traceparent", Trace::of(request, random));
        headers.append_display("server-timing", ServerTiming { edge: elapsed, origin: Duration::ZERO });
        Self { decision, status: problem.status, headers, body }
    }
}

/// Header fields that a problem has wherever it is told, and its own.
pub(crate) fn problem_headers(problem: &Problem) -> Headers {
    let mut headers = Headers::with_capacity(16);
    headers.append("content-type", MEDIA_TYPE);
    headers.append("cache-control", "no-store");
    for (name, value) in problem.headers.iter() {
        headers.append(name, value);
    }
    headers
}

/// Tells the client who decided: the edge itself where no region answered, by no bundle where none had a part.
pub(crate) fn say_who(headers: &mut Headers, decision: &str, region: Option<&str>, bundle: Option<&str>) {
    headers.append("meridian-decision", decision);
    headers.append("meridian-region", region.unwrap_or("edge"));
    headers.append("meridian-bundle", bundle.unwrap_or("none"));
}

/// The value of `Server-Timing` (W3C): how long the edge and the targets took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct ServerTiming {
    /// Time at the edge.
    pub edge: Duration,
    /// Time spent waiting for targets.
    pub origin: Duration,
}

impl fmt::Display for ServerTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |time: Duration| time.as_micros() / 100;
        let (edge, origin) = (tenths(self.edge), tenths(self.origin));
        write!(f, "edge;dur={}.{}, origin;dur={}.{}", edge / 10, edge % 10, origin / 10, origin % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_every_reply_says() {
        let problem = Problem::new(503, "busy", "Too much").header("retry-after", "1");
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = Headers::from_iter([("traceparent", parent)]);
        let refusal = Refusal::new(&problem, &request, 5, [7; 16], Duration::from_micros(1_250));
        let has = |name| refusal.headers.get(name).unwrap_or_default();
        assert_eq!((refusal.status, has("meridian-decision")), (503, decision_id(5, [7; 16]).as_str()));
        assert_eq!((has("meridian-region"), has("meridian-bundle")), ("edge", "none"));
        assert!(has("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert_eq!((has("server-timing"), has("retry-after")), ("edge;dur=1.2, origin;dur=0.0", "1"));
        assert_eq!(has("content-length"), refusal.body.len().to_string());
        assert_eq!(refusal.body, problem.body(&refusal.decision));
    }
}
