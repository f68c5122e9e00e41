//! Decides, with the rows held here locked, those that the one upsert of a batch did not take.

use std::sync::Arc;

use meridian_replica::conflict::{Class, Outcome, Record, Verdict, Version, decide, merge};
use meridian_replica::{Region, Stamp};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;

use super::plan::{Plan, RecordColumns, tags};
use super::{Applier, Incoming, Open, place};
use crate::{Fault, limits};

/// One row to be written: the last version of its key in the batch.
pub(super) struct Candidate<'a> {
    pub(super) row: Incoming<'a>,
    pub(super) version: Version,
    /// Whether earlier versions of the same key in the batch were left out.
    coalesced: bool,
}

/// What is to be done with one candidate.
enum Write {
    Nothing,
    /// Not here: insert.
    Insert,
    /// Write over what is here, then, for a record whose merging fields joined, write those.
    Take(Option<Joined>),
    /// Keep what is here but for its merging fields.
    Join(Joined),
}

/// A record's merging fields after a join: their values and their states, as JSON. The plain fields are not among
/// them: those stay as PostgreSQL has them, number for number.
struct Joined {
    values: String,
    states: String,
}

struct Conflict {
    tenant: Option<String>,
    key: Value,
    class: &'static str,
    winner: &'static str,
    reason: String,
    mine_stamp: String,
    theirs_stamp: String,
    mine: Value,
    theirs: Value,
}

impl Applier {
    /// Writes rows; any that can't be written fails the transaction.
    pub(super) async fn write_plainly(
        &mut self,
        open: &mut Open,
        plan: &Arc<Plan>,
        rows: &[Incoming<'_>],
    ) -> Result<(), Fault> {
        let (candidates, set_aside) = self.candidates(plan, rows);
        for (row, state, detail) in set_aside {
            self.park(open, &plan.table, &plan.columns, plan.tenant_of(row.values), &row, state, &detail)
                .await?;
        }
        if candidates.is_empty() {
            return Ok(());
        }
        // A key with several versions in the batch is looked at: the first of them may have met a local change.
        let mut look: Vec<Candidate<'_>> = Vec::new();
        let mut quick: Vec<Candidate<'_>> = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            open.stamp_max = open.stamp_max.max(candidate.version.stamp.time());
            if candidate.coalesced { look.push(candidate) } else { quick.push(candidate) }
        }
        if !quick.is_empty() {
            let done = self.bulk(&plan.upsert, plan, &quick.iter().collect::<Vec<_>>()).await?;
            for candidate in &quick {
                note(open, plan, &candidate.row);
            }
            if done < quick.len() as u64 {
                look.extend(quick);
            }
        }
        if look.is_empty() { Ok(()) } else { self.resolve(open, plan, look).await }
    }

    /// Sorts by key, leaves the last version of each, and sets aside what can't be judged now.
    pub(super) fn candidates<'a>(
        &self,
        plan: &Plan,
        rows: &[Incoming<'a>],
    ) -> (Vec<Candidate<'a>>, Vec<(Incoming<'a>, &'static str, String)>) {
        let now_ms = (self.now_ms)();
        let mut set_aside = Vec::new();
        let mut candidates: Vec<Candidate<'a>> = Vec::with_capacity(rows.len());
        for row in rows {
            match plan.version(row.values) {
                None => set_aside.push((*row, "invalid", "its stamp columns can't be read".to_owned())),
                Some(version) => match version.stamp.check_ahead(now_ms) {
                    Err(ahead) => set_aside.push((*row, "stamp_ahead", ahead.to_string())),
                    Ok(()) => candidates.push(Candidate { row: *row, version, coalesced: false }),
                },
            }
        }
        let key = |row: &Incoming<'a>, place: usize| row.values.get(place).copied().flatten();
        candidates.sort_by(|a, b| {
            let keys = plan.keys.iter().map(|&k| key(&a.row, k).cmp(&key(&b.row, k)));
            keys.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        candidates.dedup_by(|later, earlier| {
            let same = plan.keys.iter().all(|&k| key(&later.row, k) == key(&earlier.row, k));
            if same {
                // `dedup_by` keeps the earlier element: give it the content of the higher version, and the base of
                // the lower, because that is what this region has to have seen for it to be no conflict.
                let base = later.version.base.min(earlier.version.base);
                let position = later.row.position.max(earlier.row.position);
                if later.version.stamp > earlier.version.stamp {
                    earlier.version = later.version;
                    earlier.row = later.row;
                }
                earlier.version.base = base;
                earlier.row.position = position;
                earlier.coalesced = true;
            }
            same
        });
        (candidates, set_aside)
    }

    /// Runs a statement that takes one array for each column.
    async fn bulk(&mut self, sql: &Arc<str>, plan: &Plan, rows: &[&Candidate<'_>]) -> Result<u64, Fault> {
        let columns = (0..plan.columns.len())
            .map(|place| rows.iter().map(|c| c.row.values.get(place).copied().flatten()).collect());
        let columns: Vec<Vec<Option<&str>>> = columns.collect();
        let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
        for column in columns {
            query = query.bind(column);
        }
        Ok(query.execute(&mut self.connection).await?.rows_affected())
    }

    /// Locks what is here, decides row by row, and writes the outcome. Rows that appear in between (a local insert
    /// of the same key) are decided again.
    async fn resolve(
        &mut self,
        open: &mut Open,
        plan: &Arc<Plan>,
        mut candidates: Vec<Candidate<'_>>,
    ) -> Result<(), Fault> {
        for _ in 0..limits::APPLY_ROUNDS_MAX {
            let mut held: Vec<Option<Value>> = vec![None; candidates.len()];
            let mut query = sqlx::query_as::<_, (i64, Value)>(AssertSqlSafe(plan.select.clone()));
            for &key in &plan.keys {
                let column: Vec<Option<&str>> =
                    candidates.iter().map(|c| c.row.values.get(key).copied().flatten()).collect();
                query = query.bind(column);
            }
            for (ord, row) in query.fetch_all(&mut self.connection).await? {
                if let Some(slot) = usize::try_from(ord - 1).ok().and_then(|at| held.get_mut(at)) {
                    *slot = Some(row);
                }
            }
            let mut writes = Vec::with_capacity(candidates.len());
            let mut conflicts = Vec::new();
            for (candidate, mine) in candidates.iter().zip(&held) {
                writes.push(self.judge(open, plan, candidate, mine.as_ref(), &mut conflicts));
            }
            self.record_conflicts(plan, conflicts).await?;
            self.write_out(plan, &candidates, &writes).await?;
            let inserts = writes.iter().filter(|write| matches!(write, Write::Insert)).count() as u64;
            for (candidate, write) in candidates.iter().zip(&writes) {
                if !matches!(write, Write::Nothing) {
                    note(open, plan, &candidate.row);
                }
            }
            if inserts == 0 {
                return Ok(());
            }
            let mut kept = writes.iter().map(|write| matches!(write, Write::Insert));
            candidates.retain(|_| kept.next().unwrap_or(false));
            let done = self.bulk(&plan.insert, plan, &candidates.iter().collect::<Vec<_>>()).await?;
            if done == inserts {
                return Ok(());
            }
        }
        Err(Fault::Limit {
            what: "rounds of deciding rows that keep changing",
            found: limits::APPLY_ROUNDS_MAX as u64 + 1,
            max: limits::APPLY_ROUNDS_MAX as u64,
        })
    }

    fn judge(
        &self,
        open: &mut Open,
        plan: &Plan,
        candidate: &Candidate<'_>,
        mine: Option<&Value>,
        conflicts: &mut Vec<Conflict>,
    ) -> Write {
        let Some((mine, held)) = mine.and_then(|mine| Some((mine, version_of(mine)?))) else {
            return Write::Insert;
        };
        let now_ms = (self.now_ms)();
        let (write, verdict, lossy) = match plan.record {
            Some(columns) => judge_record(columns, candidate, mine, held, now_ms),
            None => {
                let verdict = decide(Some(&held), &candidate.version, now_ms);
                let write =
                    if verdict.outcome == Outcome::Apply { Write::Take(None) } else { Write::Nothing };
                (write, verdict, true)
            }
        };
        if let Some(class) = verdict.concurrent {
            if let Some(count) = open.applied.conflicts.get_mut(place(class)) {
                *count += u64::from(lossy);
            }
            open.applied.merged += u64::from(!lossy);
            if lossy && class != Class::DeleteDelete {
                conflicts.push(conflict(plan, candidate, mine, held, verdict, class));
            }
        }
        write
    }

    async fn write_out(
        &mut self,
        plan: &Plan,
        candidates: &[Candidate<'_>],
        writes: &[Write],
    ) -> Result<(), Fault> {
        let pairs = || candidates.iter().zip(writes);
        let taken = pairs().filter(|(_, write)| matches!(write, Write::Take(_)));
        let taken: Vec<&Candidate<'_>> = taken.map(|(candidate, _)| candidate).collect();
        if !taken.is_empty() {
            self.bulk(&plan.update, plan, &taken).await?;
        }
        let mut keys: Vec<Vec<Option<&str>>> = vec![Vec::new(); plan.keys.len()];
        let (mut fields, mut states) = (Vec::new(), Vec::new());
        for (candidate, write) in pairs() {
            if let Write::Join(joined) | Write::Take(Some(joined)) = write {
                for (column, &key) in keys.iter_mut().zip(&plan.keys) {
                    column.push(candidate.row.values.get(key).copied().flatten());
                }
                fields.push(joined.values.as_str());
                states.push(joined.states.as_str());
            }
        }
        if !fields.is_empty() {
            let mut query = sqlx::query(AssertSqlSafe(plan.join.clone()));
            for column in keys {
                query = query.bind(column);
            }
            query.bind(fields).bind(states).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn record_conflicts(&mut self, plan: &Plan, conflicts: Vec<Conflict>) -> Result<(), Fault> {
        for c in conflicts {
            sqlx::query(
                "insert into meridian.conflict
                     (tenant, table_name, key, class, source, winner, reason, mine_stamp, theirs_stamp, mine, theirs)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing",
            )
            .bind(c.tenant)
            .bind(&plan.table)
            .bind(c.key)
            .bind(c.class)
            .bind(self.source.ordinal as i16)
            .bind(c.winner)
            .bind(c.reason)
            .bind(c.mine_stamp)
            .bind(c.theirs_stamp)
            .bind(c.mine)
            .bind(c.theirs)
            .execute(&mut self.connection)
            .await?;
        }
        Ok(())
    }
}

/// Gathers the tags of a row that was written, and its table.
pub(super) fn note(open: &mut Open, plan: &Plan, row: &Incoming<'_>) {
    if !open.applied.tables.contains(&plan.table) {
        open.applied.tables.push(plan.table.clone());
    }
    let value = |name: &str| {
        let place = match (plan.record, name) {
            (Some(record), "collection") => Some(record.collection),
            (Some(record), "id") => Some(record.id),
            (Some(_), "tenant") => plan.tenant,
            _ => plan.columns.iter().position(|column| column == name),
        };
        row.values.get(place?).copied().flatten()
    };
    let Some((tenant, collection, own)) = tags(&plan.table, value) else { return };
    if !open.tags.contains_key(tenant) {
        open.tags.insert(tenant.to_owned(), Default::default());
    }
    let Some(tags) = open.tags.get_mut(tenant) else { return };
    match tags.get_mut(collection) {
        Some(position) => *position = (*position).max(row.position),
        None => {
            tags.insert(collection.to_owned(), row.position);
        }
    }
    if tags.len() <= limits::APPLY_TAGS_MAX
        && let Some(own) = own
    {
        tags.insert(own, row.position);
    }
}

pub(super) fn version_of(row: &Value) -> Option<Version> {
    let number = |name: &str| row.get(name)?.as_u64();
    let stamp = |time: &str, region: &str| {
        Some(Stamp::new(number(time)?, Region(u16::try_from(number(region)?).ok()?)))
    };
    Some(Version {
        stamp: stamp("_stamp", "_region")?,
        base: stamp("_base_stamp", "_base_region")?,
        deleted: row.get("_deleted")?.as_bool()?,
    })
}

fn judge_record(
    columns: RecordColumns,
    candidate: &Candidate<'_>,
    mine: &Value,
    held: Version,
    now_ms: u64,
) -> (Write, Verdict, bool) {
    let json = |place: usize| {
        let text = candidate.row.values.get(place).copied().flatten()?;
        serde_json::from_str::<Value>(text).ok()
    };
    let record = |version: Version, fields: Option<&Value>, states: Option<&Value>| {
        let merges =
            Record::merges_from_json(states.unwrap_or(&Value::Object(Map::new()))).unwrap_or_default();
        Record { version, fields: fields.and_then(Value::as_object).cloned().unwrap_or_default(), merges }
    };
    let theirs = record(candidate.version, json(columns.fields).as_ref(), json(columns.merge).as_ref());
    let mine = record(held, mine.get("fields"), mine.get("merge"));
    let merged = merge(&mine, &theirs, now_ms);
    let joined = || Joined {
        values: merged
            .record
            .merges
            .iter()
            .map(|(name, field)| (name.clone(), field.value()))
            .collect::<Value>()
            .to_string(),
        states: Record::merges_to_json(&merged.record.merges).to_string(),
    };
    let write = match merged.verdict.outcome {
        Outcome::Park(_) | Outcome::KeepMine => Write::Nothing,
        Outcome::Apply => Write::Take(None),
        Outcome::Merge if merged.record.version.stamp == mine.version.stamp => Write::Join(joined()),
        Outcome::Merge => Write::Take(Some(joined())),
    };
    (write, merged.verdict, merged.lossy)
}

fn conflict(
    plan: &Plan,
    candidate: &Candidate<'_>,
    mine: &Value,
    held: Version,
    verdict: Verdict,
    class: Class,
) -> Conflict {
    let theirs_won = candidate.version.stamp > held.stamp;
    let (higher, lower) = if theirs_won {
        (candidate.version.stamp, held.stamp)
    } else {
        (held.stamp, candidate.version.stamp)
    };
    Conflict {
        tenant: plan.tenant_of(candidate.row.values).map(str::to_owned),
        key: row_json(plan, candidate.row.values, Some(&plan.keys)),
        class: class.name(),
        winner: match (verdict.outcome, theirs_won) {
            (Outcome::Merge, _) => "merged",
            (_, true) => "theirs",
            (_, false) => "mine",
        },
        reason: format!("the later stamp stands: {higher} is above {lower}"),
        mine_stamp: held.stamp.to_string(),
        theirs_stamp: candidate.version.stamp.to_string(),
        mine: mine.clone(),
        theirs: row_json(plan, candidate.row.values, None),
    }
}

/// A row as a JSON object: values as text, but a record's documents as what they are.
pub(super) fn row_json(plan: &Plan, values: &[Option<&str>], places: Option<&[usize]>) -> Value {
    let document =
        |place: usize| plan.record.is_some_and(|record| place == record.fields || place == record.merge);
    let mut object = Map::new();
    for (place, (column, value)) in plan.columns.iter().zip(values).enumerate() {
        if places.is_some_and(|places| !places.contains(&place)) {
            continue;
        }
        let value = match value {
            None => Value::Null,
            Some(text) if document(place) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(*text))
            }
            Some(text) => Value::from(*text),
        };
        object.insert(column.clone(), value);
    }
    Value::Object(object)
}
