//! Something that is loaded, of which the last good one stays in force.

use std::sync::Arc;

use crate::clock::{Since, Until};
use crate::limits::{LOAD_RETRY_MS, LOAD_WAIT_MS};

/// Something that is loaded by its target, and what is known about newer releases of it.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) current: Option<Arc<T>>,
    /// Newest sequence that an origin told of.
    pub(super) newest: u64,
    /// Being loaded since.
    loading: Option<Since>,
    /// Not tried again before.
    retry: Until,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { current: None, newest: 0, loading: None, retry: Until::default() }
    }
}

impl<T> Held<T> {
    /// Whether to load it now. With nothing at hand every request that needs it asks; otherwise one at a time does.
    pub(super) fn wants(&self, sequence: Option<u64>, now_ms: u64) -> bool {
        match sequence {
            None => !self.retry.is_ahead(now_ms),
            Some(have) => {
                let loading = self.loading.is_some_and(|since| since.is_within(LOAD_WAIT_MS, now_ms));
                self.newest > have && !loading && !self.retry.is_ahead(now_ms)
            }
        }
    }

    /// It is being loaded.
    pub(super) fn begin_loading(&mut self, now_ms: u64) {
        self.loading = Some(Since(now_ms));
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
        self.loading = None;
        self.newest = self.newest.max(sequence);
        match have {
            Some(have) if sequence < have => {
                self.retry = Until::after(now_ms, LOAD_RETRY_MS);
                Err(format!("found sequence {sequence}, expected {have} or newer"))
            }
            Some(have) if sequence == have => {
                // What was promised is not there yet.
                self.retry = Until::after(now_ms, LOAD_RETRY_MS);
                Ok(())
            }
            _ => {
                self.retry = Until::default();
                self.current = Some(new);
                Ok(())
            }
        }
    }

    /// It could not be had, or was not acceptable.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.loading = None;
        self.retry = Until::after(now_ms, LOAD_RETRY_MS);
    }
}
