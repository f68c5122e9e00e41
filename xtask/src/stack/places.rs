//! The synthetic place database of development and tests, written from `infra/demo/places.yaml`.
//!
//! Its records have the shape of GeoLite2 City with the number of GeoLite2 ASN in the same record, so that an
//! operator's own database that has both takes its place by its path alone. All its networks are reserved for documentation or tests: no real address is
//! located by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mmdb_writer::Writer;
use serde::{Deserialize, Serialize};

use super::layout::REGIONS;
use crate::paths;

/// The places, as a person writes them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Places {
    places: Vec<Place>,
}

/// One place and the networks that are located there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    networks: Vec<ipnet::IpNet>,
    /// An address for trying it out.
    sample: std::net::IpAddr,
    country: String,
    continent: String,
    #[serde(default)]
    subdivision: Option<String>,
    city: String,
    latitude: f64,
    longitude: f64,
    time_zone: String,
    autonomous_system: u32,
    /// The nearest of the three regions, which the tests of steering expect.
    nearest: String,
}

/// A record of the database.
#[derive(Serialize)]
struct Record<'a> {
    autonomous_system_number: u32,
    city: Names<'a>,
    continent: Coded<'a>,
    country: Iso<'a>,
    location: Location<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subdivisions: Vec<Iso<'a>>,
}

#[derive(Serialize)]
struct Names<'a> {
    names: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Coded<'a> {
    code: &'a str,
}

#[derive(Serialize)]
struct Iso<'a> {
    iso_code: &'a str,
}

#[derive(Serialize)]
struct Location<'a> {
    latitude: f64,
    longitude: f64,
    time_zone: &'a str,
}

impl Places {
    /// Reads `infra/demo/places.yaml`.
    ///
    /// # Errors
    /// When it can't be read, or names a region that the local stack doesn't have.
    pub fn load() -> Result<Self> {
        let path = source();
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let places: Self = serde_saphyr::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        for place in &places.places {
            let (city, nearest) = (&place.city, &place.nearest);
            anyhow::ensure!(
                REGIONS.iter().any(|region| region.id == nearest),
                "{city}: unknown region {nearest}"
            );
            anyhow::ensure!(
                place.networks.iter().any(|network| network.contains(&place.sample)),
                "{city}: its sample {} is in none of its networks",
                place.sample
            );
        }
        Ok(places)
    }

    /// Writes the database.
    ///
    /// # Errors
    /// When a network is listed twice or the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut writer =
            Writer::builder("Meridian-Synthetic-City").description(&[("en", "Invented places")]).build();
        for place in &self.places {
            let record = place.record();
            for network in &place.networks {
                writer.insert(*network, &record).with_context(|| format!("{network} ({})", place.city))?;
            }
        }
        let bytes = writer.to_bytes()?;
        let part = path.with_extension("part");
        fs::write(&part, bytes).with_context(|| format!("could not write {}", part.display()))?;
        fs::rename(&part, path).with_context(|| format!("could not write {}", path.display()))
    }

    /// A client address for each place, and the region nearest to it.
    pub fn samples(&self) -> BTreeMap<String, String> {
        self.places.iter().map(|place| (place.sample.to_string(), place.nearest.clone())).collect()
    }
}

impl Place {
    fn record(&self) -> Record<'_> {
        Record {
            autonomous_system_number: self.autonomous_system,
            city: Names { names: BTreeMap::from([("en", self.city.as_str())]) },
            continent: Coded { code: &self.continent },
            country: Iso { iso_code: &self.country },
            location: Location {
                latitude: self.latitude,
                longitude: self.longitude,
                time_zone: &self.time_zone,
            },
            subdivisions: self.subdivision.iter().map(|code| Iso { iso_code: code }).collect(),
        }
    }
}

fn source() -> PathBuf {
    paths::root().join("infra/demo/places.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use maxminddb::geoip2;

    #[test]
    fn the_database_reads_back_as_a_city_database() {
        let places = Places::load().unwrap();
        let file = std::env::temp_dir().join(format!("meridian-places-{}.mmdb", std::process::id()));
        places.write(&file).unwrap();
        let reader = maxminddb::Reader::from_source(fs::read(&file).unwrap()).unwrap();
        fs::remove_file(&file).unwrap();
        for place in &places.places {
            let found = reader.lookup(place.sample).unwrap();
            let city: geoip2::City = found.decode().unwrap().unwrap();
            assert_eq!(city.city.names.english, Some(place.city.as_str()));
            assert_eq!(city.country.iso_code, Some(place.country.as_str()));
            assert_eq!(city.continent.code, Some(place.continent.as_str()));
            assert_eq!(city.location.latitude, Some(place.latitude));
            assert_eq!(city.location.time_zone, Some(place.time_zone.as_str()));
            let system: geoip2::Asn = found.decode().unwrap().unwrap();
            assert_eq!(system.autonomous_system_number, Some(place.autonomous_system));
        }
        assert!(!reader.lookup("127.0.0.1".parse().unwrap()).unwrap().has_data());
    }

    /// `nearest` is written by hand for people; the great circle has the last word.
    #[test]
    fn the_nearest_region_is_the_nearest_by_great_circle() {
        let regions = fs::read_to_string(paths::root().join("infra/demo/platform/regions.yaml")).unwrap();
        let regions: Vec<serde_json::Value> = serde_saphyr::from_multiple(&regions).unwrap();
        let positions: Vec<(&str, f64, f64)> = regions
            .iter()
            .map(|region| {
                let coordinates = &region["spec"]["coordinates"];
                let degrees = |name: &str| coordinates[name].as_f64().unwrap();
                (region["metadata"]["name"].as_str().unwrap(), degrees("latitude"), degrees("longitude"))
            })
            .collect();
        let places = Places::load().unwrap();
        for place in &places.places {
            let central_angle = |latitude: f64, longitude: f64| {
                let (a, b) = (place.latitude.to_radians(), latitude.to_radians());
                let delta = (place.longitude - longitude).to_radians();
                (a.sin() * b.sin() + a.cos() * b.cos() * delta.cos()).acos()
            };
            let nearest = positions
                .iter()
                .min_by(|a, b| central_angle(a.1, a.2).total_cmp(&central_angle(b.1, b.2)))
                .unwrap();
            assert_eq!(nearest.0, place.nearest, "{}", place.city);
        }
        for region in REGIONS {
            assert!(
                places.places.iter().any(|place| place.nearest == region.id),
                "{} has no place",
                region.id
            );
        }
    }
}
