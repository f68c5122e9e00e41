//! Every limit of this crate, with its unit.

/// How far ahead of the local wall clock a remote stamp may be before its change is set aside, in milliseconds.
///
/// One region with a clock in the future would otherwise win every conflict, and drag every other region's
/// clock along. Five minutes is far beyond any healthy clock's error.
pub const STAMP_AHEAD_MS_MAX: u64 = 5 * 60 * 1000;

/// Sources that one cursor can hold.
pub const CURSOR_SOURCES_MAX: usize = 64;

/// Elements, added and removed together, that one set field can hold.
pub const SET_ELEMENTS_MAX: usize = 4096;

/// Keys, present and removed together, that one map field can hold.
pub const MAP_KEYS_MAX: usize = 4096;
