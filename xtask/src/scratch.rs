//! A local stack that is started to be measured or judged, by the same command that a person types, and forgotten
//! afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::artefacts::{HostProfile, Part, obtain};
use crate::limits::{DOWN_TIMEOUT, POLL, PROCESS_LOG_LINES_MAX, RULES_TIMEOUT, SCRATCH_READY_TIMEOUT};
use crate::paths;
use crate::progress::Step;
use crate::run::{run, tail};
use crate::stack::http::Request;
pub use crate::stack::layout::Ports;
use crate::stack::process::{self, Identity};
use crate::stack::stop_signals;

/// An edge's answer for hostnames that nobody has claimed.
const UNKNOWN_HOST: u16 = 421;

/// Raised by Ctrl-C and its kin.
#[derive(Clone)]
pub struct Stop(pub Arc<AtomicBool>);

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// When signals can't be caught.
    pub fn listen() -> Result<Self> {
        Ok(Self(stop_signals()?))
    }

    /// # Errors
    /// When somebody wants an end.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// A running stack; ended and forgotten when dropped.
pub struct Stack {
    folder: PathBuf,
    child: Child,
}

/// What `up.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Up {
    /// URL of each edge: `cloudflare`, `spin`.
    pub edges: BTreeMap<String, String>,
    /// Origin of each region.
    pub origins: BTreeMap<String, Origin>,
    /// The control API.
    pub control: Control,
    /// Region nearest to each address of the place database.
    pub places: BTreeMap<String, String>,
    /// Process ids by name.
    pub pids: BTreeMap<String, u32>,
}

/// One region's origin.
#[derive(Clone, Debug, Deserialize)]
pub struct Origin {
    /// Base URL.
    pub url: String,
}

/// The control API.
#[derive(Clone, Debug, Deserialize)]
pub struct Control {
    /// Base URL.
    pub url: String,
    /// Token of an operator who may do everything.
    pub token: String,
}

impl Stack {
    /// Starts a stack with its data in `folder`.
    ///
    /// # Errors
    /// When it does not start; the error holds the end of its log.
    pub fn start(
        folder: &Path,
        ports: Ports,
        host: HostProfile,
        no_build: bool,
        stop: &Stop,
    ) -> Result<Self> {
        Self::start_with(folder, ports, host, no_build, stop, &[])
    }

    /// As [`Stack::start`], with further options of `cargo xtask up`.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start_with(
        folder: &Path,
        ports: Ports,
        host: HostProfile,
        no_build: bool,
        stop: &Stop,
        options: &[&str],
    ) -> Result<Self> {
        forget(folder)?;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        let log = folder.join("up.log");
        let output = File::create(&log).with_context(|| format!("could not create {}", log.display()))?;
        let mut command = own_command()?;
        command
            .arg("up")
            .arg("--data")
            .arg(folder)
            .args(["--cloudflare-port", &ports.cloudflare.to_string()]);
        command.args(["--spin-port", &ports.spin.to_string(), "--base-port", &ports.base.to_string()]);
        command.args(["--spin-host", host.name()]).args(options);
        if no_build {
            command.arg("--no-build");
        }
        // A group of its own: Ctrl-C reaches this program, which then ends it in order.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let mut step = Step::start("start the local stack");
        let child = command.spawn().context("could not start the stack")?;
        let mut stack = Self { folder: folder.to_path_buf(), child };
        let started = Instant::now();
        while !folder.join("up.json").is_file() {
            stop.check()?;
            let shown = || tail(&log, PROCESS_LOG_LINES_MAX).join("\n");
            if let Some(status) = stack.child.try_wait()? {
                bail!("the stack ended with {status}:\n{}", shown());
            }
            ensure!(started.elapsed() < SCRATCH_READY_TIMEOUT, "the stack is not ready:\n{}", shown());
            step.tick(tail(&log, 1).first().map_or("", String::as_str));
            std::thread::sleep(POLL);
        }
        step.done("");
        Ok(stack)
    }

    /// What `up.json` says now.
    ///
    /// # Errors
    /// When the stack has ended.
    pub fn up(&self) -> Result<Up> {
        let file = self.folder.join("up.json");
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("in {}", file.display()))
    }

    /// Where its data is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process of an edge.
    ///
    /// # Errors
    /// When it does not run.
    pub fn edge_pid(&self, edge: &str) -> Result<u32> {
        let name = format!("edge-{edge}");
        self.up()?.pids.get(&name).copied().with_context(|| format!("{name} does not run"))
    }

    /// Creates a tenant with one hostname, and pushes the rules in the folder `rules` (from the top of the repository) with
    /// each `${NAME}` of `values` filled in; the filled copy stays in `copy`.
    ///
    /// # Errors
    /// When the rules can't be read or are refused.
    pub fn push_tenant(
        &self,
        tenant: &str,
        host: &str,
        rules: &str,
        values: &[(&str, &str)],
        copy: &Path,
    ) -> Result<()> {
        self.meridian(&["tenant", "create", tenant, "--name", tenant, "--home-region", "us-east-1"])?;
        self.meridian(&["domain", "add", host, "--tenant", tenant])?;
        fs::create_dir_all(copy).with_context(|| format!("could not create {}", copy.display()))?;
        let source = paths::root().join(rules);
        for entry in fs::read_dir(&source).with_context(|| format!("could not read {}", source.display()))? {
            let path = entry?.path();
            let mut text =
                fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
            for (name, value) in values {
                text = text.replace(&format!("${{{name}}}"), value);
            }
            fs::write(copy.join(path.file_name().context("an entry has a name")?), text)?;
        }
        self.meridian(&["rules", "push", &copy.to_string_lossy(), "--target", &format!("tenant:{tenant}")])?;
        Ok(())
    }

    /// Waits until an edge knows a hostname.
    ///
    /// # Errors
    /// When it does not within [`RULES_TIMEOUT`].
    pub fn await_host(&self, edge_url: &str, host: &str) -> Result<()> {
        let started = Instant::now();
        while Request::get(edge_url).header("host", host).send()?.status == UNKNOWN_HOST {
            ensure!(started.elapsed() < RULES_TIMEOUT, "{edge_url} does not know {host}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Runs the `meridian` command with the stack's control API.
    ///
    /// # Errors
    /// When it fails; the error holds what it printed.
    pub fn meridian(&self, arguments: &[&str]) -> Result<Value> {
        let control = self.up()?.control;
        let mut command = Command::new(obtain(Part::Cli, true)?);
        command.args(arguments).arg("--json").current_dir(paths::root());
        command.env("MERIDIAN_URL", control.url).env("MERIDIAN_TOKEN", control.token);
        let output = command.output().context("could not run meridian")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "meridian {}: {}\n{out}{err}", arguments.join(" "), output.status);
        serde_json::from_str(&out).with_context(|| format!("meridian {} printed: {out}", arguments.join(" ")))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(identity) = Identity::of(self.child.id()) {
            identity.signal(Signal::TERM);
        }
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < DOWN_TIMEOUT {
            std::thread::sleep(POLL);
        }
        if let Some(identity) = Identity::of(self.child.id()) {
            process::end(&identity, Signal::KILL, DOWN_TIMEOUT);
        }
        if let Err(error) = forget(&self.folder) {
            crate::progress::say(&format!("  ! {error:#}"));
        }
    }
}

/// Ends what an earlier run left, and removes its data.
fn forget(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        run("forget the stack's data", own_command()?.args(["down", "--purge", "--data"]).arg(folder))?;
    }
    Ok(())
}

fn own_command() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.current_dir(paths::root());
    Ok(command)
}
