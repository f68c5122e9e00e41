//! Events on their way to the database: taken at once, written many in one statement, never more waiting than allowed.
//!
//! An event leaves only when it is written, or when the database will not have that very event: then it is dropped and
//! counted, and those around it are written all the same. Whatever else goes wrong, all are tried again and go on taking
//! their room meanwhile, so that the edges hear of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meridian_store::event::{self, Event};
use meridian_store::{Access, Fault, Store, experiment};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};

use crate::limits::{EVENTS_PAUSE, EVENTS_QUEUED_BYTES_MAX, EVENTS_QUEUED_MAX, EVENTS_WRITTEN_MAX};
use crate::metrics::Decided;

/// Where events wait.
#[derive(Clone, Default)]
pub struct Journal(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Bytes of the waiting events, each as [`weight`] has it.
    bytes: usize,
}

/// What became of events.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Written.
    pub written: Counter,
    /// Dropped, because the database will not have them.
    pub dropped: Counter,
    /// What was written, by tenant.
    pub decided: Decided,
}

impl Journal {
    /// Takes all of these events, or none where there is no room for them.
    pub fn offer(&self, events: Vec<Event>) -> bool {
        let bytes: usize = events.iter().map(weight).sum();
        {
            let mut queue = self.queue();
            if queue.events.len() + events.len() > EVENTS_QUEUED_MAX
                || queue.bytes + bytes > EVENTS_QUEUED_BYTES_MAX
            {
                return false;
            }
            queue.events.extend(events);
            queue.bytes += bytes;
        }
        self.0.arrived.notify_one();
        true
    }

    /// How many wait, and how many bytes they have.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let queue = self.queue();
        (queue.events.len(), queue.bytes)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest, which stay until they are [`done`](Self::done).
    fn next(&self) -> Vec<Event> {
        self.queue().events.iter().take(EVENTS_WRITTEN_MAX).cloned().collect()
    }

    fn done(&self, batch: &[Event]) {
        let mut queue = self.queue();
        queue.events.drain(..batch.len());
        queue.bytes -= batch.iter().map(weight).sum::<usize>();
    }

    /// Writes what arrives until `stop` says so, and then once what is left.
    pub async fn write(self, store: Store, counts: Counts, mut stop: watch::Receiver<bool>) {
        loop {
            let batch = self.next();
            let stopping = *stop.borrow();
            if batch.is_empty() {
                if stopping {
                    return;
                }
                tokio::select! {
                    () = self.0.arrived.notified() => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                continue;
            }
            match write(&store, &batch, &counts).await {
                Ok(()) => self.done(&batch),
                Err(fault) if stopping => {
                    let (events, _) = self.waiting();
                    tracing::error!(%fault, events, "events could not be written before the end");
                    return;
                }
                Err(fault) => {
                    tracing::warn!(%fault, events = batch.len(), "events can't be written now, trying again");
                    tokio::select! {
                        () = tokio::time::sleep(EVENTS_PAUSE) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                }
            }
        }
    }
}

/// About what an event takes in memory: the bytes of its JSON text and of its names.
fn weight(event: &Event) -> usize {
    let tenant = event.tenant.as_ref().map_or(0, String::len);
    let texts = event.body.to_string().len() + event.participation.to_string().len();
    texts + event.decision.len() + event.edge.len() + tenant
}

/// Writes a batch whole, or where the database will not have it, in halves down to the events that are at fault. What a
/// batch that is tried again had written before counts once: a decision is written once.
async fn write(store: &Store, batch: &[Event], counts: &Counts) -> Result<(), Fault> {
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        match add(store, part).await {
            Ok(new) => {
                counts.written.inc_by(new.len() as u64);
                for event in new.into_iter().filter_map(|place| part.get(place)) {
                    counts.decided.count(event.tenant.as_deref(), &event.measure);
                }
            }
            Err(fault) if !of_its_rows(&fault) => return Err(fault),
            Err(fault) => match part {
                [] => {}
                [event] => {
                    counts.dropped.inc();
                    tracing::error!(%fault, decision = event.decision, edge = event.edge, "an event can't be written");
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            },
        }
    }
    Ok(())
}

/// Whether the rows are at fault: SQLSTATE class 22, data exception, or 23, integrity constraint violation.
fn of_its_rows(fault: &Fault) -> bool {
    fault.sqlstate().is_some_and(|state| state.starts_with("22") || state.starts_with("23"))
}

async fn add(store: &Store, events: &[Event]) -> Result<Vec<usize>, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let new = event::add(&mut scope, events).await?;
    experiment::add(&mut scope, events).await?;
    scope.commit().await?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_store::rollup::Measure;

    fn event(text: &str) -> Event {
        let body = serde_json::Value::from(text);
        let (measure, participation) = (Measure::default(), serde_json::Value::Null);
        Event {
            decision: "01J".into(),
            tenant: None,
            edge: "e".into(),
            at_ms: 1,
            measure,
            participation,
            body,
        }
    }

    #[test]
    fn takes_all_or_none() {
        let journal = Journal::default();
        assert!(journal.offer(vec![event(""); EVENTS_QUEUED_MAX - 1]));
        assert!(!journal.offer(vec![event(""); 2]));
        assert_eq!(journal.waiting().0, EVENTS_QUEUED_MAX - 1);
        let batch = journal.next();
        assert_eq!(batch.len(), EVENTS_WRITTEN_MAX);
        assert!(!journal.offer(vec![event(""); 2]), "what is being written still takes its room");
        journal.done(&batch);
        assert!(journal.offer(vec![event(""); 2]));
    }

    #[test]
    fn large_events_find_room_by_their_bytes() {
        let journal = Journal::default();
        let large = event(&"x".repeat(EVENTS_QUEUED_BYTES_MAX / 4));
        assert!(journal.offer(vec![large.clone(); 3]));
        assert!(!journal.offer(vec![large.clone()]), "{:?}", journal.waiting());
        assert!(journal.offer(vec![event("small")]));
        let batch = journal.next();
        journal.done(&batch);
        assert_eq!(journal.waiting(), (0, 0));
        assert!(journal.offer(vec![large]));
    }
}
