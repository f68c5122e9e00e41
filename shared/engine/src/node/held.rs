//! Something that is loaded, of which the last good one stays in force.

use std::sync::Arc;

use crate::limits::{LOAD_RETRY_MS, LOAD_WAIT_MS};

/// Something that is loaded by its target, and what is known about newer releases of it.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) current: Option<Arc<T>>,
    /// Newest sequence that an origin told of.
    pub(super) newest: u64,
    /// Being loaded since.
    pub(super) loading_ms: Option<u64>,
    /// Not tried again before.
    retry_ms: u64,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { current: None, newest: 0, loading_ms: None, retry_ms: 0 }
    }
}

impl<T> Held<T> {
    /// Whether to load it now. With nothing at hand every request that needs it asks; otherwise one at a time does.
    pub(super) fn wants(&self, sequence: Option<u64>, now_ms: u64) -> bool {
        match sequence {
            None => now_ms >= self.retry_ms,
            Some(have) => {
                let loading =
                    self.loading_ms.is_some_and(|since| now_ms < since.saturating_add(LOAD_WAIT_MS));
                self.newest > have && !loading && now_ms >= self.retry_ms
            }
        }
    }

    /// Takes a release, unless it is older than what is there.
    ///
    /// # Errors
    /// What was found in place of what was expected.
    pub(super) fn take(
        &mut self,
        new: Arc<T>,
        sequence: u64,
        have: Option<u64>,
        now_ms: u64,
    ) -> Result<(), String> {
        self.loading_ms = None;
        self.newest = self.newest.max(sequence);
        match have {
            Some(have) if sequence < have => {
                self.retry_ms = now_ms.saturating_add(LOAD_RETRY_MS);
                Err(format!("found sequence {sequence}, expected {have} or newer"))
            }
            Some(have) if sequence == have => {
                // What was promised is not there yet.
                self.retry_ms = now_ms.saturating_add(LOAD_RETRY_MS);
                Ok(())
            }
            _ => {
                self.retry_ms = 0;
                self.current = Some(new);
                Ok(())
            }
        }
    }

    /// It could not be had, or was not acceptable.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.loading_ms = None;
        self.retry_ms = now_ms.saturating_add(LOAD_RETRY_MS);
    }
}
