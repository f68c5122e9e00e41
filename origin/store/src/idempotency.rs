//! Answers to requests with an idempotency key, stored in the transaction of the write that they answer.

use sqlx::Row as _;

use crate::{Fault, Scope};

/// Whose key it is and what was asked with it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Whose request it is, the issuer included; empty where it has no subject.
    pub subject: &'a str,
    /// The key that the client chose.
    pub key: &'a str,
    /// SHA-256 of method, path and body, in hexadecimal.
    pub request_sha256: &'a str,
}

/// What became of a [`Claim`].
#[derive(Clone, Debug, PartialEq)]
pub enum Claimed {
    /// It is new: do the work, then [`keep`] the answer and commit.
    New,
    /// The work was done before, and this was the answer.
    Before(serde_json::Value),
    /// The key was used for another request.
    Other,
}

/// Claims a key. A second request with the same key waits here until the first one has ended.
///
/// # Errors
/// A fault of the database.
pub async fn claim(scope: &mut Scope, claim: Claim<'_>, now_ms: i64, keep_ms: i64) -> Result<Claimed, Fault> {
    let taken = sqlx::query(
        "insert into meridian.idempotency as kept (tenant, subject, key, request_sha256, created_at_ms)
         values ($1, $2, $3, $4, $5)
         on conflict (tenant, subject, key) do update
            set request_sha256 = excluded.request_sha256, response = null, created_at_ms = excluded.created_at_ms
          where kept.created_at_ms < $5 - $6",
    )
    .bind(claim.tenant)
    .bind(claim.subject)
    .bind(claim.key)
    .bind(claim.request_sha256)
    .bind(now_ms)
    .bind(keep_ms)
    .execute(scope.conn())
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(Claimed::New);
    }
    let row = sqlx::query(
        "select request_sha256, response from meridian.idempotency
          where tenant = $1 and subject = $2 and key = $3",
    )
    .bind(claim.tenant)
    .bind(claim.subject)
    .bind(claim.key)
    .fetch_optional(scope.conn())
    .await?
    .ok_or(Fault::NotFound { what: "idempotency key" })?;
    let request_sha256: String = row.try_get(0)?;
    let response: Option<serde_json::Value> = row.try_get(1)?;
    Ok(match response {
        Some(response) if request_sha256 == claim.request_sha256 => Claimed::Before(response),
        _ => Claimed::Other,
    })
}

/// Keeps the answer to a claimed request.
///
/// # Errors
/// A fault of the database.
pub async fn keep(scope: &mut Scope, claim: Claim<'_>, response: &serde_json::Value) -> Result<(), Fault> {
    sqlx::query(
        "update meridian.idempotency set response = $4 where tenant = $1 and subject = $2 and key = $3",
    )
    .bind(claim.tenant)
    .bind(claim.subject)
    .bind(claim.key)
    .bind(response)
    .execute(scope.conn())
    .await?;
    Ok(())
}

/// Forgets answers older than this time, at most `limit` at once. Returns how many went.
///
/// # Errors
/// A fault of the database.
pub async fn trim(scope: &mut Scope, before_ms: i64, limit: i64) -> Result<u64, Fault> {
    let done = sqlx::query(
        "delete from meridian.idempotency where (tenant, subject, key) in
             (select tenant, subject, key from meridian.idempotency
               where created_at_ms < $1 order by created_at_ms limit $2)",
    )
    .bind(before_ms)
    .bind(limit)
    .execute(scope.conn())
    .await?;
    Ok(done.rows_affected())
}
