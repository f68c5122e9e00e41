//! `GET /v1/whoami`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::no_tenant;
use crate::context::Signed;
use crate::problem::Problem;
use crate::state::Origin;

/// Who asks, as the edge has verified it, and who answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whoami {
    /// Verified subject.
    subject: Option<String>,
    /// Tenant.
    tenant: String,
    /// Scopes of the token.
    scopes: Vec<String>,
    /// Claims that the issuer's document maps.
    claims: BTreeMap<String, serde_json::Value>,
    /// Where the client is.
    place: Option<Place>,
    /// Variant by experiment.
    variants: BTreeMap<String, String>,
    /// Region that answers.
    region: String,
    /// Edge that asked.
    edge: String,
}

/// Where a client is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Place {
    /// ISO 3166-1 alpha-2 code.
    country: Option<String>,
    /// The nearest region among those that the tenant allows.
    region: Option<String>,
}

/// Who asks and who answers.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    tag = "data",
    responses((status = 200, description = "Who asks and who answers", body = Whoami)),
    security(("context" = []))
)]
pub(super) async fn whoami(State(origin): State<Arc<Origin>>, signed: Signed) -> Result<Response, Problem> {
    let context = (*signed.0).clone();
    let whoami = Whoami {
        subject: context.subject,
        tenant: context.tenant.ok_or_else(no_tenant)?,
        scopes: context.scopes,
        claims: context.claims,
        place: context.place.map(|place| Place { country: place.country, region: place.region }),
        variants: context.variants,
        region: origin.config.identity.region.clone(),
        edge: context.edge,
    };
    let mut response = Json(whoami).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
