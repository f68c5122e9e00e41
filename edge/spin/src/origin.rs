//! The edge's own calls to origins: signed, bounded, one origin after the other until one answers.

use meridian_engine::decision::decision_id;
use meridian_engine::headers::Headers;
use meridian_engine::ruleset::RegionId;
use meridian_engine::step::{Lease, SyncAsk, SyncNews, Take};
use meridian_wire::context::{self, Context};
use meridian_wire::edge::Turns;
use meridian_wire::event::Batch;
use meridian_wire::lease::{LeaseReply, LeaseRequest};
use meridian_wire::sync::{SyncReply, SyncRequest};
use serde::Serialize;

use crate::instance::{Memory, now_ms, random};
use crate::limits::{
    ANSWER_BYTES_MAX, EVENTS_TIMEOUT_MS, LEASE_ORIGINS_MAX, LEASE_TIMEOUT_MS, SYNC_BYTES_MAX,
};
use crate::message::{Content, Outgoing, SendFault, send};
use crate::stored::Heads;
use crate::url::Url;

/// One of the edge's own calls.
pub struct Call<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// JSON to send.
    pub body: Option<&'a [u8]>,
    /// Version that is at hand already, for a conditional request.
    pub version: Option<&'a str>,
    /// Until the head of the answer must be here, for all origins together.
    pub timeout_ms: u32,
    /// Bytes of the answer.
    pub bytes_max: usize,
}

/// An origin's answer.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Body.
    pub body: Vec<u8>,
}

/// Whose turn it is to be called, within this time.
pub fn turns(memory: &Memory, timeout_ms: u32) -> Turns {
    Turns::new(memory.origin.get(), memory.config.origins.len(), now_ms(), timeout_ms)
}

/// Calls one origin after the other until one gives an answer that is no server error.
pub async fn call(memory: &Memory, call: Call<'_>) -> Result<Answer, SendFault> {
    let mut fault = SendFault::Timeout;
    let mut turns = turns(memory, call.timeout_ms);
    while let Some((index, timeout_ms)) = turns.next_at(now_ms()) {
        match attempt(memory, index, &call, timeout_ms).await {
            Ok(answer) if answer.status < 500 => {
                memory.origin.set(index);
                return Ok(answer);
            }
            Ok(answer) => fault = SendFault::Broken(format!("status {}", answer.status)),
            Err(found) => fault = found,
        }
    }
    Err(fault)
}

/// Calls the origin with this index.
pub async fn attempt(
    memory: &Memory,
    index: usize,
    call: &Call<'_>,
    timeout_ms: u32,
) -> Result<Answer, SendFault> {
    let Some(origin) = memory.config.origins.get(index) else {
        return Err(SendFault::Connect("there is no such origin".to_owned()));
    };
    let url = format!("{}{}", origin.url, call.path);
    let now_ms = now_ms();
    let context = Context::of_edge(&memory.config.edge, &decision_id(now_ms, random()), now_ms);
    let mut fields =
        vec![(context::HEADER.to_owned(), sign(memory, &context, call.method, &url).into_bytes())];
    if let Some(version) = call.version {
        fields.push(("if-none-match".to_owned(), format!("\"{version}\"").into_bytes()));
    }
    let content = match call.body {
        Some(json) => {
            fields.push(("content-type".to_owned(), b"application/json".to_vec()));
            Content::Bytes(json.to_vec())
        }
        None => Content::Empty,
    };
    let outgoing = Outgoing {
        method: call.method,
        url: &url,
        fields,
        content,
        length: None,
        timeout_ms,
        connect_timeout_ms: timeout_ms,
        body_timeout_ms: None,
    };
    let mut incoming = send(outgoing).await?;
    let (status, headers) = (incoming.status, std::mem::take(&mut incoming.headers));
    Ok(Answer { status, headers, body: incoming.bytes(call.bytes_max).await? })
}

/// The signed context of a request to this URL.
pub fn sign(memory: &Memory, context: &Context, method: &str, url: &str) -> String {
    // A URL that has no parts is not sent either.
    let (authority, target) = Url::parse(url).map_or(("", ""), |url| (url.authority, url.target));
    context.sign(&memory.config.context_keys, method, authority, target)
}

fn post<'a>(path: &'a str, body: &'a [u8], timeout_ms: u32, bytes_max: usize) -> Call<'a> {
    Call { method: "POST", path, body: Some(body), version: None, timeout_ms, bytes_max }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    // Nothing that is asked fails to be written; what did would be refused.
    serde_json::to_vec(body).unwrap_or_default()
}

/// Asks an origin what is new; `None` where none answers in time.
pub async fn sync(memory: &Memory, ask: &SyncAsk, timeout_ms: u32) -> Option<SyncNews> {
    let request = json(&SyncRequest::of(&memory.config.edge, ask));
    let answer = call(memory, post("/edge/v1/sync", &request, timeout_ms, SYNC_BYTES_MAX)).await;
    let answer = answer.inspect_err(|fault| eprintln!("no origin says what is new: {fault}")).ok()?;
    if answer.status != 200 {
        eprintln!("an origin answered with status {} to what is new", answer.status);
        return None;
    }
    let reply = serde_json::from_slice::<SyncReply>(&answer.body);
    let news =
        SyncNews::from(reply.inspect_err(|error| eprintln!("what an origin says is new: {error}")).ok()?);
    remember(memory, &news).await;
    Some(news)
}

/// Remembers the newest sequences, here and for the next instances.
async fn remember(memory: &Memory, news: &SyncNews) {
    let sequences = news.heads.iter().map(|(target, sequence)| (target.to_string(), *sequence)).collect();
    memory.newest.borrow_mut().extend(news.heads.iter().cloned());
    if !news.heads.is_empty()
        && let Ok(heads) = serde_json::to_vec(&Heads { at_ms: now_ms(), sequences })
    {
        memory.write(Heads::KEY, heads).await;
    }
}

/// Takes from a limit that an origin keeps: the one of the region that counts, and where that can't be reached, the next ones
/// that may count for it.
pub async fn take(memory: &Memory, take: &Take) -> Option<Lease> {
    let request = json(&LeaseRequest::from(take));
    let call = post("/edge/v1/leases", &request, LEASE_TIMEOUT_MS, ANSWER_BYTES_MAX);
    let origins = &memory.config.origins;
    let index = |region: &RegionId| origins.iter().position(|origin| *origin.region == **region);
    let regions = std::iter::once(&take.region).chain(&take.others);
    for index in regions.filter_map(index).take(LEASE_ORIGINS_MAX) {
        match attempt(memory, index, &call, LEASE_TIMEOUT_MS).await {
            Ok(answer) if answer.status == 200 => {
                let reply = serde_json::from_slice::<LeaseReply>(&answer.body);
                return reply.inspect_err(|error| eprintln!("lease: {error}")).ok().map(Lease::from);
            }
            Ok(answer) if answer.status < 500 => {
                eprintln!("lease: an origin answered with status {}", answer.status);
                return None;
            }
            // An origin that took too long may have counted: asking another one as well would count twice.
            Err(SendFault::Timeout) => return None,
            Ok(_) | Err(_) => {}
        }
    }
    None
}

/// Sends a batch of events.
///
/// # Errors
/// Where no origin has room for it now. One that an origin refuses is lost.
pub async fn send_events(memory: &Memory, batch: &Batch) -> Result<(), SendFault> {
    let answer =
        call(memory, post("/edge/v1/events", &batch.json, EVENTS_TIMEOUT_MS, ANSWER_BYTES_MAX)).await?;
    if answer.status >= 300 {
        eprintln!("{} events are refused: status {}", batch.events, answer.status);
    }
    Ok(())
}
