//! Tenants: who is served, where its data may be.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::taken::taken;
use crate::{Fault, Scope};

/// A customer organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its short name in URLs, rules and tags.
    pub slug: String,
    /// What people call it.
    pub name: String,
    /// Whether it is served: `active` or `suspended`.
    pub state: String,
    /// Region of its writes by default; one of the allowed.
    pub home_region: String,
    /// Regions that may hold its data.
    pub allowed_regions: Vec<String>,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
}

fn read(row: &PgRow) -> Result<Tenant, sqlx::Error> {
    Ok(Tenant {
        slug: row.try_get(0)?,
        name: row.try_get(1)?,
        state: row.try_get(2)?,
        home_region: row.try_get(3)?,
        allowed_regions: row.try_get(4)?,
        created_at_ms: row.try_get(5)?,
        updated_at_ms: row.try_get(6)?,
    })
}

/// Adds a tenant.
///
/// # Errors
/// [`Fault::Exists`] where the slug is taken.
pub async fn create(scope: &mut Scope, tenant: &Tenant) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.tenant
             (slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&tenant.slug)
    .bind(&tenant.name)
    .bind(&tenant.state)
    .bind(&tenant.home_region)
    .bind(&tenant.allowed_regions)
    .bind(tenant.created_at_ms)
    .bind(tenant.updated_at_ms)
    .execute(scope.conn())
    .await
    .map_err(taken("tenant"))?;
    Ok(())
}

/// Writes everything that may change of a tenant: name, state, regions.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such tenant.
pub async fn update(scope: &mut Scope, tenant: &Tenant) -> Result<(), Fault> {
    let done = sqlx::query(
        "update meridian.tenant
            set name = $2, state = $3, home_region = $4, allowed_regions = $5, updated_at_ms = $6
          where slug = $1",
    )
    .bind(&tenant.slug)
    .bind(&tenant.name)
    .bind(&tenant.state)
    .bind(&tenant.home_region)
    .bind(&tenant.allowed_regions)
    .bind(tenant.updated_at_ms)
    .execute(scope.conn())
    .await?;
    if done.rows_affected() == 0 { Err(Fault::NotFound { what: "tenant" }) } else { Ok(()) }
}

/// One tenant.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such tenant.
pub async fn get(scope: &mut Scope, slug: &str) -> Result<Tenant, Fault> {
    let row = sqlx::query(
        "select slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms
           from meridian.tenant where slug = $1",
    )
    .bind(slug)
    .fetch_optional(scope.conn())
    .await?;
    Ok(read(&row.ok_or(Fault::NotFound { what: "tenant" })?)?)
}

/// One tenant, locked against other writers in this region until the transaction ends.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such tenant.
pub async fn get_for_update(scope: &mut Scope, slug: &str) -> Result<Tenant, Fault> {
    let row = sqlx::query(
        "select slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms
           from meridian.tenant where slug = $1 for update",
    )
    .bind(slug)
    .fetch_optional(scope.conn())
    .await?;
    Ok(read(&row.ok_or(Fault::NotFound { what: "tenant" })?)?)
}

/// Tenants in the order of their slugs, those after `after`, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn list(scope: &mut Scope, after: Option<&str>, limit: i64) -> Result<Vec<Tenant>, Fault> {
    let rows = sqlx::query(
        "select slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms
           from meridian.tenant where slug > $1 order by slug limit $2",
    )
    .bind(after.unwrap_or(""))
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
