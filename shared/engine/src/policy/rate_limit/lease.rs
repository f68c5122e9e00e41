//! The edge's side of a limit of scope `region` or `global`: leases held, spent and asked for.

use crate::clock::Until;
use crate::limits::{LEASE_DENIED_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, LEASE_UNITS_MAX};
use crate::step::Lease;

/// What a limit was when a lease of it was granted; a lease of another shape is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) quota: u32,
    pub(super) window_ms: u64,
    pub(super) burst: u32,
}

/// What an edge holds of one key of a limit.
#[derive(Debug, Default)]
pub(super) struct Held {
    shape: Shape,
    /// Units that may be spent here until they expire.
    units: u32,
    expires: Until,
    /// Units asked for last.
    asked: u32,
    /// Units that the authority had left when last heard of.
    left: u32,
    /// The authority said no: until then it is not asked again, and until `wait_until_ms` it will say so.
    quiet_until: Until,
    wait_until_ms: u64,
}

/// What is to be done about a request's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There are units enough.
    Enough,
    /// The authority has said no just now: so long until it will say yes.
    Refused { wait_ms: u64 },
    /// Ask for so many.
    Ask { amount: u32 },
}

impl Held {
    /// Follows the limit and the clock: a limit of another shape and lapsed units are gone.
    pub(super) fn settle(&mut self, shape: Shape, now_ms: u64) {
        if self.shape != shape {
            *self = Self { shape, ..Self::default() };
        }
        if !self.expires.is_ahead(now_ms) && self.units > 0 {
            // What lapsed was not needed: ask for less next time.
            self.asked = self.asked.saturating_sub(self.units);
            self.units = 0;
        }
    }

    /// How it stands. Settle first.
    pub(super) fn standing(&self, cost: u32, now_ms: u64) -> Standing {
        if self.units >= cost {
            return Standing::Enough;
        }
        if self.quiet_until.is_ahead(now_ms) {
            return Standing::Refused { wait_ms: self.wait_until_ms.saturating_sub(now_ms).max(1) };
        }
        // Twice what was not enough, so that a busy key asks ever more rarely; the authority bounds it by what is left.
        Standing::Ask { amount: self.asked.saturating_mul(2).clamp(cost, LEASE_UNITS_MAX.max(cost)) }
    }

    /// Takes what the authority granted, `cost` units of which are the asking request's own: whether it got them.
    pub(super) fn granted(&mut self, lease: Lease, amount: u32, cost: u32, now_ms: u64) -> bool {
        self.asked = amount;
        self.left = lease.remaining;
        // What an authority grants beyond what was asked for is its mistake, not ours to spend.
        let granted = lease.granted.min(amount.max(cost));
        let Some(rest) = granted.checked_sub(cost) else {
            self.asked = 0;
            self.quiet_until = Until::after(now_ms, lease.reset_ms.clamp(1, LEASE_DENIED_MS_MAX));
            self.wait_until_ms = now_ms.saturating_add(lease.reset_ms.max(1));
            return false;
        };
        self.units = self.units.saturating_add(rest);
        let life_ms = lease.expires_ms.saturating_sub(now_ms).clamp(LEASE_MS_MIN, LEASE_MS_MAX);
        self.expires = Until::after(now_ms, life_ms);
        self.quiet_until = Until::default();
        true
    }

    /// Takes back units that a request had and did not use.
    pub(super) fn give_back(&mut self, cost: u32) {
        self.units = self.units.saturating_add(cost);
    }

    /// Spends. Only after [`Standing::Enough`].
    pub(super) fn spend(&mut self, cost: u32) {
        self.units = self.units.saturating_sub(cost);
    }

    /// What would be lost with it: the units that may still be spent here.
    pub(super) fn worth(&self) -> u64 {
        self.units.into()
    }

    /// Units left, as far as is known here.
    pub(super) fn remaining(&self) -> u32 {
        self.units.saturating_add(self.left).min(self.shape.burst)
    }

    /// How long until nothing is owed any more, as far as is known here.
    pub(super) fn whole_ms(&self) -> u64 {
        let owed = u128::from(self.shape.burst.saturating_sub(self.remaining()));
        let ms = (owed * u128::from(self.shape.window_ms)).div_ceil(u128::from(self.shape.quota.max(1)));
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}
