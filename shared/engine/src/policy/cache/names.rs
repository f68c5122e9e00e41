//! What a policy names of a query and of cookies, as far as any target may read it under these names. Targets differ in what they
//! take for one name, in where a pair ends, and in which of several they read; none may be had to answer for another.

use crate::facts::percent_decode;
use crate::headers::{Headers, is_token};
use crate::policy::request::is_own_cookie;
use crate::ruleset::{CachePolicy, KeyPart};

/// What of a query is in the key. One with a `;`, or with a name that is odd, is all of it where only some parameters count:
/// origins that take this for `&` read other parameters than those that do not, and either would poison the entry of the other.
pub(crate) fn query_part(policy: &CachePolicy, query: Option<&str>) -> Option<String> {
    let is_ambiguous = |query: &str| query.contains(';') || query.split('&').map(name_of).any(is_odd);
    match (&policy.query, query) {
        (KeyPart::None, _) | (_, None) => None,
        (KeyPart::All, Some(query)) => Some(query.to_owned()),
        (KeyPart::Only(_), Some(query)) if is_ambiguous(query) => Some(query.to_owned()),
        (KeyPart::Only(names), Some(query)) => Some(only(query, names)).filter(|query| !query.is_empty()),
    }
}

/// The listed parameters of a query, sorted by name, in their order among equals. Pairs stay as they came.
fn only(query: &str, names: &[String]) -> String {
    let wanted: Vec<String> = names.iter().map(|name| broad(name)).collect();
    let named = |pair| (broad(name_of(pair)), pair);
    let mut pairs: Vec<_> = query.split('&').map(named).filter(|(name, _)| wanted.contains(name)).collect();
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().join("&")
}

/// All cookies of a name with their names, in their order; `None` where there is none. Which of several counts is the target's to
/// say (RFC 6265, section 5.4). Where any cookie holds what none may, targets disagree about where each of them begins and ends:
/// some read quotes, some split at commas or spaces, some read no more. All cookies that a target sees are in the key then.
pub(super) fn cookies(request: &Headers, name: &str) -> Option<String> {
    let name = broad(name);
    let pairs = request.get_all("cookie").flat_map(|cookies| cookies.split(';')).map(str::trim_start);
    let mut pairs: Vec<&str> = pairs.filter(|pair| !is_own_cookie(pair)).collect();
    if pairs.iter().all(|pair| is_plain(pair)) {
        pairs.retain(|pair| broad(name_of(pair)) == name);
    } else {
        let mut parts = pairs.iter().flat_map(|pair| pair.split(|letter| !is_of_cookie(letter))).map(name_of);
        if !parts.any(|part| broad(part) == name || is_odd(part)) {
            return None;
        }
    }
    // No pair holds what stands between them.
    (!pairs.is_empty()).then(|| pairs.join(";"))
}

/// Whether a cookie is as servers may set it (RFC 6265, section 4.1.1), without quotes and with a name that is not odd.
fn is_plain(pair: &str) -> bool {
    let pair = pair.trim_end();
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    !is_odd(name) && name.bytes().all(is_token) && value.chars().all(is_of_cookie)
}

/// Whether a character may stand in a cookie (`cookie-octet` of RFC 6265, section 4.1.1).
fn is_of_cookie(letter: char) -> bool {
    letter.is_ascii_graphic() && !matches!(letter, '"' | ',' | ';' | '\\')
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// Whether targets disagree about where a name ends: at a zero byte, or at brackets that are not those of a list behind it.
fn is_odd(name: &str) -> bool {
    let name = percent_decode(name, true);
    let is_list = match name.split_once('[') {
        Some((before, list)) => !before.trim().is_empty() && !before.contains(']') && list.contains(']'),
        None => !name.contains(']'),
    };
    name.contains('\0') || !is_list
}

/// A name that is not odd in one form for all in which some target takes it for the same: decoded, in any case, with white space
/// around it, as one of a list (`name[]`), or with `_` for a `.` or a space, as PHP reads it. Where others tell them apart, a few
/// more entries are the price.
fn broad(name: &str) -> String {
    let name = percent_decode(name, true);
    let name = name.split('[').next().unwrap_or_default().trim_start();
    let name = name.to_ascii_lowercase().replace(['.', ' '], "_");
    // A space at the end may be one, or be left out.
    name.trim_end_matches(|letter: char| letter.is_whitespace() || letter == '_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy;
    use super::*;

    #[test]
    fn a_query_that_can_be_split_in_two_ways_is_in_the_key_as_it_is() {
        let policy =
            CachePolicy { query: KeyPart::Only(vec!["q".to_owned(), "page".to_owned()]), ..policy() };
        let part = |query: &str| query_part(&policy, Some(query));
        assert_eq!(part("utm=1&q=a&page=2"), Some("page=2&q=a".to_owned()));
        assert_eq!(part("utm=1"), None);
        for query in ["utm=1;q=evil", "q=a;page=2", "page=2&q=a;", ";", "utm=1&q=a;utm=2"] {
            assert_eq!(part(query).as_deref(), Some(query), "neither that of `&` nor that of `;`");
        }
        assert_eq!(part("q=a%3Bpage=2"), Some("q=a%3Bpage=2".to_owned()), "encoded it splits nothing");
        let none = CachePolicy { query: KeyPart::None, ..policy.clone() };
        assert_eq!(query_part(&none, Some("a;b")), None);
    }

    #[test]
    fn all_parameters_of_a_name_are_in_the_key_however_a_target_may_read_it() {
        let policy =
            CachePolicy { query: KeyPart::Only(vec!["q".to_owned(), "ids[]".to_owned()]), ..policy() };
        let check = |query: &str, expect: Option<&str>| {
            assert_eq!(query_part(&policy, Some(query)).as_deref(), expect, "{query}");
        };
        check("q=1&x=2&q=3", Some("q=1&q=3"));
        check("q=3&q=1", Some("q=3&q=1"));
        for other in ["%71=1", "Q=1", "q[]=1", "q%5Ba%5D=1", "+q=1", "q", "q="] {
            check(&format!("x=1&{other}"), Some(other));
            check(&format!("q=1&{other}"), Some(&format!("q=1&{other}")));
        }
        check("ids[]=1&ids%5B%5D=2&ids=3", Some("ids[]=1&ids%5B%5D=2&ids=3"));
        check("xq=1&qx=2&x=q", None);
        check("x=1&[]=2", Some("x=1&[]=2"));
    }

    #[test]
    fn names_that_some_targets_take_for_one_are_one() {
        let policy = CachePolicy { query: KeyPart::Only(vec!["page_id".to_owned()]), ..policy() };
        let check = |query: &str, expect: Option<&str>| {
            assert_eq!(query_part(&policy, Some(query)).as_deref(), expect, "{query}");
        };
        // PHP has `_` for what no name of a variable can hold.
        for name in
            ["page.id", "page+id", "page%20id", "page%2Eid", "PAGE_ID", "page.id[]", "+page_id", "page_id+"]
        {
            check(&format!("x=1&{name}=2"), Some(&format!("{name}=2")));
            check(&format!("page_id=1&{name}=2"), Some(&format!("page_id=1&{name}=2")));
        }
        // Where a name ends is the target's to say: nothing is left out.
        for name in [
            "page[id",
            "page%5Bid",
            "page_id%00x",
            "[page_id]",
            "%5Bpage_id%5D",
            "page_id]",
            "page_id[x",
            "[[page_id",
        ] {
            check(&format!("x=1&{name}=2"), Some(&format!("x=1&{name}=2")));
        }
        check("x=1&page=2&id=3&pageid=4&page-id=5", None);
    }

    #[test]
    fn cookies_that_can_be_split_in_two_ways_are_in_the_key_as_they_are() {
        let of = |field: &str, name: &str| cookies(&Headers::from_iter([("cookie", field)]), name);
        for field in [
            r#"x="; theme=dark; y=""#,
            r#"x="a\"; theme=dark"#,
            r#"theme=dark; x={"a":1}"#,
            "x=1, theme=dark",
            "x=1,theme=dark; y=2",
            "x=1 theme=dark",
            "x=1;theme =dark",
            "x=1;theme= dark",
            "theme=dark;x=ä",
            "x=1;[theme]=dark",
            "x=1;theme[=dark",
            "x=1;theme%00y=dark",
        ] {
            let whole = field.split(';').map(str::trim_start).collect::<Vec<_>>().join(";");
            assert_eq!(of(field, "theme"), Some(whole), "RFC 6265 4.1.1: {field}");
        }
        let own = r#"theme="a"; meridian_unit=u1.a.b;x=1"#;
        assert_eq!(of(own, "theme").as_deref(), Some(r#"theme="a";x=1"#), "no target sees the edge's own");
        for field in [r#"x={"a":1,"b":"c d"}; y=2"#, "x=1, y=2", "x=theme y=2", "x==theme"] {
            assert_eq!(of(field, "theme"), None, "no cookie of the name: {field}");
        }
        assert_eq!(of("my.theme=a; x=1", "my_theme").as_deref(), Some("my.theme=a"), "as PHP reads it");
    }
}
