//! Signatures: the ticket that makes a bundle acceptable, and those of clients' tokens.
//!
//! A ticket is a compact JSON Web Signature (RFC 7515, section 7.1; EdDSA by RFC 8037) over claims that name the target, the
//! sequence and the SHA-256 of the bundle. It is signed and checked by `ed25519-compact` straight, for it is always the
//! one algorithm and every edge checks tickets; clients' tokens, with their many algorithms, are `jwt-simple`'s
//! (feature `jwt`) or the host's.

use ed25519_compact::Signature;
use meridian_engine::ruleset::Target;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::bundle::{Bundle, InvalidBundle, Rules};
use crate::encoding::{base64url, from_base64url, sha256_hex};
use crate::keyring::{PublicKeyring, SigningKey};
use crate::limits::{BUNDLE_BYTES_MAX, TICKET_BYTES_MAX};

#[cfg(feature = "jwt")]
mod token;
#[cfg(feature = "jwt")]
pub use token::verify_token;

/// Name of the header field that carries a ticket.
pub const TICKET_HEADER: &str = "meridian-ticket";

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The target, as [`Target`] prints itself.
    pub target: String,
    /// Grows by one with every release of the target, rollbacks included.
    pub sequence: u64,
    /// SHA-256 of the bundle's bytes, in hexadecimal.
    pub sha256: String,
    /// Version that it followed.
    pub parent: Option<String>,
    /// When it was signed, in seconds since the Unix epoch.
    pub iat: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    /// Nothing is understood that must be (RFC 7515, section 4.1.11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// A bundle that may be put in force.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What its ticket says.
    pub ticket: Ticket,
    /// Its rules.
    pub rules: Rules,
}

/// What is in force of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Have<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// Its version.
    pub version: &'a str,
}

impl Ticket {
    /// The ticket for the bytes of a bundle. `now_ms` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn of(target: &Target, sequence: u64, bytes: &[u8], parent: Option<&str>, now_ms: u64) -> Self {
        Self {
            target: target.to_string(),
            sequence,
            sha256: sha256_hex(bytes),
            parent: parent.map(str::to_owned),
            iat: now_ms / 1_000,
        }
    }

    /// The ticket as compact text, signed. The same ticket is always the same text.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        let header = Header {
            alg: "EdDSA".to_owned(),
            kid: key.kid().to_owned(),
            typ: Some("JWT".to_owned()),
            crit: None,
        };
        let part = |json: Result<Vec<u8>, serde_json::Error>| base64url(&json.unwrap_or_default());
        let signed = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(self)));
        let signature = key.secret().sign(signed.as_bytes(), None);
        format!("{signed}.{}", base64url(signature.as_ref()))
    }

    /// Reads a ticket and checks its signature.
    ///
    /// # Errors
    /// Where it is not written as a ticket, or not signed by a key of the keyring.
    pub fn verify(text: &str, keys: &PublicKeyring) -> Result<Self, InvalidBundle> {
        if text.len() > TICKET_BYTES_MAX {
            return Err(InvalidBundle::Ticket);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(InvalidBundle::Ticket)?;
        let (header, claims) = signed.split_once('.').ok_or(InvalidBundle::Ticket)?;
        let json = |part: &str| from_base64url(part).ok_or(InvalidBundle::Ticket);
        let header: Header = serde_json::from_slice(&json(header)?).map_err(|_| InvalidBundle::Ticket)?;
        if header.alg != "EdDSA" || header.crit.is_some() {
            return Err(InvalidBundle::Ticket);
        }
        let key = keys
            .get(&header.kid)
            .ok_or_else(|| InvalidBundle::UnknownKey(header.kid.chars().take(64).collect()))?;
        let signature = Signature::from_slice(&json(signature)?).map_err(|_| InvalidBundle::Ticket)?;
        key.verify(signed, &signature).map_err(|_| InvalidBundle::BadSignature)?;
        serde_json::from_slice(&json(claims)?).map_err(|_| InvalidBundle::Ticket)
    }
}

/// Checks a bundle that came with a ticket and makes rules of it. It is never older than what is in force, and under the
/// same sequence never another; nothing of the bytes is read before they are known to be those that were signed.
///
/// # Errors
/// Where anything about it is wrong: what is in force stays then.
pub fn accept(
    ticket: &str,
    bytes: &[u8],
    target: &Target,
    keys: &PublicKeyring,
    have: Option<Have<'_>>,
) -> Result<Accepted, InvalidBundle> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(InvalidBundle::TooLarge { found: bytes.len() });
    }
    let ticket = Ticket::verify(ticket, keys)?;
    if ticket.target != target.to_string() {
        return Err(InvalidBundle::Target { found: ticket.target, expected: target.to_string() });
    }
    let hash = sha256_hex(bytes);
    if !bool::from(hash.as_bytes().ct_eq(ticket.sha256.as_bytes())) {
        return Err(InvalidBundle::Hash);
    }
    if let Some(have) = have {
        if ticket.sequence < have.sequence {
            return Err(InvalidBundle::Older { found: ticket.sequence, have: have.sequence });
        }
        if ticket.sequence == have.sequence && !hash.starts_with(have.version) {
            return Err(InvalidBundle::SameSequence { sequence: ticket.sequence });
        }
    }
    let rules = Bundle::parse(bytes, target, ticket.sequence)?;
    Ok(Accepted { ticket, rules })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::version;
    use ed25519_compact::{KeyPair, Seed};

    fn key(kid: &str, seed: u8) -> SigningKey {
        let pair = KeyPair::from_seed(Seed::new([seed; 32]));
        SigningKey::parse(&format!("{kid}:{}", base64url(pair.as_ref()))).unwrap()
    }

    fn bytes() -> &'static [u8] {
        include_str!("../tests/stored/bundle-platform-1.json").trim().as_bytes()
    }

    fn accept_with(ticket: &str, bytes: &[u8], have: Option<Have<'_>>) -> Result<u64, InvalidBundle> {
        let keys = PublicKeyring::of(&key("b1", 1));
        accept(ticket, bytes, &Target::Platform, &keys, have)
            .map(|accepted| accepted.rules.version().sequence)
    }

    #[test]
    fn what_was_signed_is_accepted() {
        let ticket =
            Ticket::of(&Target::Platform, 7, bytes(), Some("0011223344556677"), 5_000).sign(&key("b1", 1));
        assert_eq!(accept_with(&ticket, bytes(), None), Ok(7));
        let hash = version(bytes());
        assert_eq!(accept_with(&ticket, bytes(), Some(Have { sequence: 6, version: "other" })), Ok(7));
        assert_eq!(accept_with(&ticket, bytes(), Some(Have { sequence: 7, version: &hash })), Ok(7));
    }

    #[test]
    fn nothing_else_is_accepted() {
        let good = Ticket::of(&Target::Platform, 7, bytes(), None, 5_000);
        let ticket = good.sign(&key("b1", 1));
        let older = Some(Have { sequence: 8, version: "x" });
        assert_eq!(accept_with(&ticket, bytes(), older), Err(InvalidBundle::Older { found: 7, have: 8 }));
        let same = Some(Have { sequence: 7, version: "x" });
        assert_eq!(accept_with(&ticket, bytes(), same), Err(InvalidBundle::SameSequence { sequence: 7 }));
        assert_eq!(accept_with(&ticket, &bytes()[1..], None), Err(InvalidBundle::Hash));
        let large = vec![b' '; BUNDLE_BYTES_MAX + 1];
        assert_eq!(
            accept_with(&ticket, &large, None),
            Err(InvalidBundle::TooLarge { found: BUNDLE_BYTES_MAX + 1 })
        );
        assert_eq!(accept_with(&good.sign(&key("b1", 2)), bytes(), None), Err(InvalidBundle::BadSignature));
        assert_eq!(
            accept_with(&good.sign(&key("b2", 1)), bytes(), None),
            Err(InvalidBundle::UnknownKey("b2".into()))
        );
        let other = Ticket { target: "tenant:acme".into(), ..good };
        assert!(matches!(
            accept_with(&other.sign(&key("b1", 1)), bytes(), None),
            Err(InvalidBundle::Target { .. })
        ));
        for wrong in ["", "a", "a.b", "a.b.c", "e30.e30.e30", &"x".repeat(TICKET_BYTES_MAX + 1)] {
            assert_eq!(accept_with(wrong, bytes(), None), Err(InvalidBundle::Ticket), "{wrong}");
        }
    }

    #[cfg(feature = "jwt")]
    #[test]
    fn a_ticket_is_a_token_like_any_other() {
        use jwt_simple::algorithms::EdDSAPublicKeyLike as _;
        let key = key("b1", 1);
        let ticket = Ticket::of(&Target::Platform, 7, bytes(), None, 5_000).sign(&key);
        let public = jwt_simple::algorithms::Ed25519PublicKey::from_bytes(&key.public()).unwrap();
        let claims =
            public.verify_token::<serde_json::Map<String, serde_json::Value>>(&ticket, None).unwrap();
        assert_eq!(claims.custom["sequence"], 7);
    }

    #[test]
    fn an_old_ticket_keeps_verifying() {
        let stored = include_str!("../tests/stored/ticket-1.txt").trim();
        let ticket = Ticket::of(&Target::Platform, 7, bytes(), None, 5_000);
        assert_eq!(Ticket::verify(stored, &PublicKeyring::of(&key("b1", 1))), Ok(ticket.clone()));
        assert_eq!(ticket.sign(&key("b1", 1)), stored);
    }
}
