//! `POST /v1/collections/{name}/batch`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use meridian_store::record::{self, Operation, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use super::write::{Repeatable, Written, answer, before, finish, keep};
use super::{Right, open, permitted};
use crate::consistency::Visit;
use crate::context::Signed;
use crate::limits::BATCH_OPERATIONS_MAX;
use crate::problem::Problem;
use crate::request::{Path, Raw};
use crate::state::Origin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    operations: Vec<Operation>,
}

/// Makes, changes and deletes records: all of it or nothing.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/batch",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with it gets the first answer"),
    ),
    request_body(
        content = Object,
        description = "{\"operations\": [{\"op\": \"create\", …}, {\"op\": \"patch\", …}, {\"op\": \"delete\", …}]}"
    ),
    responses(
        (status = 200, description = "{\"results\": […]}, one for each operation", body = Object),
        (status = 400, description = "The body is not a batch"),
        (status = 403, description = "The token does not allow writing to the collection"),
        (status = 404, description = "There is no such collection or record; `operation` says which"),
        (status = 412, description = "A record is not the one expected; `operation` says which"),
        (status = 422, description = "An operation does not fit; `operation` says which"),
    ),
    security(("context" = []))
)]
pub(super) async fn batch(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path(collection): Path<String>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Write).await?;
    let repeatable = Repeatable::of(&headers, &format!("/v1/collections/{collection}/batch"), &body)?;
    let Batch { mut operations } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is not a batch: {error}")))?;
    if operations.is_empty() || operations.len() > BATCH_OPERATIONS_MAX {
        return Err(Problem::bad_request(format!("a batch has 1 to {BATCH_OPERATIONS_MAX} operations")));
    }
    if let Some(repeatable) = &repeatable {
        for (index, operation) in operations.iter_mut().enumerate() {
            if let Operation::Create { id: id @ None, .. } = operation {
                *id = Some(repeatable.record_id(tenant, &signed, index));
            }
        }
    }
    let visit = Visit::of(&origin, tenant, &headers);
    let (mut scope, declared) = open(&origin, tenant, &collection).await?;
    if let Some(written) = before(&mut scope, tenant, &signed, repeatable.as_ref()).await? {
        return Ok(answer(&origin, visit, &written).await);
    }
    let outcomes = record::batch(&mut scope, &declared, &operations).await?;
    let mut tags = vec![collection.clone()];
    let results: Vec<_> = outcomes.iter().map(|outcome| result(outcome, &collection, &mut tags)).collect();
    let written = Written {
        status: StatusCode::OK.as_u16(),
        body: Some(json!({"results": results})),
        etag: None,
        location: None,
    };
    keep(&mut scope, tenant, &signed, repeatable.as_ref(), &written).await?;
    finish(&origin, scope, tenant, &tags, visit, &written).await
}

/// What one operation did; what it made stale is added to the tags.
fn result(outcome: &Outcome, collection: &str, tags: &mut Vec<String>) -> Value {
    match outcome {
        Outcome::Written(record) => {
            tags.push(format!("{collection}/{}", record.id));
            json!({"record": record.to_json(), "etag": format!("\"{}\"", record.version)})
        }
        Outcome::Deleted(id) => {
            tags.push(format!("{collection}/{id}"));
            json!({"deleted": id})
        }
    }
}
