//! `POST /edge/v1/leases`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_engine::step::Take;
use meridian_wire::lease::{LeaseReply, LeaseRequest};

use crate::context::{Signed, now_ms};
use crate::problem::Problem;
use crate::request::Body;
use crate::state::Origin;

/// Grants units of a limit to an edge.
#[utoipa::path(
    post,
    path = "/edge/v1/leases",
    tag = "edge",
    request_body(
        content = Object,
        description = "{tenant, limit, key, cost, global, region, sliding, quota, window_ms, burst, amount}",
        content_type = "application/json"
    ),
    responses(
        (status = 200, description = "{granted, remaining, reset_ms, wait_ms, expires_ms}", body = Object),
        (status = 422, description = "A number makes no sense"),
    ),
    security(("context" = []))
)]
pub(super) async fn lease(
    State(origin): State<Arc<Origin>>,
    _signed: Signed,
    Body(asked): Body<LeaseRequest>,
) -> Result<Json<LeaseReply>, Problem> {
    asked.check().map_err(|invalid| {
        Problem::invalid(vec![serde_json::json!({"path": invalid.field, "expected": invalid.expected})])
    })?;
    let lease = origin.authority.take(&Take::from(asked), now_ms());
    origin.metrics.lease_units.inc_by(u64::from(lease.granted));
    Ok(Json(lease.into()))
}
