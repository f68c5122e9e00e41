//! Rules on their way into the engine: from the key-value store, where the last good ones are, or from an origin.
//!
//! An instance lives for few requests, so what the store has is used whenever it is known to be the newest: by what an
//! origin told this instance, or another one less than a second ago. Otherwise an origin is asked, and what the store has
//! serves if none answers or what comes is not acceptable.

use std::sync::Arc;

use futures_util::future::join_all;
use meridian_engine::limits::JWKS_BYTES_MAX;
use meridian_engine::ruleset::{Target, Version};
use meridian_engine::step::{FetchFault, FetchKeys, LoadKey, Loaded};
use meridian_wire::bundle::{InvalidBundle, Rules};
use meridian_wire::encoding::version;
use meridian_wire::limits::BUNDLE_BYTES_MAX;
use meridian_wire::signature::{Have, TICKET_HEADER, accept};
use meridian_wire::sync::HostReply;

use crate::instance::{Memory, now_ms};
use crate::limits::{ANSWER_BYTES_MAX, HEADS_FRESH_MS, HOST_FRESH_MS, LOAD_TIMEOUT_MS};
use crate::message::{Content, Outgoing, SendFault, send};
use crate::origin::{self, Call};
use crate::stored::{Heads, StoredBundle, StoredHost};

/// Loads everything that is asked for, at the same time.
pub async fn load(memory: &Memory, keys: &[LoadKey]) -> Vec<Loaded> {
    join_all(keys.iter().map(|key| async move {
        match key {
            LoadKey::Host(host) => load_host(memory, host).await,
            LoadKey::Target(target) => load_target(memory, target).await,
        }
    }))
    .await
}

/// Fetches an issuer's key set.
pub async fn fetch_keys(ask: &FetchKeys) -> Result<Vec<u8>, FetchFault> {
    let fault = |fault| match fault {
        SendFault::Timeout => FetchFault::Timeout,
        SendFault::TooLarge(_) => FetchFault::TooLarge,
        SendFault::Connect(_) | SendFault::Broken(_) => FetchFault::Unreachable,
    };
    let outgoing = Outgoing {
        method: "GET",
        url: &ask.url,
        fields: vec![("accept".to_owned(), b"application/jwk-set+json, application/json".to_vec())],
        content: Content::Empty,
        length: None,
        timeout_ms: ask.timeout_ms,
    };
    let incoming = send(outgoing).await.map_err(fault)?;
    if incoming.status != 200 {
        return Err(FetchFault::Status(incoming.status));
    }
    incoming.bytes(JWKS_BYTES_MAX).await.map_err(fault)
}

async fn load_host(memory: &Memory, host: &str) -> Loaded {
    let key = StoredHost::key(host);
    let stored = memory.read(&key).await.and_then(|bytes| serde_json::from_slice::<StoredHost>(&bytes).ok());
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
        (Some(_), Ok(bytes)) => memory.write(key, bytes).await,
        _ => memory.delete(key).await,
    }
    Loaded::Host(stored.tenant)
}

async fn load_target(memory: &Memory, target: &Target) -> Loaded {
    let stored = stored(memory, target).await;
    let newest = newest(memory, target).await;
    if let Some(rules) = &stored
        && newest.is_some_and(|newest| newest <= rules.version().sequence)
    {
        return in_force(memory, target, stored, "");
    }
    let at_hand = match &stored {
        Some(rules) => Some(rules.version().clone()),
        None => memory.accepted.borrow().get(target).cloned(),
    };
    match fetch(memory, target, at_hand.as_ref()).await {
        Fetched::Newer(rules) => in_force(memory, target, Some(rules), ""),
        Fetched::Same => in_force(memory, target, stored, "it is the newest already"),
        Fetched::Unknown if at_hand.is_none() => Loaded::Missing,
        Fetched::Unknown => in_force(memory, target, stored, "no origin knows it any more"),
        Fetched::Failed(why) => in_force(memory, target, stored, &why),
    }
}

/// Hands rules to the engine, unless it has them already.
fn in_force(memory: &Memory, target: &Target, rules: Option<Rules>, otherwise: &str) -> Loaded {
    let Some(rules) = rules else { return Loaded::Unavailable(otherwise.to_owned()) };
    memory.accept(target, rules.version());
    match rules {
        Rules::Platform(platform) => Loaded::Platform(Arc::new(platform)),
        Rules::Tenant(ruleset) => Loaded::Ruleset(Arc::from(ruleset)),
    }
}

/// What the store has of a target, if it is acceptable and newer than what this instance has.
async fn stored(memory: &Memory, target: &Target) -> Option<Rules> {
    let key = StoredBundle::key(target);
    let bundle = StoredBundle::decode(&memory.read(&key).await?)?;
    let hash = version(&bundle.bytes);
    let have = memory.accepted.borrow().get(target).cloned();
    if have.as_ref().is_some_and(|have| have.hash == hash) {
        return None;
    }
    match check(memory, target, &bundle.ticket, &bundle.bytes, have.as_ref()) {
        Ok(rules) => Some(rules),
        // An instance that is behind may have written last.
        Err(InvalidBundle::Older { .. }) => None,
        Err(error) => {
            memory.fault(target, Some(hash), format!("in the key-value store: {error}"));
            None
        }
    }
}

/// The newest sequence of a target, as far as it is known without asking.
async fn newest(memory: &Memory, target: &Target) -> Option<u64> {
    let here = memory.newest.borrow().get(target).copied();
    let heads = memory.read(Heads::KEY).await.and_then(|bytes| serde_json::from_slice::<Heads>(&bytes).ok());
    let elsewhere = heads.and_then(|heads| heads.newest(target, now_ms(), HEADS_FRESH_MS));
    here.max(elsewhere)
}

/// What the origins say about a target.
enum Fetched {
    Newer(Rules),
    Same,
    Unknown,
    Failed(String),
}

/// Asks the origins, one after the other, until one gives an acceptable answer.
async fn fetch(memory: &Memory, target: &Target, at_hand: Option<&Version>) -> Fetched {
    let path = format!("/edge/v1/bundles/{target}");
    let call = get(&path, at_hand.map(|version| version.hash.as_str()), BUNDLE_BYTES_MAX);
    let mut result = Fetched::Failed("no origin answered".to_owned());
    for index in origin::order(memory) {
        match origin::attempt(memory, index, &call, LOAD_TIMEOUT_MS).await {
            Ok(answer) if answer.status == 200 => {
                let ticket = answer.headers.get(TICKET_HEADER).unwrap_or_default();
                match check(memory, target, ticket, &answer.body, at_hand) {
                    Ok(rules) => {
                        memory.origin.set(index);
                        let bundle = StoredBundle { ticket: ticket.to_owned(), bytes: answer.body };
                        if let Some(bytes) = bundle.encode() {
                            memory.write(&StoredBundle::key(target), bytes).await;
                        }
                        return Fetched::Newer(rules);
                    }
                    Err(error) => {
                        memory.fault(target, Some(version(&answer.body)), error.to_string());
                        result = Fetched::Failed(error.to_string());
                    }
                }
            }
            Ok(answer) if answer.status == 304 => return Fetched::Same,
            Ok(answer) if answer.status == 404 => result = Fetched::Unknown,
            Ok(answer) => result = Fetched::Failed(format!("status {}", answer.status)),
            Err(SendFault::TooLarge(bytes_max)) => {
                let what = format!("the bundle has more than {bytes_max} bytes (BUNDLE_BYTES_MAX)");
                memory.fault(target, None, what.clone());
                result = Fetched::Failed(what);
            }
            Err(fault) => {
                // What another origin said before counts for more than that this one is away.
                if matches!(&result, Fetched::Failed(_)) {
                    result = Fetched::Failed(fault.to_string());
                }
            }
        }
    }
    result
}

fn check(
    memory: &Memory,
    target: &Target,
    ticket: &str,
    bytes: &[u8],
    have: Option<&Version>,
) -> Result<Rules, InvalidBundle> {
    let have = have.map(|have| Have { sequence: have.sequence, version: &have.hash });
    accept(ticket, bytes, target, &memory.config.bundle_keys, have).map(|accepted| accepted.rules)
}

fn get<'a>(path: &'a str, version: Option<&'a str>, bytes_max: usize) -> Call<'a> {
    Call { method: "GET", path, body: None, version, timeout_ms: LOAD_TIMEOUT_MS, bytes_max }
}
