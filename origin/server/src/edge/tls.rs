//! `GET /edge/v1/tls/ask`: what ends TLS in front of an edge asks before it has a certificate issued.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use meridian_store::{Access, domain};
use serde::Deserialize;
use utoipa::IntoParams;

use super::hosts::candidates;
use crate::limits::HOSTNAME_BYTES_MAX;
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// Which name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// The name that a client asked for (RFC 6066, section 3).
    domain: String,
}

/// Whether a certificate may be had for a name: it, or a wildcard above it, is a verified hostname of a tenant.
///
/// Whoever asks needs no token, since what ends TLS has none; any edge tells the same to whoever sends it a request.
#[utoipa::path(
    get,
    path = "/edge/v1/tls/ask",
    tag = "edge",
    params(Asked),
    responses(
        (status = 200, description = "It may"),
        (status = 404, description = "It is nobody's, or not verified"),
    )
)]
pub(super) async fn ask(
    State(origin): State<Arc<Origin>>,
    Query(asked): Query<Asked>,
) -> Result<StatusCode, Problem> {
    let host = asked.domain.to_ascii_lowercase();
    let unverified = || Problem::not_found("this name is not a verified hostname of anybody");
    if host.len() > HOSTNAME_BYTES_MAX {
        return Err(unverified());
    }
    // Closed never: a question without a permit would only be one more.
    let _permit = origin.tls_asks.acquire().await;
    let mut scope = origin.store.begin(Access::Control).await?;
    let domain = domain::find(&mut scope, &candidates(&host)).await?;
    domain.filter(domain::Domain::is_verified).map(|_| StatusCode::OK).ok_or_else(unverified)
}
