//! `GET /v1/collections/{name}/records`

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use meridian_store::Fault;
use meridian_store::record::{self, Query};
use meridian_wire::encoding::version;
use serde_json::json;

use super::{Right, open, permitted, reply};
use crate::cache::Answer;
use crate::consistency::{Visit, applied, reflected};
use crate::context::Signed;
use crate::problem::Problem;
use crate::request::{Path, Query as QueryPairs};
use crate::state::Origin;

/// A page of the records that match.
///
/// Every other parameter is a filter: `status=open` for equality, `total[gt]=10` for `gt`, `gte`, `lt`, `lte`.
#[utoipa::path(
    get,
    path = "/v1/collections/{name}/records",
    tag = "data",
    params(
        ("name" = String, Path, description = "Collection"),
        ("order" = Option<String>, Query, description = "Field to order by, with a leading - for descending"),
        ("limit" = Option<u32>, Query, description = "Records of the page, 50 where it is not given, at most 200"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
        ("Meridian-Session" = Option<String>, Header, description = "What the client has seen"),
    ),
    responses(
        (status = 200, description = "{\"records\": […], \"next\": CURSOR or null}", body = Object),
        (status = 304, description = "It is still the page that the client has"),
        (status = 400, description = "A filter, the order, the limit or the cursor is not right"),
        (status = 403, description = "The token does not allow reading the collection"),
        (status = 404, description = "There is no such collection"),
        (status = 503, description = "This region has not yet applied what the session has seen"),
    ),
    security(("context" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Path(collection): Path<String>,
    RawQuery(raw): RawQuery,
    QueryPairs(pairs): QueryPairs<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = permitted(&origin, &signed, &collection, Right::Read).await?;
    let visit = Visit::of(&origin, tenant, &headers);
    visit.caught_up(&origin, &signed).await?;
    let seen = applied(&origin);
    let name = format!("{collection}?{}", raw.as_deref().unwrap_or(""));
    let key = origin.answers.key(tenant, &collection, &name);
    let kept = origin.answers.get(&key).await;
    origin.metrics.cache_read(kept.is_some());
    let answer = if let Some(kept) = kept {
        kept
    } else {
        let (mut scope, declared) = open(&origin, tenant, &collection).await?;
        let query = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query = Query::parse(query, &declared).map_err(Fault::from)?;
        let page = record::list(&mut scope, &declared, &query).await?;
        scope.commit().await?;
        let records: Vec<_> = page.records.iter().map(record::Record::to_json).collect();
        let body = json!({"records": records, "next": page.next}).to_string();
        let answer = Arc::new(Answer {
            etag: format!("\"{}\"", version(body.as_bytes())),
            body: Bytes::from(body),
            tags: collection,
            reflects: reflected(&origin).await?,
        });
        origin.answers.keep(key, answer.clone()).await;
        answer
    };
    let session = visit.continued(&origin, &answer.reflects);
    Ok(reply::read(&answer, &headers, &seen, &session))
}
