//! The Rust half of the boundary to JavaScript: as few crossings as can be, and one text for many values.

use meridian_engine::headers::Headers;
use meridian_engine::step::ClientFault;
use wasm_bindgen::prelude::*;
use worker::js_sys::{Array, Promise, Uint8Array};

pub use crate::wait::wait;

#[wasm_bindgen(module = "/src/host.js")]
extern "C" {
    /// Method, URL, `1` if there is a body, the place, then header fields; a line each.
    pub fn head(request: &JsValue) -> String;

    /// The body's stream, `null` where there is none.
    #[wasm_bindgen(js_name = bodyOf)]
    pub fn body_of(message: &JsValue) -> JsValue;

    /// Promise of a message's whole body as a `Uint8Array`; it fails where that takes longer.
    #[wasm_bindgen(js_name = bytesOf)]
    pub fn bytes_of(message: &JsValue, wait_ms: u32) -> Promise;

    /// The stream of a client's body, for [`send`]: a length that is not known is negative, and after a longer pause it breaks
    /// off.
    pub fn upload(message: &JsValue, length: f64, pause_ms: u32) -> JsValue;

    /// Promise of the first bytes of a body, a few more than `bytes_max` where it has more, and then of a message with the
    /// whole body. Its length is negative where it is not known.
    pub fn peek(message: &JsValue, bytes_max: u32, length: f64, pause_ms: u32) -> Promise;

    /// `Headers` of header fields that recur.
    pub fn keep(fields: &str) -> JsValue;

    /// A `Response`. `kept`: header fields beside those in the lines. `coded`: its body is in its content coding already.
    #[wasm_bindgen(catch)]
    pub fn respond(
        status: u16,
        kept: &JsValue,
        fields: &str,
        body: &JsValue,
        coded: bool,
    ) -> Result<JsValue, JsValue>;

    /// Promise of an answer whose body is a stream, through a function where there is one.
    pub fn send(
        method: &str,
        url: &str,
        kept: &JsValue,
        fields: &str,
        body: &JsValue,
        timeout_ms: u32,
        through: &JsValue,
    ) -> Promise;

    /// What runs a function: a script of the dispatch namespace, the service of all of them, or `undefined`.
    #[wasm_bindgen(catch, js_name = functionOf)]
    pub fn function_of(env: &JsValue, script: &str, cpu_ms: u32) -> Result<JsValue, JsValue>;

    /// An attempt that may be given up.
    pub fn begin(
        method: &str,
        url: &str,
        kept: &JsValue,
        fields: &str,
        body: &JsValue,
        timeout_ms: u32,
        through: &JsValue,
    ) -> JsValue;

    /// Promise of the answer of the first attempt to end, or of `undefined` after so long; never where that is negative.
    #[wasm_bindgen(js_name = firstOf)]
    pub fn first_of(attempts: &Array, patience_ms: f64) -> Promise;

    /// Which of the attempts an answer is of.
    #[wasm_bindgen(js_name = placeOf)]
    pub fn place_of(answer: &JsValue) -> u32;

    /// Gives an attempt up.
    #[wasm_bindgen(js_name = giveUp)]
    pub fn give_up(attempt: &JsValue);

    /// Promise of an answer whose body is a `Uint8Array`.
    pub fn call(
        method: &str,
        url: &str,
        fields: &str,
        body: &JsValue,
        timeout_ms: u32,
        bytes_max: u32,
    ) -> Promise;

    /// Head of an answer: status or fault, then header fields; a line each.
    #[wasm_bindgen(js_name = headOf)]
    pub fn head_of(answer: &JsValue) -> String;

    /// Two streams of one, or two `null`s of `null`.
    #[wasm_bindgen(catch)]
    pub fn tee(stream: &JsValue) -> Result<Array, JsValue>;

    /// A stream that breaks off beyond so many bytes and after so long a pause; a negative limit is none.
    pub fn limited(stream: &JsValue, bytes_max: f64, pause_ms: f64) -> JsValue;

    /// The stream of a part of a stream.
    pub fn part(stream: &JsValue, first: f64, bytes: f64) -> JsValue;

    /// Gives a stream up.
    pub fn cancel(stream: &JsValue);

    /// Promise of nothing, after a while.
    pub fn sleep(ms: u32) -> Promise;

    /// Promise of a stored entry, or `undefined`.
    #[wasm_bindgen(js_name = lookUp)]
    pub fn look_up(key: &str) -> Promise;

    /// Promise of whether an entry is stored; it fails where the body breaks off.
    pub fn store(
        key: &str,
        entry: &str,
        encoding: &str,
        keep_seconds: f64,
        body: &JsValue,
        bytes_max: f64,
    ) -> Promise;

    /// Promise of having forgotten an entry.
    pub fn forget(key: &str) -> Promise;

    /// Promise of the bytes of a key in a KV namespace, or of `undefined`.
    pub fn read(namespace: &JsValue, key: &str) -> Promise;

    /// Promise of having given a key in a KV namespace its bytes.
    pub fn write(namespace: &JsValue, key: &str, value: &[u8]) -> Promise;

    /// Promise of a Durable Object's answer, or `undefined`.
    pub fn ask(namespace: &JsValue, name: &str, question: &str, timeout_ms: u32) -> Promise;

    /// Promise of a `CryptoKey`.
    #[wasm_bindgen(catch, js_name = importKey)]
    pub fn import_key(algorithm: &str, material: &JsValue) -> Result<Promise, JsValue>;

    /// Promise of whether the signature is right.
    #[wasm_bindgen(catch)]
    pub fn verify(
        algorithm: &str,
        key: &JsValue,
        signature: &[u8],
        signed: &[u8],
    ) -> Result<Promise, JsValue>;

    /// Fills the bytes with randomness.
    pub fn random(bytes: &mut [u8]);
}

/// Milliseconds since the Unix epoch. On Cloudflare it stands still but for input and output.
pub fn now_ms() -> u64 {
    worker::js_sys::Date::now() as u64
}

/// What came of a request that was sent.
pub struct Sent {
    /// Status, or why there is none.
    pub status: Result<u16, SendFault>,
    /// Header fields of the response.
    pub headers: Headers,
    /// Body: a stream from [`send`], bytes from [`call`].
    pub body: JsValue,
}

/// Why a request that was sent brought no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// No head, or no whole body, in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke: workerd does not tell them apart.
    #[error("the connection failed: {0}")]
    Broken(String),
    /// The body is larger than allowed.
    #[error("the answer is too large")]
    Large,
    /// The client's body did not come.
    #[error("the request's body did not come whole")]
    Body(ClientFault),
}

/// What a promise of [`send`] or [`call`] comes to.
pub async fn sent(promise: Promise) -> Sent {
    Sent::of(wait(promise).await)
}

impl Sent {
    /// What came of a request, by what its promise came to.
    pub fn of(answer: Result<JsValue, JsValue>) -> Self {
        let failed = |fault| Sent { status: Err(fault), headers: Headers::default(), body: JsValue::NULL };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return failed(SendFault::Broken(text_of(&error))),
        };
        let head = head_of(&answer);
        let mut lines = head.split('\n');
        let first = lines.next().unwrap_or_default();
        match (first, first.parse()) {
            (_, Ok(status)) => Sent { status: Ok(status), headers: fields(lines), body: body_of(&answer) },
            ("timeout", _) => failed(SendFault::Timeout),
            ("large", _) => failed(SendFault::Large),
            ("body paused", _) => failed(SendFault::Body(ClientFault::Paused)),
            ("body broke off", _) => failed(SendFault::Body(ClientFault::BrokeOff)),
            (other, _) => failed(SendFault::Broken(other.trim_start_matches("broken ").to_owned())),
        }
    }

    /// The bytes that [`call`] read.
    pub fn bytes(&self) -> Vec<u8> {
        if self.body.is_null() { Vec::new() } else { Uint8Array::from(self.body.clone()).to_vec() }
    }
}

/// Header fields out of alternating lines.
pub fn fields<'a>(mut lines: impl Iterator<Item = &'a str>) -> Headers {
    // Most messages have fewer, and what is left over is no more than a few hundred bytes.
    let mut headers = Headers::with_capacity(16);
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        headers.append(name, value);
    }
    headers
}

/// Header fields as alternating lines.
pub fn lines(headers: &Headers) -> String {
    let mut text = String::with_capacity(headers.len() * 48);
    for (name, value) in headers.iter() {
        line(&mut text, name, value);
    }
    text
}

/// Adds the lines of a header field. One that would break the lines is left out.
pub fn line(text: &mut String, name: &str, value: &str) {
    if value.contains('\n') {
        return;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(name);
    text.push('\n');
    text.push_str(value);
}

/// Gives a stream up, where there is one.
pub fn give_up_body(body: Option<JsValue>) {
    if let Some(body) = body.filter(|body| !body.is_null()) {
        cancel(&body);
    }
}

/// What is wrong with a client's body that can't be read.
pub fn client_fault(error: &JsValue) -> ClientFault {
    if text_of(error).starts_with("a body pauses") { ClientFault::Paused } else { ClientFault::BrokeOff }
}

/// What a JavaScript value says of itself.
pub fn text_of(value: &JsValue) -> String {
    let message = worker::js_sys::Reflect::get(value, &JsValue::from_str("message"));
    message.ok().and_then(|text| text.as_string()).or_else(|| value.as_string()).unwrap_or_default()
}
