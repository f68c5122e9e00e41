//! What was decided and what could not be accepted, waiting to be sent to an origin.

use std::mem;

use meridian_wire::event::{Event, EventBatch, Fault};
use meridian_wire::limits::EVENTS_MAX;

use crate::limits::{EVENTS_QUEUED_MAX, FAULTS_QUEUED_MAX};

/// Events and faults of this instance. Bounded: what finds no room is counted and dropped.
#[derive(Debug, Default)]
pub struct Events {
    events: Vec<Event>,
    faults: Vec<Fault>,
    dropped: u64,
    sending: bool,
    /// A batch that no origin took, to be sent once more.
    again: Option<EventBatch>,
}

impl Events {
    /// Queues an event.
    pub fn push(&mut self, event: Event) {
        if self.events.len() < EVENTS_QUEUED_MAX {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }

    /// Queues a fault, unless the same one waits already.
    pub fn push_fault(&mut self, fault: Fault) {
        let known = self.faults.iter().any(|have| have.target == fault.target && have.what == fault.what);
        if !known && self.faults.len() < FAULTS_QUEUED_MAX {
            self.faults.push(fault);
        }
    }

    /// Whether somebody has to start sending; whoever is told so does.
    pub fn start(&mut self) -> bool {
        let waits = self.again.is_some() || !self.events.is_empty() || !self.faults.is_empty();
        let start = waits && !self.sending;
        self.sending |= start;
        start
    }

    /// The next batch to send, and whether it is sent again; `None` where all is sent, which ends the sending.
    pub fn batch(&mut self, edge: &str) -> Option<(EventBatch, bool)> {
        if let Some(again) = self.again.take() {
            return Some((again, true));
        }
        if self.events.is_empty() && self.faults.is_empty() {
            self.sending = false;
            return None;
        }
        let rest = self.events.split_off(self.events.len().min(EVENTS_MAX));
        let events = mem::replace(&mut self.events, rest);
        let faults = mem::take(&mut self.faults);
        Some((EventBatch { edge: edge.to_owned(), events, faults }, false))
    }

    /// Takes back a batch that no origin took, once. The second time its events count as dropped.
    pub fn put_back(&mut self, batch: EventBatch, again: bool) {
        if again {
            self.dropped += batch.events.len() as u64;
        } else {
            self.again = Some(batch);
        }
    }

    /// How many events were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::decision::{Decision, Outcome};
    use meridian_engine::explanation::Explanation;
    use meridian_engine::trace::Trace;
    use meridian_wire::event::Seen;

    use super::*;

    fn event(id: usize) -> Event {
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
            weight: 1,
            trace: Trace::of(&Default::default(), [0; 16]),
            waits: Vec::new(),
            explanation: Explanation::default(),
        };
        Event::of(&decision, Seen::default())
    }

    #[test]
    fn events_go_in_batches_and_in_order() {
        let mut events = Events::default();
        assert!(!events.start());
        for id in 0..EVENTS_MAX + 1 {
            events.push(event(id));
        }
        assert!(events.start());
        assert!(!events.start(), "one sends");
        let (first, _) = events.batch("spin-1").unwrap();
        assert_eq!((first.edge.as_str(), first.events.len()), ("spin-1", EVENTS_MAX));
        assert_eq!(first.events[0].id, "0");
        assert_eq!(events.batch("spin-1").unwrap().0.events[0].id, EVENTS_MAX.to_string());
        assert!(events.batch("spin-1").is_none());
        events.push(event(0));
        assert!(events.start(), "and then the next one");
    }

    #[test]
    fn a_batch_that_nobody_takes_is_sent_once_more() {
        let mut events = Events::default();
        events.push(event(1));
        assert!(events.start());
        let (batch, again) = events.batch("spin-1").unwrap();
        assert!(!again);
        events.push(event(2));
        events.put_back(batch, again);
        let (batch, again) = events.batch("spin-1").unwrap();
        assert_eq!((batch.events[0].id.as_str(), again), ("1", true), "the same one, before the others");
        events.put_back(batch, again);
        assert_eq!(events.take_dropped(), 1);
        assert_eq!(events.batch("spin-1").unwrap().0.events[0].id, "2");
        assert!(events.batch("spin-1").is_none());
    }

    #[test]
    fn queues_are_bounded() {
        let mut events = Events::default();
        for id in 0..EVENTS_QUEUED_MAX + 3 {
            events.push(event(id));
        }
        assert_eq!(events.take_dropped(), 3);
        assert_eq!(events.take_dropped(), 0);
        let fault =
            |what: &str| Fault { at_ms: 1, target: "platform".into(), version: None, what: what.into() };
        for number in 0..FAULTS_QUEUED_MAX + 3 {
            events.push_fault(fault(&number.to_string()));
            events.push_fault(fault(&number.to_string()));
        }
        assert_eq!(events.batch("spin-1").unwrap().0.faults.len(), FAULTS_QUEUED_MAX);
    }
}
