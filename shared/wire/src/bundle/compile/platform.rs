//! The platform: regions, and services that tenants may use.

use std::sync::Arc;

use meridian_engine::ruleset::{Platform, Region, RegionState, Version};

use super::{Body, Compiler, Document, of_kind};
use crate::document::RegionStateSpec;
use crate::limits::ORIGIN_URLS_MAX;

impl Compiler {
    pub(super) fn platform(&mut self, documents: &[Document], version: Version) -> Option<Platform> {
        let mut regions: Vec<Region> = Vec::new();
        for (at, document, spec) in of_kind!(documents, Region) {
            self.document = at;
            if spec.ordinal == 0 {
                self.flaw("spec.ordinal", 0, "a number from 1");
            }
            if let Some(other) = regions.iter().find(|region| region.ordinal == spec.ordinal) {
                let expected = format!("a number of its own; region {:?} has it too", other.id);
                self.flaw("spec.ordinal", spec.ordinal, expected);
            }
            let (latitude, longitude) = (spec.coordinates.latitude, spec.coordinates.longitude);
            if !(-90.0..=90.0).contains(&latitude) {
                self.flaw("spec.coordinates.latitude", latitude, "degrees from -90 to 90");
            }
            if !(-180.0..=180.0).contains(&longitude) {
                self.flaw("spec.coordinates.longitude", longitude, "degrees from -180 to 180");
            }
            let origins = self.origins(&spec.origins);
            if let Some(check) = &spec.health_check {
                self.region_check(check);
            }
            regions.push(Region {
                id: Arc::from(document.metadata.name.as_str()),
                ordinal: spec.ordinal,
                latitude,
                longitude,
                origins,
                weight: spec.weight,
                state: match spec.state {
                    RegionStateSpec::Active => RegionState::Active,
                    RegionStateSpec::Draining => RegionState::Draining,
                    RegionStateSpec::Down => RegionState::Down,
                },
            });
        }
        if regions.is_empty() {
            self.document = 0;
            self.flaw("documents", "no Region", "at least one Region");
            return None;
        }
        regions.sort_by(|a, b| a.id.cmp(&b.id));
        let upstreams = self.shared_upstreams(documents, &regions);
        Some(Platform { version, regions, upstreams })
    }

    fn origins(&mut self, urls: &[String]) -> Vec<Arc<str>> {
        if !(1..=ORIGIN_URLS_MAX).contains(&urls.len()) {
            let expected = format!("1 to {ORIGIN_URLS_MAX} URLs (ORIGIN_URLS_MAX)");
            self.flaw("spec.origins", format_args!("{} URLs", urls.len()), expected);
        }
        let urls = urls.iter().enumerate().take(ORIGIN_URLS_MAX);
        let bases: Vec<String> =
            urls.map(|(at, url)| self.base_url(url, &format!("spec.origins[{at}]"))).collect();
        self.unique(&bases, "spec.origins");
        bases.into_iter().map(Arc::from).collect()
    }
}
