//! Who signs a tenant's tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RuleRef;
use crate::step::{Algorithm, VerificationKey};

/// Who signs a tenant's tokens (RFC 7519).
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Where it stands.
    pub rule: RuleRef,
    /// Exact `iss`.
    pub iss: String,
    /// Audiences, one of which `aud` must hold; empty only where the document says that any will do.
    pub audiences: Vec<String>,
    /// Algorithms allowed; a key's own algorithm must be among them.
    pub algorithms: Vec<Algorithm>,
    /// Keys written in the document.
    pub keys: Vec<IssuerKey>,
    /// Where the key set is, if it is fetched.
    pub jwks: Option<Jwks>,
    /// Clock skew allowed on `exp`, `nbf`, `iat`.
    pub skew_ms: u64,
    /// Longest life (`exp` − `iat`) accepted; 0 is any.
    pub life_ms_max: u64,
    /// Claims that must be there.
    pub required_claims: Vec<String>,
    /// Claim that holds the scopes (a space-separated string or a list).
    pub scope_claim: String,
    /// Claims that go to the origin, attribute by claim.
    pub attributes: BTreeMap<String, String>,
    /// Tokens that are right and no longer count.
    pub revoked: Revoked,
}

/// Tokens of an issuer that no longer count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// By `jti`.
    pub tokens: BTreeSet<String>,
    /// By `sub`: those issued (`iat`) before this moment, in milliseconds since the Unix epoch; those without `iat` always.
    pub subjects: BTreeMap<String, u64>,
    /// Of anybody, issued before this moment; 0 revokes none.
    pub before_ms: u64,
}

/// A key of an issuer, with the one algorithm that it is for.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    /// Key id; a token without `kid` may use it only where it is the only key.
    pub kid: Option<String>,
    /// Algorithm pinned to it.
    pub algorithm: Algorithm,
    /// The key.
    pub key: Arc<VerificationKey>,
}

/// A key set at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// Absolute URL of the key set, or of the provider's metadata, which says where the key set is.
    pub url: String,
    /// The URL is that of OpenID Provider Metadata (OpenID Connect Discovery 1.0, section 4; RFC 8414).
    pub discovery: bool,
    /// Age from which it is refreshed in the background.
    pub refresh_ms: u64,
    /// Age from which it is no longer used without a successful refresh.
    pub stale_ms: u64,
    /// An unknown `kid` fetches again at most once in this time.
    pub refetch_interval_ms: u64,
}
