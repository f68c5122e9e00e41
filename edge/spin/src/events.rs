//! What was decided and what could not be accepted, waiting to be sent to an origin.

use meridian_wire::event::{Batch, Outbox};

/// Events and faults of this instance, and whether somebody sends them.
#[derive(Debug)]
pub struct Events {
    /// What waits.
    pub outbox: Outbox,
    sending: bool,
}

impl Events {
    /// Nothing waits at the edge of this name.
    #[must_use]
    pub fn new(edge: &str) -> Self {
        Self { outbox: Outbox::new(edge), sending: false }
    }

    /// Whether somebody has to start sending; whoever is told so does.
    pub fn start(&mut self) -> bool {
        let start = !self.sending && !self.outbox.is_empty();
        self.sending |= start;
        start
    }

    /// The next batch to send; `None` where all is sent, which ends the sending.
    pub fn take(&mut self) -> Option<Batch> {
        let batch = self.outbox.take();
        self.sending = batch.is_some();
        batch
    }
}

#[cfg(test)]
mod tests {
    use meridian_wire::event::Fault;

    use super::*;

    #[test]
    fn one_sends_for_all_and_then_the_next_one() {
        let mut events = Events::new("spin-1");
        let fault =
            |what: &str| Fault { at_ms: 1, target: "platform".into(), version: None, what: what.into() };
        assert!(!events.start());
        events.outbox.push_fault(fault("a"));
        assert!(events.start());
        events.outbox.push_fault(fault("b"));
        assert!(!events.start(), "one sends");
        assert!(events.take().is_some() && events.take().is_none());
        events.outbox.push_fault(fault("c"));
        assert!(events.start(), "and then the next one");
    }
}
