//! `meridian experiments …`

use clap::Subcommand;
use meridian_engine::ruleset::Target;
use serde_json::Value;

use crate::client::encode;
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;
use crate::rules::target;

#[derive(Subcommand)]
pub enum Experiments {
    /// What came of an experiment: how often each variant reached each goal, against the first variant.
    Results {
        /// Name of the Experiment document.
        name: String,
        /// Whose: `tenant:SLUG`.
        #[arg(long, value_name = "TARGET", value_parser = target)]
        target: Target,
    },
}

impl Experiments {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let Self::Results { name, target } = self;
        let path = format!("/targets/{}/experiments/{}/results", encode(&target.to_string()), encode(&name));
        let results = server.client()?.get(&path)?.body;
        if json {
            print::json(&results);
            return Ok(());
        }
        lines(&results);
        Ok(())
    }
}

fn lines(results: &Value) {
    print::line(&format!(
        "{} of {}, version {}: {}",
        cell(results, "experiment"),
        cell(results, "target"),
        cell(results, "version"),
        print::count(
            results["units"].as_u64().and_then(|many| usize::try_from(many).ok()).unwrap_or(0),
            "unit"
        ),
    ));
    let rows: Vec<Vec<String>> = list(&results["variants"])
        .iter()
        .map(|variant| ["name", "weight", "units"].iter().map(|name| cell(variant, name)).collect())
        .collect();
    print::table(&["VARIANT", "WEIGHT", "UNITS"], &rows);
    if results["sample_ratio"]["mismatch"] == true {
        print::line(&format!(
            "ALARM: the units are not spread by the weights (p = {}): do not trust what follows",
            number(&results["sample_ratio"]["p_value"]),
        ));
        if results["newcomers"] == "onReturn" {
            print::line(
                "newcomers count when they return: a variant that drives them away may be the reason",
            );
        }
    }
    let goals = list(&results["goals"]);
    let rows: Vec<Vec<String>> = goals
        .iter()
        .flat_map(|goal| list(&goal["variants"]).into_iter().map(|reached| row(goal, &reached)))
        .collect();
    if rows.is_empty() {
        print::line("no goals");
        return;
    }
    print::line("");
    print::table(&["GOAL", "VARIANT", "REACHED", "RATE", "LIFT", "95% FROM", "TO", "P"], &rows);
}

fn row(goal: &Value, reached: &Value) -> Vec<String> {
    let lift = &reached["lift"];
    let mut row = vec![cell(goal, "name"), cell(reached, "variant"), cell(reached, "conversions")];
    row.push(reached["rate"].as_f64().map_or_else(|| "-".to_owned(), |rate| format!("{:.2}%", rate * 100.0)));
    for end in ["estimate", "low", "high"] {
        row.push(lift[end].as_f64().map_or_else(|| "-".to_owned(), |lift| format!("{:+.1}%", lift * 100.0)));
    }
    row.push(number(&lift["p_value"]));
    row
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(small) if small < 0.0001 => "<0.0001".to_owned(),
        Some(number) => format!("{number:.4}"),
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
