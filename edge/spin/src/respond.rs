//! Makes the response of a reply.

use std::rc::Rc;

use meridian_engine::refusal::ServerTiming;
use meridian_engine::step::{Reply, ReplyBody};
use meridian_wire::event::Seen;
use spin_sdk::wasip3::http::types::{HeaderError, Response};

use crate::cache::Kept;
use crate::content::{self, Plan};
use crate::later::Later;
use crate::limits::RUNS_MAX;
use crate::message::{self, Content};
use crate::perform::{Passage, fields, millis};
use crate::shelf::{Reading, Shelving};
use crate::store::Store;

impl Passage {
    /// Makes the response of a reply and begins what shall be done once it is on its way.
    pub fn respond(mut self, reply: Reply, seen: Seen) -> Result<Response, HeaderError> {
        let Reply { status, headers, body, html, coding, decision, after } = reply;
        let elapsed = self.started.elapsed();
        let edge = elapsed.saturating_sub(self.at_targets);
        let elapsed_ms = millis(elapsed);
        let mut later = Later::new(Rc::clone(&self.memory), after, &decision.id, RUNS_MAX);
        if later.logs {
            self.memory.events.borrow_mut().outbox.push(&decision, &Seen { elapsed_ms, ..seen });
        }
        let mut fields = fields(&headers);
        let timing = ServerTiming { edge, origin: self.at_targets };
        fields.push(("server-timing".to_owned(), timing.to_string().into_bytes()));
        let (mut length, mut keep, mut bytes_max, mut connection) = (None, None, None, None);
        let mut content = match body {
            ReplyBody::Empty => Content::Empty,
            ReplyBody::Bytes(bytes) => {
                length = Some(bytes.len());
                Content::Bytes(bytes)
            }
            part @ (ReplyBody::Cached | ReplyBody::CachedPart { .. }) => {
                let kept = self.found.as_mut().map(|found| match &mut found.body {
                    Kept::Here(body) => Kept::Here(std::mem::take(body)),
                    Kept::Shelved(shelved) => Kept::Shelved(*shelved),
                });
                let kept = kept.unwrap_or(Kept::Here(Vec::new()));
                if let Some(Store { refresh: true, body: stored, .. }) = &mut later.store {
                    *stored = Some(kept.clone());
                }
                let (first, bytes) = match part {
                    ReplyBody::CachedPart { first, bytes } => (first, bytes),
                    _ => (0, kept.bytes()),
                };
                length = usize::try_from(bytes).ok();
                match kept {
                    Kept::Here(body) => Content::Bytes(within(body, first, bytes)),
                    Kept::Shelved(shelved) => {
                        Content::Shelved(Reading::new(Rc::clone(&self.memory), shelved, first, bytes))
                    }
                }
            }
            ReplyBody::Forwarded => match self.response.take() {
                None => Content::Empty,
                Some(mut response) => {
                    bytes_max = response.bytes_max;
                    connection = response.connection.take();
                    let store = later.store.take_if(|store| !store.refresh);
                    keep = store.map(|store| {
                        let memory = Rc::clone(&self.memory);
                        let shelving = Shelving::new(memory, store.key.clone(), store.until_ms);
                        (store, shelving)
                    });
                    Content::Stream(response.body())
                }
            },
        };
        let plan = Plan { bytes_max, html, coding, connection, keep, decision: decision.id };
        if !plan.is_empty() {
            content = content::pass_on(content, plan);
        } else if let Some(length) = length {
            fields.push(("content-length".to_owned(), length.to_string().into_bytes()));
        }
        later.take_rest(self.response, self.found);
        let response = message::response(status, &fields, content);
        later.begin();
        response
    }
}

/// A part of a body.
fn within(mut body: Vec<u8>, first: u64, bytes: u64) -> Vec<u8> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    body.truncate(place(first.saturating_add(bytes)));
    body.drain(..place(first).min(body.len()));
    body
}
