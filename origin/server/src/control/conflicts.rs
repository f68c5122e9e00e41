//! `GET /control/v1/conflicts`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_store::conflict;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::auth::{Operator, Scope};
use super::rows;
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those of this tenant.
    tenant: Option<String>,
    /// How many, 50 where it is not given, at most 200.
    limit: Option<i64>,
}

/// Conflicts that replication resolved in this region, the newest first.
#[utoipa::path(
    get,
    path = "/control/v1/conflicts",
    tag = "control",
    params(Filter),
    responses((status = 200, description = "{\"conflicts\": […]}: both sides, what won and why", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let conflicts = conflict::list(&origin.store, filter.tenant.as_deref(), rows(filter.limit)).await?;
    Ok(Json(json!({"region": origin.config.identity.region, "conflicts": conflicts})))
}
