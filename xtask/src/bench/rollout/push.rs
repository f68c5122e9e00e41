//! From a push that is sent to the first decision by it at every edge.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::asking::{Asking, Question, Reach, Times};
use super::control::{counter, files_in};
use super::{HOST, OPEN, Rig, TENANT};
use crate::limits::{ROLLOUT_ASK_PAUSE, ROLLOUT_ASKERS};
use crate::progress::say;
use crate::report;

/// What came of the changes made in one region at one edge.
#[derive(Clone, Debug, Serialize)]
pub struct Reached {
    /// Region of the change.
    pub region: String,
    /// Edge.
    pub edge: String,
    /// Each change.
    pub reach: Vec<Reach>,
}

/// Measures.
///
/// # Errors
/// When a push is refused, or not seen.
pub fn measure(rig: &Rig, samples: u32) -> Result<Vec<Reached>> {
    say("Push → every edge");
    let up = rig.stack.up()?;
    let mut asking = BTreeMap::new();
    for (edge, url) in &up.edges {
        let question = Question {
            url: format!("{url}{OPEN}"),
            headers: vec![("host", HOST.to_owned())],
            mark: |answer| answer.bundle().unwrap_or_default().to_owned(),
        };
        asking.insert(edge.clone(), Asking::start(&question, ROLLOUT_ASKERS, ROLLOUT_ASK_PAUSE));
    }
    let mut files = files_in(&rig.rules)?;
    files.push(counter(0));
    let mut parent = rig.control.head(super::HOME, TENANT)?;
    let (mut all, mut number) = (Vec::new(), 0);
    for region in rig.control.regions() {
        let mut reached: BTreeMap<&String, Vec<Reach>> = BTreeMap::new();
        for sample in 0..samples {
            number += 1;
            rig.pause(sample)?;
            *files.last_mut().context("a file")? = counter(number);
            let pushed = rig.control.push(&region, TENANT, &parent, &files)?;
            let is_new = |mark: &str| mark == pushed.version;
            for (edge, asking) in &asking {
                let seen = asking.until_all(pushed.change.accepted, is_new, &rig.stop)?;
                reached.entry(edge).or_default().push(Reach::of(&seen, pushed.change, is_new));
            }
            parent.clone_from(&pushed.version);
        }
        all.extend(reached.into_iter().map(|(edge, reach)| Reached {
            region: region.clone(),
            edge: edge.clone(),
            reach,
        }));
        say(&format!("  {samples} pushes at {region}"));
    }
    Ok(all)
}

/// A table of what was reached, with the greatest p99 of all since changes were sent.
pub fn table(all: &[Reached]) -> (String, Option<f64>) {
    let mut worst: Option<f64> = None;
    let row = |one: &Reached| {
        let times = |of: fn(&Reach) -> f64| Times::of(&one.reach.iter().map(of).collect::<Vec<_>>());
        let first = times(|reach| reach.first_ms);
        let (accepted, last) = (times(|reach| reach.accepted_ms), times(|reach| reach.last_ms));
        worst = worst.into_iter().chain(first.map(|first| first.p99)).max_by(f64::total_cmp);
        let name = format!("{} → {}", one.region, one.edge);
        let count = one.reach.len().to_string();
        let cells = [first, accepted, last].map(|times| Times::cells(times).to_vec()).concat();
        [vec![name, count], cells].concat()
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let head = [
        "where → seen by",
        "changes",
        "p50 ms",
        "p99 ms",
        "max ms",
        "since accepted: p50",
        "p99",
        "max",
        "last without it: p50",
        "p99",
        "max",
    ];
    (report::table(&head, &rows), worst)
}

/// Whether a target is met, in a sentence.
pub fn verdict(worst: Option<f64>, target_ms: f64) -> String {
    let Some(worst) = worst else { return String::new() };
    let met = if worst < target_ms { "met" } else { "**missed**" };
    format!("\nTarget: p99 below {target_ms:.0} ms at every edge; {met}, the greatest is {worst:.0} ms.\n")
}

/// As a part of the report.
pub fn report(all: &[Reached]) -> String {
    let (table, worst) = table(all);
    format!("\n## Push → every edge\n{ABOUT}\n{table}{}", verdict(worst, 2_000.0))
}

const ABOUT: &str = "
From the moment when a push is sent to the control API of a region, to the first answer of an edge that was decided by it
(`Meridian-Bundle`), and to its last one that was not. *Since accepted*: to the first one, from the moment when that API has
answered that it is released. Each edge is asked by 4 clients, each again 20 ms after its answer; the
pushes come at any time between two of an edge's questions for news. A tenant's rules are released at its home, us-east-1; the
other regions pass the push on.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_edge_decides() {
        let one = |edge: &str, first_ms| Reached {
            region: "us-east-1".to_owned(),
            edge: edge.to_owned(),
            reach: vec![Reach { first_ms, accepted_ms: first_ms - 9.0, last_ms: first_ms + 1.0 }; 3],
        };
        let (table, worst) = table(&[one("cloudflare", 2_100.0), one("spin", 50.0)]);
        assert_eq!(worst, Some(2_100.0));
        let row = "| us-east-1 → spin | 3 | 50 | 50 | 50 | 41 | 41 | 41 | 51 | 51 | 51 |";
        assert!(table.contains(row), "{table}");
        assert!(
            verdict(worst, 2_000.0).contains("**missed**") && verdict(Some(50.0), 2_000.0).contains("; met,")
        );
        assert_eq!(verdict(None, 1.0), "");
    }
}
