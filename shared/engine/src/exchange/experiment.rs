//! Experiments of the route: who takes part and with which variant; and the goals that the request reaches.

use std::sync::Arc;

use super::Exchange;
use crate::decision::{Conversion, Exposure, Participation};
use crate::node::Node;
use crate::policy::experiment::{
    Given, asked_for, assign, forget_given, give, is_canary, new_unit, unit_cookie, unit_hash, unit_of_cookie,
};
use crate::ruleset::{Experiment, Newcomers, Ruleset, Unit};
use crate::secret::SignedBy;
use crate::step::Step;

/// The unit of the client's cookie, which is looked at where somebody asks for it.
#[derive(Default)]
struct CookieUnit {
    is_read: bool,
    unit: Option<String>,
    /// It is made for this request, and nobody knows yet whether its client keeps cookies.
    is_new: bool,
}

impl CookieUnit {
    /// The unit that the client brought.
    fn brought(&self) -> Option<&str> {
        self.unit.as_deref().filter(|_| !self.is_new)
    }

    /// The unit, if this experiment counts it already.
    fn counted(&self, experiment: &Experiment) -> Option<&str> {
        self.unit.as_deref().filter(|_| counts(experiment, self.is_new))
    }
}

/// Whether an experiment counts a unit with this request.
fn counts(experiment: &Experiment, is_new: bool) -> bool {
    !is_new || experiment.newcomers == Newcomers::AtOnce
}

/// What an assignment sticks to.
struct Sticky {
    kind: &'static str,
    unit: String,
    is_new: bool,
}

impl Exchange {
    /// Gives the variants of the route's experiments; then the cache.
    pub(super) fn experiment(&mut self, node: &mut Node) -> Step {
        let rules = self.rules.clone();
        let route = rules.as_ref().and_then(|rules| rules.route(self.route));
        let numbers = route.iter().flat_map(|route| &route.experiments);
        let experiments = rules
            .iter()
            .flat_map(|rules| numbers.clone().filter_map(|number| rules.ruleset.experiments.get(*number)));
        let mut cookie = CookieUnit::default();
        let mut uncounted = Vec::new();
        for experiment in experiments {
            if self.enroll(node, experiment, &mut cookie) {
                uncounted.push(experiment);
            }
        }
        if let (Some(unit), false) = (&cookie.unit, uncounted.is_empty()) {
            let (tenant, signing) = (self.tenant.as_deref().unwrap_or_default(), &node.secrets.signing);
            self.cookies.push(give(&self.facts, signing, tenant, unit, &uncounted));
        }
        if let Some((route, canary)) = route.and_then(|route| Some((route, route.steering.canary.as_ref()?)))
        {
            let Sticky { unit, .. } = self.unit(node, Unit::Subject, &mut cookie);
            self.canary = is_canary(&route.rule.name, canary, &unit);
            let outcome = if self.canary { "canary" } else { "not the canary" };
            self.explain("canary", Some(&route.rule), outcome, Vec::new());
        }
        if let Some(rules) = &rules {
            self.reach_goals(node, &rules.ruleset, &mut cookie);
            if uncounted.is_empty()
                && let Some(given) = Given::of(&self.facts)
            {
                self.count_given(node, &rules.ruleset, &given, &mut cookie);
            }
        }
        self.consult_cache(node)
    }

    /// What the experiments are to count, once the reply's status is known.
    pub(super) fn participated(&mut self, status: u16) -> Participation {
        let mut participation = std::mem::take(&mut self.participation);
        if let (Some(rules), false) = (&self.rules, participation.conversions.is_empty()) {
            participation.conversions.retain(|conversion| {
                let mut goals = rules
                    .ruleset
                    .experiments
                    .iter()
                    .filter(|experiment| *experiment.rule.name == *conversion.experiment)
                    .flat_map(|experiment| &experiment.goals);
                goals.any(|goal| {
                    goal.name == conversion.goal
                        && goal.statuses.iter().any(|statuses| statuses.contains(&status))
                })
            });
        }
        participation
    }

    /// Gives the variant of an experiment, and says whether that is to be counted later. The variant of a new unit is its own
    /// from the first request on, and when it counts the experiment says.
    fn enroll(&mut self, node: &Node, experiment: &Experiment, cookie: &mut CookieUnit) -> bool {
        let rule = Some(&experiment.rule);
        if let Some(variant) = self.forced(experiment) {
            self.explain("experiment", rule, format!("variant {variant}, forced"), Vec::new());
            self.variants.push((experiment.rule.name.clone(), variant.clone()));
            return false;
        }
        let audience =
            experiment.audience.as_ref().map_or(Ok(true), |audience| audience.holds(&self.inputs()));
        let outside = match audience {
            Ok(true) => None,
            Ok(false) => Some("not in the audience".to_owned()),
            Err(fault) => Some(format!("not in the audience: {fault}")),
        };
        if let Some(outside) = outside {
            self.explain("experiment", rule, outside, Vec::new());
            return false;
        }
        let Sticky { kind, unit, is_new } = self.unit(node, experiment.unit, cookie);
        match assign(experiment, &unit) {
            Ok(variant) => {
                self.explanation
                    .note("experiment", rule, format_args!("variant {variant}"))
                    .with("unit", kind);
                self.variants.push((experiment.rule.name.clone(), variant.clone()));
                let counts = counts(experiment, is_new);
                if counts {
                    self.expose(node, experiment, &unit, variant);
                }
                !counts
            }
            Err(outside) => {
                self.explanation.note("experiment", rule, outside.as_str()).with("unit", kind);
                false
            }
        }
    }

    /// Counts that a unit was given a variant.
    fn expose(&mut self, node: &Node, experiment: &Experiment, unit: &str, variant: &Arc<str>) {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let exposure = Exposure {
            experiment: experiment.rule.name.clone(),
            version: experiment.version.clone(),
            unit: unit_hash(&node.secrets.hashing, tenant, &experiment.rule.name, unit),
            variant: variant.clone(),
        };
        let exposures = &mut self.participation.exposures;
        if !exposures.contains(&exposure) {
            exposures.push(exposure);
        }
    }

    /// Counts what the client's unit was given while it was new, on whatever route: its cookie has come back. Where the
    /// experiment has another version by now, what was given is no part of it.
    fn count_given(&mut self, node: &Node, rules: &Ruleset, given: &Given, cookie: &mut CookieUnit) {
        self.cookies.push(forget_given(&self.facts));
        self.read_unit(node, cookie);
        let Some(unit) = cookie.brought() else { return };
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let given = given.experiments(&node.secrets.signing, tenant, unit);
        let experiment = |(name, version): (&str, &str)| {
            let mut all = rules.experiments.iter();
            all.find(|experiment| *experiment.rule.name == *name && *experiment.version == *version)
        };
        let experiments: Vec<&Experiment> = given.into_iter().filter_map(experiment).collect();
        let unit = format!("c:{unit}");
        for experiment in experiments {
            if let Ok(variant) = assign(experiment, &unit) {
                self.explain("experiment", Some(&experiment.rule), "counted from before", Vec::new());
                self.expose(node, experiment, &unit, variant);
            }
        }
    }

    /// The variant that a tester chose, where the experiment lets this one choose.
    fn forced<'a>(&mut self, experiment: &'a Experiment) -> Option<&'a Arc<str>> {
        let force = experiment.force.as_ref()?;
        let asked = asked_for(force, &self.facts)?;
        let variant = experiment.variants.iter().find(|variant| *variant.name == *asked);
        let outcome = match (force.when.holds(&self.inputs()), variant) {
            (Ok(true), Some(variant)) => return Some(&variant.name),
            (Ok(true), None) => "not forced: there is no such variant".to_owned(),
            (Ok(false), _) => "not forced: who asked may not".to_owned(),
            (Err(fault), _) => format!("not forced: {fault}"),
        };
        self.explain("experiment", Some(&experiment.rule), outcome, Vec::new());
        None
    }

    /// Notes the goals that the request reaches if the reply's status is right: of every experiment of the tenant, as the
    /// request that succeeds is seldom on the route that is tried. Who was forced reaches none.
    fn reach_goals(&mut self, node: &Node, rules: &Ruleset, cookie: &mut CookieUnit) {
        for experiment in rules.experiments.iter().filter(|experiment| !experiment.goals.is_empty()) {
            let name = &*experiment.rule.name;
            let given = self.variants.iter().any(|(experiment, _)| **experiment == *name);
            let exposed = self.participation.exposures.iter().any(|exposure| *exposure.experiment == *name);
            if given && !exposed {
                continue;
            }
            for goal in &experiment.goals {
                match goal.when.holds(&self.inputs()) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(fault) => {
                        let outcome = format!("{} not reached: {fault}", goal.name);
                        self.explain("goal", Some(&experiment.rule), outcome, Vec::new());
                        continue;
                    }
                }
                let Some(unit) = self.counted_unit(node, experiment, cookie) else { continue };
                let tenant = self.tenant.as_deref().unwrap_or_default();
                let conversion = Conversion {
                    experiment: experiment.rule.name.clone(),
                    version: experiment.version.clone(),
                    unit: unit_hash(&node.secrets.hashing, tenant, name, &unit),
                    goal: goal.name.clone(),
                };
                self.participation.conversions.push(conversion);
                self.explain("goal", Some(&experiment.rule), format!("request of {}", goal.name), Vec::new());
            }
        }
    }

    /// What an assignment sticks to.
    fn unit(&mut self, node: &Node, unit: Unit, cookie: &mut CookieUnit) -> Sticky {
        if let Some(unit) = self.subject_unit(unit) {
            return Sticky { kind: "subject", unit, is_new: false };
        }
        self.read_unit(node, cookie);
        if cookie.unit.is_none() {
            let tenant = self.tenant.as_deref().unwrap_or_default();
            let unit = new_unit(&self.facts, &node.secrets.hashing);
            self.cookies.push(unit_cookie(&self.facts, &node.secrets.signing, tenant, &unit));
            *cookie = CookieUnit { is_read: true, unit: Some(unit), is_new: true };
        }
        let kind = if cookie.is_new { "new cookie" } else { "cookie" };
        let unit = format!("c:{}", cookie.unit.as_deref().unwrap_or_default());
        Sticky { kind, unit, is_new: cookie.is_new }
    }

    /// The same without making a new one, if the experiment counts it already.
    fn counted_unit(
        &mut self,
        node: &Node,
        experiment: &Experiment,
        cookie: &mut CookieUnit,
    ) -> Option<String> {
        if let Some(unit) = self.subject_unit(experiment.unit) {
            return Some(unit);
        }
        self.read_unit(node, cookie);
        Some(format!("c:{}", cookie.counted(experiment)?))
    }

    fn subject_unit(&self, unit: Unit) -> Option<String> {
        let identity = self.identity.as_ref().filter(|_| unit == Unit::Subject)?;
        Some(format!("s:{}", identity.person()?))
    }

    /// Reads the unit of the client's cookie. One that an older key signed is set again, so that the key is of no use once
    /// everybody has come back.
    fn read_unit(&mut self, node: &Node, cookie: &mut CookieUnit) {
        if std::mem::replace(&mut cookie.is_read, true) {
            return;
        }
        let (tenant, signing) = (self.tenant.as_deref().unwrap_or_default(), &node.secrets.signing);
        if let Some((unit, by)) = unit_of_cookie(&self.facts, signing, tenant) {
            cookie.unit = Some(unit.to_owned());
            if by == SignedBy::Older {
                self.cookies.push(unit_cookie(&self.facts, signing, tenant, unit));
            }
        }
    }
}
