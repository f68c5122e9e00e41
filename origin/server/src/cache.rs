//! Answers to reads, kept in memory in front of the database, that are never older than what was invalidated.
//!
//! Every tag has a number that grows whenever something with the tag changed. An answer is kept under the numbers that
//! its tags had *before* it was read from the database, and looked for under the numbers that they have now. So an answer
//! read while a change committed is kept under a number that nobody asks for any more: there is no moment in which an
//! old answer could slip in behind an invalidation. Local writes invalidate after their commit and before they are
//! answered; applied changes invalidate after their commit and before anyone who waits for them is woken.
//!
//! The numbers live in a fixed number of slots. Two tags in one slot cost a needless read, never an old answer.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use meridian_wire::session::Positions;
use moka::future::Cache;

use crate::limits::{CACHE_AGE_MAX, CACHE_BYTES_MAX, CACHE_ENTRY_BYTES_MAX, CACHE_SLOTS};

/// Tag of everything of a tenant.
pub const EVERYTHING: &str = "*";

/// What an answer is kept under: the tenant is always part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    tenant: Arc<str>,
    /// Path and query within the tenant.
    name: Arc<str>,
    tenant_number: u64,
    tag_number: u64,
}

/// An answer that was read from the database.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// JSON text.
    pub body: Bytes,
    /// Strong validator, in quotes.
    pub etag: String,
    /// Value of `Cache-Tag`.
    pub tags: String,
    /// Positions that a client has seen once it has this answer.
    pub reflects: Positions,
}

/// The answers in memory.
pub struct Answers {
    kept: Cache<Key, Arc<Answer>>,
    slots: Box<[AtomicU64]>,
    hasher: std::hash::RandomState,
}

impl Answers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let weigh = |key: &Key, answer: &Arc<Answer>| {
            let bytes = 200 + key.tenant.len() + key.name.len() + answer.body.len() + answer.tags.len();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().weigher(weigh).max_capacity(CACHE_BYTES_MAX).time_to_live(CACHE_AGE_MAX);
        Self {
            kept: kept.build(),
            slots: (0..CACHE_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }

    fn slot(&self, tenant: &str, tag: &str) -> &AtomicU64 {
        let hash = self.hasher.hash_one((tenant, tag));
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash is a hash")]
        &self.slots[hash as usize % self.slots.len()]
    }

    /// The key of an answer that goes stale with this tag. To be made before the database is read.
    #[must_use]
    pub fn key(&self, tenant: &str, tag: &str, name: &str) -> Key {
        Key {
            tenant: Arc::from(tenant),
            name: Arc::from(name),
            tenant_number: self.slot(tenant, EVERYTHING).load(Ordering::SeqCst),
            tag_number: self.slot(tenant, tag).load(Ordering::SeqCst),
        }
    }

    /// The answer that is kept under this key.
    pub async fn get(&self, key: &Key) -> Option<Arc<Answer>> {
        self.kept.get(key).await
    }

    /// Keeps an answer under a key that was made before the database was read. A very large one is not kept.
    pub async fn keep(&self, key: Key, answer: Arc<Answer>) {
        if answer.body.len() <= CACHE_ENTRY_BYTES_MAX {
            self.kept.insert(key, answer).await;
        }
    }

    /// Makes stale what has this tag; [`EVERYTHING`] is all of the tenant.
    pub fn invalidate(&self, tenant: &str, tag: &str) {
        self.slot(tenant, tag).fetch_add(1, Ordering::SeqCst);
    }

    /// Makes everything stale.
    pub fn invalidate_all(&self) {
        for slot in &self.slots {
            slot.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Number of answers and their weight in bytes, about.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.kept.entry_count(), self.kept.weighted_size())
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &'static str) -> Arc<Answer> {
        Arc::new(Answer {
            body: Bytes::from_static(body.as_bytes()),
            etag: "\"1\"".into(),
            tags: "orders".into(),
            reflects: Positions::new(),
        })
    }

    #[tokio::test]
    async fn an_answer_is_found_until_its_tag_or_its_tenant_goes_stale() {
        let answers = Answers::new();
        for stale in ["orders/1", EVERYTHING] {
            let key = answers.key("acme", "orders/1", "orders/1");
            answers.keep(key, answer("{}")).await;
            let again = answers.key("acme", "orders/1", "orders/1");
            assert_eq!(answers.get(&again).await, Some(answer("{}")));
            answers.invalidate("acme", stale);
            let after = answers.key("acme", "orders/1", "orders/1");
            assert_eq!(answers.get(&after).await, None, "{stale}");
        }
    }

    #[tokio::test]
    async fn an_answer_read_before_a_change_is_never_found_after_it() {
        let answers = Answers::new();
        let key = answers.key("acme", "orders", "orders?limit=1");
        // The database is read here; meanwhile a change commits and invalidates.
        answers.invalidate("acme", "orders");
        answers.keep(key, answer("old")).await;
        let now = answers.key("acme", "orders", "orders?limit=1");
        assert_eq!(answers.get(&now).await, None);
    }

    #[tokio::test]
    async fn tenants_share_nothing() {
        let answers = Answers::new();
        let key = answers.key("acme", "orders", "orders");
        answers.keep(key, answer("acme's")).await;
        let other = answers.key("globex", "orders", "orders");
        assert_eq!(answers.get(&other).await, None);
    }
}
