//! Releases of rules: immutable, with a parent, numbered without gaps for each target.
//!
//! The head of a target is its release with the highest sequence. Whoever adds one holds the target's lock
//! ([`lock`]) from reading the head until the commit.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::taken::taken;
use crate::{Fault, Scope};

/// What is known of a release beside its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `platform` or `tenant:SLUG`.
    pub target: String,
    /// Grows by one with every release of the target.
    pub sequence: i64,
    /// Version of the bundle: the first 16 hexadecimal characters of its SHA-256.
    pub version: String,
    /// Version that it replaced.
    pub parent: Option<String>,
    /// `push`, `rollback` or `generated` (a tenant or domain changed).
    pub kind: String,
    /// What its maker wrote about it.
    pub note: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at_ms: i64,
}

/// What a release holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The documents as they were pushed: `[{"path", "content"}]`.
    pub files: serde_json::Value,
    /// Bytes of the bundle, canonical JSON.
    pub bundle: String,
    /// The signed ticket that goes with it.
    pub ticket: String,
}

/// Newest release of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The target.
    pub target: String,
    /// Sequence of its head.
    pub sequence: i64,
    /// Version of its head.
    pub version: String,
}

fn read(row: &PgRow) -> Result<Release, sqlx::Error> {
    Ok(Release {
        target: row.try_get(0)?,
        sequence: row.try_get(1)?,
        version: row.try_get(2)?,
        parent: row.try_get(3)?,
        kind: row.try_get(4)?,
        note: row.try_get(5)?,
        created_by: row.try_get(6)?,
        created_at_ms: row.try_get(7)?,
    })
}

fn read_contents(row: &PgRow) -> Result<(Release, Contents), sqlx::Error> {
    let contents = Contents { files: row.try_get(8)?, bundle: row.try_get(9)?, ticket: row.try_get(10)? };
    Ok((read(row)?, contents))
}

fn read_head(row: &PgRow) -> Result<Head, sqlx::Error> {
    Ok(Head { target: row.try_get(0)?, sequence: row.try_get(1)?, version: row.try_get(2)? })
}

/// Keeps other writers of this region away from the target until the transaction ends.
///
/// # Errors
/// A fault of the database.
pub async fn lock(scope: &mut Scope, target: &str) -> Result<(), Fault> {
    sqlx::query("insert into meridian.release_lock (target) values ($1) on conflict do nothing")
        .bind(target)
        .execute(scope.conn())
        .await?;
    sqlx::query("select 1 from meridian.release_lock where target = $1 for update")
        .bind(target)
        .execute(scope.conn())
        .await?;
    Ok(())
}

/// The newest release of a target, if it has one.
///
/// # Errors
/// A fault of the database.
pub async fn head(scope: &mut Scope, target: &str) -> Result<Option<(Release, Contents)>, Fault> {
    let row = sqlx::query(
        "select target, sequence, version, parent, kind, note, created_by, created_at_ms, files, bundle, ticket
           from meridian.release where target = $1 order by sequence desc limit 1",
    )
    .bind(target)
    .fetch_optional(scope.conn())
    .await?;
    Ok(row.as_ref().map(read_contents).transpose()?)
}

/// Heads of these targets; a target without a release is left out.
///
/// # Errors
/// A fault of the database.
pub async fn heads(scope: &mut Scope, targets: &[String]) -> Result<Vec<Head>, Fault> {
    let rows = sqlx::query(
        "select asked.target, newest.sequence, newest.version
           from unnest($1::text[]) as asked (target)
          cross join lateral (
                select sequence, version from meridian.release
                 where target = asked.target order by sequence desc limit 1) as newest",
    )
    .bind(targets)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read_head).collect::<Result<_, _>>()?)
}

/// Heads of the tenants that have, or have had, an upstream with a health check: by target, those behind `after`, at most
/// `limit`. However many other targets there are, they cost nothing.
///
/// # Errors
/// A fault of the database.
pub async fn checked(scope: &mut Scope, after: &str, limit: i64) -> Result<Vec<Head>, Fault> {
    // Each step finds the next target in the index, past all other releases of the last one.
    let rows = sqlx::query(
        r#"with recursive checked (target, number) as (
                (select target, 1::bigint from meridian.release
                  where strpos(bundle, '"healthCheck":{') > 0 and target > $1 and target like 'tenant:%'
                  order by target limit 1)
                union all
                select next.target, checked.number + 1
                  from checked cross join lateral (
                        select target from meridian.release
                         where strpos(bundle, '"healthCheck":{') > 0 and target > checked.target
                           and target like 'tenant:%'
                         order by target limit 1) as next
                 where checked.number < $2)
           select checked.target, newest.sequence, newest.version
             from checked cross join lateral (
                   select sequence, version from meridian.release
                    where target = checked.target order by sequence desc limit 1) as newest
            order by checked.target"#,
    )
    .bind(after)
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read_head).collect::<Result<_, _>>()?)
}

/// The bundle of one release of a target, without what was pushed.
///
/// # Errors
/// [`Fault::NotFound`] where there is none.
pub async fn bundle(scope: &mut Scope, target: &str, sequence: i64) -> Result<String, Fault> {
    let row = sqlx::query("select bundle from meridian.release where target = $1 and sequence = $2")
        .bind(target)
        .bind(sequence)
        .fetch_optional(scope.conn())
        .await?;
    Ok(row.ok_or(Fault::NotFound { what: "release" })?.try_get(0)?)
}

/// Releases of a target, newest first, those below the sequence `before`, at most `limit`.
///
/// # Errors
/// A fault of the database.
pub async fn list(
    scope: &mut Scope,
    target: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Release>, Fault> {
    let rows = sqlx::query(
        "select target, sequence, version, parent, kind, note, created_by, created_at_ms
           from meridian.release where target = $1 and sequence < $2 order by sequence desc limit $3",
    )
    .bind(target)
    .bind(before.unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// The newest release of a target that has this version.
///
/// # Errors
/// [`Fault::NotFound`] where there is none.
pub async fn get(scope: &mut Scope, target: &str, version: &str) -> Result<(Release, Contents), Fault> {
    let row = sqlx::query(
        "select target, sequence, version, parent, kind, note, created_by, created_at_ms, files, bundle, ticket
           from meridian.release where target = $1 and version = $2 order by sequence desc limit 1",
    )
    .bind(target)
    .bind(version)
    .fetch_optional(scope.conn())
    .await?;
    Ok(read_contents(&row.ok_or(Fault::NotFound { what: "release" })?)?)
}

/// The components of functions among the files of a release, as they were pushed: in base64.
///
/// # Errors
/// [`Fault::NotFound`] where there is no such release.
pub async fn components(scope: &mut Scope, target: &str, version: &str) -> Result<Vec<String>, Fault> {
    let row = sqlx::query(
        "select array(
                select file ->> 'content' from jsonb_array_elements(files) as pushed (file)
                 where file ->> 'path' like '%.wasm')
           from meridian.release where target = $1 and version = $2 order by sequence desc limit 1",
    )
    .bind(target)
    .bind(version)
    .fetch_optional(scope.conn())
    .await?;
    Ok(row.ok_or(Fault::NotFound { what: "release" })?.try_get(0)?)
}

/// Adds a release. The caller holds the lock and has computed the next sequence under it.
///
/// # Errors
/// [`Fault::Exists`] where the sequence is taken.
pub async fn add(scope: &mut Scope, release: &Release, contents: &Contents) -> Result<(), Fault> {
    sqlx::query(
        "insert into meridian.release
             (target, sequence, version, parent, kind, note, created_by, created_at_ms, files, bundle, ticket)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&release.target)
    .bind(release.sequence)
    .bind(&release.version)
    .bind(&release.parent)
    .bind(&release.kind)
    .bind(&release.note)
    .bind(&release.created_by)
    .bind(release.created_at_ms)
    .bind(&contents.files)
    .bind(&contents.bundle)
    .bind(&contents.ticket)
    .execute(scope.conn())
    .await
    .map_err(taken("release"))?;
    Ok(())
}
