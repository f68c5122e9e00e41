//! `cargo xtask bench`: what a request costs at the edge, and what a change costs between regions, each beside what
//! others do for the same work in the same minutes, and what it takes to start an edge and to roll a change out. Ratios
//! count; absolute numbers are this machine's.

mod cdc;
mod checks;
mod contest;
mod cpu;
mod edge;
mod engine;
mod field;
mod load;
mod peer;
mod profile;
mod proxies;
mod proxy;
mod rollout;
mod sizes;
mod tokens;
pub(crate) mod upstream;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use contest::Results;

use crate::progress::say;
use crate::run::run;
use crate::{paths, report};

/// Arguments of `cargo xtask bench`.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// CPU per request of both edges, beside a hand-written Hono and jose worker; writes tests/bench/edge.md.
    Edge(edge::EdgeBench),
    /// CPU per request of the Spin host, beside HAProxy, nginx with Lua, Envoy and Varnish; writes tests/bench/proxy.md.
    Proxy(proxy::ProxyBench),
    /// Processor time of a decision in the engine alone, and its memory; writes tests/bench/engine.md.
    Engine(engine::EngineBench),
    /// Commit to visible and rows per second between regions, beside PostgreSQL's own subscription; writes
    /// tests/bench/cdc.md.
    Cdc(cdc::CdcBench),
    /// Where the processor time of a request goes, function by function; writes tests/bench/profile.md.
    Profile(profile::ProfileBench),
    /// Cold start, bytes, memory, swaps of large bundles, and how long until every edge does what changed; writes
    /// tests/bench/rollout.md.
    Rollout(rollout::RolloutBench),
}

/// How long to measure.
#[derive(Args, Clone, Debug)]
struct Extent {
    /// Rounds; each measures everything once, in the opposite order of the round before.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each single measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Only rows whose names hold this; may be given again. No report is written.
    #[arg(long)]
    only: Vec<String>,
    /// Print everything measured as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
}

impl Extent {
    /// Whether a row is measured.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    /// Checks that there is a row for everything that is asked for.
    fn check(&self, contest: &contest::Contest) -> Result<()> {
        for part in &self.only {
            let names: Vec<&str> = contest.cells.iter().map(|cell| cell.name).collect();
            let is_there = names.iter().any(|name| name.contains(part));
            ensure!(is_there, "no row has \"{part}\" in its name; there are: {}", names.join("; "));
        }
        Ok(())
    }

    /// How the measurement is repeated.
    fn command(&self, what: &str) -> String {
        let Self { rounds, seconds, .. } = self;
        let only: String = self.only.iter().map(|part| format!(" --only \"{part}\"")).collect();
        format!("cargo xtask bench {what} --rounds {rounds} --seconds {seconds}{only}")
    }

    /// What the numbers of a table of costs are.
    fn units(&self) -> String {
        let Self { rounds, seconds, .. } = self;
        format!(
            "µs, median (least–greatest) of {rounds} rounds of {seconds} s; ratios are of the same round.\n\n"
        )
    }

    /// Prints the report and writes it.
    ///
    /// # Errors
    /// When it can't be written, or answers were not those expected.
    fn publish(&self, results: &Results, place: &str, text: &str) -> Result<()> {
        println!("{text}");
        if self.json {
            println!("{}", serde_json::to_string(&results.measured)?);
        }
        if self.only.is_empty() {
            say(&format!("Written to {}", report::write(place, text)?.display()));
        }
        match results.wrong() {
            0 => Ok(()),
            wrong => bail!("{wrong} answers were not those expected"),
        }
    }
}

/// A measuring program of the crate `meridian-tests`, built by this profile with the feature that adds it, or with `no_build`
/// as an earlier build left it.
fn program(name: &str, feature: &str, profile: &str, no_build: bool) -> Result<PathBuf> {
    let binary = paths::target()?.join(profile).join(name);
    if !no_build {
        let mut cargo = paths::cargo();
        cargo.args(["build", "--profile", profile, "--package", "meridian-tests", "--features", feature]);
        run(&format!("build {name}"), cargo.args(["--bin", name]))?;
    }
    ensure!(binary.is_file(), "{} is not there: leave out --no-build", binary.display());
    Ok(binary)
}

impl Bench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When set-up, a build or a server fails, or answers are not those that were asked for.
    pub fn run(&self) -> Result<()> {
        match &self.what {
            What::Edge(bench) => bench.run(),
            What::Proxy(bench) => bench.run(),
            What::Engine(bench) => bench.run(),
            What::Cdc(bench) => bench.run(),
            What::Profile(bench) => bench.run(),
            What::Rollout(bench) => bench.run(),
        }
    }
}
