//! What all requests of an origin share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meridian_cdc::Replication;
use meridian_store::{Fault, Store};
use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::cache::Answers;
use crate::checks::Checks;
use crate::config::Config;
use crate::context::Replays;
use crate::control::auth::Operators;
use crate::edge::authority::Authority;
use crate::edge::journal::Journal;
use crate::edge::names::Names;
use crate::edge::peers::Peers;
use crate::edge::regions::RegionStates;
use crate::limits::{TENANT_AGE_MAX, TENANTS_REMEMBERED_MAX};
use crate::metrics::Metrics;
use crate::traces::Traces;

/// What all requests share.
pub struct Origin {
    /// What the origin was told at its start.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// The change path.
    pub replication: Replication,
    /// Answers to reads.
    pub answers: Arc<Answers>,
    /// Contexts that were used.
    pub replays: Replays,
    /// Where tenants' data may be.
    pub residences: Residences,
    /// Control tokens seen lately.
    pub operators: Operators,
    /// What the platform's documents say of the regions.
    pub region_states: RegionStates,
    /// Counts of limits.
    pub authority: Authority,
    /// Events on their way to the database.
    pub journal: Journal,
    /// Names of addresses.
    pub names: Names,
    /// Questions of servers in front of edges, so many at once.
    pub tls_asks: Semaphore,
    /// The other regions.
    pub peers: Peers,
    /// Health of tenants' upstreams in this region.
    pub checks: Checks,
    /// Spans on their way to a collector.
    pub traces: Traces,
    /// Numbers.
    pub metrics: Metrics,
    /// Whether it is going down: it is no longer ready, and its answers close their connections.
    pub stopping: AtomicBool,
}

impl Origin {
    /// Ids of all regions that this origin knows, itself among them, in alphabetical order.
    #[must_use]
    pub fn regions(&self) -> Vec<String> {
        let mut regions: Vec<_> = self.config.regions().map(|(_, region)| region.to_owned()).collect();
        regions.sort_unstable();
        regions
    }
}

/// Whether a tenant's data may be in this region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// It may.
    Here,
    /// Only elsewhere.
    Elsewhere,
    /// The tenant, or one above it, is suspended.
    Suspended,
    /// There is no such tenant.
    Unknown,
}

/// What is known of tenants, by slug, each for a short time.
pub type Residences = Cache<String, Residence>;

/// An empty memory of tenants.
#[must_use]
pub fn residences() -> Residences {
    Cache::builder().max_capacity(TENANTS_REMEMBERED_MAX).time_to_live(TENANT_AGE_MAX).build()
}

/// Whether the origin can serve: it is not going down, its database answers and has the schema that this program knows.
///
/// # Errors
/// Says what is missing.
pub async fn ready(origin: &Origin) -> Result<(), NotReady> {
    if origin.stopping.load(Ordering::SeqCst) {
        return Err(NotReady::Stopping);
    }
    Ok(origin.store.ready().await?)
}

/// Why an origin can't serve.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It is going down.
    #[error("the origin is going down")]
    Stopping,
    /// Its database is away, or not of this version.
    #[error(transparent)]
    Store(#[from] Fault),
}
