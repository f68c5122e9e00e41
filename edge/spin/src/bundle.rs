//! Rules on their way into the engine: from the key-value store, where the last good ones are, or from an origin.
//!
//! An instance lives for few requests, so what the store has is used whenever it is known to be the newest: by what an
//! origin told this instance, or another one less than a second ago. Otherwise an origin is asked, and what the store has
//! serves if none answers or what comes is not acceptable.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::future::join_all;
use meridian_engine::ruleset::Target;
use meridian_engine::step::{LoadKey, Loaded};
use meridian_wire::bundle::Rules;
use meridian_wire::edge::{Offer, Search};
use meridian_wire::limits::BUNDLE_BYTES_MAX;
use meridian_wire::signature::TICKET_HEADER;
use meridian_wire::sync::HostReply;

use crate::instance::{Memory, now_ms};
use crate::limits::{ANSWER_BYTES_MAX, HEADS_FRESH_MS, HOST_FRESH_MS, LOAD_TIMEOUT_MS};
use crate::message::SendFault;
use crate::origin::{self, Answer, Call};
use crate::stored::{Heads, StoredBundle, StoredHost};

/// Loads everything that is asked for, at the same time.
pub async fn load(memory: &Memory, keys: &[LoadKey]) -> Vec<Loaded> {
    join_all(keys.iter().map(|key| async move {
        match key {
            LoadKey::Host(host) => load_host(memory, host).await,
            LoadKey::StoredHost(host) => stored_host(memory, &StoredHost::key(host))
                .await
                .map_or(Loaded::Missing, |stored| Loaded::Host(stored.tenant)),
            LoadKey::Target(target) => load_target(memory, target).await,
        }
    }))
    .await
}

async fn load_host(memory: &Memory, host: &str) -> Loaded {
    let key = StoredHost::key(host);
    let stored = stored_host(memory, &key).await;
    let fresh = |stored: &StoredHost| now_ms().saturating_sub(stored.at_ms) < HOST_FRESH_MS;
    match stored {
        Some(StoredHost { tenant: Some(tenant), at_ms }) => {
            let stored = StoredHost { tenant: Some(tenant.clone()), at_ms };
            if fresh(&stored) {
                return Loaded::Host(Some(tenant));
            }
            match ask_host(memory, host).await {
                Ok(found) => keep_host(memory, &key, found).await,
                Err(_) => Loaded::Host(Some(tenant)),
            }
        }
        _ => match ask_host(memory, host).await {
            Ok(None) => Loaded::Host(None),
            Ok(found) => keep_host(memory, &key, found).await,
            Err(why) => Loaded::Unavailable(why),
        },
    }
}

async fn stored_host(memory: &Memory, key: &str) -> Option<StoredHost> {
    memory.read(key).await.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

async fn ask_host(memory: &Memory, host: &str) -> Result<Option<String>, String> {
    let path = format!("/edge/v1/hosts/{host}");
    let call = get(&path, None, ANSWER_BYTES_MAX);
    let answer = origin::call(memory, call).await.map_err(|fault| fault.to_string())?;
    match answer.status {
        200 => serde_json::from_slice::<HostReply>(&answer.body)
            .map(|reply| Some(reply.tenant))
            .map_err(|error| error.to_string()),
        404 => Ok(None),
        status => Err(format!("the origin answered with status {status}")),
    }
}

/// Keeps whose a hostname is. A host that nobody has claimed is only kept in the place of a tenant's: whoever asks for
/// random hosts must not fill the store.
async fn keep_host(memory: &Memory, key: &str, tenant: Option<String>) -> Loaded {
    let stored = StoredHost { tenant, at_ms: now_ms() };
    match (&stored.tenant, serde_json::to_vec(&stored)) {
        (Some(_), Ok(bytes)) => {
            memory.write(key, bytes).await;
        }
        _ => memory.delete(key).await,
    }
    Loaded::Host(stored.tenant)
}

/// The best rules of a target: the store's where they are known to be the newest, else an origin's, else the store's.
async fn load_target(memory: &Memory, target: &Target) -> Loaded {
    let in_force = memory.node.borrow().version(target).cloned();
    let newest = newest(memory, target).await;
    let mut search = Search::new(target, &memory.config.bundle_keys, in_force, newest);
    let found = find(memory, target, newest, &mut search).await;
    let (nothing, faults) = search.end();
    for fault in faults {
        memory.fault(fault);
    }
    match found {
        Some(Rules::Platform(platform)) => Loaded::Platform(Arc::new(platform)),
        Some(Rules::Tenant(ruleset)) => Loaded::Ruleset(Arc::from(ruleset)),
        None => nothing,
    }
}

async fn find(
    memory: &Memory,
    target: &Target,
    newest: Option<u64>,
    search: &mut Search<'_>,
) -> Option<Rules> {
    let stored = memory.read(&StoredBundle::key(target)).await;
    let stored = stored.and_then(|bytes| StoredBundle::decode(&bytes));
    let stored = stored.and_then(|bundle| search.stored(&bundle.ticket, &bundle.bytes, now_ms()));
    if let Some(rules) = &stored
        && newest.is_some_and(|newest| newest <= rules.version().sequence)
    {
        return stored;
    }
    fetch(memory, target, search).await.or(stored)
}

/// The newest sequence of a target, as far as it is known without asking.
async fn newest(memory: &Memory, target: &Target) -> Option<u64> {
    let here = memory.newest.borrow().get(target).copied();
    let heads = memory.read(Heads::KEY).await.and_then(|bytes| serde_json::from_slice::<Heads>(&bytes).ok());
    let elsewhere = heads.and_then(|heads| heads.newest(target, now_ms(), HEADS_FRESH_MS));
    here.max(elsewhere)
}

/// Asks the origins, one after the other, until one gives rules that are good, or says that there are none newer. What
/// is good is kept.
async fn fetch(memory: &Memory, target: &Target, search: &mut Search<'_>) -> Option<Rules> {
    let path = format!("/edge/v1/bundles/{target}");
    let at_hand = search.have().map(|version| version.hash.clone());
    let call = get(&path, at_hand.as_deref(), BUNDLE_BYTES_MAX);
    let mut turns = origin::turns(memory, LOAD_TIMEOUT_MS);
    while let Some((index, timeout_ms)) = turns.next_at(now_ms()) {
        let answer = origin::attempt(memory, index, &call, timeout_ms).await;
        let ticket = |answer: &Answer| answer.headers.get(TICKET_HEADER).unwrap_or_default().to_owned();
        let ticket = answer.as_ref().map(ticket).unwrap_or_default();
        let offer = match &answer {
            Ok(answer) => Offer::Answer { status: answer.status, ticket: &ticket, bytes: &answer.body },
            Err(SendFault::TooLarge(_)) => Offer::Oversized,
            Err(fault) => Offer::Nothing(fault.to_string()),
        };
        if let ControlFlow::Break(found) = search.offered(offer, now_ms()) {
            memory.origin.set(index);
            if let (Some(_), Ok(answer)) = (&found, answer) {
                let bundle = StoredBundle { ticket, bytes: answer.body };
                if let Some(bytes) = bundle.encode() {
                    memory.write(&StoredBundle::key(target), bytes).await;
                }
            }
            return found;
        }
    }
    None
}

fn get<'a>(path: &'a str, version: Option<&'a str>, bytes_max: usize) -> Call<'a> {
    Call { method: "GET", path, body: None, version, timeout_ms: LOAD_TIMEOUT_MS, bytes_max }
}
