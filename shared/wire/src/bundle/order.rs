//! The order of routes: most specific first, whatever the order of files and documents. Two routes that are equally
//! specific and could both match one request are an error.
//!
//! What decides, in this order: an exact host before a wildcard before any host; the path, segment by segment, a literal
//! before a capture before an open end; methods named before any method; more header fields, then more query
//! parameters, required; a condition before none; the higher `priority`.

use std::cmp::{Ordering, Reverse};

use meridian_engine::ruleset::{Matcher, PathTemplate, Segment};

/// A route's matcher with its priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) priority: i32,
}

/// Which of two routes is asked first.
pub(super) fn order(a: Ranked<'_>, b: Ranked<'_>) -> Ordering {
    host_rank(a.matcher)
        .cmp(&host_rank(b.matcher))
        .then_with(|| path_order(&a.matcher.path, &b.matcher.path))
        .then_with(|| rest(a).cmp(&rest(b)))
}

/// Whether two routes are equally specific and could both match one request.
pub(super) fn ambiguous(a: Ranked<'_>, b: Ranked<'_>) -> bool {
    host_rank(a.matcher) == host_rank(b.matcher)
        && same_path(&a.matcher.path, &b.matcher.path)
        && rest(a) == rest(b)
        && meet(&a.matcher.hosts, &b.matcher.hosts)
        && meet(&a.matcher.methods, &b.matcher.methods)
        && agree(&a.matcher.headers, &b.matcher.headers)
        && agree(&a.matcher.query, &b.matcher.query)
}

/// 0 for exact hosts only, 1 with a wildcard among them, 2 for any host.
fn host_rank(matcher: &Matcher) -> u8 {
    if matcher.hosts.is_empty() {
        2
    } else {
        u8::from(matcher.hosts.iter().any(|host| host.starts_with("*.")))
    }
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

fn same_path(a: &PathTemplate, b: &PathTemplate) -> bool {
    path_order(a, b) == Ordering::Equal
}

/// Whether some value is in both lists; an empty list holds every value.
fn meet(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|value| b.contains(value))
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
            ("a.example", "/**", ""),
            ("*.example", "/v1/orders", "GET"),
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
