//! Sets rows aside that can't be written now, and tries them again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{Executor, FromRow};

use super::plan::{Catalogue, Plan, Unknown};
use super::{Applied, Applier, End, Incoming, Open, Route};
use crate::{Fault, limits};

/// A row set aside, as it came.
#[derive(Serialize, Deserialize)]
struct Content {
    columns: Vec<String>,
    values: Vec<Option<String>>,
}

/// Why a statement on rows failed, when it is the rows' fault; else the transaction has to be tried again.
pub(super) fn blame(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::Exists { .. } => Some("unique"),
        Fault::Database(_) => match fault.sqlstate()?.get(..2)? {
            "22" | "23" => Some("invalid"),
            "42" => Some("schema"),
            _ => None,
        },
        _ => None,
    }
}

fn describe(fault: &Fault) -> String {
    match (fault, fault.sqlstate()) {
        (_, Some(code)) => format!("{fault} (SQLSTATE {code})"),
        (_, None) => fault.to_string(),
    }
}

impl Applier {
    /// Writes rows under savepoints, halving what fails until the rows at fault are found and set aside.
    pub(super) async fn write_carefully(
        &mut self,
        open: &mut Open,
        plan: &Arc<Plan>,
        rows: &[Incoming<'_>],
    ) -> Result<(), Fault> {
        let mut left = vec![rows];
        while let Some(rows) = left.pop() {
            self.connection.execute("savepoint rows").await?;
            let Err(fault) = self.write_plainly(open, plan, rows).await else {
                self.connection.execute("release savepoint rows").await?;
                continue;
            };
            let Some(state) = blame(&fault) else { return Err(fault) };
            self.connection.execute("rollback to savepoint rows; release savepoint rows").await?;
            match rows {
                [] => {}
                [row] => {
                    tracing::warn!(
                        table = plan.table,
                        state,
                        fault = describe(&fault),
                        "a change was set aside"
                    );
                    let tenant = plan.tenant_of(row.values);
                    self.park(open, &plan.table, &plan.columns, tenant, row, state, &describe(&fault))
                        .await?;
                }
                rows => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    left.push(second);
                    left.push(first);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn park_unknown(
        &mut self,
        open: &mut Open,
        unknown: &Unknown,
        rows: &[Incoming<'_>],
    ) -> Result<(), Fault> {
        let (table, columns, state) = unknown.parts();
        let tenant_place = columns.iter().position(|column| column == "tenant");
        for row in rows {
            let tenant = tenant_place.and_then(|place| row.values.get(place).copied().flatten());
            self.park(open, table, columns, tenant, row, state, &unknown.to_string()).await?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one row of one table, written in one place")]
    pub(super) async fn park(
        &mut self,
        open: &mut Open,
        table: &str,
        columns: &[String],
        tenant: Option<&str>,
        row: &Incoming<'_>,
        state: &str,
        detail: &str,
    ) -> Result<(), Fault> {
        if open.applied.parked == 0 {
            let found = self.parked_count().await?;
            if found >= limits::PARKED_MAX {
                let (found, max) = (found as u64 + 1, limits::PARKED_MAX as u64);
                return Err(Fault::Limit { what: "changes set aside", found, max });
            }
        }
        let content = Content {
            columns: columns.to_vec(),
            values: row.values.iter().map(|value| value.map(str::to_owned)).collect(),
        };
        sqlx::query(
            "insert into meridian.parked (source, position, tenant, table_name, content, state, detail, next_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + case $6 when 'unique' then interval '0' else interval '1 second' end)
             on conflict do nothing",
        )
        .bind(self.source.ordinal as i16)
        .bind(row.position as i64)
        .bind(tenant)
        .bind(table)
        .bind(Json(content))
        .bind(state)
        .bind(detail)
        .execute(&mut self.connection)
        .await?;
        open.applied.parked += 1;
        Ok(())
    }

    /// How many changes are set aside in this region.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn parked_count(&mut self) -> Result<i64, Fault> {
        Ok(sqlx::query_scalar("select count(*) from meridian.parked").fetch_one(&mut self.connection).await?)
    }

    /// Tries changes of this source that were set aside, oldest first, as far as their time has come; returns what
    /// was applied, or nothing when there was nothing to try.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn retry_parked(&mut self) -> Result<Option<Applied>, Fault> {
        let due = sqlx::query(
            "select id, position, table_name, content, state = 'unique' from meridian.parked
              where source = $1 and next_at <= now() order by id limit $2",
        )
        .bind(self.source.ordinal as i16)
        .bind(limits::PARKED_ROUND_MAX)
        .fetch_all(&mut self.connection)
        .await?;
        if due.is_empty() {
            return Ok(None);
        }
        self.catalogue = Catalogue::load(&mut self.connection).await?;
        self.plans.clear();
        let mut parked: Vec<(i64, i64, String, Json<Content>, bool)> = Vec::with_capacity(due.len());
        for row in &due {
            parked.push(FromRow::from_row(row)?);
        }
        for (_, position, table, Json(content), clashes) in &parked {
            if *clashes {
                self.retry_settle(*position as u64, table, content).await?;
            }
        }
        self.begin(true).await?;
        for (id, position, table, Json(content), _) in &parked {
            self.retry(*id, *position as u64, table, content).await?;
        }
        self.commit(End { position: None, commit_ms: 0 }).await.map(Some)
    }

    /// Settles a clash, before the row is tried again. Where that fails the row goes on waiting, but not the rows behind it.
    async fn retry_settle(&mut self, position: u64, table: &str, content: &Content) -> Result<(), Fault> {
        let columns: Vec<&str> = content.columns.iter().map(String::as_str).collect();
        let values: Vec<Option<&str>> = content.values.iter().map(Option::as_deref).collect();
        let Route::Known(plan) = self.route(table, &columns).await? else { return Ok(()) };
        match self.settle(&plan, &Incoming { values: &values, position }).await {
            Err(fault @ Fault::Unavailable(_)) => Err(fault),
            Err(fault) => {
                tracing::warn!(
                    table,
                    fault = describe(&fault),
                    "a clash over a unique value is not settled yet"
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn retry(&mut self, id: i64, position: u64, table: &str, content: &Content) -> Result<(), Fault> {
        let columns: Vec<&str> = content.columns.iter().map(String::as_str).collect();
        let values: Vec<Option<&str>> = content.values.iter().map(Option::as_deref).collect();
        let failed = match self.route(table, &columns).await? {
            Route::Unknown(unknown) => Some((unknown.parts().2, unknown.to_string())),
            Route::Known(plan) => {
                let Some(mut open) = self.open.take() else { return Ok(()) };
                let before = open.applied.parked;
                self.connection.execute("savepoint retry").await?;
                let written =
                    self.write_plainly(&mut open, &plan, &[Incoming { values: &values, position }]).await;
                let failed = match written {
                    Ok(()) if open.applied.parked == before => None,
                    Ok(()) => Some(("stamp_ahead", "still ahead of this region's clock".to_owned())),
                    Err(fault) => match blame(&fault) {
                        Some(state) => Some((state, describe(&fault))),
                        None => return Err(fault),
                    },
                };
                open.applied.parked = before;
                if failed.is_some() {
                    self.connection.execute("rollback to savepoint retry").await?;
                } else {
                    open.applied.rows += 1;
                }
                self.open = Some(open);
                failed
            }
        };
        let query = match failed {
            None => sqlx::query("delete from meridian.parked where id = $1").bind(id),
            Some((state, detail)) => sqlx::query(
                "update meridian.parked set attempts = attempts + 1, state = $2, detail = $3,
                        next_at = now() + least(interval '5 minutes', interval '1 second' * 2 ^ least(attempts, 10))
                  where id = $1",
            )
            .bind(id)
            .bind(state)
            .bind(detail),
        };
        query.execute(&mut self.connection).await?;
        Ok(())
    }
}
