//! `GET /edge/v1/bundles/{target}/{version}/functions/{sha256}`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use meridian_store::{Access, release};
use meridian_wire::authored::component_bytes;
use meridian_wire::encoding::sha256_hex;
use meridian_wire::sync::parse_target;

use crate::context::Signed;
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// The component of a function, as it was pushed with this version of the target's rules.
#[utoipa::path(
    get,
    path = "/edge/v1/bundles/{target}/{version}/functions/{sha256}",
    tag = "edge",
    params(
        ("target" = String, Path, description = "tenant:SLUG"),
        ("version" = String, Path, description = "Version of the bundle that names the component"),
        ("sha256" = String, Path, description = "SHA-256 of the component, in lower-case hexadecimal"),
    ),
    responses(
        (status = 200, description = "The component", content_type = "application/wasm"),
        (status = 404, description = "The target has no such release here, or the release no such component"),
    ),
    security(("context" = []))
)]
pub(super) async fn function(
    State(origin): State<Arc<Origin>>,
    _signed: Signed,
    Path((target, version, sha256)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let target = parse_target(&target).map_err(|invalid| Problem::not_found(invalid.to_string()))?;
    let mut scope = origin.store.begin(Access::Control).await?;
    let components = release::components(&mut scope, &target.to_string(), &version).await?;
    drop(scope);
    let is_asked = |bytes: &Vec<u8>| sha256_hex(bytes) == sha256;
    let found = components.iter().filter_map(|content| component_bytes(content)).find(is_asked);
    let bytes = found.ok_or_else(|| Problem::not_found("the release has no such component"))?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    // Its name is what it is.
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, forever);
    Ok(response)
}
