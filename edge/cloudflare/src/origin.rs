//! The edge's own calls to origins: signed, bounded, one origin after the other until one answers.

use meridian_engine::headers::Headers;
use meridian_wire::context::{self, Context};
use meridian_wire::encoding::hex;
use worker::wasm_bindgen::JsValue;

use crate::host::{self, SendFault, Sent};
use crate::isolate::Isolate;

/// One of the edge's own calls.
pub struct Call<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// JSON to send.
    pub body: Option<String>,
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

/// Calls the origin that answered last, then the others, until one gives an answer that is no server error. Each but
/// the last gets half of the time that is left.
pub async fn call(isolate: &Isolate, call: Call<'_>) -> Result<Answer, SendFault> {
    let origins = &isolate.config.origins;
    let first = isolate.origin.get();
    let deadline_ms = host::now_ms() + u64::from(call.timeout_ms);
    let mut fault = SendFault::Timeout;
    for turn in 0..origins.len() {
        let index = (first + turn) % origins.len();
        let left_ms = deadline_ms.saturating_sub(host::now_ms()) as u32;
        if left_ms == 0 {
            break;
        }
        let timeout_ms = if turn + 1 == origins.len() { left_ms } else { left_ms.div_ceil(2) };
        let sent = attempt(isolate, &origins[index].url, &call, timeout_ms).await;
        match sent.status {
            Ok(status) if status < 500 => {
                isolate.origin.set(index);
                return Ok(Answer { status, body: sent.bytes(), headers: sent.headers });
            }
            Ok(status) => fault = SendFault::Broken(format!("status {status}")),
            Err(found) => fault = found,
        }
    }
    Err(fault)
}

async fn attempt(isolate: &Isolate, base: &str, call: &Call<'_>, timeout_ms: u32) -> Sent {
    let url = format!("{base}{}", call.path);
    let id = hex(&isolate.random::<16>());
    let context = Context::of_edge(&isolate.config.edge, &id, host::now_ms());
    let mut headers = Headers::with_capacity(3);
    headers.append(context::HEADER, sign(isolate, &context, call.method, &url));
    let body = match &call.body {
        Some(json) => {
            headers.append("content-type", "application/json");
            JsValue::from_str(json)
        }
        None => JsValue::UNDEFINED,
    };
    let fields = host::lines(&headers);
    host::sent(host::call(call.method, &url, &fields, &body, timeout_ms, call.bytes_max)).await
}

/// The signed context of a request to this URL.
pub fn sign(isolate: &Isolate, context: &Context, method: &str, url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // What is sent always has a path.
    let slash = if target.starts_with('/') { "" } else { "/" };
    context.sign(&isolate.config.context_keys, method, authority, &format!("{slash}{target}"))
}
