//! The data API: records of the tenant that the signed context names.

mod batch;
mod create;
mod delete;
mod get;
mod list;
mod patch;
mod reply;
mod whoami;
mod write;

pub(crate) use reply::matches;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use http::StatusCode;
use meridian_store::{Access, Collection, Fault, Scope, tenant};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::context::Signed;
use crate::limits::BODY_BYTES_MAX;
use crate::problem::Problem;
use crate::state::{Origin, Residence};

/// The routes of the data API.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(get::get, patch::patch, delete::delete))
        .routes(routes!(batch::batch))
        .routes(routes!(whoami::whoami))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// What a request wants to do with a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Read,
    Write,
}

/// The tenant of the request, once it is sure that it may do this here.
///
/// # Errors
/// 403 without tenant or scope or for a suspended tenant, 421 where the tenant's data may not be in this region.
async fn permitted<'a>(
    origin: &Origin,
    signed: &'a Signed,
    collection: &str,
    right: Right,
) -> Result<&'a str, Problem> {
    let tenant = signed.tenant.as_deref().ok_or_else(no_tenant)?;
    let needed = match right {
        Right::Read => format!("{collection}:read"),
        Right::Write => format!("{collection}:write"),
    };
    if !signed.scopes.contains(&needed) {
        return Err(Problem::scope(&needed));
    }
    match residence(origin, tenant).await? {
        Residence::Here => Ok(tenant),
        Residence::Unknown => {
            Err(Problem::new(StatusCode::FORBIDDEN, "unknown-tenant", "Nobody knows this tenant"))
        }
        Residence::Suspended => {
            Err(Problem::new(StatusCode::FORBIDDEN, "tenant-suspended", "This tenant is suspended"))
        }
        Residence::Elsewhere => {
            let title = "The tenant does not allow its data in this region";
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "region-not-allowed", title)
                .member("region", origin.config.identity.region.as_str()))
        }
    }
}

fn no_tenant() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "no-tenant", "The request belongs to no tenant")
}

/// Whether the tenant's data may be here; asked of the database at most once a second.
async fn residence(origin: &Origin, slug: &str) -> Result<Residence, Problem> {
    let look = async {
        let mut scope = origin.store.begin(Access::Control).await?;
        let region = &origin.config.identity.region;
        match tenant::get(&mut scope, slug).await {
            Ok(tenant) if !tenant.is_served() => Ok(Residence::Suspended),
            Ok(tenant) if tenant.allowed_regions.contains(region) => Ok(Residence::Here),
            Ok(_) => Ok(Residence::Elsewhere),
            Err(Fault::NotFound { .. }) => Ok(Residence::Unknown),
            Err(fault) => Err(fault),
        }
    };
    origin
        .residences
        .try_get_with(slug.to_owned(), look)
        .await
        .map_err(|fault: Arc<Fault>| Problem::unavailable(&*fault))
}

/// A transaction that sees this tenant's rows alone.
async fn begin(origin: &Origin, tenant: &str) -> Result<Scope, Problem> {
    Ok(origin.store.begin(Access::Tenant(tenant)).await?)
}

/// [`begin`], and the collection as the tenant has declared it.
async fn open(origin: &Origin, tenant: &str, collection: &str) -> Result<(Scope, Arc<Collection>), Problem> {
    let mut scope = begin(origin, tenant).await?;
    let declared = origin.store.collection(&mut scope, collection).await?;
    Ok((scope, declared))
}

/// The id of a record in a path. What can't be one names no record.
fn record_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| Problem::not_found("a record's id is a UUID"))
}
