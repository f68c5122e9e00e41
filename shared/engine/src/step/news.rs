//! What an origin is asked for news, and what it says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ruleset::{RegionId, Target};

/// A question to an origin: what changed since?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAsk {
    /// Targets in memory with the sequence that each has.
    pub targets: Vec<(Target, u64)>,
    /// How far the purge journal of each region has been read.
    pub purge_cursor: Vec<(RegionId, u64)>,
    /// Addresses whose names it would like to know; at most [`NAMES_ASKED_MAX`](crate::limits::NAMES_ASKED_MAX).
    pub addresses: Vec<IpAddr>,
}

/// The name of an address in DNS, as far as the name has the address too (forward-confirmed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressName {
    /// The address.
    pub address: IpAddr,
    /// The name; `None` where none is confirmed.
    pub name: Option<String>,
    /// How long that may be believed.
    pub keep_ms: u64,
}

/// An origin's answer to a [`SyncAsk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncNews {
    /// Newest sequence of each target asked about.
    pub heads: Vec<(Target, u64)>,
    /// New entries of the purge journal, oldest first.
    pub purges: Vec<Purge>,
    /// How far the journal has been read now.
    pub purge_cursor: Vec<(RegionId, u64)>,
    /// The journal no longer reaches back to the cursor: entries stored before `now_ms` are stale.
    pub reset: bool,
    /// When the origin answered, its clock.
    pub now_ms: u64,
    /// What the origin knows of every region.
    pub regions: Vec<RegionNews>,
    /// Names that were asked for, as far as they are known by now.
    pub names: Vec<AddressName>,
}

/// One entry of the purge journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Tenant whose cache is meant; `*` is everybody's, and then everything of it, whatever the tag.
    pub tenant: String,
    /// Tag that went stale; `*` is all of them.
    pub tag: String,
    /// Ordinal of the region whose change did it; 0 for a purge by hand.
    pub source: u16,
    /// Commit position of that change in its region; 0 for a purge by hand.
    pub position: u64,
    /// When it was written to the journal.
    pub at_ms: u64,
    /// What went stale may still be of use while it is fetched anew or its origin fails (RFC 5861). Only purges by hand
    /// are soft: the time alone decides what they reach.
    pub soft: bool,
}

/// What an origin knows of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionNews {
    /// The region.
    pub id: RegionId,
    /// Its ordinal in stamps and positions.
    pub ordinal: u16,
    /// Whether its health check passes.
    pub healthy: bool,
    /// Position applied there of each source, by the source's ordinal.
    pub applied: Vec<(u16, u64)>,
    /// Tenants' upstreams in the region whose health check fails, as `tenant/name`.
    pub unhealthy: BTreeSet<String>,
}
