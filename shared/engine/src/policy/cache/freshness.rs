//! Which responses are stored, for how long, and how old they are (RFC 9111, sections 3, 4.2 and 5).

use super::date::date_ms;
use super::directives::{Control, Directives, seconds, split};
use super::notes::Notes;
use super::vary::{self, Ties};
use crate::headers::Headers;
use crate::limits::{
    CACHE_HEURISTIC_MS_MAX, CACHE_KEEP_MS_MAX, CACHE_SEEN_MAX, CACHE_TAG_BYTES_MAX, CACHE_TAGS_MAX,
    CACHE_VALIDATE_MS, CACHE_VARY_MAX,
};
use crate::ruleset::CachePolicy;

/// Statuses whose meaning this cache knows (RFC 9110, section 15), for `must-understand` (RFC 9111, section 5.2.2.3).
const UNDERSTOOD: [u16; 16] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 500, 501, 503];

/// Statuses that may be stored without an explicit lifetime (RFC 9110, section 15.1); a 206 is not stored here.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Statuses that are not stored, whatever they say. No cache may store the last four (RFC 6585, sections 3 to 6): what one client
/// sent, how often it came or where it is was wrong, and not what it asked for. The others are about a part (RFC 9110, sections
/// 15.3.7 and 15.5.17) or about what the client has (section 15.4.5).
const NEVER: [u16; 7] = [206, 304, 416, 428, 429, 431, 511];

/// Times of one exchange with the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) requested_ms: u64,
    pub(super) received_ms: u64,
}

/// Notes on a response that may be stored, or in a word why it may not. `request` are the header fields of its `GET`, `ties`
/// what their order of languages says to the target.
pub(super) fn judge(
    policy: &CachePolicy,
    request: &Headers,
    status: u16,
    response: &Headers,
    times: Times,
    ties: Ties,
) -> Result<Notes, &'static str> {
    let control = Control::of_response(response);
    let directives = control.directives();
    check(policy, directives, request, status, response)?;
    let date_ms = date_ms(response.get("date")).unwrap_or(times.received_ms);
    let lifetime_ms = lifetime_ms(&control, response, date_ms)
        .or_else(|| policy.default_ttl_ms.get(&status).copied())
        .or_else(|| heuristic_ms(policy, directives, status, response, date_ms))
        // A response that has to be validated each time needs no lifetime.
        .or(directives.no_cache.then_some(0))
        .ok_or("no-lifetime")?;
    let stale_ms = |seconds: Option<u64>, default_ms| match seconds {
        Some(seconds) => seconds * 1_000,
        // What is stale from the start wants to be validated, and `s-maxage` forbids stale service (section 4.2.4), whatever
        // the policy would allow.
        None if lifetime_ms == 0 || directives.s_maxage.is_some() => 0,
        None => default_ms,
    };
    let vary = vary::of(response, request, ties).ok_or("vary")?;
    let tags = tags(policy, response)?;
    if vary.len() > CACHE_VARY_MAX {
        return Err("vary");
    }
    let notes = Notes {
        requested_ms: times.requested_ms,
        received_ms: times.received_ms,
        age_ms: initial_age_ms(response, date_ms, times),
        lifetime_ms,
        stale_while_revalidate_ms: stale_ms(
            directives.stale_while_revalidate,
            policy.stale_while_revalidate_ms,
        ),
        stale_if_error_ms: stale_ms(directives.stale_if_error, policy.stale_if_error_ms),
        no_cache: directives.no_cache,
        must_revalidate: directives.must_revalidate || directives.proxy_revalidate,
        shared_lifetime: directives.s_maxage.is_some(),
        seen: seen(response),
        tags,
        vary,
        generation: 0,
    };
    if notes.keep_ms(has_validator(response)) == 0 {
        return Err("stale");
    }
    Ok(notes)
}

/// RFC 9111, section 3: what forbids storing. A cookie is stored only where the policy says so.
fn check(
    policy: &CachePolicy,
    directives: &Directives,
    request: &Headers,
    status: u16,
    response: &Headers,
) -> Result<(), &'static str> {
    if !(200..600).contains(&status) || NEVER.contains(&status) {
        return Err("status");
    }
    if directives.must_understand {
        if !UNDERSTOOD.contains(&status) {
            return Err("must-understand");
        }
    } else if directives.no_store {
        return Err("no-store");
    }
    if directives.private {
        return Err("private");
    }
    if response.get("set-cookie").is_some() && !policy.store_cookies {
        return Err("set-cookie");
    }
    // Section 3.5: an answer to credentials is for everybody only where the origin says so.
    let is_shared = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.get("authorization").is_some() && !is_shared {
        return Err("authorization");
    }
    Ok(())
}

/// Whether a response says itself how long it may be kept.
pub(super) fn is_explicit(response: &Headers) -> bool {
    lifetime_ms(&Control::of_response(response), response, 0).is_some()
}

/// Section 4.2.1. A date that is no date has passed (section 5.3).
fn lifetime_ms(control: &Control, response: &Headers, date_ms_of: u64) -> Option<u64> {
    let directives = control.directives();
    let seconds = directives.s_maxage.or(directives.max_age);
    seconds.map(|seconds| seconds * 1_000).or_else(|| {
        let expires = response.get("expires").filter(|_| matches!(control, Control::Plain(_)))?;
        let is_one = response.get_all("expires").nth(1).is_none();
        Some(
            date_ms(Some(expires))
                .filter(|_| is_one)
                .map_or(0, |expires_ms| expires_ms.saturating_sub(date_ms_of)),
        )
    })
}

/// Section 4.2.2: the longer a response has not changed, the longer it will not. Only for statuses that are made for it, or
/// where the response is explicitly for everybody.
fn heuristic_ms(
    policy: &CachePolicy,
    directives: &Directives,
    status: u16,
    response: &Headers,
    date_ms_of: u64,
) -> Option<u64> {
    if policy.heuristic == 0 || !(HEURISTIC.contains(&status) || directives.public) {
        return None;
    }
    let unchanged_ms = date_ms_of.saturating_sub(date_ms(response.get("last-modified"))?);
    let share = u128::from(unchanged_ms) * u128::from(policy.heuristic) / 10_000;
    Some(u64::try_from(share).unwrap_or(u64::MAX).min(CACHE_HEURISTIC_MS_MAX))
}

/// Section 4.2.3, `corrected_initial_age`. Dates are of whole seconds, and so is how long ago one was.
fn initial_age_ms(response: &Headers, date_ms: u64, times: Times) -> u64 {
    let apparent_ms = (times.received_ms - times.received_ms % 1_000).saturating_sub(date_ms);
    let delay_ms = times.received_ms.saturating_sub(times.requested_ms);
    let age = response.get("age").map(|age| age.split(',').next().unwrap_or_default().trim());
    apparent_ms.max(seconds(age).saturating_mul(1_000).saturating_add(delay_ms))
}

/// Whether a response can be validated (section 4.3.1).
pub(super) fn has_validator(response: &Headers) -> bool {
    response.get("etag").is_some() || response.get("last-modified").is_some()
}

/// Tags of the response and the policy. What could not be purged by its tags is not stored.
fn tags(policy: &CachePolicy, response: &Headers) -> Result<Vec<String>, &'static str> {
    let listed = response.get_all("cache-tag").flat_map(split);
    let spaced = response.get_all("surrogate-key").flat_map(str::split_ascii_whitespace);
    let mut tags: Vec<String> =
        listed.chain(spaced).chain(policy.tags.iter().map(String::as_str)).map(str::to_owned).collect();
    tags.sort();
    tags.dedup();
    if tags.len() > CACHE_TAGS_MAX || tags.iter().any(|tag| tag.len() > CACHE_TAG_BYTES_MAX) {
        return Err("tags");
    }
    Ok(tags)
}

/// `Meridian-Seen: 1=LSN;2=LSN`: the positions that the response reflects.
fn seen(response: &Headers) -> Vec<(u16, u64)> {
    let positions = response.get("meridian-seen").unwrap_or_default().split(';').take(CACHE_SEEN_MAX);
    positions
        .filter_map(|part| {
            let (source, position) = part.trim().split_once('=')?;
            Some((source.parse().ok()?, position.parse().ok()?))
        })
        .collect()
}

/// Positions as `Meridian-Seen` has them.
pub(super) fn write_seen(seen: &[(u16, u64)]) -> String {
    let positions: Vec<_> = seen.iter().map(|(source, position)| format!("{source}={position}")).collect();
    positions.join(";")
}

/// How fresh an entry is at one moment.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) age_ms: u64,
    pub(super) lifetime_ms: u64,
}

impl Freshness {
    pub(super) fn is_fresh(self) -> bool {
        self.lifetime_ms > self.age_ms
    }

    pub(super) fn left_ms(self) -> u64 {
        self.lifetime_ms.saturating_sub(self.age_ms)
    }

    pub(super) fn stale_ms(self) -> u64 {
        self.age_ms.saturating_sub(self.lifetime_ms)
    }

    /// For `Cache-Status` (RFC 9211, section 2.4): negative where stale.
    pub(super) fn ttl_s(self) -> i64 {
        let left = i128::from(self.lifetime_ms) - i128::from(self.age_ms);
        i64::try_from(left.div_euclid(1_000)).unwrap_or(i64::MAX)
    }
}

impl Notes {
    /// Section 4.2.3: `current_age`. Where the clock was set back, no time has passed.
    pub(super) fn freshness(&self, now_ms: u64) -> Freshness {
        let resident_ms = now_ms.saturating_sub(self.received_ms);
        Freshness { age_ms: self.age_ms.saturating_add(resident_ms), lifetime_ms: self.lifetime_ms }
    }

    /// Ends the lifetime at this time, where it would have been longer; whether it would.
    pub(super) fn ends_by(&mut self, at_ms: u64) -> bool {
        let age_ms = self.freshness(at_ms).age_ms;
        let shortened = age_ms < self.lifetime_ms;
        self.lifetime_ms = self.lifetime_ms.min(age_ms);
        shortened
    }

    /// Section 4.2.4: whether it may be served stale for up to `allowed_ms`. `must-revalidate`, `proxy-revalidate` and
    /// `no-cache` forbid it. `s-maxage` alone forbids it to clients (`by_client`), but not where the origin itself or the
    /// policy that its owner wrote allows it.
    pub(super) fn may_be_stale(&self, freshness: Freshness, allowed_ms: u64, by_client: bool) -> bool {
        let is_forbidden = self.no_cache || self.must_revalidate || (by_client && self.shared_lifetime);
        !is_forbidden && allowed_ms > 0 && freshness.stale_ms() <= allowed_ms
    }

    /// How long the entry is of any use from when it was received.
    pub(super) fn keep_ms(&self, has_validator: bool) -> u64 {
        let stale_ms = match self.no_cache || self.must_revalidate {
            true => 0,
            false => self.stale_while_revalidate_ms.max(self.stale_if_error_ms),
        };
        let validate_ms = if has_validator { CACHE_VALIDATE_MS } else { 0 };
        let lifetime_ms = if self.no_cache { 0 } else { self.lifetime_ms };
        let usable_ms = lifetime_ms.saturating_add(stale_ms).saturating_sub(self.age_ms);
        usable_ms.saturating_add(validate_ms).min(CACHE_KEEP_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy;
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";
    const HOUR_LATER: &str = "Fri, 15 Jan 2027 09:00:00 GMT";

    fn times() -> Times {
        Times { requested_ms: NOW_MS - 500, received_ms: NOW_MS }
    }

    #[test]
    fn responses_are_stored_or_not_by_the_rule() {
        let check = |rule: &str, status: u16, response: &[(&str, &str)], expect: Result<u64, &str>| {
            let headers = response.iter().copied().collect();
            let got = judge(&policy(), &Headers::default(), status, &headers, times(), Ties::Ordered)
                .map(|notes| notes.lifetime_ms);
            assert_eq!(got, expect, "{rule}: {status} {response:?}");
        };
        let plain = |value| [("cache-control", value)];
        check("9111 3, explicit", 200, &plain("max-age=60"), Ok(60_000));
        check("9111 3, nothing said", 200, &[], Err("no-lifetime"));
        check("9111 3, public says no lifetime", 200, &plain("public"), Err("no-lifetime"));
        check("policy, negative caching", 404, &[], Ok(5_000));
        check("policy, the response's own counts first", 404, &plain("max-age=60"), Ok(60_000));
        check("9111 3, any final status", 599, &plain("max-age=60"), Ok(60_000));
        check("9111 3.3, partial", 206, &plain("max-age=60"), Err("status"));
        check("9111 4.3.3", 304, &plain("max-age=60"), Err("status"));
        check("9110 15.5.17", 416, &plain("public, max-age=60"), Err("status"));
        for status in [428, 429, 431, 511] {
            check("6585 3 to 6", status, &plain("public, max-age=60"), Err("status"));
        }
        check("9111 3, an error says itself for how long", 400, &plain("max-age=60"), Ok(60_000));
        check("9111 3, an error says nothing", 400, &[], Err("no-lifetime"));
        check("9111 5.2.2.5", 200, &plain("no-store, max-age=60"), Err("no-store"));
        check("9111 5.2.2.3, understood", 200, &plain("must-understand, no-store, max-age=60"), Ok(60_000));
        check(
            "9111 5.2.2.3, not understood",
            299,
            &plain("must-understand, max-age=60"),
            Err("must-understand"),
        );
        check("9111 5.2.2.7", 200, &plain("private, max-age=60"), Err("private"));
        check("9111 5.2.2.7, qualified", 200, &plain("private=\"x\", max-age=60"), Err("private"));
        check(
            "cookies are nobody else's",
            200,
            &[("cache-control", "max-age=60"), ("set-cookie", "a=1")],
            Err("set-cookie"),
        );
        check("9111 5.2.2.10, before max-age", 200, &plain("max-age=1, s-maxage=60"), Ok(60_000));
        check("9111 5.3", 200, &[("date", DATE), ("expires", HOUR_LATER)], Ok(3_600_000));
        check(
            "9111 5.3, max-age counts first",
            200,
            &[("date", DATE), ("expires", HOUR_LATER), ("cache-control", "max-age=1")],
            Ok(1_000),
        );
        check("9111 5.3, invalid", 200, &[("date", DATE), ("expires", "0")], Err("stale"));
        check("9111 5.3, past", 200, &[("date", HOUR_LATER), ("expires", DATE)], Err("stale"));
        check(
            "9111 4.2.1, twice",
            200,
            &[("date", DATE), ("expires", HOUR_LATER), ("expires", HOUR_LATER)],
            Err("stale"),
        );
        check("9111 4.2.1, stale and no validator", 200, &plain("max-age=0"), Err("stale"));
        check(
            "9111 4.3.1, stale but can be validated",
            200,
            &[("cache-control", "max-age=0"), ("etag", "\"a\"")],
            Ok(0),
        );
        check("9111 5.2.2.4", 200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], Ok(0));
        check("9111 5.2.2.4, no validator", 200, &plain("no-cache, max-age=60"), Err("stale"));
        check("5861 3, stale but useful", 200, &plain("max-age=0, stale-while-revalidate=9"), Ok(0));
        check(
            "9111 5.1, older than its life",
            200,
            &[("cache-control", "max-age=60"), ("age", "70")],
            Err("stale"),
        );
        check("9111 4.1", 200, &[("cache-control", "max-age=60"), ("vary", "accept, *")], Err("vary"));
        check(
            "9213 2.2, in the place of cache-control",
            200,
            &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")],
            Ok(60_000),
        );
        check(
            "9213 2.2, expires too",
            200,
            &[("cdn-cache-control", "foo"), ("date", DATE), ("expires", HOUR_LATER)],
            Err("no-lifetime"),
        );
        check(
            "9213 2.2, the most specific",
            200,
            &[("cdn-cache-control", "max-age=60"), ("meridian-cdn-cache-control", "no-store")],
            Err("no-store"),
        );
        let long = "x".repeat(CACHE_TAG_BYTES_MAX + 1);
        check(
            "tags that can't be kept",
            200,
            &[("cache-control", "max-age=60"), ("cache-tag", &long)],
            Err("tags"),
        );
    }

    #[test]
    fn answers_to_credentials_are_stored_only_where_the_origin_says_so() {
        let request = Headers::from_iter([("authorization", "Bearer x")]);
        let check = |control: &str, stored: bool| {
            let headers = Headers::from_iter([("cache-control", control)]);
            assert_eq!(
                judge(&policy(), &request, 200, &headers, times(), Ties::Ordered).is_ok(),
                stored,
                "RFC 9111 3.5: {control}"
            );
        };
        check("max-age=60", false);
        check("max-age=60, public", true);
        check("max-age=60, must-revalidate", true);
        check("s-maxage=60", true);
        check("max-age=60, proxy-revalidate", false);
    }

    #[test]
    fn what_gives_no_lifetime_gets_a_share_of_its_age_where_the_policy_says_so() {
        let policy = CachePolicy { heuristic: 1_000, ..policy() };
        let check = |status, response: &[(&str, &str)], expect: Result<u64, &str>| {
            let headers = response.iter().copied().chain([("date", HOUR_LATER)]).collect();
            let got = judge(&policy, &Headers::default(), status, &headers, times(), Ties::Ordered);
            assert_eq!(got.map(|notes| notes.lifetime_ms), expect, "RFC 9111 4.2.2: {status} {response:?}");
        };
        let unchanged = ("last-modified", DATE);
        check(200, &[unchanged], Ok(360_000));
        check(501, &[unchanged], Ok(360_000));
        check(404, &[unchanged], Ok(5_000));
        check(200, &[], Err("no-lifetime"));
        check(403, &[unchanged], Err("no-lifetime"));
        check(403, &[unchanged, ("cache-control", "public")], Ok(360_000));
        check(200, &[unchanged, ("cache-control", "max-age=7")], Ok(7_000));
        check(200, &[("last-modified", "Fri, 15 Jan 1999 08:00:00 GMT")], Ok(CACHE_HEURISTIC_MS_MAX));
    }

    #[test]
    fn cookies_are_stored_where_the_policy_says_so() {
        let policy = CachePolicy { store_cookies: true, ..policy() };
        let headers = Headers::from_iter([("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
        assert!(judge(&policy, &Headers::default(), 200, &headers, times(), Ties::Ordered).is_ok());
    }

    #[test]
    fn age_counts_delay_date_and_what_others_say() {
        let check = |rule: &str, fields: &[(&str, &str)], expect_ms: u64| {
            let mut headers: Headers = fields.iter().copied().collect();
            headers.append("cache-control", "max-age=86400");
            let notes = judge(&policy(), &Headers::default(), 200, &headers, times(), Ties::Ordered).unwrap();
            assert_eq!(notes.age_ms, expect_ms, "RFC 9111 4.2.3, {rule}: {fields:?}");
            assert_eq!(notes.freshness(NOW_MS + 1_000).age_ms, expect_ms + 1_000);
            assert_eq!(notes.freshness(NOW_MS - 99_000).age_ms, expect_ms, "a clock set back");
        };
        check("response_delay", &[], 500);
        check("age_value", &[("age", "10")], 10_500);
        check("age_value, a list", &[("age", "10, 20")], 10_500);
        check("age_value, invalid", &[("age", "-7")], 500);
        check("age_value, invalid", &[("age", "x")], 500);
        check("age_value, invalid", &[("age", "+7")], 500);
        check("apparent_age", &[("date", "Fri, 15 Jan 2027 07:59:00 GMT")], 60_000);
        check("apparent_age, from the future", &[("date", HOUR_LATER)], 500);
        check("the larger of both", &[("date", "Fri, 15 Jan 2027 07:59:00 GMT"), ("age", "70")], 70_500);
    }

    #[test]
    fn an_age_beyond_all_numbers_is_old_and_not_new() {
        for age in ["2147483648", "18446744073709551615", "18446744073709551616", "99999999999999999999999"] {
            let headers = Headers::from_iter([("age", age), ("cache-control", "max-age=86400")]);
            assert_eq!(initial_age_ms(&headers, NOW_MS, times()), 2_147_483_648_500, "RFC 9111 1.2.2");
            let judged = judge(&policy(), &Headers::default(), 200, &headers, times(), Ties::Ordered);
            assert!(judged.is_err(), "{age}");
        }
    }

    #[test]
    fn notes_take_tags_positions_and_stale_times() {
        let headers = Headers::from_iter([
            ("cache-control", "max-age=60, stale-if-error=7"),
            ("cache-tag", "orders, orders/1"),
            ("surrogate-key", "b a"),
            ("meridian-seen", "1=77; 3=5;x=1;4"),
        ]);
        let notes = judge(&policy(), &Headers::default(), 200, &headers, times(), Ties::Ordered).unwrap();
        assert_eq!(notes.tags, ["a", "b", "from-policy", "orders", "orders/1"]);
        assert_eq!(notes.seen, [(1, 77), (3, 5)]);
        assert_eq!((notes.stale_while_revalidate_ms, notes.stale_if_error_ms), (2_000, 7_000));
        assert_eq!(notes.keep_ms(false), 66_500);
        assert_eq!(notes.keep_ms(true), 66_500 + CACHE_VALIDATE_MS);
    }

    #[test]
    fn stale_service_is_forbidden_by_the_rule() {
        let allowed = |control: &str, allowed_ms, by_client| {
            let headers = Headers::from_iter([("cache-control", control)]);
            let notes = judge(&policy(), &Headers::default(), 200, &headers, times(), Ties::Ordered).unwrap();
            notes.may_be_stale(notes.freshness(NOW_MS + 65_000 - 500), allowed_ms, by_client)
        };
        assert!(allowed("max-age=60", 5_000, false));
        assert!(!allowed("max-age=60", 4_999, false));
        assert!(!allowed("max-age=60, must-revalidate", 5_000, false), "RFC 9111 5.2.2.2");
        assert!(!allowed("max-age=60, proxy-revalidate", 5_000, false), "RFC 9111 5.2.2.8");
        assert!(!allowed("s-maxage=60", 5_000, true), "RFC 9111 5.2.2.10");
        assert!(allowed("s-maxage=60", 5_000, false), "the origin's or the policy's own word");
    }
}
