//! Storing a response, as it passes or once it is here whole.

use std::rc::Rc;

use meridian_engine::step::{CacheKey, Entry};
use spin_sdk::wasip3::spawn;

use crate::cache::{self, Cached};
use crate::instance::Memory;
use crate::limits::CACHE_BODY_BYTES_MAX;
use crate::message;

/// A response that is to be stored.
pub struct Store {
    pub(crate) key: CacheKey,
    pub(crate) entry: Entry,
    pub(crate) until_ms: u64,
    pub(crate) refresh: bool,
    pub(crate) body: Option<Vec<u8>>,
}

impl Store {
    /// Hands a body on and stores the response with a copy of it before it ends: whoever has it whole finds it stored.
    pub fn tee(self, memory: Rc<Memory>, body: message::Body) -> message::Body {
        let (writer, through) = message::pipe();
        spawn(async move {
            if let Some((copy, writer)) = body.tee(writer, CACHE_BODY_BYTES_MAX).await {
                self.write(&memory, copy).await;
                drop(writer);
            }
        });
        through
    }

    /// Stores the response with its body.
    pub async fn write(self, memory: &Memory, body: Vec<u8>) {
        let entry = Entry { body_bytes: body.len() as u64, ..self.entry };
        let cached = Cached { key: self.key, entry, until_ms: self.until_ms, body };
        if let Some(bytes) = cache::encode(&cached) {
            memory.write(&cache::place_of(&cached.key), bytes).await;
        }
    }
}
