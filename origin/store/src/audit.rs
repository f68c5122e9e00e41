//! The audit log: who changed what and when. Rows are added and never changed.

use sqlx::Row as _;
use uuid::Uuid;

use crate::{Fault, Scope};

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub at_ms: i64,
    /// Who: the name of a control token.
    pub actor: String,
    /// What was done: `tenant.create`, `release.push` …
    pub action: String,
    /// To what: a slug, a hostname, a target.
    pub subject: String,
    /// Tenant concerned.
    pub tenant: Option<String>,
    /// SHA-256 of what was there before.
    pub before_sha256: Option<String>,
    /// SHA-256 of what is there now.
    pub after_sha256: Option<String>,
    /// What else helps to understand it; never a secret.
    pub detail: serde_json::Value,
}

/// Adds a line, in the transaction of the change that it is about.
///
/// # Errors
/// A fault of the database.
pub async fn append(scope: &mut Scope, entry: &Entry) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.audit
             (id, at_ms, actor, action, subject, tenant, before_sha256, after_sha256, detail)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(Uuid::now_v7())
    .bind(entry.at_ms)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(&entry.tenant)
    .bind(&entry.before_sha256)
    .bind(&entry.after_sha256)
    .bind(&entry.detail)
    .execute(scope.conn())
    .await?;
    Ok(())
}

/// The newest lines first, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn list(scope: &mut Scope, tenant: Option<&str>, limit: i64) -> Result<Vec<Entry>, Fault> {
    let rows = sqlx::query(
        "select at_ms, actor, action, subject, tenant, before_sha256, after_sha256, detail
           from meridian.audit where $1::text is null or tenant = $1 order by at_ms desc, id desc limit $2",
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    let entries = rows.iter().map(|row| {
        Ok(Entry {
            at_ms: row.try_get(0)?,
            actor: row.try_get(1)?,
            action: row.try_get(2)?,
            subject: row.try_get(3)?,
            tenant: row.try_get(4)?,
            before_sha256: row.try_get(5)?,
            after_sha256: row.try_get(6)?,
            detail: row.try_get(7)?,
        })
    });
    Ok(entries.collect::<Result<_, sqlx::Error>>()?)
}
