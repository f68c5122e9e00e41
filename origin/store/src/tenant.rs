//! Tenants: who is served, who is above whom, where its data may be.

use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::limits::TENANT_DEPTH_MAX;
use crate::taken::taken;
use crate::{Fault, Scope};

/// A customer organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its short name in URLs, rules and tags.
    pub slug: String,
    /// What people call it.
    pub name: String,
    /// Whether it is served, as far as it is up to itself: `active` or `suspended`.
    pub state: String,
    /// Slug of the tenant above it; given once.
    pub parent: Option<String>,
    /// Slug of the nearest tenant above it that is suspended, as far as its home region has released that.
    pub suspended_by: Option<String>,
    /// Region of its writes by default; one of the allowed.
    pub home_region: String,
    /// Regions that may hold its data.
    pub allowed_regions: Vec<String>,
    /// What its contract lets it have, as the `plan` of a `Tenant` document; none where it says nothing.
    pub plan: Option<Value>,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
}

impl Tenant {
    /// Whether it is served.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.state == "active" && self.suspended_by.is_none()
    }
}

/// A query for tenants, as [`read`] takes them.
macro_rules! select {
    ($rest:literal) => {
        sqlx::query(concat!(
            "select slug, name, state, parent, suspended_by, home_region, allowed_regions, plan, created_at_ms,
                    updated_at_ms from meridian.tenant ",
            $rest
        ))
    };
}

fn read(row: &PgRow) -> Result<Tenant, sqlx::Error> {
    Ok(Tenant {
        slug: row.try_get(0)?,
        name: row.try_get(1)?,
        state: row.try_get(2)?,
        parent: row.try_get(3)?,
        suspended_by: row.try_get(4)?,
        home_region: row.try_get(5)?,
        allowed_regions: row.try_get(6)?,
        plan: row.try_get(7)?,
        created_at_ms: row.try_get(8)?,
        updated_at_ms: row.try_get(9)?,
    })
}

/// Adds a tenant.
///
/// # Errors
/// [`Fault::Exists`] where the slug is taken.
pub async fn create(scope: &mut Scope, tenant: &Tenant) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.tenant
             (slug, name, state, parent, suspended_by, home_region, allowed_regions, plan, created_at_ms, updated_at_ms)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&tenant.slug)
    .bind(&tenant.name)
    .bind(&tenant.state)
    .bind(&tenant.parent)
    .bind(&tenant.suspended_by)
    .bind(&tenant.home_region)
    .bind(&tenant.allowed_regions)
    .bind(&tenant.plan)
    .bind(tenant.created_at_ms)
    .bind(tenant.updated_at_ms)
    .execute(scope.conn())
    .await
    .map_err(taken("tenant"))?;
    Ok(())
}

/// Writes everything that may change of a tenant: name, state, who suspends it, regions, plan.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such tenant.
pub async fn update(scope: &mut Scope, tenant: &Tenant) -> Result<(), Fault> {
    let done = sqlx::query(
        "update meridian.tenant
            set name = $2, state = $3, suspended_by = $4, home_region = $5, allowed_regions = $6, plan = $7,
                updated_at_ms = $8
          where slug = $1",
    )
    .bind(&tenant.slug)
    .bind(&tenant.name)
    .bind(&tenant.state)
    .bind(&tenant.suspended_by)
    .bind(&tenant.home_region)
    .bind(&tenant.allowed_regions)
    .bind(&tenant.plan)
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
    let row = select!("where slug = $1").bind(slug).fetch_optional(scope.conn()).await?;
    Ok(read(&row.ok_or(Fault::NotFound { what: "tenant" })?)?)
}

/// One tenant, locked against other writers in this region until the transaction ends.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such tenant.
pub async fn get_for_update(scope: &mut Scope, slug: &str) -> Result<Tenant, Fault> {
    let row = select!("where slug = $1 for update").bind(slug).fetch_optional(scope.conn()).await?;
    Ok(read(&row.ok_or(Fault::NotFound { what: "tenant" })?)?)
}

/// A tenant's parent and those above it, the nearest first, as far as they are known in this region: at most
/// [`TENANT_DEPTH_MAX`].
///
/// # Errors
/// A fault of the database.
pub async fn above(scope: &mut Scope, parent: Option<&str>) -> Result<Vec<Tenant>, Fault> {
    let mut above: Vec<Tenant> = Vec::new();
    let mut next = parent.map(str::to_owned);
    while let Some(slug) = next.filter(|_| above.len() < TENANT_DEPTH_MAX) {
        let row = select!("where slug = $1").bind(slug).fetch_optional(scope.conn()).await?;
        let Some(tenant) = row.as_ref().map(read).transpose()? else { break };
        next = tenant.parent.clone();
        above.push(tenant);
    }
    Ok(above)
}

/// Slugs of tenants at home in a region whose row does not say what the rows of those above it say: who of them, if anybody,
/// suspends it. In the order of the slugs, those after `after`, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn unsettled(
    scope: &mut Scope,
    home_region: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, Fault> {
    // There are at most two above one: see TENANT_DEPTH_MAX.
    const { assert!(TENANT_DEPTH_MAX == 3) };
    let slugs: Vec<String> = sqlx::query_scalar(
        "select below.slug from meridian.tenant below
           left join meridian.tenant parent on parent.slug = below.parent
           left join meridian.tenant upper on upper.slug = parent.parent
          where below.parent is not null and below.home_region = $1 and below.slug > $2
            and below.suspended_by is distinct from
                case when parent.state = 'suspended' then parent.slug
                     when upper.state = 'suspended' then upper.slug end
          order by below.slug limit $3",
    )
    .bind(home_region)
    .bind(after)
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(slugs)
}

/// Tenants in the order of their slugs, those after `after`, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn list(scope: &mut Scope, after: Option<&str>, limit: i64) -> Result<Vec<Tenant>, Fault> {
    let rows = select!("where slug > $1 order by slug limit $2")
        .bind(after.unwrap_or(""))
        .bind(limit)
        .fetch_all(scope.conn())
        .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
