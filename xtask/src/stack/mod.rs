//! `cargo xtask up` and `down`: the whole platform on this machine.

pub mod demo;
pub mod edge;
pub mod http;
pub mod keys;
pub mod layout;
pub mod orders;
pub mod origin;
pub mod places;
pub mod postgres;
pub mod process;
pub mod supervise;
pub mod tokens;
pub mod up_file;
pub mod user;
pub mod watchdog;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::artefacts::{Artefacts, Flavour, HostProfile, Part, obtain, obtain_flavour};
use crate::limits::{DOWN_TIMEOUT, EDGE_START_TIMEOUT};
use crate::paths;
use crate::progress::say;
use crate::setup::{npm, postgres as programs};
use edge::Edge;
use keys::Keys;
use layout::{Layout, Ports};
use places::Places;
use supervise::{RunFile, Supervisor};
use up_file::{Tokens, UpFile};

/// The place database that `spin.toml` mounts, below the project's folder.
pub const PLACES_MOUNTED: &str = ".meridian/places.mmdb";

/// Arguments of `cargo xtask up`.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// Port of the edge on workerd.
    #[arg(long, default_value_t = 8787, value_parser = clap::value_parser!(u16).range(1..))]
    cloudflare_port: u16,
    /// Port of the edge in the Spin host.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u16).range(1..))]
    spin_port: u16,
    /// Origins listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 17100)]
    base_port: u16,
    /// Where the stack keeps its data, in the project.
    #[arg(long, default_value = ".meridian")]
    data: PathBuf,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// How the Spin host is compiled.
    #[arg(long, value_enum, default_value_t)]
    spin_host: HostProfile,
    /// Let the edges' runtimes tell Linux perf of the functions that they compile, in /tmp/perf-PID.map.
    #[arg(long)]
    perf_map: bool,
    /// Print what up.json holds, on one line of standard output, when ready.
    #[arg(long)]
    json: bool,
}

/// Arguments of `cargo xtask down`.
#[derive(Args, Clone, Debug)]
pub struct Down {
    /// Where the stack keeps its data, in the project.
    #[arg(long, default_value = ".meridian")]
    data: PathBuf,
    /// Forget all that a stack has made there: data, keys and logs too.
    #[arg(long)]
    purge: bool,
}

/// Which edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Host {
    /// The worker on workerd.
    Cloudflare,
    /// The component in the Spin host.
    Spin,
}

/// Arguments of `cargo xtask edge`.
#[derive(Args, Clone, Debug)]
pub struct OneEdge {
    /// Which edge.
    #[arg(value_enum)]
    host: Host,
    /// Where it listens.
    #[arg(long)]
    listen: String,
    /// Where its bundles come from: REGION=URL,…
    #[arg(long)]
    origins: String,
    /// Data folder of the stack whose keys it uses.
    #[arg(long, default_value = ".meridian")]
    data: PathBuf,
    /// Where it keeps what it remembers.
    #[arg(long)]
    state: PathBuf,
    /// What is compiled into it beside what goes to production.
    #[arg(long, value_enum, default_value = "plain")]
    flavour: Flavour,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
}

impl Up {
    /// Brings the stack up, serves until a signal, and stops everything it started.
    ///
    /// # Errors
    /// When something is missing, a port is taken, or a part does not serve.
    pub fn run(&self) -> Result<()> {
        process::raise_open_files();
        let ports = Ports { cloudflare: self.cloudflare_port, spin: self.spin_port, base: self.base_port };
        let layout = Layout::new(&self.data, ports)?;
        let _lock = lock(&layout.data)?;
        RunFile::read(&layout.run_file()).end_orphans();
        let _absent = fs::remove_file(layout.up_file());
        layout.check_ports()?;
        RunFile::announce(&layout.run_file())?;
        say("Setting up and building");
        let tools = npm::tools()?;
        let programs = programs::programs()?;
        let artefacts = Artefacts::obtain(self.no_build, self.spin_host)?;
        layout.check_ports()?;
        let stop = stop_signals()?;
        let mut supervisor = Supervisor::new(layout.run_file(), Arc::clone(&stop));
        let ready = self.start(&layout, &artefacts, &tools, &programs, &mut supervisor);
        let result = match ready {
            Ok(mut up_file) => supervisor.watch(|now| up_file.write(&layout, now.pids())),
            Err(error) => Err(error),
        };
        let _absent = fs::remove_file(layout.up_file());
        supervisor.stop();
        result
    }

    fn start(
        &self,
        layout: &Layout,
        artefacts: &Artefacts,
        tools: &npm::Tools,
        programs: &programs::Programs,
        supervisor: &mut Supervisor,
    ) -> Result<UpFile> {
        say("Starting");
        let keys = Keys::load(&layout.data.join("keys"))?;
        let places = write_places(&layout.data)?;
        postgres::Clusters::new(layout, &keys, programs)?.start(layout, &keys, supervisor)?;
        origin::start(&artefacts.origin, layout, &keys, supervisor)?;
        demo::rules(&artefacts.cli, layout, &keys)?;
        let edges = vec![
            self.edge(layout, Host::Cloudflare).on_workerd(&artefacts.cloudflare, tools, &keys)?,
            self.edge(layout, Host::Spin).in_spin_host(
                &artefacts.spin_host,
                &paths::root().join("spin.toml"),
                &keys,
            )?,
        ];
        supervisor.start("both edges", edges, EDGE_START_TIMEOUT)?;
        let tokens = Tokens::mint(&keys);
        demo::orders(layout, &tokens)?;
        let mut up_file = UpFile::new(layout, &keys, tokens.clone(), &places);
        up_file.write(layout, supervisor.pids())?;
        if self.json {
            println!("{}", up_file.line()?);
        } else {
            println!("{}", table(layout, &keys, &tokens));
        }
        Ok(up_file)
    }

    fn edge(&self, layout: &Layout, host: Host) -> Edge {
        let (name, port, state) = match host {
            Host::Cloudflare => ("cloudflare", layout.ports.cloudflare, "workerd"),
            Host::Spin => ("spin", layout.ports.spin, "spin"),
        };
        Edge {
            name: name.to_owned(),
            listen: format!("127.0.0.1:{port}"),
            origins: layout.origins(),
            state: layout.data.join(state),
            log: layout.log(&format!("edge-{name}")),
            places: layout.places(),
            with_rules: true,
            perf_map: self.perf_map,
        }
    }
}

impl Down {
    /// Stops a running stack, or what a crashed one left; with `--purge`, forgets its data.
    ///
    /// # Errors
    /// When it does not end, or data can't be removed.
    pub fn run(&self) -> Result<()> {
        let data = paths::root().join(&self.data);
        if !data.is_dir() {
            say(&format!("Nothing is there: {}", data.display()));
            return Ok(());
        }
        let run_file = RunFile::read(&data.join("run.json"));
        if let Some(up) = run_file.running() {
            say(&format!("Stopping the stack (process {})", up.pid));
            up.signal(Signal::TERM);
            anyhow::ensure!(up.wait(DOWN_TIMEOUT), "process {} does not end; its log may tell why", up.pid);
        }
        let lock = lock(&data)?;
        run_file.end_orphans();
        for file in ["up.json", "run.json"] {
            let _absent = fs::remove_file(data.join(file));
        }
        if self.purge {
            let id = fs::read_to_string(data.join("keys/id")).unwrap_or_default();
            if !id.is_empty() {
                for folder in user::fallback_folders(&id) {
                    remove(&folder)?;
                }
            }
            for name in layout::DATA {
                remove(&data.join(name))?;
            }
            drop(lock);
            if fs::remove_dir(&data).is_err() {
                say(&format!("What no stack made stays in {}", data.display()));
            }
        }
        say("The stack is down");
        Ok(())
    }
}

impl OneEdge {
    /// Runs one more edge until a signal, with the keys of a stack but other origins and a memory of its own.
    ///
    /// # Errors
    /// When the edge does not start.
    pub fn run(&self) -> Result<()> {
        let data = paths::root().join(&self.data);
        let state = paths::root().join(&self.state);
        for folder in [&data.join("keys"), &state] {
            fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        }
        let keys = Keys::load(&data.join("keys"))?;
        let name = match self.host {
            Host::Cloudflare => "cloudflare",
            Host::Spin => "spin",
        };
        let edge = Edge {
            name: name.to_owned(),
            listen: self.listen.clone(),
            origins: self.origins.clone(),
            log: state.join("edge.log"),
            places: data.join("places.mmdb"),
            state: state.clone(),
            with_rules: false,
            perf_map: false,
        };
        write_places(&data)?;
        let service = match self.host {
            Host::Cloudflare => {
                let build = obtain_flavour(Part::Cloudflare, self.flavour, self.no_build)?;
                edge.on_workerd(&build, &npm::tools()?, &keys)?
            }
            Host::Spin => {
                let component = obtain_flavour(Part::Spin, self.flavour, self.no_build)?;
                let manifest = match self.flavour {
                    Flavour::Plain => paths::root().join("spin.toml"),
                    _ => edge::manifest_with(&component, &state)?,
                };
                edge.in_spin_host(&obtain(Part::SpinHost, self.no_build)?, &manifest, &keys)?
            }
        };
        let stop = stop_signals()?;
        let mut supervisor = Supervisor::new(state.join("run.json"), stop);
        supervisor.start(&format!("edge on {}", self.listen), vec![service], EDGE_START_TIMEOUT)?;
        supervisor.watch(|_| Ok(()))
    }
}

/// Writes the place database of this stack, and the one that `spin.toml` mounts.
fn write_places(data: &Path) -> Result<Places> {
    let places = Places::load()?;
    for path in [data.join("places.mmdb"), paths::root().join(PLACES_MOUNTED)] {
        let folder = path.parent().context("a place database has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        places.write(&path)?;
    }
    Ok(places)
}

/// Only one stack uses a data folder at a time.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("up.lock");
    let file = File::create(&path).with_context(|| format!("could not create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).context("could not lock the data folder"),
        Err(TryLockError::WouldBlock) => {
            let run_file = RunFile::read(&data.join("run.json"));
            let who = run_file.running().map_or(String::new(), |up| format!(" (process {})", up.pid));
            bail!("a stack uses {} already{who}; `cargo xtask down` stops it", data.display())
        }
    }
}

/// A flag that Ctrl-C and its kin raise.
///
/// # Errors
/// When signals can't be caught.
pub fn stop_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("could not listen to signals")?;
    }
    Ok(stop)
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.with_context(|| format!("could not remove {}", path.display()))
}

fn table(layout: &Layout, keys: &Keys, tokens: &Tokens) -> String {
    let (cloudflare, spin) = (layout.cloudflare_url(), layout.spin_url());
    let control = layout.origin_url(layout::REGIONS[0]);
    let origins = layout::REGIONS.map(|region| format!("{} {}", region.id, layout.origin_url(region)));
    let origins = origins.join("\n            ");
    let (reader, writer, up_file) = (&tokens.reader, &tokens.writer, layout.up_file());
    format!(
        "
  edges     cloudflare {cloudflare}
            spin {spin}
  origins   {origins}
  control   {control}/control/v1 with token {token}
  tenant    acme, host acme.localhost, collection orders
  all this  {up_file}

  export READER={reader}
  export WRITER={writer}

Try:
  curl -H 'Host: acme.localhost' -H \"Authorization: Bearer $READER\" '{cloudflare}/v1/collections/orders/records?limit=3'
  curl -H 'Host: acme.localhost' -H \"Authorization: Bearer $READER\" -H 'X-Forwarded-For: 203.0.113.10' {spin}/v1/whoami
  curl -i -H 'Host: acme.localhost' {spin}/v1/collections/orders/records

Ready. Ctrl-C stops everything; the data stays.
",
        token = keys.control_token,
        up_file = up_file.display()
    )
}
