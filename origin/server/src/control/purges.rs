//! `POST /control/v1/purges`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use meridian_store::{Access, purge, tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use super::{Where, invalid, tenants};
use crate::limits::{PURGE_TAGS_MAX, TAG_BYTES_MAX};
use crate::problem::Problem;
use crate::request::{Body, Query};
use crate::state::Origin;

/// What shall be taken as stale.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Purge {
    /// Slug of the tenant.
    tenant: String,
    /// `COLLECTION`, `COLLECTION/ID`, tags of cache policies and upstreams, or `*` for everything.
    tags: Vec<String>,
}

/// Makes stale what edges have stored before now with these tags, in all regions.
#[utoipa::path(
    post,
    path = "/control/v1/purges",
    tag = "control",
    params(Where),
    request_body = Purge,
    responses(
        (status = 202, description = "{\"regions\": {REGION: \"purged\" or \"unreachable\"}}", body = Object),
        (status = 422, description = "There is no such tenant, or a tag is not right"),
    ),
    security(("token" = []))
)]
pub(super) async fn purge(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(place): Query<Where>,
    headers: HeaderMap,
    Body(wanted): Body<Purge>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    operator.may(Scope::Purges)?;
    check(&wanted.tags)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let owner = tenant::get(&mut transaction, &wanted.tenant).await;
    owner.map_err(|fault| tenants::unknown(fault, &wanted.tenant))?;
    let after = json!(wanted.tags);
    let change = Change {
        action: "cache.purge",
        subject: &wanted.tenant,
        tenant: Some(&wanted.tenant),
        before: None,
        after: Some(&after),
        detail: json!({"region": origin.config.identity.region, "tags": wanted.tags}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    // The journal comes last: it is held until the commit.
    purge::manual(&mut transaction, &wanted.tenant, &wanted.tags).await?;
    transaction.commit().await?;
    for tag in &wanted.tags {
        origin.answers.invalidate(&wanted.tenant, tag);
    }
    let mut regions = BTreeMap::from([(origin.config.identity.region.clone(), "purged")]);
    if !place.local {
        let body = Bytes::from(serde_json::to_vec(&wanted).unwrap_or_default());
        let authorization = headers.get(header::AUTHORIZATION);
        for (peer, answer) in
            origin.peers.ask_all(Method::POST, "/control/v1/purges", authorization, body).await
        {
            let purged = answer.is_ok_and(|answer| answer.status() == StatusCode::ACCEPTED);
            regions.insert(peer.region, if purged { "purged" } else { "unreachable" });
        }
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"regions": regions}))))
}

fn check(tags: &[String]) -> Result<(), Problem> {
    if tags.is_empty() || tags.len() > PURGE_TAGS_MAX {
        return Err(invalid("tags", &tags.len().to_string(), &format!("1 to {PURGE_TAGS_MAX} tags")));
    }
    let right = |tag: &str| {
        !tag.is_empty()
            && tag.len() <= TAG_BYTES_MAX
            && tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
    };
    match tags.iter().find(|tag| !right(tag)) {
        Some(wrong) => {
            let expected = format!("1 to {TAG_BYTES_MAX} printable characters without blank and comma");
            Err(invalid("tags", wrong, &expected))
        }
        None => Ok(()),
    }
}
