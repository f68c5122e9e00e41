//! Experiments: who gets which variant, who may choose one, and what counts as success.

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::unit::Share;

spec! {
/// An A/B experiment.
pub struct ExperimentSpec {
    /// Experiments of one layer exclude one another: each has its own part of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerSpec>,
    /// Hash salt; a new one reshuffles. Without it, the experiment's name. No two experiments may share one, unless they
    /// exclude one another in a layer: they would give the same people the same places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Who takes part. It may ask for the variants of experiments that its routes name before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Condition>,
    /// What an assignment sticks to.
    #[serde(default)]
    pub unit: UnitSpec,
    /// When a unit counts that an edge has just made a cookie for: `onReturn` where nothing is said. Who has a subject and
    /// is assigned by it counts at once. Another choice is another version, whose results begin anew.
    #[serde(default, skip_serializing_if = "NewcomersSpec::is_on_return")]
    pub newcomers: NewcomersSpec,
    /// Share of units that take part.
    #[serde(default = "all")]
    pub ramp: Share,
    /// Variants with their weights. The first is the control, which the others are compared with.
    pub variants: Vec<VariantSpec>,
    /// How testers choose their variant, one without weight as well. They take part whatever audience, layer and ramp say,
    /// and are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceSpec>,
    /// What counts as success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<GoalSpec>,
}
}

spec! {
/// A layer and the part of it that an experiment has.
#[derive(Eq)]
pub struct LayerSpec {
    /// Name of the layer.
    pub name: String,
    /// Where the part begins.
    pub from: Share,
    /// Where the part ends.
    pub until: Share,
}
}

spec! {
/// What an assignment sticks to.
pub enum UnitSpec {
    /// The verified subject; without one, the cookie. Who is counted by the cookie and then signs in is another unit: a goal
    /// reached after that counts for the subject alone.
    #[default]
    Subject,
    /// A signed cookie that the edge sets. Its variant holds from the first request on; when it counts, `newcomers` says.
    Cookie,
}
}

spec! {
/// When a unit counts that an edge has just made a cookie for.
pub enum NewcomersSpec {
    /// Once the cookie has come back, with the request that brings it, on whatever route. Clients that keep no cookies (many
    /// robots and scripts) are left out, and so is whoever leaves after the first page, for which a variant may be the reason.
    /// Where one drives more people away than another, fewer of its units are counted, and the results are of those who
    /// stayed: the alarm for odd sample ratios tells.
    #[default]
    OnReturn,
    /// With the request that it is made for, whoever comes back: who leaves because of a variant counts. A client that keeps
    /// no cookies counts as somebody new with each request that is given a variant, which blurs what people do.
    AtOnce,
}
}

impl NewcomersSpec {
    fn is_on_return(&self) -> bool {
        *self == Self::OnReturn
    }
}

spec! {
/// One variant of an experiment.
#[derive(Eq)]
pub struct VariantSpec {
    /// Name.
    pub name: String,
    /// Weight among the variants.
    pub weight: u32,
}
}

spec! {
/// Where a tester's request names its variant: in the header, else the query, else the cookie.
pub struct ForceSpec {
    /// Header field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Who may: what is asked for by anybody else is not listened to.
    pub when: Condition,
}
}

spec! {
/// A goal: a request of a unit that was given a variant before. It counts once a unit.
pub struct GoalSpec {
    /// Name, once in the experiment.
    pub name: String,
    /// Requests that reach it, on any route of the tenant.
    pub when: Condition,
    /// Statuses of the reply with which they do: `404`, or a class such as `2xx`.
    #[serde(default = "successes")]
    pub statuses: Vec<String>,
}
}

fn all() -> Share {
    Share::ALL
}

fn successes() -> Vec<String> {
    vec!["2xx".to_owned(), "3xx".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_newcomers_is_kept_and_nothing_is_on_return() {
        let check = |text: &str, expect| {
            let spec: ExperimentSpec = serde_json::from_str(text).unwrap();
            assert_eq!(spec.newcomers, expect);
            assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        };
        check(r#"{"unit":"cookie","ramp":"100%","variants":[]}"#, NewcomersSpec::OnReturn);
        check(r#"{"unit":"cookie","newcomers":"atOnce","ramp":"100%","variants":[]}"#, NewcomersSpec::AtOnce);
    }
}
