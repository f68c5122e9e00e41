//! What a region said of its unhealthy upstreams, kept so that an edge is told of its own tenants' without a look at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_wire::limits::SYNC_UNHEALTHY_MAX;

/// Unhealthy upstreams as `tenant/name`, by tenant. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Unhealthy(Arc<BTreeMap<String, Vec<String>>>);

impl Unhealthy {
    /// Of upstreams as `tenant/name`; what is none is left out.
    pub(super) fn of(told: Vec<String>) -> Self {
        let mut by_tenant: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for upstream in told {
            let tenant = upstream.split_once('/').map(|(tenant, _)| tenant.to_owned());
            if let Some(tenant) = tenant {
                by_tenant.entry(tenant).or_default().push(upstream);
            }
        }
        Self(Arc::new(by_tenant))
    }

    /// Those of these tenants, at most [`SYNC_UNHEALTHY_MAX`]; others' take none of their places.
    pub(super) fn of_tenants(&self, tenants: &BTreeSet<&str>) -> Vec<String> {
        let theirs = tenants.iter().filter_map(|slug| self.0.get(*slug)).flatten();
        theirs.take(SYNC_UNHEALTHY_MAX).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_hears_of_the_upstreams_of_its_tenants() {
        let told = ["acme/a", "odd", "acme-2/a", "globex/b"].map(str::to_owned).to_vec();
        let unhealthy = Unhealthy::of(told);
        assert_eq!(unhealthy.of_tenants(&BTreeSet::from(["acme", "globex"])), ["acme/a", "globex/b"]);
        assert!(unhealthy.of_tenants(&BTreeSet::from(["odd", "gone"])).is_empty());
        let many = (0..=SYNC_UNHEALTHY_MAX).map(|number| format!("acme/{number:04}"));
        let many = Unhealthy::of(many.chain(["globex/b".to_owned()]).collect());
        assert_eq!(many.of_tenants(&BTreeSet::from(["globex"])), ["globex/b"]);
        assert_eq!(many.of_tenants(&BTreeSet::from(["acme"])).len(), SYNC_UNHEALTHY_MAX);
    }
}
