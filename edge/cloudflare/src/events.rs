//! What was decided, on its way to an origin: queued in the isolate, bounded, sent in batches after the replies.

use std::rc::Rc;

use meridian_wire::event::{Event, EventBatch, Fault};
use meridian_wire::limits::EVENTS_MAX;
use worker::console_warn;

use crate::host;
use crate::isolate::Isolate;
use crate::limits::{ANSWER_BYTES_MAX, EVENTS_QUEUED_MAX, EVENTS_WAIT_MS, FAULTS_QUEUED_MAX, ORIGIN_WAIT_MS};
use crate::origin::{self, Call};

/// Events and faults that wait.
#[derive(Default)]
pub struct Queue {
    events: Vec<Event>,
    faults: Vec<Fault>,
    dropped: u64,
    /// Whether somebody is going to send them.
    armed: bool,
}

impl Queue {
    /// Queues an event. True where the caller must see to it that [`flush`] runs, after [`EVENTS_WAIT_MS`].
    pub fn push(&mut self, event: Event) -> bool {
        if self.events.len() < EVENTS_QUEUED_MAX {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
        !std::mem::replace(&mut self.armed, true)
    }

    /// Queues a fault, to go with the next events.
    pub fn push_fault(&mut self, fault: Fault) {
        console_warn!("{} not accepted: {}", fault.target, fault.what);
        let same = |have: &Fault| have.target == fault.target && have.what == fault.what;
        if self.faults.len() < FAULTS_QUEUED_MAX && !self.faults.iter().any(same) {
            self.faults.push(fault);
        }
    }

    fn take(&mut self, edge: &str) -> Option<EventBatch> {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            console_warn!("{dropped} events dropped: the queue was full");
        }
        let count = self.events.len().min(EVENTS_MAX);
        let events = self.events.drain(..count).collect::<Vec<_>>();
        let faults = std::mem::take(&mut self.faults);
        let empty = events.is_empty() && faults.is_empty();
        (!empty).then(|| EventBatch { edge: edge.to_owned(), events, faults })
    }
}

/// Waits a little for more events, then sends what there is.
pub async fn flush_later(isolate: Rc<Isolate>) {
    // A promise of a timer is never rejected.
    let _ = host::wait(host::sleep(EVENTS_WAIT_MS)).await;
    flush(&isolate).await;
}

/// Sends everything that is queued. What no origin takes is dropped: events are not worth a request's memory.
pub async fn flush(isolate: &Isolate) {
    loop {
        let batch = {
            let mut queue = isolate.events.borrow_mut();
            let batch = queue.take(&isolate.config.edge);
            queue.armed = batch.is_some();
            batch
        };
        let Some(batch) = batch else { return };
        let body = serde_json::to_string(&batch).unwrap_or_default();
        let call = Call {
            method: "POST",
            path: "/edge/v1/events",
            body: Some(body),
            timeout_ms: ORIGIN_WAIT_MS,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match origin::call(isolate, call).await {
            Ok(answer) if answer.status < 300 => {}
            Ok(answer) => console_warn!("{} events refused: status {}", batch.events.len(), answer.status),
            Err(fault) => console_warn!("{} events lost: {fault}", batch.events.len()),
        }
    }
}
