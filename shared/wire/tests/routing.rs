//! Which route a request takes: of any set of routes that a push accepts, the one that says most of the request, judged here
//! by trying them all; and a push refuses exactly the sets that leave it open for some request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use meridian_engine::expr::Inputs;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::policy::route::{Matched, RouteIndex};
use meridian_engine::ruleset::{Ruleset, Target};
use meridian_wire::authored::{File, compile};
use meridian_wire::bundle::Rules;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

/// Below every wildcard one that is no pattern, beside those that are.
const HOSTS: [&str; 7] =
    ["test", "x.test", "shop.test", "x.shop.test", "a.shop.test", "x.a.shop.test", "b.a.shop.test"];
const PATTERNS: [&str; 6] =
    ["shop.test", "a.shop.test", "b.a.shop.test", "*.test", "*.shop.test", "*.a.shop.test"];
const PATHS: [&str; 7] = ["/", "/a", "/b", "/a/b", "/a/c", "/c/b", "/a/b/c"];
/// A literal is written in two ways.
const TEMPLATES: [&str; 10] =
    ["/", "/a", "/%61", "/{x}", "/a/{x}", "/{x}/b", "/a/b", "/a/%62", "/a/**", "/**"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
const VALUES: [Option<&str>; 3] = [None, Some("1"), Some("2")];

/// What a route asks for. Of the field and the parameter: nothing, that it is there, or that it has this value.
#[derive(Clone, Debug)]
struct Asked {
    hosts: Vec<&'static str>,
    path: &'static str,
    methods: Vec<&'static str>,
    field: Option<Option<&'static str>>,
    parameter: Option<Option<&'static str>>,
    french: bool,
    priority: i32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    field: Option<&'static str>,
    parameter: Option<&'static str>,
    french: bool,
}

/// How much a route says of a request that it matches: the greater goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    host: usize,
    path: Vec<Reverse<u8>>,
    methods: bool,
    field: bool,
    parameter: bool,
    french: bool,
    priority: i32,
}

impl Asked {
    /// What it says of a request, where it matches.
    fn says(&self, request: &Request) -> Option<Said> {
        let methods = &self.methods;
        let takes = methods.is_empty()
            || methods.contains(&request.method)
            || (request.method == "HEAD" && methods.contains(&"GET"));
        let has = |asked: Option<Option<&str>>, have: Option<&str>| match asked {
            None => true,
            Some(None) => have.is_some(),
            Some(value) => have == value,
        };
        let matches = takes
            && has(self.field, request.field)
            && has(self.parameter, request.parameter)
            && (!self.french || request.french);
        matches.then_some(Said {
            host: self.says_of_host(request.host)?,
            path: self.says_of_path(request.path)?,
            methods: !methods.is_empty(),
            field: self.field.is_some(),
            parameter: self.parameter.is_some(),
            french: self.french,
            priority: self.priority,
        })
    }

    fn says_of_host(&self, host: &str) -> Option<usize> {
        let says = |pattern: &&str| match pattern.strip_prefix('*') {
            Some(end) => (host.ends_with(end) && host.len() > end.len()).then_some(end.len()),
            None => (*pattern == host).then_some(usize::MAX),
        };
        if self.hosts.is_empty() { Some(0) } else { self.hosts.iter().filter_map(says).max() }
    }

    /// Segment by segment: a literal says most, then a capture, then the end, then an end that leaves open what follows.
    fn says_of_path(&self, path: &str) -> Option<Vec<Reverse<u8>>> {
        let split = |path: &str| -> Vec<String> {
            path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let parts = split(path);
        let (template, open) = self.path.strip_suffix("/**").map_or((self.path, false), |path| (path, true));
        let template = split(&template.replace("%61", "a").replace("%62", "b"));
        let long = parts.len() == template.len() || (open && parts.len() > template.len());
        let fits = |(part, segment): (&String, &String)| segment.starts_with('{') || part == segment;
        if !long || !parts.iter().zip(&template).all(fits) {
            return None;
        }
        let kinds = template.iter().map(|segment| u8::from(segment.starts_with('{')));
        Some(kinds.chain([if open { 3 } else { 2 }]).map(Reverse).collect())
    }

    fn document(&self, name: &str) -> Value {
        let named = |value: Option<Option<&str>>| match value {
            None => json!({}),
            Some(value) => json!({ "x": value }),
        };
        let mut asked = json!({
            "hosts": self.hosts, "path": self.path, "methods": self.methods, "priority": self.priority,
            "headers": named(self.field), "query": named(self.parameter),
        });
        if self.french {
            asked["when"] = json!("place.country == \"FR\"");
        }
        document("Route", name, &json!({ "match": asked, "auth": { "mode": "anonymous" } }))
    }
}

impl Request {
    fn facts(&self) -> Facts {
        let country = self.french.then(|| "FR".to_owned());
        Facts {
            method: self.method.to_owned(),
            scheme: Scheme::Https,
            host: self.host.to_owned(),
            path: self.path.to_owned(),
            query: self.parameter.map(|value| format!("x={value}")),
            headers: self.field.map(|value| ("x", value)).into_iter().collect::<Headers>(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            place: Place { country, ..Place::default() },
            body: BodySize::Empty,
            now_ms: 0,
            random: [0; 16],
        }
    }

    /// One of everything that routes can tell apart.
    fn all() -> impl Iterator<Item = Self> {
        let pairs = HOSTS.into_iter().flat_map(|host| PATHS.map(|path| (host, path)));
        let lines = pairs.flat_map(|pair| METHODS.map(|method| (pair, method)));
        let fields = lines.flat_map(|line| VALUES.map(|field| (line, field)));
        let parameters = fields.flat_map(|all| [None, Some("1")].map(|parameter| (all, parameter)));
        parameters.flat_map(|((((host, path), method), field), parameter)| {
            [true, false].map(|french| Self { host, path, method, field, parameter, french })
        })
    }
}

fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "meridian/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The rules of these routes, or what is wrong with them.
fn pushed(routes: &[Asked]) -> Result<Ruleset, Vec<String>> {
    let mut documents =
        vec![document("Tenant", "shop", &json!({ "homeRegion": "a", "allowedRegions": ["a"] }))];
    documents.extend(routes.iter().enumerate().map(|(at, route)| route.document(&format!("r{at}"))));
    let content: Vec<String> = documents.iter().map(Value::to_string).collect();
    let file = File { path: "routes.yaml".to_owned(), content: content.join("\n---\n") };
    match compile(&Target::Tenant("shop".to_owned()), &[file], None) {
        Ok(compiled) => match compiled.rules {
            Rules::Tenant(rules) => Ok(*rules),
            Rules::Platform(_) => panic!("a tenant's rules"),
        },
        Err(invalid) => Err(invalid.iter().map(ToString::to_string).collect()),
    }
}

/// The routes that match a request, by what they say of it, the most first.
fn ranked(routes: &[Asked], request: &Request) -> Vec<(Said, usize)> {
    let says = |(at, route): (usize, &Asked)| Some((route.says(request)?, at));
    let mut ranked: Vec<_> = routes.iter().enumerate().filter_map(says).collect();
    ranked.sort_by(|a, b| b.cmp(a));
    ranked
}

fn asked() -> impl Strategy<Value = Asked> {
    let field = select(vec![None, None, Some(None), Some(Some("1")), Some(Some("2"))]);
    let parameter = select(vec![None, None, Some(None), Some(Some("1"))]);
    let methods =
        vec![vec![], vec!["GET"], vec!["HEAD"], vec!["GET", "HEAD"], vec!["POST"], vec!["POST", "GET"]];
    (
        subsequence(PATTERNS.to_vec(), 0..4),
        select(TEMPLATES.to_vec()),
        select(methods),
        field,
        parameter,
        any::<bool>(),
        0..3_i32,
    )
        .prop_map(|(hosts, path, methods, field, parameter, french, priority)| Asked {
            hosts,
            path,
            methods,
            field,
            parameter,
            french,
            priority,
        })
}

proptest! {
    #[test]
    fn the_route_that_says_most_is_found_and_ties_are_refused(
        routes in prop::collection::vec(asked(), 1..7),
    ) {
        let tie = |request: &Request| {
            let ranked = ranked(&routes, request);
            ranked.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b))
        };
        match pushed(&routes) {
            Err(refused) => {
                prop_assert!(refused.iter().all(|one| one.contains("equally specific")), "{refused:?}");
                prop_assert!(Request::all().any(|request| tie(&request)), "refused, and no request ties: {refused:?}");
            }
            Ok(rules) => {
                let index = RouteIndex::new(&rules.routes);
                for request in Request::all() {
                    prop_assert!(!tie(&request), "accepted, and {request:?} ties");
                    let facts = request.facts();
                    let inputs = Inputs::anonymous(&facts, "shop");
                    let found = match index.find(&rules.routes, &inputs, &mut Vec::new()) {
                        Matched::Route(number) => rules.routes.get(number).map(|route| route.rule.name.to_string()),
                        Matched::None | Matched::Methods(_) => None,
                    };
                    let most = ranked(&routes, &request).first().map(|(_, at)| format!("r{at}"));
                    prop_assert_eq!(found, most, "{:?}", request);
                }
            }
        }
    }
}

/// Routes that a push accepts, the one that a host and a path reach.
#[test]
fn sets_of_routes_as_people_write_them() {
    let plain = Asked {
        hosts: vec![],
        path: "/a",
        methods: vec![],
        field: None,
        parameter: None,
        french: false,
        priority: 0,
    };
    let of = |hosts: &[&'static str]| Asked { hosts: hosts.to_vec(), ..plain.clone() };
    let methods = |methods: &[&'static str]| Asked { methods: methods.to_vec(), ..plain.clone() };
    let accepted = |routes: &[Asked]| pushed(routes).is_ok();
    assert!(accepted(&[of(&["*.shop.test"]), of(&["*.a.shop.test"])]));
    assert!(accepted(&[of(&["*.shop.test"]), of(&["a.shop.test", "*.other.test"]), plain.clone()]));
    assert!(!accepted(&[of(&["*.shop.test", "a.shop.test"]), of(&["b.shop.test", "*.shop.test"])]));
    assert!(!accepted(&[methods(&["GET"]), methods(&["HEAD"])]));
    assert!(accepted(&[methods(&["GET"]), Asked { priority: 1, ..methods(&["HEAD"]) }]));
    assert!(!accepted(&[plain.clone(), Asked { path: "/%61", ..plain.clone() }]));
}
