//! The order of routes: most specific first, whatever the order of files and documents. Two routes that are equally
//! specific and could both match one request are an error.
//!
//! What decides, in this order: what the route says of the request's host, its exact name before the longest wildcard over
//! it before any host, a route with several hosts once for each; the path, segment by segment, a literal before a capture
//! before an open end; methods named before any method; more header fields, then more query parameters, required; a
//! condition before none; the higher `priority`. The host is the index's to ask, as it is another for each request
//! ([`RouteIndex`](meridian_engine::policy::route::RouteIndex)): what is ordered here are the routes of one host.

use std::cmp::{Ordering, Reverse};

use meridian_engine::policy::route::method_matches;
use meridian_engine::ruleset::{Matcher, PathTemplate, Segment};

/// A route's matcher with its priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) priority: i32,
}

/// Which of two routes is asked first, where their hosts say equally much of the request's.
pub(super) fn order(a: Ranked<'_>, b: Ranked<'_>) -> Ordering {
    path_order(&a.matcher.path, &b.matcher.path).then_with(|| rest(a).cmp(&rest(b)))
}

/// Whether two routes are equally specific and could both match one request.
pub(super) fn ambiguous(a: Ranked<'_>, b: Ranked<'_>) -> bool {
    order(a, b).is_eq()
        && share_a_host(&a.matcher.hosts, &b.matcher.hosts)
        && share_a_method(&a.matcher.methods, &b.matcher.methods)
        && agree(&a.matcher.headers, &b.matcher.headers)
        && agree(&a.matcher.query, &b.matcher.query)
}

type Rest = (bool, Reverse<usize>, Reverse<usize>, bool, Reverse<i32>);

fn rest(route: Ranked<'_>) -> Rest {
    let Ranked { matcher, priority } = route;
    (
        matcher.methods.is_empty(),
        Reverse(matcher.headers.len()),
        Reverse(matcher.query.len()),
        matcher.when.is_none(),
        Reverse(priority),
    )
}

fn path_order(a: &PathTemplate, b: &PathTemplate) -> Ordering {
    for (left, right) in a.segments.iter().zip(&b.segments) {
        let by_kind = match (left, right) {
            (Segment::Literal(left), Segment::Literal(right)) => left.cmp(right),
            (Segment::Literal(_), Segment::Capture(_)) => Ordering::Less,
            (Segment::Capture(_), Segment::Literal(_)) => Ordering::Greater,
            (Segment::Capture(_), Segment::Capture(_)) => Ordering::Equal,
        };
        if by_kind != Ordering::Equal {
            return by_kind;
        }
    }
    b.segments.len().cmp(&a.segments.len()).then(a.open.cmp(&b.open))
}

/// Whether there is a host of which both lists say equally much. Below a wildcard that both have there is always a host of
/// which neither says more.
fn share_a_host(a: &[String], b: &[String]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|host| b.contains(host))
}

/// Whether a request may have a method of both lists; an empty list holds every method.
fn share_a_method(a: &[String], b: &[String]) -> bool {
    let takes = |list: &[String], of: &[String]| of.iter().any(|method| method_matches(list, method));
    a.is_empty() || b.is_empty() || takes(a, b) || takes(b, a)
}

/// Whether one request could satisfy both lists of fields.
fn agree(a: &[(String, Option<String>)], b: &[(String, Option<String>)]) -> bool {
    let clash = |(name, value): &(String, Option<String>)| {
        b.iter().any(|(other, wanted)| {
            other == name && matches!((value, wanted), (Some(value), Some(wanted)) if value != wanted)
        })
    };
    !a.iter().any(clash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(host: &str, path: &str, method: &str) -> Matcher {
        let list = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        Matcher {
            hosts: list(host),
            path: super::super::compile::path_template(path).unwrap(),
            methods: list(method),
            ..Matcher::default()
        }
    }

    #[test]
    fn the_more_specific_goes_first() {
        let expected = [
            ("", "/v1/orders", "GET"),
            ("", "/v1/orders", ""),
            ("", "/v1/orders/**", ""),
            ("", "/v1/{name}/records", ""),
            ("", "/v1/{name}", ""),
            ("", "/v1/**", ""),
            ("", "/**", ""),
        ];
        let mut all: Vec<Matcher> =
            expected.iter().map(|(host, path, method)| matcher(host, path, method)).collect();
        let right = format!("{all:?}");
        for turn in 0..all.len() {
            all.rotate_left(turn);
            all.sort_by(|a, b| order(Ranked { matcher: a, priority: 0 }, Ranked { matcher: b, priority: 0 }));
            assert_eq!(format!("{all:?}"), right);
        }
    }

    #[test]
    fn a_tie_needs_a_host_of_which_both_say_as_much() {
        let of = |hosts: &[&str]| Matcher {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            ..matcher("", "/v1", "")
        };
        let tie = |a: &[&str], b: &[&str]| {
            let (a, b) = (of(a), of(b));
            let tie =
                |a, b| ambiguous(Ranked { matcher: a, priority: 0 }, Ranked { matcher: b, priority: 0 });
            assert_eq!(tie(&a, &b), tie(&b, &a));
            tie(&a, &b)
        };
        assert!(tie(&[], &[]));
        assert!(tie(&["*.example", "a.example"], &["b.example", "*.example"]));
        assert!(tie(&["a.example", "*.test"], &["a.example"]));
        assert!(!tie(&["*.example"], &[]), "a wildcard says more than nothing");
        assert!(!tie(&["*.example"], &["*.a.example"]), "the longer says more");
        assert!(!tie(&["*.example"], &["a.example", "*.test"]), "the exact name says more");
    }

    #[test]
    fn head_is_taken_where_get_is() {
        let tie = |a: &str, b: &str| {
            let (a, b) = (matcher("", "/v1", a), matcher("", "/v1", b));
            ambiguous(Ranked { matcher: &a, priority: 0 }, Ranked { matcher: &b, priority: 0 })
        };
        assert!(tie("GET", "HEAD") && tie("HEAD", "GET"));
        assert!(!tie("HEAD", "POST") && !tie("GET", "POST"));
    }

    #[test]
    fn only_a_possible_tie_is_ambiguous() {
        let tie = |a: &Matcher, b: &Matcher, priority| {
            ambiguous(Ranked { matcher: a, priority }, Ranked { matcher: b, priority: 0 })
        };
        let (get, post) = (matcher("", "/v1/{a}", "GET"), matcher("", "/v1/{b}", "POST"));
        assert!(tie(&get, &matcher("", "/v1/{b}", "GET"), 0));
        assert!(!tie(&get, &matcher("", "/v1/{b}", "GET"), 1), "priority decides");
        assert!(!tie(&get, &post, 0), "no request has both methods");
        assert!(!tie(&get, &matcher("", "/v1/x", "GET"), 0));
        let mut with = matcher("", "/v1/{a}", "GET");
        with.headers = vec![("x".into(), Some("1".into()))];
        let mut other = with.clone();
        other.headers = vec![("x".into(), Some("2".into()))];
        assert!(!tie(&with, &other, 0), "no request has both values");
        assert!(tie(&with, &with.clone(), 0));
    }
}
