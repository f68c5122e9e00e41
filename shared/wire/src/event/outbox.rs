//! Events and faults of one edge, waiting until an origin takes them. They are written as they come: what waits is bytes,
//! and a batch is ready when it is asked for.

use std::collections::VecDeque;
use std::mem;

use meridian_engine::decision::Decision;
use serde::Serialize;

use super::written::Written;
use super::{Fault, Seen};
use crate::limits::{EVENTS_BYTES_MAX, EVENTS_MAX, EVENTS_QUEUED_MAX, FAULTS_QUEUED_MAX};

/// Events of one batch, with room left for all faults.
const BATCH_EVENTS_MAX: usize = EVENTS_MAX - FAULTS_QUEUED_MAX;
/// A batch that has so many bytes takes no more events. A single event has far fewer than there is room for then.
const BATCH_BYTES: usize = EVENTS_BYTES_MAX / 2;

/// What waits. Bounded: what finds no room is counted and dropped.
#[derive(Debug)]
pub struct Outbox {
    /// How every batch begins.
    opening: Vec<u8>,
    /// Full ones, then the one that is being written.
    batches: VecDeque<Batch>,
    events: usize,
    faults: Vec<Fault>,
    dropped: usize,
    /// A batch that no origin took, to be sent once more.
    again: Option<Batch>,
}

/// An [`EventBatch`](super::EventBatch) to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// As JSON.
    pub json: Vec<u8>,
    /// How many events it has.
    pub events: usize,
    is_sent_again: bool,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.events >= BATCH_EVENTS_MAX || self.json.len() >= BATCH_BYTES
    }
}

impl Outbox {
    /// For the edge of this name; nothing waits.
    #[must_use]
    pub fn new(edge: &str) -> Self {
        let mut opening = b"{\"edge\":".to_vec();
        append(&mut opening, edge);
        opening.extend_from_slice(b",\"events\":[");
        let (batches, faults) = (VecDeque::new(), Vec::new());
        Self { opening, batches, events: 0, faults, dropped: 0, again: None }
    }

    /// Takes an event.
    pub fn push(&mut self, decision: &Decision, seen: &Seen) {
        if self.events >= EVENTS_QUEUED_MAX {
            self.dropped += 1;
            return;
        }
        self.events += 1;
        let mut batch = match self.batches.pop_back() {
            Some(batch) if batch.is_full() => {
                self.batches.push_back(batch);
                self.open()
            }
            Some(batch) => batch,
            None => self.open(),
        };
        if batch.events > 0 {
            batch.json.push(b',');
        }
        append(&mut batch.json, &Written::of(decision, seen));
        batch.events += 1;
        self.batches.push_back(batch);
    }

    /// Takes a fault, unless the same one waits already.
    pub fn push_fault(&mut self, fault: Fault) {
        let known = self.faults.iter().any(|have| have.target == fault.target && have.what == fault.what);
        if !known && self.faults.len() < FAULTS_QUEUED_MAX {
            self.faults.push(fault);
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.again.is_none() && self.batches.is_empty() && self.faults.is_empty()
    }

    /// Whether there is a batch that takes no more.
    #[must_use]
    pub fn has_full_batch(&self) -> bool {
        self.batches.front().is_some_and(Batch::is_full)
    }

    /// The next batch to send: the oldest events, and all faults. `None` where nothing waits.
    pub fn take(&mut self) -> Option<Batch> {
        if let Some(again) = self.again.take() {
            return Some(again);
        }
        if self.is_empty() {
            return None;
        }
        let mut batch = self.batches.pop_front().unwrap_or_else(|| self.open());
        self.events -= batch.events;
        batch.json.extend_from_slice(b"],\"faults\":");
        append(&mut batch.json, &mem::take(&mut self.faults));
        batch.json.push(b'}');
        Some(batch)
    }

    /// Takes back a batch that no origin took, once. The second time its events count as dropped.
    pub fn put_back(&mut self, batch: Batch) {
        if batch.is_sent_again {
            self.dropped += batch.events;
        } else {
            self.again = Some(Batch { is_sent_again: true, ..batch });
        }
    }

    /// How many events were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> usize {
        mem::take(&mut self.dropped)
    }

    fn open(&self) -> Batch {
        Batch { json: self.opening.clone(), events: 0, is_sent_again: false }
    }
}

/// Appends a value as JSON. Nothing here fails: bytes take whatever comes, and every key is text.
fn append(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(json, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use meridian_engine::decision::Outcome;
    use meridian_engine::trace::Trace;

    use super::*;
    use crate::event::EventBatch;

    fn push(outbox: &mut Outbox, id: usize) {
        let decision = Decision {
            id: id.to_string(),
            tenant: None,
            bundle: None,
            route: None,
            outcome: Outcome::Denied,
            status: 403,
            region: None,
            subject: None,
            subject_hash: None,
            variants: Vec::new(),
            participation: Default::default(),
            cache: None,
            bytes: Default::default(),
            persons: Default::default(),
            weight: 1,
            trace: Trace::of(&Default::default(), [0; 16]),
            waits: Vec::new(),
            explanation: Default::default(),
        };
        outbox.push(&decision, &Seen::default());
    }

    fn read(batch: &Batch) -> EventBatch {
        let read: EventBatch = serde_json::from_slice(&batch.json).unwrap();
        assert_eq!((read.edge.as_str(), read.events.len()), ("edge \"1\"", batch.events));
        read
    }

    fn outbox() -> Outbox {
        Outbox::new("edge \"1\"")
    }

    fn fault(what: &str) -> Fault {
        Fault { at_ms: 1, target: "platform".into(), version: None, what: what.into() }
    }

    #[test]
    fn events_go_in_batches_and_in_order() {
        let mut outbox = outbox();
        assert!(outbox.is_empty() && outbox.take().is_none());
        for id in 0..BATCH_EVENTS_MAX {
            assert!(!outbox.has_full_batch());
            push(&mut outbox, id);
        }
        assert!(outbox.has_full_batch());
        push(&mut outbox, BATCH_EVENTS_MAX);
        outbox.push_fault(fault("odd"));
        let (first, second) = (outbox.take().unwrap(), outbox.take().unwrap());
        let (first, second) = (read(&first), read(&second));
        assert_eq!((first.events.len(), first.faults.len()), (BATCH_EVENTS_MAX, 1));
        assert!(first.events.iter().enumerate().all(|(id, event)| event.id == id.to_string()));
        assert_eq!((second.events[0].id.as_str(), second.faults.len()), ("450", 0));
        assert!(outbox.is_empty() && outbox.take().is_none());
        outbox.push_fault(fault("odd"));
        assert_eq!(read(&outbox.take().unwrap()).faults, [fault("odd")], "faults go alone, too");
    }

    #[test]
    fn a_batch_that_nobody_takes_is_sent_once_more_before_others() {
        let mut outbox = outbox();
        push(&mut outbox, 1);
        let batch = outbox.take().unwrap();
        push(&mut outbox, 2);
        outbox.put_back(batch);
        assert!(!outbox.is_empty());
        let batch = outbox.take().unwrap();
        assert_eq!(read(&batch).events[0].id, "1");
        outbox.put_back(batch);
        assert_eq!((outbox.take_dropped(), outbox.take_dropped()), (1, 0));
        assert_eq!(read(&outbox.take().unwrap()).events[0].id, "2");
        assert!(outbox.take().is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = outbox();
        for id in 0..EVENTS_QUEUED_MAX + 3 {
            push(&mut outbox, id);
            outbox.push_fault(fault(&id.to_string()));
            outbox.push_fault(fault(&id.to_string()));
        }
        assert_eq!(outbox.take_dropped(), 3);
        let mut events = 0;
        while let Some(batch) = outbox.take() {
            let EventBatch { events: some, faults, .. } = read(&batch);
            assert!(some.len() + faults.len() <= EVENTS_MAX && batch.json.len() <= EVENTS_BYTES_MAX);
            assert_eq!(faults.len(), if events == 0 { FAULTS_QUEUED_MAX } else { 0 });
            events += some.len();
        }
        assert_eq!(events, EVENTS_QUEUED_MAX);
        push(&mut outbox, 0);
        assert_eq!(outbox.take_dropped(), 0, "there is room again");
    }
}
