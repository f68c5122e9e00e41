//! Developer commands of Meridian: set-up, builds, the local stack, checks and tests.
//!
//! It runs other programs and never holds product logic. It has no async runtime: everything it does is start,
//! watch and stop processes.

pub mod artefacts;
pub mod bench;
pub mod check;
pub mod conformance;
pub mod fuzz;
pub mod licence;
pub mod limits;
pub mod paths;
pub mod progress;
mod report;
pub mod run;
mod scratch;
pub mod setup;
mod soak;
pub mod stack;
mod template;
pub mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Meridian.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring everything that is missing: Wasm targets, tools, workerd, PostgreSQL.
    Setup(setup::Setup),
    /// Build what the local stack runs; prints the paths.
    Build(artefacts::Build),
    /// Bring the whole platform up on this machine and serve until Ctrl-C.
    Up(stack::Up),
    /// Stop what `up` started; with --purge, forget its data.
    Down(stack::Down),
    /// Set up, build and run all tests.
    Test(test::Test),
    /// Measure beside others, and write the report.
    Bench(bench::Bench),
    /// Run mixed load for a long time while rules, caches and regions change, and write the report.
    Soak(soak::Soak),
    /// Judge the edges by public test suites, and write the report.
    Conformance(conformance::Conformance),
    /// Fuzz what reads from outside, with the nightly compiler.
    Fuzz(fuzz::Fuzz),
    /// Check format, lints, licences and hygiene.
    Check(check::Check),
    /// Run one more edge beside a running stack, with other origins: for tests.
    Edge(stack::OneEdge),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let result = match Xtask::parse().command {
        Command::Setup(setup) => setup.run(),
        Command::Build(build) => build.run(),
        Command::Up(up) => up.run(),
        Command::Down(down) => down.run(),
        Command::Test(test) => test.run(),
        Command::Bench(bench) => bench.run(),
        Command::Soak(soak) => soak.run(),
        Command::Conformance(conformance) => conformance.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Check(check) => check.run(),
        Command::Edge(edge) => edge.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
