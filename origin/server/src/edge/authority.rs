//! This region's authority on limits: one count for all edges that ask here. The counting is the engine's; this only
//! keeps it and hands in the time.
//!
//! The counts are in memory. An origin that starts anew grants each key at most one more burst than the limit allows,
//! once. How many keys are counted at once is bounded; what a forgotten one lets pass, [`rate_limit::passed_max`] says.

use std::sync::{Mutex, PoisonError};

use meridian_engine::policy::rate_limit;
use meridian_engine::step::{Lease, Take};

/// The counts of this region.
#[derive(Debug, Default)]
pub struct Authority(Mutex<rate_limit::Authority>);

impl Authority {
    /// Grants what can be granted. Of simultaneous calls each sees what the one before it left.
    pub fn take(&self, take: &Take, now_ms: u64) -> Lease {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(take, now_ms)
    }
}
