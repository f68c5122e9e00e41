//! The life of an origin: it comes up, serves, and goes down without dropping a request.
//!
//! On the way down it first lets every answer close its connection, then stops accepting connections, lets requests in flight end (bounded), then writes the events
//! that wait, ends the change path, and closes the database connections last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use axum::Router;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use meridian_cdc::{Applied, Hook, Replication};
use meridian_store::{Access, Node, Store, event, experiment, idempotency, migrate, purge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::cache::Answers;
use crate::checks::Checks;
use crate::config::Config;
use crate::context::{Replays, now_ms_i64};
use crate::control::auth::Operators;
use crate::control::lineage;
use crate::edge::authority::Authority;
use crate::edge::journal::Journal;
use crate::edge::names::Names;
use crate::edge::peers::Peers;
use crate::edge::regions::{self, RegionStates};
use crate::limits::{
    ACCEPT_PAUSE, CLOSE_MAX, CONNECTIONS_MAX, DATABASE_CONNECTIONS_MAX, DRAIN_MAX, HEADER_READ_TIMEOUT,
    IDEMPOTENCY_KEEP_MS, STOP_PAUSE, TLS_ASKS_MAX, TRIM_INTERVAL, TRIM_ROWS_MAX,
};
use crate::metrics::Metrics;
use crate::router::router;
use crate::state::{Origin, residences};
use crate::traces::Traces;

/// An origin that serves.
pub struct Serving {
    address: SocketAddr,
    origin: Arc<Origin>,
    accepting: tokio::task::JoinHandle<()>,
    background: JoinSet<()>,
    stop_accepting: watch::Sender<bool>,
    stop_background: watch::Sender<bool>,
}

/// Brings an origin up: schema, database, change path, then the listener. `traces` are those that the process records.
///
/// # Errors
/// Says what could not be had.
pub async fn start(config: Config, mut traces: Traces) -> anyhow::Result<Serving> {
    let identity = &config.identity;
    let home = config.platform_home();
    anyhow::ensure!(
        config.regions().any(|(_, region)| region == home),
        "MERIDIAN_PLATFORM_HOME names {home:?}, which is neither this region nor one of MERIDIAN_PEERS"
    );
    let node = Node { region: identity.region.clone(), ordinal: identity.region_ordinal };
    if let Some(owner_url) = &config.owner_url {
        migrate(owner_url.expose(), &node).await.context("the schema could not be brought up to date")?;
    }
    let store = Store::connect(config.database_url.expose(), DATABASE_CONNECTIONS_MAX).await;
    let store = store.context("the database of MERIDIAN_DATABASE_URL is not available")?;
    store
        .ready()
        .await
        .context("the database has not the schema of this version: run `meridian-origin migrate`")?;

    let answers = Arc::new(Answers::new());
    let residences = residences();
    let hook: Hook = {
        let (answers, residences) = (answers.clone(), residences.clone());
        Arc::new(move |applied: &Applied| {
            for (tenant, tag) in &applied.purges {
                answers.invalidate(tenant, tag);
            }
            if applied.tables.iter().any(|table| table.ends_with("tenant")) {
                residences.invalidate_all();
            }
        })
    };
    let peer_tls = meridian_cdc::tls::trust(config.peer_ca.as_deref()).context("MERIDIAN_PEER_CA")?;
    // Upstreams are the tenants' own: a private authority of the peers says nothing of them.
    let upstream_tls = meridian_cdc::tls::trust(None).context("the operating system's authorities")?;
    let change_path = meridian_cdc::Config {
        node,
        replication_url: config.replication_url.expose().to_owned(),
        peers: config.peers.iter().map(peer).collect(),
        peer_keys: config.peer_keys.clone(),
        peer_tls: peer_tls.clone(),
    };
    let replication =
        Replication::start(change_path, hook).await.context("the change path could not start")?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("{} can't be listened on", config.listen))?;
    let address = listener.local_addr()?;
    let (stop_background, stopping) = watch::channel(false);
    let mut background = JoinSet::new();
    traces.send(&mut background, &stopping);
    let origin = Arc::new(Origin {
        peers: Peers::new(&config.identity.region, &config.peers, config.peer_keys.clone(), &peer_tls),
        checks: Checks::default(),
        names: Names::new(&config.name_servers),
        tls_asks: Semaphore::new(TLS_ASKS_MAX),
        config,
        store,
        replication,
        answers,
        replays: Replays::new(),
        residences,
        operators: Operators::new(),
        region_states: RegionStates::new(),
        authority: Authority::default(),
        journal: Journal::default(),
        traces,
        metrics: Metrics::new(),
        stopping: AtomicBool::new(false),
    });
    background.spawn(origin.peers.clone().watch(stopping.clone()));
    background.spawn(regions::follow(origin.clone(), stopping.clone()));
    background.spawn(origin.checks.clone().watch(origin.clone(), upstream_tls, stopping.clone()));
    let counts = origin.metrics.events.clone();
    background.spawn(origin.journal.clone().write(origin.store.clone(), counts, stopping.clone()));
    keep(&origin).await;
    background.spawn(lineage::keep(origin.clone(), stopping.clone()));
    background.spawn(forget(origin.clone(), stopping));
    let (stop_accepting, stopping) = watch::channel(false);
    let accepting = tokio::spawn(accept(listener, origin.clone(), router(origin.clone())?, stopping));
    tracing::info!(%address, region = origin.config.identity.region, "serving");
    Ok(Serving { address, origin, accepting, background, stop_accepting, stop_background })
}

impl Serving {
    /// Address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its requests share.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Goes down: no new connections, requests in flight end, then everything behind them.
    pub async fn stop(mut self) {
        tracing::info!("stopping");
        let _ = self.stop_accepting.send(true);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "accepting ended badly");
        }
        let _ = self.stop_background.send(true);
        while self.background.join_next().await.is_some() {}
        self.origin.replication.shutdown().await;
        // A database that is away answers no farewell.
        if tokio::time::timeout(CLOSE_MAX, self.origin.store.close()).await.is_err() {
            tracing::warn!("connections to the database did not close within {CLOSE_MAX:?}");
        }
        tracing::info!("stopped");
    }
}

fn peer(peer: &crate::config::Peer) -> meridian_cdc::Peer {
    meridian_cdc::Peer {
        region: peer.region.clone(),
        ordinal: peer.ordinal,
        url: peer.url.as_str().to_owned(),
    }
}

/// Accepts connections until told to stop, then waits for requests in flight.
///
/// Between the two there is a pause in which everything is still served, but every answer closes its connection: clients
/// that keep connections learn of it from an answer, not from a request that meets a closed connection.
async fn accept(
    listener: TcpListener,
    origin: Arc<Origin>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let (close, closing) = watch::channel(false);
    let mut pause = std::pin::pin!(async {
        told_to_stop(&mut stopping).await;
        origin.stopping.store(true, Ordering::SeqCst);
        tokio::time::sleep(STOP_PAUSE).await;
    });
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), closing.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: the pause lets some connections end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = &mut pause => break,
        }
    }
    // Whoever has connected is answered.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        connections.spawn(connection(stream, router.clone(), closing.clone()));
    }
    drop(listener);
    let _ = close.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were still in flight after {DRAIN_MAX:?}");
    }
}

/// Serves one connection. When told to stop it answers the request that it is at, and closes.
async fn connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Ends when the flag is up, or nobody is left to raise it.
pub(crate) async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Forgets what is past its time: a bounded number of rows at once, until nothing is left of it.
async fn forget(origin: Arc<Origin>, mut stopping: watch::Receiver<bool>) {
    let mut clock = tokio::time::interval(TRIM_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = told_to_stop(&mut stopping) => return,
        }
        keep(&origin).await;
        loop {
            match forget_round(&origin.store).await {
                Ok(true) if !*stopping.borrow() => {}
                Ok(_) => break,
                Err(fault) => {
                    tracing::warn!(%fault, "what is past its time could not be forgotten now");
                    break;
                }
            }
        }
    }
}

/// Makes the days of decisions that come and drops those that are past. A day that can't be dropped now is dropped later.
async fn keep(origin: &Origin) {
    let keep = async || {
        let mut scope = origin.store.begin(Access::Control).await?;
        let dropped = event::keep(&mut scope, now_ms_i64(), origin.config.events.keep_days).await?;
        scope.commit().await?;
        Ok::<_, meridian_store::Fault>(dropped)
    };
    match keep().await {
        Ok(0) => {}
        Ok(days) => tracing::info!(days, "days of decisions and roll-ups are past their time and dropped"),
        Err(fault) => tracing::warn!(%fault, "the days of decisions could not be seen to now"),
    }
}

/// Returns whether there may be more to forget.
async fn forget_round(store: &Store) -> Result<bool, meridian_store::Fault> {
    let now_ms = now_ms_i64();
    let mut scope = store.begin(Access::Control).await?;
    let answers = idempotency::trim(&mut scope, now_ms - IDEMPOTENCY_KEEP_MS, TRIM_ROWS_MAX).await?;
    let purges = purge::trim(&mut scope, TRIM_ROWS_MAX).await?;
    let participation = experiment::trim(&mut scope, now_ms, TRIM_ROWS_MAX).await?;
    scope.commit().await?;
    Ok([answers, purges, participation]
        .into_iter()
        .any(|gone| i64::try_from(gone).is_ok_and(|gone| gone >= TRIM_ROWS_MAX)))
}
