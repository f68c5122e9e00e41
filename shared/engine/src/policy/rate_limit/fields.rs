//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4).

use std::cmp::Reverse;
use std::fmt::{self, Write};

use super::{LimitReport, LimitState};
use crate::headers::{Headers, joined};
use crate::ruleset::Fail;

/// `type` of the problem when a quota is used up (section 5.1).
pub(super) const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// `type` of the problem when the service can't say (section 5.2).
pub(super) const REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

impl LimitReport {
    /// Adds `RateLimit-Policy` (every limit) and `RateLimit` (the tightest) to a reply. Shadow limits are in neither, those
    /// whose authority is away not in `RateLimit`.
    ///
    /// `t` is the seconds until there are more units than `r`, on a reply that passed as on one that did not (section 4.1.2):
    /// by the generic cell rate until the next unit has come back, of a sliding window until the oldest slot that counts has
    /// left. Of what an authority counts it is 0 where that has had more since it was last asked. Where all units are there,
    /// or nothing was heard of that authority yet, `t` is left out.
    pub fn write_headers(&self, headers: &mut Headers) {
        let shown: Vec<_> = self.shown().collect();
        if shown.is_empty() {
            return;
        }
        let policies = joined(&shown, |f, limit| {
            let window_s = limit.window_ms.div_ceil(1_000).max(1);
            write!(f, "{};q={};w={window_s}", name(limit), limit.quota)
        });
        headers.set_display("ratelimit-policy", policies);
        let told = self.told().map(|limit| {
            fmt::from_fn(move |f| {
                write!(f, "{};r={}", name(limit), limit.remaining)?;
                limit.more_ms.map_or(Ok(()), |more_ms| write!(f, ";t={}", more_ms.div_ceil(1_000)))
            })
        });
        if let Some(told) = told {
            headers.set_display("ratelimit", told);
        }
    }

    /// The limit that `RateLimit` tells of. None is told where one whose authority is away said no: when that comes back nobody
    /// knows, and `Retry-After` must not be earlier than any `t` (section 6).
    pub(super) fn told(&self) -> Option<&LimitState> {
        let told = self.shown().filter(|limit| limit.away.is_none());
        let tightest = told.min_by(|a, b| tightness(a).cmp(&tightness(b)))?;
        let is_closed = self.shown().any(|limit| limit.away == Some(Fail::Closed));
        (tightest.exceeded || !is_closed).then_some(tightest)
    }

    fn shown(&self) -> impl Iterator<Item = &LimitState> {
        self.limits.iter().filter(|limit| !limit.shadow)
    }
}

/// Orders limits, tightest first: what said no, then what has the least part of its quota left, then what takes longest.
fn tightness(limit: &LimitState) -> (bool, u64, Reverse<(u64, Option<u64>)>) {
    let left = limit.remaining.saturating_mul(1_000_000) / u64::from(limit.quota.max(1));
    (!limit.exceeded, left, Reverse((limit.wait_ms, limit.more_ms)))
}

/// The limit's name as a structured-field string (RFC 9651, section 3.3.3).
fn name(limit: &LimitState) -> impl fmt::Display {
    fmt::from_fn(|f| {
        f.write_char('"')?;
        for c in limit.name.chars().filter(|c| (' '..='~').contains(c)) {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, quota: u32, window_ms: u64, remaining: u64) -> LimitState {
        LimitState {
            index: 0,
            name: name.into(),
            quota,
            window_ms,
            remaining,
            more_ms: Some(1_001),
            wait_ms: 0,
            shadow: false,
            exceeded: false,
            away: None,
        }
    }

    #[test]
    fn every_policy_is_listed_and_the_tightest_reported() {
        let check = |limits: Vec<LimitState>, policy: Option<&str>, limit: Option<&str>| {
            let mut headers = Headers::default();
            LimitReport { limits }.write_headers(&mut headers);
            assert_eq!((headers.get("ratelimit-policy"), headers.get("ratelimit")), (policy, limit));
        };
        check(vec![], None, None);
        check(vec![state("a", 300, 60_000, 299)], Some(r#""a";q=300;w=60"#), Some(r#""a";r=299;t=2"#));
        check(
            vec![state("minute", 300, 60_000, 150), state("day", 10_000, 86_400_000, 200)],
            Some(r#""minute";q=300;w=60, "day";q=10000;w=86400"#),
            Some(r#""day";r=200;t=2"#),
        );
        check(
            vec![LimitState { shadow: true, ..state("s", 1, 1_000, 0) }, state("a", 10, 500, 9)],
            Some(r#""a";q=10;w=1"#),
            Some(r#""a";r=9;t=2"#),
        );
        check(
            vec![state("a", 10, 1_000, 0), LimitState { exceeded: true, ..state("b", 10, 1_000, 1) }],
            Some(r#""a";q=10;w=1, "b";q=10;w=1"#),
            Some(r#""b";r=1;t=2"#),
        );
        check(
            vec![LimitState { away: Some(Fail::Open), ..state("a", 10, 1_000, 0) }],
            Some(r#""a";q=10;w=1"#),
            None,
        );
        check(
            vec![
                state("a", 10, 1_000, 4),
                LimitState { away: Some(Fail::Closed), ..state("b", 1, 1_000, 0) },
            ],
            Some(r#""a";q=10;w=1, "b";q=1;w=1"#),
            None,
        );
        check(
            vec![LimitState { more_ms: None, ..state("whole", 10, 1_000, 10) }],
            Some(r#""whole";q=10;w=1"#),
            Some(r#""whole";r=10"#),
        );
        check(vec![state("a\"\\é", 1, 1_000, 1)], Some(r#""a\"\\";q=1;w=1"#), Some(r#""a\"\\";r=1;t=2"#));
    }
}
