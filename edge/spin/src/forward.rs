//! One attempt at a target, with the client's body where it is asked for.

use std::time::Instant;

use meridian_engine::limits::REPLAY_BODY_BYTES_MAX;
use meridian_engine::step::{Forward, ForwardFault, ResponseHead};
use meridian_wire::context::{self, Context};
use spin_sdk::wasip3::http::types::Request;

use crate::message::{self, Body, Content, Outgoing, SendFault};
use crate::origin;
use crate::perform::{Passage, fields, millis};

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
}

impl Passage {
    /// Sends an attempt and waits for the head of its answer.
    pub(crate) async fn forward(&mut self, forward: Forward) -> Result<ResponseHead, ForwardFault> {
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
        let outgoing = Outgoing {
            method: &forward.method,
            url: &forward.url,
            fields,
            content,
            length: self.body_length,
            timeout_ms: forward.timeout_ms,
        };
        let sent = Instant::now();
        let answer = message::send(outgoing).await;
        let elapsed = sent.elapsed();
        self.at_targets += elapsed;
        let mut response = answer.map_err(|fault| match fault {
            SendFault::Connect(_) => ForwardFault::Connect,
            SendFault::Timeout => ForwardFault::Timeout,
            SendFault::Broken(_) | SendFault::TooLarge(_) => ForwardFault::Broken,
        })?;
        let headers = std::mem::take(&mut response.headers);
        let head = ResponseHead { status: response.status, headers, elapsed_ms: millis(elapsed) };
        self.response = Some(response);
        Ok(head)
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
        match rest.at_most(begun, bytes_max).await.map_err(|_| ForwardFault::Broken)? {
            (bytes, None) => {
                self.body = RequestBody::Kept(bytes.clone());
                Ok(Content::Bytes(bytes))
            }
            (_, Some(_)) if measure => Err(ForwardFault::BodyGone),
            (bytes, Some(rest)) => Ok(Content::Begun(bytes, rest)),
        }
    }
}
