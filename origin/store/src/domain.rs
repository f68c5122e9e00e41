//! Hostnames and whose they are.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::taken::taken;
use crate::{Fault, Scope};

/// A hostname of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Exact, or with a leading `*.`; lower case.
    pub hostname: String,
    /// Slug of its tenant.
    pub tenant: String,
    /// When it was added.
    pub created_at_ms: i64,
}

fn read(row: &PgRow) -> Result<Domain, sqlx::Error> {
    Ok(Domain { hostname: row.try_get(0)?, tenant: row.try_get(1)?, created_at_ms: row.try_get(2)? })
}

/// Adds a hostname.
///
/// # Errors
/// [`Fault::Exists`] where somebody has it already.
pub async fn create(scope: &mut Scope, domain: &Domain) -> Result<(), Fault> {
    sqlx::query("insert into meridian.domain (hostname, tenant, created_at_ms) values ($1, $2, $3)")
        .bind(&domain.hostname)
        .bind(&domain.tenant)
        .bind(domain.created_at_ms)
        .execute(scope.conn())
        .await
        .map_err(taken("domain"))?;
    Ok(())
}

/// The first of these hostnames that somebody has, in the order given.
///
/// # Errors
/// A fault of the database.
pub async fn find(scope: &mut Scope, candidates: &[String]) -> Result<Option<Domain>, Fault> {
    let row = sqlx::query(
        "select hostname, tenant, created_at_ms from meridian.domain
          where hostname = any($1) order by array_position($1, hostname) limit 1",
    )
    .bind(candidates)
    .fetch_optional(scope.conn())
    .await?;
    Ok(row.as_ref().map(read).transpose()?)
}

/// All hostnames of a tenant in alphabetical order.
///
/// # Errors
/// A fault of the database.
pub async fn of_tenant(scope: &mut Scope, tenant: &str) -> Result<Vec<Domain>, Fault> {
    let rows = sqlx::query(
        "select hostname, tenant, created_at_ms from meridian.domain where tenant = $1 order by hostname",
    )
    .bind(tenant)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Hostnames in alphabetical order, those after `after`, at most `limit`, of one tenant if one is given.
///
/// # Errors
/// A fault of the database.
pub async fn list(
    scope: &mut Scope,
    tenant: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Domain>, Fault> {
    let rows = sqlx::query(
        "select hostname, tenant, created_at_ms from meridian.domain
          where hostname > $1 and ($2::text is null or tenant = $2) order by hostname limit $3",
    )
    .bind(after.unwrap_or(""))
    .bind(tenant)
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
