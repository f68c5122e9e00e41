//! `PATCH /v1/collections/{name}/records/{id}`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use meridian_store::record;

use super::write::{Written, expected, finish, object};
use super::{Right, open, permitted, record_id};
use crate::consistency::Visit;
use crate::context::Signed;
use crate::problem::Problem;
use crate::request::{Path, Raw};
use crate::state::Origin;

/// Changes fields of a record by a merge patch (RFC 7396).
///
/// Fields that merge take operations instead of values: `{"stock": {"$add": -1}}` for a counter,
/// `{"tags": {"$add": ["x"], "$remove": ["y"]}}` for a set.
#[utoipa::path(
    patch,
    path = "/v1/collections/{name}/records/{id}",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = String, Path, description = "Id of the record (UUID)"),
        ("If-Match" = Option<String>, Header, description = "Changes the record only where it is still this one, by a strong entity tag"),
    ),
    request_body(content = Object, description = "The fields that change; null removes one"),
    responses(
        (status = 200, description = "The whole record; ETag with it", body = Object),
        (status = 400, description = "The body is not a JSON object"),
        (status = 403, description = "The token does not allow writing to the collection"),
        (status = 404, description = "There is no such record"),
        (status = 412, description = "The record is not the one expected"),
        (status = 422, description = "The fields don't fit the collection's schema"),
    ),
    security(("context" = []))
)]
pub(super) async fn patch(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Write).await?;
    let id = record_id(&id)?;
    let expected = expected(&headers)?;
    let fields = object(&body)?;
    let visit = Visit::of(&origin, tenant, &headers);
    let (mut scope, declared) = open(&origin, tenant, &collection).await?;
    let record = record::patch(&mut scope, &declared, id, fields, expected.as_ref()).await?;
    let written = Written::record(StatusCode::OK, &record);
    let tags = [format!("{collection}/{id}"), collection];
    finish(&origin, scope, tenant, &tags, visit, &written).await
}
