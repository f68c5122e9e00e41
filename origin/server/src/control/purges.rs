//! `POST /control/v1/purges`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use meridian_engine::policy::cache::url_tag;
use meridian_engine::purge::{EVERYBODY, EVERYTHING};
use meridian_store::{Access, Fault, Scope as Transaction, domain, purge, tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use super::{Where, invalid, tenants};
use crate::edge::hosts::candidates;
use crate::limits::{PURGE_TAGS_MAX, TAG_BYTES_MAX};
use crate::problem::Problem;
use crate::request::{Body, Query};
use crate::state::Origin;

/// What shall be taken as stale: tags of a tenant, URLs, or everything of everybody.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Purge {
    /// Slug of the tenant that the tags are of. URLs name theirs by their hostname.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// `COLLECTION`, `COLLECTION/ID`, tags of cache policies and upstreams, or `*` for everything of the tenant.
    tags: Vec<String>,
    /// Absolute URLs, each with its query.
    urls: Vec<String>,
    /// Everything of all tenants; needs the scope `*`.
    everything: bool,
    /// It is stale from now on, but may be served while it is fetched anew or the origin fails (RFC 5861), as long as
    /// policy and response allow.
    soft: bool,
}

/// Makes stale what edges have stored before now, in all regions: by tag, by URL, of a tenant or of everybody.
#[utoipa::path(
    post,
    path = "/control/v1/purges",
    tag = "control",
    params(Where),
    request_body = Purge,
    responses(
        (status = 202, description = "{\"regions\": {REGION: \"purged\" or \"unreachable\"}}", body = Object),
        (status = 422, description = "There is no such tenant or hostname, or a tag or URL is not right"),
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
    if wanted.everything {
        operator.may_all()?;
    }
    check(&wanted)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let tags = resolve(&mut transaction, &wanted).await?;
    audit(&mut transaction, &operator, &origin.config.identity.region, &wanted, &tags).await?;
    // The journal comes last: it is held until the commit.
    purge::manual(&mut transaction, &tags, wanted.soft).await?;
    transaction.commit().await?;
    // What this server keeps itself is never served stale, so that a soft purge forgets it as well.
    if wanted.everything {
        origin.answers.invalidate_all();
    }
    for (tenant, tag) in &tags {
        origin.answers.invalidate(tenant, tag);
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

fn check(wanted: &Purge) -> Result<(), Problem> {
    let Purge { tenant, tags, urls, everything, soft: _ } = wanted;
    let named = tags.len() + urls.len();
    if *everything {
        if named > 0 || tenant.is_some() {
            return Err(invalid("everything", "true", "no tenant, tags or urls beside it"));
        }
        return Ok(());
    }
    if named == 0 || named > PURGE_TAGS_MAX {
        return Err(invalid("tags", &named.to_string(), &format!("1 to {PURGE_TAGS_MAX} tags or urls")));
    }
    if tenant.is_none() && !tags.is_empty() {
        return Err(invalid("tenant", "nothing", "the slug of the tenant that the tags are of"));
    }
    let right = |tag: &&String| {
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

/// The tags of a purge, each with its tenant.
async fn resolve(transaction: &mut Transaction, wanted: &Purge) -> Result<Vec<(String, String)>, Problem> {
    if wanted.everything {
        return Ok(vec![(EVERYBODY.to_owned(), EVERYTHING.to_owned())]);
    }
    let mut resolved = Vec::new();
    if let Some(slug) = &wanted.tenant {
        let owner = tenant::get(transaction, slug).await;
        owner.map_err(|fault| tenants::unknown(fault, slug))?;
        resolved.extend(wanted.tags.iter().map(|tag| (slug.clone(), tag.clone())));
    }
    for url in &wanted.urls {
        let expected = "an absolute URL of http or https, percent-encoded";
        let graphic = url.bytes().all(|byte| byte.is_ascii_graphic());
        let (host, tag) = url_tag(url).filter(|_| graphic).ok_or_else(|| invalid("urls", url, expected))?;
        let domain = domain::find(transaction, &candidates(&host)).await?;
        let owner = domain.ok_or_else(|| invalid("urls", url, "a URL of a tenant's hostname"))?.tenant;
        if wanted.tenant.as_ref().is_some_and(|slug| *slug != owner) {
            return Err(invalid("urls", url, "a URL of the tenant that is named"));
        }
        resolved.push((owner, tag));
    }
    Ok(resolved)
}

/// A line for each tenant, or one for everybody.
async fn audit(
    transaction: &mut Transaction,
    operator: &Operator,
    region: &str,
    wanted: &Purge,
    tags: &[(String, String)],
) -> Result<(), Fault> {
    let mut by_tenant = BTreeMap::<&str, Vec<&str>>::new();
    for (tenant, tag) in tags {
        by_tenant.entry(tenant).or_default().push(tag);
    }
    for (tenant, tags) in by_tenant {
        let after = json!(tags);
        let change = Change {
            action: "cache.purge",
            subject: tenant,
            tenant: Some(tenant).filter(|_| !wanted.everything),
            before: None,
            after: Some(&after),
            detail: json!({"region": region, "tags": tags, "soft": wanted.soft}),
        };
        audit::write(transaction, operator, change).await?;
    }
    Ok(())
}
