//! What a client is told when something went wrong: problem details (RFC 9457). The one place that maps errors to
//! statuses. Text of the database never leaves: what is not the caller's fault is logged here and answered blankly.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use meridian_store::Fault;
use meridian_wire::problem as wire;
use serde_json::{Value, json};

/// Name of the header field that names the region whose changes have not arrived yet.
const BEHIND: HeaderName = HeaderName::from_static("meridian-behind");

/// A problem on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    body: wire::Problem,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of this kind: the last segment of its `type`, and a title that is the same for all of the kind.
    #[must_use]
    pub fn new(status: StatusCode, slug: &str, title: &str) -> Self {
        let body = wire::Problem::new(slug, title, status.as_u16());
        Self(Box::new(Parts { status, body, headers: HeaderMap::new() }))
    }

    /// Says what is special about this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.body.detail = Some(detail.into());
        self
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.body.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field to the answer; a value that can't be one is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.append(name, value);
        }
        self
    }

    /// The status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The answer, with the id of the decision that the request belongs to.
    #[must_use]
    pub fn respond(mut self, decision: Option<&str>) -> Response {
        self.0.body.decision = decision.map(str::to_owned);
        let body = serde_json::to_vec(&self.0.body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        *response.headers_mut() = self.0.headers.clone();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(wire::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(self);
        response
    }

    /// The request was wrong in a way that has no kind of its own.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is not right").detail(detail)
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing").detail(detail)
    }

    /// There is nothing at this path, or nothing that whoever asks should know of.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::not_found("there is nothing here")
    }

    /// What was sent is well formed, but not right; `errors` says where.
    #[must_use]
    pub fn invalid(errors: impl Into<Value>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "What was sent is not valid")
            .member("errors", errors)
    }

    /// The caller may not do this.
    #[must_use]
    pub fn scope(needed: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "insufficient-scope", "The token does not allow this")
            .detail(format!("scope {needed} is needed"))
            .member("scope", needed)
    }

    /// More was sent than is taken.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is larger than allowed")
    }

    /// A region has not yet applied the changes of the one with this ordinal that the answer needs.
    #[must_use]
    pub fn behind(ordinal: u16, title: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "behind", title)
            .member("behind", ordinal)
            .header(BEHIND, &ordinal.to_string())
            .header(http::header::RETRY_AFTER, "1")
    }

    /// Something went wrong here; the cause is in the log, not in the answer.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(cause = %Causes(cause), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here")
    }

    /// Something that is needed is away; another try may work.
    #[must_use]
    pub fn unavailable(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(cause = %Causes(cause), "a request could not be answered now");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now")
            .header(http::header::RETRY_AFTER, "1")
    }
}

/// An error with everything that caused it, for the log.
struct Causes<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}

/// Whose fault it is decides: the caller's is told in full, ours only in the log.
impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let fault = match fault {
            Fault::At { index, fault } => return Self::from(*fault).member("operation", index),
            fault => fault,
        };
        match &fault {
            Fault::NotFound { what } => Self::not_found(format!("{what} not found")),
            Fault::Exists { what } => Self::new(StatusCode::CONFLICT, "exists", "It exists already")
                .detail(format!("this {what} exists already")),
            Fault::Version { expected, found } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "version-differs",
                "The record is not the one expected",
            )
            .member("expected", format!("\"{expected}\""))
            .member("found", format!("\"{found}\"")),
            Fault::Invalid(violations) => {
                Self::invalid(serde_json::to_value(violations).unwrap_or_default()).detail(fault.to_string())
            }
            Fault::Query(invalid) => {
                Self::new(StatusCode::BAD_REQUEST, "bad-query", "The query is not right")
                    .detail(invalid.to_string())
            }
            Fault::Declaration { path, found, expected } => {
                Self::invalid(json!([{"path": path, "found": found, "expected": expected}]))
            }
            Fault::Limit { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit-reached", "A limit was reached")
                    .detail(fault.to_string())
            }
            fault if fault.transient() => Self::unavailable(fault),
            fault => Self::internal(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_database_never_leaves() {
        let problem = Problem::from(Fault::Migration("relation \"pg_catalog\" is odd".into()));
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_string(&problem.0.body).unwrap();
        assert!(!text.contains("pg_catalog"), "{text}");
    }
}
