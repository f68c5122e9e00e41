//! Conflicts that replication resolved: both sides, what won, and why.

use serde::Serialize;
use serde_json::Value;

use crate::{Access, Fault, Store, limits};

/// Two changes made without knowledge of each other, of which one gave way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conflict {
    /// Its number in this region.
    pub id: i64,
    /// When it was noticed here, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The tenant; absent for rows of the platform.
    pub tenant: Option<String>,
    /// The table.
    pub table_name: String,
    /// The row's key.
    pub key: Value,
    /// `insert_insert`, `update_update`, `update_delete`, `delete_delete`, or `unique` for a clash of different rows.
    pub class: String,
    /// The ordinal of the region whose change arrived.
    pub source: i16,
    /// `mine`, `theirs` or `merged`.
    pub winner: String,
    /// Why.
    pub reason: String,
    /// The row as it was here.
    pub mine: Value,
    /// The row as it arrived.
    pub theirs: Value,
}

type Row = (i64, i64, Option<String>, String, Value, String, i16, String, String, Value, Value);

impl Conflict {
    fn from_row(row: Row) -> Self {
        let (id, at_ms, tenant, table_name, key, class, source, winner, reason, mine, theirs) = row;
        Self { id, at_ms, tenant, table_name, key, class, source, winner, reason, mine, theirs }
    }
}

/// The latest conflicts noticed in this region, newest first; of one tenant, or of all.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn list(store: &Store, tenant: Option<&str>, limit: i64) -> Result<Vec<Conflict>, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "select id, (extract(epoch from at) * 1000)::bigint as at_ms, tenant, table_name, key, class, source, winner,
                reason, mine, theirs
           from meridian.conflict where $1::text is null or tenant = $1 order by id desc limit $2",
    )
    .bind(tenant)
    .bind(limit.clamp(1, limits::CONFLICTS_LIST_MAX))
    .fetch_all(scope.conn())
    .await?;
    Ok(rows.into_iter().map(Conflict::from_row).collect())
}
