//! The receiver's side: connects to one source, applies what it sends, acknowledges what is durable.

use std::time::Instant;

use bytes::Bytes;
use meridian_replica::Backoff;
use meridian_store::Node;
use meridian_store::apply::Applier;
use meridian_store::progress::SourceCursor;
use meridian_wire::change::{Ack, Resume};
use tokio::sync::{mpsc, watch};

use crate::apply::Apply;
use crate::fault::chain;
use crate::status::Live;
use crate::transport::direct;
use crate::{Fault, Peer, Shared, limits, now_ms, peer, raised, random};

/// Keeps receiving from one peer until this origin stops.
pub(crate) async fn run(shared: &Shared, source: &Peer, live: &Live, mut stopping: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MAX);
    loop {
        let since = Instant::now();
        let fault = tokio::select! {
            ended = receive(shared, source, live) => match ended { Ok(never) => match never {}, Err(fault) => fault },
            () = raised(&mut stopping) => {
                live.lock().state = "stopped";
                return;
            }
        };
        if since.elapsed() > limits::BACKOFF_MAX {
            backoff.succeed();
        }
        let detail = chain(&fault);
        let wait = backoff.fail(random());
        if backoff.failures() <= limits::FAILURES_LOGGED || backoff.failures().is_power_of_two() {
            tracing::warn!(
                source = source.region,
                fault = detail,
                retry_ms = wait.as_millis() as u64,
                "not receiving"
            );
        }
        {
            let mut numbers = live.lock();
            numbers.state = "connecting";
            numbers.detail = Some(detail);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = raised(&mut stopping) => {
                live.lock().state = "stopped";
                return;
            }
        }
    }
}

enum Never {}

async fn receive(shared: &Shared, source: &Peer, live: &Live) -> Result<Never, Fault> {
    let node = Node { region: source.region.clone(), ordinal: source.ordinal };
    let mut applier = Applier::connect(&shared.replication_url, &node, now_ms).await?;
    let cursor = applier.cursor().await?;
    let proof =
        peer::prove(&shared.peer_keys, peer::Purpose::Stream, &shared.node.region, &source.region, now_ms());
    let (mut to, mut from) = direct::connect(&source.url, &proof, shared.tls.clone()).await?;
    live.lock().connects += 1;
    to.send(&Resume {
        resume: cursor.as_ref().map(|cursor| cursor.position),
        incarnation: cursor.as_ref().map(|cursor| cursor.incarnation.clone()),
    })
    .await?;

    // Reading and applying overlap; the channel bounds what is held in memory.
    let (sender, mut messages) = mpsc::channel(limits::MESSAGES_HELD_MAX);
    let reader = Reader(tokio::spawn(async move {
        loop {
            let message = from.message().await;
            let ended = message.is_err();
            if sender.send(message).await.is_err() || ended {
                return;
            }
        }
    }));
    let mut apply = Apply::new(shared, source, live, applier, cursor);
    let mut acks = Acks::default();
    let mut ack = tokio::time::interval(limits::ACK_INTERVAL);
    let mut retry = tokio::time::interval(limits::RETRY_INTERVAL);
    ack.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut received: Vec<Result<Bytes, Fault>> = Vec::new();
    loop {
        tokio::select! {
            count = messages.recv_many(&mut received, limits::MESSAGES_HELD_MAX) => {
                if count == 0 {
                    break;
                }
                let mut whole = Vec::with_capacity(count);
                let mut ended = None;
                for message in received.drain(..) {
                    match message {
                        Ok(message) => whole.push(message),
                        Err(fault) => ended = Some(fault),
                    }
                }
                apply.messages(&whole).await?;
                if let Some(fault) = ended {
                    to.close().await;
                    return Err(fault);
                }
            }
            _ = ack.tick() => {
                apply.write_progress().await?;
                if let Some(applied) = acks.due(&mut apply).await? {
                    to.send(&Ack { applied, seen_ms: shared.seen_ms() }).await?;
                }
            }
            _ = retry.tick() => apply.retry_parked().await?,
        }
    }
    drop(reader);
    Err(Fault::Closed)
}

/// Ends the reading task with the connection.
struct Reader(tokio::task::JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What may be acknowledged: apply transactions don't wait for the disk, so a position is only told to the source
/// once this region's log is flushed beyond its commit.
#[derive(Default)]
struct Acks {
    waiting: Option<(u64, u64)>,
    told: u64,
    told_at: Option<Instant>,
}

impl Acks {
    /// The position to tell now: a new one, or the last again when the source has not heard for a while.
    async fn due(&mut self, apply: &mut Apply<'_>) -> Result<Option<u64>, Fault> {
        let committed = apply.durable_cursor();
        if !apply.is_open() && (committed > self.told || self.waiting.is_some()) {
            let (flushed, inserted) = apply.flushed().await?;
            if let Some((position, needed)) = self.waiting
                && flushed >= needed
            {
                self.waiting = None;
                self.told = position;
                self.told_at = None;
            }
            if self.waiting.is_none() && committed > self.told {
                if flushed >= inserted {
                    self.told = committed;
                    self.told_at = None;
                } else {
                    self.waiting = Some((committed, inserted));
                }
            }
        }
        if self.told_at.is_some_and(|at| at.elapsed() < limits::ACK_AGAIN_INTERVAL) {
            return Ok(None);
        }
        self.told_at = Some(Instant::now());
        Ok(Some(self.told))
    }
}

/// The cursor of a source that has none yet.
pub(crate) fn new_cursor(source: &Peer) -> SourceCursor {
    SourceCursor {
        source: source.ordinal,
        region: source.region.clone(),
        incarnation: String::new(),
        position: 0,
        commit_ms: 0,
    }
}
