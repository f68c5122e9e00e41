//! The cache of the data centre, by the Cache API: the body as it is, the rest in one header field.

use meridian_engine::headers::Headers;
use meridian_engine::limits::CACHE_BODY_BYTES_MAX;
use meridian_engine::node::Fetched;
use meridian_engine::step::{BODY_BYTES_UNKNOWN, CacheKey, Entry};
use serde::{Deserialize, Serialize};
use worker::console_warn;
use worker::wasm_bindgen::JsValue;

use crate::host;
use crate::limits::CACHE_CODED_BYTES_MAX;

/// Head of an entry, as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    status: u16,
    headers: Vec<(String, String)>,
    meta: String,
}

/// The entry of a key with the stream of its body.
pub async fn look_up(key: &CacheKey) -> Option<(Entry, JsValue)> {
    let found = host::wait(host::look_up(&key.0)).await;
    let found = found.inspect_err(|error| console_warn!("cache: {}", host::text_of(error))).ok()?;
    if found.is_undefined() {
        return None;
    }
    let head = host::head_of(&found);
    let (length, entry) = head.split_once('\n')?;
    let stored: Stored = serde_json::from_str(entry).ok()?;
    let entry = Entry {
        status: stored.status,
        headers: stored.headers.into_iter().collect(),
        meta: stored.meta,
        body_bytes: length.parse().unwrap_or(BODY_BYTES_UNKNOWN),
    };
    Some((entry, host::body_of(&found)))
}

/// Stores an entry with a body, unless that breaks off or is too large, or the cache does not take it.
pub async fn store(key: &CacheKey, entry: &Entry, keep_ms: u64, body: &JsValue) -> Fetched {
    let stored = Stored { status: entry.status, headers: owned(&entry.headers), meta: entry.meta.clone() };
    let entry_text = ascii(&serde_json::to_string(&stored).unwrap_or_default());
    let encoding = entry.headers.get("content-encoding").unwrap_or_default();
    let keep_seconds = keep_ms.div_ceil(1_000) as f64;
    let bytes_max = if encoding.is_empty() { CACHE_BODY_BYTES_MAX } else { CACHE_CODED_BYTES_MAX };
    let storing = host::store(&key.0, &entry_text, encoding, keep_seconds, body, bytes_max as f64);
    match host::wait(storing).await {
        Ok(stored) if stored.is_truthy() => Fetched::Stored,
        Ok(_) => Fetched::NotForOthers,
        Err(error) => {
            console_warn!("not cached: {}", host::text_of(&error));
            Fetched::Lost
        }
    }
}

/// Forgets entries.
pub async fn forget(keys: &[CacheKey]) {
    for key in keys {
        if let Err(error) = host::wait(host::forget(&key.0)).await {
            console_warn!("not forgotten: {}", host::text_of(&error));
        }
    }
}

fn owned(headers: &Headers) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same JSON with nothing but ASCII, for a header field.
fn ascii(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for unit in json.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => text.push(byte.into()),
            _ => {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_a_header_field() {
        let stored = Stored {
            status: 200,
            headers: vec![("x-name".into(), "Zoë 🦀\t\"q\"".into())],
            meta: "m\n".into(),
        };
        let text = ascii(&serde_json::to_string(&stored).unwrap());
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text}");
        let read: Stored = serde_json::from_str(&text).unwrap();
        assert_eq!((read.headers, read.meta), (stored.headers, stored.meta));
    }
}
