//! Limits on how often.

use super::{Mode, RuleRef};
use crate::expr::Expr;

/// A limit on how often.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Where it stands.
    pub rule: RuleRef,
    /// Whom it counts: the parts are joined.
    pub key: Vec<LimitKey>,
    /// How it counts.
    pub algorithm: LimitAlgorithm,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window_ms: u64,
    /// Units that may be taken at once; of a sliding window the quota.
    pub burst: u32,
    /// Units of one request.
    pub cost: Cost,
    /// Who counts.
    pub scope: LimitScope,
    /// What happens when the authority is away.
    pub fail: Fail,
    /// What reaching it does: nothing is even counted, or it is only reported, or it denies.
    pub mode: Mode,
}

impl RateLimit {
    /// Whether it counts requests alike that come with a token and without one: by address, or all of the tenant. What else a
    /// key is made of, an answer that asks for no token would count as one for all.
    #[must_use]
    pub fn is_without_token(&self) -> bool {
        self.key.iter().all(|key| matches!(key, LimitKey::Client | LimitKey::Tenant | LimitKey::Plan))
    }
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitKey {
    /// Address of the client (IPv6: its /64).
    Client,
    /// Verified subject, or the client's address where there is none.
    Subject,
    /// The tenant as a whole.
    Tenant,
    /// The tenant as a whole, for a limit of its plan: a limit of its own with the same name is another one.
    Plan,
    /// A header field's value (name in lower case).
    Header(String),
    /// A claim's value.
    Claim(String),
    /// What the expression says.
    Expr(Expr),
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// The generic cell rate algorithm: units come back evenly, up to the burst.
    #[default]
    Gcra,
    /// What passed in the window that ends now is at most the quota.
    SlidingWindow,
}

/// Units that one request takes of a limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// So many.
    Units(u32),
    /// A whole number that the expression says; 1 where it says something else.
    Expr(Expr),
}

/// Who counts a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Each edge node by itself: an isolate or an instance, of which hosts run as many as they like.
    Node,
    /// The authority of the region nearest to the client, by leases.
    Region,
    /// One authority for all regions, that of the tenant's home region, by leases.
    Global,
}

/// What a policy does when what it depends on is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// Let the request through.
    Open,
    /// Refuse it.
    Closed,
}
