//! Reads this region's own commits and journals what they made stale, with the exact position of each commit.

use std::collections::{BTreeMap, BTreeSet};

use meridian_replica::Backoff;
use meridian_store::apply::{session, tags};
use meridian_store::progress::{self, SourceCursor};
use meridian_store::purge;
use meridian_store::sqlx::{self, ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::watch;

use crate::capture::{Item, LOCAL_SLOT, Log, LogRelation, ensure_slot, free_slot};
use crate::decode::{self, Message, Value};
use crate::fault::chain;
use crate::{Applied, Fault, Shared, limits, raised, random};

/// Keeps journalling until this origin stops.
pub(crate) async fn run(shared: &Shared, mut stopping: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MAX);
    loop {
        let fault = tokio::select! {
            ended = journal(shared) => match ended { Ok(never) => match never {}, Err(fault) => fault },
            () = raised(&mut stopping) => return,
        };
        let wait = backoff.fail(random());
        if backoff.failures() <= limits::FAILURES_LOGGED || backoff.failures().is_power_of_two() {
            tracing::warn!(
                fault = chain(&fault),
                retry_ms = wait.as_millis() as u64,
                "not journalling own commits"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = raised(&mut stopping) => return,
        }
    }
}

enum Never {}

/// Own commits that are not journalled yet.
#[derive(Default)]
struct Pending {
    tags: BTreeMap<String, BTreeMap<String, u64>>,
    tables: Vec<String>,
    commits: usize,
    position: u64,
    commit_ms: u64,
}

async fn journal(shared: &Shared) -> Result<Never, Fault> {
    let mut sql = session(shared.options()?).connect().await?;
    free_slot(&mut sql, LOCAL_SLOT).await?;
    let slot = ensure_slot(&mut sql, LOCAL_SLOT).await?;
    if slot.fresh {
        reset(shared, &mut sql, slot.serves_from).await?;
    }
    let own = progress::all(&mut sql).await?.into_iter().find(|cursor| cursor.source == shared.node.ordinal);
    let known = own.filter(|cursor| cursor.incarnation == shared.incarnation && !slot.fresh);
    let start = known.map_or(slot.serves_from, |cursor| cursor.position.max(slot.serves_from));
    shared.progress.advance(shared.node.ordinal, start);
    let mut log = Log::open(&shared.address, LOCAL_SLOT, start).await?;
    let mut pending = Pending::default();
    let mut transaction = Transaction::default();
    loop {
        transaction.take(log.next().await?, &mut pending)?;
        while pending.commits < limits::LOCAL_COMMITS_MAX {
            let Some(item) = log.ready()? else { break };
            transaction.take(item, &mut pending)?;
        }
        let position = pending.position;
        if position > 0 {
            write(shared, &mut sql, std::mem::take(&mut pending)).await?;
            shared.progress.advance(shared.node.ordinal, position);
            log.acknowledge(position);
        }
    }
}

/// Own commits were missed (a new or lost slot): everything of every tenant counts as stale.
async fn reset(shared: &Shared, sql: &mut PgConnection, position: u64) -> Result<(), Fault> {
    let tenants: Vec<String> =
        sqlx::query_scalar("select slug from meridian.tenant").fetch_all(&mut *sql).await?;
    let all = |tenant| (tenant, BTreeMap::from([("*".to_owned(), position)]));
    let all = tenants.into_iter().map(all).collect();
    write(shared, sql, Pending { tags: all, commits: 1, position, ..Pending::default() }).await
}

async fn write(shared: &Shared, sql: &mut PgConnection, pending: Pending) -> Result<(), Fault> {
    if pending.commits == 0 {
        return Ok(());
    }
    let mut entries: Vec<(String, String, u64)> = Vec::new();
    for (tenant, tags) in pending.tags {
        if tags.len() > limits::LOCAL_TAGS_MAX {
            entries.push((tenant, "*".to_owned(), pending.position));
        } else {
            entries.extend(tags.into_iter().map(|(tag, position)| (tenant.clone(), tag, position)));
        }
    }
    let cursor = SourceCursor {
        source: shared.node.ordinal,
        region: shared.node.region.clone(),
        incarnation: shared.incarnation.clone(),
        position: pending.position,
        commit_ms: pending.commit_ms,
    };
    let mut tx = sql.begin().await?;
    progress::advance(&mut tx, &cursor).await?;
    purge::journal(&mut tx, shared.node.ordinal, &entries).await?;
    tx.commit().await?;
    shared.journalled(pending.commits as u64);
    (shared.hook)(&Applied {
        source: shared.node.ordinal,
        position: pending.position,
        purges: entries.into_iter().map(|(tenant, tag, _)| (tenant, tag)).collect(),
        tables: pending.tables,
    });
    Ok(())
}

/// The transaction that is being read.
#[derive(Default)]
struct Transaction {
    foreign: bool,
    tags: BTreeMap<String, BTreeSet<String>>,
    tables: Vec<String>,
}

impl Transaction {
    fn take(&mut self, item: Item, pending: &mut Pending) -> Result<(), Fault> {
        match item {
            Item::Begin { .. } => *self = Self::default(),
            Item::Foreign => self.foreign = true,
            Item::Relation(_) => {}
            Item::Row { relation, bytes } => {
                if !self.foreign {
                    self.row(&relation, &bytes)?;
                }
            }
            Item::Progress { position } => pending.position = pending.position.max(position),
            Item::Commit { end, commit_ms } => {
                pending.position = end;
                if self.tables.is_empty() {
                    return Ok(());
                }
                pending.commit_ms = commit_ms;
                pending.commits += 1;
                for (tenant, tags) in std::mem::take(&mut self.tags) {
                    pending.tags.entry(tenant).or_default().extend(tags.into_iter().map(|tag| (tag, end)));
                }
                for table in self.tables.drain(..) {
                    if !pending.tables.contains(&table) {
                        pending.tables.push(table);
                    }
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, relation: &LogRelation, bytes: &[u8]) -> Result<(), Fault> {
        if !self.tables.contains(&relation.table) {
            self.tables.push(relation.table.clone());
        }
        let (Message::Insert { new, .. } | Message::Update { new, .. }) = decode::read(bytes)? else {
            return Ok(());
        };
        let value = |name: &str| match new.get(relation.place(name)?) {
            Some(Value::Text(text)) => Some(*text),
            _ => None,
        };
        if let Some((tenant, collection, own)) = tags(&relation.table, value) {
            if !self.tags.contains_key(tenant) {
                self.tags.insert(tenant.to_owned(), BTreeSet::new());
            }
            let Some(tags) = self.tags.get_mut(tenant) else { return Ok(()) };
            if !tags.contains(collection) {
                tags.insert(collection.to_owned());
            }
            // One more than the limit is kept: that is how it is known to have been reached.
            if let Some(own) = own
                && tags.len() <= limits::LOCAL_TAGS_MAX
            {
                tags.insert(own);
            }
        }
        Ok(())
    }
}
