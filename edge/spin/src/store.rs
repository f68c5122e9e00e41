//! Storing a response, as it passes or once it is here whole.

use meridian_engine::step::{CacheKey, Entry};

use crate::cache::{self, Cached};
use crate::instance::{Memory, now_ms};

/// A response that is to be stored.
pub struct Store {
    pub(crate) key: CacheKey,
    pub(crate) entry: Entry,
    pub(crate) until_ms: u64,
    pub(crate) refresh: bool,
    pub(crate) body: Option<Vec<u8>>,
}

impl Store {
    /// Stores the response, unless its body did not come whole, and tells those who wait for it.
    pub async fn write(self, memory: &Memory, body: Option<Vec<u8>>) {
        let cached = |body: Vec<u8>| {
            let entry = Entry { body_bytes: body.len() as u64, ..self.entry };
            cache::encode(&Cached { key: self.key.clone(), entry, until_ms: self.until_ms, body })
        };
        let bytes = body.and_then(cached);
        let stored = match bytes {
            Some(bytes) => memory.write(&cache::place_of(&self.key), bytes).await,
            None => false,
        };
        memory.node.borrow_mut().fetched(&self.key, stored, now_ms());
    }
}
