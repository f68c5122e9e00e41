//! What unsafe requests make stale (RFC 9111, section 4.4; RFC 9875, section 3).

use std::sync::Arc;

use super::directives::Directives;
use super::freshness::{Times, has_validator, is_explicit, judge};
use super::validate::storable_headers;
use super::vary::Ties;
use super::{Store, Subject, groups, key, names};
use crate::facts::{Facts, normalise_host, normalise_path};
use crate::limits::{CACHE_FORGET_MAX, CACHE_TAG_BYTES_MAX};
use crate::ruleset::{CachePolicy, KeyPart};
use crate::step::{CacheKey, Entry, Purge, ResponseHead};

/// What an unsafe request made stale (RFC 9111, section 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Keys to forget in the host's store, with all variants by `Vary`: no instance of the edge with this store finds them
    /// any more. What a policy's key tells apart by who asks is found by others until its lifetime ends, unless it is theirs
    /// who sent this request.
    pub forget: Vec<CacheKey>,
    /// Marks for the journal of this node: every stored variant of these URIs, and what is in these groups, is stale.
    pub purges: Vec<Purge>,
    /// The response itself, where it is what a `GET` of the same URI would bring from now on.
    pub store: Option<Store>,
}

/// How one of the routes that store the answers of a URI makes their keys, for who sent the unsafe request.
#[derive(Clone, Debug)]
pub struct Keying<'a> {
    /// The route's policy.
    pub policy: &'a CachePolicy,
    /// [`Subject::route`].
    pub route: &'a str,
    /// [`Subject::rewrites`].
    pub rewrites: Vec<Arc<str>>,
    /// [`Subject::values`].
    pub values: Vec<Option<String>>,
}

/// Path and query of a URI on the host of the request.
type UriTarget = (String, Option<String>);

/// What the response to an unsafe request makes stale (RFC 9111, section 4.4): its own URI, those of the same host that
/// `Location` and `Content-Location` name, whichever routes store answers of theirs, and the groups of the host in
/// `Cache-Group-Invalidation`. `policy` is that of the route, where this request is none that goes past the cache; `keyings`
/// tells of a path and query how the routes for them make keys.
#[must_use]
pub fn invalidate<'a>(
    subject: &Subject<'_>,
    policy: Option<&CachePolicy>,
    keyings: &dyn Fn(&str, Option<&str>) -> Vec<Keying<'a>>,
    head: &ResponseHead,
    now_ms: u64,
) -> Invalidation {
    let facts = subject.facts;
    let is_safe = matches!(facts.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
    if is_safe || !(200..400).contains(&head.status) {
        return Invalidation::default();
    }
    let named = ["location", "content-location"].into_iter().filter_map(|name| head.headers.get(name));
    let mut targets: Vec<UriTarget> = named.filter_map(|reference| resolve(facts, reference)).collect();
    targets.push((facts.path.clone(), facts.query.clone()));
    targets.sort();
    targets.dedup();
    let store = policy.and_then(|policy| posted(policy, subject, head, now_ms));
    let mut invalidation = Invalidation { store, ..Invalidation::default() };
    let mut tags = Vec::with_capacity(2 * targets.len());
    for (path, query) in &targets {
        let query = query.as_deref();
        for Keying { policy, route, rewrites, values } in keyings(path, query) {
            let subject = Subject { route, rewrites: &rewrites, values: &values, ..*subject };
            let key = key::at(policy, &subject, path, query).0;
            let is_new = invalidation.store.as_ref().is_none_or(|store| store.key != key);
            if is_new && !invalidation.forget.contains(&key) && invalidation.forget.len() < CACHE_FORGET_MAX {
                invalidation.forget.push(key);
            }
            tags.push(keyed_tag(policy, &facts.host, path, query));
        }
        tags.push(uri_tag(&facts.host, path, query));
    }
    tags.sort();
    tags.dedup();
    tags.extend(groups::invalidated(&facts.host, &head.headers));
    let tenant = subject.tenant;
    let mark =
        |tag| Purge { tenant: tenant.to_owned(), tag, source: 0, position: 0, at_ms: now_ms, soft: false };
    invalidation.purges = tags.into_iter().map(mark).collect();
    invalidation
}

/// The response to a `POST` for later requests with `GET`: where it says that it is the representation of its own URI,
/// and for how long (RFC 9110, section 9.3.3). One that varies, or that the request would have past the cache, is not.
fn posted(policy: &CachePolicy, subject: &Subject<'_>, head: &ResponseHead, now_ms: u64) -> Option<Store> {
    let facts = subject.facts;
    let location = head.headers.get("content-location")?;
    let (path, query) = resolve(facts, location)?;
    let is_its_own = path == facts.path && query == facts.query;
    let is_of_its_uri = facts.method == "POST" && head.status == 200 && is_its_own;
    let varies = head.headers.get("vary").is_some();
    let says_how_long = is_explicit(&head.headers);
    if !is_of_its_uri || varies || !says_how_long || Directives::of_request(&facts.headers).no_store {
        return None;
    }
    let times = Times { requested_ms: now_ms, received_ms: now_ms };
    // It varies by nothing.
    let ties = Ties::Ordered;
    let mut notes = judge(policy, &facts.headers, head.status, &head.headers, times, ties).ok()?;
    // Behind the mark that this very request leaves on its URI.
    notes.requested_ms = now_ms.saturating_add(1);
    notes.tags.extend(groups::of(&facts.host, &head.headers).ok()?);
    let headers = storable_headers(&head.headers, policy.store_cookies);
    let keep_ms = notes.keep_ms(has_validator(&headers));
    let entry = Entry { status: head.status, headers, meta: notes.write(), body_bytes: 0 };
    let key = key::primary(policy, subject).0;
    Some(Store { key, entry, keep_ms, refresh: false })
}

/// What a URI reference (RFC 3986, section 5.2) names on this host; `None` for another host or what can't be read.
fn resolve(facts: &Facts, reference: &str) -> Option<UriTarget> {
    let reference = reference.split('#').next().unwrap_or_default();
    let target = match split_authority(reference) {
        Some((authority, target)) => {
            if normalise_host(authority).ok()? != facts.host {
                return None;
            }
            target
        }
        None if reference.starts_with('/') => reference.to_owned(),
        None if reference.starts_with('?') => format!("{}{reference}", facts.path),
        None if reference.is_empty() || reference.contains(':') => return None,
        None => {
            format!("{}/{reference}", facts.path.rsplit_once('/').map_or("", |(folder, _)| folder))
        }
    };
    target_of(&target)
}

/// The host of an absolute URL of HTTP, and the tag that a purge of the URL has. `None` where it is none, or where no
/// request has such a URL. The tag stands for both schemes and every port, and for this query alone.
#[must_use]
pub fn url_tag(url: &str) -> Option<(String, String)> {
    let url = url.split('#').next().unwrap_or_default();
    let (authority, target) = split_authority(url).filter(|_| !url.starts_with('/'))?;
    let host = normalise_host(authority).ok()?;
    let (path, query) = target_of(&target)?;
    let tag = uri_tag(&host, &path, query.as_deref());
    Some((host, tag))
}

/// Authority and target of a URL that has an authority.
fn split_authority(url: &str) -> Option<(&str, String)> {
    let absolute = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
    let rest = absolute.map(|(_, rest)| rest).or_else(|| url.strip_prefix("//"))?;
    let (authority, target) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    Some((authority, format!("{slash}{target}")))
}

/// The tags of a request's URI. Where its query is no part of the key, or not all of it, a purge of the URL with what the
/// key takes of it reaches what is stored for them, and one of the URL without a query what is stored for all.
pub(super) fn uri_tags(policy: &CachePolicy, facts: &Facts) -> Vec<String> {
    let mut tags = vec![uri_tag(&facts.host, &facts.path, facts.query.as_deref())];
    if facts.query.is_some() && policy.query != KeyPart::All {
        tags.push(uri_tag(&facts.host, &facts.path, None));
        tags.push(keyed_tag(policy, &facts.host, &facts.path, facts.query.as_deref()));
        tags.sort();
        tags.dedup();
    }
    tags
}

/// The tag of a URI with what the key takes of its query, which all that share the entry have.
fn keyed_tag(policy: &CachePolicy, host: &str, path: &str, query: Option<&str>) -> String {
    uri_tag(host, path, names::query_part(policy, query).as_deref())
}

/// A request target in origin form, its path normalised.
fn target_of(target: &str) -> Option<UriTarget> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Some((normalise_path(path).ok()?.into_owned(), query.map(str::to_owned)))
}

/// Stands for a URI among tags; a long one by its hash, so that no tag is longer than any may be.
fn uri_tag(host: &str, path: &str, query: Option<&str>) -> String {
    let mut tag = format!("={host}{path}");
    if let Some(query) = query {
        tag.push('?');
        tag.push_str(query);
    }
    if tag.len() > CACHE_TAG_BYTES_MAX {
        tag = format!("=#{}", key::digest(&tag));
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::super::tests::{get, keying, policy, subject};
    use super::*;
    use crate::headers::Headers;

    #[test]
    fn a_url_has_the_tag_of_the_requests_for_it() {
        let check = |url: &str, expect: Option<(&str, &str)>| {
            let got = url_tag(url);
            let got = got.as_ref().map(|(host, tag)| (host.as_str(), tag.as_str()));
            assert_eq!(got, expect, "{url}");
        };
        check("https://Shop.Test/a?b=1&c#d", Some(("shop.test", "=shop.test/a?b=1&c")));
        check("HTTP://shop.test:8080/%7Ea", Some(("shop.test", "=shop.test/~a")));
        check("https://shop.test", Some(("shop.test", "=shop.test/")));
        check("https://shop.test?a", Some(("shop.test", "=shop.test/?a")));
        let long = format!("https://shop.test/{}", "a".repeat(CACHE_TAG_BYTES_MAX));
        let (host, tag) = url_tag(&long).unwrap();
        assert_eq!(
            (host.as_str(), tag.starts_with("=#"), tag.len() < 64),
            ("shop.test", true, true),
            "{tag}"
        );
        assert_ne!(tag, url_tag(&format!("{long}b")).unwrap().1);
        for wrong in [
            "",
            "/a",
            "//shop.test/a",
            "shop.test/a",
            "ftp://shop.test/",
            "https:///a",
            "https://a b/",
            "https://shop.test/../a",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_shares_an_entry_shares_a_tag() {
        let only = CachePolicy { query: KeyPart::Only(vec!["x".to_owned(), "y".to_owned()]), ..policy() };
        let none = CachePolicy { query: KeyPart::None, ..policy() };
        let check = |policy: &CachePolicy, url: &str, read: &[&str], written: &[&str]| {
            let mut facts = get(url, &[]);
            facts.host = "h".to_owned();
            assert_eq!(uri_tags(policy, &facts), read, "read {url}");
            facts.method = "POST".to_owned();
            let head = ResponseHead { status: 200, headers: Headers::default(), elapsed_ms: 0, ran: None };
            let keyings = |_: &str, _: Option<&str>| vec![keying(policy)];
            let invalidation = invalidate(&subject(&facts), Some(policy), &keyings, &head, 1);
            let tags: Vec<_> = invalidation.purges.iter().map(|purge| purge.tag.as_str()).collect();
            assert_eq!((tags.as_slice(), invalidation.forget.len()), (written, 1), "written {url}");
        };
        let all = ["=h/a?u=2&y=3&x=1"];
        check(&policy(), "/a?u=2&y=3&x=1", &all, &all);
        check(
            &only,
            "/a?u=2&y=3&x=1",
            &["=h/a", "=h/a?u=2&y=3&x=1", "=h/a?x=1&y=3"],
            &["=h/a?u=2&y=3&x=1", "=h/a?x=1&y=3"],
        );
        check(&only, "/a?u=2", &["=h/a", "=h/a?u=2"], &["=h/a", "=h/a?u=2"]);
        check(&none, "/a?u=2", &["=h/a", "=h/a?u=2"], &["=h/a", "=h/a?u=2"]);
        check(&only, "/a", &["=h/a"], &["=h/a"]);
    }

    #[test]
    fn every_route_that_stores_a_uri_forgets_it_and_no_more_than_there_may_be() {
        let (all, none) = (policy(), CachePolicy { query: KeyPart::None, ..policy() });
        let mut facts = get("/a?u=2", &[]);
        (facts.host, facts.method) = ("h".to_owned(), "PUT".to_owned());
        let head = ResponseHead { status: 200, headers: Headers::default(), elapsed_ms: 0, ran: None };
        // The request's own route stores nothing.
        let keyings =
            |_: &str, _: Option<&str>| vec![keying(&all), Keying { route: "other", ..keying(&none) }];
        let invalidation = invalidate(&subject(&facts), None, &keyings, &head, 1);
        let of = |route, policy| key::primary(policy, &Subject { route, ..subject(&facts) }).0;
        assert_eq!(invalidation.forget, [of("r", &all), of("other", &none)]);
        let tags: Vec<_> = invalidation.purges.iter().map(|purge| purge.tag.as_str()).collect();
        assert_eq!(tags, ["=h/a", "=h/a?u=2"], "each by what its key takes of the query");

        let names: Vec<String> = (0..2 * CACHE_FORGET_MAX).map(|route| route.to_string()).collect();
        let keyings = |_: &str, _: Option<&str>| {
            names.iter().map(|route| Keying { route, ..keying(&all) }).collect::<Vec<_>>()
        };
        let invalidation = invalidate(&subject(&facts), None, &keyings, &head, 1);
        assert_eq!(invalidation.forget.len(), CACHE_FORGET_MAX);
    }
}
