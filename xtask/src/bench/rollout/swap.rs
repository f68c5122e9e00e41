//! The pause of requests while a bundle of many routes is swapped in.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::asking::{Asking, Change, Question, Reach, Seen, Times};
use super::control::counter;
use super::edges::ms;
use super::{HOME, Rig, WIDE, WIDE_HOST, wide_files, wide_path};
use crate::limits::{ROLLOUT_AFTER_SWAP, ROLLOUT_ASKERS, ROLLOUT_SWAP_PAUSE};
use crate::progress::say;
use crate::report::{self, Spread, quantile};

/// What swaps did at one edge.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Swapped {
    /// How long the answers took, in milliseconds.
    took_ms: Vec<f64>,
    /// The longest of those of each swap.
    longest_ms: Vec<f64>,
    /// From the accepted push to the first answer by it.
    seen_ms: Vec<f64>,
}

/// Everything of this part.
#[derive(Clone, Debug, Serialize)]
pub struct Swaps {
    edges: BTreeMap<String, Swapped>,
    /// How long the pushes took.
    push_ms: Vec<f64>,
}

/// Measures. The wide tenant is there already.
///
/// # Errors
/// When a push is refused, or not seen.
pub fn measure(rig: &Rig, routes: usize, swaps: u32) -> Result<Swaps> {
    say("Bundle swap");
    let mut asking = Vec::new();
    for (edge, url) in &rig.stack.up()?.edges {
        let question = Question {
            url: format!("{url}{}", wide_path(routes / 2)),
            headers: vec![("host", WIDE_HOST.to_owned())],
            mark: |answer| answer.bundle().unwrap_or_default().to_owned(),
        };
        let asking_edge = Asking::start(&question, ROLLOUT_ASKERS, ROLLOUT_SWAP_PAUSE);
        asking.push((edge.clone(), asking_edge, Swapped::default()));
    }
    let mut parent = rig.control.head(HOME, WIDE)?;
    let mut push_ms = Vec::new();
    for (_, asking, _) in &asking {
        asking.until_all(Instant::now(), |mark| mark == parent, &rig.stop)?;
    }
    for number in 1..=swaps {
        rig.pause(number)?;
        let mut files = wide_files(&rig.upstream.url, routes);
        files.push(counter(number));
        for (_, asking, _) in &asking {
            asking.take();
        }
        let pushed = rig.control.push(HOME, WIDE, &parent, &files)?;
        let change = pushed.change;
        push_ms.push(ms(change.accepted - change.sent));
        for (_, asking, swapped) in &mut asking {
            let mut seen = asking.until_all(change.accepted, |mark| mark == pushed.version, &rig.stop)?;
            std::thread::sleep(ROLLOUT_AFTER_SWAP);
            seen.extend(asking.take().concat());
            swapped.add(&seen, change, &pushed.version);
        }
        parent = pushed.version;
    }
    say(&format!("  {swaps} bundles of {routes} routes"));
    Ok(Swaps { edges: asking.into_iter().map(|(edge, _, swapped)| (edge, swapped)).collect(), push_ms })
}

impl Swapped {
    fn add(&mut self, seen: &[Seen], change: Change, version: &str) {
        let took: Vec<f64> = seen.iter().map(|seen| ms(seen.answered - seen.sent)).collect();
        self.longest_ms.extend(quantile(&took, 1.0));
        self.took_ms.extend(took);
        self.seen_ms.push(Reach::of(seen, change, |mark| mark == version).accepted_ms);
    }
}

/// As a part of the report.
pub fn report(swaps: &Swaps, routes: usize) -> String {
    let rows = swaps.edges.iter().map(|(edge, swapped)| {
        let Swapped { took_ms, longest_ms, seen_ms } = swapped;
        let text = |values: &[f64], digits| {
            Spread::of(values.iter().copied()).map_or(String::new(), |spread| spread.text(digits))
        };
        let took = |share| quantile(took_ms, share).map_or(String::new(), |ms| format!("{ms:.1}"));
        let [seen_p50, _, seen_max] = Times::cells(Times::of(seen_ms));
        vec![edge.clone(), took(0.5), took(0.99), text(longest_ms, 0), seen_p50, seen_max]
    });
    let head = [
        "edge",
        "median, ms",
        "p99, ms",
        "longest of each swap, ms",
        "seen after it was accepted, p50 ms",
        "max ms",
    ];
    let table = report::table(&head, &rows.collect::<Vec<_>>());
    let push = Spread::of(swaps.push_ms.iter().copied()).map_or(String::new(), |spread| spread.text(0));
    format!(
        "\n## Bundle swap\n{ABOUT}\n{table}\n{} bundles of {routes} routes; pushing one took {push} ms.\n",
        swaps.push_ms.len()
    )
}

const ABOUT: &str = "
How long requests to a tenant of many routes take while a bundle of all of them is swapped in: from the push until a second
after both edges decide by it. Each edge is asked by 4 clients, each again 5 ms after its answer. *Longest of each swap*: median
(least–greatest); the request that loads the bundle waits for it, others wait where they share its thread.
";
