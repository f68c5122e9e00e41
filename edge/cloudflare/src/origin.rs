//! The edge's own calls to origins: signed, bounded, one origin after the other until one answers.

use meridian_engine::headers::Headers;
use meridian_wire::context::{self, Context};
use meridian_wire::edge::Turns;
use meridian_wire::encoding::hex;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsValue;

use crate::host::{self, SendFault};
use crate::isolate::Isolate;

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
    /// For all origins together.
    pub timeout_ms: u32,
    /// Bytes of the answer.
    pub bytes_max: u32,
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
pub fn turns(isolate: &Isolate, timeout_ms: u32) -> Turns {
    Turns::new(isolate.origin.get(), isolate.config.origins.len(), host::now_ms(), timeout_ms)
}

/// Calls one origin after the other until one gives an answer that is no server error.
pub async fn call(isolate: &Isolate, call: Call<'_>) -> Result<Answer, SendFault> {
    let mut fault = SendFault::Timeout;
    let mut turns = turns(isolate, call.timeout_ms);
    while let Some((index, timeout_ms)) = turns.next_at(host::now_ms()) {
        match attempt(isolate, index, &call, timeout_ms).await {
            Ok(answer) if answer.status < 500 => {
                isolate.origin.set(index);
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
    isolate: &Isolate,
    index: usize,
    call: &Call<'_>,
    timeout_ms: u32,
) -> Result<Answer, SendFault> {
    let url = format!("{}{}", isolate.config.origins[index].url, call.path);
    let id = hex(&isolate.random::<16>());
    let context = Context::of_edge(&isolate.config.edge, &id, host::now_ms());
    let mut headers = Headers::with_capacity(3);
    headers.append(context::HEADER, sign(isolate, &context, call.method, &url));
    if let Some(version) = call.version {
        headers.append("if-none-match", format!("\"{version}\""));
    }
    let body = match call.body {
        Some(json) => {
            headers.append("content-type", "application/json");
            Uint8Array::from(json).into()
        }
        None => JsValue::UNDEFINED,
    };
    let fields = host::lines(&headers);
    let sent = host::sent(host::call(call.method, &url, &fields, &body, timeout_ms, call.bytes_max)).await;
    Ok(Answer { status: sent.status.clone()?, body: sent.bytes(), headers: sent.headers })
}

/// The signed context of a request to this URL.
pub fn sign(isolate: &Isolate, context: &Context, method: &str, url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // What is sent always has a path.
    let slash = if target.starts_with('/') { "" } else { "/" };
    context.sign(&isolate.config.context_keys, method, authority, &format!("{slash}{target}"))
}
