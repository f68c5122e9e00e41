//! What may happen as often as clients and components like is told seldom, with how often it was.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::limits;

/// Events of one kind that the operator is told of. Those that come within [`limits::TELL_INTERVAL`] after some were told are told
/// with the next one that comes later, so that the last of a burst may be told late, and never where none follows: what was
/// told says that it happens, not how often it did.
#[derive(Default)]
pub struct Seldom(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    /// When some were told last.
    told: Option<Instant>,
    /// How many there were since.
    count: u64,
}

impl Seldom {
    /// Counts one. Where none was told for [`limits::TELL_INTERVAL`], says how many there were since, with this one.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        if untold.told.is_some_and(|told| now.saturating_duration_since(told) < limits::TELL_INTERVAL) {
            return None;
        }
        untold.told = Some(now);
        Some(std::mem::take(&mut untold.count))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_are_told_together() {
        let (events, start) = (Seldom::default(), Instant::now());
        for (after_ms, expect) in [
            (0, Some(1)),
            (0, None),
            (999, None),
            (1_000, Some(3)),
            (1_001, None),
            (5_000, Some(2)),
            // Of two threads that count at once, the one that looked first may come last.
            (4_999, None),
        ] {
            assert_eq!(events.count(start + Duration::from_millis(after_ms)), expect, "after {after_ms} ms");
        }
    }
}
