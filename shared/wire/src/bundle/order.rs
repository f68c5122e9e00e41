//! The order of routes: most specific first, whatever the order of files and documents. Two routes that are equally
//! specific and could both match one request are an error.
//!
//! What decides, in this order: what the route says of the request's host, its exact name before the longest wildcard over
//! it before any host, a route with several hosts once for each; the path, segment by segment, a literal before a capture
//! before an open end; methods named before any method; more header fields, then more query parameters, required; a
//! condition before none; the higher `priority`. The host is the index's to ask, as it is another for each request
//! ([`RouteIndex`](meridian_engine::policy::route::RouteIndex)): what is ordered here are the routes of one host.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

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

/// Routes that are equally specific and could both match one request: of routes in their order, each with the first such behind
/// it, by their numbers.
///
/// Equally specific ones stand next to one another. Of these only those with a host in common are compared, so that the time
/// grows with the routes and the hosts that they name, times those of one host and one path, which a search for a request's
/// route has to look at as well ([`ROUTE_WORK_MAX`](meridian_engine::limits::ROUTE_WORK_MAX)).
pub(super) fn ties(routes: &[Ranked<'_>]) -> Vec<(usize, usize)> {
    let mut ties = Vec::new();
    let mut start = 0;
    for group in routes.chunk_by(|a, b| order(*a, *b).is_eq()) {
        ties.extend(ties_among(group).into_iter().map(|(at, behind)| (start + at, start + behind)));
        start += group.len();
    }
    ties
}

/// The ties among routes that are equally specific but for their hosts.
fn ties_among(group: &[Ranked<'_>]) -> Vec<(usize, usize)> {
    let mut by_host: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (at, route) in group.iter().enumerate() {
        for host in hosts(*route) {
            by_host.entry(host).or_default().push(at);
        }
    }
    let tie = |(at, route): (usize, &Ranked<'_>)| {
        let behind = |host: Option<&str>| {
            let of_host = by_host.get(&host)?;
            let from = of_host.partition_point(|other| *other <= at);
            let mut others = of_host.iter().skip(from).copied();
            others.find(|other| group.get(*other).is_some_and(|other| may_meet(route.matcher, other.matcher)))
        };
        Some((at, hosts(*route).filter_map(behind).min()?))
    };
    group.iter().enumerate().filter_map(tie).collect()
}

/// The hosts of a route; nothing, once, where it is for all. Of a host in two lists both say equally much: below a wildcard
/// that both have there is always a host of which neither says more.
fn hosts(route: Ranked<'_>) -> impl Iterator<Item = Option<&str>> {
    let hosts = &route.matcher.hosts;
    hosts.iter().map(|host| Some(host.as_str())).chain(hosts.is_empty().then_some(None))
}

/// Whether a request may have a method, fields and parameters of both.
fn may_meet(a: &Matcher, b: &Matcher) -> bool {
    share_a_method(&a.methods, &b.methods) && agree(&a.headers, &b.headers) && agree(&a.query, &b.query)
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

    fn ambiguous(a: Ranked<'_>, b: Ranked<'_>) -> bool {
        !ties(&[a, b]).is_empty()
    }

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

    #[test]
    fn each_tie_is_that_with_the_first_behind() {
        let all: Vec<Matcher> = [
            ("a.example", "/x", "GET"),
            ("", "/x", "GET"),
            ("a.example", "/x", "POST"),
            ("b.example", "/x", "GET"),
            ("a.example", "/x", "HEAD"),
            ("a.example", "/x", "GET"),
            ("a.example", "/y", "GET"),
        ]
        .map(|(host, path, method)| matcher(host, path, method))
        .into();
        let ranked: Vec<Ranked<'_>> = all.iter().map(|matcher| Ranked { matcher, priority: 0 }).collect();
        assert_eq!(ties(&ranked), [(0, 4), (4, 5)]);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what takes a time that grows with the square takes minutes here"
    )]
    fn ten_thousand_hosts_of_one_path_are_compared_in_a_moment() {
        let mut all: Vec<Matcher> = (0..10_000)
            .map(|number| matcher(&format!("h{number}.example"), "/v1/orders/{id}", "GET"))
            .collect();
        all.push(matcher("h7.example", "/v1/orders/{number}", "GET"));
        let ranked: Vec<Ranked<'_>> = all.iter().map(|matcher| Ranked { matcher, priority: 0 }).collect();
        let started = std::time::Instant::now();
        assert_eq!(ties(&ranked), [(7, 10_000)]);
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
