//! The signed context that every request of an edge to an origin carries: `Meridian-Context`.
//!
//! `v1.KID.BASE64URL(JSON).BASE64URL(HMAC-SHA256)`, where the MAC is over the domain, method, authority, path with query
//! and the encoded JSON, each ended by a line feed but the last. A context says what the edge verified; an origin
//! believes nothing else of a request.

use std::collections::BTreeMap;

use meridian_engine::policy::jwt::person;
use meridian_engine::step::ContextClaims;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoding::{base64url, from_base64url};
use crate::keyring::MacKeyring;
use crate::limits::{CONTEXT_AGE_MS_MAX, CONTEXT_AHEAD_MS_MAX, CONTEXT_BYTES_MAX};

/// Name of the header field that carries a context.
pub const HEADER: &str = "meridian-context";

const DOMAIN: &str = "meridian-context-v1\n";

/// What an edge says of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Tenant; absent in an edge's own calls.
    pub tenant: Option<String>,
    /// Who signed the client's token (`iss`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Verified subject. Another issuer's is another person: see [`Context::person`].
    pub subject: Option<String>,
    /// Claims that the issuer's document maps, by attribute.
    #[serde(default)]
    pub claims: BTreeMap<String, Value>,
    /// Scopes of the verified token.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Where the client is.
    pub place: Option<ContextPlace>,
    /// Address of the client; empty in an edge's own calls.
    #[serde(default)]
    pub client: String,
    /// Variant by experiment.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// Attributes for personalisation.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Id of the decision, or a fresh id in an edge's own calls. With the attempt it is used once.
    pub decision: String,
    /// Attempt of the exchange, from 0.
    #[serde(default)]
    pub attempt: u32,
    /// Consistency asked: `eventual` or `session`.
    #[serde(default)]
    pub consistency: String,
    /// Version of the tenant's bundle.
    pub bundle: Option<String>,
    /// Name of the edge.
    pub edge: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub issued_ms: u64,
}

/// Where the client of a request is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextPlace {
    /// ISO 3166-1 alpha-2 code.
    pub country: Option<String>,
    /// The nearest region among those that the tenant allows.
    pub region: Option<String>,
}

/// Why a context was refused. Each has its own problem type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContext {
    /// There is none.
    #[error("the request carries no signed context")]
    Missing,
    /// It is not written as a context is.
    #[error("the context is not of the form v1.KID.JSON.MAC")]
    Malformed,
    /// Nobody knows its key.
    #[error("the context is signed by an unknown key")]
    UnknownKey,
    /// The signature is wrong, for this method, authority and path.
    #[error("the signature of the context is wrong")]
    BadSignature,
    /// It is older than allowed.
    #[error("the context is older than {} seconds", CONTEXT_AGE_MS_MAX / 1000)]
    Expired,
    /// It was made later than now.
    #[error("the context was made more than {} seconds in the future", CONTEXT_AHEAD_MS_MAX / 1000)]
    NotYet,
}

impl InvalidContext {
    /// Last word of its problem type: `missing`, `malformed`, `unknown-key`, `bad-signature`, `expired`, `not-yet`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown-key",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::NotYet => "not-yet",
        }
    }
}

impl Context {
    /// The context of a forwarded request, as the engine wants it signed.
    #[must_use]
    pub fn of(claims: &ContextClaims, edge: &str) -> Self {
        let place = (claims.country.is_some() || claims.nearest.is_some()).then(|| ContextPlace {
            country: claims.country.clone(),
            region: claims.nearest.as_deref().map(str::to_owned),
        });
        let identity = claims.identity.as_deref();
        // What the engine says of a claim is JSON text; a text that is none is handed on as a string.
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let json = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        Self {
            tenant: some(&claims.tenant),
            issuer: identity.map(|identity| identity.iss.clone()),
            subject: identity.and_then(|identity| identity.subject.as_deref()).map(str::to_owned),
            claims: identity
                .iter()
                .flat_map(|identity| &identity.attributes)
                .map(|(name, text)| (name.clone(), json(text)))
                .collect(),
            scopes: identity.map(|identity| identity.scopes.clone()).unwrap_or_default(),
            place,
            client: claims.client.clone(),
            variants: claims.variants.iter().map(|(of, is)| (of.to_string(), is.to_string())).collect(),
            attributes: claims.attributes.iter().map(|(of, is)| ((*of).to_owned(), is.to_string())).collect(),
            decision: claims.decision.clone(),
            attempt: claims.attempt,
            consistency: claims.consistency.to_owned(),
            bundle: some(&claims.bundle),
            edge: edge.to_owned(),
            issued_ms: claims.issued_ms,
        }
    }

    /// Whom the request is of: the subject with its issuer, since two issuers may give one subject to two people; empty
    /// where there is no subject.
    #[must_use]
    pub fn person(&self) -> String {
        let issuer = self.issuer.as_deref().unwrap_or_default();
        self.subject.as_deref().map(|subject| person(issuer, subject)).unwrap_or_default()
    }

    /// The context of an edge's own call to an origin (sync, lease, bundle, events). `id` is fresh for every call.
    #[must_use]
    pub fn of_edge(edge: &str, id: &str, now_ms: u64) -> Self {
        Self { decision: id.to_owned(), edge: edge.to_owned(), issued_ms: now_ms, ..Self::default() }
    }

    /// The value of the header field, for one request: its method, the authority (`host[:port]`) of the origin and the
    /// path with its query.
    #[must_use]
    pub fn sign(&self, keys: &MacKeyring, method: &str, authority: &str, path_and_query: &str) -> String {
        let json = base64url(&serde_json::to_vec(self).unwrap_or_default());
        let tag = keys.sign(DOMAIN, &message(method, authority, path_and_query, &json));
        format!("v1.{}.{json}.{}", keys.signing_kid(), base64url(&tag))
    }

    /// Reads the value of a header field and checks that it was signed for this request and is fresh. Whether it was
    /// used before is for the caller to know, by [`Context::decision`] and [`Context::attempt`].
    ///
    /// # Errors
    /// Says which check failed; nothing of the context is to be believed then.
    pub fn verify(
        header: Option<&str>,
        keys: &MacKeyring,
        method: &str,
        authority: &str,
        path_and_query: &str,
        now_ms: u64,
    ) -> Result<Self, InvalidContext> {
        let header = header.ok_or(InvalidContext::Missing)?;
        if header.len() > CONTEXT_BYTES_MAX {
            return Err(InvalidContext::Malformed);
        }
        let mut parts = header.split('.');
        let (Some("v1"), Some(kid), Some(json), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidContext::Malformed);
        };
        let tag = from_base64url(tag).filter(|tag| tag.len() == 32).ok_or(InvalidContext::Malformed)?;
        match keys.verify(kid, DOMAIN, &message(method, authority, path_and_query, json), &tag) {
            None => return Err(InvalidContext::UnknownKey),
            Some(false) => return Err(InvalidContext::BadSignature),
            Some(true) => {}
        }
        let json = from_base64url(json).ok_or(InvalidContext::Malformed)?;
        let context: Self = serde_json::from_slice(&json).map_err(|_| InvalidContext::Malformed)?;
        if now_ms.saturating_sub(context.issued_ms) > CONTEXT_AGE_MS_MAX {
            return Err(InvalidContext::Expired);
        }
        if context.issued_ms.saturating_sub(now_ms) > CONTEXT_AHEAD_MS_MAX {
            return Err(InvalidContext::NotYet);
        }
        Ok(context)
    }
}

fn message(method: &str, authority: &str, path_and_query: &str, json: &str) -> Vec<u8> {
    format!("{method}\n{authority}\n{path_and_query}\n{json}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meridian_engine::policy::jwt::Identity;

    use super::*;

    fn keys() -> MacKeyring {
        MacKeyring::parse(&format!("k1:{}", base64url(&[9; 32]))).unwrap()
    }

    fn context() -> Context {
        let identity = Identity {
            subject: Some("ada".into()),
            scopes: vec!["orders:read".into()],
            attributes: vec![("plan".into(), "\"gold\"".into()), ("seats".into(), "3".into())],
            ..Identity::default()
        };
        let claims = ContextClaims {
            tenant: "acme".into(),
            identity: Some(Arc::new(identity)),
            country: Some("DE".into()),
            nearest: Some("eu-west-1".into()),
            client: "192.0.2.1".into(),
            variants: vec![("checkout".into(), "b".into())],
            decision: "01J".into(),
            consistency: "session",
            bundle: "0123456789abcdef".into(),
            issued_ms: 1_000_000,
            ..ContextClaims::default()
        };
        Context { issuer: None, ..Context::of(&claims, "spin-1") }
    }

    #[test]
    fn what_was_signed_is_what_is_read() {
        let header = context().sign(&keys(), "GET", "127.0.0.1:17101", "/v1/whoami?a=b");
        let read = |method, authority, path, now_ms| {
            Context::verify(Some(&header), &keys(), method, authority, path, now_ms)
        };
        assert_eq!(read("GET", "127.0.0.1:17101", "/v1/whoami?a=b", 1_000_500), Ok(context()));
        assert_eq!(
            read("PUT", "127.0.0.1:17101", "/v1/whoami?a=b", 1_000_500),
            Err(InvalidContext::BadSignature)
        );
        assert_eq!(
            read("GET", "127.0.0.1:17102", "/v1/whoami?a=b", 1_000_500),
            Err(InvalidContext::BadSignature)
        );
        assert_eq!(
            read("GET", "127.0.0.1:17101", "/v1/whoami", 1_000_500),
            Err(InvalidContext::BadSignature)
        );
        assert_eq!(read("GET", "127.0.0.1:17101", "/v1/whoami?a=b", 1_030_001), Err(InvalidContext::Expired));
        assert_eq!(read("GET", "127.0.0.1:17101", "/v1/whoami?a=b", 994_999), Err(InvalidContext::NotYet));
    }

    #[test]
    fn one_subject_of_two_issuers_is_two_people() {
        let of = |issuer: Option<&str>, subject: Option<&str>| {
            let (issuer, subject) = (issuer.map(str::to_owned), subject.map(str::to_owned));
            let read = |header: String| Context::verify(Some(&header), &keys(), "GET", "a", "/", 1_000_000);
            read(Context { issuer, subject, ..context() }.sign(&keys(), "GET", "a", "/")).unwrap().person()
        };
        assert_ne!(of(Some("https://a.example"), Some("ada")), of(Some("https://b.example"), Some("ada")));
        assert_ne!(of(Some("https://a"), Some("bada")), of(Some("https://ab"), Some("ada")));
        assert_eq!(of(Some("https://a.example"), None), "");
    }

    #[test]
    fn nothing_else_is_a_context() {
        let header = context().sign(&keys(), "GET", "a", "/");
        let read = |header: Option<&str>| Context::verify(header, &keys(), "GET", "a", "/", 1_000_000);
        assert_eq!(read(None), Err(InvalidContext::Missing));
        for wrong in ["", "v1", "v2.k1.e30.AA", &format!("{header}.x"), &"x".repeat(CONTEXT_BYTES_MAX + 1)] {
            assert_eq!(read(Some(wrong)), Err(InvalidContext::Malformed), "{wrong}");
        }
        let other = MacKeyring::parse(&format!("k2:{}", base64url(&[9; 32]))).unwrap();
        let unknown = context().sign(&other, "GET", "a", "/");
        assert_eq!(read(Some(&unknown)), Err(InvalidContext::UnknownKey));
    }

    #[test]
    fn an_old_context_keeps_decoding() {
        let old = include_str!("../tests/stored/context-v1.txt").trim();
        assert_eq!(
            Context::verify(Some(old), &keys(), "GET", "127.0.0.1:17101", "/v1/whoami?a=b", 1_000_000),
            Ok(context())
        );
    }
}
