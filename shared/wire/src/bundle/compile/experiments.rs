//! Experiments.

use meridian_engine::policy::experiment::version;
use meridian_engine::ruleset::{Experiment, Force, Goal, Layer, Newcomers, Unit, Variant};

use super::policies::is_field_name;
use super::{Body, Compiler, Document, is_name, of_kind, rule, short};
use crate::document::{ExperimentSpec, ForceSpec, GoalSpec, NewcomersSpec, UnitSpec, statuses};
use crate::limits::GOALS_MAX;

impl Compiler {
    pub(super) fn experiments(&mut self, documents: &[Document]) -> Vec<Experiment> {
        let mut experiments: Vec<Experiment> = Vec::new();
        for (at, document, spec) in of_kind!(documents, Experiment) {
            self.document = at;
            if spec.variants.iter().all(|variant| variant.weight == 0) {
                self.flaw("spec.variants", "no weight", "at least one variant with a weight of 1 or more");
            }
            let names: Vec<String> = spec.variants.iter().map(|variant| variant.name.clone()).collect();
            self.unique(&names, "spec.variants");
            let layer = self.layer(spec, &experiments);
            let salt = self.salt(spec, &document.metadata.name, &experiments);
            let unit = match spec.unit {
                UnitSpec::Subject => Unit::Subject,
                UnitSpec::Cookie => Unit::Cookie,
            };
            let newcomers = match spec.newcomers {
                NewcomersSpec::OnReturn => Newcomers::OnReturn,
                NewcomersSpec::AtOnce => Newcomers::AtOnce,
            };
            let variants: Vec<Variant> = spec
                .variants
                .iter()
                .map(|variant| Variant { name: variant.name.as_str().into(), weight: variant.weight })
                .collect();
            experiments.push(Experiment {
                rule: rule(document),
                layer,
                audience: self.condition(spec.audience.as_ref(), "spec.audience"),
                ramp: spec.ramp.basis_points,
                version: version(&salt, unit, newcomers, &variants).into(),
                salt,
                unit,
                newcomers,
                variants,
                force: spec.force.as_ref().and_then(|force| self.force(force)),
                goals: self.goals(&spec.goals),
            });
        }
        experiments
    }

    /// The salt, which no experiment outside the layer may have too: the same people would get the same places in both, so
    /// that what one does would be taken for what the other does. What was released before this was asked goes on.
    fn salt(&mut self, spec: &ExperimentSpec, name: &str, earlier: &[Experiment]) -> String {
        let salt = spec.salt.as_deref().unwrap_or(name);
        let layer = spec.layer.as_ref().map(|layer| layer.name.as_str());
        let shares = |other: &&Experiment| {
            let exclusive = layer.is_some() && layer == other.layer.as_ref().map(|layer| layer.name.as_str());
            other.salt == salt && !exclusive
        };
        if let Some(other) = earlier.iter().find(shares).filter(|_| self.is_push) {
            let rule = &other.rule;
            let path = if spec.salt.is_some() { "spec.salt" } else { "metadata.name" };
            let expected = format!(
                "a salt that no experiment outside its layer has; {:?} in {}:{} has it too",
                rule.name, rule.file, rule.line
            );
            self.flaw(path, format_args!("{:?}", short(salt)), expected);
        }
        salt.to_owned()
    }

    fn layer(&mut self, spec: &ExperimentSpec, earlier: &[Experiment]) -> Option<Layer> {
        let spec = spec.layer.as_ref()?;
        let (from, until) = (spec.from.basis_points, spec.until.basis_points);
        if from >= until {
            self.flaw("spec.layer.until", spec.until, format!("more than spec.layer.from, {}", spec.from));
        }
        let overlaps = |other: &&Experiment| {
            other
                .layer
                .as_ref()
                .is_some_and(|layer| layer.name == spec.name && from < layer.until && layer.from < until)
        };
        if let Some(other) = earlier.iter().find(overlaps) {
            let expected =
                format!("a part of layer {:?} that {:?} does not have", short(&spec.name), other.rule.name);
            self.flaw("spec.layer", format_args!("{} to {}", spec.from, spec.until), expected);
        }
        Some(Layer { name: spec.name.clone(), from, until })
    }

    fn force(&mut self, spec: &ForceSpec) -> Option<Force> {
        if spec.header.is_none() && spec.query.is_none() && spec.cookie.is_none() {
            self.flaw("spec.force", "no place", "header, query or cookie, where a request names its variant");
        }
        if let Some(name) = spec.header.as_deref().filter(|name| !is_field_name(name)) {
            self.flaw("spec.force.header", format_args!("{:?}", short(name)), "the name of a header field");
        }
        Some(Force {
            header: spec.header.as_deref().map(str::to_ascii_lowercase),
            query: spec.query.clone(),
            cookie: spec.cookie.clone(),
            when: self.condition(Some(&spec.when), "spec.force.when")?,
        })
    }

    fn goals(&mut self, specs: &[GoalSpec]) -> Vec<Goal> {
        if specs.len() > GOALS_MAX {
            self.flaw("spec.goals", format_args!("{} goals", specs.len()), format!("at most {GOALS_MAX}"));
        }
        let names: Vec<String> = specs.iter().map(|goal| goal.name.clone()).collect();
        self.unique(&names, "spec.goals");
        let mut goals = Vec::new();
        for (at, spec) in specs.iter().enumerate().take(GOALS_MAX) {
            let path = format!("spec.goals[{at}]");
            if !is_name(&spec.name) {
                self.flaw(
                    format!("{path}.name"),
                    format_args!("{:?}", short(&spec.name)),
                    "letters, digits, '-', '_' or '.', beginning with a letter or digit",
                );
            }
            if spec.statuses.is_empty() {
                self.flaw(format!("{path}.statuses"), "an empty list", "at least one status");
            }
            let statuses = spec.statuses.iter().filter_map(|text| {
                let statuses = statuses(text);
                if statuses.is_none() {
                    let found = format!("{:?}", short(text));
                    self.flaw(
                        format!("{path}.statuses"),
                        found,
                        "a status such as 404, or a class such as 2xx",
                    );
                }
                statuses
            });
            let statuses = statuses.collect();
            if let Some(when) = self.condition(Some(&spec.when), &format!("{path}.when")) {
                goals.push(Goal { name: spec.name.clone(), when, statuses });
            }
        }
        goals
    }
}
