//! The source's side of a stream: from this region's log, what one peer may have, in messages.

mod whole;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use meridian_replica::{Region, Stamp};
use meridian_store::apply::{Catalogue, session};
use meridian_store::sqlx::postgres::PgConnectOptions;
use meridian_store::sqlx::{self, ConnectOptions as _, PgConnection};
use meridian_wire::change::{
    Ack, Frame, Hello, MESSAGE_BYTES_TARGET, Message, Progress, Relation, Resume, Row, TransactionWriter,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::capture::{Item, Log, LogRelation, ensure_slot, free_slot, slot_of};
use crate::decode::{self, Message as LogMessage, Value};
use crate::residency::{Change, Residency, compare, text_array};
use crate::status::Live;
use crate::transport::direct::{FromReceiver, ToReceiver};
use crate::{Fault, Peer, Shared, limits, now_ms, raised, snapshot};

/// Serves one peer until the connection, the log or this origin ends.
pub(crate) async fn serve<S>(
    shared: &Shared,
    peer: &Peer,
    live: &Live,
    mut to: ToReceiver<S>,
    mut from: FromReceiver<S>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let resume = from.resume().await?;
    let mut stream = tokio::select! {
        opened = Stream::open(shared, peer, live, &mut to, &resume) => opened?,
        () = raised(&mut ended) => return Err(Fault::Superseded),
    };
    live.lock().sending = "streaming";
    let mut heard = Instant::now();
    let mut heartbeat = tokio::time::interval(limits::HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            item = stream.log.next() => {
                stream.take(item?, &mut to).await?;
                while let Some(item) = stream.log.ready()? {
                    stream.take(item, &mut to).await?;
                }
                stream.flush(&mut to).await?;
            }
            ack = from.ack() => {
                heard = Instant::now();
                stream.acknowledged(&ack?);
            }
            _ = heartbeat.tick() => {
                if heard.elapsed() > limits::SILENCE_MAX {
                    return Err(Fault::Silence);
                }
                stream.heartbeat(&mut to).await?;
            }
            () = raised(&mut ended) => {
                to.close().await;
                return Err(Fault::Superseded);
            }
        }
    }
}

struct Stream<'a> {
    peer: &'a Peer,
    live: &'a Live,
    options: PgConnectOptions,
    log: Log,
    sql: PgConnection,
    catalogue: Catalogue,
    residency: Residency,
    announced: HashSet<u32>,
    tenant_columns: HashMap<u32, Option<usize>>,
    message: Message,
    writer: TransactionWriter,
    transaction: Option<Open>,
    position: u64,
    told: u64,
    /// The end of the log when last asked, and the last time at which all of it had been read.
    latest: u64,
    caught_up_ms: u64,
}

/// The transaction that is being read.
struct Open {
    commit_ms: u64,
    foreign: bool,
    /// Whether a part of it was sent.
    begun: bool,
    /// Tenants that it admits to the peer.
    admitted: Vec<String>,
}

impl<'a> Stream<'a> {
    async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        shared: &Shared,
        peer: &'a Peer,
        live: &'a Live,
        to: &mut ToReceiver<S>,
        resume: &Resume,
    ) -> Result<Self, Fault> {
        let mut sql = session(shared.options()?).connect().await?;
        let slot = slot_of(&peer.region);
        free_slot(&mut sql, &slot).await?;
        let serves_from = ensure_slot(&mut sql, &slot).await?.serves_from;
        let position: i64 = sqlx::query_scalar("select (pg_current_wal_flush_lsn() - '0/0')::bigint")
            .fetch_one(&mut sql)
            .await?;
        let position = position as u64;
        let same = resume.incarnation.as_deref() == Some(&shared.incarnation);
        let from = resume.resume.filter(|from| same && (serves_from..=position).contains(from));
        let residency = residency(&mut sql).await?;
        let catalogue = Catalogue::load(&mut sql).await?;

        let mut message = Message::new();
        message.push(&Frame::Hello(Hello {
            region: &shared.node.region,
            ordinal: shared.node.ordinal,
            incarnation: &shared.incarnation,
            serves_from,
            position,
            gap: from.is_none(),
        }))?;
        to.send(message.take()).await?;
        let start = match from {
            Some(from) => from,
            None => {
                live.lock().sending = "resynchronising";
                let reason = if resume.resume.is_none() {
                    "it has nothing yet"
                } else {
                    "its cursor is not in the log"
                };
                tracing::info!(peer = peer.region, reason, "copying everything to a peer");
                let tenants = residency.tenants_of(&peer.region);
                let copied =
                    snapshot::send(shared.options()?, &catalogue, &tenants, &peer.region, serves_from, to)
                        .await?;
                live.lock().sent_changes += copied;
                serves_from
            }
        };
        let log = Log::open(&shared.address, &slot, start).await?;
        Ok(Self {
            peer,
            live,
            options: shared.options()?,
            log,
            sql,
            catalogue,
            residency,
            announced: HashSet::new(),
            tenant_columns: HashMap::new(),
            message,
            writer: TransactionWriter::default(),
            transaction: None,
            position: start,
            told: start,
            latest: position,
            caught_up_ms: 0,
        })
    }

    fn acknowledged(&mut self, ack: &Ack) {
        self.log.acknowledge(ack.applied);
        let mut numbers = self.live.lock();
        numbers.acknowledged = numbers.acknowledged.max(ack.applied);
        numbers.seen_ms.clone_from(&ack.seen_ms);
    }

    async fn take<S>(&mut self, item: Item, to: &mut ToReceiver<S>) -> Result<(), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match item {
            Item::Begin { commit_ms } => {
                // Commits come in order: what was committed before has been read.
                self.caught_up_ms = self.caught_up_ms.max(commit_ms.saturating_sub(1));
                self.transaction =
                    Some(Open { commit_ms, foreign: false, begun: false, admitted: Vec::new() });
            }
            Item::Foreign => {
                if let Some(open) = &mut self.transaction {
                    open.foreign = true;
                }
            }
            Item::Relation(relation) => self.relation(&relation).await?,
            Item::Row { relation, bytes } => self.row(&relation, &bytes, to).await?,
            Item::Commit { end, commit_ms } => self.commit(end, commit_ms, to).await?,
            Item::Progress { position } => self.position = self.position.max(position),
        }
        Ok(())
    }

    /// A table was described: what it was announced as holds no more.
    async fn relation(&mut self, relation: &LogRelation) -> Result<(), Fault> {
        self.announced.remove(&relation.id);
        if self.catalogue.table(&relation.table).is_none() {
            self.catalogue = Catalogue::load(&mut self.sql).await?;
        }
        let Some(table) = self.catalogue.table(&relation.table) else {
            // Not enrolled any more: nothing says where its rows may go, so they go nowhere.
            self.tenant_columns.remove(&relation.id);
            return Ok(());
        };
        let place =
            match &table.tenant_column {
                None => None,
                Some(column) => Some(relation.place(column).ok_or_else(|| Fault::Column {
                    table: relation.table.clone(),
                    column: "of the tenant",
                })?),
            };
        self.tenant_columns.insert(relation.id, place);
        Ok(())
    }

    async fn row<S>(
        &mut self,
        relation: &Arc<LogRelation>,
        bytes: &[u8],
        to: &mut ToReceiver<S>,
    ) -> Result<(), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(foreign) = self.transaction.as_ref().map(|open| open.foreign) else { return Ok(()) };
        let tenant_table = relation.table == "tenant";
        if foreign && !tenant_table {
            return Ok(());
        }
        let (old, new) = match decode::read(bytes)? {
            LogMessage::Insert { new, .. } => (None, new),
            LogMessage::Update { old, new, .. } => (old, new),
            _ => return Ok(()),
        };
        if tenant_table {
            self.learn(relation, old.as_deref(), &new)?;
        }
        if foreign {
            return Ok(());
        }
        let Some(tenant_place) = self.tenant_columns.get(&relation.id).copied() else { return Ok(()) };
        if let Some(place) = tenant_place {
            let tenant = match new.get(place) {
                Some(Value::Text(tenant)) => Some(*tenant),
                Some(Value::Null) => None,
                Some(Value::Unchanged) | None => {
                    return Err(Fault::Column { table: relation.table.clone(), column: "of the tenant" });
                }
            };
            if !self.residency.allows(tenant, &self.peer.region) {
                self.live.lock().withheld += 1;
                return Ok(());
            }
        }
        self.announce(relation)?;
        if new.contains(&Value::Unchanged) {
            let Some(whole) = self.fetch(relation, &new).await? else { return Ok(()) };
            let values = whole.iter().map(Option::as_deref).collect();
            self.writer.push(&Row { relation: relation.id, values })?;
        } else {
            let values = new.iter().map(as_text).collect();
            self.writer.push(&Row { relation: relation.id, values })?;
        }
        if self.writer.is_full() {
            self.part(to).await?;
        }
        Ok(())
    }

    /// Sends a part of a transaction that is not over yet.
    async fn part<S: AsyncRead + AsyncWrite + Unpin>(&mut self, to: &mut ToReceiver<S>) -> Result<(), Fault> {
        if let Some(open) = &mut self.transaction {
            open.begun = true;
            self.live.lock().sent_changes += self.writer.count() as u64;
            // The position of a part is not known before the end; parts belong to the next whole one.
            self.writer.finish(&mut self.message, 0, open.commit_ms, true)?;
        }
        self.flush_if_large(to).await
    }

    async fn commit<S>(&mut self, end: u64, commit_ms: u64, to: &mut ToReceiver<S>) -> Result<(), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(open) = self.transaction.take() else { return Ok(()) };
        self.position = self.position.max(end);
        if self.writer.count() > 0 || open.begun {
            self.live.lock().sent_changes += self.writer.count() as u64;
            self.writer.finish(&mut self.message, end, commit_ms, false)?;
            self.told = end;
        }
        if !open.admitted.is_empty() {
            self.flush(to).await?;
            tracing::info!(peer = self.peer.region, tenants = ?open.admitted, "copying tenants that a peer may have now");
            let options = self.options.clone();
            let copied =
                snapshot::send(options, &self.catalogue, &open.admitted, &self.peer.region, 0, to).await?;
            self.live.lock().sent_changes += copied;
            self.announced.clear();
        }
        self.flush_if_large(to).await
    }

    async fn flush_if_large<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        to: &mut ToReceiver<S>,
    ) -> Result<(), Fault> {
        if self.message.len() >= MESSAGE_BYTES_TARGET { self.send(to).await } else { Ok(()) }
    }

    /// Sends what there is, and how far the log was read beyond it.
    async fn flush<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        to: &mut ToReceiver<S>,
    ) -> Result<(), Fault> {
        if self.position > self.told && self.transaction.is_none() {
            self.push_progress()?;
        }
        if self.message.is_empty() { Ok(()) } else { self.send(to).await }
    }

    /// Tells the receiver how far the log was read, and as of when that was all of it.
    async fn heartbeat<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        to: &mut ToReceiver<S>,
    ) -> Result<(), Fault> {
        let asked_ms = now_ms();
        let latest: i64 = sqlx::query_scalar("select (pg_current_wal_flush_lsn() - '0/0')::bigint")
            .fetch_one(&mut self.sql)
            .await?;
        self.latest = latest as u64;
        if self.transaction.is_none() {
            if self.position >= self.latest {
                self.caught_up_ms = asked_ms;
            }
            self.push_progress()?;
            self.send(to).await?;
        }
        Ok(())
    }

    fn push_progress(&mut self) -> Result<(), Fault> {
        let latest = self.latest.max(self.position);
        let progress = Progress { position: self.position, at_ms: self.caught_up_ms, latest };
        self.message.push(&Frame::Progress(progress))?;
        self.told = self.position;
        Ok(())
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin>(&mut self, to: &mut ToReceiver<S>) -> Result<(), Fault> {
        let message = self.message.take();
        {
            let mut numbers = self.live.lock();
            numbers.sent_bytes += message.len() as u64;
            numbers.sent = self.told;
        }
        to.send(message).await
    }

    fn announce(&mut self, relation: &LogRelation) -> Result<(), Fault> {
        if self.announced.insert(relation.id) {
            self.message.push(&Frame::Relation(Relation {
                id: relation.id,
                table: &relation.table,
                columns: relation.columns.iter().map(String::as_str).collect(),
            }))?;
        }
        Ok(())
    }

    /// Follows the tenant table, also where a peer changed it.
    fn learn(
        &mut self,
        relation: &LogRelation,
        old: Option<&[Value<'_>]>,
        new: &[Value<'_>],
    ) -> Result<(), Fault> {
        let column = |column: &'static str, row: &'_ [Value<'_>]| -> Result<String, Fault> {
            let missing = || Fault::Column { table: relation.table.clone(), column };
            let place = relation.place(column).ok_or_else(missing)?;
            // A large array that did not change is not in the log; the row before has it.
            match (row.get(place), old.and_then(|old| old.get(place))) {
                (Some(Value::Text(text)), _) | (Some(Value::Unchanged), Some(Value::Text(text))) => {
                    Ok((*text).to_owned())
                }
                _ => Err(missing()),
            }
        };
        let unreadable = |column: &'static str| Fault::Column { table: relation.table.clone(), column };
        let slug = column("slug", new)?;
        let mut after =
            text_array(&column("allowed_regions", new)?).ok_or_else(|| unreadable("allowed_regions"))?;
        if column("_deleted", new)?.starts_with('t') {
            after.clear();
        }
        let stamp = stamp(relation, |place| new.get(place).and_then(as_text))?;
        let before = match old {
            Some(old) => text_array(&column("allowed_regions", old)?),
            None => None,
        };
        if compare(before.as_deref(), &after, &self.peer.region) == Change::Admitted
            && let Some(open) = &mut self.transaction
        {
            open.admitted.push(slug.clone());
        }
        self.residency.learn(&slug, stamp, after);
        Ok(())
    }
}

/// The stamp of a row of this table.
fn stamp<'v>(relation: &LogRelation, text: impl Fn(usize) -> Option<&'v str>) -> Result<Stamp, Fault> {
    let column = |column: &'static str| {
        let missing = || Fault::Column { table: relation.table.clone(), column };
        relation.place(column).and_then(&text).ok_or_else(missing)
    };
    let unreadable = |column: &'static str| Fault::Column { table: relation.table.clone(), column };
    let time = column("_stamp")?.parse().map_err(|_| unreadable("_stamp"))?;
    let region = column("_region")?.parse().map_err(|_| unreadable("_region"))?;
    Ok(Stamp::new(time, Region(region)))
}

fn as_text<'v>(value: &Value<'v>) -> Option<&'v str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Null | Value::Unchanged => None,
    }
}

/// The regions that every tenant allows now.
pub(crate) async fn residency(sql: &mut PgConnection) -> Result<Residency, Fault> {
    let rows: Vec<(String, Vec<String>, i64, i16, bool)> =
        sqlx::query_as("select slug, allowed_regions, _stamp, _region, _deleted from meridian.tenant")
            .fetch_all(sql)
            .await?;
    let mut residency = Residency::default();
    for (slug, allowed, time, region, deleted) in rows {
        let allowed = if deleted { Vec::new() } else { allowed };
        residency.learn(&slug, Stamp::new(time as u64, Region(region as u16)), allowed);
    }
    Ok(residency)
}
