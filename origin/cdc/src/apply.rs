//! Turns messages into apply transactions: small transactions of the source are gathered into one, a large one is
//! applied part by part in one of its own, and either way the cursor moves with the rows.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use meridian_store::apply::{Applied, Applier, End, Incoming, Route};
use meridian_store::progress::SourceCursor;
use meridian_wire::change::{self, Frame, Hello, Progress, Row, Snapshot, Transaction};

use crate::receive::new_cursor;
use crate::status::Live;
use crate::{Fault, Peer, Shared, limits};

/// The apply side of one source.
pub(crate) struct Apply<'s> {
    shared: &'s Shared,
    source: &'s Peer,
    live: &'s Live,
    applier: Applier,
    routes: HashMap<u32, Route>,
    /// What is committed here.
    cursor: SourceCursor,
    /// Whether parts of a large transaction are written and its end has not come.
    open: bool,
    /// Progress without rows that is not written down yet.
    idle: Option<Progress>,
    idle_since: Instant,
    /// The source's position when the connection began: what a snapshot reflects.
    source_position: u64,
}

/// Whole transactions that will be applied in one.
#[derive(Default)]
struct Batch<'a> {
    rows: Vec<(u32, Vec<Incoming<'a>>)>,
    count: usize,
    end: Option<(u64, u64)>,
}

impl<'a> Batch<'a> {
    fn add(&mut self, rows: &'a [Row<'a>], position: u64) {
        self.count += rows.len();
        for row in rows {
            let incoming = Incoming { values: &row.values, position };
            match self.rows.iter_mut().find(|(relation, _)| *relation == row.relation) {
                Some((_, rows)) => rows.push(incoming),
                None => self.rows.push((row.relation, vec![incoming])),
            }
        }
    }
}

impl<'s> Apply<'s> {
    pub(crate) fn new(
        shared: &'s Shared,
        source: &'s Peer,
        live: &'s Live,
        mut applier: Applier,
        cursor: Option<SourceCursor>,
    ) -> Self {
        let cursor = cursor.unwrap_or_else(|| new_cursor(source));
        applier.set_incarnation(&cursor.incarnation);
        Self {
            shared,
            source,
            live,
            applier,
            routes: HashMap::new(),
            cursor,
            open: false,
            idle: None,
            idle_since: Instant::now(),
            source_position: 0,
        }
    }

    /// Whether an apply transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The position that is committed here.
    pub(crate) fn durable_cursor(&self) -> u64 {
        self.cursor.position
    }

    /// How far this region's log is flushed, and how far it is written.
    pub(crate) async fn flushed(&mut self) -> Result<(u64, u64), Fault> {
        Ok(self.applier.flushed().await?)
    }

    /// Applies messages, in order.
    pub(crate) async fn messages(&mut self, messages: &[Bytes]) -> Result<(), Fault> {
        let mut frames = Vec::new();
        for message in messages {
            self.live.lock().bytes += message.len() as u64;
            frames.extend(change::read(message)?);
        }
        let mut batch = Batch::default();
        for frame in &frames {
            match frame {
                Frame::Transaction(transaction) => self.transaction(&mut batch, transaction).await?,
                Frame::Progress(progress) => self.progress(&mut batch, *progress),
                Frame::Relation(relation) => {
                    self.apply(&mut batch).await?;
                    let route = self.applier.route(relation.table, &relation.columns).await?;
                    if let Route::Unknown(unknown) = &route {
                        tracing::warn!(source = self.source.region, %unknown, "its changes are set aside");
                    }
                    self.routes.insert(relation.id, route);
                }
                Frame::Snapshot(snapshot) => {
                    self.apply(&mut batch).await?;
                    self.snapshot(snapshot).await?;
                }
                Frame::Hello(hello) => self.hello(hello)?,
                _ => {
                    return Err(Fault::Protocol {
                        found: "a frame of a later version".into(),
                        expected: "a known frame",
                    });
                }
            }
        }
        self.apply(&mut batch).await
    }

    fn hello(&mut self, hello: &Hello<'_>) -> Result<(), Fault> {
        if hello.region != self.source.region || hello.ordinal != self.source.ordinal {
            return Err(Fault::Protocol {
                found: format!("region {} with ordinal {}", hello.region, hello.ordinal),
                expected: "the region and ordinal that are configured for this peer",
            });
        }
        self.applier.set_incarnation(hello.incarnation);
        hello.incarnation.clone_into(&mut self.cursor.incarnation);
        self.source_position = hello.position;
        let mut numbers = self.live.lock();
        numbers.source_position = hello.position;
        numbers.detail = None;
        numbers.state = if hello.gap { "resynchronising" } else { "streaming" };
        if hello.gap {
            tracing::info!(
                source = self.source.region,
                cursor = self.cursor.position,
                serves_from = hello.serves_from,
                "the log does not reach back to this region's cursor: copying everything"
            );
        } else {
            numbers.reached(self.cursor.position, self.cursor.commit_ms);
        }
        Ok(())
    }

    async fn transaction<'a>(
        &mut self,
        batch: &mut Batch<'a>,
        transaction: &'a Transaction<'a>,
    ) -> Result<(), Fault> {
        if self.open || transaction.more {
            if !self.open {
                self.apply(batch).await?;
                self.applier.begin(true).await?;
                self.open = true;
            }
            let mut part = Batch::default();
            part.add(&transaction.rows, transaction.position.max(self.source_position));
            self.write(&part).await?;
            if !transaction.more {
                self.open = false;
                self.commit(Some((transaction.position, transaction.commit_ms))).await?;
            }
            return Ok(());
        }
        // A transaction that is applied already, sent again.
        if transaction.position <= self.cursor.position {
            return Ok(());
        }
        batch.add(&transaction.rows, transaction.position);
        batch.end = Some((transaction.position, transaction.commit_ms));
        if batch.count >= limits::APPLY_ROWS_TARGET { self.apply(batch).await } else { Ok(()) }
    }

    fn progress(&mut self, batch: &mut Batch<'_>, progress: Progress) {
        let mut numbers = self.live.lock();
        numbers.source_position = numbers.source_position.max(progress.latest);
        if batch.count > 0 {
            batch.end = Some((progress.position, progress.at_ms));
        } else if !self.open && numbers.state == "streaming" {
            numbers.reached(progress.position, progress.at_ms);
            drop(numbers);
            self.shared.progress.advance(self.source.ordinal, progress.position);
            self.shared.saw(self.source.ordinal, progress.at_ms);
            self.idle = Some(progress);
        }
    }

    /// Writes down progress without rows, now and then.
    pub(crate) async fn write_progress(&mut self) -> Result<(), Fault> {
        if self.open || self.idle_since.elapsed() < limits::PROGRESS_INTERVAL {
            return Ok(());
        }
        self.idle_since = Instant::now();
        if let Some(progress) = self.idle.take()
            && progress.position > self.cursor.position
        {
            self.applier.begin(false).await?;
            self.commit(Some((progress.position, progress.at_ms))).await?;
        }
        Ok(())
    }

    /// Tries again what was set aside.
    pub(crate) async fn retry_parked(&mut self) -> Result<(), Fault> {
        if self.open {
            return Ok(());
        }
        if let Some(applied) = self.applier.retry_parked().await? {
            self.tell(&applied, 0);
        }
        Ok(())
    }

    async fn snapshot(&mut self, snapshot: &Snapshot<'_>) -> Result<(), Fault> {
        let mut part = Batch::default();
        part.add(&snapshot.rows, self.source_position);
        self.applier.begin(true).await?;
        self.write(&part).await?;
        if snapshot.more || snapshot.position == 0 {
            return self.commit(None).await;
        }
        // The copy is whole: positions start anew.
        self.cursor.position = 0;
        self.cursor.commit_ms = 0;
        self.commit(Some((snapshot.position, crate::now_ms()))).await?;
        self.shared.progress.reset(self.source.ordinal, snapshot.position);
        let mut numbers = self.live.lock();
        numbers.applied = snapshot.position;
        numbers.state = "streaming";
        tracing::info!(
            source = self.source.region,
            position = snapshot.position,
            "copied everything, following the log"
        );
        Ok(())
    }

    async fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        let batch = std::mem::take(batch);
        if batch.end.is_none() {
            return Ok(());
        }
        if self.apply_whole(&batch).await? {
            return Ok(());
        }
        let mut careful = false;
        for attempt in 1.. {
            self.applier.begin(careful).await?;
            let written = match self.write(&batch).await {
                Ok(()) => self.commit(batch.end).await,
                Err(fault) => Err(fault),
            };
            let Err(fault) = written else { return Ok(()) };
            let Fault::Store(reason) = &fault else { return Err(fault) };
            if matches!(reason, meridian_store::Fault::Unavailable(_)) || attempt >= limits::APPLY_TRIES_MAX {
                return Err(fault);
            }
            self.applier.rollback().await?;
            // Two transactions in each other's way: the same again. Anything else: find the row that is at fault.
            careful |= !reason.transient();
            tracing::debug!(source = self.source.region, %fault, attempt, careful, "applying again");
        }
        Ok(())
    }

    /// Applies in one statement what can be; says whether that was everything.
    async fn apply_whole(&mut self, batch: &Batch<'_>) -> Result<bool, Fault> {
        let ([(relation, rows)], Some((position, commit_ms))) = (batch.rows.as_slice(), batch.end) else {
            return Ok(false);
        };
        let route = self.routes.get(relation).ok_or(Fault::Relation { id: *relation })?;
        let position = position.max(self.cursor.position);
        match self.applier.apply_whole(route, rows, position, commit_ms).await {
            Ok(None) => Ok(false),
            Ok(Some(applied)) => {
                self.cursor.position = position;
                self.cursor.commit_ms = commit_ms;
                self.tell(&applied, commit_ms);
                Ok(true)
            }
            Err(fault @ meridian_store::Fault::Unavailable(_)) => Err(fault.into()),
            // A transaction finds out which row it is.
            Err(_) => Ok(false),
        }
    }

    async fn write(&mut self, batch: &Batch<'_>) -> Result<(), Fault> {
        for (relation, rows) in &batch.rows {
            let route = self.routes.get(relation).ok_or(Fault::Relation { id: *relation })?;
            self.applier.write(route, rows).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, end: Option<(u64, u64)>) -> Result<(), Fault> {
        let (position, commit_ms) = end.unzip();
        let position = position.map(|position| position.max(self.cursor.position));
        let commit_ms = commit_ms.unwrap_or(0);
        let applied = self.applier.commit(End { position, commit_ms }).await?;
        if let Some(position) = position {
            self.cursor.position = position;
            self.cursor.commit_ms = commit_ms;
        }
        self.tell(&applied, commit_ms);
        // A clash is settled at once; what else was set aside waits for its time.
        if applied.parked > 0 { self.retry_parked().await } else { Ok(()) }
    }

    /// Tells everybody who waits for it: caches first, then those who wait to read.
    fn tell(&self, applied: &Applied, commit_ms: u64) {
        self.live.applied(applied, commit_ms);
        if !applied.purges.is_empty() || !applied.tables.is_empty() {
            (self.shared.hook)(&crate::Applied {
                source: applied.source,
                position: applied.position,
                purges: applied.purges.iter().map(|(tenant, tag, _)| (tenant.clone(), tag.clone())).collect(),
                tables: applied.tables.clone(),
            });
        }
        if applied.position > 0 {
            self.shared.progress.advance(applied.source, applied.position);
            self.shared.saw(applied.source, commit_ms);
        }
    }
}
