//! Cache policies.

use std::collections::BTreeMap;

use super::RuleRef;
use crate::expr::Expr;

/// Whether and how responses are stored (RFC 9111).
#[derive(Clone, Debug)]
pub struct CachePolicy {
    /// Where it stands.
    pub rule: RuleRef,
    /// Lifetime where the response gives none, by status; a status that is not here is not stored by it.
    pub default_ttl_ms: BTreeMap<u16, u64>,
    /// Query parameters in the key: all, or only these.
    pub query: KeyPart,
    /// Header fields in the key (lower case), beside what `Vary` names.
    pub headers: Vec<String>,
    /// Cookies in the key.
    pub cookies: Vec<String>,
    /// Claims in the key.
    pub claims: Vec<String>,
    /// Whether the variants are in the key.
    pub variants: bool,
    /// Texts in the key.
    pub values: Vec<Expr>,
    /// Stale service while it is revalidated, where the response says nothing (RFC 5861).
    pub stale_while_revalidate_ms: u64,
    /// Stale service while the origin fails, where the response says nothing (RFC 5861).
    pub stale_if_error_ms: u64,
    /// Lifetime of a response that gives none, as a share of the time since its `Last-Modified`, in hundredths of a per cent
    /// (RFC 9111, section 4.2.2); 0 is none.
    pub heuristic: u32,
    /// Whether a response with `Set-Cookie` may be stored, for everybody.
    pub store_cookies: bool,
    /// Tags beside those of the response.
    pub tags: Vec<String>,
    /// Requests that go past the cache.
    pub bypass: Option<Expr>,
}

/// Which query parameters are in a cache key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// All of them.
    All,
    /// None of them.
    None,
    /// These.
    Only(Vec<String>),
}
