//! Differences, warnings and explanations for people.

use meridian_wire::authored::{Change, Diff, Warning};
use meridian_wire::event::ExplainedStage;
use serde_json::Value;

use crate::print;

/// Warnings, beside the result.
pub fn warnings(warnings: &[Warning]) {
    for warning in warnings {
        print::remark(&format!("warning: {warning}"));
    }
}

/// A difference.
pub fn diff(diff: &Diff) {
    if diff.is_empty() {
        print::line("nothing differs");
    }
    for change in &diff.changes {
        match change {
            Change::Added { kind, name } => print::line(&format!("+ {kind} {name}")),
            Change::Removed { kind, name } => print::line(&format!("- {kind} {name}")),
            Change::Changed { kind, name, fields } => {
                print::line(&format!("~ {kind} {name}"));
                for field in fields {
                    let (before, after) = (value(field.before.as_ref()), value(field.after.as_ref()));
                    print::line(&format!("    {}: {before} -> {after}", field.path));
                }
            }
        }
    }
    for owner in &diff.owners {
        let name = |owner: &Option<String>| owner.clone().unwrap_or_else(|| "no route".to_owned());
        print::line(&format!("> {}: {} -> {}", owner.requests, name(&owner.before), name(&owner.after)));
    }
}

fn value(value: Option<&Value>) -> String {
    value.map_or_else(|| "(nothing)".to_owned(), Value::to_string)
}

/// The stages of a decision.
pub fn stages(stages: &[ExplainedStage]) {
    let width = stages.iter().map(|stage| stage.stage.len()).max().unwrap_or(0);
    for stage in stages {
        print::line(&format!("  {:width$}  {}", stage.stage, stage.outcome));
        if let Some(rule) = &stage.rule {
            print::line(&format!(
                "  {:width$}    by {} {} ({}:{})",
                "", rule.kind, rule.name, rule.file, rule.line
            ));
        }
        for (name, value) in &stage.inputs {
            print::line(&format!("  {:width$}    {name} = {value}", ""));
        }
    }
}
