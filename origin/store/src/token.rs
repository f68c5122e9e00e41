//! Control tokens. Only their SHA-256 is kept.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::taken::taken;
use crate::{Fault, Scope};

/// A control token, as far as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token in lower-case hexadecimal.
    pub sha256: String,
    /// Who uses it; what the audit log calls the actor.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it lapses; `None` is never.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
}

impl Token {
    /// Whether it may be used at this time.
    #[must_use]
    pub fn valid(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

fn read(row: &PgRow) -> Result<Token, sqlx::Error> {
    Ok(Token {
        sha256: row.try_get(0)?,
        name: row.try_get(1)?,
        scopes: row.try_get(2)?,
        created_by: row.try_get(3)?,
        created_at_ms: row.try_get(4)?,
        expires_at_ms: row.try_get(5)?,
        revoked_at_ms: row.try_get(6)?,
    })
}

/// The token with this hash, valid or not.
///
/// # Errors
/// [`Fault::NotFound`] where there is none.
pub async fn get(scope: &mut Scope, sha256: &str) -> Result<Token, Fault> {
    let row = sqlx::query(
        "select sha256, name, scopes, created_by, created_at_ms, expires_at_ms, revoked_at_ms
           from meridian.token where sha256 = $1",
    )
    .bind(sha256)
    .fetch_optional(scope.conn())
    .await?
    .ok_or(Fault::NotFound { what: "token" })?;
    Ok(read(&row)?)
}

/// Adds a token.
///
/// # Errors
/// [`Fault::Exists`] where this very token is there already.
pub async fn create(scope: &mut Scope, token: &Token) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.token (sha256, name, scopes, created_by, created_at_ms, expires_at_ms)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&token.sha256)
    .bind(&token.name)
    .bind(&token.scopes)
    .bind(&token.created_by)
    .bind(token.created_at_ms)
    .bind(token.expires_at_ms)
    .execute(scope.conn())
    .await
    .map_err(taken("token"))?;
    Ok(())
}

/// The newest tokens first, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn list(scope: &mut Scope, limit: i64) -> Result<Vec<Token>, Fault> {
    let rows = sqlx::query(
        "select sha256, name, scopes, created_by, created_at_ms, expires_at_ms, revoked_at_ms
           from meridian.token order by created_at_ms desc, sha256 limit $1",
    )
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Revokes the token whose hash begins with these hexadecimal characters. Revoking it again changes nothing.
///
/// # Errors
/// [`Fault::NotFound`] where there is none.
pub async fn revoke(scope: &mut Scope, sha256_prefix: &str, now_ms: i64) -> Result<(), Fault> {
    let done = sqlx::query(
        "update meridian.token set revoked_at_ms = coalesce(revoked_at_ms, $2) where starts_with(sha256, $1)",
    )
    .bind(sha256_prefix)
    .bind(now_ms)
    .execute(scope.conn())
    .await?;
    if done.rows_affected() == 0 { Err(Fault::NotFound { what: "token" }) } else { Ok(()) }
}
