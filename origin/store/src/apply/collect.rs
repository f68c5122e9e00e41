//! Removes tombstones and notes of conflicts that are past their time.

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::Catalogue;
use crate::{Fault, limits};

/// Takes away tombstones whose stamp is before `before_ms`, a bounded number a table. The caller knows that every
/// region has passed them: that nothing older can arrive any more that they would have to withstand.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn collect_tombstones(connection: &mut PgConnection, before_ms: u64) -> Result<u64, Fault> {
    let catalogue = Catalogue::load(connection).await?;
    connection.execute("set session_replication_role = replica").await?;
    let mut collected = 0;
    for table in catalogue.tables() {
        let name = table.name.replace('"', "\"\"");
        let sql = format!(
            "delete from meridian.\"{name}\" where ctid = any (array(
                 select ctid from meridian.\"{name}\" where _deleted and _stamp < $1 limit $2))"
        );
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind((before_ms << 16) as i64)
            .bind(limits::TOMBSTONES_ROUND_MAX)
            .execute(&mut *connection)
            .await?;
        collected += done.rows_affected();
    }
    Ok(collected)
}

/// Takes away the oldest conflicts beyond the number that is kept.
///
/// # Errors
/// [`Fault::Unavailable`] when the database is away.
pub async fn trim_conflicts(connection: &mut PgConnection) -> Result<u64, Fault> {
    let done =
        sqlx::query("delete from meridian.conflict where id <= (select max(id) from meridian.conflict) - $1")
            .bind(limits::CONFLICTS_KEPT_MAX)
            .execute(connection)
            .await?;
    Ok(done.rows_affected())
}
