//! `GET /replication/v1/stream`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;

use super::proof;
use crate::problem::Problem;
use crate::state::Origin;

/// The changes of this region, to another region that proves to be one: a WebSocket (RFC 6455).
#[utoipa::path(
    get,
    path = "/replication/v1/stream",
    tag = "replication",
    params(("Meridian-Peer" = String, Header, description = "v1.KID.REGION.TIMESTAMP_MS.MAC")),
    responses(
        (status = 101, description = "The stream: the receiver says where to resume, then acknowledges"),
        (status = 401, description = "No proof, or a wrong one"),
        (status = 426, description = "Not a WebSocket handshake"),
    ),
    security(("peer" = []))
)]
pub(super) async fn stream(State(origin): State<Arc<Origin>>, request: Request) -> Result<Response, Problem> {
    let permit = origin.replication.serve(proof(request.headers())).map_err(|refused| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unknown-peer",
            "The request does not prove to come from a peer",
        )
        .detail(refused.to_string())
    })?;
    let accept = accept(request.headers())?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => permit.run(TokioIo::new(upgraded)).await,
            Err(error) => tracing::warn!(%error, "a peer left before its stream began"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The answer to the key of a WebSocket handshake (RFC 6455, section 4.2).
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let is = |name: HeaderName, value: &str| {
        let found = headers.get_all(name).iter().filter_map(|found| found.to_str().ok());
        found.flat_map(|found| found.split(',')).any(|found| found.trim().eq_ignore_ascii_case(value))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let handshake = is(UPGRADE, "websocket") && is(CONNECTION, "upgrade") && is(SEC_WEBSOCKET_VERSION, "13");
    match key {
        Some(key) if handshake => {
            HeaderValue::from_str(&meridian_cdc::accept_key(key)).map_err(|error| Problem::internal(&error))
        }
        _ => Err(Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "not-websocket",
            "A WebSocket handshake is expected",
        )
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")),
    }
}
