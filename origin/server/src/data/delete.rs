//! `DELETE /v1/collections/{name}/records/{id}`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use meridian_store::record;

use super::write::{Written, expected, finish};
use super::{Right, open, permitted, record_id};
use crate::consistency::Visit;
use crate::context::Signed;
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// Deletes a record.
#[utoipa::path(
    delete,
    path = "/v1/collections/{name}/records/{id}",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = String, Path, description = "Id of the record (UUID)"),
        ("If-Match" = Option<String>, Header, description = "Deletes the record only where it is still this one, by a strong entity tag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 403, description = "The token does not allow writing to the collection"),
        (status = 404, description = "There is no such record"),
        (status = 412, description = "The record is not the one expected"),
    ),
    security(("context" = []))
)]
pub(super) async fn delete(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Write).await?;
    let id = record_id(&id)?;
    let expected = expected(&headers)?;
    let visit = Visit::of(&origin, tenant, &headers);
    let (mut scope, declared) = open(&origin, tenant, &collection).await?;
    record::delete(&mut scope, &declared, id, expected.as_ref()).await?;
    let tags = [format!("{collection}/{id}"), collection];
    finish(&origin, scope, tenant, &tags, visit, &Written::nothing()).await
}
