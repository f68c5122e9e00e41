//! `POST /edge/v1/events`

use std::sync::Arc;

use axum::extract::State;
use http::{StatusCode, header};
use meridian_store::event::Event as Row;
use meridian_wire::event::{Event, EventBatch};
use meridian_wire::limits::EVENTS_MAX;

use crate::context::Signed;
use crate::limits::EVENTS_RETRY_AFTER_S;
use crate::problem::Problem;
use crate::request::Body;
use crate::state::Origin;

/// Takes a batch of decisions and faults of an edge.
///
/// They are written a moment later, many at once. Where too many wait already, the edge is told to come again.
#[utoipa::path(
    post,
    path = "/edge/v1/events",
    tag = "edge",
    request_body(content = Object, description = "{edge, events: […], faults: […]}", content_type = "application/json"),
    responses(
        (status = 202, description = "Taken"),
        (status = 422, description = "Too many events, or one is not right"),
        (status = 503, description = "No room now; Retry-After says when"),
    ),
    security(("context" = []))
)]
pub(super) async fn events(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Body(batch): Body<EventBatch>,
) -> Result<StatusCode, Problem> {
    let many = batch.events.len() + batch.faults.len();
    if many > EVENTS_MAX {
        return Err(Problem::bad_request(format!("{many} events, at most {EVENTS_MAX} in one batch")));
    }
    for fault in &batch.faults {
        tracing::warn!(
            edge = signed.edge,
            target = fault.target,
            version = fault.version,
            what = fault.what,
            "an edge refused a bundle and keeps the one before"
        );
        origin.metrics.edge_faults.inc();
    }
    let rows = batch.events.iter().map(|event| row(event, &signed.edge)).collect::<Result<Vec<_>, _>>()?;
    if origin.journal.offer(rows) {
        Ok(StatusCode::ACCEPTED)
    } else {
        origin.metrics.events_refused.inc();
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many events wait to be written")
            .header(header::RETRY_AFTER, &EVENTS_RETRY_AFTER_S.to_string()))
    }
}

fn row(event: &Event, edge: &str) -> Result<Row, Problem> {
    if event.id.is_empty() || event.id.len() > 64 {
        return Err(Problem::bad_request("an event's id must be 1 to 64 characters"));
    }
    Ok(Row {
        decision: event.id.clone(),
        tenant: event.tenant.clone(),
        edge: edge.to_owned(),
        at_ms: i64::try_from(event.at_ms).unwrap_or(i64::MAX),
        body: serde_json::to_value(event).map_err(|error| Problem::internal(&error))?,
    })
}
