//! Settles clashes of two rows over a unique value the same way in every region.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};

use meridian_replica::conflict::Version;
use meridian_replica::{Region, Stamp};

use super::decide::{row_json, version_of};
use super::park::blame;
use super::plan::Plan;
use super::{Applier, Incoming, session};
use crate::{Fault, limits};

/// A row as text, in the order of its plan's columns.
type Values = Vec<Option<String>>;

/// The bits of a stamp's region that name the region; those above say which unique values the version gave up.
const REGION_BITS: u32 = limits::REGION_ORDINAL_MAX.count_ones();

/// A unique index beside the primary key.
struct Unique {
    name: String,
    expressions: Vec<String>,
    predicate: Option<String>,
    /// The column whose value a row gives up when it loses, and whether it is text, which is marked; other values
    /// become null. Without such a column the row is buried.
    gives_up: Option<(String, bool)>,
    /// Its bit above those of the region.
    bit: u16,
}

impl Applier {
    /// Settles clashes of a row that arrived with other rows here over unique values.
    ///
    /// The earlier stamp keeps the value, in every region. The loser goes on as a version of its own: the value with
    /// the loser's stamp behind it (`acme~18f….2`), or null, or, where the table allows neither, a tombstone. That
    /// version follows from the losing version alone, stamp and all, so every region that meets the clash makes the
    /// same one; and it is written as a change of this region, so that regions that never meet the clash get it too.
    pub(super) async fn settle(&mut self, plan: &Plan, row: &Incoming<'_>) -> Result<(), Fault> {
        let Some(theirs) = plan.version(row.values) else { return Ok(()) };
        let mut sql = session(self.options.clone()).connect().await?;
        let wait_ms = limits::CLASH_WAIT_MAX.as_millis();
        let setup = format!("set session_replication_role = replica; set lock_timeout = {wait_ms}; begin");
        sql.execute(AssertSqlSafe(setup)).await?;
        let values: Values = row.values.iter().map(|value| value.map(str::to_owned)).collect();
        if self.settle_in(&mut sql, plan, &values, theirs).await? {
            sql.execute("commit").await?;
        }
        Ok(sql.close().await?)
    }

    async fn settle_in(
        &self,
        sql: &mut PgConnection,
        plan: &Plan,
        row: &Values,
        theirs: Version,
    ) -> Result<bool, Fault> {
        let held = held(sql, plan, row).await?;
        if held.is_some_and(|held| held.stamp >= theirs.stamp) {
            return Ok(false);
        }
        let mut lost = Vec::new();
        for unique in uniques(sql, plan).await? {
            let Some(holder) = holder(sql, plan, &unique, row).await? else { continue };
            let Some(mine) = plan.version(&borrowed(&holder)) else { continue };
            let keeps = claim(mine.stamp) < claim(theirs.stamp);
            let (winner, loser) = if keeps { (mine, theirs) } else { (theirs, mine) };
            let reason = format!(
                "the earlier stamp keeps the value of {}: {} is below {}",
                unique.name,
                claim(winner.stamp),
                claim(loser.stamp)
            );
            self.record_clash(sql, plan, (&holder, mine), (row, theirs), keeps, &reason).await?;
            if keeps {
                lost.push(unique);
            } else {
                give_up(sql, plan, &holder, mine, &[unique], true).await?;
            }
        }
        if !lost.is_empty() {
            give_up(sql, plan, row, theirs, &lost, held.is_some()).await?;
        }
        Ok(true)
    }

    async fn record_clash(
        &self,
        sql: &mut PgConnection,
        plan: &Plan,
        (mine, mine_version): (&Values, Version),
        (theirs, theirs_version): (&Values, Version),
        mine_keeps: bool,
        reason: &str,
    ) -> Result<(), Fault> {
        let loser = if mine_keeps { theirs } else { mine };
        sqlx::query(
            "insert into meridian.conflict
                 (tenant, table_name, key, class, source, winner, reason, mine_stamp, theirs_stamp, mine, theirs)
             values ($1, $2, $3, 'unique', $4, $5, $6, $7, $8, $9, $10) on conflict do nothing",
        )
        .bind(plan.tenant_of(&borrowed(loser)))
        .bind(&plan.table)
        .bind(row_json(plan, &borrowed(loser), Some(&plan.keys)))
        .bind(self.source.ordinal as i16)
        .bind(if mine_keeps { "mine" } else { "theirs" })
        .bind(reason)
        .bind(mine_version.stamp.to_string())
        .bind(theirs_version.stamp.to_string())
        .bind(row_json(plan, &borrowed(mine), None))
        .bind(row_json(plan, &borrowed(theirs), None))
        .execute(sql)
        .await?;
        Ok(())
    }
}

/// When a version was written, whatever it gave up since.
fn claim(stamp: Stamp) -> Stamp {
    Stamp::new(stamp.time(), Region(stamp.region().0 & limits::REGION_ORDINAL_MAX))
}

fn borrowed(values: &Values) -> Vec<Option<&str>> {
    values.iter().map(Option::as_deref).collect()
}

/// The version of the row's key that is here.
async fn held(sql: &mut PgConnection, plan: &Plan, row: &Values) -> Result<Option<Version>, Fault> {
    let mut query = sqlx::query_as::<_, (i64, serde_json::Value)>(AssertSqlSafe(plan.select.clone()));
    for &key in &plan.keys {
        query = query.bind(vec![row.get(key).cloned().flatten()]);
    }
    Ok(query.fetch_optional(sql).await?.and_then(|(_, row)| version_of(&row)))
}

/// The table's unique indexes beside its primary key, in the same order everywhere.
async fn uniques(sql: &mut PgConnection, plan: &Plan) -> Result<Vec<Unique>, Fault> {
    type Found = (String, Vec<String>, Option<String>, Option<String>, Option<bool>);
    let found: Vec<Found> = sqlx::query_as(
        r"select c.relname::text,
                 array(select pg_get_indexdef(i.indexrelid, n, false) from generate_series(1, i.indnkeyatts) n),
                 pg_get_expr(i.indpred, i.indrelid), g.attname::text, g.is_text
            from pg_index i
            join pg_class c on c.oid = i.indexrelid
            left join lateral (
                 select a.attname, t.typcategory = 'S' as is_text from pg_attribute a join pg_type t on t.oid = a.atttypid
                  where a.attrelid = i.indrelid
                    and (a.attnum = any (i.indkey) or exists (
                         select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                            and d.refobjid = i.indrelid and d.refobjsubid = a.attnum))
                    and (t.typcategory = 'S' or not a.attnotnull)
                    and a.attname <> all ($2) and a.attname not like '\_%'
                  order by t.typcategory = 'S' desc, a.attnum desc limit 1) g on true
           where i.indrelid = ('meridian.' || quote_ident($1))::regclass and i.indisunique and not i.indisprimary
           order by c.relname",
    )
    .bind(&plan.table)
    .bind(plan.fixed())
    .fetch_all(sql)
    .await?;
    let unique = |(at, (name, expressions, predicate, column, is_text)): (usize, Found)| Unique {
        name,
        expressions,
        predicate,
        gives_up: column.map(|column| (column, is_text.unwrap_or(false))),
        bit: 1 << (REGION_BITS as usize + at),
    };
    Ok(found.into_iter().take(limits::CLASH_INDEXES_MAX).enumerate().map(unique).collect())
}

/// The other row that holds the row's value of a unique index.
async fn holder(
    sql: &mut PgConnection,
    plan: &Plan,
    unique: &Unique,
    row: &Values,
) -> Result<Option<Values>, Fault> {
    let equal: Vec<String> =
        unique.expressions.iter().map(|e| format!("({e}) = (select {e} from arrived)")).collect();
    let predicate = unique.predicate.as_deref().unwrap_or("true");
    let statement = format!(
        "with arrived as materialized ({}) select {} from {} where {} and ({predicate})
            and exists (select from arrived where {predicate}) and ({}) <> (select {} from arrived) for update",
        plan.typed,
        plan.texts,
        plan.name,
        equal.join(" and "),
        plan.key_list,
        plan.key_list,
    );
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for value in row {
        query = query.bind(vec![value.clone()]);
    }
    let Some(found) = query.fetch_optional(sql).await? else { return Ok(None) };
    Ok(Some((0..plan.columns.len()).map(|place| found.try_get(place)).collect::<Result<_, _>>()?))
}

/// Writes the version of a row that has given up the values of these indexes.
async fn give_up(
    sql: &mut PgConnection,
    plan: &Plan,
    row: &Values,
    version: Version,
    lost: &[Unique],
    is_here: bool,
) -> Result<(), Fault> {
    let claim = claim(version.stamp);
    let bits = lost.iter().fold(version.stamp.region().0, |bits, unique| bits | unique.bit);
    let mut kept = row.clone();
    let mut set = |place: usize, value: String| {
        if let Some(held) = kept.get_mut(place) {
            *held = Some(value);
        }
    };
    set(plan.region, bits.to_string());
    set(plan.base_stamp, claim.time().to_string());
    set(plan.base_region, claim.region().to_string());
    let mut buried = kept.clone();
    if let Some(deleted) = buried.get_mut(plan.deleted) {
        *deleted = Some("true".to_owned());
    }
    let mut marked = Some(kept);
    for unique in lost {
        let place = unique
            .gives_up
            .as_ref()
            .and_then(|(column, is_text)| Some((plan.columns.iter().position(|c| c == column)?, *is_text)));
        let value = place.and_then(|(place, is_text)| Some((marked.as_mut()?.get_mut(place)?, is_text)));
        match value {
            Some((value, true)) => {
                let mark = format!("~{claim}");
                if let Some(text) = value.as_mut().filter(|text| !text.ends_with(&mark)) {
                    text.push_str(&mark);
                }
            }
            Some((value, false)) => *value = None,
            None => marked = None,
        }
    }
    let statement = if is_here { &plan.update } else { &plan.insert };
    if let Some(marked) = marked {
        sql.execute("savepoint marked").await?;
        match write(sql, statement, &marked).await {
            Err(fault) if blame(&fault).is_some() => {
                sql.execute("rollback to savepoint marked").await?;
            }
            done => return done,
        }
    }
    write(sql, statement, &buried).await
}

async fn write(sql: &mut PgConnection, statement: &str, row: &Values) -> Result<(), Fault> {
    let mut query = sqlx::query(AssertSqlSafe(statement.to_owned()));
    for value in row {
        query = query.bind(vec![value.clone()]);
    }
    query.execute(sql).await?;
    Ok(())
}
