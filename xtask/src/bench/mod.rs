//! `cargo xtask bench`: what a request costs at the edge, and what a change costs between regions, each beside what
//! others do for the same work in the same minutes. Ratios count; absolute numbers are this machine's.

mod cdc;
mod cpu;
mod edge;
mod engine;
mod load;
mod peer;
mod upstream;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::paths;
use crate::run::run;

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
    /// Processor time of a decision in the engine alone, and its memory; writes tests/bench/engine.md.
    Engine(engine::EngineBench),
    /// Commit to visible and rows per second between regions, beside PostgreSQL's own subscription; writes
    /// tests/bench/cdc.md.
    Cdc(cdc::CdcBench),
}

/// How long to measure.
#[derive(Args, Clone, Debug)]
struct Extent {
    /// Rounds; each measures everything once, in the opposite order of the round before.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each single measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Print everything measured as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
}

/// A measuring program of the crate `meridian-tests`, built with the feature that adds it, or with `no_build` as an earlier
/// build left it.
fn program(name: &str, feature: &str, no_build: bool) -> Result<PathBuf> {
    let binary = paths::target()?.join("stack").join(name);
    if !no_build {
        let mut cargo = paths::cargo();
        cargo.args(["build", "--profile", "stack", "--package", "meridian-tests", "--features", feature]);
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
            What::Engine(bench) => bench.run(),
            What::Cdc(bench) => bench.run(),
        }
    }
}
