//! What one edge instance remembers from one request to the next. Everything in it is bounded by [`limits`](crate::limits).

use crate::step::{FetchFault, SyncNews};

/// What one edge instance remembers: rules, news of the regions, purges, verified tokens, counters, key sets. The host
/// makes one per instance and hands it to every exchange.
#[derive(Debug, Default)]
pub struct Node {}

impl Node {
    /// An empty memory. `secret` signs the edge's own cookies (HMAC-SHA256); `edge` is the name of this edge.
    #[must_use]
    pub fn new(edge: &str, secret: [u8; 32]) -> Self {
        let _ = (edge, secret);
        Self {}
    }

    /// Takes the answer to an [`After::Sync`](crate::step::After::Sync); `None` where no origin answered.
    pub fn synced(&mut self, news: Option<SyncNews>, now_ms: u64) {
        let _ = (news, now_ms);
    }

    /// Takes the answer to an [`After::FetchKeys`](crate::step::After::FetchKeys).
    pub fn keys_fetched(
        &mut self,
        tenant: &str,
        issuer: &str,
        answer: Result<Vec<u8>, FetchFault>,
        now_ms: u64,
    ) {
        let _ = (tenant, issuer, answer, now_ms);
    }
}
