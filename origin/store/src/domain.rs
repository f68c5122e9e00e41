//! Hostnames, whose they are and how far they are.

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
    /// Whether it is known to be the tenant's: `pending`, `verified` or `failed`.
    pub verification: String,
    /// How far its certificate is: `none`, `issuing`, `active`, `renewing` or `failed`.
    pub tls: String,
    /// When it was added.
    pub created_at_ms: i64,
}

impl Domain {
    /// Whether it is served.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verification == "verified"
    }
}

fn read(row: &PgRow) -> Result<Domain, sqlx::Error> {
    Ok(Domain {
        hostname: row.try_get(0)?,
        tenant: row.try_get(1)?,
        verification: row.try_get(2)?,
        tls: row.try_get(3)?,
        created_at_ms: row.try_get(4)?,
    })
}

/// Adds a hostname.
///
/// # Errors
/// [`Fault::Exists`] where somebody has it already.
pub async fn create(scope: &mut Scope, domain: &Domain) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.domain (hostname, tenant, verification, tls, created_at_ms)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(&domain.hostname)
    .bind(&domain.tenant)
    .bind(&domain.verification)
    .bind(&domain.tls)
    .bind(domain.created_at_ms)
    .execute(scope.conn())
    .await
    .map_err(taken("domain"))?;
    Ok(())
}

/// Writes everything that may change of a hostname: how far it is.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such hostname.
pub async fn update(scope: &mut Scope, domain: &Domain) -> Result<(), Fault> {
    let done = sqlx::query("update meridian.domain set verification = $2, tls = $3 where hostname = $1")
        .bind(&domain.hostname)
        .bind(&domain.verification)
        .bind(&domain.tls)
        .execute(scope.conn())
        .await?;
    if done.rows_affected() == 0 { Err(Fault::NotFound { what: "domain" }) } else { Ok(()) }
}

/// One hostname, as it was added.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such hostname.
pub async fn get(scope: &mut Scope, hostname: &str) -> Result<Domain, Fault> {
    let row = sqlx::query(
        "select hostname, tenant, verification, tls, created_at_ms from meridian.domain where hostname = $1",
    )
    .bind(hostname)
    .fetch_optional(scope.conn())
    .await?;
    Ok(read(&row.ok_or(Fault::NotFound { what: "domain" })?)?)
}

/// The first of these hostnames that somebody has, in the order given; but one that is verified before all that are not:
/// a claim that nobody has verified takes nothing from whoever is served.
///
/// # Errors
/// A fault of the database.
pub async fn find(scope: &mut Scope, candidates: &[String]) -> Result<Option<Domain>, Fault> {
    let row = sqlx::query(
        "select hostname, tenant, verification, tls, created_at_ms from meridian.domain
          where hostname = any($1)
          order by verification <> 'verified', array_position($1, hostname) limit 1",
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
        "select hostname, tenant, verification, tls, created_at_ms from meridian.domain
          where tenant = $1 order by hostname",
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
        "select hostname, tenant, verification, tls, created_at_ms from meridian.domain
          where hostname > $1 and ($2::text is null or tenant = $2) order by hostname limit $3",
    )
    .bind(after.unwrap_or(""))
    .bind(tenant)
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
