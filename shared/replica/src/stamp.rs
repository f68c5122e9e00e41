use std::fmt;

use crate::limits::STAMP_AHEAD_MS_MAX;

/// A region's ordinal: small, unique, and never used again for another region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Region(pub u16);

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const COUNTER_BITS: u32 = 16;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// The version of a row: a hybrid logical clock reading and the region that wrote it.
///
/// The time has 48 bits of milliseconds since the Unix epoch and a 16-bit counter for versions within one
/// millisecond. The order is total: by time, then by region, so two regions never disagree about which of two
/// versions is the higher (Kulkarni et al., "Logical Physical Clocks", 2014, with the region as tie-break).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    time: u64,
    region: Region,
}

impl Stamp {
    /// The stamp below every real one: what a row's first version is based on.
    pub const ZERO: Stamp = Stamp { time: 0, region: Region(0) };

    /// A stamp from its packed time (milliseconds in the upper 48 bits, counter in the lower 16) and region.
    #[must_use]
    pub fn new(time: u64, region: Region) -> Self {
        Self { time, region }
    }

    /// A stamp from wall-clock milliseconds and a counter.
    #[must_use]
    pub fn at(ms: u64, counter: u16, region: Region) -> Self {
        Self { time: (ms << COUNTER_BITS) | u64::from(counter), region }
    }

    /// The packed time: milliseconds in the upper 48 bits, counter in the lower 16.
    #[must_use]
    pub fn time(self) -> u64 {
        self.time
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.time >> COUNTER_BITS
    }

    /// The counter within the millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        (self.time & COUNTER_MASK) as u16
    }

    /// The region that made this version.
    #[must_use]
    pub fn region(self) -> Region {
        self.region
    }

    /// Whether this stamp is further ahead of `now_ms` than a healthy clock can be.
    ///
    /// # Errors
    /// [`TooFarAhead`] when it is: the change must be set aside and an operator told.
    pub fn check_ahead(self, now_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = self.ms().saturating_sub(now_ms);
        if ahead_ms > STAMP_AHEAD_MS_MAX { Err(TooFarAhead { stamp: self, ahead_ms }) } else { Ok(()) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.time, self.region)
    }
}

/// A stamp from the future: its region's clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "stamp {stamp} is {ahead_ms} ms ahead of this region's clock, at most {STAMP_AHEAD_MS_MAX} ms are accepted"
)]
pub struct TooFarAhead {
    /// The stamp.
    pub stamp: Stamp,
    /// How far ahead it is, in milliseconds.
    pub ahead_ms: u64,
}

/// A region's hybrid logical clock, as a value.
///
/// PostgreSQL keeps the real one in a sequence, so that concurrent transactions share it without waiting for
/// each other; this is the same rule for simulation, tests and anything that stamps outside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    last: u64,
    region: Region,
}

impl Clock {
    /// The clock of `region`, having given out nothing yet.
    #[must_use]
    pub fn new(region: Region) -> Self {
        Self { last: 0, region }
    }

    /// The next stamp: never below the wall clock, always above everything given out or observed before.
    #[must_use]
    pub fn tick(&mut self, now_ms: u64) -> Stamp {
        self.last = (now_ms << COUNTER_BITS).max(self.last.saturating_add(1));
        Stamp { time: self.last, region: self.region }
    }

    /// Takes notice of a stamp applied here, so that later local stamps are above it.
    ///
    /// # Errors
    /// [`TooFarAhead`], and the clock stays as it is, when the stamp is quarantined.
    pub fn observe(&mut self, stamp: Stamp, now_ms: u64) -> Result<(), TooFarAhead> {
        stamp.check_ahead(now_ms)?;
        self.last = self.last.max(stamp.time);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packs_and_unpacks() {
        let stamp = Stamp::at(1_790_000_000_000, 7, Region(3));
        assert_eq!((stamp.ms(), stamp.counter(), stamp.region()), (1_790_000_000_000, 7, Region(3)));
        assert_eq!(Stamp::new(stamp.time(), Region(3)), stamp);
    }

    #[test]
    fn region_breaks_ties() {
        assert!(Stamp::at(5, 0, Region(2)) > Stamp::at(5, 0, Region(1)));
        assert!(Stamp::at(5, 1, Region(1)) > Stamp::at(5, 0, Region(2)));
    }

    #[test]
    fn refuses_the_far_future_and_keeps_its_time() {
        let mut clock = Clock::new(Region(1));
        let before = clock.tick(1_000);
        let far = Stamp::at(1_000 + STAMP_AHEAD_MS_MAX + 1, 0, Region(2));
        assert!(clock.observe(far, 1_000).is_err());
        assert_eq!(clock.tick(1_000).time(), before.time() + 1);
        assert!(clock.observe(Stamp::at(1_000 + STAMP_AHEAD_MS_MAX, 9, Region(2)), 1_000).is_ok());
        assert!(clock.tick(1_000) > Stamp::at(1_000 + STAMP_AHEAD_MS_MAX, 9, Region(2)));
    }

    proptest! {
        #[test]
        fn grows_whatever_the_wall_clock_does(walls in prop::collection::vec(0u64..1_000_000, 1..200)) {
            let mut clock = Clock::new(Region(1));
            let mut last = Stamp::ZERO;
            for wall in walls {
                let next = clock.tick(wall);
                prop_assert!(next > last);
                prop_assert!(next.ms() >= wall);
                last = next;
            }
        }
    }
}
