//! The way of a few rows of one table: one statement writes them, their cursor and their purges.

use sqlx::AssertSqlSafe;

use super::decide::note;
use super::{Applied, Applier, End, Incoming, Open, Route, purges};
use crate::{Fault, limits};

impl Applier {
    /// Applies a few rows of one table and moves the cursor, all in one statement and so in one round trip, if every
    /// row is new here or plainly newer than what is here: what a busy day is made of. `None` says that nothing was
    /// done, because some row has to be looked at: begin a transaction for them.
    ///
    /// # Errors
    /// As those of a transaction; nothing was done then either.
    pub async fn apply_whole(
        &mut self,
        route: &Route,
        rows: &[Incoming<'_>],
        position: u64,
        commit_ms: u64,
    ) -> Result<Option<Applied>, Fault> {
        let Route::Known(plan) = route else { return Ok(None) };
        if rows.len() > limits::APPLY_WHOLE_ROWS_MAX {
            return Ok(None);
        }
        let (candidates, _) = self.candidates(plan, rows);
        // Fewer when some are set aside, or when a key comes twice.
        if candidates.len() < rows.len() {
            return Ok(None);
        }
        let mut open = Open::default();
        for candidate in &candidates {
            open.stamp_max = open.stamp_max.max(candidate.version.stamp.time());
            note(&mut open, plan, &candidate.row);
        }
        let mut applied = open.applied;
        applied.source = self.source.ordinal;
        applied.rows = rows.len() as u64;
        applied.position = position;
        applied.purges = purges(open.tags);

        let mut query = sqlx::query(AssertSqlSafe(plan.whole.clone()));
        for place in 0..plan.columns.len() {
            let column: Vec<Option<&str>> =
                candidates.iter().map(|c| c.row.values.get(place).copied().flatten()).collect();
            query = query.bind(column);
        }
        let end = End { position: Some(position), commit_ms };
        let query = self.bind_end(query.bind(rows.len() as i64), end, open.stamp_max, &applied.purges);
        match query.execute(&mut self.connection).await.map_err(Fault::from) {
            Ok(_) => Ok(Some(applied)),
            // The statement's own way to undo itself; a value that can't be read is found again by a transaction.
            Err(fault) if fault.sqlstate().as_deref() == Some(NOT_A_NUMBER) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// `invalid_text_representation`.
const NOT_A_NUMBER: &str = "22P02";

/// The statement around a plan's upsert, which takes `columns` parameters.
pub(super) fn statement(upsert: &str, columns: usize) -> String {
    // Expressions of a select list are evaluated in order: rows first, then what locks the journal until the commit.
    format!(
        "with written as ({upsert} returning 1)
         select (case (select count(*) from written) when ${} then '1' else 'some rows have to be looked at' end)::int, {}",
        columns + 1,
        end(columns + 2)
    )
}

/// What ends every apply transaction that moves the cursor, with parameters from `first` on as
/// [`Applier::bind_end`] binds them.
pub(super) fn end(first: usize) -> String {
    let p = |number: usize| format!("${}", first + number);
    format!(
        "pg_replication_origin_xact_setup('0/0'::pg_lsn + {position}::numeric, now()),
         meridian.applied({source}, {}, {}, {position}, {}, {}),
         case when cardinality({tenants}::text[]) > 0
              then meridian.journal({tenants}, {}, {source}, {}) end",
        p(1),
        p(2),
        p(4),
        p(5),
        p(7),
        p(8),
        source = p(0),
        position = p(3),
        tenants = p(6),
    )
}
