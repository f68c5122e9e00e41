//! `GET /control/v1/replication`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::auth::{Operator, Scope};
use crate::consistency::applied;
use crate::problem::Problem;
use crate::state::Origin;

/// How replication with each of the other regions stands.
#[utoipa::path(
    get,
    path = "/control/v1/replication",
    tag = "control",
    responses((status = 200, description = "{region, ordinal, applied, peers: […]}", body = Object)),
    security(("token" = []))
)]
pub(super) async fn status(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    Ok(Json(json!({
        "region": origin.config.identity.region,
        "ordinal": origin.config.identity.region_ordinal,
        "applied": applied(&origin),
        "peers": origin.replication.status(),
    })))
}
