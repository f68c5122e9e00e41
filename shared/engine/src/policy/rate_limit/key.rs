//! Whom a limit counts: one hash over tenant, limit and the parts of its key, each with its length, so that no two keys
//! are the same input and no address or subject is kept in the clear. Where others count, the hash is keyed: there are few
//! enough addresses to try them all.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::counter::KeyHash;
use crate::expr::{Inputs, Seen};
use crate::policy::jwt::Identity;
use crate::ruleset::{LimitKey, RateLimit};
use crate::secret::Secret;

/// The key of a request, as the edge itself remembers it.
pub(super) fn hash(
    tenant: &str,
    limit: &RateLimit,
    inputs: &Inputs<'_>,
    identity: Option<&Identity>,
) -> KeyHash {
    let facts = inputs.facts;
    let mut input = Input(Sha256::new());
    input.part(b"t", tenant.as_bytes());
    input.part(b"l", limit.rule.name.as_bytes());
    for key in &limit.key {
        match key {
            LimitKey::Tenant => input.part(b"T", b""),
            LimitKey::Plan => input.part(b"P", b""),
            LimitKey::Client => input.client(facts.client),
            LimitKey::Subject => {
                match identity.and_then(|identity| Some((identity, identity.subject.as_deref()?))) {
                    Some((identity, subject)) => {
                        input.part(b"i", identity.iss.as_bytes());
                        input.part(b"s", subject.as_bytes());
                    }
                    None => input.client(facts.client),
                }
            }
            LimitKey::Header(name) => match facts.headers.joined(name) {
                Some(value) => input.part(b"h", value.as_bytes()),
                None => input.part(b"-", b""),
            },
            LimitKey::Claim(name) => match identity.and_then(|identity| identity.claims.get(name)) {
                Some(value) => {
                    // A subject is one person with its issuer only.
                    if let Some(identity) = identity.filter(|_| name == "sub") {
                        input.part(b"i", identity.iss.as_bytes());
                    }
                    input.part(b"c", value.to_string().as_bytes());
                }
                None => input.part(b"-", b""),
            },
            LimitKey::Expr(expr) => match expr.evaluate(inputs) {
                Ok(Seen::Text(text)) => input.part(b"e", text.as_bytes()),
                _ => input.part(b"-", b""),
            },
        }
    }
    input.0.finalize().into()
}

/// The same as others get to see it: the same of every edge with the same secret.
pub(super) fn hidden(key: &KeyHash, secret: &Secret) -> KeyHash {
    secret.tag([b"meridian-limit-v1\n", key])
}

struct Input(Sha256);

impl Input {
    fn part(&mut self, kind: &[u8; 1], value: &[u8]) {
        self.0.update(kind);
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value);
    }

    /// An IPv6 client counts by its /64: whoever has one address of it has all of them (RFC 6177, section 2).
    fn client(&mut self, client: IpAddr) {
        match client.to_canonical() {
            IpAddr::V4(address) => self.part(b"4", &address.octets()),
            IpAddr::V6(address) => self.part(b"6", &(u128::from(address) >> 64).to_be_bytes()),
        }
    }
}
