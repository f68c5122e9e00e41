//! `Cache-Control` (RFC 9111, section 5.2) and targeted fields of the same directives (RFC 9213).

use super::structured::{Member, dictionary};
use crate::headers::Headers;

/// Targeted fields that this cache follows, the most specific first (RFC 9213, section 2.2). The first that is there and
/// valid counts in the place of `Cache-Control` and `Expires`.
const TARGETED: [&str; 2] = ["meridian-cdn-cache-control", "cdn-cache-control"];

/// Seconds beyond which a number is as good as this one (RFC 9111, section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Directives of a request or response; those with seconds in seconds. Of directives given twice, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    /// Of this one and `private` the qualified form, which names fields, counts as the plain one: stricter than needed,
    /// never wrong. So it does in a targeted field, where the names are a string.
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    /// Without a number: any staleness.
    pub(super) max_stale: Option<u64>,
    pub(super) stale_while_revalidate: Option<u64>,
    pub(super) stale_if_error: Option<u64>,
}

/// Which directives a response is stored by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// `Cache-Control`, with `Expires` beside it.
    Plain(Directives),
    /// A targeted field, alone.
    Targeted(Directives),
}

impl Control {
    pub(super) fn of_response(headers: &Headers) -> Self {
        let targeted = TARGETED.iter().find_map(|field| parse_targeted(&headers.joined(field)?));
        targeted.map_or_else(|| Self::Plain(Directives::of(headers)), Self::Targeted)
    }

    pub(super) fn directives(&self) -> &Directives {
        let (Self::Plain(directives) | Self::Targeted(directives)) = self;
        directives
    }
}

impl Directives {
    pub(super) fn of(headers: &Headers) -> Self {
        let mut directives = Self::default();
        for field in headers.get_all("cache-control") {
            for (name, value) in members(field) {
                directives.take(&name.to_ascii_lowercase(), value);
            }
        }
        directives
    }

    /// The directives of a request; `Pragma: no-cache` counts where there is no `Cache-Control` (section 5.4).
    pub(super) fn of_request(headers: &Headers) -> Self {
        let mut directives = Self::of(headers);
        if headers.get("cache-control").is_none() {
            directives.no_cache = headers
                .get_all("pragma")
                .any(|field| members(field).any(|(name, _)| name.eq_ignore_ascii_case("no-cache")));
        }
        directives
    }

    fn take(&mut self, name: &str, value: Option<&str>) {
        let number = || Some(seconds(value));
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = self.max_age.or_else(number),
            "s-maxage" => self.s_maxage = self.s_maxage.or_else(number),
            "min-fresh" => self.min_fresh = self.min_fresh.or_else(number),
            "max-stale" if value.is_none() => self.max_stale = self.max_stale.or(Some(SECONDS_MAX)),
            "max-stale" => self.max_stale = self.max_stale.or_else(number),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = self.stale_while_revalidate.or_else(number);
            }
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or_else(number),
            _ => {}
        }
    }
}

/// Seconds as section 1.2.2 wants them; what is no such number is 0, a lifetime that is over and an age that says nothing.
pub(super) fn seconds(value: Option<&str>) -> u64 {
    let digits = value.unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    digits.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX)
}

/// The members of a list of directives with their values, quotes around a value taken off.
fn members(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    split(field).map(|member| match member.split_once('=') {
        None => (member.trim(), None),
        Some((name, value)) => {
            let value = value.trim();
            let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name.trim(), Some(inside.unwrap_or(value)))
        }
    })
}

/// The elements of a list, split at commas that are not inside quotes (RFC 9110, sections 5.6.1 and 5.6.4).
pub(in crate::policy) fn split(field: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    field
        .split(move |c| {
            let is_end = c == ',' && !quoted;
            if c == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = quoted && c == '\\' && !escaped;
            is_end
        })
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// A targeted field: a dictionary whose members are directives. `None` where it is none, or empty: then it counts as if it
/// were not there; a member of another type than its directive takes is ignored (RFC 9213, section 2.1).
fn parse_targeted(field: &str) -> Option<Directives> {
    let members = dictionary(field).filter(|members| !members.is_empty())?;
    let mut directives = Directives::default();
    for (name, member) in members {
        match member {
            Member::True => directives.take(name, None),
            Member::Number(seconds) => directives.take(name, Some(&seconds.to_string())),
            Member::Text if matches!(name, "private" | "no-cache") => directives.take(name, None),
            Member::Text | Member::Other => {}
        }
    }
    Some(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)]) -> Control {
        Control::of_response(&fields.iter().copied().collect())
    }

    #[test]
    fn directives_are_read_as_rfc_9111_says() {
        let none = Directives::default();
        let max_age = |seconds| Directives { max_age: Some(seconds), ..Directives::default() };
        let check = |rule: &str, field: &str, expect: Directives| {
            assert_eq!(
                Directives::of(&Headers::from_iter([("cache-control", field)])),
                expect,
                "{rule}: {field}"
            );
        };
        check("5.2", "max-age=60", max_age(60));
        check("5.2, case", "MAX-AGE=60, No-Store", Directives { no_store: true, ..max_age(60) });
        check("5.2, quoted", "max-age=\"60\"", max_age(60));
        check("5.2, unknown", "foo, bar=\"max-age=7, public\", max-age=60", max_age(60));
        check("5.2, quoted comma", "private=\"a, public\"", Directives { private: true, ..none.clone() });
        check("5.2, escaped quote", r#"x="a\", public", max-age=1"#, max_age(1));
        check("5.6.1 of 9110, empty elements", ",, max-age=60 ,", max_age(60));
        check("4.2.1, twice", "max-age=60, max-age=90", max_age(60));
        check("4.2.1, invalid", "max-age=60.5", max_age(0));
        check("4.2.1, invalid", "max-age=-1", max_age(0));
        check("4.2.1, invalid", "max-age=abc", max_age(0));
        check("4.2.1, invalid", "max-age=", max_age(0));
        check("4.2.1, no number", "max-age", max_age(0));
        check("1.2.2, overflow", "max-age=99999999999999999999999", max_age(SECONDS_MAX));
        check("1.2.2, leading zeros", "max-age=0060", max_age(60));
        check("5.2.1.2", "max-stale", Directives { max_stale: Some(SECONDS_MAX), ..none.clone() });
        check("5.2.1.2", "max-stale=5", Directives { max_stale: Some(5), ..none.clone() });
        check("5.2.2.4, qualified", "no-cache=\"set-cookie\"", Directives { no_cache: true, ..none.clone() });
        check(
            "RFC 5861",
            "s-maxage=60, stale-while-revalidate=30, stale-if-error=90",
            Directives {
                s_maxage: Some(60),
                stale_while_revalidate: Some(30),
                stale_if_error: Some(90),
                ..none
            },
        );
    }

    #[test]
    fn pragma_counts_in_requests_without_cache_control() {
        let of = |fields: &[(&str, &str)]| Directives::of_request(&fields.iter().copied().collect()).no_cache;
        assert!(of(&[("pragma", "no-cache")]));
        assert!(of(&[("pragma", "foo, No-Cache")]));
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "max-age=60")]));
        assert!(!of(&[("pragma", "foo")]));
    }

    #[test]
    fn targeted_fields_count_as_rfc_9213_says() {
        let max_age = |seconds| Some(Directives { max_age: Some(seconds), ..Directives::default() });
        let check = |rule: &str, field: &str, expect: Option<Directives>| {
            assert_eq!(parse_targeted(field), expect, "{rule}: {field}");
        };
        check("2.1", "max-age=60", max_age(60));
        check("2.1", "max-age=60;p=1, foo=bar, x=\"a,b\"", max_age(60));
        check("2.1, no-store", "no-store", Some(Directives { no_store: true, ..Directives::default() }));
        check("2.1, false", "no-store=?0, max-age=5", max_age(5));
        check("RFC 9651 4.2.2, the last counts", "max-age=60, max-age=90", max_age(90));
        check(
            "2.1, wrong type is ignored",
            "max-age=\"60\", no-store=?1, max-age=6.5",
            Some(Directives { no_store: true, ..Directives::default() }),
        );
        check(
            "2.1, quoted strings are strings",
            "private=\"x-user\", max-age=60",
            max_age(60).map(|rest| Directives { private: true, ..rest }),
        );
        check(
            "2.1, quoted strings are strings",
            "no-cache=\"x-user\"",
            Some(Directives { no_cache: true, ..Directives::default() }),
        );
        check("2.1, invalid", "MAX-AGE=60", None);
        check("2.1, invalid", "max-age=60, =", None);
        check("2.1, invalid", "max-age =60", None);
        check("2.1, invalid", "max-age=60 60", None);
        check("2.1, invalid", "max-age=60,", None);
        check("RFC 9651 4.2.2, an empty member", "max-age=60,, no-store", None);
        check("RFC 9651 4.2.2, an empty member", ", max-age=60", None);
        check(
            "RFC 9651 3, all types",
            r#"a=(b "c");d, e=@1, f=%"g%c3%bc", h=:aGk=:, i=-1, max-age=60"#,
            max_age(60),
        );
        check("RFC 9651 4.2.5, malformed", r#"a="b\c", max-age=60"#, None);
        check("2.1, empty", " ", None);
        let plain = |seconds| Control::Plain(max_age(seconds).unwrap());
        let targeted = |seconds| Control::Targeted(max_age(seconds).unwrap());
        let fields = [
            ("cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
            ("meridian-cdn-cache-control", "max-age=3"),
        ];
        assert_eq!(response(&fields), targeted(3));
        assert_eq!(response(&fields[..2]), targeted(2));
        assert_eq!(response(&fields[..1]), plain(1));
        assert_eq!(response(&[fields[0], ("cdn-cache-control", "MAX-AGE=2")]), plain(1));
        assert_eq!(response(&[fields[1], ("meridian-cdn-cache-control", "")]), targeted(2));
    }
}
