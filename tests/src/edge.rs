//! One edge beside or without the stack, started by the same command that a developer types.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;
use crate::stack::tool;

/// How long an edge may take until it answers.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What is built into an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// What is shipped.
    Plain,
    /// With the entrance through which the decision corpus is put to it.
    Corpus,
    /// With routes that break it on purpose.
    Fault,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Corpus => "corpus",
            Self::Fault => "fault",
        }
    }
}

/// An edge that a test started; stopped when dropped.
pub struct Edge {
    /// `cloudflare` or `spin`.
    pub name: String,
    /// Base URL.
    pub url: String,
    child: Child,
}

impl Edge {
    /// Starts an edge (`cloudflare` or `spin`) on a port, with the keys in `data`, these origins, and a memory in `state`.
    pub fn start(
        name: &str,
        flavour: Flavour,
        port: u16,
        origins: &str,
        data: &Path,
        state: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(state)?;
        let log = std::fs::File::create(state.join("start.log"))?;
        let mut command = Command::new(tool("MERIDIAN_XTASK")?);
        command.args([
            "edge",
            name,
            "--no-build",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--origins",
            origins,
        ]);
        command.arg("--data").arg(data).arg("--state").arg(state);
        command.args(["--flavour", flavour.name()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start an edge")?;
        let mut edge = Self { name: name.to_owned(), url: format!("http://127.0.0.1:{port}"), child };
        let started = Instant::now();
        let client = Client::new(&edge.url, "nobody.example");
        while client.get("/").map_or(true, |response| response.header("meridian-decision").is_empty()) {
            let log = || std::fs::read_to_string(state.join("start.log")).unwrap_or_default();
            if let Some(status) = edge.child.try_wait()? {
                bail!("the edge ended with {status}:\n{}", log());
            }
            ensure!(started.elapsed() < READY_MAX, "the edge does not answer:\n{}", log());
            std::thread::sleep(POLL);
        }
        Ok(edge)
    }

    /// Stops it as a signal would.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > STOP_MAX {
                self.child.kill()?;
                bail!("the edge did not stop within {STOP_MAX:?}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
