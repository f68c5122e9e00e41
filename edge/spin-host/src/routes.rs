//! Which component a path leads to, and the `spin-…` headers that tell the component about its request.
//!
//! Routing: <https://spinframework.dev/http-trigger>. A pattern is a path of literal segments and `:name` segments;
//! `...` or `*` as its last segment takes whatever is left, nothing included.

use std::{cmp::Ordering, fmt, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// Below it Spin answers by itself, whatever routes there are.
pub const WELL_KNOWN: &str = "/.well-known/spin/";

/// A route of a trigger.
#[derive(Clone, Debug)]
pub struct RoutePattern {
    text: String,
    segments: Vec<Segment>,
    open: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(String),
    Name(String),
}

/// A route that isn't one, and why.
#[derive(Debug, PartialEq)]
pub struct InvalidRoute(pub String);

/// How a path matched a route.
#[derive(Debug, PartialEq)]
pub struct RouteMatch<'a> {
    /// What `...` or `*` took, with its leading slash; empty for a route without it.
    pub path_info: &'a str,
    /// What each `:name` took.
    pub named: Vec<(&'a str, &'a str)>,
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl RoutePattern {
    /// Parses the text of a route.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(InvalidRoute(format!("found \"{text}\", expected a path that starts with \"/\"")));
        };
        let mut names: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let open = matches!(names.last(), Some(&("..." | "*")));
        if open {
            names.pop();
        }
        let mut segments = Vec::new();
        for segment in names {
            segments.push(match segment.strip_prefix(':') {
                _ if matches!(segment, "..." | "*") => {
                    return Err(InvalidRoute(format!(
                        "found \"{segment}\" within \"{text}\", expected it at the end only"
                    )));
                }
                Some(name)
                    if name.is_empty()
                        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') =>
                {
                    return Err(InvalidRoute(format!(
                        "found the segment \"{segment}\", expected a name after \":\""
                    )));
                }
                Some(name) => Segment::Name(name.to_owned()),
                None => Segment::Literal(segment.to_owned()),
            });
        }
        Ok(Self { text: text.to_owned(), segments, open })
    }

    /// Whether the other takes the very same paths, under the same names.
    pub fn is_same(&self, other: &Self) -> bool {
        self.open == other.open && self.segments == other.segments
    }

    /// Matches a path against this route.
    pub fn matches<'a>(&'a self, path: &'a str) -> Option<RouteMatch<'a>> {
        let mut rest = path;
        let mut named = Vec::new();
        for segment in &self.segments {
            let after = rest.strip_prefix('/')?;
            let end = after.find('/').unwrap_or(after.len());
            let (found, left) = after.split_at(end);
            match segment {
                Segment::Literal(literal) if literal == found => {}
                Segment::Name(name) if !found.is_empty() => named.push((name.as_str(), found)),
                _ => return None,
            }
            rest = left;
        }
        match rest {
            _ if self.open => Some(RouteMatch { path_info: rest, named }),
            "" | "/" => Some(RouteMatch { path_info: "", named }),
            _ => None,
        }
    }

    /// Orders routes so that the first that matches is the most specific.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let rank = |segment: Option<&Segment>, open: bool| match segment {
            Some(Segment::Literal(_)) => 0,
            Some(Segment::Name(_)) => 1,
            None if open => 3,
            None => 2,
        };
        let longest = self.segments.len().max(other.segments.len());
        (0..=longest)
            .map(|at| rank(self.segments.get(at), self.open).cmp(&rank(other.segments.get(at), other.open)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// The route without its `...`; a `*` stays, as in Spin.
    fn without_wildcard(&self) -> &str {
        if self.open { self.text.trim_end_matches("...").trim_end_matches('/') } else { &self.text }
    }
}

/// The headers of a route that are the same for every request.
#[derive(Debug)]
pub struct RouteHeaders {
    route: HeaderValue,
    component_route: HeaderValue,
}

impl RouteHeaders {
    /// The constant headers of `route`; `None` if the route has characters that no header may have.
    pub fn new(route: &RoutePattern) -> Option<Self> {
        Some(Self {
            route: HeaderValue::from_str(&route.text).ok()?,
            component_route: HeaderValue::from_str(route.without_wildcard()).ok()?,
        })
    }

    /// Removes what the client supplied under Spin's names and sets what is true of this request.
    pub fn set(&self, headers: &mut HeaderMap, uri: &Uri, matched: &RouteMatch<'_>, client: SocketAddr) {
        strip(headers);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        headers.insert(PATH_INFO, value(matched.path_info));
        headers.insert(FULL_URL, value(&uri.to_string()));
        headers.insert(MATCHED_ROUTE, self.route.clone());
        headers.insert(BASE_PATH, HeaderValue::from_static("/"));
        headers.insert(RAW_COMPONENT_ROUTE, self.route.clone());
        headers.insert(COMPONENT_ROUTE, self.component_route.clone());
        headers.insert(CLIENT_ADDR, value(&client.to_string()));
        for (name, found) in &matched.named {
            if let Ok(name) = HeaderName::try_from(format!("spin-path-match-{}", name.to_ascii_lowercase())) {
                headers.insert(name, value(found));
            }
        }
    }
}

const PATH_INFO: HeaderName = HeaderName::from_static("spin-path-info");
const FULL_URL: HeaderName = HeaderName::from_static("spin-full-url");
const MATCHED_ROUTE: HeaderName = HeaderName::from_static("spin-matched-route");
const BASE_PATH: HeaderName = HeaderName::from_static("spin-base-path");
const RAW_COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-raw-component-route");
const COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-component-route");
const CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");

fn strip(headers: &mut HeaderMap) {
    let supplied: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("spin-")).cloned().collect();
    for name in supplied {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_routes() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("/...", "/", Some("/")), ("/...", "/a/b", Some("/a/b")), ("/...", "", Some("")),
            ("/a/...", "/a", Some("")), ("/a/...", "/a/", Some("/")), ("/a/...", "/a/b", Some("/b")), ("/a/...", "/ab", None),
            ("/a/*", "/a", Some("")), ("/a/*", "/a/b/c", Some("/b/c")), ("/a/*", "/ab", None), ("/*", "/", Some("/")),
            ("/a", "/a", Some("")), ("/a", "/a/", Some("")), ("/a", "/a/b", None), ("/a", "/A", None),
            ("/", "/", Some("")), ("/", "/a", None),
            ("/u/:id", "/u/7", Some("")), ("/u/:id", "/u/", None), ("/u/:id/...", "/u/7/x/y", Some("/x/y")),
        ];
        for (route, path, expected) in cases {
            let pattern = RoutePattern::parse(route).unwrap();
            assert_eq!(pattern.matches(path).map(|matched| matched.path_info), *expected, "{route} {path}");
        }
        let pattern = RoutePattern::parse("/u/:id/...").unwrap();
        assert_eq!(pattern.matches("/u/7/x").unwrap().named, [("id", "7")]);
    }

    #[test]
    fn the_most_specific_route_comes_first() {
        let mut routes: Vec<RoutePattern> = ["/...", "/a/...", "/:x", "/a/:x", "/a/b", "/a/b/...", "/a"]
            .iter()
            .map(|route| RoutePattern::parse(route).unwrap())
            .collect();
        routes.sort_by(RoutePattern::by_specificity);
        let order: Vec<String> = routes.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["/a/b", "/a/b/...", "/a/:x", "/a", "/a/...", "/:x", "/..."]);
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for route in ["", "a", "...", "/.../a", "/*/a", "/:", "/:a b"] {
            assert!(RoutePattern::parse(route).is_err(), "{route}");
        }
    }

    #[test]
    fn the_component_is_told_about_its_request() {
        let route = RoutePattern::parse("/u/:id/...").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("spin-client-addr", HeaderValue::from_static("9.9.9.9:1"));
        headers.append("spin-path-match-other", HeaderValue::from_static("forged"));
        let uri: Uri = "http://shop.example:81/u/7/x?q=1".parse().unwrap();
        let matched = route.matches("/u/7/x").unwrap();
        let client = "192.0.2.1:5000".parse().unwrap();
        RouteHeaders::new(&route).unwrap().set(&mut headers, &uri, &matched, client);
        #[rustfmt::skip]
        let expected = [
            ("spin-path-info", "/x"), ("spin-full-url", "http://shop.example:81/u/7/x?q=1"),
            ("spin-matched-route", "/u/:id/..."), ("spin-base-path", "/"), ("spin-raw-component-route", "/u/:id/..."),
            ("spin-component-route", "/u/:id"), ("spin-client-addr", "192.0.2.1:5000"), ("spin-path-match-id", "7"),
        ];
        assert_eq!(headers.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(headers[name], value);
        }
    }
}
