use std::time::Duration;

use meridian_replica::Cursor;
use tokio::sync::watch;

/// How far each source has been applied in this region, as it changes.
#[derive(Debug)]
pub struct Progress {
    own: u16,
    cursor: watch::Sender<Cursor>,
}

/// This region has not yet applied what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("region {ordinal}'s changes have not arrived yet")]
pub struct Behind {
    /// The ordinal of the first source that is behind.
    pub ordinal: u16,
}

impl Progress {
    pub(crate) fn new(own: u16, cursor: Cursor) -> Self {
        Self { own, cursor: watch::Sender::new(cursor) }
    }

    /// The positions applied, by source; for this region itself, the own commits that the purge journal has.
    #[must_use]
    pub fn vector(&self) -> Cursor {
        self.cursor.borrow().clone()
    }

    /// Waits until everything in `wanted` is applied here. This region's own commits always are.
    ///
    /// # Errors
    /// [`Behind`] when it is not by then.
    pub async fn wait_until(&self, wanted: &Cursor, timeout: Duration) -> Result<(), Behind> {
        let mut others = wanted.clone();
        others.forget(self.own);
        let mut cursor = self.cursor.subscribe();
        let wait = tokio::time::timeout(timeout, cursor.wait_for(|cursor| cursor.covers(&others))).await;
        if matches!(wait, Ok(Ok(_))) {
            return Ok(());
        }
        match self.cursor.borrow().first_behind(&others) {
            None => Ok(()),
            Some(ordinal) => Err(Behind { ordinal }),
        }
    }

    /// Moves a source forward.
    pub(crate) fn advance(&self, source: u16, position: u64) {
        self.cursor.send_if_modified(|cursor| {
            let moved = cursor.get(source) < position;
            cursor.advance(source, position);
            moved
        });
    }

    /// Sets a source after its positions started anew.
    pub(crate) fn reset(&self, source: u16, position: u64) {
        self.cursor.send_modify(|cursor| {
            cursor.forget(source);
            cursor.advance(source, position);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_others_and_never_for_itself() {
        let progress = Progress::new(1, Cursor::new());
        let wanted: Cursor = [(1, 900), (2, 50)].into_iter().collect();
        let short = Duration::from_millis(5);
        assert_eq!(progress.wait_until(&wanted, short).await, Err(Behind { ordinal: 2 }));
        progress.advance(2, 49);
        assert_eq!(progress.wait_until(&wanted, short).await, Err(Behind { ordinal: 2 }));
        let (waited, ()) = tokio::join!(progress.wait_until(&wanted, Duration::from_secs(5)), async {
            progress.advance(2, 50);
        });
        assert_eq!(waited, Ok(()));
        progress.reset(2, 10);
        assert_eq!(progress.vector().get(2), 10);
    }
}
