//! How far each source has been applied here; written in the transaction that applies.

use meridian_replica::Cursor;
use sqlx::PgConnection;

use crate::Fault;

/// The durable cursor of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCursor {
    /// The source's ordinal.
    pub source: u16,
    /// The source's region.
    pub region: String,
    /// Which database of that region the position belongs to.
    pub incarnation: String,
    /// Everything up to this position is applied.
    pub position: u64,
    /// The source's time at that position, in milliseconds since the Unix epoch.
    pub commit_ms: u64,
}

/// The cursors of all sources.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<SourceCursor>, Fault> {
    let rows: Vec<(i16, String, String, i64, i64)> = sqlx::query_as(
        "select source, region, incarnation, position, commit_ms from meridian.cursor order by source",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(source, region, incarnation, position, commit_ms)| SourceCursor {
            source: source as u16,
            region,
            incarnation,
            position: position as u64,
            commit_ms: commit_ms as u64,
        })
        .collect())
}

/// The cursors as one vector.
#[must_use]
pub fn vector(cursors: &[SourceCursor]) -> Cursor {
    cursors.iter().map(|cursor| (cursor.source, cursor.position)).collect()
}

/// Moves a cursor where there was nothing to apply: an idle source, or own commits already journalled.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn advance(connection: &mut PgConnection, cursor: &SourceCursor) -> Result<(), Fault> {
    sqlx::query("select meridian.applied($1, $2, $3, $4, $5, 0)")
        .bind(cursor.source as i16)
        .bind(&cursor.region)
        .bind(&cursor.incarnation)
        .bind(cursor.position as i64)
        .bind(cursor.commit_ms as i64)
        .execute(connection)
        .await?;
    Ok(())
}
