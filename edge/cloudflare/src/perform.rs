//! Performs the steps of an exchange, one after the other, until there is a reply; then what was left for later.

use std::rc::Rc;
use std::time::Duration;

use meridian_engine::decision::Decision;
use meridian_engine::exchange::Exchange;
use meridian_engine::limits::SYNC_WAIT_MS;
use meridian_engine::refusal::ServerTiming;
use meridian_engine::step::{After, Answer, Reply, ReplyBody, Step};
use meridian_wire::event::Seen;
use worker::wasm_bindgen::JsValue;
use worker::{Context, console_error};

use crate::events::Flush;
use crate::forward::{Attempts, RequestBody};
use crate::isolate::Isolate;
use crate::limits::SYNC_BACKGROUND_MS;
use crate::{authority, bundle, cache, content, events, host, signature};

/// One exchange on its way, with what the host keeps for it.
pub struct Passage {
    isolate: Rc<Isolate>,
    ctx: Rc<Context>,
    /// What an event tells beside the decision.
    seen: Seen,
    request_body: RequestBody,
    attempts: Attempts,
    /// Body of the entry that the last look-up found.
    found: Option<JsValue>,
}

impl Passage {
    /// A passage for one request.
    pub fn new(isolate: Rc<Isolate>, ctx: Rc<Context>, seen: Seen, request_body: RequestBody) -> Self {
        Self { isolate, ctx, seen, request_body, attempts: Attempts::default(), found: None }
    }

    /// Performs steps until there is a reply.
    pub async fn drive(&mut self, mut exchange: Exchange, mut step: Step) -> Reply {
        loop {
            let answer = match step {
                Step::Reply(reply) => {
                    self.attempts.give_up();
                    return *reply;
                }
                step => self.perform(step).await,
            };
            let now_ms = host::now_ms();
            step = exchange.resume(&mut self.isolate.node.borrow_mut(), answer, now_ms);
        }
    }

    async fn perform(&mut self, step: Step) -> Answer {
        let isolate = &self.isolate;
        if !matches!(step, Step::Forward(_) | Step::Await) {
            self.attempts.give_up();
        }
        match step {
            Step::Sync(ask) => Answer::Synced(bundle::sync(isolate, &ask, SYNC_WAIT_MS).await),
            Step::Load(keys) => Answer::Loaded(bundle::load(isolate, &self.ctx, &keys).await),
            Step::FetchKeys(ask) => Answer::Keys(bundle::fetch_keys(&ask).await.into()),
            Step::Verify(ask) => Answer::Verified(signature::verify(isolate, &ask).await),
            Step::Peek { bytes_max } => Answer::Peeked(self.request_body.peek(bytes_max).await),
            Step::Take(takes) => Answer::Taken(authority::take(isolate, &takes).await),
            Step::Pause { ms } => {
                // A timer that fails is over.
                let _ = host::wait(host::sleep(ms)).await;
                Answer::Paused
            }
            Step::LookUp(key) => {
                let found = cache::look_up(&key).await;
                let (entry, body) = found.map_or((None, None), |(entry, body)| (Some(entry), Some(body)));
                host::give_up_body(std::mem::replace(&mut self.found, body));
                Answer::Found(entry)
            }
            Step::Forward(ask) => self.attempts.forward(isolate, &mut self.request_body, *ask).await,
            Step::Await => self.attempts.next_to_end(None).await,
            // A reply ends the loop of `drive` before it comes here.
            Step::Reply(_) => Answer::Synced(None),
        }
    }

    /// Makes the response of a reply and begins what shall be done once it is on its way.
    pub fn respond(mut self, reply: Reply) -> Result<JsValue, JsValue> {
        let elapsed_ms = host::now_ms().saturating_sub(self.seen.at_ms);
        let mut headers = reply.headers;
        let timing = ServerTiming {
            edge: Duration::from_millis(elapsed_ms.saturating_sub(self.attempts.waited_ms)),
            origin: Duration::from_millis(self.attempts.waited_ms),
        };
        headers.append_display("server-timing", timing);
        let bytes = match &reply.body {
            ReplyBody::Bytes(bytes) => {
                Some(JsValue::from(worker::js_sys::Uint8Array::from(bytes.as_slice())))
            }
            _ => None,
        };
        let stored = self.body_to_store(&reply.after, &reply.body);
        let body = match reply.body {
            ReplyBody::Empty => None,
            ReplyBody::Bytes(_) => bytes,
            ReplyBody::Forwarded => self.attempts.body.take(),
            ReplyBody::Cached => self.found.take(),
            ReplyBody::CachedPart { first, bytes } => {
                self.found.take().map(|body| host::part(&body, first as f64, bytes as f64))
            }
        };
        let body = body.unwrap_or(JsValue::NULL);
        let response =
            content::reworked(body, &reply.html, reply.coding, &reply.decision.id).and_then(|body| {
                let fields = self.isolate.fields.borrow_mut().fields(&headers);
                host::respond(reply.status, &fields.kept, &fields.lines, &body, reply.coding.is_some())
            });
        self.seen.elapsed_ms = u32::try_from(elapsed_ms).unwrap_or(u32::MAX);
        after(&self.isolate, &self.ctx, &reply.decision, &self.seen, reply.after, stored);
        self.attempts.drop_body();
        host::give_up_body(self.found.take());
        response
    }

    /// The body that a [`After::Store`] stores: that of the reply divided in two where the client gets it as well.
    fn body_to_store(&mut self, after: &[After], reply: &ReplyBody) -> Option<JsValue> {
        let refresh = after.iter().find_map(|item| match item {
            After::Store { refresh, .. } => Some(*refresh),
            _ => None,
        })?;
        let (source, shared) = match refresh {
            true => (&mut self.found, matches!(reply, ReplyBody::Cached | ReplyBody::CachedPart { .. })),
            false => (&mut self.attempts.body, *reply == ReplyBody::Forwarded),
        };
        if !shared {
            return source.take();
        }
        let both = host::tee(source.as_ref()?).ok()?;
        *source = Some(both.get(0));
        Some(both.get(1))
    }
}

/// Begins everything that shall be done after the reply of a decision.
fn after(
    isolate: &Rc<Isolate>,
    ctx: &Rc<Context>,
    decision: &Decision,
    seen: &Seen,
    items: Vec<After>,
    mut stored: Option<JsValue>,
) {
    for item in items {
        match item {
            After::Store { key, entry, keep_ms, refresh: _ } => {
                let body = stored.take().unwrap_or(JsValue::NULL);
                let (isolate, of) = (Rc::clone(isolate), decision.id.clone());
                ctx.wait_until(async move {
                    let fetched = cache::store(&key, &entry, keep_ms, &body).await;
                    isolate.node.borrow_mut().fetched(&key, &of, fetched, host::now_ms());
                });
            }
            After::Forget(keys) => ctx.wait_until(async move { cache::forget(&keys).await }),
            After::Run(exchange, step) => {
                ctx.wait_until(run(Rc::clone(isolate), Rc::clone(ctx), exchange, step));
            }
            After::Sync(ask) => {
                let isolate = Rc::clone(isolate);
                ctx.wait_until(async move {
                    let news = bundle::sync(&isolate, &ask, SYNC_BACKGROUND_MS).await;
                    isolate.node.borrow_mut().synced(news, host::now_ms());
                });
            }
            After::FetchKeys(ask) => {
                let isolate = Rc::clone(isolate);
                ctx.wait_until(async move {
                    let answer = bundle::fetch_keys(&ask).await;
                    let mut node = isolate.node.borrow_mut();
                    node.keys_fetched(&ask, answer, host::now_ms());
                });
            }
            After::Log => {
                let flush = isolate.events.borrow_mut().push(decision, seen, host::now_ms());
                let isolate = Rc::clone(isolate);
                match flush {
                    Flush::Other => {}
                    Flush::Later => ctx.wait_until(events::flush_later(isolate)),
                    Flush::Now => ctx.wait_until(async move { events::flush(&isolate).await }),
                }
            }
        }
    }
}

/// Drives an exchange whose reply goes to nobody.
async fn run(isolate: Rc<Isolate>, ctx: Rc<Context>, exchange: Box<Exchange>, step: Box<Step>) {
    let seen = Seen { at_ms: host::now_ms(), ..Seen::default() };
    let mut passage = Passage::new(isolate, ctx, seen, RequestBody::none());
    let mut reply = passage.drive(*exchange, *step).await;
    reply.body = ReplyBody::Empty;
    if let Err(error) = passage.respond(reply) {
        console_error!("revalidation: {}", host::text_of(&error));
    }
}
