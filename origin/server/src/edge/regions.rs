//! What an edge is told of the regions: what their documents say, whether they are ready, how far they have come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_engine::ruleset::Target;
use meridian_store::{Access, Fault, release};
use meridian_wire::bundle::Bundle;
use meridian_wire::document::{Body, RegionSpec, RegionStateSpec};
use meridian_wire::sync::RegionStatus;
use moka::future::Cache;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::peers::Check;
use crate::consistency::applied;
use crate::limits::TENANT_AGE_MAX;
use crate::state::Origin;

/// What the documents of the regions say, by region, looked up at most once a second.
pub struct RegionStates(Cache<(), Arc<BTreeMap<String, Said>>>);

/// What the document of a region says that matters here.
struct Said {
    state: &'static str,
    check: Check,
    origins: Arc<[String]>,
}

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

/// This region first, then the others as configured. Of upstreams only those of `tenants` are told, which the edge has in
/// memory: the others' are none of its business yet.
///
/// # Errors
/// A fault of the database.
pub async fn status(origin: &Arc<Origin>, tenants: &BTreeSet<&str>) -> Result<Vec<RegionStatus>, Arc<Fault>> {
    let states = said(origin).await?;
    // A region without a document takes traffic: the platform's rules may come later than its origins.
    let state = |id: &str| states.get(id).map_or("active", |said| said.state).to_owned();
    let own = &origin.config.identity;
    let mut regions = vec![RegionStatus {
        id: own.region.clone(),
        ordinal: own.region_ordinal,
        state: state(&own.region),
        healthy: true,
        applied: applied(origin),
        unhealthy: origin.checks.unhealthy_of(tenants),
    }];
    regions.extend(origin.peers.known(tenants).into_iter().map(|(peer, said)| RegionStatus {
        state: state(&peer.region),
        id: peer.region,
        ordinal: peer.ordinal,
        healthy: said.ready,
        applied: said.applied,
        unhealthy: said.unhealthy,
    }));
    Ok(regions)
}

/// Has the other regions asked as the platform's rules say, until `stop` says so.
pub async fn follow(origin: Arc<Origin>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = keep_following(&origin) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn keep_following(origin: &Origin) {
    let mut clock = tokio::time::interval(TENANT_AGE_MAX);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        // Where the database is away, they are asked as before.
        if let Ok(regions) = said(origin).await {
            let asked = |said: &Said| (said.check, Arc::clone(&said.origins));
            let checks = regions.iter().map(|(region, said)| (region.clone(), asked(said)));
            origin.peers.obey(checks.collect());
        }
    }
}

async fn said(origin: &Origin) -> Result<Arc<BTreeMap<String, Said>>, Arc<Fault>> {
    origin.region_states.0.try_get_with((), look(origin)).await
}

async fn look(origin: &Origin) -> Result<Arc<BTreeMap<String, Said>>, Fault> {
    let mut scope = origin.store.begin(Access::Control).await?;
    let head = release::head(&mut scope, &Target::Platform.to_string()).await?;
    Ok(Arc::new(head.map(|(_, contents)| read(contents.bundle.as_bytes())).unwrap_or_default()))
}

fn read(bundle: &[u8]) -> BTreeMap<String, Said> {
    let documents = Bundle::read(bundle, &Target::Platform).map(|bundle| bundle.documents);
    let regions = documents.unwrap_or_default().into_iter().filter_map(|document| match document.body {
        Body::Region(spec) => Some((document.metadata.name, Said::from(&spec))),
        _ => None,
    });
    regions.collect()
}

impl From<&RegionSpec> for Said {
    fn from(spec: &RegionSpec) -> Self {
        let state = match spec.state {
            RegionStateSpec::Active => "active",
            RegionStateSpec::Draining => "draining",
            RegionStateSpec::Down => "down",
        };
        let check = spec.health_check.as_ref().map(Check::from).unwrap_or_default();
        Self { state, check, origins: spec.origins.as_slice().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_asked_as_their_documents_say() {
        let region = |name: &str, more: &str| {
            format!(
                r#"{{"kind":"Region","spec":{{"ordinal":1,"coordinates":{{"latitude":0,"longitude":0}},"origins":["https://a.example"]{more}}},
                    "metadata":{{"name":"{name}"}},"source":{{"file":"a","line":1}}}}"#
            )
        };
        let seldom = region("seldom", r#","state":"draining","healthCheck":{"interval":"1m","failures":3}"#);
        let bundle =
            format!(r#"{{"format":1,"target":"platform","documents":[{},{seldom}]}}"#, region("usual", ""));
        let said = read(bundle.as_bytes());
        assert_eq!((said["usual"].state, said["usual"].check), ("active", Check::default()));
        assert_eq!(*said["usual"].origins, ["https://a.example"]);
        assert_eq!(said["seldom"].state, "draining");
        assert_ne!(said["seldom"].check, Check::default());
        assert!(read(b"odd").is_empty());
    }
}
