//! `GET /v1/collections/{name}/records/{id}`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use meridian_store::record;

use super::{Right, open, permitted, record_id, reply};
use crate::cache::Answer;
use crate::consistency::{Visit, applied, reflected};
use crate::context::Signed;
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// One record.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/records/{id}",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = String, Path, description = "Id of the record (UUID)"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 where the record is still this one"),
        ("Meridian-Session" = Option<String>, Header, description = "What the client has seen"),
    ),
    responses(
        (status = 200, description = "The record, flat: its fields beside id, created_at, updated_at; ETag with it, a strong one", body = Object),
        (status = 304, description = "It is still the one that the client has"),
        (status = 403, description = "The token does not allow reading the collection"),
        (status = 404, description = "There is no such record"),
        (status = 503, description = "This region has not yet applied what the session has seen"),
    ),
    security(("context" = []))
)]
pub(super) async fn get(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Read).await?;
    let id = record_id(&id)?;
    let visit = Visit::of(&origin, tenant, &headers);
    visit.caught_up(&origin, &signed).await?;
    let seen = applied(&origin);
    let tag = format!("{collection}/{id}");
    let key = origin.answers.key(tenant, &tag, &tag);
    let kept = origin.answers.get(&key).await;
    origin.metrics.cache_read(kept.is_some());
    let answer = if let Some(kept) = kept {
        kept
    } else {
        let (mut scope, declared) = open(&origin, tenant, &collection).await?;
        let record = record::get(&mut scope, &declared, id).await?;
        scope.commit().await?;
        let answer = Arc::new(Answer {
            body: Bytes::from(record.to_json().to_string()),
            etag: format!("\"{}\"", record.version),
            tags: tag,
            reflects: reflected(&origin).await?,
        });
        origin.answers.keep(key, answer.clone()).await;
        answer
    };
    let session = visit.continued(&origin, &answer.reflects);
    Ok(reply::record(&answer, &headers, &seen, &session))
}
