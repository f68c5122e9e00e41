//! What the other regions ask of this one: the stream of its changes.

mod stream;

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Origin;

/// Name of the header field by which an origin proves to be one.
pub(crate) const PEER: HeaderName = HeaderName::from_static("meridian-peer");

/// The proof of a request, where it has one.
pub(crate) fn proof(headers: &HeaderMap) -> Option<&str> {
    headers.get(PEER).and_then(|proof| proof.to_str().ok())
}

/// The routes between regions.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new().routes(routes!(stream::stream))
}
