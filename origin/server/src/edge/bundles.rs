//! `GET /edge/v1/bundles/{target}`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use meridian_store::{Access, release};
use meridian_wire::signature::TICKET_HEADER;
use meridian_wire::sync::parse_target;

use crate::context::Signed;
use crate::data::matches;
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// The newest bundle of a target, with its ticket.
///
/// A bundle that the edge has already is answered with 304; the ticket comes along even then, for a rollback gives an
/// old bundle a new sequence.
#[utoipa::path(
    get,
    path = "/edge/v1/bundles/{target}",
    tag = "edge",
    params(
        ("target" = String, Path, description = "platform or tenant:SLUG"),
        ("If-None-Match" = Option<String>, Header, description = "Version that the edge has, in quotes"),
    ),
    responses(
        (status = 200, description = "The bundle; its ticket in Meridian-Ticket", body = Object),
        (status = 304, description = "The edge has this version; the ticket of its newest release"),
        (status = 404, description = "The target has no release"),
    ),
    security(("context" = []))
)]
pub(super) async fn bundle(
    State(origin): State<Arc<Origin>>,
    _signed: Signed,
    Path(target): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let target = parse_target(&target).map_err(|invalid| Problem::not_found(invalid.to_string()))?;
    let mut scope = origin.store.begin(Access::Control).await?;
    let head = release::head(&mut scope, &target.to_string()).await?;
    let (release, contents) = head.ok_or_else(|| Problem::not_found("the target has no release"))?;
    let etag = format!("\"{}\"", release.version);
    let unchanged = headers.get(IF_NONE_MATCH).is_some_and(|tags| matches(tags, &etag));
    let mut response = if unchanged {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(contents.bundle));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    for (name, value) in [(ETAG, etag), (HeaderName::from_static(TICKET_HEADER), contents.ticket)] {
        let value = HeaderValue::from_str(&value).map_err(|error| Problem::internal(&error))?;
        response.headers_mut().insert(name, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
