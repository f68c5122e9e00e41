//! What all writes have in common: one transaction, an answer that is kept for a repeated request, invalidation before
//! the answer goes out, a session token that covers the write.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, LOCATION};
use http::{HeaderMap, StatusCode};
use meridian_store::Scope;
use meridian_store::idempotency::{self, Claim, Claimed};
use meridian_store::record::{Record, Version};
use meridian_wire::encoding::sha256_hex;
use meridian_wire::session::seen_text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::reply::{set, status};
use crate::consistency::{SEEN, SESSION, Visit, applied};
use crate::context::{Signed, now_ms_i64};
use crate::limits::{IDEMPOTENCY_KEEP_MS, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::problem::Problem;
use crate::state::Origin;

/// Name of the header field that makes a repeated request the same request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a write is answered with; also what is kept for a repeated request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Written {
    pub status: u16,
    pub body: Option<Value>,
    pub etag: Option<String>,
    pub location: Option<String>,
}

impl Written {
    /// A record that was made or changed.
    pub fn record(status: StatusCode, record: &Record) -> Self {
        Self {
            status: status.as_u16(),
            body: Some(record.to_json()),
            etag: Some(format!("\"{}\"", record.version)),
            location: None,
        }
    }

    /// Nothing to say but that it was done.
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT.as_u16(), body: None, etag: None, location: None }
    }
}

/// Commits the write, makes stale what it changed, and answers.
pub(super) async fn finish(
    origin: &Arc<Origin>,
    scope: Scope,
    tenant: &str,
    tags: &[String],
    visit: Visit,
    written: &Written,
) -> Result<Response, Problem> {
    scope.commit().await?;
    for tag in tags {
        origin.answers.invalidate(tenant, tag);
    }
    Ok(answer(origin, visit, written).await)
}

/// The answer to a write that is committed.
pub(super) async fn answer(origin: &Arc<Origin>, visit: Visit, written: &Written) -> Response {
    let mut seen = applied(origin);
    match origin.store.position().await {
        Ok(position) => {
            seen.insert(origin.config.identity.region_ordinal, position);
        }
        // The write stands; only the token can't vouch for it.
        Err(fault) => tracing::warn!(%fault, "the position after a write is not known"),
    }
    let mut response = match &written.body {
        Some(body) => Response::new(Body::from(body.to_string())),
        None => status(StatusCode::NO_CONTENT),
    };
    *response.status_mut() = StatusCode::from_u16(written.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if written.body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // Like a record that is read: with a tag by which it can be changed again.
    let control = if written.etag.is_some() { "no-store, no-transform" } else { "no-store" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
    for (name, value) in [(ETAG, &written.etag), (LOCATION, &written.location)] {
        if let Some(value) = value {
            set(headers, name, value);
        }
    }
    set(headers, SEEN, &seen_text(&seen));
    set(headers, SESSION, &visit.continued(origin, &seen));
    response
}

/// An idempotency key and what was asked with it.
pub(super) struct Repeatable {
    key: String,
    request_sha256: String,
}

impl Repeatable {
    /// What the request says; `None` without the header field.
    ///
    /// # Errors
    /// 400 where the key is empty, too long or not printable.
    pub fn of(headers: &HeaderMap, path: &str, body: &[u8]) -> Result<Option<Self>, Problem> {
        let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
        let key = key.ok_or_else(|| {
            let most = IDEMPOTENCY_KEY_BYTES_MAX;
            Problem::bad_request(format!("Idempotency-Key must be 1 to {most} printable ASCII characters"))
        })?;
        let mut request = format!("POST {path}\n").into_bytes();
        request.extend_from_slice(body);
        Ok(Some(Self { key: key.to_owned(), request_sha256: sha256_hex(&request) }))
    }

    /// Id of the record that the request makes, or of the one that its operation number `index` makes: the same in every
    /// region, so that a request repeated elsewhere, where its key is not known, does not make a second record.
    pub fn record_id(&self, tenant: &str, signed: &Signed, index: usize) -> Uuid {
        let mut hash = Sha256::new();
        for part in [tenant, &signed.person(), &self.key, &self.request_sha256] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update((index as u64).to_be_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        // Version 8: of a form of our own (RFC 9562, section 5.8).
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    fn claim<'a>(&'a self, tenant: &'a str, subject: &'a str) -> Claim<'a> {
        Claim { tenant, subject, key: &self.key, request_sha256: &self.request_sha256 }
    }
}

/// Claims the key of a request, if it has one. `Some` is the answer that it got before.
///
/// # Errors
/// 422 where the key was used for another request.
pub(super) async fn before(
    scope: &mut Scope,
    tenant: &str,
    signed: &Signed,
    repeatable: Option<&Repeatable>,
) -> Result<Option<Written>, Problem> {
    let Some(repeatable) = repeatable else { return Ok(None) };
    let person = signed.person();
    let claim = repeatable.claim(tenant, &person);
    match idempotency::claim(scope, claim, now_ms_i64(), IDEMPOTENCY_KEEP_MS).await? {
        Claimed::New => Ok(None),
        Claimed::Before(kept) => {
            serde_json::from_value(kept).map(Some).map_err(|error| Problem::internal(&error))
        }
        Claimed::Other => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used for another request",
        )),
    }
}

/// Keeps the answer for a repeated request.
pub(super) async fn keep(
    scope: &mut Scope,
    tenant: &str,
    signed: &Signed,
    repeatable: Option<&Repeatable>,
    written: &Written,
) -> Result<(), Problem> {
    let Some(repeatable) = repeatable else { return Ok(()) };
    let kept = serde_json::to_value(written).map_err(|error| Problem::internal(&error))?;
    Ok(idempotency::keep(scope, repeatable.claim(tenant, &signed.person()), &kept).await?)
}

/// The body of a request as a JSON object.
///
/// # Errors
/// 400 where it is anything else.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Problem::bad_request("the body must be a JSON object")),
        Err(error) => Err(Problem::bad_request(format!("the body is not JSON: {error}"))),
    }
}

/// The version that the client expects to change (`If-Match`, RFC 9110, section 13.1.1). `None` where it does not mind.
///
/// # Errors
/// 412 where it names a version that no record can have, or a weak entity tag: then none matches.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Version>, Problem> {
    let Some(tag) = headers.get(IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or("").trim();
    if tag == "*" {
        return Ok(None);
    }
    let version =
        tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    version.map(Some).ok_or_else(|| {
        Problem::new(StatusCode::PRECONDITION_FAILED, "version-differs", "The record is not the one expected")
            .detail("If-Match must be one strong entity tag that this API gave out, or *")
    })
}
