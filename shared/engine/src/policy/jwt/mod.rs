//! Bearer tokens: RFC 6750 (how they come), RFC 7515 and 7519 (what they are), RFC 8725 (what to refuse), RFC 7517
//! (keys).
//!
//! What RFC 8725 and its revision (draft-ietf-oauth-rfc8725bis, where sections 3.13 to 3.15 are new) ask for is done
//! - 3.1 and 3.2, algorithms: in `jws`, which knows them by a list of exact names without `none`, and in `keys`, which pins one to
//!   each key, out of those that the issuer's rules allow,
//! - 3.3, 3.6, 3.13 and 3.15, encryption: in `jws`, which takes nothing but one signature; no token makes anybody decrypt,
//!   iterate (`p2c`) or decompress (`zip`),
//! - 3.4 and 3.5, keys: in `keys`, by their lengths and RSA's exponent; whether a point is on its curve, the host's library says,
//! - 3.7 and 3.14, format: in `json` (UTF-8) and `jws`, which takes compact serialisation in its own letters only,
//! - 3.8, issuer and subject: in `claims`: the name of the issuer, letter by letter, says whose keys count, and a subject is one
//!   person with its issuer only ([`Identity::person`]),
//! - 3.9, audience, and 3.12, other kinds of tokens: in `claims`, by `aud` and the claims that the issuer's rules require,
//! - 3.10, what a token makes us look up: in `jws`, which refuses keys and places of keys; `kid` is compared with known ones, and key
//!   sets come from where the rules say, over guarded URLs ([`is_guarded`]),
//! - 3.11, `typ`: in `jws`: one that is there has to be an access token's.
//!
//! A token has to call its algorithm `EdDSA`; of the names that RFC 9864 prefers, key sets may use `Ed25519`.
//!
//! [`JwtMemory::poll`] answers with a verdict or with what is missing; the host fetches keys or checks the signature,
//! hands the result in ([`JwtMemory::keys_fetched`], [`JwtMemory::verified`]) and polls again. Shape and claims are
//! checked here, the signature alone is the host's: types, parameters and sizes that only some libraries take are refused
//! here. A token that was found right is remembered until it expires, for this tenant and this version of its rules only;
//! it is forgotten as soon as its key leaves the key set.

mod claims;
mod json;
mod jws;
mod keys;
mod shared;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use serde_json::Value;

pub use self::keys::is_guarded;
use self::keys::{Choice, KeySet, Need, News, Turn};
pub use self::shared::{SharedKeys, SharedTurn};
use crate::bounded::{Bounded, Keyed};
use crate::decision::subject_hash;
use crate::expr::Fault;
use crate::headers::Headers;
use crate::limits::{KEY_FETCH_TIMEOUT_MS, KEY_SETS_MAX, TOKENS_REMEMBERED_MAX};
use crate::ruleset::{Issuer, Jwks, Ruleset, Version};
use crate::secret::Secret;
use crate::step::{FetchKeys, FetchedKeys, VerificationKey, Verify};

/// Who a token says that its bearer is, once everything about it was found right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Name of the `Issuer` document.
    pub issuer: Arc<str>,
    /// `iss`.
    pub iss: String,
    /// `sub`, if there is one.
    pub subject: Option<Arc<str>>,
    /// Tells subjects of the tenant apart without naming them, as [`Decision::subject_hash`](crate::decision::Decision).
    pub subject_hash: Option<Arc<str>>,
    /// Scopes, in the token's order.
    pub scopes: Vec<String>,
    /// All claims.
    pub claims: BTreeMap<String, Value>,
    /// The claims that the issuer maps for the origin: attribute and JSON text, sorted by attribute.
    pub attributes: Vec<(String, String)>,
    /// When it expires (`exp`), without the skew.
    pub expires_ms: u64,
}

impl Identity {
    /// Whom the token is of: the subject with its issuer, since two issuers may give one subject to two people. `None` where
    /// there is no subject.
    #[must_use]
    pub fn person(&self) -> Option<String> {
        Some(person(&self.iss, self.subject.as_deref()?))
    }
}

/// A subject with its issuer as one text, that of no other pair.
#[must_use]
pub fn person(issuer: &str, subject: &str) -> String {
    format!("{}:{issuer}{subject}", issuer.len())
}

/// What [`JwtMemory::poll`] has to say about a token.
#[derive(Debug)]
pub enum Verdict {
    /// It is right.
    Valid(Arc<Identity>),
    /// It is not.
    Refused(Refusal),
    /// Fetch this key set, hand it to [`JwtMemory::keys_fetched`], poll again.
    NeedKeys(FetchKeys),
    /// Somebody else fetches it: poll again in a moment.
    Wait,
    /// Have this signature checked and hand the answer to [`JwtMemory::verified`].
    NeedSignature(Box<Verify>, Box<Pending>),
}

/// A token of which everything but the signature was found right.
#[derive(Debug)]
pub struct Pending {
    hash: TokenHash,
    token: RememberedToken,
}

/// What went wrong, in the words of RFC 6750, section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is no token: a bare challenge, 401.
    Missing,
    /// `invalid_request`: malformed credentials, 400.
    InvalidRequest,
    /// `invalid_token`: 401.
    InvalidToken,
    /// `insufficient_scope`: 403.
    InsufficientScope,
    /// Not the token's fault: the issuer's keys can't be had, 503.
    KeysUnavailable,
}

/// Why a request's token does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client may know.
    pub error: TokenError,
    /// What the explanation may know; never a part of the token, never for the client.
    pub reason: String,
    /// Scopes that would be needed (`insufficient_scope` only).
    pub scopes: Vec<String>,
}

impl Refusal {
    fn new(error: TokenError, reason: impl Into<String>) -> Self {
        Self { error, reason: reason.into(), scopes: Vec::new() }
    }

    /// The keys of the token's issuer are not to be had.
    pub(crate) fn keys_unavailable() -> Self {
        Self::new(TokenError::KeysUnavailable, "the issuer's keys can't be had")
    }

    /// `invalid_token`.
    fn token(reason: impl Into<String>) -> Self {
        Self::new(TokenError::InvalidToken, reason)
    }

    /// No token where one is needed.
    #[must_use]
    pub fn missing() -> Self {
        Self::new(TokenError::Missing, "no bearer token")
    }

    /// Status code of the reply: 400, 401, 403 or 503.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.error {
            TokenError::InvalidRequest => 400,
            TokenError::Missing | TokenError::InvalidToken => 401,
            TokenError::InsufficientScope => 403,
            TokenError::KeysUnavailable => 503,
        }
    }

    /// Value of `WWW-Authenticate` (RFC 6750, section 3); `None` where a challenge would mislead (503). `realm` is the
    /// tenant's slug or another plain word; whatever a quoted string can't hold is left out of it.
    #[must_use]
    pub fn challenge(&self, realm: &str) -> Option<String> {
        let plain =
            |text: &str| text.replace(|c: char| !(' '..='~').contains(&c) || matches!(c, '"' | '\\'), "");
        let error = match self.error {
            TokenError::Missing => return Some(format!("Bearer realm=\"{}\"", plain(realm))),
            TokenError::InvalidRequest => "invalid_request",
            TokenError::InvalidToken => "invalid_token",
            TokenError::InsufficientScope => "insufficient_scope",
            TokenError::KeysUnavailable => return None,
        };
        let mut challenge = format!("Bearer realm=\"{}\", error=\"{error}\"", plain(realm));
        if !self.scopes.is_empty() {
            challenge.push_str(&format!(", scope=\"{}\"", plain(&self.scopes.join(" "))));
        }
        Some(challenge)
    }
}

/// The bearer token of a request (RFC 6750, section 2.1: the header only), if it has one. Other schemes than `Bearer`
/// count as no token.
///
/// # Errors
/// `invalid_request` where there are several `Authorization` fields or the token is not a `b64token`.
pub fn bearer(headers: &Headers) -> Result<Option<&str>, Refusal> {
    let mut fields = headers.get_all("authorization");
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Refusal::new(TokenError::InvalidRequest, "several `Authorization` fields"));
    }
    let field = field.trim_matches([' ', '\t']);
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim_start_matches(' ');
    let is_b64 = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-'..=b'/' | b'+' | b'_' | b'~');
    let body = token.trim_end_matches('=');
    // Without an early end, so that it goes by many bytes at once.
    if body.is_empty() || body.bytes().fold(false, |odd, byte| odd | !is_b64(byte)) {
        return Err(Refusal::new(
            TokenError::InvalidRequest,
            "the credentials are not `Bearer` and one token",
        ));
    }
    Ok(Some(token))
}

/// Whether an identity has all of these scopes.
///
/// # Errors
/// `insufficient_scope` with the scopes needed.
pub fn require_scopes(identity: &Identity, scopes: &[String]) -> Result<(), Refusal> {
    match scopes.iter().find(|scope| !identity.scopes.contains(scope)) {
        None => Ok(()),
        Some(missing) => Err(Refusal {
            error: TokenError::InsufficientScope,
            reason: format!("scope `{missing}` is missing"),
            scopes: scopes.to_vec(),
        }),
    }
}

/// Whether what a route wants of the claims holds. What can't be evaluated does not.
///
/// # Errors
/// `insufficient_scope`.
pub fn require_claims(holds: Result<bool, Fault>) -> Result<(), Refusal> {
    match holds {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(TokenError::InsufficientScope, "`auth.when` does not hold")),
        Err(fault) => Err(Refusal::new(TokenError::InsufficientScope, format!("`auth.when`: {fault}"))),
    }
}

/// A keyed hash of tenant and token. Two tokens may have the same: of those, the last is remembered.
type TokenHash = u64;

/// A token that was found right.
struct RememberedToken {
    /// The whole token: whatever has its hash is held against it.
    token: Box<str>,
    tenant: Box<str>,
    version: Version,
    identity: Arc<Identity>,
    /// When it ends, skew included.
    until_ms: u64,
    /// The key that proved it, and the key set that it is of; `None` for a key of the document, which changes with the
    /// version of the rules.
    proof: Option<(SetId, Arc<VerificationKey>)>,
}

impl RememberedToken {
    fn is_of(&self, ruleset: &Ruleset, token: &str) -> bool {
        *self.token == *token && *self.tenant == *ruleset.tenant.slug && self.version == ruleset.version
    }
}

impl std::fmt::Debug for RememberedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RememberedToken").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

/// Tenant and name of the `Issuer` document.
type SetId = (String, String);

/// What a node remembers of tokens and key sets.
#[derive(Debug)]
pub struct JwtMemory {
    keyed: Keyed,
    secret: Secret,
    tokens: Bounded<TokenHash, RememberedToken>,
    sets: Bounded<SetId, KeySet>,
}

impl JwtMemory {
    /// An empty memory. `secret` hashes subjects.
    #[must_use]
    pub fn new(keyed: Keyed, secret: Secret) -> Self {
        let (tokens, sets) = (Bounded::new(TOKENS_REMEMBERED_MAX, keyed), Bounded::new(KEY_SETS_MAX, keyed));
        Self { keyed, secret, tokens, sets }
    }

    /// What there is to say about a token under these rules; `has_waited` after [`Verdict::Wait`].
    pub fn poll(&mut self, ruleset: &Ruleset, token: &str, has_waited: bool, now_ms: u64) -> Verdict {
        let hash = self.keyed.hash_one((&*ruleset.tenant.slug, token));
        if let Some(identity) = self.remembered(hash, ruleset, token, now_ms) {
            return Verdict::Valid(identity);
        }
        self.check(ruleset, token, hash, has_waited, now_ms).unwrap_or_else(Verdict::Refused)
    }

    fn remembered(
        &mut self,
        hash: TokenHash,
        ruleset: &Ruleset,
        token: &str,
        now_ms: u64,
    ) -> Option<Arc<Identity>> {
        let remembered = self.tokens.get(&hash).filter(|remembered| remembered.is_of(ruleset, token))?;
        if now_ms < remembered.until_ms {
            return Some(remembered.identity.clone());
        }
        self.tokens.remove(&hash);
        None
    }

    fn check(
        &mut self,
        ruleset: &Ruleset,
        token: &str,
        hash: TokenHash,
        has_waited: bool,
        now_ms: u64,
    ) -> Result<Verdict, Refusal> {
        let mut parsed = jws::parse(token)?;
        let issuer = claims::issuer(&ruleset.issuers, &parsed.claims)?;
        let mut identity = claims::check(issuer, std::mem::take(&mut parsed.claims), now_ms)?;
        let until_ms = identity.expires_ms.saturating_add(issuer.skew_ms);
        let id = (ruleset.tenant.slug.clone(), issuer.rule.name.to_string());
        let mut set = issuer.jwks.as_ref().map(|rule| (rule, self.set(&id, rule)));
        let usable = match &set {
            Some((rule, set)) => set.is_usable(rule, now_ms).then_some(set.keys.as_slice()),
            None => Some([].as_slice()),
        };
        let (key, fetched) = match keys::choose(issuer, usable.unwrap_or_default(), &parsed) {
            Choice::Key(key, fetched) => (key, fetched),
            Choice::Refused(refusal) => return Err(refusal),
            Choice::Unknown => {
                let known = usable.is_some();
                let need = if known { Need::UnknownKey } else { Need::Keys };
                if let Some((rule, set)) = &mut set {
                    match set.ask(need, has_waited, now_ms) {
                        Turn::Fetch => return Ok(Verdict::NeedKeys(fetch(&id, issuer, rule, set))),
                        Turn::Wait => return Ok(Verdict::Wait),
                        Turn::No => {}
                    }
                }
                return Err(if known {
                    Refusal::token("the issuer has no such key")
                } else {
                    Refusal::keys_unavailable()
                });
            }
        };
        let verify = Verify { algorithm: parsed.algorithm, key: key.clone(), token: token.to_owned() };
        let proof = fetched.then_some((id, key));
        let person = identity.person();
        identity.subject_hash =
            person.map(|person| subject_hash(&self.secret, &ruleset.tenant.slug, &person).into());
        let token = RememberedToken {
            token: token.into(),
            tenant: ruleset.tenant.slug.as_str().into(),
            version: ruleset.version.clone(),
            identity: Arc::new(identity),
            until_ms,
            proof,
        };
        Ok(Verdict::NeedSignature(Box::new(verify), Box::new(Pending { hash, token })))
    }

    /// Takes the answer to [`Verdict::NeedSignature`]: `Valid` (and remembered) or `Refused`.
    pub fn verified(&mut self, pending: Pending, right: bool, now_ms: u64) -> Verdict {
        let Pending { hash, token } = pending;
        if !right {
            return Verdict::Refused(Refusal::token("wrong signature"));
        }
        if now_ms >= token.until_ms {
            return Verdict::Refused(Refusal::token("expired"));
        }
        let identity = token.identity.clone();
        let is_current = match &token.proof {
            None => true,
            Some((id, key)) => {
                self.sets.peek(id).is_some_and(|set| set.keys.iter().any(|have| have.key == *key))
            }
        };
        if !is_current {
            return Verdict::Refused(Refusal::token("its key was withdrawn while it was checked"));
        }
        self.tokens.insert(hash, token);
        Verdict::Valid(identity)
    }

    /// Takes the answer to a [`FetchKeys`], asked for by `poll` or by `due`. What is no key set keeps the last good one.
    pub fn keys_fetched(&mut self, ask: &FetchKeys, fetched: impl Into<FetchedKeys>, now_ms: u64) {
        let id = (ask.tenant.clone(), ask.issuer.clone());
        let Some(set) = self.sets.get(&id) else { return };
        let (bytes, news) = match fetched.into() {
            FetchedKeys::Answer(answer) => (answer.ok(), News::Own),
            FetchedKeys::Shared(shared) => {
                let news = News::Shared {
                    answered_ms: shared.answered_ms,
                    content_ms: shared.content_ms,
                    failures: shared.failures,
                };
                (Some(shared.content), news)
            }
        };
        if let Some(iss) = &ask.metadata_of {
            let place = bytes.and_then(|bytes| keys::parse_metadata(&bytes, iss));
            return set.discovered(place, news, now_ms);
        }
        let keys = bytes.and_then(|bytes| keys::parse_set(&bytes));
        if set.answered(keys, news, now_ms) {
            let keys = &set.keys;
            self.tokens.retain(|_, token| match &token.proof {
                Some((of, key)) if *of == id => keys.iter().any(|have| have.key == *key),
                _ => true,
            });
        }
    }

    /// Key sets of these rules that want a refresh in the background, each asked for once at a time. Call it when a
    /// reply is made; hand the answers to `keys_fetched`.
    pub fn due(&mut self, ruleset: &Ruleset, now_ms: u64) -> Vec<FetchKeys> {
        let mut due = Vec::new();
        for (issuer, rule) in ruleset.issuers.iter().filter_map(with_set) {
            let id = (ruleset.tenant.slug.clone(), issuer.rule.name.to_string());
            // Only sets that were needed before: the first fetch waits for the first token.
            let is_due = self.sets.peek(&id).is_some_and(|set| set.is_due(rule, now_ms));
            let set = self.set(&id, rule);
            if is_due && set.ask(Need::Refresh, false, now_ms) == Turn::Fetch {
                due.push(fetch(&id, issuer, rule, set));
            }
        }
        due
    }

    fn set(&mut self, id: &SetId, rule: &Jwks) -> &mut KeySet {
        let set = self.sets.get_or_insert_with(id.clone(), KeySet::default);
        set.follow(rule);
        set
    }
}

fn with_set(issuer: &Issuer) -> Option<(&Issuer, &Jwks)> {
    Some((issuer, issuer.jwks.as_ref()?))
}

fn fetch((tenant, name): &SetId, issuer: &Issuer, rule: &Jwks, set: &KeySet) -> FetchKeys {
    let url = set.next_url().to_owned();
    let metadata_of = (rule.discovery && url == rule.url).then(|| issuer.iss.clone());
    FetchKeys {
        tenant: tenant.clone(),
        issuer: name.clone(),
        known_ms: set.known_ms(metadata_of.is_some()),
        metadata_of,
        url,
        timeout_ms: KEY_FETCH_TIMEOUT_MS,
        stale_ms: rule.stale_ms,
    }
}

#[cfg(test)]
mod tests;
