//! Attempts at targets, one or two at a time, with the client's body where it is asked for.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use meridian_engine::limits::REPLAY_BODY_BYTES_MAX;
use meridian_engine::policy::steering::Connection;
use meridian_engine::step::function::{ENDED_FIELD, of_ended_field};
use meridian_engine::step::{
    Answer, ClientFault, Forward, ForwardFault, FunctionCall, FunctionFailure, FunctionFault, Peeked, Ran,
    ResponseHead,
};
use meridian_wire::context::{self, Context};
use spin_sdk::time::sleep;
use spin_sdk::wasip3::http::types::Request;

use crate::instance::now_ms;
use crate::message::{self, Body, Content, Incoming, Outgoing, SendFault};
use crate::perform::{Passage, fields, millis};
use crate::{functions, origin};

/// The client's body, as far as it is known.
pub enum RequestBody {
    /// There is none.
    None,
    /// It is still with the host.
    Unread(Request),
    /// Its first bytes are here, the rest is still with the host.
    Begun(Vec<u8>, Body),
    /// It is here whole.
    Kept(Vec<u8>),
    /// It went to a target.
    Gone,
    /// It did not come whole.
    Failed(ClientFault),
}

/// An attempt that has come to its end.
pub struct Ended {
    attempt: u32,
    answer: Result<Incoming, SendFault>,
    /// The function that it went through.
    function: Option<Box<FunctionCall>>,
    /// Bytes that the body of the answer may have.
    bytes_max: Option<u64>,
    connection: Option<Connection>,
    elapsed: Duration,
}

/// A request on its way to a target.
struct ToSend {
    forward: Forward,
    url: String,
    fields: Vec<(String, Vec<u8>)>,
    content: Content,
    length: Option<u64>,
}

impl Passage {
    /// Sends an attempt and waits for the head of an answer, of this attempt or of one that is out already.
    pub(crate) async fn forward(&mut self, forward: Forward) -> Answer {
        let Forward { attempt, patience_ms, .. } = forward;
        let request = match self.request(forward).await {
            Ok(request) => request,
            Err(fault) => return Answer::Forwarded { attempt, result: Err(fault) },
        };
        let sending = async move {
            let sent = Instant::now();
            let answer = message::send(Outgoing {
                method: &request.forward.method,
                url: &request.url,
                fields: request.fields,
                content: request.content,
                length: request.length,
                timeout_ms: request.forward.timeout_ms,
                connect_timeout_ms: request.forward.connect_timeout_ms,
                body_timeout_ms: request.forward.body_timeout_ms,
            })
            .await;
            let Forward { function, response_bytes_max: bytes_max, connection, .. } = request.forward;
            Ended { attempt, answer, function, bytes_max, connection, elapsed: sent.elapsed() }
        };
        if patience_ms.is_none() && self.out.is_empty() {
            let ended = sending.await;
            self.at_targets += ended.elapsed;
            return self.ended(ended);
        }
        self.out.push(Box::pin(sending));
        self.next_to_end(patience_ms).await
    }

    /// Waits for one of the attempts that are out, for so long.
    pub(crate) async fn next_to_end(&mut self, patience_ms: Option<u32>) -> Answer {
        let since = Instant::now();
        let ended = match patience_ms {
            None => self.out.next().await,
            Some(patience_ms) => {
                let patience = pin!(sleep(Duration::from_millis(patience_ms.into())));
                match select(self.out.next(), patience).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(_) => {
                        self.at_targets += since.elapsed();
                        return Answer::Slow;
                    }
                }
            }
        };
        self.at_targets += since.elapsed();
        match ended {
            Some(ended) => self.ended(ended),
            None => Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Broken) },
        }
    }

    fn ended(&mut self, ended: Ended) -> Answer {
        let Ended { attempt, mut answer, function, bytes_max, connection, elapsed } = ended;
        let ran = match function.map(|call| self.ran(&call, &mut answer)).transpose() {
            Ok(ran) => ran.flatten(),
            Err(fault) => return Answer::Forwarded { attempt, result: Err(ForwardFault::Function(fault)) },
        };
        let result = match answer {
            Ok(mut response) => {
                let headers = std::mem::take(&mut response.headers);
                let elapsed_ms = millis(elapsed);
                let head = ResponseHead { status: response.status, headers, elapsed_ms, ran };
                response.bytes_max = bytes_max.filter(|_| head.body_bytes().is_none());
                if let Some(connection) = &connection {
                    connection.answered(now_ms());
                }
                response.connection = connection;
                self.response = Some(response);
                Ok(head)
            }
            Err(SendFault::Connect(_) | SendFault::Denied) => Err(ForwardFault::Connect),
            Err(SendFault::Timeout) => Err(ForwardFault::Timeout),
            Err(SendFault::Body(fault)) => Err(ForwardFault::Client(fault)),
            Err(SendFault::Broken(_) | SendFault::TooLarge(_)) => Err(ForwardFault::Broken),
        };
        Answer::Forwarded { attempt, result }
    }

    /// Reads the beginning of the client's body, which stays at hand for the attempts.
    pub(crate) async fn peek(&mut self, bytes_max: u32) -> Option<Peeked> {
        let (begun, rest) = match std::mem::replace(&mut self.body, RequestBody::Gone) {
            RequestBody::Unread(request) => (Vec::new(), message::request_body(request)),
            RequestBody::Begun(bytes, rest) => (bytes, rest),
            // There is none, or nothing is left of it to read.
            body => {
                self.body = body;
                return None;
            }
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let (bytes, rest) = match rest.at_most(begun, bytes_max).await {
            Ok(read) => read,
            Err(fault) => {
                self.body = RequestBody::Failed(fault.of_client());
                return None;
            }
        };
        let first = bytes.get(..bytes_max).unwrap_or(&bytes).to_vec();
        let whole = rest.is_none();
        self.body = match rest {
            Some(rest) => RequestBody::Begun(bytes, rest),
            None => RequestBody::Kept(bytes),
        };
        Some(Peeked { bytes: first, whole })
    }

    /// What came of the function that an attempt went through.
    fn ran(
        &self,
        call: &FunctionCall,
        answer: &mut Result<Incoming, SendFault>,
    ) -> Result<Option<Ran>, FunctionFault> {
        let response = match answer {
            Ok(response) => response,
            // Nobody runs functions here.
            Err(SendFault::Denied) => {
                return Err(FunctionFault { why: FunctionFailure::Unsupported, sent_on: false });
            }
            // A function may have sent another body than the client's.
            Err(SendFault::Body(_)) => {
                return Err(FunctionFault { why: FunctionFailure::Error, sent_on: true });
            }
            // The target failed, and the function has left it at that.
            Err(_) => return Ok(None),
        };
        let ran = of_ended_field(response.headers.get(ENDED_FIELD));
        response.headers.remove(ENDED_FIELD);
        if let Err(FunctionFault { why: FunctionFailure::Missing, .. }) = ran {
            self.memory.functions.borrow_mut().forget(call);
        }
        ran.map(Some)
    }

    async fn request(&mut self, forward: Forward) -> Result<ToSend, ForwardFault> {
        if let Some(call) = &forward.function
            && let Err(why) = functions::bring(&self.memory, call).await
        {
            return Err(ForwardFault::Function(FunctionFault { why, sent_on: false }));
        }
        // Of unknown length, hosts send no body with these: its length has to be known first.
        let measure = self.body_length.is_none() && matches!(forward.method.as_str(), "GET" | "HEAD");
        let content = match forward.send_body {
            true => self.content(forward.keep_body, measure).await?,
            false => Content::Empty,
        };
        let mut fields = fields(&forward.headers);
        if let Some(claims) = &forward.sign {
            let context = Context::of(claims, &self.memory.config.edge);
            let signed = origin::sign(&self.memory, &context, &forward.method, &forward.url);
            fields.push((context::HEADER.to_owned(), signed.into_bytes()));
        }
        let url = match &forward.function {
            Some(call) => functions::turned(call, &forward.url, &mut fields).ok_or(ForwardFault::Broken)?,
            None => forward.url.clone(),
        };
        Ok(ToSend { forward, url, fields, content, length: self.body_length })
    }

    /// The client's body for an attempt, kept for the next one where that is asked for and it is short enough.
    async fn content(&mut self, keep: bool, measure: bool) -> Result<Content, ForwardFault> {
        match std::mem::replace(&mut self.body, RequestBody::Gone) {
            RequestBody::None => {
                self.body = RequestBody::None;
                Ok(Content::Empty)
            }
            RequestBody::Unread(request) => {
                self.streamed(Vec::new(), message::request_body(request), keep, measure).await
            }
            RequestBody::Begun(bytes, rest) => self.streamed(bytes, rest, keep, measure).await,
            RequestBody::Kept(bytes) => {
                self.body = RequestBody::Kept(bytes.clone());
                Ok(Content::Bytes(bytes))
            }
            RequestBody::Gone => Err(ForwardFault::BodyGone),
            RequestBody::Failed(fault) => {
                self.body = RequestBody::Failed(fault);
                Err(ForwardFault::Client(fault))
            }
        }
    }

    async fn streamed(
        &mut self,
        begun: Vec<u8>,
        rest: Body,
        keep: bool,
        measure: bool,
    ) -> Result<Content, ForwardFault> {
        if !(keep || measure) || self.body_length.is_some_and(|length| length > REPLAY_BODY_BYTES_MAX) {
            return Ok(if begun.is_empty() { Content::Stream(rest) } else { Content::Begun(begun, rest) });
        }
        let bytes_max = usize::try_from(REPLAY_BODY_BYTES_MAX).unwrap_or(usize::MAX);
        let read = rest.at_most(begun, bytes_max).await;
        match read.map_err(|fault| ForwardFault::Client(fault.of_client()))? {
            (bytes, None) => {
                self.body = RequestBody::Kept(bytes.clone());
                Ok(Content::Bytes(bytes))
            }
            (_, Some(_)) if measure => Err(ForwardFault::BodyGone),
            (bytes, Some(rest)) => Ok(Content::Begun(bytes, rest)),
        }
    }
}
