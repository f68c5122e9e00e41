//! Cache entries as they lie in the key-value store: a length, the head in postcard, the body where it is small.

use meridian_engine::step::{CacheKey, Entry};
use serde::{Deserialize, Serialize};

use crate::limits::CACHE_ENTRY_BYTES_MAX;
use crate::place::{Occupant, Shelved};

/// A cache entry with its body, or where that lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// Key that it was stored under.
    pub key: CacheKey,
    /// Head and notes.
    pub entry: Entry,
    /// From when on it is of no use, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub stored_ms: u64,
    /// Body.
    pub body: Kept,
}

/// The body of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// With the entry.
    Here(Vec<u8>),
    /// In a place of its own.
    Shelved(Shelved),
}

impl Kept {
    /// Length of the body.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Here(body) => body.len() as u64,
            Self::Shelved(shelved) => shelved.bytes,
        }
    }
}

impl Cached {
    /// As one who is in a place.
    #[must_use]
    pub fn occupant(&self) -> Occupant {
        Occupant { until_ms: self.until_ms, used_ms: self.stored_ms }
    }
}

/// The head as it is stored; its texts are those of the bytes that it is read from.
#[derive(Serialize, Deserialize)]
struct StoredHead<'a> {
    key: &'a str,
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
    meta: &'a str,
    until_ms: u64,
    stored_ms: u64,
    shelved: Option<Shelved>,
}

/// An entry as bytes; `None` where it is larger than its place.
#[must_use]
pub fn encode(cached: &Cached) -> Option<Vec<u8>> {
    let head = postcard::to_allocvec(&StoredHead {
        key: &cached.key.0,
        status: cached.entry.status,
        headers: cached.entry.headers.iter().collect(),
        meta: &cached.entry.meta,
        until_ms: cached.until_ms,
        stored_ms: cached.stored_ms,
        shelved: match &cached.body {
            Kept::Here(_) => None,
            Kept::Shelved(shelved) => Some(*shelved),
        },
    })
    .ok()?;
    let body = match &cached.body {
        Kept::Here(body) => body.as_slice(),
        Kept::Shelved(_) => &[],
    };
    let length = u32::try_from(head.len()).ok()?;
    let bytes = [&length.to_le_bytes(), head.as_slice(), body].concat();
    Some(bytes).filter(|bytes| bytes.len() <= CACHE_ENTRY_BYTES_MAX)
}

/// The entry in bytes from the store; `None` where they hold none.
#[must_use]
pub fn decode(mut bytes: Vec<u8>) -> Option<Cached> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let head: StoredHead<'_> = postcard::from_bytes(rest.get(..length)?).ok()?;
    let StoredHead { key, status, headers, meta, until_ms, stored_ms, shelved } = head;
    let key = CacheKey(key.to_owned());
    let mut entry =
        Entry { status, headers: headers.into_iter().collect(), meta: meta.to_owned(), body_bytes: 0 };
    bytes.drain(..4 + length);
    let body = shelved.map_or_else(|| Kept::Here(bytes), Kept::Shelved);
    entry.body_bytes = body.bytes();
    Some(Cached { key, entry, until_ms, stored_ms, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{Place, Size};

    fn cached(body: Kept) -> Cached {
        Cached {
            key: CacheKey("acme GET /v1/orders".to_owned()),
            entry: Entry {
                status: 200,
                headers: [("content-type", "text/plain"), ("x", "é")].into_iter().collect(),
                meta: "notes".to_owned(),
                body_bytes: body.bytes(),
            },
            until_ms: 100,
            stored_ms: 50,
            body,
        }
    }

    #[test]
    fn what_was_stored_is_found() {
        let place = Place { size: Size::Large, number: 3 };
        let shelved = Kept::Shelved(Shelved { place, number: u64::MAX, bytes: 5_000_000 });
        let here = [b"".as_slice(), b"hello", &[0xff; 1000]].map(|body| Kept::Here(body.to_vec()));
        for body in here.into_iter().chain([shelved]) {
            let cached = cached(body);
            assert_eq!(decode(encode(&cached).unwrap()), Some(cached));
        }
    }

    #[test]
    fn garbage_is_not() {
        let bytes = encode(&cached(Kept::Here(b"hello".to_vec()))).unwrap();
        for garbage in [&b""[..], b"abc", &[0xff; 64], bytes.get(..40).unwrap()] {
            assert_eq!(decode(garbage.to_vec()), None);
        }
    }

    #[test]
    fn an_entry_is_no_larger_than_its_place() {
        let of = |bytes| encode(&cached(Kept::Here(vec![0; bytes])));
        let head = of(0).unwrap().len();
        assert!(of(CACHE_ENTRY_BYTES_MAX - head).is_some());
        assert!(of(CACHE_ENTRY_BYTES_MAX - head + 1).is_none());
    }
}
