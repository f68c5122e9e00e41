//! Starts the stack's processes, restarts those that die, and stops them in order.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::layout::write_private;
use super::process::{self, Identity};
use super::user::RunAs;
use super::watchdog::{self, Patience};
use crate::limits::{
    BACK_OFF_MAX, BACK_OFF_MIN, LOG_BYTES_MAX, POLL, PROCESS_LOG_LINES_MAX, QUESTION_EVERY, SILENCE_MAX,
    STOP_TIMEOUT, WELL_AFTER,
};
use crate::progress::{Step, say};
use crate::run::tail;

/// How long a process that is asked may be silent.
const PATIENCE: Patience = Patience { each: QUESTION_EVERY, silence_max: SILENCE_MAX };

/// What a process belongs to. Stopped from the last to the first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// PostgreSQL.
    Database,
    /// Origins.
    Origin,
    /// Edges.
    Edge,
}

impl Tier {
    /// PostgreSQL's fast shutdown is `INT`; everything else ends gracefully on `TERM`.
    fn stop_signal(self) -> Signal {
        if self == Self::Database { Signal::INT } else { Signal::TERM }
    }
}

/// Tells whether a process serves; the error says what is still missing.
pub type Ready = Box<dyn Fn() -> Result<(), String>>;

/// How to run a process.
pub struct Service {
    /// Name for people, logs and `up.json`.
    pub name: String,
    /// When it is stopped.
    pub tier: Tier,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment, beside `PATH`, `HOME` and `RUST_LOG`.
    pub environment: Vec<(String, String)>,
    /// Its working folder.
    pub folder: PathBuf,
    /// The unprivileged user to run as, if any.
    pub run_as: Option<RunAs>,
    /// Where its output goes.
    pub log: PathBuf,
    /// When it serves.
    pub ready: Ready,
    /// Where it is asked now and then whether it still answers, and ended where it does not; nowhere for what looks after
    /// that by itself.
    pub watched_at: Option<SocketAddr>,
}

/// A process in the run file.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    name: String,
    tier: Tier,
    process: Identity,
}

/// What the run file holds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RunFile {
    /// The process that watches the others.
    up: Option<Identity>,
    processes: Vec<Entry>,
}

struct Watched {
    service: Service,
    child: Option<Child>,
    started: Instant,
    back_off: Duration,
    restart_at: Instant,
}

/// The running processes.
pub struct Supervisor {
    watched: Vec<Watched>,
    run_file: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Supervisor {
    /// A supervisor without processes; ends its work when `stop` is set.
    pub fn new(run_file: PathBuf, stop: Arc<AtomicBool>) -> Self {
        Self { watched: Vec::new(), run_file, stop }
    }

    /// Starts `services` at once and waits until all serve.
    ///
    /// # Errors
    /// When one can't be started, ends, or does not serve within `limit`; or when a stop is asked for meanwhile.
    pub fn start(&mut self, label: &str, services: Vec<Service>, limit: Duration) -> Result<()> {
        let mut step = Step::start(label);
        let first = self.watched.len();
        for service in services {
            let child = spawn(&service)?;
            let now = Instant::now();
            let watched = Watched {
                service,
                child: Some(child),
                started: now,
                back_off: BACK_OFF_MIN,
                restart_at: now,
            };
            self.watched.push(watched);
            self.write_run_file()?;
        }
        let started = Instant::now();
        let mut missing: Vec<usize> = (first..self.watched.len()).collect();
        while let Some(&next) = missing.first() {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let watched = &mut self.watched[next];
            let (name, log) = (watched.service.name.clone(), watched.service.log.clone());
            if let Some(status) = watched.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("{name} ended with {status}; the end of {}:\n{}", log.display(), end_of(&log));
            }
            match (watched.service.ready)() {
                Ok(()) => {
                    missing.remove(0);
                }
                Err(detail) if started.elapsed() > limit => {
                    let seconds = limit.as_secs();
                    bail!(
                        "{name} does not serve after {seconds} s ({detail}); the end of {}:\n{}",
                        log.display(),
                        end_of(&log)
                    );
                }
                Err(detail) => {
                    step.tick(&format!("{name}: {detail}"));
                    std::thread::sleep(POLL);
                }
            }
        }
        step.done("");
        Ok(())
    }

    /// Watches until a stop is asked for: a process that died is started again after a wait that grows.
    /// `changed` is called whenever a process got another number.
    ///
    /// # Errors
    /// When `changed` fails.
    pub fn watch(&mut self, mut changed: impl FnMut(&Self) -> Result<()>) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let mut restarted = false;
            for watched in &mut self.watched {
                restarted |= watched.look_after();
            }
            if restarted {
                self.write_run_file()?;
                changed(self)?;
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Names and numbers of the processes that run.
    pub fn pids(&self) -> Vec<(String, u32)> {
        let running = self.watched.iter();
        running
            .filter_map(|watched| Some((watched.service.name.clone(), watched.child.as_ref()?.id())))
            .collect()
    }

    /// Stops everything: edges, then origins, then PostgreSQL; each tier at once.
    pub fn stop(&mut self) {
        if self.watched.is_empty() {
            return;
        }
        let step = Step::start("stopping");
        for tier in [Tier::Edge, Tier::Origin, Tier::Database] {
            let mut children: Vec<&mut Child> = self
                .watched
                .iter_mut()
                .filter(|w| w.service.tier == tier)
                .filter_map(|w| w.child.as_mut())
                .collect();
            let identities: Vec<Option<Identity>> =
                children.iter().map(|child| Identity::of(child.id())).collect();
            for identity in identities.iter().flatten() {
                identity.signal(tier.stop_signal());
            }
            let asked = Instant::now();
            for child in &mut children {
                while matches!(child.try_wait(), Ok(None)) {
                    if asked.elapsed() > STOP_TIMEOUT {
                        // It had its time; what can't be killed has ended already.
                        let _ended = child.kill();
                    }
                    std::thread::sleep(POLL);
                }
            }
        }
        self.watched.clear();
        let _absent = fs::remove_file(&self.run_file);
        step.done("");
    }

    fn write_run_file(&self) -> Result<()> {
        let processes = self.watched.iter().filter_map(|watched| {
            let process = Identity::of(watched.child.as_ref()?.id())?;
            Some(Entry { name: watched.service.name.clone(), tier: watched.service.tier, process })
        });
        let file = RunFile { up: Identity::of(std::process::id()), processes: processes.collect() };
        write_private(&self.run_file, &serde_json::to_vec_pretty(&file)?)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watched {
    /// Sees that the process died, or that it is time to start it again; true when it was started.
    fn look_after(&mut self) -> bool {
        let name = &self.service.name;
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return false };
            self.child = None;
            if self.started.elapsed() > WELL_AFTER {
                self.back_off = BACK_OFF_MIN;
            }
            self.restart_at = Instant::now() + self.back_off;
            let (wait, log) = (self.back_off.as_secs_f64(), self.service.log.display());
            say(&format!("  ! {name} ended with {status}; starting it again in {wait:.1} s (log: {log})"));
            self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
            return false;
        }
        if Instant::now() < self.restart_at {
            return false;
        }
        match spawn(&self.service) {
            Ok(child) => {
                say(&format!("  · {name} runs again as process {}", child.id()));
                self.child = Some(child);
                self.started = Instant::now();
                true
            }
            Err(error) => {
                say(&format!("  ! {name} can't be started: {error:#}"));
                self.restart_at = Instant::now() + self.back_off;
                self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
                false
            }
        }
    }
}

impl RunFile {
    /// What an earlier run left; empty if it left nothing.
    pub fn read(path: &std::path::Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Says that this process is about to start a stack.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn announce(path: &std::path::Path) -> Result<()> {
        let file = Self { up: Identity::of(std::process::id()), processes: Vec::new() };
        write_private(path, &serde_json::to_vec_pretty(&file)?)
    }

    /// The supervisor, if it still runs.
    pub fn running(&self) -> Option<&Identity> {
        self.up.as_ref().filter(|up| up.alive())
    }

    /// Ends the processes of a supervisor that is gone. Only those that are the very ones that it started.
    pub fn end_orphans(&self) {
        for tier in [Tier::Edge, Tier::Origin, Tier::Database] {
            for entry in self.processes.iter().filter(|entry| entry.tier == tier && entry.process.alive()) {
                say(&format!("  · ending {} (process {}) of an earlier run", entry.name, entry.process.pid));
                process::end(&entry.process, tier.stop_signal(), STOP_TIMEOUT);
            }
        }
    }
}

/// Starts a process in a group of its own, so that Ctrl-C reaches this program only, and it decides about the order.
///
/// # Errors
/// When it can't be started, or its log not be opened.
pub fn spawn(service: &Service) -> Result<Child> {
    if fs::metadata(&service.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(&service.log, service.log.with_extension("log.1"))?;
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(&service.log);
    let log = log.with_context(|| format!("could not open {}", service.log.display()))?;
    let mut command = Command::new(&service.program);
    command.args(&service.arguments).current_dir(&service.folder).process_group(0).env_clear();
    for name in ["PATH", "HOME", "RUST_LOG", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("NO_COLOR", "1");
    command.envs(service.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    if let Some(user) = &service.run_as {
        user.apply(&mut command);
    }
    let child = command
        .spawn()
        .with_context(|| format!("could not start {} ({})", service.name, service.program.display()))?;
    if let (Some(address), Some(process)) = (service.watched_at, Identity::of(child.id())) {
        // Ends with the process.
        watchdog::watch(service.name.clone(), process, address, PATIENCE);
    }
    Ok(child)
}

fn end_of(log: &std::path::Path) -> String {
    tail(log, PROCESS_LOG_LINES_MAX).join("\n")
}
