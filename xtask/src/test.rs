//! `cargo xtask test`: sets up and builds what the tests need, runs them all, and adds up.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::artefacts::{self, Artefacts, Flavour, HostProfile};
use crate::paths;
use crate::progress::say;
use crate::setup::{caddy, debian, npm, postgres, wasm};
use crate::stack::places::Places;

/// Arguments of `cargo xtask test`.
#[derive(Args, Clone, Debug)]
pub struct Test {
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// Print the summary as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// One test binary's outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Suite {
    name: String,
    passed: u64,
    failed: u64,
    seconds: f64,
}

/// All suites together.
#[derive(Clone, Debug, Default, Serialize)]
struct Summary {
    suites: Vec<Suite>,
    passed: u64,
    failed: u64,
}

impl Test {
    /// Runs all tests.
    ///
    /// # Errors
    /// When set-up or a build fails, a test fails, or no test ran.
    pub fn run(&self) -> Result<()> {
        // The tests may build this very program again: its path must be known before.
        let own_path = std::env::current_exe().context("this program has no path")?;
        say("Setting up and building");
        let environment = environment(own_path)?;
        let mut suites = Vec::new();
        for (label, command) in self.commands()? {
            suites.extend(run_suites(&label, command, &environment)?);
        }
        let summary = Summary {
            passed: suites.iter().map(|suite| suite.passed).sum(),
            failed: suites.iter().map(|suite| suite.failed).sum(),
            suites,
        };
        if self.json {
            println!("{}", serde_json::to_string(&summary)?);
        } else {
            print!("{}", summary.table());
        }
        match summary {
            Summary { failed: 0, passed: 0, .. } => bail!("no test ran"),
            Summary { failed: 0, .. } => Ok(()),
            Summary { failed, .. } => bail!("{failed} failed"),
        }
    }

    /// The commands that run all tests: those that need nothing, those of the Spin host (in its own target folder),
    /// and those that start the whole stack, one after the other.
    fn commands(&self) -> Result<Vec<(String, Command)>> {
        let mut all = Vec::new();
        let mut workspace = paths::cargo();
        workspace.args(["test", "--workspace", "--exclude", "meridian-spin-host", "--no-fail-fast"]);
        all.push(("the workspace".to_owned(), workspace));
        let mut host = paths::cargo();
        host.args(["test", "--profile", "stack", "--package", "meridian-spin-host", "--target-dir"]);
        host.arg(artefacts::spin_host_target()?);
        all.push(("the Spin host".to_owned(), host));
        for name in stack_tests()? {
            let mut stack = paths::cargo();
            stack.args(["test", "--package", "meridian-tests", "--features", "stack", "--test", &name]);
            all.push((name, stack));
        }
        for (_, command) in &mut all {
            command.arg("--").args(&self.filter);
        }
        Ok(all)
    }
}

impl Summary {
    fn table(&self) -> String {
        let width = self.suites.iter().map(|suite| suite.name.chars().count()).max().unwrap_or(0);
        let mut table = format!("\n{:width$}  passed  failed  seconds\n", "suite");
        for suite in self.suites.iter().filter(|suite| suite.passed + suite.failed > 0) {
            let Suite { name, passed, failed, seconds } = suite;
            table.push_str(&format!("{name:width$}  {passed:6}  {failed:6}  {seconds:7.1}\n"));
        }
        table.push_str(&format!("\n{} passed, {} failed\n", self.passed, self.failed));
        table
    }
}

/// The tests of the crate `meridian-tests` that need its feature `stack`.
fn stack_tests() -> Result<Vec<String>> {
    let metadata = paths::metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let targets = packages.iter().filter(|package| package["name"] == "meridian-tests");
    let targets = targets.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let needs_stack = |target: &&serde_json::Value| {
        target["required-features"].as_array().is_some_and(|all| all.iter().any(|feature| feature == "stack"))
    };
    Ok(targets.filter(needs_stack).filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

/// Builds what the tests run, and tells them where it is.
fn environment(own_path: PathBuf) -> Result<BTreeMap<&'static str, PathBuf>> {
    let tools = npm::tools()?;
    let programs = postgres::programs()?;
    let wrangler = npm::wrangler()?;
    // The flavours first: they are built over the plain ones.
    let spin_corpus = artefacts::spin(Flavour::Corpus)?;
    let spin_fault = artefacts::spin(Flavour::Fault)?;
    let cloudflare_corpus = artefacts::cloudflare(Flavour::Corpus)?;
    let cloudflare_fault = artefacts::cloudflare(Flavour::Fault)?;
    let artefacts = Artefacts::obtain(false, HostProfile::default())?;
    let places = paths::target()?.join("places.mmdb");
    Places::load()?.write(&places)?;
    let mut environment = BTreeMap::from([
        ("MERIDIAN_XTASK", own_path),
        ("MERIDIAN_BIN_ORIGIN", artefacts.origin),
        ("MERIDIAN_BIN_CLI", artefacts.cli),
        ("MERIDIAN_BIN_SPIN_HOST", artefacts.spin_host),
        ("MERIDIAN_SPIN_COMPONENT", artefacts.spin),
        ("MERIDIAN_SPIN_COMPONENT_CORPUS", spin_corpus),
        ("MERIDIAN_SPIN_COMPONENT_FAULT", spin_fault),
        ("MERIDIAN_CLOUDFLARE_BUILD", artefacts.cloudflare),
        ("MERIDIAN_CLOUDFLARE_BUILD_CORPUS", cloudflare_corpus),
        ("MERIDIAN_CLOUDFLARE_BUILD_FAULT", cloudflare_fault),
        ("MERIDIAN_FUNCTION", artefacts::function()?),
        ("MERIDIAN_CADDY", caddy::program()?),
        ("MERIDIAN_WORKERD", tools.workerd),
        ("MERIDIAN_NPM_TOOLS", tools.folder),
        ("MERIDIAN_NODE", wrangler.node),
        ("MERIDIAN_WRANGLER", wrangler.script),
        ("MERIDIAN_PG_BIN", programs.folder),
        ("MERIDIAN_PLACES", places),
        ("MERIDIAN_DNSMASQ", debian::program("dnsmasq", "dnsmasq-base")?),
    ]);
    if let Some(folder) = wasm::toolchain(wasm::UNKNOWN)?.folder {
        environment.insert("MERIDIAN_WASM_TOOLCHAIN", folder);
    }
    Ok(environment)
}

/// Runs one cargo test command, passing on what it says, and reads the outcome of each test binary from it.
fn run_suites(
    label: &str,
    mut command: Command,
    environment: &BTreeMap<&str, PathBuf>,
) -> Result<Vec<Suite>> {
    say(&format!("Testing {label}"));
    let started = Instant::now();
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    command.envs(environment).env("CARGO_TERM_COLOR", "never").stdin(Stdio::null());
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("could not start cargo test")?;
    // The command holds the pipe's other end; without it the reader would wait for ever.
    drop(command);
    let mut outcomes = Outcomes::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        say(&line);
        outcomes.line(&line);
    }
    let status = child.wait()?;
    let mut suites = outcomes.suites;
    if !status.success() && suites.iter().all(|suite| suite.failed == 0) {
        // It did not compile, or a test binary died without a word: that is a failure of its own.
        let seconds = started.elapsed().as_secs_f64();
        suites.push(Suite { name: format!("{label} ({status})"), passed: 0, failed: 1, seconds });
    }
    Ok(suites)
}

/// Reads the words of cargo and the test harness.
#[derive(Default)]
struct Outcomes {
    running: String,
    suites: Vec<Suite>,
}

impl Outcomes {
    fn line(&mut self, line: &str) {
        let words = line.trim();
        if let Some(rest) = words.strip_prefix("Running ") {
            self.running = suite_name(rest);
        } else if let Some(rest) = words.strip_prefix("Doc-tests ") {
            self.running = format!("{rest} (documentation)");
        } else if let Some(rest) = words.strip_prefix("test result: ") {
            let mut suite = Suite { name: self.running.clone(), ..Suite::default() };
            for part in rest.split([';', '.']).map(str::trim) {
                let mut pair = part.split(' ').rev();
                match (pair.next(), pair.next().and_then(|count| count.parse().ok())) {
                    (Some("passed"), Some(count)) => suite.passed = count,
                    (Some("failed"), Some(count)) => suite.failed = count,
                    _ => {}
                }
            }
            let seconds =
                rest.split("finished in ").nth(1).and_then(|rest| rest.trim_end_matches('s').parse().ok());
            suite.seconds = seconds.unwrap_or_default();
            self.suites.push(suite);
        }
    }
}

/// `unittests src/lib.rs (target/debug/deps/meridian_engine-0123)` → `meridian_engine`.
fn suite_name(running: &str) -> String {
    let (what, binary) = running.split_once(" (").unwrap_or((running, ""));
    let binary = binary.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let binary = binary.rsplit_once('-').map_or(binary, |(name, _)| name);
    if what.ends_with("src/main.rs") { format!("{binary} (program)") } else { binary.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_what_cargo_prints() {
        let mut outcomes = Outcomes::default();
        let text = "   Compiling x\n     Running unittests src/lib.rs (target/debug/deps/meridian_engine-0a1b)\n\
                    test a ... ok\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.25s\n\
                    \u{20}    Running tests/end_to_end.rs (target/debug/deps/end_to_end-ff)\n\
                    test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.50s\n\
                    \u{20}  Doc-tests meridian_wire\n\
                    test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        text.lines().for_each(|line| outcomes.line(line));
        let suite =
            |name: &str, passed, failed, seconds| Suite { name: name.into(), passed, failed, seconds };
        assert_eq!(
            outcomes.suites,
            [
                suite("meridian_engine", 12, 0, 1.25),
                suite("end_to_end", 3, 2, 0.5),
                suite("meridian_wire (documentation)", 1, 0, 0.0)
            ]
        );
    }

    #[test]
    fn a_command_that_dies_without_a_word_is_a_failure() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo error: could not compile >&2; exit 101"]);
        let suites = run_suites("something", command, &BTreeMap::new()).unwrap();
        assert_eq!(suites.len(), 1);
        assert_eq!(suites[0].failed, 1);
    }
}
