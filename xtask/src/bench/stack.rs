//! The local stack under measurement: started by the same command that a person types, forgotten afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use super::Stop;
use crate::artefacts::{Part, obtain};
use crate::paths;
use crate::progress::Step;
use crate::run::{run, tail};
use crate::stack::process::{self, Identity};

/// The stack is ready within this time, builds included.
const READY_LIMIT: Duration = Duration::from_secs(30 * 60);
/// It ends within this time.
const END_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Lines of its log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 30;

/// Where a stack listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Of the edge on workerd.
    pub cloudflare: u16,
    /// Of the edge in the Spin host.
    pub spin: u16,
    /// Origins and PostgreSQL are above it.
    pub base: u16,
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
    control: Control,
    pids: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Deserialize)]
struct Control {
    url: String,
    token: String,
}

impl Stack {
    /// Starts a stack with its data in `folder`.
    ///
    /// # Errors
    /// When it does not start; the error holds the end of its log.
    pub fn start(folder: &Path, ports: Ports, no_build: bool, stop: &Stop) -> Result<Self> {
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
            let shown = || tail(&log, LOG_LINES_SHOWN).join("\n");
            if let Some(status) = stack.child.try_wait()? {
                bail!("the stack ended with {status}:\n{}", shown());
            }
            ensure!(started.elapsed() < READY_LIMIT, "the stack is not ready:\n{}", shown());
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

    /// The process of an edge.
    ///
    /// # Errors
    /// When it does not run.
    pub fn edge_pid(&self, edge: &str) -> Result<u32> {
        let name = format!("edge-{edge}");
        self.up()?.pids.get(&name).copied().with_context(|| format!("{name} does not run"))
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
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < END_LIMIT {
            std::thread::sleep(POLL);
        }
        if let Some(identity) = Identity::of(self.child.id()) {
            process::end(&identity, Signal::KILL, END_LIMIT);
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
