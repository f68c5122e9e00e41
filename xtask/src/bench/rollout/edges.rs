//! Edges of the measurement's own beside those of the stack: each begins with nothing.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::Rig;
use crate::artefacts::{Part, obtain, obtain_host};
use crate::bench::cpu::run_seconds;
use crate::limits::{EDGE_START_TIMEOUT, ROLLOUT_POLL};
use crate::paths;
use crate::stack::edge::Edge;
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Tier, spawn};

/// Which edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The worker on workerd.
    Cloudflare,
    /// The component in the Spin host.
    Spin,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cloudflare, Self::Spin];

    /// As `up.json` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::Spin => "spin",
        }
    }

    /// As the report calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cloudflare => "worker on workerd",
            Self::Spin => "component in the Spin host",
        }
    }

    /// How to run one that keeps what it remembers in `state`.
    ///
    /// # Errors
    /// When it was not built, or its folder can't be made.
    pub fn service(self, rig: &Rig, state: &Path) -> Result<Service> {
        let edge = Edge {
            name: self.name().to_owned(),
            listen: rig.own_address(),
            origins: rig.control.origins(super::HOME),
            state: state.to_path_buf(),
            log: state.join("edge.log"),
            places: rig.stack.folder().join("places.mmdb"),
            with_rules: true,
            perf_map: false,
        };
        match self {
            Self::Cloudflare => edge.on_workerd(&obtain(Part::Cloudflare, true)?, &rig.tools, &rig.keys),
            Self::Spin => {
                let host = obtain_host(rig.spin_host, true)?;
                edge.in_spin_host(&host, &paths::root().join("spin.toml"), &rig.keys)
            }
        }
    }
}

/// A worker on workerd that does nothing but answer: what of a start is not ours.
///
/// # Errors
/// When its configuration can't be written.
pub fn empty_worker(rig: &Rig, state: &Path) -> Result<Service> {
    fs::create_dir_all(state).with_context(|| format!("could not create {}", state.display()))?;
    let config = state.join("config.capnp");
    let text = EMPTY_WORKER.replace("@LISTEN@", &rig.own_address());
    fs::write(&config, text).with_context(|| format!("could not write {}", config.display()))?;
    Ok(Service {
        name: "empty".to_owned(),
        tier: Tier::Edge,
        program: rig.tools.workerd.clone(),
        arguments: vec!["serve".into(), config.into()],
        environment: vec![],
        folder: state.to_path_buf(),
        run_as: None,
        log: state.join("edge.log"),
        ready: Box::new(|| Ok(())),
        watched_at: None,
    })
}

const EMPTY_WORKER: &str = r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [ (name = "empty", worker = .empty) ],
  sockets = [ (name = "http", address = "@LISTEN@", http = (), service = "empty") ],
);

const empty :Workerd.Worker = (
  modules = [ (name = "worker.js", esModule = "export default { fetch() { return new Response(''); } };") ],
  compatibilityDate = "2026-10-01",
);
"#;

/// What a start took until the first answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Start {
    /// Until connections are taken, in milliseconds.
    pub listening_ms: f64,
    /// Until the first answer is there.
    pub answered_ms: f64,
    /// Processor time of the process until then.
    pub cpu_ms: f64,
}

/// A running edge; ended when dropped.
pub struct OwnEdge {
    child: Child,
    /// Its base URL.
    pub url: String,
    /// What its start took.
    pub start: Start,
}

impl OwnEdge {
    /// Starts it and asks for `path` of `host` until that is answered with 200.
    ///
    /// # Errors
    /// When it does not start or answer in time.
    pub fn start(rig: &Rig, mut service: Service, host: &str, path: &str) -> Result<Self> {
        service.watched_at = None;
        let (address, url) = (rig.own_address(), format!("http://{}", rig.own_address()));
        let started = Instant::now();
        let child = spawn(&service)?;
        let start = Start { listening_ms: 0.0, answered_ms: 0.0, cpu_ms: 0.0 };
        let mut edge = Self { child, url, start };
        edge.wait(rig, &service, started, || Ok(TcpStream::connect(&address).is_ok()))?;
        edge.start.listening_ms = ms(started.elapsed());
        let asked = format!("{}{path}", edge.url);
        edge.wait(rig, &service, started, || {
            Ok(Request::get(&asked).header("host", host).send().is_ok_and(|answer| answer.status == 200))
        })?;
        edge.start.answered_ms = ms(started.elapsed());
        edge.start.cpu_ms = run_seconds(edge.pid())? * 1e3;
        Ok(edge)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(
        &mut self,
        rig: &Rig,
        service: &Service,
        started: Instant,
        done: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let log = service.log.display();
        while !done()? {
            rig.stop.check()?;
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended with {status}; its log: {log}", service.name);
            }
            ensure!(
                started.elapsed() < EDGE_START_TIMEOUT,
                "{} does not serve; its log: {log}",
                service.name
            );
            std::thread::sleep(ROLLOUT_POLL);
        }
        Ok(())
    }
}

impl Drop for OwnEdge {
    fn drop(&mut self) {
        // It has nothing to finish: what it reported last is not needed.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// In milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
