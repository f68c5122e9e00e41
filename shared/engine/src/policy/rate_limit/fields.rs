//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4).

use std::cmp::Reverse;
use std::fmt::{self, Write};

use sfv::Parser;
use sfv::visitor::Ignored;

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
    /// or nothing was heard of that authority yet, `t` is left out; so it is where the reply has an earlier `Retry-After` for
    /// another reason, which would contradict it (section 6).
    pub fn write_headers(&self, headers: &mut Headers) {
        let shown: Vec<_> = self.shown().collect();
        if shown.is_empty() {
            return;
        }
        let policies = joined(&shown, |f, limit| {
            let window_s = limit.window_ms.div_ceil(1_000).max(1);
            write!(f, "{};q={};w={window_s}", name(limit), limit.quota)
        });
        add(headers, "ratelimit-policy", Some(policies), &shown);
        let again_s: Option<u64> = headers.get("retry-after").and_then(|again| again.trim().parse().ok());
        let told = self.told().map(|limit| {
            let more_s = limit.more_ms.map(|more_ms| more_ms.div_ceil(1_000));
            let more_s = more_s.filter(|more_s| again_s.is_none_or(|again_s| *more_s <= again_s));
            fmt::from_fn(move |f| {
                write!(f, "{};r={}", name(limit), limit.remaining)?;
                more_s.map_or(Ok(()), |more_s| write!(f, ";t={more_s}"))
            })
        });
        add(headers, "ratelimit", told, &shown);
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

/// Adds our members of a list to those that came with the response, which are about limits of the target's own.
fn add(headers: &mut Headers, field: &str, own: Option<impl fmt::Display>, shown: &[&LimitState]) {
    let theirs = headers.value(field).map(|list| theirs(&list, shown)).unwrap_or_default();
    match (own, theirs.is_empty()) {
        (Some(own), true) => headers.set_display(field, own),
        (Some(own), false) => headers.set_display(field, format_args!("{own}, {theirs}")),
        (None, false) => headers.set(field, theirs),
        (None, true) => headers.remove(field),
    }
}

/// The members of a list but those that are called as one of our limits, by which clients could not tell the two apart. Nothing of
/// a list that is malformed: clients would read nothing of it, and nothing of ours beside it (RFC 9651, section 4.2).
fn theirs(list: &str, shown: &[&LimitState]) -> String {
    if Parser::new(list).parse_list_with_visitor(Ignored).is_err() {
        return String::new();
    }
    let names: Vec<_> = shown.iter().map(|limit| name(limit).to_string()).collect();
    let is_ours = |member: &str| {
        let parameters = names.iter().find_map(|name| member.strip_prefix(name.as_str()));
        parameters.is_some_and(|parameters| parameters.is_empty() || parameters.starts_with(';'))
    };
    let members = members(list).map(str::trim).filter(|member| !member.is_empty() && !is_ours(member));
    members.collect::<Vec<_>>().join(", ")
}

/// The members of a list, as they are written: a comma in a string parts none (RFC 9651, section 3.3.3).
fn members(list: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ',' && !is_quoted
    })
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

    #[test]
    fn no_reply_says_to_come_again_before_there_is_more() {
        let told = |again: &str| {
            let mut headers = Headers::from_iter([("retry-after", again)]);
            LimitReport { limits: vec![state("a", 10, 1_000, 4)] }.write_headers(&mut headers);
            headers.get("ratelimit").unwrap().to_owned()
        };
        assert_eq!(told("1"), r#""a";r=4"#);
        assert_eq!(told("2"), r#""a";r=4;t=2"#);
        assert_eq!(told("Fri, 31 Dec 1999 23:59:59 GMT"), r#""a";r=4;t=2"#);
    }

    #[test]
    fn what_the_target_says_of_its_own_limits_stays() {
        let check =
            |limit: LimitState, policy: &[&str], limits: &[&str], told: (Option<&str>, Option<&str>)| {
                let policy = policy.iter().map(|line| ("ratelimit-policy", *line));
                let mut headers: Headers =
                    policy.chain(limits.iter().map(|line| ("ratelimit", *line))).collect();
                LimitReport { limits: vec![limit] }.write_headers(&mut headers);
                let value = |name| headers.value(name);
                assert_eq!((value("ratelimit-policy").as_deref(), value("ratelimit").as_deref()), told);
            };
        let ours = || state("a", 10, 1_000, 4);
        check(
            ours(),
            &[r#""daily";q=5;w=9;pk=:cHJl:"#],
            &[r#""daily";r=1"#, r#""b,c\"";r=2;t=3 , default;r=4"#],
            (
                Some(r#""a";q=10;w=1, "daily";q=5;w=9;pk=:cHJl:"#),
                Some(r#""a";r=4;t=2, "daily";r=1, "b,c\"";r=2;t=3, default;r=4"#),
            ),
        );
        // Of one name there is one limit, and it is ours.
        check(
            ours(),
            &[r#""a";q=1;w=1, "ab";q=2"#, r#""a""#],
            &[r#""a";r=0;t=9"#],
            (Some(r#""a";q=10;w=1, "ab";q=2"#), Some(r#""a";r=4;t=2"#)),
        );
        // Ours would be as unreadable as what it stands beside.
        check(ours(), &["a b"], &[r#""x"#], (Some(r#""a";q=10;w=1"#), Some(r#""a";r=4;t=2"#)));
        let away = || LimitState { away: Some(Fail::Open), ..ours() };
        check(away(), &[], &[r#""daily";r=1"#], (Some(r#""a";q=10;w=1"#), Some(r#""daily";r=1"#)));
        check(away(), &[], &[r#""a";r=1"#], (Some(r#""a";q=10;w=1"#), None));
        let shadow = LimitState { shadow: true, ..ours() };
        check(shadow, &[r#""a";q=1"#], &[r#""a";r=1"#], (Some(r#""a";q=1"#), Some(r#""a";r=1"#)));
    }
}
