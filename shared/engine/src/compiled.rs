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
    domains: Domains,
    unverified: Domains,
}

/// Whether a tenant is served at a hostname.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// It is.
    Yes,
    /// The hostname is not known to be the tenant's, or not yet.
    Unverified,
    /// It is none of the tenant's.
    No,
}

/// Hostnames that are found without looking at all of them.
#[derive(Debug)]
struct Domains {
    names: HashSet<Box<str>, Keyed>,
    /// Of each wildcard, what stands behind its `*`.
    suffixes: HashSet<Box<str>, Keyed>,
}

impl Compiled {
    /// Makes a ruleset ready.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>) -> Self {
        let routes = RouteIndex::new(&ruleset.routes);
        let mark = |route: &Route| route.cache.map(|_| route_mark(&ruleset, route)).unwrap_or_default();
        let marks = ruleset.routes.iter().map(|route| mark(route).into()).collect();
        let domains = Domains::new(&ruleset.tenant.domains);
        let unverified = Domains::new(&ruleset.tenant.unverified);
        let bundle = ruleset.version.hash.as_str().into();
        let route_bytes = ruleset.route_bytes();
        Self { ruleset, bundle, routes, route_bytes, marks, domains, unverified }
    }

    /// Whether the tenant names exactly this host. What a wildcard covers somebody else may have claimed by its name.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.domains.names.contains(host)
    }

    /// Whether the tenant is served at this host. What is verified counts, however little of the host it names.
    #[must_use]
    pub fn serves(&self, host: &str) -> Serves {
        if self.domains.cover(host) {
            Serves::Yes
        } else if self.unverified.cover(host) {
            Serves::Unverified
        } else {
            Serves::No
        }
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

impl Domains {
    fn new(domains: &[String]) -> Self {
        let (wildcards, names): (Vec<&str>, Vec<&str>) =
            domains.iter().map(String::as_str).partition(|domain| domain.starts_with('*'));
        let suffixes = wildcards.into_iter().filter_map(|domain| domain.strip_prefix('*'));
        Self {
            names: names.into_iter().map(Into::into).collect(),
            suffixes: suffixes.map(Into::into).collect(),
        }
    }

    fn cover(&self, host: &str) -> bool {
        let below =
            |(dot, _): (usize, &str)| host.get(dot..).is_some_and(|rest| self.suffixes.contains(rest));
        self.names.contains(host) || (!self.suffixes.is_empty() && host.match_indices('.').any(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ruleset;

    #[test]
    fn a_tenant_is_served_where_a_name_or_wildcard_of_it_is_verified() {
        let mut rules = ruleset(Vec::new());
        rules.tenant.domains = vec!["acme.example".to_owned(), "*.shop.example".to_owned()];
        rules.tenant.unverified =
            ["new.example", "*.new.example", "claimed.shop.example"].map(str::to_owned).to_vec();
        let compiled = Compiled::new(Arc::new(rules));
        for (host, serves, named) in [
            ("acme.example", Serves::Yes, true),
            ("a.shop.example", Serves::Yes, false),
            ("a.b.shop.example", Serves::Yes, false),
            ("claimed.shop.example", Serves::Yes, false),
            ("new.example", Serves::Unverified, false),
            ("a.new.example", Serves::Unverified, false),
            ("shop.example", Serves::No, false),
            ("workshop.example", Serves::No, false),
            ("a.acme.example", Serves::No, false),
        ] {
            assert_eq!((compiled.serves(host), compiled.names(host)), (serves, named), "{host}");
        }
    }
}
