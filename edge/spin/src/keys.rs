//! Key sets of issuers: instances of an edge tell one another through the key-value store what they fetched, so that it
//! is the edge that asks an issuer, and not each of its instances.

use std::time::Duration;

use meridian_engine::limits::{JWKS_BYTES_MAX, KEY_FETCH_LOST_MS};
use meridian_engine::policy::jwt::{SharedKeys, SharedTurn};
use meridian_engine::step::{FetchFault, FetchKeys, FetchedKeys};
use spin_sdk::time::sleep;

use crate::instance::{Memory, now_ms};
use crate::limits::KEYS_PAUSE_MS;
use crate::message::{Content, Outgoing, SendFault, send};
use crate::stored::StoredKeys;

/// What another instance has fetched, or else what this one does. Where the store can't be had it is always this one.
pub async fn fetch(memory: &Memory, ask: &FetchKeys) -> FetchedKeys {
    let key = StoredKeys::key(ask);
    for _ in 0..=KEY_FETCH_LOST_MS / KEYS_PAUSE_MS {
        let stored = memory.read(&key).await.and_then(|bytes| StoredKeys::decode(&bytes));
        let shared = stored.unwrap_or_default();
        match shared.turn(ask, now_ms()) {
            SharedTurn::Take => return FetchedKeys::Shared(shared),
            SharedTurn::Wait => sleep(Duration::from_millis(KEYS_PAUSE_MS)).await,
            SharedTurn::Fetch => return fetch_for_all(memory, ask, &key, shared).await,
        }
    }
    FetchedKeys::Answer(Err(FetchFault::Timeout))
}

async fn fetch_for_all(memory: &Memory, ask: &FetchKeys, key: &str, shared: SharedKeys) -> FetchedKeys {
    let shared = shared.asked(ask, now_ms());
    keep(memory, key, &shared).await;
    let answer = get(ask).await;
    let shared = shared.answered(ask, &answer, now_ms());
    keep(memory, key, &shared).await;
    answer.into()
}

async fn keep(memory: &Memory, key: &str, shared: &SharedKeys) {
    if let Some(bytes) = StoredKeys::encode(shared) {
        memory.write(key, bytes).await;
    }
}

async fn get(ask: &FetchKeys) -> Result<Vec<u8>, FetchFault> {
    let fault = |fault| match fault {
        SendFault::Timeout => FetchFault::Timeout,
        SendFault::TooLarge(_) => FetchFault::TooLarge,
        SendFault::Connect(_) | SendFault::Denied | SendFault::Broken(_) | SendFault::Body(_) => {
            FetchFault::Unreachable
        }
    };
    let outgoing = Outgoing {
        method: "GET",
        url: &ask.url,
        fields: vec![("accept".to_owned(), b"application/jwk-set+json, application/json".to_vec())],
        content: Content::Empty,
        length: None,
        timeout_ms: ask.timeout_ms,
        connect_timeout_ms: ask.timeout_ms,
        body_timeout_ms: None,
    };
    let incoming = send(outgoing).await.map_err(fault)?;
    if incoming.status != 200 {
        return Err(FetchFault::Status(incoming.status));
    }
    incoming.bytes(JWKS_BYTES_MAX).await.map_err(fault)
}
