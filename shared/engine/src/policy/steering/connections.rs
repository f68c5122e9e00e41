//! Connections that are in use: as many of a tenant to a service at once as its rule allows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::clock::Until;
use crate::limits::CONNECTION_MS_MAX;

/// A connection in use, counted until it is dropped. A host that loses sight of one, as where a client went away and
/// nothing runs any more for it, takes it from the others for a while only: it lapses.
#[derive(Debug)]
pub struct Connection {
    /// When it lapses, in milliseconds since the Unix epoch.
    until_ms: Arc<AtomicU64>,
}

impl Connection {
    /// The head of the response is there; its body may take longer than the attempt was to.
    pub fn answered(&self, now_ms: u64) {
        self.until_ms.store(now_ms.saturating_add(CONNECTION_MS_MAX), Ordering::Relaxed);
    }
}

/// The connections of one tenant to one service.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Weak<AtomicU64>>);

impl Connections {
    /// One more, for `ms` at first, where fewer than `max` are in use.
    pub(super) fn take(&mut self, max: u32, ms: u32, now_ms: u64) -> Option<Connection> {
        self.0.retain(|used| used.upgrade().is_some_and(|until_ms| is_ahead(&until_ms, now_ms)));
        if self.0.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return None;
        }
        let until_ms = Arc::new(AtomicU64::new(now_ms.saturating_add(ms.into())));
        self.0.push(Arc::downgrade(&until_ms));
        Some(Connection { until_ms })
    }
}

/// Whether a connection has not lapsed. None lasts for longer than [`CONNECTION_MS_MAX`].
fn is_ahead(until_ms: &AtomicU64, now_ms: u64) -> bool {
    Until::at(until_ms.load(Ordering::Relaxed), CONNECTION_MS_MAX).is_ahead(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_in_use_than_may_be() {
        let mut connections = Connections::default();
        let first = connections.take(2, 100, 1_000);
        let second = connections.take(2, 100, 1_000);
        assert!(first.is_some() && second.is_some());
        assert!(connections.take(2, 100, 1_000).is_none());
        drop(first);
        let third = connections.take(2, 100, 1_000);
        assert!(third.is_some());
        assert!(connections.take(2, 100, 1_000).is_none());
    }

    #[test]
    fn one_that_nobody_ends_lapses() {
        let mut connections = Connections::default();
        let lost = connections.take(1, 100, 1_000);
        assert!(connections.take(1, 100, 1_099).is_none());
        assert!(connections.take(1, 100, 1_100).is_some());
        drop(lost);
        let answered = connections.take(1, 100, 1_100).unwrap();
        answered.answered(1_150);
        assert!(connections.take(1, 100, 1_149 + CONNECTION_MS_MAX).is_none());
        assert!(connections.take(1, 100, 1_150 + CONNECTION_MS_MAX).is_some());
    }

    #[test]
    fn a_clock_set_back_ends_what_was_in_use() {
        let mut connections = Connections::default();
        let before = connections.take(1, 100, 10_000_000);
        assert!(connections.take(1, 100, 10_000).is_some());
        drop(before);
    }
}
