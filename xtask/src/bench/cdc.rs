//! `cargo xtask bench cdc`: commit to visible and rows per second between two regions, beside PostgreSQL's own
//! subscription. The measuring itself is a program of the crate `meridian-tests`; here it is built, run and reported.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use super::{Extent, program};
use crate::progress::say;
use crate::report::{self, Spread, quantile};
use crate::setup::postgres;

/// Arguments of `cargo xtask bench cdc`.
#[derive(Args, Clone, Debug)]
pub struct CdcBench {
    #[command(flatten)]
    extent: Extent,
    /// One-row transactions of a backlog; backlogs of larger transactions have four times as many rows.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    rows: u32,
    /// PostgreSQL listens on ports of this range.
    #[arg(long, default_value = "18600-18699")]
    ports: String,
}

/// What the program prints.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    postgres: String,
    rate: u32,
    visible: Vec<Visible>,
    drains: Vec<Drain>,
}

#[derive(Clone, Debug, Deserialize)]
struct Visible {
    round: u32,
    path: String,
    after_commit_ms: Vec<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Drain {
    round: u32,
    path: String,
    rows_per_transaction: u32,
    rows: u64,
    fill_seconds: f64,
    seconds: f64,
    rows_per_second: f64,
}

/// One line of the table: both paths' values by round.
struct Line {
    name: String,
    digits: usize,
    ours: BTreeMap<u32, f64>,
    theirs: BTreeMap<u32, f64>,
    target: Target,
}

/// What the ratio of ours to theirs should be.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl CdcBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When the program can't be built or fails.
    pub fn run(&self) -> Result<()> {
        say("Setting up");
        let programs = postgres::programs()?;
        let binary = program("bench-cdc", "bench", "stack", self.extent.no_build)?;
        say("Measuring");
        let mut command = Command::new(&binary);
        let Extent { rounds, seconds, .. } = self.extent;
        command.args([rounds, seconds, self.rows].map(|number| number.to_string()));
        command.env("MERIDIAN_PG_BIN", &programs.folder).env("MERIDIAN_TEST_PORTS", &self.ports);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("could not run {}", binary.display()))?;
        ensure!(output.status.success(), "{} ended with {}", binary.display(), output.status);
        let measured: Measured =
            serde_json::from_slice(&output.stdout).context("the program printed no JSON")?;
        let text = self.report(&measured);
        println!("{text}");
        if self.extent.json {
            println!("{}", String::from_utf8_lossy(&output.stdout).trim());
        }
        say(&format!("Written to {}", report::write("tests/bench/cdc.md", &text)?.display()));
        Ok(())
    }

    fn report(&self, measured: &Measured) -> String {
        let Extent { rounds, seconds, .. } = self.extent;
        let command =
            format!("cargo xtask bench cdc --rounds {rounds} --seconds {seconds} --rows {}", self.rows);
        let mut text = report::heading(
            "The change path between two regions",
            &command,
            &format!("PostgreSQL {}", measured.postgres),
        );
        text.push_str(ABOUT);
        text.push_str(&format!(
            "\nMedian (least–greatest) of {rounds} rounds; *visible* is of {} commits a round at {}/s. {}\n\n",
            seconds * measured.rate,
            measured.rate,
            report::load()
        ));
        let lines = lines(measured);
        let rows: Vec<Vec<String>> = lines.iter().map(Line::cells).collect();
        text.push_str(&report::table(&["what", "Meridian", "subscription", "ratio", "target"], &rows));
        text.push_str("\n## Where we are behind\n\n");
        text.push_str(&behind(&lines));
        text
    }
}

const ABOUT: &str = "
Two private clusters on one machine, one change path at a time. *Meridian*: a row of the enrolled table `meridian.record`, by
trigger stamps, slot, residency, WebSocket and apply with conflict handling, purge journal and cursor. *Subscription*:
PostgreSQL's own publication and subscription of a plain table with the same key and payload, without stamps and conflict
handling, `wal_retrieve_retry_interval` 50 ms. Both clusters run with `fsync=off`, and both ways apply with `synchronous_commit=off`.

*Visible*: from the answer to the commit in one region until a query in the other, asked again and again, shows the row.
*Apply*: a backlog is written while nobody applies it; rows per second from the first look that shows rows to the last row.
*Write*: how long that backlog took to write at its source, by a procedure that commits each transaction; beside Meridian's
the source's origin journals its commits for its edges.
";

fn lines(measured: &Measured) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |path: &str| {
            let rounds = measured.visible.iter().filter(|one| one.path == path);
            rounds.filter_map(|one| Some((one.round, quantile(&one.after_commit_ms, share)?))).collect()
        };
        lines.push(Line {
            name: format!("commit → visible, {name}, ms"),
            digits: 2,
            ours: of("meridian"),
            theirs: of("subscription"),
            target: Target::AtMost(2.0),
        });
    }
    let mut sizes: Vec<u32> = measured.drains.iter().map(|drain| drain.rows_per_transaction).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut line = |name: String, digits, size: u32, target, value: &dyn Fn(&Drain) -> f64| {
        let of = |path: &str| {
            let drains = measured.drains.iter();
            let drains = drains.filter(|drain| drain.path == path && drain.rows_per_transaction == size);
            drains.map(|drain| (drain.round, value(drain))).collect()
        };
        lines.push(Line { name, digits, ours: of("meridian"), theirs: of("subscription"), target });
    };
    for &size in &sizes {
        let name = format!("apply, transactions of {size}, rows/s");
        line(name, 0, size, Target::AtLeast(1.0), &|drain| drain.rows_per_second);
    }
    for &size in &sizes {
        let name = format!("apply, transactions of {size}, connecting included, rows/s");
        line(name, 0, size, Target::None, &|drain| drain.rows as f64 / drain.seconds);
    }
    for &size in &sizes {
        let name = format!("write, transactions of {size}, µs a row");
        line(name, 1, size, Target::AtMost(1.3), &|drain| drain.fill_seconds * 1e6 / drain.rows as f64);
    }
    lines
}

impl Line {
    /// Ours to theirs, round by round.
    fn ratio(&self) -> Option<Spread> {
        Spread::of(self.ours.iter().filter_map(|(round, ours)| Some(ours / self.theirs.get(round)?)))
    }

    fn cells(&self) -> Vec<String> {
        let text =
            |spread: Option<Spread>, digits| spread.map_or(String::new(), |spread| spread.text(digits));
        let target = match self.target {
            Target::AtMost(most) => format!("≤ {most:.1}"),
            Target::AtLeast(least) => format!("≥ {least:.1}"),
            Target::None => "–".to_owned(),
        };
        vec![
            self.name.clone(),
            text(Spread::of(self.ours.values().copied()), self.digits),
            text(Spread::of(self.theirs.values().copied()), self.digits),
            text(self.ratio(), 2),
            target,
        ]
    }

    fn misses(&self) -> bool {
        let Some(ratio) = self.ratio() else { return false };
        match self.target {
            Target::AtMost(most) => ratio.median > most,
            Target::AtLeast(least) => ratio.median < least,
            Target::None => false,
        }
    }
}

/// What misses its target, said by the numbers.
fn behind(lines: &[Line]) -> String {
    let missed: Vec<String> = lines
        .iter()
        .filter(|line| line.misses())
        .map(|line| {
            format!(
                "- {}: {} times the subscription's, target {}.\n",
                line.name,
                line.cells()[3],
                line.cells()[4]
            )
        })
        .collect();
    if missed.is_empty() {
        "Nowhere in this run: every ratio meets its target.\n".to_owned()
    } else {
        missed.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(round: u32, path: &str, rows_per_second: f64, fill_seconds: f64) -> Drain {
        Drain {
            round,
            path: path.into(),
            rows_per_transaction: 1,
            rows: 1_000,
            fill_seconds,
            seconds: 1.0,
            rows_per_second,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_what_misses_is_said() {
        let visible =
            |path: &str, ms: f64| Visible { round: 1, path: path.into(), after_commit_ms: vec![ms; 3] };
        let measured = Measured {
            postgres: "15".into(),
            rate: 100,
            visible: vec![visible("meridian", 1.5), visible("subscription", 1.0)],
            drains: vec![
                drain(1, "meridian", 50.0, 0.1),
                drain(1, "subscription", 100.0, 0.1),
                drain(2, "subscription", 10.0, 0.1),
                drain(2, "meridian", 9.0, 0.1),
            ],
        };
        let lines = lines(&measured);
        assert_eq!(
            lines[0].cells(),
            [
                "commit → visible, p50, ms",
                "1.50 (1.50–1.50)",
                "1.00 (1.00–1.00)",
                "1.50 (1.50–1.50)",
                "≤ 2.0"
            ]
        );
        assert_eq!(lines[2].cells()[3], "0.70 (0.50–0.90)");
        let text = behind(&lines);
        assert!(text.contains("apply, transactions of 1") && text.lines().count() == 1, "{text}");
    }
}
