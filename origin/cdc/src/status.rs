use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meridian_replica::conflict::Class;
use meridian_store::apply::Applied;
use serde::Serialize;

use crate::limits;

/// How replication with one peer stands, both ways. Numbers count from the start of this process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The peer's region.
    pub region: String,
    /// The peer's ordinal.
    pub ordinal: u16,
    /// Where it is reached.
    pub url: String,
    /// Receiving: `connecting`, `resynchronising` (its rows are being copied whole), `streaming`, or `stopped`.
    pub state: &'static str,
    /// Why it is not streaming: the last error.
    pub detail: Option<String>,
    /// The peer's position up to which everything is applied here.
    pub applied: u64,
    /// The peer's position as far as it is known here.
    pub source_position: u64,
    /// Age of the oldest state that may be missing here, in milliseconds; 0 when nothing is missing.
    pub lag_ms: u64,
    /// Bytes of the peer's log that are not applied here yet.
    pub lag_bytes: u64,
    /// Rows applied.
    pub changes: u64,
    /// Apply transactions committed.
    pub transactions: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Rows applied a second, over the last seconds.
    pub throughput: f64,
    /// Conflicts in which a value gave way, by class.
    pub conflicts: BTreeMap<&'static str, u64>,
    /// Concurrent changes of merging fields alone, where nothing gave way.
    pub merged: u64,
    /// Rows set aside since the start.
    pub parked: u64,
    /// Times that the connection was made.
    pub connects: u64,
    /// Sending: `waiting` (the peer is not connected), `resynchronising`, or `streaming`.
    pub sending: &'static str,
    /// Own position up to which everything was sent to the peer.
    pub sent: u64,
    /// Own position up to which the peer has everything durably.
    pub acknowledged: u64,
    /// Rows sent.
    pub sent_changes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Rows not sent because their tenant does not allow the peer's region.
    pub withheld: u64,
    /// Bytes of this region's log that are kept on disk for the peer.
    pub retained_bytes: u64,
    /// What PostgreSQL says of the peer's slot: `reserved`, `extended` (more than planned is kept), `unreserved` (about to
    /// be lost) or `lost` (the peer will copy everything); `unknown` until it was asked.
    pub slot: String,
}

/// The live numbers of one peer.
#[derive(Debug)]
pub(crate) struct Live {
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) state: &'static str,
    pub(crate) detail: Option<String>,
    pub(crate) applied: u64,
    pub(crate) applied_ms: u64,
    pub(crate) source_position: u64,
    pub(crate) changes: u64,
    pub(crate) transactions: u64,
    pub(crate) bytes: u64,
    pub(crate) conflicts: [u64; 4],
    pub(crate) merged: u64,
    pub(crate) parked: u64,
    pub(crate) connects: u64,
    pub(crate) sending: &'static str,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) sent_changes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) withheld: u64,
    pub(crate) retained_bytes: u64,
    pub(crate) slot: String,
    /// What the peer has applied of each source, by the source's time.
    pub(crate) seen_ms: BTreeMap<u16, u64>,
    rate: Rate,
}

/// Rows a second over a window of a few seconds.
#[derive(Debug)]
struct Rate {
    since: Instant,
    rows: u64,
    last: f64,
}

impl Rate {
    fn add(&mut self, rows: u64) {
        self.now();
        self.rows += rows;
    }

    fn now(&mut self) -> f64 {
        let elapsed = self.since.elapsed();
        if elapsed >= limits::RATE_WINDOW {
            self.last = self.rows as f64 / elapsed.as_secs_f64();
            self.rows = 0;
            self.since = Instant::now();
        }
        self.last
    }
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            numbers: Mutex::new(Numbers {
                state: "connecting",
                detail: None,
                applied: 0,
                applied_ms: 0,
                source_position: 0,
                changes: 0,
                transactions: 0,
                bytes: 0,
                conflicts: [0; 4],
                merged: 0,
                parked: 0,
                connects: 0,
                sending: "waiting",
                sent: 0,
                acknowledged: 0,
                sent_changes: 0,
                sent_bytes: 0,
                withheld: 0,
                retained_bytes: 0,
                slot: "unknown".to_owned(),
                seen_ms: BTreeMap::new(),
                rate: Rate { since: Instant::now(), rows: 0, last: 0.0 },
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn applied(&self, applied: &Applied, commit_ms: u64) {
        let mut numbers = self.lock();
        if applied.position > 0 {
            numbers.reached(applied.position, commit_ms);
            numbers.transactions += 1;
        }
        numbers.changes += applied.rows;
        numbers.merged += applied.merged;
        numbers.parked += applied.parked;
        for (total, new) in numbers.conflicts.iter_mut().zip(applied.conflicts) {
            *total += new;
        }
        numbers.rate.add(applied.rows);
    }

    pub(crate) fn status(&self, peer: &crate::Peer, now_ms: u64) -> PeerStatus {
        let mut n = self.lock();
        let caught_up = n.state == "streaming" && n.applied >= n.source_position;
        PeerStatus {
            region: peer.region.clone(),
            ordinal: peer.ordinal,
            url: peer.url.clone(),
            state: n.state,
            detail: n.detail.clone(),
            applied: n.applied,
            source_position: n.source_position,
            lag_ms: if caught_up { 0 } else { now_ms.saturating_sub(n.applied_ms) },
            lag_bytes: n.source_position.saturating_sub(n.applied),
            changes: n.changes,
            transactions: n.transactions,
            bytes: n.bytes,
            throughput: n.rate.now(),
            conflicts: Class::ALL.iter().map(|class| class.name()).zip(n.conflicts).collect(),
            merged: n.merged,
            parked: n.parked,
            connects: n.connects,
            sending: n.sending,
            sent: n.sent,
            acknowledged: n.acknowledged,
            sent_changes: n.sent_changes,
            sent_bytes: n.sent_bytes,
            withheld: n.withheld,
            retained_bytes: n.retained_bytes,
            slot: n.slot.clone(),
        }
    }
}

impl Numbers {
    /// Everything up to a position of the peer, at a time of the peer, is applied.
    pub(crate) fn reached(&mut self, position: u64, at_ms: u64) {
        self.applied = position;
        self.applied_ms = self.applied_ms.max(at_ms);
        self.source_position = self.source_position.max(position);
    }
}
