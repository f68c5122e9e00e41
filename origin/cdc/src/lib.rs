//! Change data capture: reads this region's log, carries changes to the other regions, applies theirs.
//!
//! ```text
//! capture (a slot per peer) → decode → residency → transport/direct ⇢ receive → apply → meridian_store::apply
//!         (the local slot)  → local: journals own commits for edges                 ↘ progress, hook
//! ```
//!
//! - A slot per peer is the durable log; it moves only when the peer has applied and has it on disk. A receiver
//!   resumes from its own cursor, which is committed with the rows.
//! - What was applied from a peer carries a replication origin and is not sent again: nothing echoes.
//! - A tenant's rows go only to regions that the tenant allows; that is decided here, before anything is sent.
//! - When the log does not reach back to a receiver's cursor (a new region, a lost slot, a restored backup) the
//!   source copies its rows whole, and the receiver's stamps make that harmless.
//! - Everything that fails is tried again by itself; [`Replication::status`] says what and why.

mod apply;
mod capture;
pub mod decode;
mod fault;
pub mod limits;
mod local;
mod peer;
mod progress;
mod receive;
pub mod residency;
mod snapshot;
mod source;
mod status;
pub mod tls;
mod transport;

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use meridian_store::apply::{collect_tombstones, session, trim_conflicts};
use meridian_store::sqlx::postgres::PgConnectOptions;
use meridian_store::sqlx::{self, ConnectOptions as _, Connection as _};
use meridian_store::{Node, check_ordinal, progress as cursors};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use capture::slot_of;
pub use fault::Fault;
pub use meridian_wire::keyring::MacKeyring as PeerKeys;
pub use peer::{HEADER as PEER_HEADER, Purpose, Refused, prove};
pub use progress::{Behind, Progress};
pub use status::PeerStatus;
pub use transport::direct::accept_key;

use capture::Address;
use status::Live;

/// What replication needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// This region.
    pub node: Node,
    /// The database as `meridian_replicator`: `postgres://…`.
    pub replication_url: String,
    /// The other regions.
    pub peers: Vec<Peer>,
    /// Keys by which origins prove to each other what they are.
    pub peer_keys: PeerKeys,
    /// Whom to trust at the other end of an `https` URL of a peer: see [`tls::trust`].
    pub peer_tls: Arc<rustls::ClientConfig>,
}

/// Another region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub region: String,
    /// Its ordinal.
    pub ordinal: u16,
    /// The `http` or `https` URL of its origin.
    pub url: String,
}

/// What became visible in this region, told right after it was committed: applied from a peer, or own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The ordinal of the region whose commits they are; this region's own for own commits.
    pub source: u16,
    /// The position of the last of them; 0 for rows that a copy or a second try brought.
    pub position: u64,
    /// What became stale: tenant and tag (`COLLECTION`, `COLLECTION/ID`, or `*` for everything of the tenant).
    pub purges: Vec<(String, String)>,
    /// Tables that changed, by name within the schema `meridian`.
    pub tables: Vec<String>,
}

/// Called after every commit that [`Applied`] describes, and before anyone who waits for its position goes on.
/// It must not block.
pub type Hook = Arc<dyn Fn(&Applied) + Send + Sync>;

/// Numbers of the whole change path, for metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Counters {
    /// Own commits journalled since the start.
    pub journalled: u64,
    /// Own position up to which commits are journalled.
    pub journalled_position: u64,
    /// Each peer's.
    pub peers: Vec<PeerStatus>,
}

/// What all streams share.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) incarnation: String,
    pub(crate) replication_url: String,
    pub(crate) address: Address,
    pub(crate) peer_keys: PeerKeys,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) progress: Progress,
    pub(crate) hook: Hook,
    seen_ms: Mutex<BTreeMap<u16, u64>>,
    journalled: AtomicU64,
}

impl Shared {
    pub(crate) fn options(&self) -> Result<PgConnectOptions, Fault> {
        options(&self.replication_url)
    }

    /// Everything of a source up to a time of the source is applied here.
    pub(crate) fn saw(&self, source: u16, at_ms: u64) {
        let mut seen = self.seen_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let held = seen.entry(source).or_default();
        *held = (*held).max(at_ms);
    }

    pub(crate) fn seen_ms(&self) -> BTreeMap<u16, u64> {
        self.seen_ms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn journalled(&self, commits: u64) {
        self.journalled.fetch_add(commits, Ordering::Relaxed);
    }
}

struct PeerHandle {
    peer: Peer,
    live: Live,
    /// Ends the stream to this peer that is being served, when it connects again.
    serving: Mutex<watch::Sender<bool>>,
}

/// The running change path of an origin.
pub struct Replication {
    shared: Arc<Shared>,
    peers: Arc<Vec<PeerHandle>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Replication {
    /// Makes the slots, then starts journalling own commits and receiving from every peer. Peers are served as they
    /// connect, through [`Replication::serve`].
    ///
    /// # Errors
    /// [`Fault::Store`] when the database is away or belongs to another region, and for peers that can't be,
    /// [`Fault::Url`] for a bad URL.
    pub async fn start(config: Config, hook: Hook) -> Result<Self, Fault> {
        if config.peers.len() > limits::PEERS_MAX {
            return Err(Fault::Store(meridian_store::Fault::Configuration {
                what: "list of peers",
                expected: "at most 32 of them",
            }));
        }
        for ordinal in config.peers.iter().map(|peer| peer.ordinal).chain([config.node.ordinal]) {
            check_ordinal(ordinal)?;
        }
        let address = Address::parse(&config.replication_url)?;
        let mut sql = session(options(&config.replication_url)?).connect().await?;
        let (region, ordinal, incarnation): (String, i16, String) =
            sqlx::query_as("select region, ordinal, incarnation::text from meridian.node")
                .fetch_one(&mut sql)
                .await?;
        if region != config.node.region || ordinal as u16 != config.node.ordinal {
            return Err(Fault::Store(meridian_store::Fault::Node {
                found: format!("{region} with ordinal {ordinal}"),
                expected: format!("{} with ordinal {}", config.node.region, config.node.ordinal),
            }));
        }
        let found = cursors::all(&mut sql).await?;
        for peer in &config.peers {
            capture::ensure_slot(&mut sql, &slot_of(&peer.region)).await?;
        }
        sql.close().await?;
        let shared = Arc::new(Shared {
            progress: Progress::new(config.node.ordinal, cursors::vector(&found)),
            node: config.node,
            incarnation,
            replication_url: config.replication_url,
            address,
            peer_keys: config.peer_keys,
            tls: config.peer_tls,
            hook,
            seen_ms: Mutex::new(found.iter().map(|cursor| (cursor.source, cursor.commit_ms)).collect()),
            journalled: AtomicU64::new(0),
        });
        let handle =
            |peer| PeerHandle { peer, live: Live::new(), serving: Mutex::new(watch::Sender::new(false)) };
        let peers = Arc::new(config.peers.into_iter().map(handle).collect::<Vec<_>>());
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        {
            let (shared, stopping) = (shared.clone(), stopping.clone());
            tasks.spawn(async move { local::run(&shared, stopping).await });
        }
        for index in 0..peers.len() {
            let (shared, peers, stopping) = (shared.clone(), peers.clone(), stopping.clone());
            tasks.spawn(async move {
                if let Some(handle) = peers.get(index) {
                    receive::run(&shared, &handle.peer, &handle.live, stopping).await;
                }
            });
        }
        {
            let (shared, peers) = (shared.clone(), peers.clone());
            tasks.spawn(async move { maintain(&shared, &peers, stopping).await });
        }
        Ok(Self { shared, peers, stop, tasks: Mutex::new(tasks) })
    }

    /// How far each source is applied here.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.shared.progress
    }

    /// How replication with each peer stands.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let now_ms = now_ms();
        self.peers.iter().map(|handle| handle.live.status(&handle.peer, now_ms)).collect()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            journalled: self.shared.journalled.load(Ordering::Relaxed),
            journalled_position: self.shared.progress.vector().get(self.shared.node.ordinal),
            peers: self.status(),
        }
    }

    /// Checks the `Meridian-Peer` header of a request for this region's stream. Only the permit can serve it.
    ///
    /// # Errors
    /// [`Refused`] says why: answer 401.
    pub fn serve(&self, proof: Option<&str>) -> Result<Permit, Refused> {
        Ok(Permit {
            shared: self.shared.clone(),
            peers: self.peers.clone(),
            index: self.index(Purpose::Stream, proof)?,
            stopping: self.stop.subscribe(),
        })
    }

    /// Checks that a `Meridian-Peer` header is of one of the peers, and good for this.
    ///
    /// # Errors
    /// [`Refused`] says why.
    pub fn check(&self, purpose: Purpose, proof: Option<&str>) -> Result<(), Refused> {
        self.index(purpose, proof).map(drop)
    }

    /// Which of the peers asks.
    fn index(&self, purpose: Purpose, proof: Option<&str>) -> Result<usize, Refused> {
        let own = &self.shared.node.region;
        let region = peer::check(&self.shared.peer_keys, purpose, own, proof, now_ms())?;
        let index = self.peers.iter().position(|handle| handle.peer.region == region);
        index.ok_or(Refused::Stranger { region })
    }

    /// Ends all streams: what was applied is committed, what was not comes again after the next start.
    pub async fn shutdown(&self) {
        let _ = self.stop.send(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let done = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::SHUTDOWN_MAX, done).await.is_err() {
            tracing::warn!("some streams did not end in time and were cut off");
        }
    }
}

/// A peer that has proved itself may be served.
pub struct Permit {
    shared: Arc<Shared>,
    peers: Arc<Vec<PeerHandle>>,
    index: usize,
    stopping: watch::Receiver<bool>,
}

impl Permit {
    /// Serves the peer over an upgraded connection, whose WebSocket handshake has been answered (see
    /// [`accept_key`]), until either end is gone. A peer that connects again takes the place of its connection of before.
    pub async fn run<S>(mut self, io: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(handle) = self.peers.get(self.index) else { return };
        let (sender, ended) = watch::channel(false);
        let before =
            std::mem::replace(&mut *handle.serving.lock().unwrap_or_else(PoisonError::into_inner), sender);
        let _ = before.send(true);
        let (to, from) = transport::direct::accept(io).await;
        let fault = tokio::select! {
            served = source::serve(&self.shared, &handle.peer, &handle.live, to, from, ended.clone()) => {
                served.err().unwrap_or(Fault::Closed)
            }
            () = raised(&mut self.stopping) => Fault::Stopping,
        };
        if !*ended.borrow() {
            handle.live.lock().sending = "waiting";
        }
        tracing::info!(
            peer = handle.peer.region,
            reason = fault::chain(&fault),
            "not sending to a peer any more"
        );
    }
}

/// Watches how much of the log is kept for peers, and takes away what nobody needs any more.
async fn maintain(shared: &Shared, peers: &[PeerHandle], mut stopping: watch::Receiver<bool>) {
    let mut collected = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(limits::WATCH_INTERVAL) => {}
            () = raised(&mut stopping) => return,
        }
        if let Err(fault) = watch_slots(shared, peers).await {
            tracing::warn!(fault = fault::chain(&fault), "could not look at the slots");
        }
        if collected.elapsed() >= limits::COLLECT_INTERVAL {
            collected = Instant::now();
            match collect(shared, peers).await {
                Ok(0) => {}
                Ok(tombstones) => {
                    tracing::info!(tombstones, "collected tombstones that every region has passed");
                }
                Err(fault) => tracing::warn!(fault = fault::chain(&fault), "could not collect tombstones"),
            }
        }
    }
}

async fn watch_slots(shared: &Shared, peers: &[PeerHandle]) -> Result<(), Fault> {
    let mut sql = session(shared.options()?).connect().await?;
    for handle in peers {
        let found = capture::retained(&mut sql, &slot_of(&handle.peer.region)).await?;
        let (bytes, status) = found.unwrap_or((0, "lost".to_owned()));
        let mut numbers = handle.live.lock();
        if status != numbers.slot && status != "reserved" {
            tracing::warn!(
                peer = handle.peer.region,
                slot = status,
                retained_bytes = bytes,
                "the log kept for a peer grows"
            );
        }
        numbers.retained_bytes = bytes;
        numbers.slot = status;
    }
    Ok(sql.close().await?)
}

async fn collect(shared: &Shared, peers: &[PeerHandle]) -> Result<u64, Fault> {
    let mut sql = session(shared.options()?).connect().await?;
    let before_ms = passed_ms(shared, peers).saturating_sub(grace_ms());
    let tombstones = if before_ms > 0 { collect_tombstones(&mut sql, before_ms).await? } else { 0 };
    trim_conflicts(&mut sql).await?;
    sql.close().await?;
    Ok(tombstones)
}

fn grace_ms() -> u64 {
    u64::try_from(meridian_store::limits::TOMBSTONE_GRACE.as_millis()).unwrap_or(u64::MAX)
}

fn passed_ms(shared: &Shared, peers: &[PeerHandle]) -> u64 {
    let theirs: Vec<(u16, BTreeMap<u16, u64>)> =
        peers.iter().map(|handle| (handle.peer.ordinal, handle.live.lock().seen_ms.clone())).collect();
    passed(shared.node.ordinal, &shared.seen_ms(), &theirs).min(now_ms())
}

/// The time up to which every region has applied what every other region wrote, as far as this one knows: from
/// its own cursors and from what peers acknowledge. A region that is not heard of holds it back to 0.
fn passed(own: u16, own_seen_ms: &BTreeMap<u16, u64>, peers: &[(u16, BTreeMap<u16, u64>)]) -> u64 {
    let seen = |seen: &BTreeMap<u16, u64>, source: u16| seen.get(&source).copied().unwrap_or(0);
    let mut passed = u64::MAX;
    for (peer, peer_seen) in peers {
        passed = passed.min(seen(own_seen_ms, *peer));
        let others = peers.iter().map(|(other, _)| *other).chain([own]).filter(|source| source != peer);
        for source in others {
            passed = passed.min(seen(peer_seen, source));
        }
    }
    passed
}

fn options(url: &str) -> Result<PgConnectOptions, Fault> {
    url.parse::<PgConnectOptions>().map(|options| options.application_name("meridian replication")).map_err(
        |_| Fault::Url { what: "replication URL", expected: "postgres://USER:PASSWORD@HOST:PORT/DATABASE" },
    )
}

/// Waits until a flag is raised, or nobody is left to raise it.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

/// This machine's wall clock, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// Some random bits, for jitter only: every `RandomState` is keyed differently.
pub(crate) fn random() -> u32 {
    std::hash::RandomState::new().hash_one(0u8) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_passed_when_everybody_has_seen_everybody() {
        let seen = |pairs: &[(u16, u64)]| pairs.iter().copied().collect::<BTreeMap<u16, u64>>();
        let own = seen(&[(1, 900), (2, 50), (3, 60)]);
        let peers = |third: &[(u16, u64)]| vec![(2, seen(&[(1, 40), (3, 70)])), (3, seen(third))];
        assert_eq!(passed(1, &own, &peers(&[(1, 80), (2, 30)])), 30);
        assert_eq!(passed(1, &own, &peers(&[(1, 80)])), 0, "the third has seen nothing of the second");
        assert_eq!(passed(1, &own, &peers(&[])), 0);
        assert_eq!(passed(1, &own, &[]), u64::MAX, "alone");
    }

    #[tokio::test]
    async fn ordinals_that_stamps_have_no_room_for_are_refused() {
        for ordinal in [0, 256] {
            let config = Config {
                node: Node { region: "us-east-1".to_owned(), ordinal: 1 },
                replication_url: "odd".to_owned(),
                peers: vec![Peer {
                    region: "eu-west-1".to_owned(),
                    ordinal,
                    url: "http://[::1]:9".to_owned(),
                }],
                peer_keys: PeerKeys::parse("k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap(),
                peer_tls: tls::trust(None).unwrap(),
            };
            let refused = Replication::start(config, Arc::new(|_| {})).await.err().unwrap().to_string();
            assert_eq!(refused, "invalid region ordinal: expected a number from 1 to 255", "{ordinal}");
        }
    }
}
