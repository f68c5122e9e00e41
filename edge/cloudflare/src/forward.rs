//! Forwards a request to its target: streamed both ways, the head of the response within its time.

use meridian_engine::facts::BodySize;
use meridian_engine::limits::REPLAY_BODY_BYTES_MAX;
use meridian_engine::step::{Forward, ForwardFault, ResponseHead};
use meridian_wire::context::{self, Context};
use worker::wasm_bindgen::JsValue;

use crate::host::{self, SendFault};
use crate::isolate::Isolate;
use crate::origin;

/// The body of the client's request, which can be sent once, or as often as needed where it was kept.
pub enum RequestBody {
    /// There is none.
    None,
    /// Not touched yet; the request and what is known of its length.
    Untouched(JsValue, BodySize),
    /// Kept whole.
    Kept(JsValue),
    /// Sent and gone.
    Gone,
}

/// What an attempt brought.
pub struct Forwarded {
    /// The head of the response, or why there is none.
    pub head: Result<ResponseHead, ForwardFault>,
    /// Stream of the body, `null` where there is none.
    pub body: Option<JsValue>,
}

impl RequestBody {
    /// No body.
    pub fn none() -> Self {
        Self::None
    }

    /// The body of a request.
    pub fn of(request: &JsValue, size: BodySize) -> Self {
        match size {
            BodySize::Empty => Self::None,
            size => Self::Untouched(request.clone(), size),
        }
    }

    /// Makes one attempt.
    pub async fn forward(&mut self, isolate: &Isolate, mut ask: Forward) -> Forwarded {
        let failed = |fault| Forwarded { head: Err(fault), body: None };
        let body = match ask.send_body {
            true => match self.take(ask.keep_body).await {
                Ok(body) => body,
                Err(fault) => return failed(fault),
            },
            false => JsValue::UNDEFINED,
        };
        if let Some(claims) = &ask.sign {
            let context = Context::of(claims, &isolate.config.edge);
            let signed = origin::sign(isolate, &context, &ask.method, &ask.url);
            ask.headers.set(context::HEADER, signed);
        }
        let begun_ms = host::now_ms();
        let fields = host::lines(&ask.headers);
        let sent = host::sent(host::send(&ask.method, &ask.url, &fields, &body, ask.timeout_ms)).await;
        match sent.status {
            Ok(status) => {
                let elapsed_ms = u32::try_from(host::now_ms().saturating_sub(begun_ms)).unwrap_or(u32::MAX);
                let head = ResponseHead { status, headers: sent.headers, elapsed_ms };
                Forwarded { head: Ok(head), body: Some(sent.body) }
            }
            Err(SendFault::Timeout) => failed(ForwardFault::Timeout),
            Err(_) => failed(ForwardFault::Broken),
        }
    }

    /// The body to send: the stream, or the bytes where it is to be kept and known to be short enough.
    async fn take(&mut self, keep: bool) -> Result<JsValue, ForwardFault> {
        match std::mem::replace(self, Self::Gone) {
            Self::None => {
                *self = Self::None;
                Ok(JsValue::UNDEFINED)
            }
            Self::Untouched(request, BodySize::Bytes(length)) if keep && length <= REPLAY_BODY_BYTES_MAX => {
                let bytes = host::wait(host::bytes_of(&request)).await.map_err(|_| ForwardFault::Broken)?;
                *self = Self::Kept(bytes.clone());
                Ok(bytes)
            }
            Self::Untouched(request, _) => Ok(host::body_of(&request)),
            Self::Kept(bytes) => {
                *self = Self::Kept(bytes.clone());
                Ok(bytes)
            }
            Self::Gone => Err(ForwardFault::BodyGone),
        }
    }
}
