//! `GET /control/v1/decisions/{id}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use meridian_engine::policy::sampling::share_for;
use meridian_store::{Access, Fault, event};
use serde_json::{Value, json};

use super::Where;
use super::auth::{Operator, Scope};
use crate::problem::Problem;
use crate::request::{Path, Query};
use crate::state::Origin;

/// A decision of an edge with its explanation. What was not reported to this region is asked of the others.
#[utoipa::path(
    get,
    path = "/control/v1/decisions/{id}",
    tag = "control",
    params(("id" = String, Path, description = "Value of Meridian-Decision"), Where),
    responses(
        (status = 200, description = "{region, edge, event}: the event with its explanation", body = Object),
        (status = 404, description = "No region knows it: not reported yet, past its time, or sampled out"),
    ),
    security(("token" = []))
)]
pub(super) async fn get(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(id): Path<String>,
    Query(place): Query<Where>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    match event::get(&mut transaction, &id).await {
        Ok(found) => {
            let region = &origin.config.identity.region;
            return Ok(Json(json!({"region": region, "edge": found.edge, "event": found.body})));
        }
        Err(Fault::NotFound { .. }) => {}
        Err(fault) => return Err(fault.into()),
    }
    drop(transaction);
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !place.local && plain {
        let path = format!("/control/v1/decisions/{id}");
        let authorization = headers.get(header::AUTHORIZATION);
        let answers = origin.peers.ask_all(Method::GET, &path, authorization, Bytes::new()).await;
        for (_, answer) in answers {
            if let Ok(answer) = answer
                && answer.status() == StatusCode::OK
                && let Ok(found) = serde_json::from_slice(answer.body())
            {
                return Ok(Json(found));
            }
        }
    }
    Err(Problem::not_found(match share_for(&id) {
        Some(share) => {
            let (per_cent, digits) = (share / 100, share % 100);
            format!(
                "no region knows this decision: not reported yet, past its time, or sampled out (a route whose \
                 log.share is {per_cent}.{digits:02}% or more keeps it)"
            )
        }
        None => "no region knows this decision".to_owned(),
    }))
}
