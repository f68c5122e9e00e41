//! What a response varies by (RFC 9111, section 4.1): the fields that its `Vary` names, with a request's values in one form
//! for all that mean the same.

mod codings;

use std::cmp::Reverse;

use super::key::digest;
use crate::headers::{Headers, is_one_variable};
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
        let value = value(&name, request, Reader::Of(response, ties));
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

/// Who reads a request's value of a field, which says how much of it counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader<'a> {
    /// The target, by the word of a policy that has the field in the key: all that it can say counts, as it came where nothing
    /// says what its parts mean.
    Any,
    /// The target, which varies by the field, for an answer that is not known yet: for the key of a variant. Of codings those count
    /// that are known here, as an answer in another one is told apart by [`Reader::Of`].
    Variant(Ties),
    /// The target, which has chosen this response by it.
    Of(&'a Headers, Ties),
}

/// This request's value of a field, hashed.
pub(super) fn value(name: &str, request: &Headers, reader: Reader<'_>) -> Option<String> {
    let text = spelled(name, request).or_else(|| match (name, reader) {
        ("accept-encoding", Reader::Variant(_)) => codings::known(request),
        ("accept-encoding", Reader::Of(response, _)) => codings::chosen(response, request),
        ("accept" | "accept-charset" | "accept-encoding" | "accept-language", Reader::Any) => {
            normal(request, name, Ties::Ordered)
        }
        (_, Reader::Any) => request.joined(name),
        (_, Reader::Variant(ties) | Reader::Of(_, ties)) => normal(request, name, ties),
    });
    text.map(|text| digest(&text))
}

/// A field as it came, with all that some targets take for it, where there is such a thing: which of them counts is the target's
/// to say. No value holds the line breaks between them.
fn spelled(name: &str, request: &Headers) -> Option<String> {
    if !request.iter().any(|(other, _)| other != name && is_one_variable(other, name)) {
        return None;
    }
    let fields = request.iter().filter(|(other, _)| is_one_variable(other, name));
    Some(fields.map(|(name, value)| format!("{name}:{value}\n")).collect())
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
            let form = |text| {
                value(
                    "accept-language",
                    &Headers::from_iter([("accept-language", text)]),
                    Reader::Variant(ties),
                )
            };
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
        let reader = Reader::Variant(Ties::Ordered);
        let form = |name: &str, text: &str| value(name, &Headers::from_iter([(name, text)]), reader);
        for other in ["a,", ",a", "a,,", ""] {
            assert_ne!(form("x-theme", "a"), form("x-theme", other), "{other}");
        }
        assert_eq!(form("x-theme", "a,b"), form("x-theme", "a , b"), "RFC 9111 4.1");
        assert_eq!(form("accept", "a/b,, c/d,"), form("accept", "A/b,c/d"), "RFC 9110 5.6.1");
    }

    #[test]
    fn a_field_counts_with_all_that_some_targets_take_for_it() {
        let response = Headers::default();
        let names = ["x-theme", "accept", "accept-encoding", "accept-language"];
        let readers = [Reader::Any, Reader::Variant(Ties::Ordered), Reader::Of(&response, Ties::Unordered)];
        for (name, reader) in names.into_iter().flat_map(|name| readers.map(|reader| (name, reader))) {
            let form = |fields: &[(&str, &str)]| value(name, &fields.iter().copied().collect(), reader);
            let (low, dotted) = (name.replace('-', "_"), name.replace('-', "."));
            let plain = [form(&[]), form(&[(name, "a")]), form(&[(name, "b")])];
            for other in [low.as_str(), dotted.as_str()].into_iter().filter(|other| *other != name) {
                let forms = [
                    form(&[(other, "b")]),
                    form(&[(name, "a"), (other, "b")]),
                    form(&[(other, "b"), (name, "a")]),
                ];
                for (at, form) in forms.iter().enumerate() {
                    assert!(
                        !plain.contains(form) && !forms[..at].contains(form),
                        "RFC 3875 4.1.18: {name} {other}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn requests_of_one_key_have_one_language(
            a in "(en|de|fr|[*])(;q=0[.][1-9])?(, (en|de|fr)(;q=0[.][1-9])?){0,2}",
            b in "(en|de|fr|[*])(;q=0[.][1-9])?(, (en|de|fr)(;q=0[.][1-9])?){0,2}",
        ) {
            let headers = |text: &str| Headers::from_iter([("accept-language", text)]);
            let (a, b) = (headers(&a), headers(&b));
            let form = |request: &Headers, ties| value("accept-language", request, Reader::Variant(ties));
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
