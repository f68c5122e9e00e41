//! Applies what other regions wrote: rows, cursor, conflicts and purge entries in one transaction.
//!
//! [`Applier`] holds one connection as `meridian_replicator` with a replication origin of its own, so that capture
//! recognises what came from a peer, and with `session_replication_role = replica`, so that triggers don't stamp
//! rows again. `meridian_replica` decides; this module asks it in batches:
//!
//! 0. A few rows of one table, each plainly newer than what is here, take one statement, cursor, purges and all.
//! 1. One upsert for the whole batch takes every row that is new here, or plainly newer than what is here.
//! 2. Only if some were not taken, the rows held here are locked and read, each is decided, and the outcome written.
//!
//! A row that can't be written (an unknown column, a clash, a stamp from the future) is set aside in
//! `meridian.parked` with the reason, and tried again; it never stops the rows behind it. A clash of two rows over a
//! unique value is settled before the next try: the earlier keeps the value, the other goes on under a marked one.

mod clash;
mod collect;
mod decide;
mod park;
mod plan;
mod whole;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meridian_replica::conflict::Class;
use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Postgres};

use crate::progress::SourceCursor;
use crate::schema::{options, quoted};
use crate::{Fault, Node, limits};

pub use collect::{collect_tombstones, trim_conflicts};
pub use plan::{Catalogue, Plan, Unknown, tags};

/// A row version that arrived, in the order of its plan's columns.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Column values in PostgreSQL's text form.
    pub values: &'a [Option<&'a str>],
    /// The position of its transaction at the source.
    pub position: u64,
}

/// How a table of an incoming row is handled.
#[derive(Debug, Clone)]
pub enum Route {
    /// It is known here.
    Known(Arc<Plan>),
    /// It, or one of its columns, is not known here yet: its rows are set aside.
    Unknown(Arc<Unknown>),
}

/// Where a transaction of the source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The position after it; `None` leaves the cursor where it is.
    pub position: Option<u64>,
    /// The source's time, in milliseconds since the Unix epoch.
    pub commit_ms: u64,
}

/// What one apply transaction did. Meaningful after it committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The source's ordinal.
    pub source: u16,
    /// The position that the cursor is at now; 0 when it did not move.
    pub position: u64,
    /// What became stale: tenant, tag, position.
    pub purges: Vec<(String, String, u64)>,
    /// Tables that changed.
    pub tables: Vec<String>,
    /// Rows that arrived.
    pub rows: u64,
    /// Concurrent changes by class, in the order of [`Class::ALL`].
    pub conflicts: [u64; 4],
    /// Concurrent changes of merging fields alone: both sides count, nothing gave way.
    pub merged: u64,
    /// Rows set aside.
    pub parked: u64,
}

/// One source's apply connection.
pub struct Applier {
    connection: PgConnection,
    options: PgConnectOptions,
    source: Node,
    incarnation: String,
    catalogue: Catalogue,
    plans: HashMap<String, Arc<Plan>>,
    open: Option<Open>,
    now_ms: fn() -> u64,
}

/// What the open transaction has gathered.
#[derive(Default)]
struct Open {
    applied: Applied,
    tags: BTreeMap<String, BTreeMap<String, u64>>,
    stamp_max: u64,
    careful: bool,
}

impl Applier {
    /// Connects as `meridian_replicator` for one source region, and takes its replication origin. `now_ms` is the
    /// wall clock.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], also while a lost connection of before still holds the origin: try again.
    pub async fn connect(replicator_url: &str, source: &Node, now_ms: fn() -> u64) -> Result<Self, Fault> {
        let options = options(replicator_url)?;
        let mut connection = session(options.clone()).connect().await?;
        let origin = quoted(&format!("meridian_{}", source.region));
        let setup = format!(
            "set session_replication_role = replica;
             set synchronous_commit = off;
             select pg_replication_origin_create({origin}) where pg_replication_origin_oid({origin}) is null;
             select pg_replication_origin_session_setup({origin});"
        );
        sqlx::raw_sql(AssertSqlSafe(setup)).execute(&mut connection).await.map_err(|error| {
            match Fault::from(error) {
                // "replication origin is already active"
                Fault::Database(error) => Fault::Unavailable(error),
                other => other,
            }
        })?;
        let catalogue = Catalogue::load(&mut connection).await?;
        Ok(Self {
            connection,
            options,
            source: source.clone(),
            incarnation: String::new(),
            catalogue,
            plans: HashMap::new(),
            open: None,
            now_ms,
        })
    }

    /// The durable cursor of this source, if anything of it was ever applied.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn cursor(&mut self) -> Result<Option<SourceCursor>, Fault> {
        let cursors = crate::progress::all(&mut self.connection).await?;
        Ok(cursors.into_iter().find(|cursor| cursor.source == self.source.ordinal))
    }

    /// Says which database of the source positions belong to from now on.
    pub fn set_incarnation(&mut self, incarnation: &str) {
        incarnation.clone_into(&mut self.incarnation);
    }

    /// How rows of a table with these columns are handled. A table or column that is not known is looked for again
    /// in the catalogue first: its migration may just have arrived.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn route(&mut self, table: &str, columns: &[&str]) -> Result<Route, Fault> {
        let name = format!("{table}({})", columns.join(","));
        if let Some(plan) = self.plans.get(&name) {
            return Ok(Route::Known(plan.clone()));
        }
        let mut planned = Plan::new(&self.catalogue, table, columns);
        if planned.is_err() && self.open.is_none() {
            self.catalogue = Catalogue::load(&mut self.connection).await?;
            planned = Plan::new(&self.catalogue, table, columns);
        }
        Ok(match planned {
            Ok(plan) => {
                let plan = Arc::new(plan);
                self.plans.insert(name, plan.clone());
                Route::Known(plan)
            }
            Err(unknown) => Route::Unknown(Arc::new(unknown)),
        })
    }

    /// Begins an apply transaction. A careful one survives rows that can't be written, at the price of savepoints:
    /// for transactions too large to be tried again from the start.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn begin(&mut self, careful: bool) -> Result<(), Fault> {
        self.connection.execute("begin").await?;
        let applied = Applied { source: self.source.ordinal, ..Applied::default() };
        self.open = Some(Open { applied, careful, ..Open::default() });
        Ok(())
    }

    /// Writes rows of one table in the open transaction.
    ///
    /// # Errors
    /// [`Fault::Database`] and the like when a row can't be written and the transaction is not careful:
    /// roll back and do it again carefully. [`Fault::Unavailable`] and [`Fault::Contention`]: roll back and try again.
    pub async fn write(&mut self, route: &Route, rows: &[Incoming<'_>]) -> Result<(), Fault> {
        let Some(mut open) = self.open.take() else {
            return Err(Fault::NotFound { what: "open transaction" });
        };
        open.applied.rows += rows.len() as u64;
        let result = match route {
            Route::Unknown(unknown) => self.park_unknown(&mut open, unknown, rows).await,
            Route::Known(plan) if open.careful => self.write_carefully(&mut open, plan, rows).await,
            Route::Known(plan) => self.write_plainly(&mut open, plan, rows).await,
        };
        self.open = Some(open);
        result
    }

    /// Moves the cursor, journals the purges and commits.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the connection was lost: the durable cursor tells whether it committed.
    pub async fn commit(&mut self, end: End) -> Result<Applied, Fault> {
        let Some(open) = self.open.take() else {
            return Err(Fault::NotFound { what: "open transaction" });
        };
        let mut applied = open.applied;
        applied.purges = purges(open.tags);
        if let Some(position) = end.position {
            applied.position = position;
            let statement = format!("select {}", whole::end(1));
            let query = sqlx::query(AssertSqlSafe(statement));
            let query = self.bind_end(query, end, open.stamp_max, &applied.purges);
            query.execute(&mut self.connection).await?;
        } else {
            // Every transaction of an origin's session names a position, or it would repeat the one before.
            sqlx::query("select pg_replication_origin_xact_setup('0/1', now()), meridian.observe($1)")
                .bind(open.stamp_max as i64)
                .execute(&mut self.connection)
                .await?;
            crate::purge::journal(&mut self.connection, self.source.ordinal, &applied.purges).await?;
        }
        self.connection.execute("commit").await?;
        Ok(applied)
    }

    /// Binds what [`whole::end`] needs.
    fn bind_end<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
        end: End,
        stamp_max: u64,
        purges: &[(String, String, u64)],
    ) -> Query<'q, Postgres, PgArguments> {
        let (tenants, tags): (Vec<&str>, Vec<&str>) =
            purges.iter().map(|(tenant, tag, _)| (tenant.as_str(), tag.as_str())).unzip();
        let positions: Vec<i64> = purges.iter().map(|(_, _, position)| *position as i64).collect();
        query
            .bind(self.source.ordinal as i16)
            .bind(self.source.region.clone())
            .bind(self.incarnation.clone())
            .bind(end.position.unwrap_or(0) as i64)
            .bind(end.commit_ms as i64)
            .bind(stamp_max as i64)
            .bind(tenants)
            .bind(tags)
            .bind(positions)
    }

    /// Undoes the open transaction.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the connection is lost, which undoes it too.
    pub async fn rollback(&mut self) -> Result<(), Fault> {
        self.open = None;
        self.connection.execute("rollback").await?;
        Ok(())
    }

    /// Whether everything committed here so far is on disk, up to the returned position of this region's log:
    /// apply commits don't wait for the disk, so the source hears of a commit only after it.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn flushed(&mut self) -> Result<(u64, u64), Fault> {
        let (flushed, inserted): (i64, i64) = sqlx::query_as(
            "select (pg_current_wal_flush_lsn() - '0/0')::bigint, (pg_current_wal_insert_lsn() - '0/0')::bigint",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok((flushed as u64, inserted as u64))
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when it was lost.
    pub async fn close(self) -> Result<(), Fault> {
        Ok(self.connection.close().await?)
    }
}

/// Settings under which values in text form mean the same in every region.
pub fn session(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
        ("timezone", "UTC"),
        ("idle_in_transaction_session_timeout", "0"),
        ("statement_timeout", "0"),
    ])
}

/// Gathered tags as journal entries; a tenant with too many gets one for everything.
fn purges(tags: BTreeMap<String, BTreeMap<String, u64>>) -> Vec<(String, String, u64)> {
    let mut purges = Vec::new();
    for (tenant, tags) in tags {
        if tags.len() > limits::APPLY_TAGS_MAX {
            let position = tags.values().copied().max().unwrap_or(0);
            purges.push((tenant, "*".to_owned(), position));
        } else {
            purges.extend(tags.into_iter().map(|(tag, position)| (tenant.clone(), tag, position)));
        }
    }
    purges
}

/// The place of a class in [`Applied::conflicts`].
fn place(class: Class) -> usize {
    Class::ALL.iter().position(|c| *c == class).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_tags_become_one() {
        let few = BTreeMap::from([("orders".to_owned(), 5), ("orders/1".to_owned(), 5)]);
        let many: BTreeMap<String, u64> =
            (0..=limits::APPLY_TAGS_MAX as u64).map(|n| (format!("t{n}"), n)).collect();
        let purges = purges(BTreeMap::from([("acme".to_owned(), few), ("globex".to_owned(), many)]));
        assert_eq!(
            purges,
            [
                ("acme".to_owned(), "orders".to_owned(), 5),
                ("acme".to_owned(), "orders/1".to_owned(), 5),
                ("globex".to_owned(), "*".to_owned(), limits::APPLY_TAGS_MAX as u64)
            ]
        );
    }
}
