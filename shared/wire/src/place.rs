//! Where an address is, from a database in MaxMind's format with the fields of its City databases (GeoIP2, GeoLite2, DB-IP's in
//! that form, or the project's own synthetic one). The autonomous system is the same record's: at its top, as in ASN
//! databases, or among its `traits`, as in GeoIP2 Enterprise.

use std::net::IpAddr;

use maxminddb::Reader;
use meridian_engine::facts::Place;
use serde::Deserialize;

/// A place database in memory.
pub struct Places(Reader<Vec<u8>>);

/// Bytes that are not a place database.
#[derive(Debug, thiserror::Error)]
#[error("not a place database in MaxMind's format: {0}")]
pub struct InvalidPlaces(#[from] maxminddb::MaxMindDbError);

impl Places {
    /// Opens the bytes of a database.
    ///
    /// # Errors
    /// Where they are not one.
    pub fn open(bytes: Vec<u8>) -> Result<Self, InvalidPlaces> {
        Ok(Self(Reader::from_source(bytes)?))
    }

    /// What the database knows of an address; an empty place where it knows nothing, or its entry is not readable.
    #[must_use]
    pub fn look_up(&self, address: IpAddr) -> Place {
        let found = self.0.lookup(address).and_then(|result| result.decode::<Record>());
        found.ok().flatten().map(Place::from).unwrap_or_default()
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Places").field(&self.0.metadata().database_type).finish()
    }
}

#[derive(Deserialize)]
struct Record {
    country: Option<Coded>,
    continent: Option<Continent>,
    subdivisions: Option<Vec<Coded>>,
    city: Option<City>,
    location: Option<Location>,
    autonomous_system_number: Option<u32>,
    traits: Option<Traits>,
}

#[derive(Deserialize)]
struct Traits {
    autonomous_system_number: Option<u32>,
}

#[derive(Deserialize)]
struct Coded {
    iso_code: Option<String>,
}

#[derive(Deserialize)]
struct Continent {
    code: Option<String>,
}

#[derive(Deserialize)]
struct City {
    names: Option<Names>,
}

#[derive(Deserialize)]
struct Names {
    en: Option<String>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
    time_zone: Option<String>,
}

impl From<Record> for Place {
    fn from(record: Record) -> Self {
        let coordinates = record.location.as_ref().and_then(|location| {
            let (latitude, longitude) = (location.latitude?, location.longitude?);
            let real = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
            real.then(|| geo_types::Point::new(longitude, latitude))
        });
        Self {
            country: record.country.and_then(|country| country.iso_code),
            continent: record.continent.and_then(|continent| continent.code),
            subdivision: record.subdivisions.and_then(|all| all.into_iter().next()?.iso_code),
            city: record.city.and_then(|city| city.names?.en),
            timezone: record.location.and_then(|location| location.time_zone),
            asn: record
                .autonomous_system_number
                .or(record.traits.and_then(|all| all.autonomous_system_number)),
            coordinates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_where_the_database_says() {
        let places = Places::open(include_bytes!("../tests/stored/places.mmdb").to_vec()).unwrap();
        let berlin = places.look_up("198.51.100.140".parse().unwrap());
        assert_eq!(berlin.city.as_deref(), Some("Berlin"));
        assert_eq!(berlin.country.as_deref(), Some("DE"));
        assert_eq!(berlin.coordinates, Some(geo_types::Point::new(13.41, 52.52)));
        assert_eq!(places.look_up("2001:db8:3::1".parse().unwrap()).asn, Some(64_504));
        assert_eq!(places.look_up("10.0.0.1".parse().unwrap()), Place::default());
    }

    #[test]
    fn the_autonomous_system_stands_at_the_top_or_among_the_traits() {
        let check = |record: &str, expect: Option<u32>| {
            let place = Place::from(serde_json::from_str::<Record>(record).unwrap());
            assert_eq!(place.asn, expect, "{record}");
        };
        check(r#"{"autonomous_system_number": 64500}"#, Some(64_500));
        check(r#"{"traits": {"autonomous_system_number": 64501, "is_anycast": true}}"#, Some(64_501));
        check(
            r#"{"autonomous_system_number": 64500, "traits": {"autonomous_system_number": 64501}}"#,
            Some(64_500),
        );
        check(r#"{"country": {"iso_code": "DE"}, "traits": {}}"#, None);
    }

    #[test]
    fn nothing_but_a_database_is_opened() {
        assert!(Places::open(Vec::new()).is_err());
        assert!(Places::open(vec![0; 4096]).is_err());
    }
}
