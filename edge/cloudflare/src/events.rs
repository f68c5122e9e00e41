//! What was decided, on its way to an origin: queued in the isolate, bounded, sent in batches after the replies.

use std::rc::Rc;

use meridian_engine::decision::Decision;
use meridian_wire::event::{Batch, Fault, Outbox, Seen};
use worker::console_warn;

use crate::host;
use crate::isolate::Isolate;
use crate::limits::{ANSWER_BYTES_MAX, EVENTS_AGAIN_MS, EVENTS_WAIT_MS, FLUSH_LOST_MS, ORIGIN_WAIT_MS};
use crate::origin::{self, Call};

/// Events and faults that wait, and who sees to sending them.
pub struct Queue {
    outbox: Outbox,
    /// Since when somebody sees to it.
    attended_ms: Option<u64>,
    /// Whether that somebody is sending already.
    sending: bool,
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
    /// Nothing waits at the edge of this name.
    pub fn new(edge: &str) -> Self {
        Self { outbox: Outbox::new(edge), attended_ms: None, sending: false }
    }

    /// Queues an event. Whoever was to send and has not been heard of for [`FLUSH_LOST_MS`] is not waited for: a request
    /// can end before what it left for later is done.
    pub fn push(&mut self, decision: &Decision, seen: &Seen, now_ms: u64) -> Flush {
        self.outbox.push(decision, seen);
        let attended = self.attended_ms.is_some_and(|since| now_ms.saturating_sub(since) < FLUSH_LOST_MS);
        self.sending &= attended;
        if self.outbox.has_full_batch() && !self.sending {
            (self.attended_ms, self.sending) = (Some(now_ms), true);
            return Flush::Now;
        }
        if attended {
            return Flush::Other;
        }
        self.attended_ms = Some(now_ms);
        Flush::Later
    }

    /// Queues a fault, to go with the next events.
    pub fn push_fault(&mut self, fault: Fault) {
        console_warn!("{} not accepted: {}", fault.target, fault.what);
        self.outbox.push_fault(fault);
    }

    /// Begins to send, unless somebody else does.
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.sending, true)
    }

    /// The next batch; sending is over where there is none.
    fn take(&mut self, now_ms: u64) -> Option<Batch> {
        let batch = self.outbox.take();
        (self.attended_ms, self.sending) = (batch.as_ref().map(|_| now_ms), batch.is_some());
        batch
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
            (queue.take(host::now_ms()), queue.outbox.take_dropped())
        };
        if dropped > 0 {
            console_warn!("{dropped} events dropped: no origin takes them as fast as they come");
        }
        let Some(batch) = batch else { return };
        let call = Call {
            method: "POST",
            path: "/edge/v1/events",
            body: Some(&batch.json),
            version: None,
            timeout_ms: ORIGIN_WAIT_MS,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match origin::call(isolate, call).await {
            Ok(answer) if answer.status < 300 => {}
            Ok(answer) => console_warn!("{} events refused: status {}", batch.events, answer.status),
            Err(fault) => {
                console_warn!("no origin takes {} events: {fault}", batch.events);
                isolate.events.borrow_mut().outbox.put_back(batch);
                let _ = host::wait(host::sleep(EVENTS_AGAIN_MS)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::decision::Outcome;
    use meridian_engine::trace::Trace;
    use meridian_wire::limits::{EVENTS_MAX, EVENTS_QUEUED_MAX};

    use super::*;

    fn push(queue: &mut Queue, now_ms: u64) -> Flush {
        let decision = Decision {
            id: String::new(),
            tenant: None,
            bundle: None,
            route: None,
            outcome: Outcome::Denied,
            status: 404,
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
        queue.push(&decision, &Seen::default(), now_ms)
    }

    #[test]
    fn one_request_sends_for_all_and_a_lost_one_is_replaced() {
        let mut queue = Queue::new("e");
        assert_eq!(push(&mut queue, 0), Flush::Later);
        assert_eq!(push(&mut queue, 1), Flush::Other);
        assert!(queue.begin());
        assert_eq!(push(&mut queue, FLUSH_LOST_MS), Flush::Later, "nobody was heard of");
        assert!(queue.begin());
        assert_eq!(queue.take(FLUSH_LOST_MS).unwrap().events, 3);
        assert_eq!(queue.take(FLUSH_LOST_MS), None);
        assert_eq!(push(&mut queue, FLUSH_LOST_MS), Flush::Later);
    }

    #[test]
    fn whoever_sends_goes_on_with_what_came_meanwhile() {
        let mut queue = Queue::new("e");
        push(&mut queue, 0);
        let batch = queue.take(0).unwrap();
        queue.outbox.put_back(batch);
        assert_eq!(push(&mut queue, 2), Flush::Other);
        assert!(queue.take(3).is_some() && queue.take(4).is_some());
        assert_eq!(queue.take(5), None);
    }

    #[test]
    fn a_full_batch_goes_at_once() {
        let mut queue = Queue::new("e");
        let flushes: Vec<_> = (0..EVENTS_QUEUED_MAX + 5).map(|_| push(&mut queue, 0)).collect();
        assert_eq!(flushes[0], Flush::Later);
        assert!(flushes.iter().position(|flush| *flush == Flush::Now).is_some_and(|at| at < EVENTS_MAX));
        assert_eq!(flushes.iter().filter(|flush| **flush == Flush::Now).count(), 1);
        assert_eq!(queue.outbox.take_dropped(), 5);
    }
}
