//! Runs the Spin components of a `spin.toml` where the Spin CLI is not at hand: local stacks, tests, CI.
//!
//! It keeps the meaning of the manifest (routes, variables, allowed hosts, files, key-value stores) and the way Spin
//! runs components (instances that are reused, `wasi:http/handler@0.3`, `spin:key-value`, `spin:variables`), so that
//! what runs here runs on Spin; a manifest that asks for more is refused. It never runs a component with more rights
//! than the manifest gives it.

mod client;
mod component;
mod files;
mod functions;
mod hosts;
mod instance;
mod key_value;
mod limits;
mod logs;
mod manifest;
mod open_files;
mod outbound;
mod pace;
mod refusal;
mod routes;
mod seldom;
mod server;
mod threads;
mod variables;
mod whole;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tracing_subscriber::EnvFilter;
use wasmtime::Engine;

use crate::{
    client::Patience,
    functions::Functions,
    hosts::HostPattern,
    instance::{Blueprint, InstanceLimits, Sending},
    manifest::{Component, Manifest},
    outbound::{Client, Outbound},
    pace::Demand,
    server::{ClientLimits, Info, Server},
    threads::Threads,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the components of a spin.toml.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The application's manifest.
    #[arg(long, default_value = "spin.toml")]
    manifest: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// A variable's value; SPIN_VARIABLE_NAME in the environment does the same and keeps secrets out of process lists.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// A TOML file of variables' values.
    #[arg(long, value_name = "FILE")]
    variables_file: Option<PathBuf>,
    /// An environment variable that every component gets.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,
    /// Where key-value stores and compiled components are kept.
    #[arg(long, default_value = ".meridian/spin")]
    state_dir: PathBuf,
    /// Bytes that one key-value store may hold.
    #[arg(long, default_value_t = limits::KEY_VALUE_BYTES_MAX)]
    key_value_bytes_max: usize,
    /// Requests that one instance answers before it is replaced.
    #[arg(long, default_value_t = limits::INSTANCE_REQUESTS_MAX)]
    instance_requests_max: usize,
    /// Requests that one instance answers at the same time.
    #[arg(long, default_value_t = limits::INSTANCE_REQUESTS_AT_ONCE_MAX)]
    instance_requests_at_once_max: usize,
    /// Bytes of memory that one instance may have.
    #[arg(long, default_value_t = limits::INSTANCE_MEMORY_BYTES_MAX)]
    instance_memory_bytes_max: usize,
    /// Milliseconds until a request that the component has not answered fails.
    #[arg(long, default_value_t = millis(limits::REQUEST_TIMEOUT))]
    request_timeout_ms: u64,
    /// Milliseconds that a component may compute without waiting for anything.
    #[arg(long, default_value_t = millis(limits::BUSY_TIMEOUT))]
    busy_timeout_ms: u64,
    /// Bytes that a request's body may have.
    #[arg(long, default_value_t = limits::BODY_BYTES_MAX)]
    body_bytes_max: u64,
    /// Connections of clients that are open at the same time; further ones get 503.
    #[arg(long, default_value_t = limits::CONNECTIONS_MAX)]
    connections_max: usize,
    /// Milliseconds that a request's head may take, from its first byte on; then it gets 408.
    #[arg(long, default_value_t = millis(limits::HEAD_TIMEOUT), value_parser = clap::value_parser!(u64).range(1..))]
    head_timeout_ms: u64,
    /// Milliseconds that a connection without a request is kept.
    #[arg(long, default_value_t = millis(limits::IDLE_CLIENT_TIMEOUT), value_parser = clap::value_parser!(u64).range(1..))]
    idle_client_timeout_ms: u64,
    /// Milliseconds that a request's body may pause; then it gets 408.
    #[arg(long, default_value_t = millis(limits::BODY_PAUSE_TIMEOUT), value_parser = clap::value_parser!(u64).range(1..))]
    body_pause_timeout_ms: u64,
    /// Bytes a second that a request's body has to come at while it is waited for; then it gets 408.
    #[arg(long, default_value_t = limits::BODY_RATE_MIN)]
    body_rate_min: u64,
    /// Milliseconds that a client may take nothing of its response; then its connection is ended.
    #[arg(long, default_value_t = millis(limits::RESPONSE_PAUSE_TIMEOUT), value_parser = clap::value_parser!(u64).range(1..))]
    response_pause_timeout_ms: u64,
    /// Threads that serve requests; as many as there are processors, if it isn't given.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Tell Linux perf of the functions that this start compiles, where they are and what they are called, in
    /// /tmp/perf-PID.map.
    #[arg(long)]
    perf_map: bool,
    /// How to write the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Options {
    fn client_limits(&self) -> ClientLimits {
        ClientLimits {
            body_bytes_max: self.body_bytes_max,
            demand: Demand {
                pause_max: Duration::from_millis(self.body_pause_timeout_ms),
                rate_min: self.body_rate_min,
            },
            patience: Patience {
                head: Duration::from_millis(self.head_timeout_ms),
                idle: Duration::from_millis(self.idle_client_timeout_ms),
                response: Duration::from_millis(self.response_pause_timeout_ms),
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let options = Options::parse();
    start_log(options.log);
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> anyhow::Result<()> {
    let manifest = Manifest::read(&options.manifest)?;
    for warning in &manifest.warnings {
        tracing::warn!("{warning}");
    }
    let file = options.variables_file.as_deref().map(variables::read_file).transpose()?.unwrap_or_default();
    let environment = |name: &str| std::env::var(name).ok();
    let values = variables::resolve(&manifest.variables, &options.variables, environment, &file)?;
    for (name, value) in &values {
        let secret = manifest.variables.get(name).is_some_and(|variable| variable.secret);
        tracing::debug!("variable {name} = {}", if secret { "(secret)" } else { value });
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(options, manifest, values))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(options: Options, manifest: Manifest, values: BTreeMap<String, String>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("can't listen on {}; --listen says another address", options.listen))?;
    let address = listener.local_addr()?;
    let labels = manifest.components.iter().flat_map(|component| component.key_value_stores.iter().cloned());
    let stores =
        key_value::open_all(labels, &options.state_dir.join("key-value"), options.key_value_bytes_max)
            .with_context(|| format!("the key-value stores in {}", options.state_dir.display()))?;
    let engine = component::engine(options.instance_memory_bytes_max, options.perf_map)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let assembly = Assembly {
        options: &options,
        engine,
        client: outbound::client(),
        values,
        stores,
        stopping: Arc::clone(&stopping),
    };
    let blueprints = manifest
        .components
        .iter()
        .map(|component| {
            assembly.blueprint(component).with_context(|| format!("component \"{}\"", component.id))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    drop(assembly);
    let in_progress = Arc::new(Semaphore::new(limits::REQUESTS_IN_PROGRESS_MAX));
    let info = Info { name: &manifest.name, version: &manifest.version }.text()?;
    let server = |_| {
        let client = outbound::client();
        let own = |blueprint: &Blueprint| Blueprint {
            outbound: blueprint.outbound.over(client.clone()),
            ..blueprint.clone()
        };
        let blueprints = blueprints.iter().map(own).collect();
        Server::new(manifest.routes.clone(), blueprints, Arc::clone(&in_progress), options.client_limits())
            .map(|server| server.with_info(info.clone()))
    };
    let count = options.threads.map_or_else(std::thread::available_parallelism, Ok)?.get();
    let servers = (0..count).map(server).collect::<anyhow::Result<Vec<_>>>()?;
    let threads = Threads::start(servers, open_files::raise(options.connections_max), &stopping)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!("{} is served on http://{address}", manifest.name);
    threads
        .serve(listener, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

/// What all components are put together from.
struct Assembly<'a> {
    options: &'a Options,
    engine: Engine,
    client: Client,
    values: BTreeMap<String, String>,
    stores: BTreeMap<String, Arc<key_value::Store>>,
    stopping: Arc<AtomicBool>,
}

impl Assembly<'_> {
    fn blueprint(&self, component: &Component) -> anyhow::Result<Blueprint> {
        let options = self.options;
        let id: Arc<str> = component.id.as_str().into();
        let allowed = hosts::allowed(&component.allowed_outbound_hosts, &self.values)
            .context("allowed_outbound_hosts")?;
        let shown: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        tracing::info!(component = %id, "may send requests to: {}", shown.join(", "));
        let folder = options.manifest.parent().unwrap_or(Path::new(""));
        let mounts = options.state_dir.join("files").join(key_value::hex(id.as_bytes()));
        let has_files = files::collect(&component.files, folder, &mounts).context("files")?;
        let compiled = component::load(&self.engine, &component.source, &options.state_dir.join("compiled"))?;
        let stores = component
            .key_value_stores
            .iter()
            .filter_map(|label| self.stores.get(label).map(|store| (label.clone(), Arc::clone(store))));
        let stores: BTreeMap<_, _> = stores.collect();
        let environment = component.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Blueprint {
            pre: component::link(&self.engine, &compiled)?,
            engine: self.engine.clone(),
            files: has_files.then_some(mounts),
            environment: environment.chain(options.environment.iter().cloned()).collect(),
            variables: Arc::new(
                component
                    .variables
                    .iter()
                    .map(|(name, value)| (name.clone(), value.fill(&self.values)))
                    .collect(),
            ),
            outbound: Sending::Own(Box::new(self.outbound(&id, allowed, &stores)?)),
            stores: Arc::new(stores),
            limits: InstanceLimits {
                requests_max: options.instance_requests_max,
                requests_at_once_max: options.instance_requests_at_once_max,
                memory_bytes_max: options.instance_memory_bytes_max,
                request_timeout: Duration::from_millis(options.request_timeout_ms),
                busy_timeout: Duration::from_millis(options.busy_timeout_ms),
            },
            stopping: Arc::clone(&self.stopping),
            function: None,
            id,
        })
    }

    /// What a component may send: through functions too, where it may reach them and has a store for them.
    fn outbound(
        &self,
        id: &Arc<str>,
        allowed: Vec<HostPattern>,
        stores: &BTreeMap<String, Arc<key_value::Store>>,
    ) -> anyhow::Result<Outbound> {
        let reaches = allowed.iter().any(|pattern| pattern.allows("http", functions::AUTHORITY, None));
        let pause_max = Duration::from_millis(self.options.body_pause_timeout_ms);
        let outbound = Outbound::new(Arc::clone(id), allowed, self.client.clone(), pause_max);
        let Some(store) = stores.get("default").filter(|_| reaches) else { return Ok(outbound) };
        let folder = self.options.state_dir.join("functions").join(key_value::hex(id.as_bytes()));
        Ok(outbound.with(Functions::new(self.engine.clone(), Arc::clone(store), folder)?))
    }
}
