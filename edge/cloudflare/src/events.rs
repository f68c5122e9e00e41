//! What was decided, on its way to an origin: queued in the isolate, bounded, sent in batches after the replies.

use std::rc::Rc;

use meridian_wire::event::{Event, EventBatch, Fault};
use meridian_wire::limits::EVENTS_MAX;
use worker::console_warn;

use crate::host;
use crate::isolate::Isolate;
use crate::limits::{
    ANSWER_BYTES_MAX, EVENTS_AGAIN_MS, EVENTS_QUEUED_MAX, EVENTS_WAIT_MS, FAULTS_QUEUED_MAX, FLUSH_LOST_MS,
    ORIGIN_WAIT_MS,
};
use crate::origin::{self, Call};

/// Events and faults that wait.
#[derive(Default)]
pub struct Queue {
    events: Vec<Event>,
    faults: Vec<Fault>,
    dropped: u64,
    /// Since when somebody sees to sending them.
    attended_ms: Option<u64>,
    /// Whether that somebody is sending already.
    sending: bool,
    /// A batch that no origin took, to be sent once more.
    again: Option<EventBatch>,
}

/// Who sends what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Somebody else.
    Other,
    /// The caller, by [`flush_later`].
    Later,
    /// The caller, by [`flush`]: a batch is full.
    Now,
}

impl Queue {
    /// Queues an event. Whoever was to send and has not been heard of for [`FLUSH_LOST_MS`] is not waited for: a request
    /// can end before what it left for later is done.
    pub fn push(&mut self, event: Event, now_ms: u64) -> Flush {
        if self.events.len() < EVENTS_QUEUED_MAX {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
        let attended = self.attended_ms.is_some_and(|since| now_ms.saturating_sub(since) < FLUSH_LOST_MS);
        self.sending &= attended;
        if self.events.len() >= EVENTS_MAX && !self.sending {
            (self.attended_ms, self.sending) = (Some(now_ms), true);
            return Flush::Now;
        }
        if attended {
            return Flush::Other;
        }
        self.attended_ms = Some(now_ms);
        Flush::Later
    }

    /// Begins to send, unless somebody else does.
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.sending, true)
    }

    /// Queues a fault, to go with the next events.
    pub fn push_fault(&mut self, fault: Fault) {
        console_warn!("{} not accepted: {}", fault.target, fault.what);
        let same = |have: &Fault| have.target == fault.target && have.what == fault.what;
        if self.faults.len() < FAULTS_QUEUED_MAX && !self.faults.iter().any(same) {
            self.faults.push(fault);
        }
    }

    /// The next batch, and whether it is sent again; sending is over where there is none.
    fn take(&mut self, edge: &str, now_ms: u64) -> Option<(EventBatch, bool)> {
        if let Some(again) = self.again.take() {
            (self.attended_ms, self.sending) = (Some(now_ms), true);
            return Some((again, true));
        }
        let count = self.events.len().min(EVENTS_MAX);
        let events = self.events.drain(..count).collect::<Vec<_>>();
        let faults = std::mem::take(&mut self.faults);
        let more = !(events.is_empty() && faults.is_empty());
        (self.attended_ms, self.sending) = (more.then_some(now_ms), more);
        more.then(|| (EventBatch { edge: edge.to_owned(), events, faults }, false))
    }

    /// Takes back a batch that no origin took, once. The second time its events count as dropped.
    fn put_back(&mut self, batch: EventBatch, again: bool) {
        if again {
            self.dropped += batch.events.len() as u64;
        } else {
            self.again = Some(batch);
        }
    }

    /// How many events were dropped since this was last asked.
    fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// Waits a little for more events, then sends what there is.
pub async fn flush_later(isolate: Rc<Isolate>) {
    // A promise of a timer is never rejected.
    let _ = host::wait(host::sleep(EVENTS_WAIT_MS)).await;
    if isolate.events.borrow_mut().begin() {
        flush(&isolate).await;
    }
}

/// Sends everything that is queued. What no origin has room for is sent once more a little later, then dropped: events
/// are not worth a request's memory.
pub async fn flush(isolate: &Isolate) {
    loop {
        let (batch, dropped) = {
            let mut queue = isolate.events.borrow_mut();
            (queue.take(&isolate.config.edge, host::now_ms()), queue.take_dropped())
        };
        if dropped > 0 {
            console_warn!("{dropped} events dropped: no origin takes them as fast as they come");
        }
        let Some((batch, again)) = batch else { return };
        let body = serde_json::to_string(&batch).unwrap_or_default();
        let call = Call {
            method: "POST",
            path: "/edge/v1/events",
            body: Some(body),
            version: None,
            timeout_ms: ORIGIN_WAIT_MS,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match origin::call(isolate, call).await {
            Ok(answer) if answer.status < 300 => {}
            Ok(answer) => console_warn!("{} events refused: status {}", batch.events.len(), answer.status),
            Err(fault) => {
                console_warn!("no origin takes {} events: {fault}", batch.events.len());
                isolate.events.borrow_mut().put_back(batch, again);
                let _ = host::wait(host::sleep(EVENTS_AGAIN_MS)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::trace::Trace;

    use super::*;

    fn event() -> Event {
        let decision = meridian_engine::decision::Decision {
            id: String::new(),
            tenant: None,
            bundle: None,
            route: None,
            outcome: meridian_engine::decision::Outcome::Denied,
            status: 404,
            region: None,
            subject: None,
            subject_hash: None,
            variants: Vec::new(),
            participation: Default::default(),
            cache: None,
            weight: 1,
            trace: Trace::of(&Default::default(), [0; 16]),
            waits: Vec::new(),
            explanation: Default::default(),
        };
        Event::of(&decision, Default::default())
    }

    #[test]
    fn one_request_sends_for_all_and_a_lost_one_is_replaced() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(event(), 0), Flush::Later);
        assert_eq!(queue.push(event(), 1), Flush::Other);
        assert!(queue.begin());
        assert_eq!(queue.push(event(), FLUSH_LOST_MS), Flush::Later, "nobody was heard of");
        assert!(queue.begin());
        assert_eq!(queue.take("e", FLUSH_LOST_MS).unwrap().0.events.len(), 3);
        assert_eq!(queue.take("e", FLUSH_LOST_MS), None);
        assert_eq!(queue.push(event(), FLUSH_LOST_MS), Flush::Later);
    }

    #[test]
    fn a_batch_that_nobody_takes_is_sent_once_more() {
        let mut queue = Queue::default();
        queue.push(event(), 0);
        let (batch, again) = queue.take("e", 0).unwrap();
        queue.push(event(), 1);
        queue.put_back(batch.clone(), again);
        assert_eq!(queue.push(event(), 2), Flush::Other, "whoever sends goes on");
        let (same, again) = queue.take("e", 3).unwrap();
        assert_eq!((&same, again), (&batch, true));
        queue.put_back(same, again);
        assert_eq!(queue.take_dropped(), 1);
        assert_eq!(queue.take("e", 4).unwrap().0.events.len(), 2);
        assert_eq!(queue.take("e", 5), None);
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_full_queue_drops() {
        let mut queue = Queue::default();
        let flushes: Vec<_> = (0..EVENTS_QUEUED_MAX + 5).map(|_| queue.push(event(), 0)).collect();
        assert_eq!(flushes[0], Flush::Later);
        assert_eq!(flushes.iter().position(|flush| *flush == Flush::Now), Some(EVENTS_MAX - 1));
        assert_eq!(flushes.iter().filter(|flush| **flush == Flush::Now).count(), 1);
        assert_eq!((queue.events.len(), queue.dropped), (EVENTS_QUEUED_MAX, 5));
    }
}
