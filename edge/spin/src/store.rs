//! Storing a response, as it passes or once nobody waits for it.

use std::rc::Rc;

use meridian_engine::node::Fetched;
use meridian_engine::step::{CacheKey, Entry};

use crate::cache::{Cached, Kept};
use crate::content;
use crate::instance::{Memory, now_ms};
use crate::message::Incoming;
use crate::shelf::{self, Shelving};

/// A response that is to be stored.
pub struct Store {
    /// Decision that fetched it.
    pub(crate) of: String,
    pub(crate) key: CacheKey,
    pub(crate) entry: Entry,
    pub(crate) until_ms: u64,
    pub(crate) refresh: bool,
    pub(crate) body: Option<Kept>,
}

impl Store {
    /// Stores the response with the body of the entry found, or with that of this one, which goes nowhere else.
    pub async fn perform(mut self, memory: &Rc<Memory>, response: Option<Incoming>) {
        let kept = match (self.body.take(), response) {
            (Some(kept), _) => Ok(kept),
            (None, Some(response)) => {
                let shelving = Shelving::new(Rc::clone(memory), self.key.clone(), self.until_ms);
                content::keep(response, shelving).await
            }
            (None, None) => Err(Fetched::Lost),
        };
        self.write(memory, kept).await;
    }

    /// Stores the response with its body, unless that is not whole or can't be kept, and tells those who wait for it.
    pub async fn write(self, memory: &Memory, body: Result<Kept, Fetched>) {
        let Self { of, key, entry, until_ms, .. } = self;
        let fetched = match body {
            Ok(body) => {
                let entry = Entry { body_bytes: body.bytes(), ..entry };
                let cached = Cached { key: key.clone(), entry, until_ms, stored_ms: now_ms(), body };
                if shelf::put(memory, cached).await { Fetched::Stored } else { Fetched::NotForOthers }
            }
            Err(fetched) => fetched,
        };
        memory.node.borrow_mut().fetched(&key, &of, fetched, now_ms());
    }
}
