//! A ruleset made ready for requests: what would be searched is indexed once, when it is loaded.

use std::sync::Arc;

use crate::policy::route::RouteIndex;
use crate::ruleset::{Route, Ruleset, Transform};

/// A tenant's rules with the indexes that requests are decided by.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub ruleset: Arc<Ruleset>,
    /// Its routes by path.
    pub routes: RouteIndex,
}

impl Compiled {
    /// Makes a ruleset ready.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>) -> Self {
        let routes = RouteIndex::new(&ruleset.routes);
        Self { ruleset, routes }
    }

    /// A route by its number.
    #[must_use]
    pub fn route(&self, number: Option<usize>) -> Option<&Route> {
        self.ruleset.routes.get(number?)
    }

    /// The transforms of a route, in its order.
    pub fn transforms(&self, number: Option<usize>) -> impl DoubleEndedIterator<Item = &Transform> {
        let numbers = self.route(number).map_or(&[][..], |route| &route.transforms);
        numbers.iter().filter_map(|number| self.ruleset.transforms.get(*number))
    }
}
