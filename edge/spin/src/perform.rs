//! Performs the steps of an exchange, one after the other, until there is a reply.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use meridian_engine::exchange::Exchange;
use meridian_engine::headers::Headers;
use meridian_engine::limits::SYNC_WAIT_MS;
use meridian_engine::step::{Answer, CacheKey, Entry, Reply, Step, Verify};
use meridian_wire::signature::verify_token;
use spin_sdk::time::sleep;

use crate::cache::Cached;
use crate::forward::{Ended, RequestBody};
use crate::instance::{Memory, now_ms};
use crate::message::Incoming;
use crate::{bundle, keys, origin, shelf};

/// One exchange on its way, with what the host keeps for it.
pub struct Passage {
    pub(crate) memory: Rc<Memory>,
    pub(crate) body: RequestBody,
    /// Length of the client's body, if it is known.
    pub(crate) body_length: Option<u64>,
    /// Attempts that are out beside one another.
    pub(crate) out: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    /// Response that the last forward brought.
    pub(crate) response: Option<Incoming>,
    /// Entry that the last look-up found.
    pub(crate) found: Option<Cached>,
    pub(crate) started: Instant,
    /// How long targets were waited for.
    pub(crate) at_targets: Duration,
}

impl Passage {
    /// A passage for one request.
    pub fn new(memory: Rc<Memory>, body: RequestBody, body_length: Option<u64>) -> Self {
        Self {
            memory,
            body,
            body_length,
            out: FuturesUnordered::new(),
            response: None,
            found: None,
            started: Instant::now(),
            at_targets: Duration::ZERO,
        }
    }

    /// Performs steps until there is a reply.
    pub async fn drive(&mut self, mut exchange: Exchange, mut step: Step) -> Reply {
        loop {
            if !matches!(step, Step::Forward(_) | Step::Await) {
                // Dropped, an attempt's connection is given up.
                self.out.clear();
            }
            let answer = match step {
                Step::Reply(reply) => return *reply,
                Step::Sync(ask) => Answer::Synced(origin::sync(&self.memory, &ask, SYNC_WAIT_MS).await),
                Step::Load(keys) => Answer::Loaded(bundle::load(&self.memory, &keys).await),
                Step::FetchKeys(ask) => Answer::Keys(keys::fetch(&self.memory, &ask).await),
                Step::Verify(ask) => Answer::Verified(is_right(&ask)),
                Step::Take(takes) => {
                    Answer::Taken(join_all(takes.iter().map(|take| origin::take(&self.memory, take))).await)
                }
                Step::Peek { bytes_max } => Answer::Peeked(self.peek(bytes_max).await),
                Step::Pause { ms } => {
                    sleep(Duration::from_millis(ms.into())).await;
                    Answer::Paused
                }
                Step::LookUp(key) => Answer::Found(self.look_up(&key).await),
                Step::Forward(forward) => self.forward(*forward).await,
                Step::Await => self.next_to_end(None).await,
            };
            step = exchange.resume(&mut self.memory.node.borrow_mut(), answer, now_ms());
        }
    }

    async fn look_up(&mut self, key: &CacheKey) -> Option<Entry> {
        self.found = shelf::look_up(&self.memory, key).await;
        self.found.as_ref().map(|found| found.entry.clone())
    }
}

fn is_right(ask: &Verify) -> bool {
    verify_token(ask)
}

/// Header fields as the host takes them.
pub fn fields(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
}

/// Milliseconds of a duration.
pub fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
