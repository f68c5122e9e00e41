//! Groups of stored responses (RFC 9875): a response names those that it is in, and the response to an unsafe request those
//! that it makes stale.
//!
//! A group is one of its tenant and host; that both schemes and all ports of a host share it makes more stale, never less.
//! Within the cache it is a tag that begins with a space, as no `Cache-Tag` and no `Surrogate-Key` does.

use std::collections::BTreeSet;

use super::key;
use super::structured::strings;
use crate::headers::Headers;
use crate::limits::{CACHE_GROUP_BYTES_MAX, CACHE_GROUPS_MAX, CACHE_TAG_BYTES_MAX};

/// Tags of the groups that a response is in (`Cache-Groups`, section 2). What could not be made stale by its groups is not
/// stored.
pub(super) fn of(host: &str, response: &Headers) -> Result<Vec<String>, &'static str> {
    let names = named(response, "cache-groups");
    if names.len() > CACHE_GROUPS_MAX || names.iter().any(|name| name.len() > CACHE_GROUP_BYTES_MAX) {
        return Err("groups");
    }
    Ok(names.iter().map(|name| tag(host, name)).collect())
}

/// Tags of the groups that the response to an unsafe request makes stale (`Cache-Group-Invalidation`, section 3). Of more
/// than may be named at once the first ones count; nothing is stored in a group of a longer name.
pub(super) fn invalidated(host: &str, response: &Headers) -> Vec<String> {
    let mut names = named(response, "cache-group-invalidation");
    names.retain(|name| name.len() <= CACHE_GROUP_BYTES_MAX);
    names.truncate(CACHE_GROUPS_MAX);
    names.iter().map(|name| tag(host, name)).collect()
}

fn tag(host: &str, name: &str) -> String {
    let tag = format!(" {host} {name}");
    match tag.len() > CACHE_TAG_BYTES_MAX {
        true => format!(" #{}", key::digest(&tag)),
        false => tag,
    }
}

/// The groups of a field, each once. A field that is no list of strings counts as if it were not there.
fn named(response: &Headers, field: &str) -> Vec<String> {
    let mut names = response.joined(field).and_then(|field| strings(&field)).unwrap_or_default();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_a_list_of_strings() {
        let check = |rule: &str, field: &str, expect: &[&str]| {
            let headers = Headers::from_iter([("cache-groups", field)]);
            let expect: Vec<_> = expect.iter().map(|name| format!(" shop.test {name}")).collect();
            assert_eq!(of("shop.test", &headers), Ok(expect), "{rule}: {field}");
        };
        check("RFC 9875 2", r#""scripts""#, &["scripts"]);
        check("RFC 9875 2, two", r#""a", "b c""#, &["a", "b c"]);
        check("RFC 9875 2, twice", r#""a","a""#, &["a"]);
        check("RFC 9875 2.1, case counts", r#""a","A""#, &["a", "A"]);
        check("RFC 9875 2, parameters are ignored", r#""a";x;y=1;z="q,\"", "b";*=?1"#, &["a", "b"]);
        check("RFC 9651 4.2.5, escapes", r#""a\"b\\""#, &["a\"b\\"]);
        check("RFC 9651 4.2.1, empty", "", &[]);
        for malformed in [
            "a",
            "1",
            r#""a", b"#,
            r#""a","#,
            r#","a""#,
            r#""a" "b""#,
            r#""a"#,
            r#""a\b""#,
            "\"\u{e9}\"",
            r#""a";X"#,
            r#""a";x="#,
            r#"("a")"#,
        ] {
            check("RFC 9651 4.2, malformed", malformed, &[]);
        }
        let several = Headers::from_iter([("cache-groups", r#""a""#), ("cache-groups", r#""b""#)]);
        assert_eq!(of("h", &several), Ok(vec![" h a".to_owned(), " h b".to_owned()]), "RFC 9651 4.2");
    }

    #[test]
    fn groups_have_bounds() {
        let list = |count: usize| (0..count).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",");
        let groups = |field: &str| of("h", &Headers::from_iter([("cache-groups", field)]));
        let stale =
            |field: &str| invalidated("h", &Headers::from_iter([("cache-group-invalidation", field)]));
        assert_eq!(groups(&list(CACHE_GROUPS_MAX)).map(|tags| tags.len()), Ok(CACHE_GROUPS_MAX));
        assert_eq!(groups(&list(CACHE_GROUPS_MAX + 1)), Err("groups"));
        assert_eq!(stale(&list(CACHE_GROUPS_MAX + 1)).len(), CACHE_GROUPS_MAX);
        let long = format!("\"{}\"", "a".repeat(CACHE_GROUP_BYTES_MAX + 1));
        assert_eq!(groups(&long), Err("groups"));
        assert_eq!(stale(&format!("{long}, \"b\"")), [" h b"]);
        let host = "h".repeat(CACHE_TAG_BYTES_MAX);
        assert!(tag(&host, "a").len() <= CACHE_TAG_BYTES_MAX);
        assert_ne!(tag(&host, "a"), tag(&host, "b"));
    }

    #[test]
    fn no_other_tag_is_that_of_a_group() {
        for field in ["cache-tag", "surrogate-key"] {
            let headers = Headers::from_iter([(field, " shop.test a"), ("cache-control", "max-age=60")]);
            let times = super::super::freshness::Times { requested_ms: 0, received_ms: 0 };
            let policy = super::super::tests::policy();
            let ties = super::super::vary::Ties::Ordered;
            let judge = super::super::freshness::judge;
            let notes = judge(&policy, &Headers::default(), 200, &headers, times, ties).unwrap();
            assert!(!notes.tags.contains(&tag("shop.test", "a")), "{field}: {:?}", notes.tags);
        }
    }
}
