//! A/B experiments.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::RuleRef;
use crate::expr::Expr;

/// An A/B experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Where it stands.
    pub rule: RuleRef,
    /// Experiments of one layer exclude one another: each has its own range of the layer's units.
    pub layer: Option<Layer>,
    /// Hash salt; a new one reshuffles.
    pub salt: String,
    /// Who takes part.
    pub audience: Option<Expr>,
    /// What stays the same for a unit.
    pub unit: Unit,
    /// When a unit counts that is new.
    pub newcomers: Newcomers,
    /// Share of units that take part, in hundredths of a per cent (0 to 10,000).
    pub ramp: u32,
    /// Variants with their weights; at least one weight is not 0. The first is the control.
    pub variants: Vec<Variant>,
    /// What decides which variant a unit gets and which units count, as [`crate::policy::experiment::version`] tells it.
    pub version: Arc<str>,
    /// How testers choose their variant.
    pub force: Option<Force>,
    /// What counts as success.
    pub goals: Vec<Goal>,
}

/// How testers choose their variant: the first of these places that has a text names it.
#[derive(Clone, Debug)]
pub struct Force {
    /// Header field, in lower case.
    pub header: Option<String>,
    /// Query parameter.
    pub query: Option<String>,
    /// Cookie.
    pub cookie: Option<String>,
    /// Who may.
    pub when: Expr,
}

/// Something that a variant shall make more frequent.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Name, once in the experiment.
    pub name: String,
    /// Requests that reach it, whatever their route.
    pub when: Expr,
    /// Statuses of the reply with which they do.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// A layer and the part of it that an experiment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Name.
    pub name: String,
    /// First bucket, of 10,000.
    pub from: u32,
    /// One past the last bucket.
    pub until: u32,
}

/// What an assignment sticks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The verified subject; without one, the cookie.
    Subject,
    /// A signed cookie that the edge sets.
    Cookie,
}

/// When a unit counts whose cookie was made for its request. Its variant is its own from then on in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    /// Once the cookie has come back: a client that keeps none would be somebody else each time.
    OnReturn,
    /// With the request that it is made for: who never comes back counts as well.
    AtOnce,
}

/// One variant of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Name.
    pub name: Arc<str>,
    /// Weight.
    pub weight: u32,
}
