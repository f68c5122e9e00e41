//! The local stack, started for the tests by the same command that a person types, on ports of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::client::Client;

/// Each instance of an edge hears of new rules by itself, within this time.
pub const SEEN_MAX: Duration = Duration::from_secs(5);
/// How long the stack may take to be ready.
const READY_MAX: Duration = Duration::from_secs(300);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// What `up.json` says of a running stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Up {
    /// Base URL by edge: `cloudflare`, `spin`.
    pub edges: BTreeMap<String, String>,
    /// Origins by region.
    pub origins: BTreeMap<String, Origin>,
    /// Control API.
    pub control: Control,
    /// Demo tenants.
    pub tenants: Vec<Tenant>,
    /// Region nearest to each address of the place database.
    pub places: BTreeMap<String, String>,
    /// Process ids by name.
    pub pids: BTreeMap<String, i32>,
}

/// One region's origin.
#[derive(Clone, Debug, Deserialize)]
pub struct Origin {
    /// Base URL.
    pub url: String,
    /// Connection string of its PostgreSQL.
    pub postgres: String,
}

/// The control API.
#[derive(Clone, Debug, Deserialize)]
pub struct Control {
    /// Base URL.
    pub url: String,
    /// Bearer token.
    pub token: String,
}

/// A demo tenant.
#[derive(Clone, Debug, Deserialize)]
pub struct Tenant {
    /// Slug.
    pub slug: String,
    /// Hostname.
    pub host: String,
    /// Collection with records.
    pub collection: String,
    /// Tokens by use: `reader`, `writer`, `expired`, `other_tenant`.
    pub tokens: BTreeMap<String, String>,
}

/// A stack that the tests started; stopped when dropped.
pub struct Stack {
    data: PathBuf,
    environment: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

impl Stack {
    /// Starts a stack with its data in `data` and these variables, and waits until it is ready.
    pub fn start(data: &Path, environment: Vec<(String, String)>) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let stack = Self { data: data.to_owned(), environment, child: Mutex::new(None) };
        stack.start_again()?;
        Ok(stack)
    }

    /// Starts a stack that was stopped, with the data that it left.
    pub fn start_again(&self) -> Result<()> {
        let log = std::fs::File::create(self.data.join("up.log"))?;
        let child = Command::new(tool("MERIDIAN_XTASK")?)
            .args([
                "up",
                "--no-build",
                "--base-port",
                "27100",
                "--cloudflare-port",
                "27187",
                "--spin-port",
                "27130",
            ])
            .arg("--data")
            .arg(&self.data)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the stack")?;
        *self.child() = Some(child);
        let started = Instant::now();
        while !self.data.join("up.json").exists() {
            if let Some(child) = self.child().as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("the stack ended with {status} before it was ready:\n{}", self.log());
            }
            ensure!(
                started.elapsed() < READY_MAX,
                "the stack is not ready after {READY_MAX:?}:\n{}",
                self.log()
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `up.json` says now: process ids change when a child is restarted.
    pub fn up(&self) -> Result<Up> {
        let text = std::fs::read_to_string(self.data.join("up.json"))?;
        serde_json::from_str(&text).context("up.json is not of its documented shape")
    }

    /// Folder of the stack's data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What the stack printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("up.log")).unwrap_or_default()
    }

    /// Sends a signal to one of the stack's processes by its name in `up.json`.
    pub fn signal(&self, name: &str, signal: rustix::process::Signal) -> Result<()> {
        let pid = *self.up()?.pids.get(name).with_context(|| format!("no process {name} in up.json"))?;
        let pid = rustix::process::Pid::from_raw(pid).context("a process id is not 0")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {name}"))
    }

    /// Stops the stack as Ctrl-C would.
    pub fn stop(&self) -> Result<()> {
        let Some(mut child) = self.child().take() else { return Ok(()) };
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let started = Instant::now();
        while child.try_wait()?.is_none() {
            if started.elapsed() > STOP_MAX {
                child.kill()?;
                bail!("the stack did not stop within {STOP_MAX:?}:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Runs the command line with the stack's control API and returns what it printed.
    pub fn meridian(&self, arguments: &[&str]) -> Result<Output> {
        let control = self.up()?.control;
        let output = Command::new(tool("MERIDIAN_BIN_CLI")?)
            .args(arguments)
            .env("MERIDIAN_URL", control.url)
            .env("MERIDIAN_TOKEN", control.token)
            .stdin(Stdio::null())
            .output()?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// A client of one edge for a demo tenant, whose host is `SLUG.localhost`.
    pub fn edge(&self, edge: &str, tenant: &str) -> Result<Client> {
        let up = self.up()?;
        let url = up.edges.get(edge).with_context(|| format!("no edge {edge}"))?;
        Ok(Client::new(url, &format!("{tenant}.localhost")))
    }

    /// A development token of a tenant's issuer.
    pub fn token(&self, tenant: &str, subject: &str, scope: &str) -> Result<String> {
        let key = self.data.join("keys").join(format!("issuer-{tenant}"));
        let key = key.to_str().context("the data folder's name is UTF-8")?;
        let output = self.meridian(&[
            "token", "mint", "--key", key, "--tenant", tenant, "--sub", subject, "--scope", scope,
        ])?;
        ensure!(output.code == 0, "token mint: {}", output.stderr);
        Ok(output.stdout.trim().to_owned())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

impl Up {
    /// The demo tenant with this slug.
    pub fn tenant(&self, slug: &str) -> Result<&Tenant> {
        self.tenants
            .iter()
            .find(|tenant| tenant.slug == slug)
            .with_context(|| format!("no tenant {slug} in up.json"))
    }

    /// An address whose nearest region is this one.
    pub fn address_near(&self, region: &str) -> Result<&str> {
        let near = self.places.iter().find(|(_, nearest)| *nearest == region);
        Ok(near.with_context(|| format!("no address near {region} in up.json"))?.0)
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; −1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Path of a tool that `cargo xtask test` built and named in the environment.
pub fn tool(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run these tests by `cargo xtask test`"))
}

/// Looks again and again until `done` says so; fails with its last word after `limit`.
pub fn eventually(limit: Duration, mut done: impl FnMut() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    loop {
        match done() {
            Ok(()) => return Ok(started.elapsed()),
            Err(error) if started.elapsed() >= limit => {
                return Err(error.context(format!("still so after {limit:?}")));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
