//! The program `meridian-origin`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use meridian_origin::config::{Bootstrap, Cli, Command, Config, Log, Migrate};
use meridian_origin::{router, serve};
use meridian_store::Node;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    log(cli.log);
    let done = match cli.command {
        Command::Openapi => openapi(),
        Command::Migrate(arguments) => run(migrate(arguments)),
        Command::Bootstrap(arguments) => run(bootstrap(arguments)),
        Command::Serve(config) => run(serve(*config)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log(shape: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let colours = std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match shape {
        Log::Text => subscriber.init(),
        Log::Json => subscriber.json().flatten_event(true).init(),
    }
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

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let starting = serve::start(config);
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
