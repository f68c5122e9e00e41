//! Events on their way to the database: taken at once, written many in one statement, never more waiting than allowed.

use std::sync::{Arc, Mutex, PoisonError};

use meridian_store::event::{self, Event};
use meridian_store::{Access, Store};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};

use crate::limits::{EVENTS_PAUSE, EVENTS_QUEUED_MAX, EVENTS_WRITTEN_MAX};

/// Where events wait.
#[derive(Clone, Default)]
pub struct Journal(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    events: Mutex<Vec<Event>>,
    arrived: Notify,
}

impl Journal {
    /// Takes all of these events, or none where there is no room for them.
    pub fn offer(&self, events: Vec<Event>) -> bool {
        {
            let mut waiting = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() + events.len() > EVENTS_QUEUED_MAX {
                return false;
            }
            waiting.extend(events);
        }
        self.0.arrived.notify_one();
        true
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn next(&self) -> Vec<Event> {
        let mut waiting = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let many = waiting.len().min(EVENTS_WRITTEN_MAX);
        waiting.drain(..many).collect()
    }

    fn put_back(&self, events: Vec<Event>) {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner).splice(0..0, events);
    }

    /// Writes what arrives until `stop` says so, and then what is left. Events that can't be written are tried again
    /// and go on taking their room meanwhile, so that the edges hear of it.
    pub async fn write(self, store: Store, written: Counter, mut stop: watch::Receiver<bool>) {
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
            match write(&store, &batch).await {
                Ok(new) => {
                    written.inc_by(new);
                }
                Err(fault) if fault.transient() && !stopping => {
                    tracing::warn!(%fault, events = batch.len(), "events can't be written now, trying again");
                    self.put_back(batch);
                    tokio::select! {
                        () = tokio::time::sleep(EVENTS_PAUSE) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                }
                Err(fault) => tracing::error!(%fault, events = batch.len(), "events could not be written"),
            }
        }
    }
}

async fn write(store: &Store, events: &[Event]) -> Result<u64, meridian_store::Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let new = event::add(&mut scope, events).await?;
    scope.commit().await?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_all_or_none() {
        let journal = Journal::default();
        let event = Event {
            decision: "01J".into(),
            tenant: None,
            edge: "e".into(),
            at_ms: 1,
            body: serde_json::Value::Null,
        };
        assert!(journal.offer(vec![event.clone(); EVENTS_QUEUED_MAX - 1]));
        assert!(!journal.offer(vec![event.clone(); 2]));
        assert_eq!(journal.waiting(), EVENTS_QUEUED_MAX - 1);
        assert_eq!(journal.next().len(), EVENTS_WRITTEN_MAX);
        assert!(journal.offer(vec![event; 2]));
    }
}
