//! Which route a request takes. An index over hosts and path segments finds the few routes that host and path may mean, in
//! time that depends on their length and not on how many routes and hosts there are. Of those whose host says most (exactly
//! this one, then the longest wildcard, then any) the first that matches decides, in the order of the ruleset.

use std::collections::HashMap;

use crate::bounded::Keyed;
use crate::expr::Inputs;
use crate::facts::{Facts, query_parameter};
use crate::limits::ROUTE_VISITS_MIN;
use crate::ruleset::{Matcher, PathTemplate, Route, Segment};

/// Routes by their hosts and the segments of their paths.
#[derive(Debug)]
pub struct RouteIndex {
    /// Where the paths of routes for all hosts begin.
    any_host: Option<usize>,
    /// Where the paths of a host begin: by the exact name, and by what follows the star of a wildcard.
    roots: HashMap<Box<str>, usize, Keyed>,
    nodes: Vec<PathNode>,
}

/// The routes whose paths share the segments so far.
#[derive(Debug, Default)]
struct PathNode {
    literals: HashMap<Box<str>, usize, Keyed>,
    capture: Option<usize>,
    /// Routes that end here.
    exact: Vec<usize>,
    /// Routes that end here and take whatever follows.
    open: Vec<usize>,
}

/// What the routes say to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    /// This route, by index.
    Route(usize),
    /// No route is for this path.
    None,
    /// Routes are for this path, but with these methods.
    Methods(Vec<String>),
}

impl RouteIndex {
    /// An index of these routes.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        Self::of(routes.iter().map(|route| &route.matcher))
    }

    /// An index of the routes that match so.
    #[must_use]
    pub fn of<'a>(matchers: impl IntoIterator<Item = &'a Matcher>) -> Self {
        let mut index = Self { any_host: None, roots: HashMap::default(), nodes: Vec::new() };
        for (number, Matcher { hosts, path, .. }) in matchers.into_iter().enumerate() {
            if hosts.is_empty() {
                index.add(None, path, number);
            }
            for host in hosts {
                index.add(Some(host.strip_prefix('*').unwrap_or(host)), path, number);
            }
        }
        index
    }

    fn add(&mut self, host: Option<&str>, path: &PathTemplate, number: usize) {
        let next = self.nodes.len();
        let mut at = match host {
            Some(host) => *self.roots.entry(host.into()).or_insert(next),
            None => *self.any_host.get_or_insert(next),
        };
        if at == next {
            self.nodes.push(PathNode::default());
        }
        for segment in &path.segments {
            at = self.child(at, segment);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            if path.open { &mut node.open } else { &mut node.exact }.push(number);
        }
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return at };
        let child = match segment {
            Segment::Literal(text) => *node.literals.entry(text.as_str().into()).or_insert(next),
            Segment::Capture(_) => *node.capture.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(PathNode::default());
        }
        child
    }

    /// The most specific route that matches the request. `faults` takes the conditions that could not be evaluated, which
    /// therefore did not match.
    pub fn find(&self, routes: &[Route], inputs: &Inputs<'_>, faults: &mut Vec<String>) -> Matched {
        self.find_with(routes, inputs, &[], faults)
    }

    /// The most specific route that a request may take of which no more is known than that it will have `fields`: their
    /// names in lower case and in order. One that asks for a value of such a field may match: the request itself decides.
    pub(crate) fn find_announced(&self, routes: &[Route], inputs: &Inputs<'_>, fields: &[String]) -> Matched {
        self.find_with(routes, inputs, fields, &mut Vec::new())
    }

    fn find_with(
        &self,
        routes: &[Route],
        inputs: &Inputs<'_>,
        announced: &[String],
        faults: &mut Vec<String>,
    ) -> Matched {
        let mut methods = Vec::new();
        for number in self.covering(&inputs.facts.host, &inputs.facts.path) {
            let Some(route) = routes.get(number) else { continue };
            if !method_matches(&route.matcher.methods, &inputs.facts.method) {
                methods.extend(route.matcher.methods.iter().cloned());
            } else if matches_rest(route, inputs, announced, faults) {
                return Matched::Route(number);
            }
        }
        if methods.is_empty() { Matched::None } else { Matched::Methods(allowed(methods)) }
    }

    /// The methods that the routes for this host and path take; `None` where one of them takes any.
    pub fn methods(&self, routes: &[Route], facts: &Facts) -> Option<Vec<String>> {
        let mut methods = Vec::new();
        for route in self.covering(&facts.host, &facts.path).filter_map(|number| routes.get(number)) {
            if route.matcher.methods.is_empty() {
                return None;
            }
            methods.extend(route.matcher.methods.iter().cloned());
        }
        Some(allowed(methods))
    }

    /// The routes for this host and path, whatever else they ask of a request, the most specific first.
    pub fn covering(&self, host: &str, path: &str) -> impl Iterator<Item = usize> {
        let mut candidates = Vec::with_capacity(8);
        let inside = path.strip_prefix('/').unwrap_or_default();
        let mut steps = 0;
        for (rank, root) in self.roots_of(host).enumerate() {
            let rest = (!inside.is_empty()).then_some(inside);
            self.collect(root, rest, &mut |number| candidates.push((rank, number)), &mut steps);
        }
        // A route may name both a host and a wildcard over it: what says more counts.
        candidates.sort_unstable_by_key(|(rank, number)| (*number, *rank));
        candidates.dedup_by_key(|(_, number)| *number);
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, number)| number)
    }

    /// How many places of the index and routes there a search may have to look at for one request, at most: those of each host
    /// and the wildcards over it, of the literals at each place the one that leads to most, and the capture beside it.
    #[must_use]
    pub fn work_max(&self) -> usize {
        let mut works = vec![0_usize; self.nodes.len()];
        let of = |works: &[usize], at: usize| works.get(at).copied().unwrap_or_default();
        // Each node is made after the one that it is below.
        for (at, node) in self.nodes.iter().enumerate().rev() {
            let literal = node.literals.values().map(|child| of(&works, *child)).max().unwrap_or_default();
            let capture = node.capture.map_or(0, |child| of(&works, child));
            let work = 1 + node.open.len() + node.exact.len().max(literal + capture);
            if let Some(slot) = works.get_mut(at) {
                *slot = work;
            }
        }
        let of_host = |host: &str| self.roots_of(host).map(|root| of(&works, root)).sum::<usize>();
        let of_any = self.any_host.map_or(0, |root| of(&works, root));
        self.roots.keys().map(|host| of_host(host)).max().unwrap_or_default().max(of_any)
    }

    /// The routes for exactly this one of their hosts (of all hosts, without one) whose path takes all that `path` takes, in
    /// no particular order.
    pub(crate) fn over(&self, host: Option<&str>, path: &PathTemplate) -> Vec<usize> {
        let root = match host {
            Some(host) => self.roots.get(host.strip_prefix('*').unwrap_or(host)).copied(),
            None => self.any_host,
        };
        let mut found = Vec::new();
        if let Some(root) = root {
            self.collect_over(root, &path.segments, path.open, &mut found);
        }
        found
    }

    fn collect_over(&self, at: usize, rest: &[Segment], open: bool, found: &mut Vec<usize>) {
        let Some(node) = self.nodes.get(at) else { return };
        found.extend(&node.open);
        let Some((segment, rest)) = rest.split_first() else {
            if !open {
                found.extend(&node.exact);
            }
            return;
        };
        if let Segment::Literal(text) = segment
            && let Some(child) = node.literals.get(text.as_str())
        {
            self.collect_over(*child, rest, open, found);
        }
        if let Some(child) = node.capture {
            self.collect_over(child, rest, open, found);
        }
    }

    /// Where the paths of a host begin, what says more of it first: those of this host, of each wildcard over it, the
    /// longest first, and of all hosts.
    fn roots_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = usize> + 'a {
        let above = host.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| host.get(at..));
        let own = std::iter::once(host).chain(above).filter_map(|name| self.roots.get(name).copied());
        own.chain(self.any_host)
    }

    /// Tells the routes that `rest` may mean below `at`; `steps` bounds the work where captures and literals mix.
    fn collect(&self, at: usize, rest: Option<&str>, found: &mut impl FnMut(usize), steps: &mut usize) {
        let Some(node) = self.nodes.get(at) else { return };
        *steps += 1;
        if *steps > self.nodes.len().max(ROUTE_VISITS_MIN) {
            return;
        }
        node.open.iter().for_each(|number| found(*number));
        let Some(rest) = rest else {
            node.exact.iter().for_each(|number| found(*number));
            return;
        };
        let (segment, rest) =
            rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        if let Some(child) = node.literals.get(segment) {
            self.collect(*child, rest, found, steps);
        }
        if let Some(child) = node.capture.filter(|_| !segment.is_empty()) {
            self.collect(child, rest, found, steps);
        }
    }
}

/// Methods of several routes as `Allow` has them (RFC 9110, section 10.2.1): each once, and `HEAD` wherever `GET` goes.
fn allowed(mut methods: Vec<String>) -> Vec<String> {
    if methods.iter().any(|method| method == "GET") {
        methods.push("HEAD".to_owned());
    }
    methods.sort_unstable();
    methods.dedup();
    methods
}

/// Whether a method is among `methods`; none is all. `HEAD` goes wherever `GET` goes (RFC 9110, section 9.3.2).
#[must_use]
pub fn method_matches(methods: &[String], method: &str) -> bool {
    methods.is_empty()
        || methods.iter().any(|have| have == method)
        || (method == "HEAD" && methods.iter().any(|have| have == "GET"))
}

fn matches_rest(route: &Route, inputs: &Inputs<'_>, announced: &[String], faults: &mut Vec<String>) -> bool {
    let Matcher { headers, query, when, path, .. } = &route.matcher;
    let will_come = |name: &str| announced.binary_search_by(|field| field.as_str().cmp(name)).is_ok();
    if !headers
        .iter()
        .all(|(name, value)| will_come(name) || has_header(inputs.facts, name, value.as_deref()))
        || !query.iter().all(|(name, value)| has_parameter(inputs.facts, name, value.as_deref()))
    {
        return false;
    }
    let Some(when) = when else { return true };
    when.holds(&Inputs { path: Some(path), ..*inputs }).unwrap_or_else(|fault| {
        faults.push(format!("{}: {fault}", route.rule.name));
        false
    })
}

fn has_header(facts: &Facts, name: &str, value: Option<&str>) -> bool {
    facts.headers.value(name).is_some_and(|have| value.is_none_or(|value| value == have))
}

fn has_parameter(facts: &Facts, name: &str, value: Option<&str>) -> bool {
    query_parameter(facts.query.as_deref(), name).is_some_and(|have| value.is_none_or(|value| value == have))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expr::{Comparison, Expr, Fact, Value};
    use crate::fixtures::request;
    use crate::fixtures::route;

    fn find(routes: &[Route], method: &str, host: &str, path: &str) -> Matched {
        let facts = request(method, host, path);
        RouteIndex::new(routes).find(routes, &Inputs::anonymous(&facts, "acme"), &mut Vec::new())
    }

    /// Whether a pattern, exact or with a leading `*.` for any number of labels, means this host.
    fn is_host(pattern: &str, host: &str) -> bool {
        match pattern.strip_prefix('*') {
            Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
            None => pattern == host,
        }
    }

    /// How much a route's hosts say of a host, the less the more; `None` where they do not mean it.
    fn rank(patterns: &[String], host: &str) -> Option<usize> {
        let said = |pattern: &String| if pattern.starts_with('*') { usize::MAX - pattern.len() } else { 0 };
        let ranks = patterns.iter().filter(|pattern| is_host(pattern, host)).map(said);
        if patterns.is_empty() { Some(usize::MAX) } else { ranks.min() }
    }

    /// The most specific match by trying all: what the index has to agree with.
    fn find_slowly(routes: &[Route], host: &str, path: &str) -> Matched {
        let inside = path.strip_prefix('/').unwrap();
        let parts: Vec<&str> = if inside.is_empty() { vec![] } else { inside.split('/').collect() };
        let fits = |template: &PathTemplate| {
            let long = parts.len() == template.segments.len()
                || (template.open && parts.len() > template.segments.len());
            long && template.segments.iter().zip(&parts).all(|(segment, part)| match segment {
                Segment::Literal(text) => text == part,
                Segment::Capture(_) => !part.is_empty(),
            })
        };
        let ranked = |(number, route): (usize, &Route)| {
            let rank = rank(&route.matcher.hosts, host)?;
            fits(&route.matcher.path).then_some((rank, number))
        };
        let first = routes.iter().enumerate().filter_map(ranked).min();
        first.map_or(Matched::None, |(_, number)| Matched::Route(number))
    }

    #[test]
    fn the_first_route_that_matches_decides() {
        let mut routes =
            [route("/v1/orders/{id}"), route("/v1/orders"), route("/v1/**"), route("/caf%C3%A9"), route("/")];
        routes[0].matcher.methods = vec!["GET".to_owned()];
        routes[1].matcher.methods = vec!["POST".to_owned(), "GET".to_owned()];
        routes[2].matcher.hosts = vec!["*.acme.example".to_owned()];
        let check = |method, host, path, expect| {
            assert_eq!(find(&routes, method, host, path), expect, "{method} {host} {path}");
        };
        let methods = |methods: &[&str]| Matched::Methods(methods.iter().map(ToString::to_string).collect());
        check("GET", "acme.example", "/v1/orders/7", Matched::Route(0));
        check("HEAD", "acme.example", "/v1/orders/7", Matched::Route(0));
        check("GET", "acme.example", "/v1/orders", Matched::Route(1));
        check("GET", "acme.example", "/v1/orders/", Matched::None);
        check("GET", "eu.acme.example", "/v1/orders/", Matched::Route(2));
        check("GET", "eu.acme.example", "/v1", Matched::Route(2));
        check("DELETE", "acme.example", "/v1/orders/7", methods(&["GET", "HEAD"]));
        check("DELETE", "acme.example", "/v1/orders", methods(&["GET", "HEAD", "POST"]));
        check("DELETE", "eu.acme.example", "/v1/orders", Matched::Route(2));
        check("GET", "acme.example", "/caf%C3%A9", Matched::Route(3));
        check("GET", "acme.example", "/", Matched::Route(4));
        check("GET", "acme.example", "/v2", Matched::None);
    }

    #[test]
    fn what_says_most_of_the_host_decides_first() {
        let hosts = [
            vec![],
            vec!["*.shop.example"],
            vec!["*.paris.shop.example"],
            vec!["till.paris.shop.example", "*.example"],
            vec!["till.paris.shop.example", "*.paris.shop.example"],
        ];
        let of = |hosts: &Vec<&str>| {
            let mut route = route("/a");
            route.matcher.hosts = hosts.iter().map(ToString::to_string).collect();
            route
        };
        let mut routes: Vec<Route> = hosts.iter().map(of).collect();
        let check = |routes: &[Route], host: &str, expect: usize| {
            assert_eq!(find(routes, "GET", host, "/a"), Matched::Route(expect), "{host}");
        };
        check(&routes, "till.paris.shop.example", 3);
        check(&routes, "x.paris.shop.example", 2);
        check(&routes, "paris.shop.example", 1);
        check(&routes, "x.shop.example", 1);
        check(&routes, "shop.example", 3);
        check(&routes, "example", 0);
        check(&routes, "other.test", 0);
        // One that does not match leaves the request to the next, whose host says less.
        routes[2].matcher.methods = vec!["POST".to_owned()];
        routes[4].matcher.methods = vec!["POST".to_owned()];
        check(&routes, "x.paris.shop.example", 1);
    }

    #[test]
    fn a_field_on_several_lines_is_one_value() {
        let mut beta = route("/a");
        beta.matcher.headers = vec![("x-beta".to_owned(), Some("1".to_owned()))];
        let mut list = route("/a");
        list.matcher.headers = vec![("x-beta".to_owned(), Some("1, 2".to_owned()))];
        let routes = [beta, list, route("/a")];
        let index = RouteIndex::new(&routes);
        let check = |lines: &[&str], expect: usize| {
            let mut facts = request("GET", "acme.example", "/a");
            lines.iter().for_each(|line| facts.headers.append("x-beta", line));
            let inputs = Inputs::anonymous(&facts, "acme");
            assert_eq!(index.find(&routes, &inputs, &mut Vec::new()), Matched::Route(expect), "{lines:?}");
        };
        check(&["1"], 0);
        check(&["1", "2"], 1);
        check(&["1, 2"], 1);
        check(&["2", "1"], 2);
    }

    #[test]
    fn a_field_that_is_announced_may_have_any_value() {
        let with = |name: &str, value: Option<&str>| {
            let mut route = route("/a");
            route.matcher.headers = vec![(name.to_owned(), value.map(str::to_owned))];
            route
        };
        let routes = [with("x-beta", Some("1")), with("x-trace", None)];
        let index = RouteIndex::new(&routes);
        let facts = request("GET", "acme.example", "/a");
        let check = |fields: &[&str], expect: Matched| {
            let names: Vec<String> = fields.iter().map(ToString::to_string).collect();
            let found = index.find_announced(&routes, &Inputs::anonymous(&facts, "acme"), &names);
            assert_eq!(found, expect, "{fields:?}");
        };
        check(&[], Matched::None);
        check(&["x-other"], Matched::None);
        check(&["x-beta"], Matched::Route(0));
        check(&["x-beta", "x-trace"], Matched::Route(0));
        check(&["x-other", "x-trace"], Matched::Route(1));
    }

    #[test]
    fn headers_query_and_condition_have_to_hold() {
        let mut beta = route("/a");
        beta.matcher.headers = vec![("x-beta".to_owned(), None)];
        beta.matcher.query = vec![("plan".to_owned(), Some("gold".to_owned()))];
        let (country, de) = (Expr::Fact(Fact::Country), Expr::Literal(Value::Text("DE".to_owned())));
        beta.matcher.when = Some(Expr::Compare(Comparison::Less, Box::new(country), Box::new(de)));
        let routes = [beta, route("/a")];
        let index = RouteIndex::new(&routes);
        let mut facts = request("GET", "acme.example", "/a");
        let mut faults = Vec::new();
        facts.headers.append("x-beta", "1");
        facts.query = Some("plan=gold".to_owned());
        assert_eq!(index.find(&routes, &Inputs::anonymous(&facts, "acme"), &mut faults), Matched::Route(1));
        assert_eq!(faults, ["r: found a text, expected an absent value"]);
        facts.place.country = Some("AT".to_owned());
        assert_eq!(index.find(&routes, &Inputs::anonymous(&facts, "acme"), &mut faults), Matched::Route(0));
        facts.query = Some("plan=silver".to_owned());
        assert_eq!(index.find(&routes, &Inputs::anonymous(&facts, "acme"), &mut faults), Matched::Route(1));
    }

    #[test]
    fn the_work_of_a_search_is_that_of_the_worst_request() {
        let work = |templates: &[&str], hosts: &[&str]| {
            let with = |(template, host): (&&str, &&str)| {
                let mut route = route(template);
                route.matcher.hosts =
                    Some(*host).filter(|host| !host.is_empty()).map(str::to_owned).into_iter().collect();
                route
            };
            RouteIndex::new(&templates.iter().zip(hosts).map(with).collect::<Vec<_>>()).work_max()
        };
        assert_eq!(work(&[], &[]), 0);
        assert_eq!(
            work(&["/a", "/b", "/c"], &[""; 3]),
            3,
            "the beginning, one place below it, and its route"
        );
        assert_eq!(work(&["/a", "/a", "/a"], &[""; 3]), 5, "all routes of a place");
        assert_eq!(work(&["/a/{x}", "/{x}/b", "/**"], &[""; 3]), 8, "both branches, and what is open");
        let hosts = ["a.shop.example", "*.shop.example", "*.example", ""];
        assert_eq!(work(&["/a"; 4], &hosts), 12, "a host and all that are above it");
        assert_eq!(work(&["/a"; 2], &["a.example", "b.example"]), 3);
        let wide: Vec<String> = (0..10_000).map(|number| format!("/v1/things-{number}/{{id}}")).collect();
        let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
        assert_eq!(work(&wide, &[""; 10_000]), 5, "however many there are");
        // Every choice of a literal or a capture in each of ten segments.
        let choices = |number: u32| -> String {
            (0..10)
                .map(|bit| if number >> bit & 1 == 0 { "/a".to_owned() } else { format!("/{{x{bit}}}") })
                .collect()
        };
        let deep: Vec<String> = (0..1_024).map(choices).collect();
        let deep: Vec<&str> = deep.iter().map(String::as_str).collect();
        assert_eq!(work(&deep, &[""; 1_024]), 2_047 + 1_024);
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_trying_every_route(
            templates in proptest::collection::vec(
                ("(/(a|b|\\{x\\})){0,4}(/\\*\\*)?", proptest::collection::vec("(\\*\\.)?([ab]\\.){0,2}[ab]", 0..3)),
                1..12,
            ),
            host in "([ab]\\.){0,3}[ab]",
            path in "(/(a|b|c)){1,5}|/",
        ) {
            let with_hosts = |(template, hosts): (&String, &Vec<String>)| {
                let mut route = route(template);
                route.matcher.hosts.clone_from(hosts);
                route
            };
            let routes: Vec<Route> = templates.iter().map(|(template, hosts)| with_hosts((template, hosts))).collect();
            prop_assert_eq!(find(&routes, "GET", &host, &path), find_slowly(&routes, &host, &path));
        }
    }
}
