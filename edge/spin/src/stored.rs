//! What the edge keeps in the key-value store beside the cache: last good bundles with their tickets, hostnames, and key
//! sets of issuers.

use std::collections::BTreeMap;

use meridian_engine::policy::jwt::SharedKeys;
use meridian_engine::ruleset::Target;
use meridian_engine::step::FetchKeys;
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

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        framed(&self.ticket, &self.bytes)
    }

    /// From bytes; `None` where they are something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ticket, bundle) = unframed(bytes)?;
        Some(Self { ticket: ticket.to_owned(), bytes: bundle.to_vec() })
    }
}

/// A text with the bytes that it is about: the length of the text, the text, the bytes.
fn framed(text: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(text.len()).ok()?;
    Some([&length.to_le_bytes(), text.as_bytes(), bytes].concat())
}

fn unframed(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, bytes) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((std::str::from_utf8(text).ok()?, bytes))
}

/// What came of the fetches of an issuer's key set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKeys {
    url: String,
    asked_ms: u64,
    answered_ms: u64,
    failures: u32,
    content_ms: u64,
}

impl StoredKeys {
    /// Key of what is asked for: of each issuer of each tenant there is one key set, and the metadata that say where it is.
    #[must_use]
    pub fn key(ask: &FetchKeys) -> String {
        let what = if ask.metadata_of.is_some() { "metadata" } else { "keys" };
        format!("{what}/{}/{}", ask.tenant, ask.issuer)
    }

    /// As bytes: the content comes last.
    #[must_use]
    pub fn encode(shared: &SharedKeys) -> Option<Vec<u8>> {
        let SharedKeys { url, asked_ms, answered_ms, failures, content_ms, content } = shared;
        let (asked_ms, answered_ms, content_ms) = (*asked_ms, *answered_ms, *content_ms);
        let head = Self { url: url.clone(), asked_ms, answered_ms, failures: *failures, content_ms };
        framed(&serde_json::to_string(&head).ok()?, content)
    }

    /// From bytes; `None` where they are something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<SharedKeys> {
        let (head, content) = unframed(bytes)?;
        let Self { url, asked_ms, answered_ms, failures, content_ms } = serde_json::from_str(head).ok()?;
        Some(SharedKeys { url, asked_ms, answered_ms, failures, content_ms, content: content.to_vec() })
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
    fn keys_are_read_as_they_were_written() {
        let shared = SharedKeys {
            url: "https://issuer.example/jwks".to_owned(),
            asked_ms: 1,
            answered_ms: 2,
            failures: 3,
            content_ms: 4,
            content: b"{}".to_vec(),
        };
        assert_eq!(StoredKeys::decode(&StoredKeys::encode(&shared).unwrap()), Some(shared));
        for garbage in [&b""[..], b"{}", &[2, 0, 0, 0, b'{', b'}']] {
            assert_eq!(StoredKeys::decode(garbage), None);
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
        let ask = |metadata_of: Option<&str>| FetchKeys {
            tenant: "acme".to_owned(),
            issuer: "main".to_owned(),
            url: String::new(),
            metadata_of: metadata_of.map(str::to_owned),
            timeout_ms: 0,
            known_ms: 0,
            stale_ms: 0,
        };
        assert_eq!(StoredKeys::key(&ask(None)), "keys/acme/main");
        assert_eq!(StoredKeys::key(&ask(Some("https://id.example"))), "metadata/acme/main");
    }
}
