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

/// How long units of a lease may be spent, from when they were asked for.
pub(super) fn lease_ms(window_ms: u64) -> u64 {
    (window_ms / 10).clamp(LEASE_MS_MIN, LEASE_MS_MAX)
}

/// A question to the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Units asked for.
    pub(super) amount: u32,
    /// When, by the edge's own clock.
    pub(super) asked_ms: u64,
}

/// Units that may be spent here until they lapse.
#[derive(Clone, Copy, Debug, Default)]
struct Lot {
    units: u32,
    until: Until,
}

impl Lot {
    /// Both, until the first of them lapses.
    fn and(self, other: Self) -> Self {
        match (self.units, other.units) {
            (0, _) => other,
            (_, 0) => self,
            (units, others) => {
                Self { units: units.saturating_add(others), until: self.until.earlier(other.until) }
            }
        }
    }
}

/// What an edge holds of one key of a limit. No unit outlives its own lease: what is left of earlier ones is kept apart from
/// the newest, and lapses with the first of them.
#[derive(Debug, Default)]
pub(super) struct Held {
    shape: Shape,
    older: Lot,
    newest: Lot,
    /// Units asked for last.
    asked: u32,
    /// Units that the authority had left when last heard of.
    left: u32,
    /// When that was, and how long until it would have more.
    more: Option<(u64, u64)>,
    /// The authority said no: until then it is not asked again for more than it has left, and until `wait_until_ms` it will
    /// say so.
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
        for lot in [&mut self.older, &mut self.newest] {
            if !lot.until.is_ahead(now_ms) {
                // What lapsed was not needed: ask for less next time.
                self.asked = self.asked.saturating_sub(lot.units);
                lot.units = 0;
            }
        }
    }

    fn units(&self) -> u32 {
        self.older.units.saturating_add(self.newest.units)
    }

    /// How it stands. Settle first.
    pub(super) fn standing(&self, cost: u32, now_ms: u64) -> Standing {
        if self.units() >= cost {
            return Standing::Enough;
        }
        // What it said no to says nothing of a request that costs no more than it has left.
        if cost > self.left && self.quiet_until.is_ahead(now_ms) {
            return Standing::Refused { wait_ms: self.wait_until_ms.saturating_sub(now_ms).max(1) };
        }
        // Twice what was not enough, so that a busy key asks ever more rarely; the authority bounds it by what is left.
        Standing::Ask { amount: self.asked.saturating_mul(2).clamp(cost, LEASE_UNITS_MAX.max(cost)) }
    }

    /// Takes what the authority granted, `cost` units of which are the asking request's own: until when it may spend them,
    /// or `None` where it did not get them. A lease's life counts from the question, which came before the units were counted:
    /// so nothing is spent later than [`lease_ms`] after that, however long the answer took and whatever clock the authority has.
    pub(super) fn granted(
        &mut self,
        lease: Lease,
        question: Question,
        cost: u32,
        now_ms: u64,
    ) -> Option<Until> {
        let Question { amount, asked_ms } = question;
        self.asked = amount;
        self.left = lease.remaining;
        self.more = Some((now_ms, lease.reset_ms));
        // What an authority grants beyond what was asked for is its mistake, not ours to spend.
        let granted = lease.granted.min(amount.max(cost));
        let Some(rest) = granted.checked_sub(cost) else {
            self.asked = 0;
            // An authority of before only says one of the two.
            let wait_ms = lease.wait_ms.max(lease.reset_ms).max(1);
            self.quiet_until = Until::after(now_ms, wait_ms.min(LEASE_DENIED_MS_MAX));
            self.wait_until_ms = now_ms.saturating_add(wait_ms);
            return None;
        };
        let life_ms = lease.expires_ms.saturating_sub(asked_ms);
        let until = Until::after(asked_ms, life_ms.clamp(LEASE_MS_MIN, lease_ms(self.shape.window_ms)));
        self.add(rest, until);
        self.quiet_until = Until::default();
        Some(until)
    }

    /// Takes back units that a request had until then and did not use.
    pub(super) fn give_back(&mut self, cost: u32, until: Until) {
        self.add(cost, until);
    }

    fn add(&mut self, units: u32, until: Until) {
        if self.newest.until != until {
            self.older = self.older.and(self.newest);
            self.newest = Lot { units: 0, until };
        }
        self.newest.units = self.newest.units.saturating_add(units);
    }

    /// Spends, what lapses first before the rest. Only after [`Standing::Enough`].
    pub(super) fn spend(&mut self, cost: u32) {
        let of_older = cost.min(self.older.units);
        self.older.units = self.older.units.saturating_sub(of_older);
        self.newest.units = self.newest.units.saturating_sub(cost.saturating_sub(of_older));
    }

    /// What would be lost with it: the units that may still be spent here.
    pub(super) fn worth(&self) -> u64 {
        self.units().into()
    }

    /// Units left, as far as is known here.
    pub(super) fn remaining(&self) -> u32 {
        self.units().saturating_add(self.left).min(self.shape.burst)
    }

    /// How long until there are more units than now; `None` where all are there, or the authority was never heard of. It is 0
    /// where that has had more since.
    pub(super) fn more_ms(&self, now_ms: u64) -> Option<u64> {
        let (heard_ms, reset_ms) = self.more.filter(|_| self.remaining() < self.shape.burst)?;
        Some(reset_ms.saturating_sub(now_ms.saturating_sub(heard_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { quota: 600, window_ms: 60_000, burst: 600 };
    const NOW_MS: u64 = 1_800_000_000_000;

    /// Holds what is left of a lease of this size after `cost`, asked for and granted at once.
    fn grant(held: &mut Held, granted: u32, cost: u32, now_ms: u64) -> Until {
        held.settle(SHAPE, now_ms);
        let expires_ms = now_ms + LEASE_MS_MAX;
        let lease = Lease { granted, remaining: 400, reset_ms: 1, wait_ms: 0, expires_ms };
        held.granted(lease, Question { amount: granted, asked_ms: now_ms }, cost, now_ms).unwrap()
    }

    fn left(held: &mut Held, now_ms: u64) -> u32 {
        held.settle(SHAPE, now_ms);
        held.units()
    }

    #[test]
    fn units_lapse_with_their_own_lease_whatever_is_granted_later() {
        let mut held = Held::default();
        grant(&mut held, 100, 1, NOW_MS);
        assert_eq!(held.standing(100, NOW_MS + 4_000), Standing::Ask { amount: 200 });
        grant(&mut held, 110, 100, NOW_MS + 4_000);
        assert_eq!(left(&mut held, NOW_MS + 4_999), 109);
        assert_eq!(left(&mut held, NOW_MS + 5_000), 10);
        grant(&mut held, 13, 11, NOW_MS + 8_000);
        assert_eq!(left(&mut held, NOW_MS + 8_999), 12);
        assert_eq!(left(&mut held, NOW_MS + 9_000), 2);
        assert_eq!(left(&mut held, NOW_MS + 13_000), 0);
    }

    #[test]
    fn more_is_there_when_the_authority_said_and_no_later_by_a_clock_that_is_set_back() {
        let mut held = Held::default();
        held.settle(SHAPE, NOW_MS);
        assert_eq!(held.more_ms(NOW_MS), None, "nothing is known");
        let lease =
            Lease { granted: 10, remaining: 90, reset_ms: 700, wait_ms: 0, expires_ms: NOW_MS + 1_000 };
        held.granted(lease, Question { amount: 10, asked_ms: NOW_MS }, 1, NOW_MS).unwrap();
        let told = [0, 500, 700, 2_000].map(|passed_ms| held.more_ms(NOW_MS + passed_ms));
        assert_eq!(told, [Some(700), Some(200), Some(0), Some(0)]);
        assert_eq!(held.more_ms(NOW_MS - 3_600_000), Some(700));
        held.left = SHAPE.burst;
        assert_eq!(held.more_ms(NOW_MS), None, "all are there");
    }

    #[test]
    fn an_authority_that_only_says_when_to_come_again_is_understood() {
        let mut held = Held::default();
        held.settle(SHAPE, NOW_MS);
        let lease = Lease { granted: 0, remaining: 2, reset_ms: 6_000, wait_ms: 0, expires_ms: NOW_MS };
        assert_eq!(held.granted(lease, Question { amount: 8, asked_ms: NOW_MS }, 8, NOW_MS), None);
        assert_eq!(held.standing(8, NOW_MS), Standing::Refused { wait_ms: 6_000 });
    }

    #[test]
    fn what_a_request_gives_back_renews_nothing() {
        let mut held = Held::default();
        grant(&mut held, 100, 1, NOW_MS);
        let until = grant(&mut held, 100, 100, NOW_MS + 4_000);
        held.give_back(100, until);
        assert_eq!(left(&mut held, NOW_MS + 4_999), 199);
        assert_eq!(left(&mut held, NOW_MS + 5_000), 100);
        assert_eq!(left(&mut held, NOW_MS + 9_000), 0);
    }

    #[test]
    fn what_lapses_first_is_spent_first() {
        let mut held = Held::default();
        grant(&mut held, 10, 1, NOW_MS);
        grant(&mut held, 30, 20, NOW_MS + 1_000);
        held.spend(12);
        assert_eq!(left(&mut held, NOW_MS + 4_999), 7);
        assert_eq!(left(&mut held, NOW_MS + 5_000), 7, "the nine of the first were spent");
    }

    #[test]
    fn a_lease_lives_from_its_question_on_by_the_edges_own_clock() {
        for authority_ms in [NOW_MS - 60_000, NOW_MS, NOW_MS + 60_000] {
            let mut held = Held::default();
            held.settle(SHAPE, NOW_MS);
            let expires_ms = authority_ms + LEASE_MS_MAX;
            let lease = Lease { granted: 10, remaining: 0, reset_ms: 1, wait_ms: 0, expires_ms };
            let question = Question { amount: 10, asked_ms: NOW_MS };
            let until = held.granted(lease, question, 1, NOW_MS + 900).unwrap();
            assert!(until.is_ahead(NOW_MS + 900));
            assert_eq!(left(&mut held, NOW_MS + 999), 9, "{authority_ms}");
            assert_eq!(left(&mut held, NOW_MS + LEASE_MS_MAX), 0, "{authority_ms}");
        }
    }
}
