//! Parts of a stored body (RFC 9110, section 14): one range of bytes. Several at once are answered whole, as section 14.2
//! allows.

use super::date::date_ms;
use crate::headers::Headers;

/// What a request wants of a stored body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part {
        /// The first byte, from 0.
        first: u64,
        /// How many; at least one.
        bytes: u64,
    },
    /// Bytes beyond its end: 416.
    Beyond,
}

/// What a request wants of a stored body of this length. A `Range` that can't be read, of another unit, or whose `If-Range`
/// is not what is stored, counts as none.
pub(super) fn wanted(request: &Headers, entry: &Headers, length: u64) -> Wanted {
    let mut fields = request.get_all("range");
    let (Some(range), None) = (fields.next(), fields.next()) else { return Wanted::Whole };
    if !if_range(request.get("if-range"), entry) {
        return Wanted::Whole;
    }
    let unit = "bytes=";
    let Some(spec) = range.get(unit.len()..).filter(|_| range.to_ascii_lowercase().starts_with(unit)) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else {
        return Wanted::Whole;
    };
    let (first, end) = match (position(first), position(last)) {
        (Some(Some(first)), Some(last)) if last.is_none_or(|last| last >= first) => {
            (first, last.map_or(length, |last| last.saturating_add(1).min(length)))
        }
        (Some(None), Some(Some(suffix))) => (length.saturating_sub(suffix), length),
        _ => return Wanted::Whole,
    };
    match end.checked_sub(first) {
        None | Some(0) => Wanted::Beyond,
        Some(bytes) => Wanted::Part { first, bytes },
    }
}

/// Digits, or nothing: `None` where it is neither. What is too large for a number is beyond every body.
fn position(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
        _ => None,
    }
}

/// Whether the condition of `If-Range` holds (RFC 9110, section 13.1.5): a strong entity tag, or a date that is exactly
/// `Last-Modified` and a strong validator, a second or more before `Date` (section 8.8.2.2).
fn if_range(condition: Option<&str>, entry: &Headers) -> bool {
    let Some(condition) = condition.map(str::trim) else { return true };
    if condition.starts_with('"') {
        return entry.get("etag").map(str::trim) == Some(condition);
    }
    let modified_ms = date_ms(entry.get("last-modified"));
    let is_strong =
        date_ms(entry.get("date")).zip(modified_ms).is_some_and(|(date_ms, ms)| date_ms >= ms + 1_000);
    is_strong && date_ms(Some(condition)) == modified_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_by_the_rule() {
        let check = |rule: &str, range: &str, expect: Wanted| {
            let request = Headers::from_iter([("range", range)]);
            assert_eq!(wanted(&request, &Headers::default(), 10), expect, "RFC 9110 {rule}: {range}");
        };
        let part = |first, bytes| Wanted::Part { first, bytes };
        check("14.1.2", "bytes=0-1", part(0, 2));
        check("14.1.2", "bytes=9-9", part(9, 1));
        check("14.1.2, to the end", "bytes=4-", part(4, 6));
        check("14.1.2, beyond the end", "bytes=4-99999999999999999999", part(4, 6));
        check("14.1.2, suffix", "bytes=-3", part(7, 3));
        check("14.1.2, longer suffix", "bytes=-30", part(0, 10));
        check("14.1, unit in any case", "Bytes=0-1", part(0, 2));
        check("15.5.17", "bytes=10-", Wanted::Beyond);
        check("15.5.17", "bytes=99999999999999999999-", Wanted::Beyond);
        check("15.5.17, empty suffix", "bytes=-0", Wanted::Beyond);
        for ignored in
            ["bytes=3-2", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes", "bytes=+1-2", ""]
        {
            check("14.2, ignored", ignored, Wanted::Whole);
        }
        let none = wanted(&Headers::default(), &Headers::default(), 10);
        assert_eq!(none, Wanted::Whole);
        let twice = Headers::from_iter([("range", "bytes=0-1"), ("range", "bytes=0-1")]);
        assert_eq!(wanted(&twice, &Headers::default(), 10), Wanted::Whole);
        let request = Headers::from_iter([("range", "bytes=0-0")]);
        assert_eq!(wanted(&request, &Headers::default(), 0), Wanted::Beyond, "of nothing");
    }

    #[test]
    fn a_condition_that_fails_wants_it_whole() {
        let check = |rule: &str, condition: &str, entry: &[(&str, &str)], holds: bool| {
            let request = Headers::from_iter([("range", "bytes=0-1"), ("if-range", condition)]);
            let got = wanted(&request, &entry.iter().copied().collect(), 10);
            assert_eq!(got != Wanted::Whole, holds, "RFC 9110 {rule}: {condition} {entry:?}");
        };
        const EARLY: &str = "Fri, 15 Jan 2027 08:00:00 GMT";
        const LATE: &str = "Fri, 15 Jan 2027 09:00:00 GMT";
        check("13.1.5", "\"a\"", &[("etag", "\"a\"")], true);
        check("13.1.5", "\"a\"", &[("etag", "\"b\"")], false);
        check("13.1.5, strong", "W/\"a\"", &[("etag", "W/\"a\"")], false);
        check("13.1.5, date", EARLY, &[("last-modified", EARLY), ("date", LATE)], true);
        check("8.8.2.2, weak date", EARLY, &[("last-modified", EARLY), ("date", EARLY)], false);
        check("13.1.5, another date", LATE, &[("last-modified", EARLY), ("date", LATE)], false);
        check("13.1.5, no date", "a", &[("last-modified", EARLY), ("date", LATE)], false);
    }
}
