//! A record as clients see it, and its version.

use std::fmt;
use std::str::FromStr;

use meridian_replica::{Region, Stamp};
use serde_json::{Map, Value};
use sqlx::types::Json;
use uuid::Uuid;

/// One record as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id, a UUIDv7 when the origin made it.
    pub id: Uuid,
    /// Its fields, merging ones with their values.
    pub fields: Map<String, Value>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// When it was last written, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// Its version, for entity tags and optimistic concurrency.
    pub version: Version,
}

/// Identifies the bytes of a record in every region: its stamp, and a digest of its merging fields' states, which
/// can take in another region's additions without a new stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    time: u64,
    region: u16,
    merge: u64,
}

pub(crate) type Row = (Uuid, Json<Map<String, Value>>, Value, i64, i64, i64, i16);

impl Record {
    pub(crate) fn from_row(
        (id, Json(fields), merge, created_at_ms, updated_at_ms, time, region): Row,
    ) -> Self {
        let version = Version::new(Stamp::new(time as u64, Region(region as u16)), &merge);
        Self { id, fields, created_at_ms, updated_at_ms, version }
    }

    /// The record as flat JSON: fields beside `id`, `created_at` and `updated_at` (RFC 3339, milliseconds, UTC).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::with_capacity(self.fields.len() + 3);
        object.insert("id".into(), Value::from(self.id.to_string()));
        object.extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        object.insert("created_at".into(), Value::from(rfc3339(self.created_at_ms)));
        object.insert("updated_at".into(), Value::from(rfc3339(self.updated_at_ms)));
        Value::Object(object)
    }
}

impl Version {
    pub(crate) fn new(stamp: Stamp, merge: &Value) -> Self {
        // FNV-1a over the canonical text: the version must only differ where the state does, not resist forgery.
        let merge = match merge {
            Value::Object(states) if states.is_empty() => 0,
            states => states.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            }),
        };
        Self { time: stamp.time(), region: stamp.region().0, merge }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.time, self.region)?;
        if self.merge == 0 { Ok(()) } else { write!(f, ".{:x}", self.merge) }
    }
}

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a record version")]
pub struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let hex = |part: &str| u64::from_str_radix(part, 16).map_err(|_| InvalidVersion);
        let mut parts = text.split('.');
        let time = hex(parts.next().unwrap_or_default())?;
        let region = parts.next().and_then(|part| part.parse().ok()).ok_or(InvalidVersion)?;
        let merge = parts.next().map_or(Ok(0), hex)?;
        if parts.next().is_some() { Err(InvalidVersion) } else { Ok(Self { time, region, merge }) }
    }
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC (the proleptic Gregorian calendar, by Howard Hinnant's
/// `civil_from_days`).
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_rfc3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_795_159_818_007, "2026-11-20T07:30:18.007Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn versions_round_trip_and_tell_states_apart() {
        let stamp = Stamp::new(117_309_440, Region(2));
        let plain = Version::new(stamp, &json!({}));
        let merged = Version::new(stamp, &json!({"stock": {"t": "c"}}));
        assert_ne!(plain, merged);
        for version in [plain, merged] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for bad in ["", "1", "x.1", "1.x", "1.1.1.1", "1.99999"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
