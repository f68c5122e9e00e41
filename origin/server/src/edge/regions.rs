//! What an edge is told of the regions: what their documents say, whether they are ready, how far they have come.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_engine::ruleset::{Platform, RegionState, Target};
use meridian_store::{Access, Fault, release};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::sync::RegionStatus;
use moka::future::Cache;

use crate::consistency::applied;
use crate::limits::TENANT_AGE_MAX;
use crate::state::Origin;

/// States of the regions by their documents, looked up at most once a second.
pub struct RegionStates(Cache<(), Arc<BTreeMap<String, &'static str>>>);

impl RegionStates {
    /// Not yet looked up.
    #[must_use]
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(1).time_to_live(TENANT_AGE_MAX).build())
    }
}

impl Default for RegionStates {
    fn default() -> Self {
        Self::new()
    }
}

/// This region first, then the others as configured.
///
/// # Errors
/// A fault of the database.
pub async fn status(origin: &Arc<Origin>) -> Result<Vec<RegionStatus>, Arc<Fault>> {
    let states = origin.region_states.0.try_get_with((), look(origin)).await?;
    // A region without a document takes traffic: the platform's rules may come later than its origins.
    let state = |id: &str| states.get(id).copied().unwrap_or("active").to_owned();
    let own = &origin.config.identity;
    let mut regions = vec![RegionStatus {
        id: own.region.clone(),
        ordinal: own.region_ordinal,
        state: state(&own.region),
        healthy: true,
        applied: applied(origin),
    }];
    regions.extend(origin.peers.known().into_iter().map(|(peer, said)| RegionStatus {
        state: state(&peer.region),
        id: peer.region,
        ordinal: peer.ordinal,
        healthy: said.ready,
        applied: said.applied,
    }));
    Ok(regions)
}

async fn look(origin: &Origin) -> Result<Arc<BTreeMap<String, &'static str>>, Fault> {
    let mut scope = origin.store.begin(Access::Control).await?;
    let head = release::head(&mut scope, &Target::Platform.to_string()).await?;
    Ok(Arc::new(head.map(|(_, contents)| states(contents.bundle.as_bytes())).unwrap_or_default()))
}

fn states(bundle: &[u8]) -> BTreeMap<String, &'static str> {
    match Bundle::parse(bundle, &Target::Platform, 0) {
        Ok(Rules::Platform(Platform { regions, .. })) => {
            regions.into_iter().map(|region| (region.id.to_string(), word(region.state))).collect()
        }
        Ok(Rules::Tenant(_)) | Err(_) => BTreeMap::new(),
    }
}

fn word(state: RegionState) -> &'static str {
    match state {
        RegionState::Active => "active",
        RegionState::Draining => "draining",
        RegionState::Down => "down",
    }
}
