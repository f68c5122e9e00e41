//! `POST /v1/collections/{name}/records`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use meridian_store::Fault;
use meridian_store::record::{self, Record};

use super::write::{Repeatable, Written, answer, before, finish, keep, object};
use super::{Right, begin, open, permitted};
use crate::consistency::Visit;
use crate::context::Signed;
use crate::problem::Problem;
use crate::request::{Path, Raw};
use crate::state::Origin;

/// Makes a record of the fields in the body.
#[utoipa::path(
    post,
    path = "/v1/collections/{name}/records",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with it gets the first answer"),
    ),
    request_body(content = Object, description = "The fields of the record"),
    responses(
        (status = 201, description = "The whole record; Location and ETag with it", body = Object),
        (status = 400, description = "The body is not a JSON object"),
        (status = 403, description = "The token does not allow writing to the collection"),
        (status = 404, description = "There is no such collection"),
        (status = 422, description = "The fields don't fit the collection's schema, or the key was used otherwise"),
    ),
    security(("context" = []))
)]
pub(super) async fn create(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path(collection): Path<String>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Write).await?;
    let path = format!("/v1/collections/{collection}/records");
    let repeatable = Repeatable::of(&headers, &path, &body)?;
    let fields = object(&body)?;
    let visit = Visit::of(&origin, tenant, &headers);
    let (mut scope, declared) = open(&origin, tenant, &collection).await?;
    if let Some(written) = before(&mut scope, tenant, &signed, repeatable.as_ref()).await? {
        return Ok(answer(&origin, visit, &written).await);
    }
    let id = repeatable.as_ref().map(|repeatable| repeatable.record_id(tenant, &signed, 0));
    let record = match (record::create(&mut scope, &declared, id, fields).await, id) {
        // The same request was answered in another region, and its record came from there.
        (Err(Fault::Exists { .. }), Some(id)) => {
            drop(scope);
            let record = record::get(&mut begin(&origin, tenant).await?, &declared, id).await?;
            return Ok(answer(&origin, visit, &created(&path, &record)).await);
        }
        (record, _) => record?,
    };
    let written = created(&path, &record);
    keep(&mut scope, tenant, &signed, repeatable.as_ref(), &written).await?;
    let tags = [format!("{collection}/{}", record.id), collection];
    finish(&origin, scope, tenant, &tags, visit, &written).await
}

fn created(path: &str, record: &Record) -> Written {
    let location = Some(format!("{path}/{}", record.id));
    Written { location, ..Written::record(StatusCode::CREATED, record) }
}
