//! Cache entries as they lie in the key-value store: a length, the head as JSON, the body.

use std::hash::{DefaultHasher, Hash, Hasher};

use meridian_engine::step::{CacheKey, Entry};
use serde::{Deserialize, Serialize};

use crate::limits::CACHE_PLACES;

/// A cache entry with its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// Key that it was stored under.
    pub key: CacheKey,
    /// Head and notes.
    pub entry: Entry,
    /// From when on it is of no use, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Body.
    pub body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    key: String,
    status: u16,
    headers: Vec<(String, String)>,
    meta: String,
    until_ms: u64,
}

/// Where in the key-value store an entry lies. Two keys may have the same place; the later one takes it.
#[must_use]
pub fn place_of(key: &CacheKey) -> String {
    // The hash only spreads keys: the key itself is in the entry and compared.
    let mut hasher = DefaultHasher::new();
    key.0.hash(&mut hasher);
    format!("cache/{}", hasher.finish() % u64::from(CACHE_PLACES))
}

/// An entry as bytes; `None` where it can't be put in words, which no entry of the engine's comes to.
#[must_use]
pub fn encode(cached: &Cached) -> Option<Vec<u8>> {
    let head = serde_json::to_vec(&StoredHead {
        key: cached.key.0.clone(),
        status: cached.entry.status,
        headers: cached
            .entry
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        meta: cached.entry.meta.clone(),
        until_ms: cached.until_ms,
    })
    .ok()?;
    let length = u32::try_from(head.len()).ok()?;
    let mut bytes = Vec::with_capacity(4 + head.len() + cached.body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&cached.body);
    Some(bytes)
}

/// The entry of this key in bytes from the store; `None` where they hold another one, or one that is of no use any more.
#[must_use]
pub fn decode(mut bytes: Vec<u8>, key: &CacheKey, now_ms: u64) -> Option<Cached> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let head: StoredHead = serde_json::from_slice(rest.get(..length)?).ok()?;
    if head.key != key.0 || head.until_ms <= now_ms {
        return None;
    }
    bytes.drain(..4 + length);
    let entry = Entry {
        status: head.status,
        headers: head.headers.into_iter().collect(),
        meta: head.meta,
        body_bytes: bytes.len() as u64,
    };
    Some(Cached { key: key.clone(), entry, until_ms: head.until_ms, body: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(body: &[u8]) -> Cached {
        Cached {
            key: CacheKey("acme GET /v1/orders".to_owned()),
            entry: Entry {
                status: 200,
                headers: [("content-type", "text/plain"), ("x", "é")].into_iter().collect(),
                meta: "notes".to_owned(),
                body_bytes: body.len() as u64,
            },
            until_ms: 100,
            body: body.to_vec(),
        }
    }

    #[test]
    fn what_was_stored_is_found() {
        for body in [b"".as_slice(), b"hello", &[0xff; 1000]] {
            let cached = cached(body);
            assert_eq!(decode(encode(&cached).unwrap(), &cached.key, 99), Some(cached));
        }
    }

    #[test]
    fn another_key_an_old_entry_and_garbage_are_not() {
        let stored = cached(b"hello");
        let bytes = encode(&stored).unwrap();
        assert_eq!(decode(bytes.clone(), &CacheKey("globex GET /v1/orders".to_owned()), 0), None);
        assert_eq!(decode(bytes.clone(), &stored.key, 100), None);
        for garbage in [&b""[..], b"abc", &[0xff; 64], bytes.get(..40).unwrap()] {
            assert_eq!(decode(garbage.to_vec(), &stored.key, 0), None);
        }
    }

    #[test]
    fn places_are_bounded_and_stay() {
        let key = CacheKey("k".to_owned());
        assert_eq!(place_of(&key), place_of(&key));
        let number: u32 = place_of(&key).strip_prefix("cache/").unwrap().parse().unwrap();
        assert!(number < CACHE_PLACES);
    }
}
