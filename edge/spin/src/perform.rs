//! Performs the steps of an exchange, one after the other, until there is a reply; then what was left for later.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use meridian_engine::exchange::Exchange;
use meridian_engine::headers::Headers;
use meridian_engine::limits::{REPLAY_BODY_BYTES_MAX, SYNC_WAIT_MS};
use meridian_engine::refusal::ServerTiming;
use meridian_engine::step::{
    After, Answer, CacheKey, Entry, Forward, ForwardFault, Reply, ReplyBody, ResponseHead, Step, Verify,
};
use meridian_wire::context::{self, Context};
use meridian_wire::event::{Event, Seen};
use meridian_wire::signature::verify_token;
use spin_sdk::time::sleep;
use spin_sdk::wasip3::http::types::{HeaderError, Request, Response};
use spin_sdk::wasip3::spawn;

use crate::cache::{self, Cached};
use crate::instance::{Memory, now_ms};
use crate::limits::{CACHE_BODY_BYTES_MAX, EVENTS_AGAIN_MS, EVENTS_WAIT_MS, RUNS_MAX, SYNC_TIMEOUT_MS};
use crate::message::{self, Body, Content, Incoming, Outgoing, SendFault};
use crate::{bundle, origin};

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

/// One exchange on its way, with what the host keeps for it.
pub struct Passage {
    memory: Rc<Memory>,
    body: RequestBody,
    /// Length of the client's body, if it is known.
    body_length: Option<u64>,
    /// Response that the last forward brought.
    response: Option<Incoming>,
    /// Entry that the last look-up found.
    found: Option<Cached>,
    started: Instant,
    /// How long targets were waited for.
    at_targets: Duration,
}

impl Passage {
    /// A passage for one request.
    pub fn new(memory: Rc<Memory>, body: RequestBody, body_length: Option<u64>) -> Self {
        Self {
            memory,
            body,
            body_length,
            response: None,
            found: None,
            started: Instant::now(),
            at_targets: Duration::ZERO,
        }
    }

    /// Performs steps until there is a reply.
    pub async fn drive(&mut self, mut exchange: Exchange, mut step: Step) -> Reply {
        loop {
            let answer = match step {
                Step::Reply(reply) => return *reply,
                Step::Sync(ask) => Answer::Synced(origin::sync(&self.memory, &ask, SYNC_WAIT_MS).await),
                Step::Load(keys) => Answer::Loaded(bundle::load(&self.memory, &keys).await),
                Step::FetchKeys(ask) => Answer::Keys(bundle::fetch_keys(&ask).await),
                Step::Verify(ask) => Answer::Verified(is_right(&ask)),
                Step::Take(takes) => {
                    Answer::Taken(join_all(takes.iter().map(|take| origin::take(&self.memory, take))).await)
                }
                Step::LookUp(key) => Answer::Found(self.look_up(&key).await),
                Step::Forward(forward) => Answer::Forwarded(self.forward(*forward).await),
            };
            step = exchange.resume(&mut self.memory.node.borrow_mut(), answer, now_ms());
        }
    }

    async fn look_up(&mut self, key: &CacheKey) -> Option<Entry> {
        let stored = self.memory.read(&cache::place_of(key)).await;
        self.found = stored.and_then(|bytes| cache::decode(bytes, key, now_ms()));
        self.found.as_ref().map(|found| found.entry.clone())
    }

    async fn forward(&mut self, forward: Forward) -> Result<ResponseHead, ForwardFault> {
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

    /// Makes the response of a reply and begins what shall be done once it is on its way.
    pub fn respond(mut self, reply: Reply, seen: Seen) -> Result<Response, HeaderError> {
        let Reply { status, headers, body, decision, after } = reply;
        let elapsed = self.started.elapsed();
        let edge = elapsed.saturating_sub(self.at_targets);
        let elapsed_ms = millis(elapsed);
        let mut later = Later::new(Rc::clone(&self.memory), after, RUNS_MAX);
        if later.logs {
            self.memory.events.borrow_mut().push(Event::of(&decision, Seen { elapsed_ms, ..seen }));
        }
        let mut fields = fields(&headers);
        let timing = ServerTiming { edge, origin: self.at_targets };
        fields.push(("server-timing".to_owned(), timing.to_string().into_bytes()));
        let content = match body {
            ReplyBody::Empty => Content::Empty,
            ReplyBody::Bytes(bytes) => {
                fields.push(("content-length".to_owned(), bytes.len().to_string().into_bytes()));
                Content::Bytes(bytes)
            }
            part @ (ReplyBody::Cached | ReplyBody::CachedPart { .. }) => {
                let mut body =
                    self.found.as_mut().map(|found| std::mem::take(&mut found.body)).unwrap_or_default();
                if let Some(Store { refresh: true, body: stored, .. }) = &mut later.store {
                    *stored = Some(body.clone());
                }
                if let ReplyBody::CachedPart { first, bytes } = part {
                    body = within(body, first, bytes);
                }
                fields.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
                Content::Bytes(body)
            }
            ReplyBody::Forwarded => match self.response.take().map(Incoming::body) {
                None => Content::Empty,
                Some(body) => match later.store.take_if(|store| !store.refresh) {
                    None => Content::Stream(body),
                    Some(store) => Content::Stream(store.tee(Rc::clone(&self.memory), body)),
                },
            },
        };
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

/// A response that is to be stored.
struct Store {
    key: CacheKey,
    entry: Entry,
    until_ms: u64,
    refresh: bool,
    body: Option<Vec<u8>>,
}

impl Store {
    /// Hands a body on and stores the response with a copy of it before it ends: whoever has it whole finds it stored.
    fn tee(self, memory: Rc<Memory>, body: message::Body) -> message::Body {
        let (writer, through) = message::pipe();
        spawn(async move {
            if let Some((copy, writer)) = body.tee(writer, CACHE_BODY_BYTES_MAX).await {
                self.write(&memory, copy).await;
                drop(writer);
            }
        });
        through
    }

    async fn write(self, memory: &Memory, body: Vec<u8>) {
        let entry = Entry { body_bytes: body.len() as u64, ..self.entry };
        let cached = Cached { key: self.key, entry, until_ms: self.until_ms, body };
        if let Some(bytes) = cache::encode(&cached) {
            memory.write(&cache::place_of(&cached.key), bytes).await;
        }
    }
}

/// What is left to do once a reply is on its way.
struct Later {
    memory: Rc<Memory>,
    items: Vec<After>,
    store: Option<Store>,
    response: Option<Incoming>,
    logs: bool,
    runs_left: u32,
}

impl Later {
    fn new(memory: Rc<Memory>, after: Vec<After>, runs_left: u32) -> Self {
        let mut later =
            Self { memory, items: Vec::new(), store: None, response: None, logs: false, runs_left };
        for item in after {
            match item {
                After::Store { key, entry, keep_ms, refresh } => {
                    let until_ms = now_ms().saturating_add(keep_ms);
                    later.store = Some(Store { key, entry, until_ms, refresh, body: None });
                }
                After::Log => later.logs = true,
                item => later.items.push(item),
            }
        }
        later
    }

    /// Takes what the reply did not need and the storing does.
    fn take_rest(&mut self, response: Option<Incoming>, found: Option<Cached>) {
        self.response = response;
        if let Some(store) = self.store.as_mut().filter(|store| store.refresh && store.body.is_none()) {
            store.body = found.map(|found| found.body);
        }
    }

    fn begin(self) {
        let sends = self.memory.events.borrow_mut().start();
        if sends {
            spawn(send_events(Rc::clone(&self.memory)));
        }
        if !self.items.is_empty() || self.store.is_some() {
            spawn(self.perform());
        }
    }

    async fn perform(self) {
        let memory = &self.memory;
        if let Some(mut store) = self.store {
            let body = match (store.refresh, self.response) {
                (false, Some(response)) => response.bytes(CACHE_BODY_BYTES_MAX as usize).await.ok(),
                _ => store.body.take(),
            };
            if let Some(body) = body {
                store.write(memory, body).await;
            }
        }
        join_all(self.items.into_iter().map(|item| perform_after(memory, item, self.runs_left))).await;
    }
}

async fn perform_after(memory: &Rc<Memory>, item: After, runs_left: u32) {
    match item {
        After::Forget(keys) => {
            for key in keys {
                memory.delete(&cache::place_of(&key)).await;
            }
        }
        After::Run(exchange, step) => Box::pin(run(Rc::clone(memory), exchange, step, runs_left)).await,
        After::Sync(ask) => {
            let news = origin::sync(memory, &ask, SYNC_TIMEOUT_MS).await;
            memory.node.borrow_mut().synced(news, now_ms());
        }
        After::FetchKeys(ask) => {
            let answer = bundle::fetch_keys(&ask).await;
            memory.node.borrow_mut().keys_fetched(&ask, answer, now_ms());
        }
        // Both are taken out before.
        After::Store { .. } | After::Log => {}
    }
}

/// Drives an exchange whose reply goes to nobody.
async fn run(memory: Rc<Memory>, exchange: Box<Exchange>, step: Box<Step>, runs_left: u32) {
    let Some(runs_left) = runs_left.checked_sub(1) else { return };
    let mut passage = Passage::new(Rc::clone(&memory), RequestBody::None, None);
    let reply = passage.drive(*exchange, *step).await;
    let mut later = Later::new(memory, reply.after, runs_left);
    later.take_rest(passage.response, passage.found);
    later.perform().await;
}

/// Sends events, a batch after the other, after a short wait for more of them.
async fn send_events(memory: Rc<Memory>) {
    sleep(Duration::from_millis(EVENTS_WAIT_MS)).await;
    loop {
        let (batch, dropped) = {
            let mut events = memory.events.borrow_mut();
            (events.batch(&memory.config.edge), events.take_dropped())
        };
        if dropped > 0 {
            eprintln!("{dropped} events were dropped: no origin takes them as fast as they come");
        }
        let Some((batch, again)) = batch else { return };
        if let Err(fault) = origin::send_events(&memory, &batch).await {
            eprintln!("no origin takes {} events: {fault}", batch.events.len());
            memory.events.borrow_mut().put_back(batch, again);
            sleep(Duration::from_millis(EVENTS_AGAIN_MS)).await;
        }
    }
}

fn is_right(ask: &Verify) -> bool {
    verify_token(ask)
}

/// Header fields as the host takes them.
pub fn fields(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
