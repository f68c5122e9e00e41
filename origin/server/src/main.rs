//! The program `meridian-origin`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use meridian_origin::config::{Bootstrap, Cli, Command, Config, Log, Migrate};
use meridian_origin::traces::{Settings, Traces};
use meridian_origin::{router, serve};
use meridian_store::Node;
use opentelemetry_sdk::trace::SdkTracer;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let region = if let Command::Serve(config) = &cli.command { config.identity.region.as_str() } else { "" };
    let settings = Settings::of(|name| std::env::var(name).ok()).filter(|_| !region.is_empty());
    let traces = Traces::new(settings.as_ref(), region);
    log(cli.log, traces.as_ref().ok().and_then(Traces::tracer));
    let done = match cli.command {
        Command::Openapi => openapi(),
        Command::Migrate(arguments) => run(migrate(arguments)),
        Command::Bootstrap(arguments) => run(bootstrap(arguments)),
        Command::Serve(config) => traces.and_then(|traces| run(serve(*config, traces))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log(shape: Log, tracer: Option<SdkTracer>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match shape {
        Log::Text => lines.boxed(),
        Log::Json => lines.json().flatten_event(true).boxed(),
    };
    // Spans are ours alone, whatever is logged.
    let ours = Targets::new().with_target("meridian", LevelFilter::INFO);
    let spans = tracer.map(|tracer| {
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        layer.with_location(false).with_target(false).with_threads(false).with_filter(ours)
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn openapi() -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = router::describe().to_pretty_json()?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

async fn migrate(arguments: Migrate) -> anyhow::Result<()> {
    let Migrate { identity, owner_url } = arguments;
    let node = Node { region: identity.region, ordinal: identity.region_ordinal };
    meridian_store::migrate(owner_url.expose(), &node)
        .await
        .context("the schema could not be brought up to date")?;
    tracing::info!("the schema is up to date");
    Ok(())
}

async fn bootstrap(arguments: Bootstrap) -> anyhow::Result<()> {
    let wanted = arguments.wanted()?;
    meridian_store::bootstrap(arguments.superuser_url.expose(), &wanted)
        .await
        .context("bootstrapping failed")?;
    tracing::info!(database = wanted.database, "the database and its roles are there");
    Ok(())
}

async fn serve(config: Config, traces: Traces) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let starting = serve::start(config, traces);
    let serving = tokio::select! {
        serving = starting => serving?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    serving.stop().await;
    Ok(())
}
