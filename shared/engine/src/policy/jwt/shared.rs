//! What the nodes of one edge tell one another of an issuer's key set, where their host has a place for it: one of them
//! fetches, and the others take what came of it, failures included. So it is the edge that asks once an interval, and
//! a node that is new serves with keys while their issuer is down.
//!
//! The place is trusted with no more than the answer of a fetch: what is in it is parsed and aged like one.

use super::keys;
use crate::limits::KEY_FETCH_LOST_MS;
use crate::step::{FetchFault, FetchKeys};

/// What came of the fetches of one URL, by whichever node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedKeys {
    /// The URL.
    pub url: String,
    /// When a node last began to fetch, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// When the last answer came, good or not.
    pub answered_ms: u64,
    /// Answers in a row that were not good.
    pub failures: u32,
    /// When the last good one came.
    pub content_ms: u64,
    /// The last good one.
    pub content: Vec<u8>,
}

/// What a node does about keys that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedTurn {
    /// It takes what is there.
    Take,
    /// Another node is fetching: it looks again in a moment.
    Wait,
    /// It fetches, and says so with [`SharedKeys::asked`] before and [`SharedKeys::answered`] afterwards.
    Fetch,
}

impl SharedKeys {
    /// What is to be done by a node that asks. What comes from another URL, from the future or from long ago is of no use.
    #[must_use]
    pub fn turn(&self, ask: &FetchKeys, now_ms: u64) -> SharedTurn {
        if !self.is_sound(ask, now_ms) {
            return SharedTurn::Fetch;
        }
        let is_fresh = now_ms.saturating_sub(self.content_ms) < ask.stale_ms;
        if self.answered_ms > ask.known_ms && (self.failures > 0 || is_fresh) {
            return SharedTurn::Take;
        }
        let is_asked = self.asked_ms > self.answered_ms
            && now_ms.checked_sub(self.asked_ms).is_some_and(|age_ms| age_ms < KEY_FETCH_LOST_MS);
        if is_asked { SharedTurn::Wait } else { SharedTurn::Fetch }
    }

    /// A node begins to fetch.
    #[must_use]
    pub fn asked(self, ask: &FetchKeys, now_ms: u64) -> Self {
        let before = if self.is_sound(ask, now_ms) { self } else { Self::default() };
        Self { url: ask.url.clone(), asked_ms: now_ms, ..before }
    }

    /// What it fetched.
    #[must_use]
    pub fn answered(self, ask: &FetchKeys, answer: &Result<Vec<u8>, FetchFault>, now_ms: u64) -> Self {
        let is_good = |bytes: &&Vec<u8>| match &ask.metadata_of {
            Some(iss) => keys::parse_metadata(bytes, iss).is_some(),
            None => keys::parse_set(bytes).is_some(),
        };
        match answer.as_ref().ok().filter(is_good) {
            Some(bytes) => {
                Self { answered_ms: now_ms, failures: 0, content_ms: now_ms, content: bytes.clone(), ..self }
            }
            None => Self { answered_ms: now_ms, failures: self.failures.saturating_add(1), ..self },
        }
    }

    fn is_sound(&self, ask: &FetchKeys, now_ms: u64) -> bool {
        self.url == ask.url && self.content_ms <= self.answered_ms && self.answered_ms <= now_ms
    }
}
