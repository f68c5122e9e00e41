//! What the edge keeps in the key-value store beside the cache: last good bundles with their tickets, and hostnames.

use std::collections::BTreeMap;

use meridian_engine::ruleset::Target;
use serde::{Deserialize, Serialize};

/// A bundle as an origin gave it, with the ticket that makes it acceptable again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBundle {
    /// Ticket.
    pub ticket: String,
    /// Bytes of the bundle.
    pub bytes: Vec<u8>,
}

impl StoredBundle {
    /// Key of the bundle of a target.
    #[must_use]
    pub fn key(target: &Target) -> String {
        format!("bundle/{target}")
    }

    /// As bytes: the length of the ticket, the ticket, the bundle.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let length = u32::try_from(self.ticket.len()).ok()?;
        let mut bytes = Vec::with_capacity(4 + self.ticket.len() + self.bytes.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(self.ticket.as_bytes());
        bytes.extend_from_slice(&self.bytes);
        Some(bytes)
    }

    /// From bytes; `None` where they are something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (ticket, bundle) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self { ticket: String::from_utf8(ticket.to_vec()).ok()?, bytes: bundle.to_vec() })
    }
}

/// The newest sequence of targets, as an origin told an instance of this edge not long ago: it spares the next instance
/// the question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Sequence by target.
    pub sequences: BTreeMap<String, u64>,
}

impl Heads {
    /// Key of the record.
    pub const KEY: &str = "heads";

    /// The newest sequence of a target, if it was known less than `age_ms_max` ago.
    #[must_use]
    pub fn newest(&self, target: &Target, now_ms: u64, age_ms_max: u64) -> Option<u64> {
        let young = now_ms.saturating_sub(self.at_ms) < age_ms_max;
        self.sequences.get(&target.to_string()).copied().filter(|_| young)
    }
}

/// Whose a hostname is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHost {
    /// Slug of the tenant; `None` where nobody has claimed it.
    pub tenant: Option<String>,
    /// When an origin said so, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl StoredHost {
    /// Key of a hostname.
    #[must_use]
    pub fn key(host: &str) -> String {
        format!("host/{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let bundle = StoredBundle { ticket: "a.b.c".to_owned(), bytes: b"{}".to_vec() };
        assert_eq!(StoredBundle::decode(&bundle.encode().unwrap()), Some(bundle));
        for garbage in [&b""[..], b"abc", &[9, 0, 0, 0, 1], &[1, 0, 0, 0, 0xff, 1]] {
            assert_eq!(StoredBundle::decode(garbage), None);
        }
    }

    #[test]
    fn heads_are_believed_for_a_while() {
        let heads = Heads { at_ms: 1_000, sequences: [("platform".to_owned(), 3)].into() };
        assert_eq!(heads.newest(&Target::Platform, 1_999, 1_000), Some(3));
        assert_eq!(heads.newest(&Target::Platform, 2_000, 1_000), None);
        assert_eq!(heads.newest(&Target::Tenant("acme".to_owned()), 1_000, 1_000), None);
    }

    #[test]
    fn keys_tell_targets_apart() {
        let acme = Target::Tenant("acme".to_owned());
        assert_eq!(StoredBundle::key(&acme), "bundle/tenant:acme");
        assert_eq!(StoredBundle::key(&Target::Platform), "bundle/platform");
        assert_eq!(StoredHost::key("acme.localhost"), "host/acme.localhost");
    }
}
