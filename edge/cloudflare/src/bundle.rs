//! Rules on their way into the engine: from KV, where the last good ones are, or from an origin; and what is new.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use meridian_engine::limits::JWKS_BYTES_MAX;
use meridian_engine::ruleset::Target;
use meridian_engine::step::{FetchFault, FetchKeys, LoadKey, Loaded, SyncAsk, SyncNews};
use meridian_wire::bundle::Rules;
use meridian_wire::edge::{Offer, Search};
use meridian_wire::limits::BUNDLE_BYTES_MAX;
use meridian_wire::signature::TICKET_HEADER;
use meridian_wire::sync::{HostReply, SyncReply, SyncRequest};
use serde::{Deserialize, Serialize};
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsValue;
use worker::{Context, console_warn};

use crate::host::{self, SendFault};
use crate::isolate::Isolate;
use crate::limits::{ANSWER_BYTES_MAX, HOST_FRESH_MS, ORIGIN_WAIT_MS, SYNC_BYTES_MAX};
use crate::origin::{self, Answer, Call};

/// Binding of the KV namespace.
const BUNDLES: &str = "BUNDLES";

/// Asks an origin what is new; `None` where none answers in time.
pub async fn sync(isolate: &Isolate, ask: &SyncAsk, timeout_ms: u32) -> Option<SyncNews> {
    let request = serde_json::to_vec(&SyncRequest::of(&isolate.config.edge, ask)).ok()?;
    let call = Call {
        method: "POST",
        path: "/edge/v1/sync",
        body: Some(&request),
        version: None,
        timeout_ms,
        bytes_max: SYNC_BYTES_MAX,
    };
    let answer =
        origin::call(isolate, call).await.inspect_err(|fault| console_warn!("sync: {fault}")).ok()?;
    if answer.status != 200 {
        console_warn!("sync: status {}", answer.status);
        return None;
    }
    let reply: Result<SyncReply, _> = serde_json::from_slice(&answer.body);
    reply.inspect_err(|error| console_warn!("sync: {error}")).ok().map(SyncNews::from)
}

/// Loads everything that is asked for, at the same time.
pub async fn load(isolate: &Rc<Isolate>, ctx: &Context, keys: &[LoadKey]) -> Vec<Loaded> {
    join_all(keys.iter().map(|key| async move {
        match key {
            LoadKey::Host(host) => load_host(isolate, ctx, host).await,
            LoadKey::StoredHost(host) => stored_host(isolate, host)
                .await
                .map_or(Loaded::Missing, |stored| Loaded::Host(Some(stored.tenant))),
            LoadKey::Target(target) => load_target(isolate, ctx, target).await,
        }
    }))
    .await
}

/// Fetches an issuer's key set.
pub async fn fetch_keys(ask: &FetchKeys) -> Result<Vec<u8>, FetchFault> {
    let fields = "accept\napplication/jwk-set+json, application/json";
    let bytes_max = JWKS_BYTES_MAX as u32;
    let answer = host::call("GET", &ask.url, fields, &JsValue::UNDEFINED, ask.timeout_ms, bytes_max);
    let sent = host::sent(answer).await;
    match &sent.status {
        Ok(200) => Ok(sent.bytes()),
        Ok(status) => Err(FetchFault::Status(*status)),
        Err(SendFault::Timeout) => Err(FetchFault::Timeout),
        Err(SendFault::Large) => Err(FetchFault::TooLarge),
        Err(SendFault::Broken(_) | SendFault::Body(_)) => Err(FetchFault::Unreachable),
    }
}

async fn get(isolate: &Isolate, path: &str, bytes_max: u32) -> Result<Answer, SendFault> {
    let call = Call { method: "GET", path, body: None, version: None, timeout_ms: ORIGIN_WAIT_MS, bytes_max };
    origin::call(isolate, call).await
}

/// What KV keeps of a hostname.
#[derive(Serialize, Deserialize)]
struct StoredHost {
    tenant: String,
    at_ms: u64,
}

async fn stored_host(isolate: &Isolate, name: &str) -> Option<StoredHost> {
    read(isolate, &host_key(name)).await.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

fn host_key(name: &str) -> String {
    format!("host:{name}")
}

async fn load_host(isolate: &Rc<Isolate>, ctx: &Context, name: &str) -> Loaded {
    let stored = stored_host(isolate, name).await;
    let now_ms = host::now_ms();
    if let Some(stored) = stored.as_ref().filter(|stored| now_ms.saturating_sub(stored.at_ms) < HOST_FRESH_MS)
    {
        return Loaded::Host(Some(stored.tenant.clone()));
    }
    match get(isolate, &format!("/edge/v1/hosts/{}", encoded(name)), ANSWER_BYTES_MAX).await {
        Ok(answer) if answer.status == 200 => match serde_json::from_slice::<HostReply>(&answer.body) {
            Ok(reply) => {
                let fresh = StoredHost { tenant: reply.tenant.clone(), at_ms: now_ms };
                write(isolate, ctx, host_key(name), serde_json::to_vec(&fresh).unwrap_or_default());
                Loaded::Host(Some(reply.tenant))
            }
            Err(error) => Loaded::Unavailable(format!("tenant of the host: {error}")),
        },
        Ok(answer) if answer.status == 404 => Loaded::Host(None),
        failed => match stored {
            Some(stored) => Loaded::Host(Some(stored.tenant)),
            None => Loaded::Unavailable(reason(failed)),
        },
    }
}

/// Rules come from an origin, so that even a cold isolate decides by the newest; the last good ones come from KV while no
/// origin can be reached, or what comes is no good or older than they are.
async fn load_target(isolate: &Rc<Isolate>, ctx: &Context, target: &Target) -> Loaded {
    let (in_force, newest) = {
        let node = isolate.node.borrow();
        (node.version(target).cloned(), node.newest(target))
    };
    let mut search = Search::new(target, &isolate.config.bundle_keys, in_force, newest);
    let stored = stored(isolate, target, &mut search).await;
    let found = fetch(isolate, ctx, target, &mut search).await.or(stored);
    let (nothing, faults) = search.end();
    for fault in faults {
        isolate.events.borrow_mut().push_fault(fault);
    }
    match found {
        Some(Rules::Platform(platform)) => Loaded::Platform(Arc::new(platform)),
        Some(Rules::Tenant(ruleset)) => Loaded::Ruleset(Arc::from(ruleset)),
        None => nothing,
    }
}

/// Asks the origins, one after the other, until one gives rules that are good, or says that there are none newer. What
/// is good is kept in KV.
async fn fetch(
    isolate: &Rc<Isolate>,
    ctx: &Context,
    target: &Target,
    search: &mut Search<'_>,
) -> Option<Rules> {
    let key = target.to_string();
    let path = format!("/edge/v1/bundles/{}", encoded(&key));
    let at_hand = search.have().map(|version| version.hash.clone());
    let call = Call {
        method: "GET",
        path: &path,
        body: None,
        version: at_hand.as_deref(),
        timeout_ms: ORIGIN_WAIT_MS,
        bytes_max: BUNDLE_BYTES_MAX as u32,
    };
    let mut turns = origin::turns(isolate, ORIGIN_WAIT_MS);
    while let Some((index, timeout_ms)) = turns.next_at(host::now_ms()) {
        let answer = origin::attempt(isolate, index, &call, timeout_ms).await;
        let ticket = |answer: &Answer| answer.headers.get(TICKET_HEADER).unwrap_or_default().to_owned();
        let ticket = answer.as_ref().map(ticket).unwrap_or_default();
        let offer = match &answer {
            Ok(answer) => Offer::Answer { status: answer.status, ticket: &ticket, bytes: &answer.body },
            Err(SendFault::Large) => Offer::Oversized,
            Err(fault) => Offer::Nothing(fault.to_string()),
        };
        if let ControlFlow::Break(found) = search.offered(offer, host::now_ms()) {
            isolate.origin.set(index);
            if let (Some(_), Ok(answer)) = (&found, answer) {
                write(isolate, ctx, key, [ticket.as_bytes(), b"\n", &answer.body].concat());
            }
            return found;
        }
    }
    None
}

/// The last good rules, if KV has them.
async fn stored(isolate: &Isolate, target: &Target, search: &mut Search<'_>) -> Option<Rules> {
    let value = read(isolate, &target.to_string()).await?;
    let (ticket, bytes) = split(&value).unwrap_or_default();
    search.stored(ticket, bytes, host::now_ms())
}

fn reason(failed: Result<Answer, SendFault>) -> String {
    match failed {
        Ok(answer) => format!("the origin answered with status {}", answer.status),
        Err(fault) => fault.to_string(),
    }
}

/// Ticket and bundle, as KV has them with a line feed between.
fn split(value: &[u8]) -> Option<(&str, &[u8])> {
    let end = value.iter().position(|byte| *byte == b'\n')?;
    let (ticket, bundle) = value.split_at(end);
    Some((std::str::from_utf8(ticket).ok()?, &bundle[1..]))
}

/// A path segment: everything but unreserved characters (RFC 3986, section 2.3) and colons is percent-encoded.
fn encoded(segment: &str) -> String {
    segment.bytes().fold(String::with_capacity(segment.len()), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                text.push(byte as char);
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

async fn read(isolate: &Isolate, key: &str) -> Option<Vec<u8>> {
    let namespace = isolate.binding(BUNDLES)?;
    let read = host::wait(host::read(&namespace, key)).await;
    let warn = |error: &JsValue| console_warn!("KV {key}: {}", host::text_of(error));
    let value = read.inspect_err(warn).ok().filter(|value| !value.is_undefined())?;
    Some(Uint8Array::from(value).to_vec())
}

/// Writes to KV once the reply is on its way. Losing the write costs a later isolate a call.
fn write(isolate: &Isolate, ctx: &Context, key: String, value: Vec<u8>) {
    let Some(namespace) = isolate.binding(BUNDLES) else { return };
    ctx.wait_until(async move {
        if let Err(error) = host::wait(host::write(&namespace, &key, &value)).await {
            console_warn!("KV {key} not written: {}", host::text_of(&error));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_value_is_a_ticket_and_a_bundle() {
        assert_eq!(split(b"a.b.c\n{\n}"), Some(("a.b.c", &b"{\n}"[..])));
        assert_eq!(split(b"a.b.c"), None);
        assert_eq!(split(b"\xff\n{}"), None);
    }

    #[test]
    fn path_segments_can_hold_nothing_else() {
        assert_eq!(encoded("tenant:acme"), "tenant:acme");
        assert_eq!(encoded("a/../b?c%20"), "a%2F..%2Fb%3Fc%2520");
    }
}
