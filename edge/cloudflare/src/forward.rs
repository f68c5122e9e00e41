//! Forwards a request to its targets: streamed both ways, the head of the response within its time.
//!
//! `fetch` does not say when a body is sent. It is taken to be once its stream is read, so that what the runtime still holds
//! of it is the target's time. Where the client goes away the runtime ends the whole request, and nothing is decided any more.

use meridian_engine::facts::BodySize;
use meridian_engine::limits::REPLAY_BODY_BYTES_MAX;
use meridian_engine::policy::steering::Connection;
use meridian_engine::step::{Answer, ClientFault, Forward, ForwardFault, Peeked, ResponseHead};
use meridian_wire::context::{self, Context};
use worker::js_sys::{Array, Uint8Array};
use worker::wasm_bindgen::JsValue;

use crate::functions::Through;
use crate::host::{self, SendFault, Sent};
use crate::isolate::Isolate;
use crate::limits::BODY_PAUSE_MS;
use crate::origin;

/// The body of the client's request, which can be sent once, or as often as needed where it was kept.
pub enum RequestBody {
    /// There is none.
    None,
    /// Not touched yet, or as good as that; the message and what is known of its length.
    Untouched(JsValue, BodySize),
    /// Kept whole.
    Kept(JsValue),
    /// Sent and gone.
    Gone,
    /// It did not come whole.
    Failed(ClientFault),
}

/// Attempts at targets, one or two at a time.
#[derive(Default)]
pub struct Attempts {
    out: Vec<Attempt>,
    /// Milliseconds that were spent waiting for them.
    pub waited_ms: u64,
    /// Body of the response that came last.
    pub body: Option<JsValue>,
}

struct Attempt {
    handle: JsValue,
    asked: Asked,
}

/// What is known of an attempt when its answer comes.
struct Asked {
    number: u32,
    begun_ms: u64,
    body_timeout_ms: Option<u32>,
    response_bytes_max: Option<u64>,
    /// Only until the head is there: nothing tells an isolate that a client went away while the body came.
    _connection: Option<Connection>,
    /// It went through a function: whether the operator's own service ran that.
    function: Option<bool>,
}

impl Attempts {
    /// Makes an attempt and waits for the head of an answer, of this attempt or of one that is out already.
    pub async fn forward(&mut self, isolate: &Isolate, body: &mut RequestBody, mut ask: Forward) -> Answer {
        let number = ask.attempt;
        let through = match Through::of(isolate, &mut ask) {
            Ok(through) => through,
            Err(fault) => {
                return Answer::Forwarded { attempt: number, result: Err(ForwardFault::Function(fault)) };
            }
        };
        let fetcher = through.as_ref().map_or(JsValue::UNDEFINED, |through| through.fetcher.clone());
        let body = match ask.send_body {
            true => match body.take().await {
                Ok(body) => body,
                Err(fault) => return Answer::Forwarded { attempt: number, result: Err(fault) },
            },
            false => JsValue::UNDEFINED,
        };
        if let Some(claims) = &ask.sign {
            let context = Context::of(claims, &isolate.config.edge);
            let signed = origin::sign(isolate, &context, &ask.method, &ask.url);
            ask.headers.set(context::HEADER, signed);
        }
        let asked = Asked {
            number,
            begun_ms: host::now_ms(),
            body_timeout_ms: ask.body_timeout_ms,
            response_bytes_max: ask.response_bytes_max,
            _connection: ask.connection,
            function: through.as_ref().map(Through::is_service),
        };
        let fields = isolate.fields.borrow_mut().fields(&ask.headers);
        let (kept, lines) = (&fields.kept, &fields.lines);
        if ask.patience_ms.is_none() && self.out.is_empty() {
            let sending = host::send(&ask.method, &ask.url, kept, lines, &body, ask.timeout_ms, &fetcher);
            let sent = host::sent(sending).await;
            self.waited_ms += host::now_ms().saturating_sub(asked.begun_ms);
            return self.ended(&asked, sent);
        }
        let handle = host::begin(&ask.method, &ask.url, kept, lines, &body, ask.timeout_ms, &fetcher);
        self.out.push(Attempt { handle, asked });
        self.next_to_end(ask.patience_ms).await
    }

    /// Waits for one of the attempts that are out, for so long.
    pub async fn next_to_end(&mut self, patience_ms: Option<u32>) -> Answer {
        let since_ms = host::now_ms();
        let handles: Array = self.out.iter().map(|attempt| &attempt.handle).collect();
        let first = host::wait(host::first_of(&handles, patience_ms.map_or(-1.0, f64::from))).await;
        self.waited_ms += host::now_ms().saturating_sub(since_ms);
        if first.as_ref().is_ok_and(JsValue::is_undefined) {
            return Answer::Slow;
        }
        let at = first.as_ref().map_or(0, |answer| host::place_of(answer) as usize);
        if at >= self.out.len() {
            return Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Broken) };
        }
        let Attempt { asked, .. } = self.out.remove(at);
        self.ended(&asked, Sent::of(first))
    }

    fn ended(&mut self, asked: &Asked, mut sent: Sent) -> Answer {
        self.drop_body();
        if let Err(SendFault::Body(fault)) = sent.status {
            return Answer::Forwarded { attempt: asked.number, result: Err(ForwardFault::Client(fault)) };
        }
        let ran = asked.function.map(|is_service| Through::ran(is_service, &mut sent)).transpose();
        let ran = match ran {
            Ok(ran) => ran,
            Err(fault) => {
                host::give_up_body(Some(sent.body));
                let result = Err(ForwardFault::Function(fault));
                return Answer::Forwarded { attempt: asked.number, result };
            }
        };
        let result = match sent.status {
            Ok(status) => {
                let elapsed_ms =
                    u32::try_from(host::now_ms().saturating_sub(asked.begun_ms)).unwrap_or(u32::MAX);
                let head = ResponseHead { status, headers: sent.headers, elapsed_ms, ran };
                self.body = Some(asked.limited(&head, sent.body));
                Ok(head)
            }
            Err(SendFault::Timeout) => Err(ForwardFault::Timeout),
            Err(_) => Err(ForwardFault::Broken),
        };
        Answer::Forwarded { attempt: asked.number, result }
    }

    /// Gives up the attempts that are still out.
    pub fn give_up(&mut self) {
        for attempt in self.out.drain(..) {
            host::give_up(&attempt.handle);
        }
    }

    /// Gives up the body of the response that came last.
    pub fn drop_body(&mut self) {
        host::give_up_body(self.body.take());
    }
}

impl Asked {
    /// The body of a response within its limits. The bytes of a length that is told need not be counted.
    fn limited(&self, head: &ResponseHead, body: JsValue) -> JsValue {
        let bytes_max = self.response_bytes_max.filter(|_| head.body_bytes().is_none());
        if bytes_max.is_none() && self.body_timeout_ms.is_none() {
            return body;
        }
        let pause_ms = self.body_timeout_ms.map_or(-1.0, f64::from);
        host::limited(&body, bytes_max.map_or(-1.0, |bytes| bytes as f64), pause_ms)
    }
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

    /// Reads the beginning of the body, which stays at hand for the attempts.
    pub async fn peek(&mut self, bytes_max: u32) -> Option<Peeked> {
        let (message, size) = match std::mem::replace(self, Self::Gone) {
            Self::Untouched(message, size) => (message, size),
            // There is none, or nothing is left of it to read.
            body => {
                *self = body;
                return None;
            }
        };
        let length = if let BodySize::Bytes(length) = size { length as f64 } else { -1.0 };
        let peeked = match host::wait(host::peek(&message, bytes_max, length, BODY_PAUSE_MS)).await {
            Ok(peeked) => Array::from(&peeked),
            Err(error) => {
                *self = Self::Failed(host::client_fault(&error));
                return None;
            }
        };
        let (bytes, rest) = (Uint8Array::from(peeked.get(0)), peeked.get(1));
        let whole = rest.is_undefined();
        let first = bytes.subarray(0, bytes_max).to_vec();
        *self = if whole { Self::Kept(bytes.into()) } else { Self::Untouched(rest, size) };
        Some(Peeked { bytes: first, whole })
    }

    /// The body to send: the bytes where it is known to be short, or the stream.
    async fn take(&mut self) -> Result<JsValue, ForwardFault> {
        match std::mem::replace(self, Self::Gone) {
            Self::None => {
                *self = Self::None;
                Ok(JsValue::UNDEFINED)
            }
            Self::Untouched(request, BodySize::Bytes(length)) if length <= REPLAY_BODY_BYTES_MAX => {
                match host::wait(host::bytes_of(&request, BODY_PAUSE_MS)).await {
                    Ok(bytes) => {
                        *self = Self::Kept(bytes.clone());
                        Ok(bytes)
                    }
                    Err(error) => {
                        let fault = host::client_fault(&error);
                        *self = Self::Failed(fault);
                        Err(ForwardFault::Client(fault))
                    }
                }
            }
            Self::Untouched(request, size) => {
                let length = if let BodySize::Bytes(length) = size { length as f64 } else { -1.0 };
                Ok(host::upload(&request, length, BODY_PAUSE_MS))
            }
            Self::Kept(bytes) => {
                *self = Self::Kept(bytes.clone());
                Ok(bytes)
            }
            Self::Gone => Err(ForwardFault::BodyGone),
            Self::Failed(fault) => {
                *self = Self::Failed(fault);
                Err(ForwardFault::Client(fault))
            }
        }
    }
}
