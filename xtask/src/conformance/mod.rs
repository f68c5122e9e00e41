//! `cargo xtask conformance`: what public test suites say of both edges, and why where they are not content.

mod peer;
mod render;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use peer::Peer;
use render::{Column, render};
use serde::{Deserialize, Serialize};

use crate::artefacts::HostProfile;
use crate::paths;
use crate::progress::{Step, say};
use crate::report;
use crate::scratch::{Ports, Stack, Stop};
use crate::setup::npm;

const HOST: &str = "conformance.localhost";
const TENANT: &str = "conformance";
/// The edges, by their names in `up.json`, and as the report calls them.
const EDGES: [(&str, &str); 2] = [("cloudflare", "workerd"), ("spin", "Spin host")];
/// Where everything about the suite of caches is kept.
const CACHE: &str = "tests/conformance/cache";

/// Arguments of `cargo xtask conformance`.
#[derive(Args, Clone, Debug)]
pub struct Conformance {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The public http-cache-tests (RFC 9111 and its kin); writes tests/conformance/cache/report.md, of a checkout report-head.md.
    Cache(Cache),
}

/// Arguments of `cargo xtask conformance cache`.
#[derive(Args, Clone, Debug)]
struct Cache {
    /// Print every outcome as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// A checkout of the suite's repository, with its dependencies installed, in the place of the release that npm carries.
    #[arg(long)]
    suite: Option<PathBuf>,
    /// Judge a proxy that caches as the crate http-cache-semantics says as well, and write it into the report.
    #[arg(long)]
    peer: bool,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// The edges listen on this port and the next, the suite's server on the one after, and the proxy of --peer on that after it.
    #[arg(long, default_value_t = 18800)]
    port: u16,
    /// Origins of the stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18600)]
    base_port: u16,
}

/// What one test came to.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Judged {
    id: String,
    suite: String,
    name: String,
    kind: Kind,
    outcome: Outcome,
    /// What the suite says where it was not content.
    detail: Option<String>,
    /// The published outcome of other caches.
    others: BTreeMap<String, Outcome>,
}

/// How much a test weighs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// The standard demands it.
    Required,
    /// The standard allows it, and a cache is better for it.
    Optimal,
    /// Neither right nor wrong.
    Check,
}

/// What a test came to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    /// What the test needs did not happen, such as storing the response at all.
    Setup,
    /// A test that it builds on did not pass.
    Dependency,
    Untested,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Passed => "yes",
            Self::Failed => "**no**",
            Self::Setup => "setup",
            Self::Dependency => "depends",
            Self::Untested => "–",
        }
    }
}

impl Conformance {
    /// Judges, prints and writes the report.
    ///
    /// # Errors
    /// When set-up, a build or the suite fails, or a behaviour is missed that nothing explains.
    pub fn run(&self) -> Result<()> {
        let What::Cache(cache) = &self.what;
        cache.run()
    }
}

impl Cache {
    fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        say("Setting up");
        let modules = npm::install("conformance")?.join("node_modules");
        let folder = paths::target()?.join("conformance/cache");
        let ports = Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port };
        let stack = Stack::start(&folder.join("stack"), ports, HostProfile::default(), self.no_build, &stop)?;
        let server = format!("127.0.0.1:{}", self.port + 2);
        stack.push_tenant(
            TENANT,
            HOST,
            &format!("{CACHE}/rules"),
            &[("UPSTREAM", &format!("http://{server}"))],
            &folder.join("rules"),
        )?;
        let mut judged = Vec::new();
        for (edge, title) in EDGES {
            stop.check()?;
            let url = stack.up()?.edges.get(edge).cloned().with_context(|| format!("no edge {edge}"))?;
            stack.await_host(&url, HOST)?;
            judged.push(self.judge(&modules, &url, title)?);
        }
        drop(stack);
        let peer = self.peer.then(|| self.judge_peer(&modules, &folder, &server, &stop)).transpose()?;
        let end = if self.suite.is_some() { "-head" } else { "" };
        let explained = explained(end)?;
        let text = render(&judged, peer.as_ref(), &explained, self.suite.as_deref())?;
        println!("{}", text.split("\n## Each test").next().unwrap_or_default());
        if self.json {
            let all: Vec<_> = judged.iter().chain(peer.as_ref().map(|peer| &peer.judged)).collect();
            println!("{}", serde_json::to_string(&all)?);
        }
        say(&format!("Written to {}", report::write(&format!("{CACHE}/report{end}.md"), &text)?.display()));
        let silent: Vec<_> = missed(&judged).filter(|id| !explained.contains_key(*id)).collect();
        ensure!(
            silent.is_empty(),
            "missed and not explained in {CACHE}/missed{end}.yaml: {}",
            silent.join(", ")
        );
        let settled: Vec<_> = explained.keys().filter(|id| missed(&judged).all(|one| one != *id)).collect();
        ensure!(settled.is_empty(), "explained in {CACHE}/missed{end}.yaml, but not missed: {settled:?}");
        Ok(())
    }

    fn judge_peer(&self, modules: &Path, folder: &Path, server: &str, stop: &Stop) -> Result<Column> {
        stop.check()?;
        let peer = Peer::start(&folder.join("peer"), self.port + 3, server, self.no_build, stop)?;
        let judged = self.judge(modules, &peer.url, &peer.title)?;
        Ok(Column { title: peer.title.clone(), judged })
    }

    fn judge(&self, modules: &Path, url: &str, title: &str) -> Result<Vec<Judged>> {
        let step = Step::start(format!("http-cache-tests through {title}"));
        let mut command = Command::new("node");
        command.arg("--no-warnings").arg(paths::root().join(CACHE).join("run.mjs"));
        let suite = self.suite.clone().unwrap_or_else(|| modules.join("http-cache-tests"));
        command
            .arg(suite)
            .arg(modules)
            .args([url, HOST])
            .arg((self.port + 2).to_string())
            .stdin(Stdio::null());
        let output = command.output().context("could not run node")?;
        ensure!(
            output.status.success(),
            "the suite ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let judged: Vec<Judged> = serde_json::from_slice(&output.stdout).context("what the suite printed")?;
        if judged.is_empty() {
            bail!("the suite ran no test");
        }
        let passed =
            |kind| judged.iter().filter(|one| one.kind == kind && one.outcome == Outcome::Passed).count();
        step.done(&format!("{} required, {} optimal", passed(Kind::Required), passed(Kind::Optimal)));
        Ok(judged)
    }
}

/// Why a behaviour is missed, by the test's id.
fn explained(end: &str) -> Result<BTreeMap<String, String>> {
    let file = paths::root().join(CACHE).join(format!("missed{end}.yaml"));
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("in {}", file.display()))
}

/// Ids of required and optimal tests that did not pass through one of the edges.
fn missed(judged: &[Vec<Judged>]) -> impl Iterator<Item = &str> {
    let first = judged.first().into_iter().flatten().enumerate();
    first.filter_map(|(at, one)| {
        let all_passed =
            judged.iter().all(|edge| edge.get(at).is_some_and(|one| one.outcome == Outcome::Passed));
        (one.kind != Kind::Check && !all_passed).then_some(one.id.as_str())
    })
}
