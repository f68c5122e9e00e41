//! What is left to do once a reply is on its way.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use meridian_engine::exchange::Exchange;
use meridian_engine::step::{After, Step};
use spin_sdk::time::sleep;
use spin_sdk::wasip3::spawn;

use crate::cache::Cached;
use crate::forward::RequestBody;
use crate::instance::{Memory, now_ms};
use crate::limits::{EVENTS_AGAIN_MS, EVENTS_WAIT_MS, SYNC_TIMEOUT_MS};
use crate::message::Incoming;
use crate::perform::Passage;
use crate::store::Store;
use crate::{keys, origin, shelf};

/// What is left to do once a reply is on its way.
pub struct Later {
    memory: Rc<Memory>,
    items: Vec<After>,
    pub(crate) store: Option<Store>,
    response: Option<Incoming>,
    pub(crate) logs: bool,
    runs_left: u32,
}

impl Later {
    /// Sorts what the reply of a decision leaves to do.
    pub fn new(memory: Rc<Memory>, after: Vec<After>, of: &str, runs_left: u32) -> Self {
        let mut later =
            Self { memory, items: Vec::new(), store: None, response: None, logs: false, runs_left };
        for item in after {
            match item {
                After::Store { key, entry, keep_ms, refresh } => {
                    let until_ms = now_ms().saturating_add(keep_ms);
                    later.store =
                        Some(Store { of: of.to_owned(), key, entry, until_ms, refresh, body: None });
                }
                After::Log => later.logs = true,
                item => later.items.push(item),
            }
        }
        later
    }

    /// Takes what the reply did not need and the storing does.
    pub fn take_rest(&mut self, response: Option<Incoming>, found: Option<Cached>) {
        self.response = response;
        if let Some(store) = self.store.as_mut().filter(|store| store.refresh && store.body.is_none()) {
            store.body = found.map(|found| found.body);
        }
    }

    /// Begins what is left, and the sending of events where it is due.
    pub fn begin(self) {
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
        if let Some(store) = self.store {
            // What came with a 304 is no body of it.
            let response = self.response.filter(|_| !store.refresh);
            store.perform(memory, response).await;
        }
        join_all(self.items.into_iter().map(|item| perform_after(memory, item, self.runs_left))).await;
    }
}

async fn perform_after(memory: &Rc<Memory>, item: After, runs_left: u32) {
    match item {
        After::Forget(keys) => {
            for key in keys {
                shelf::forget(memory, &key).await;
            }
        }
        After::Run(exchange, step) => Box::pin(run(Rc::clone(memory), exchange, step, runs_left)).await,
        After::Sync(ask) => {
            let news = origin::sync(memory, &ask, SYNC_TIMEOUT_MS).await;
            memory.node.borrow_mut().synced(news, now_ms());
        }
        After::FetchKeys(ask) => {
            let answer = keys::fetch(memory, &ask).await;
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
    let mut later = Later::new(memory, reply.after, &reply.decision.id, runs_left);
    later.take_rest(passage.response, passage.found);
    later.perform().await;
}

/// Sends events, a batch after the other, after a short wait for more of them.
async fn send_events(memory: Rc<Memory>) {
    sleep(Duration::from_millis(EVENTS_WAIT_MS)).await;
    loop {
        let (batch, dropped) = {
            let mut events = memory.events.borrow_mut();
            (events.take(), events.outbox.take_dropped())
        };
        if dropped > 0 {
            eprintln!("{dropped} events were dropped: no origin takes them as fast as they come");
        }
        let Some(batch) = batch else { return };
        if let Err(fault) = origin::send_events(&memory, &batch).await {
            eprintln!("no origin takes {} events: {fault}", batch.events);
            memory.events.borrow_mut().outbox.put_back(batch);
            sleep(Duration::from_millis(EVENTS_AGAIN_MS)).await;
        }
    }
}
