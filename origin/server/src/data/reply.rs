//! How records are answered: validators, tags, freshness, what the answer reflects.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use meridian_wire::session::{Positions, seen_text};

use crate::cache::Answer;
use crate::consistency::{SEEN, SESSION};

/// Name of the header field that says what an answer goes stale with.
pub(super) const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

const FRESHNESS: &str = "public, max-age=0, s-maxage=60, stale-while-revalidate=30";
/// The same for what nobody on its way may change (RFC 9110, section 7.7).
const FRESHNESS_AS_IT_IS: &str = "public, max-age=0, s-maxage=60, stale-while-revalidate=30, no-transform";

/// The answer to a read: whole, or 304 where the client has it already (RFC 9110, section 13.1.2).
pub(super) fn read(answer: &Answer, asked: &HeaderMap, seen: &Positions, session: &str) -> Response {
    let unchanged = asked.get(IF_NONE_MATCH).is_some_and(|tags| matches(tags, &answer.etag));
    let mut response = if unchanged {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::from(answer.body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(FRESHNESS));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    set(headers, ETAG, &answer.etag);
    set(headers, CACHE_TAG, &answer.tags);
    set(headers, SEEN, &seen_text(seen));
    set(headers, SESSION, session);
    response
}

/// The answer to a read of one record. Its entity tag is what `If-Match` compares, strongly (RFC 9110, section 13.1.1): an
/// edge that put the record into a content coding would have to make it a weak one, by which nothing can be changed.
pub(super) fn record(answer: &Answer, asked: &HeaderMap, seen: &Positions, session: &str) -> Response {
    let mut response = read(answer, asked, seen, session);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(FRESHNESS_AS_IT_IS));
    response
}

/// An empty answer with this status.
pub(super) fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a field; a value that can't be one is left out.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a list of entity tags holds this one, by weak comparison (RFC 9110, section 8.8.3.2).
pub(crate) fn matches(list: &HeaderValue, etag: &str) -> bool {
    let Ok(list) = list.to_str() else { return false };
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    list.trim() == "*" || list.split(',').any(|tag| strong(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        let list = |text: &'static str| HeaderValue::from_static(text);
        assert!(matches(&list("\"a\""), "\"a\""));
        assert!(matches(&list("\"b\", W/\"a\""), "\"a\""));
        assert!(matches(&list("*"), "\"a\""));
        assert!(!matches(&list("\"b\""), "\"a\""));
        assert!(!matches(&list("a"), "\"a\""));
    }
}
