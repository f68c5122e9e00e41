//! A ruleset made ready for requests: what would be searched is indexed once, when it is loaded.

use std::collections::HashSet;
use std::sync::Arc;

use crate::bounded::Keyed;
use crate::policy::cache::route_mark;
use crate::policy::route::RouteIndex;
use crate::ruleset::{Route, Ruleset, Transform};

/// A tenant's rules with the indexes that requests are decided by.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub ruleset: Arc<Ruleset>,
    /// Version of the bundle that they come from.
    pub bundle: Arc<str>,
    /// Its routes by host and path.
    pub routes: RouteIndex,
    /// Bytes that its routes take in memory, counted once.
    pub(crate) route_bytes: usize,
    /// By number of the route; of those that store nothing, empty.
    marks: Vec<Box<str>>,
    domains: HashSet<Box<str>, Keyed>,
}

impl Compiled {
    /// Makes a ruleset ready.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>) -> Self {
        let routes = RouteIndex::new(&ruleset.routes);
        let mark = |route: &Route| route.cache.map(|_| route_mark(&ruleset, route)).unwrap_or_default();
        let marks = ruleset.routes.iter().map(|route| mark(route).into()).collect();
        let domains = ruleset.tenant.domains.iter().map(|domain| domain.as_str().into()).collect();
        let bundle = ruleset.version.hash.as_str().into();
        let route_bytes = ruleset.route_bytes();
        Self { ruleset, bundle, routes, route_bytes, marks, domains }
    }

    /// Whether the tenant names exactly this host. What a wildcard covers somebody else may have claimed by its name.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.domains.contains(host)
    }

    /// A route by its number.
    #[must_use]
    pub fn route(&self, number: Option<usize>) -> Option<&Route> {
        self.ruleset.routes.get(number?)
    }

    /// What tells stored answers of a route from those of others: its name, whether it asks for a token, its target and its
    /// function, hashed.
    #[must_use]
    pub fn mark(&self, number: Option<usize>) -> &str {
        number.and_then(|number| self.marks.get(number)).map_or("", |mark| mark)
    }

    /// The transforms of a route, in its order.
    pub fn transforms(&self, number: Option<usize>) -> impl DoubleEndedIterator<Item = &Transform> {
        let numbers = self.route(number).map_or(&[][..], |route| &route.transforms);
        numbers.iter().filter_map(|number| self.ruleset.transforms.get(*number))
    }
}
