//! What a response varies by (RFC 9111, section 4.1): the fields that its `Vary` names, with a request's values in one form
//! for all that mean the same.

mod codings;

use std::cmp::Reverse;

use super::key::digest;
use crate::headers::Headers;
use crate::policy::personal;

/// What the order of languages of one weight says in `Accept-Language`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ties {
    /// The first is the client's own to whoever is told the attribute `language`.
    Ordered,
    /// Nothing: nobody can rely upon it (RFC 9110, section 12.5.4).
    Unordered,
}

/// What a response varies by, with this request's values, hashed. `None` where it varies by everything.
pub(super) fn of(response: &Headers, request: &Headers, ties: Ties) -> Option<Vec<(String, Option<String>)>> {
    let mut names: Vec<String> = response
        .get_all("vary")
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    if names.iter().any(|name| name == "*") {
        return None;
    }
    let valued = |name: String| {
        let value = value_for(&name, response, request, ties);
        (name, value)
    };
    Some(names.into_iter().map(valued).collect())
}

/// Whether the edge writes a field of forwarded requests itself, so that the client's value says nothing of it. Scheme and
/// host are in the key: what else `X-Forwarded-Proto` and `X-Forwarded-Host` hold is the client's.
pub(super) fn is_of_edge(name: &str) -> bool {
    matches!(name, "cdn-loop" | "forwarded" | "traceparent" | "tracestate" | "via" | "x-forwarded-for")
        || name.starts_with("meridian-")
}

/// This request's value of a field, hashed.
pub(super) fn value(name: &str, request: &Headers, ties: Ties) -> Option<String> {
    normal(request, name, ties).map(|value| digest(&value))
}

/// This request's value of a field that a policy names, hashed: all that the field can say, and as it came where nothing says
/// what its parts mean.
pub(super) fn value_named(name: &str, request: &Headers) -> Option<String> {
    match name {
        "accept" | "accept-charset" | "accept-encoding" | "accept-language" => {
            value(name, request, Ties::Ordered)
        }
        name => request.value(name).map(|value| digest(&value)),
    }
}

/// The same as [`value`], as far as a response in a coding that is known here can have been chosen by it.
pub(super) fn value_known(name: &str, request: &Headers, ties: Ties) -> Option<String> {
    match name {
        "accept-encoding" => codings::known(request).map(|value| digest(&value)),
        name => value(name, request, ties),
    }
}

/// This request's value of a field, hashed, as far as this response was chosen by it.
pub(super) fn value_for(name: &str, response: &Headers, request: &Headers, ties: Ties) -> Option<String> {
    match name {
        "accept-encoding" => codings::chosen(response, request).map(|value| digest(&value)),
        name => value(name, request, ties),
    }
}

/// A field's value in one form (RFC 9111, section 4.1): joined, without white space around commas; where its values are a list
/// without case, without empty ones (RFC 9110, section 5.6.1) and in lower case.
fn normal(headers: &Headers, name: &str, ties: Ties) -> Option<String> {
    let mut values = headers.get_all(name).peekable();
    values.peek()?;
    if name == "accept-language" {
        return Some(languages(headers, ties));
    }
    if name == "accept-encoding" {
        return codings::whole(headers);
    }
    let is_list = matches!(name, "accept" | "accept-charset");
    let mut normal = String::new();
    let elements = values.flat_map(|value| value.split(',')).map(str::trim);
    // What no list is may say something by a comma alone.
    for (at, element) in elements.filter(|element| !is_list || !element.is_empty()).enumerate() {
        if at > 0 {
            normal.push(',');
        }
        normal.push_str(element);
    }
    if is_list {
        normal.make_ascii_lowercase();
    }
    Some(normal)
}

/// Languages in lower case with their weights, the best first.
fn languages(headers: &Headers, ties: Ties) -> String {
    let languages = personal::languages(headers).into_iter();
    let mut languages: Vec<_> =
        languages.map(|(weight, language)| (Reverse(weight), language.to_ascii_lowercase())).collect();
    if ties == Ties::Unordered {
        languages.sort();
    }
    let texts: Vec<_> =
        languages.into_iter().map(|(Reverse(weight), language)| format!("{language};{weight}")).collect();
    texts.join(",")
}

/// Whether a response that varies by language is in the one that a request prefers to all others: the origin would choose
/// it as well (RFC 9111, section 4.1; RFC 9110, section 12.5.4).
pub(super) fn is_preferred(response: &Headers, request: &Headers) -> bool {
    let mut wanted = personal::languages(request).into_iter();
    let (Some((weight, language)), next) = (wanted.next(), wanted.next()) else { return false };
    let is_alone = next.is_none_or(|(other, _)| other != weight);
    is_alone
        && weight > 0
        && response.joined("content-language").is_some_and(|of| of.eq_ignore_ascii_case(language))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_preferences_have_one_form() {
        let is_one = |ties: Ties, a: &str, b: &str| {
            let form =
                |text| value("accept-language", &Headers::from_iter([("accept-language", text)]), ties);
            form(a) == form(b)
        };
        let check = |expect: bool, a: &str, b: &str| {
            for ties in [Ties::Ordered, Ties::Unordered] {
                assert_eq!(is_one(ties, a, b), expect, "RFC 9110 12.5.4: {ties:?} {a} | {b}");
            }
        };
        check(true, "en, de", "EN ,de");
        check(true, "en;q=0.5, de", "de;q=1.0, en; q=0.50");
        check(false, "en;q=0.5, de", "en, de;q=0.5");
        check(false, "en", "en, de");
        check(false, "en, en", "en");
        for (a, b) in [("en, de", "de, en"), ("fr, en;q=0.5, de;q=0.5", "fr, de;q=0.5, en;q=0.5")] {
            assert!(is_one(Ties::Unordered, a, b) && !is_one(Ties::Ordered, a, b), "{a} | {b}");
        }
    }

    #[test]
    fn a_comma_counts_where_nothing_says_that_it_separates() {
        let form = |name: &str, text: &str| value(name, &Headers::from_iter([(name, text)]), Ties::Ordered);
        for other in ["a,", ",a", "a,,", ""] {
            assert_ne!(form("x-theme", "a"), form("x-theme", other), "{other}");
        }
        assert_eq!(form("x-theme", "a,b"), form("x-theme", "a , b"), "RFC 9111 4.1");
        assert_eq!(form("accept", "a/b,, c/d,"), form("accept", "A/b,c/d"), "RFC 9110 5.6.1");
    }

    proptest! {
        #[test]
        fn requests_of_one_key_have_one_language(
            a in "(en|de|fr|[*])(;q=0[.][1-9])?(, (en|de|fr)(;q=0[.][1-9])?){0,2}",
            b in "(en|de|fr|[*])(;q=0[.][1-9])?(, (en|de|fr)(;q=0[.][1-9])?){0,2}",
        ) {
            let headers = |text: &str| Headers::from_iter([("accept-language", text)]);
            let (a, b) = (headers(&a), headers(&b));
            let form = |request: &Headers, ties| value("accept-language", request, ties);
            if form(&a, Ties::Ordered) == form(&b, Ties::Ordered) {
                prop_assert_eq!(personal::language(&a), personal::language(&b));
            }
            let sorted = |request: &Headers| {
                let mut languages = personal::languages(request);
                languages.sort_unstable();
                format!("{languages:?}")
            };
            let is_one = form(&a, Ties::Unordered) == form(&b, Ties::Unordered);
            prop_assert_eq!(is_one, sorted(&a) == sorted(&b), "RFC 9110 12.5.4");
        }
    }

    #[test]
    fn the_language_that_is_preferred_to_all_others_is_preferred() {
        let check = |accept: &str, language: &str, expect: bool| {
            let request = Headers::from_iter([("accept-language", accept)]);
            let response = Headers::from_iter([("content-language", language)]);
            assert_eq!(is_preferred(&response, &request), expect, "RFC 9110 12.5.4: {accept} | {language}");
        };
        check("fr;q=0.5, de;q=1.0", "de", true);
        check("de", "DE", true);
        check("fr;q=0.5, de", "fr", false);
        check("fr, de", "de", false);
        check("de;q=0", "de", false);
        check("de-AT", "de", false);
        check("de", "de, en", false);
        assert!(!is_preferred(&Headers::from_iter([("content-language", "de")]), &Headers::default()));
        assert!(!is_preferred(&Headers::default(), &Headers::from_iter([("accept-language", "de")])));
    }
}
