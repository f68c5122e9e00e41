//! The purge journal: what became stale in this region, for edges that cache.
//!
//! An own commit is journalled by the consumer of this region's own log, a peer's in the transaction that applies
//! it, a manual purge by the control API. Numbers become visible in their order, so one number is a whole cursor.

use serde::Serialize;
use sqlx::PgConnection;

use crate::{Access, Fault, Scope, Store, limits};

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Purge {
    /// Its number.
    pub seq: i64,
    /// The tenant whose cached answers it concerns; `*` is all of them, with everything that they have.
    pub tenant: String,
    /// The tag: `COLLECTION`, `COLLECTION/ID`, that of a URL, or `*` for everything of the tenant.
    pub tag: String,
    /// The region whose commit it was; 0 for a manual purge.
    pub source: i16,
    /// The position of that commit in its region; 0 for a manual purge.
    pub position: i64,
    /// When it was written here, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Whether what it reaches may be of use while it is fetched anew.
    pub soft: bool,
}

/// What a reader of the journal has not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purges {
    /// Entries after the reader's cursor, oldest first, at most [`limits::PURGES_MAX`].
    pub rows: Vec<Purge>,
    /// The reader's next cursor.
    pub next: i64,
    /// Whether entries after the cursor may be gone: everything stored before now must count as stale.
    pub reset: bool,
}

/// Journals a manual purge of these tags (tenant, tag), effective for everything stored before now.
///
/// # Errors
/// [`Fault::Limit`] for too many or too long tags.
pub async fn manual(scope: &mut Scope, tags: &[(String, String)], soft: bool) -> Result<(), Fault> {
    if tags.len() > limits::PURGE_TAGS_MAX {
        let found = tags.len() as u64;
        return Err(Fault::Limit { what: "tags of a purge", found, max: limits::PURGE_TAGS_MAX as u64 });
    }
    if let Some((_, tag)) = tags.iter().find(|(_, tag)| tag.chars().count() > limits::TAG_CHARS_MAX) {
        let found = tag.chars().count() as u64;
        return Err(Fault::Limit { what: "characters of a tag", found, max: limits::TAG_CHARS_MAX as u64 });
    }
    let entries: Vec<(String, String, u64)> =
        tags.iter().map(|(tenant, tag)| (tenant.clone(), tag.clone(), 0)).collect();
    write(scope.conn(), 0, &entries, soft).await
}

/// Writes entries (tenant, tag, position) of one source. Holds the journal until the transaction ends, so it comes
/// last in it.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn journal(
    connection: &mut PgConnection,
    source: u16,
    entries: &[(String, String, u64)],
) -> Result<(), Fault> {
    write(connection, source, entries, false).await
}

async fn write(
    connection: &mut PgConnection,
    source: u16,
    entries: &[(String, String, u64)],
    soft: bool,
) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let tenants: Vec<&str> = entries.iter().map(|(tenant, _, _)| tenant.as_str()).collect();
    let tags: Vec<&str> = entries.iter().map(|(_, tag, _)| tag.as_str()).collect();
    let positions: Vec<i64> = entries.iter().map(|(_, _, position)| *position as i64).collect();
    sqlx::query("select meridian.journal($1, $2, $3, $4, $5)")
        .bind(tenants)
        .bind(tags)
        .bind(source as i16)
        .bind(positions)
        .bind(soft)
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads the journal after a cursor; without one, only says where the journal ends (and asks for a reset).
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn since(store: &Store, cursor: Option<i64>) -> Result<Purges, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let (first, first_at_ms, last): (Option<i64>, Option<i64>, Option<i64>) = sqlx::query_as(
        "select (select seq from meridian.purge order by seq limit 1),
                (select at_ms from meridian.purge order by seq limit 1), max(seq) from meridian.purge",
    )
    .fetch_one(scope.conn())
    .await?;
    let last = last.unwrap_or(0);
    let Some(cursor) = cursor else {
        return Ok(Purges { rows: Vec::new(), next: last, reset: true });
    };
    // After a trim the oldest entry left is itself too old: whoever is before it has missed some.
    let trimmed =
        first_at_ms.is_some_and(|at_ms| at_ms < now_ms() - limits::PURGE_AGE_MAX.as_millis() as i64);
    if cursor > last || (trimmed && first.is_some_and(|first| cursor < first)) {
        return Ok(Purges { rows: Vec::new(), next: last, reset: true });
    }
    let rows: Vec<(i64, String, String, i16, i64, i64, bool)> = sqlx::query_as(
        "select seq, tenant, tag, source, position, at_ms, soft from meridian.purge
          where seq > $1 order by seq limit $2",
    )
    .bind(cursor)
    .bind(limits::PURGES_MAX)
    .fetch_all(scope.conn())
    .await?;
    let rows: Vec<Purge> = rows
        .into_iter()
        .map(|(seq, tenant, tag, source, position, at_ms, soft)| Purge {
            seq,
            tenant,
            tag,
            source,
            position,
            at_ms,
            soft,
        })
        .collect();
    let next = rows.last().map_or(cursor, |row| row.seq);
    Ok(Purges { rows, next, reset: false })
}

/// The cursor of a reader that has seen everything written before a time.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn cursor_at(store: &Store, at_ms: i64) -> Result<i64, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let cursor: i64 = sqlx::query_scalar(
        "select coalesce((select min(seq) - 1 from meridian.purge where at_ms >= $1),
                         (select max(seq) from meridian.purge), 0)",
    )
    .bind(at_ms)
    .fetch_one(scope.conn())
    .await?;
    Ok(cursor)
}

/// Takes away the oldest of what is too old, at most `limit` at once, but leaves the newest of that: it marks where the
/// journal was cut. Returns how many went.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn trim(scope: &mut Scope, limit: i64) -> Result<u64, Fault> {
    let oldest_ms = now_ms() - limits::PURGE_AGE_MAX.as_millis() as i64;
    let done = sqlx::query(
        "delete from meridian.purge where seq in
             (select seq from meridian.purge
               where seq < (select max(seq) from meridian.purge where at_ms < $1) order by seq limit $2)",
    )
    .bind(oldest_ms)
    .bind(limit)
    .execute(scope.conn())
    .await?;
    Ok(done.rows_affected())
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds fit for millions of years")]
fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis() as i64)
}
