//! Stamps, conflict resolution and cursors: what makes every region end with the same bytes.
//!
//! Several regions take writes to the same rows and exchange them in any order, late, twice, or after a
//! partition. This crate answers, from values alone, what a region does with a change that arrives:
//! [`conflict::decide`]. It never reads a clock, a socket or a table, and never panics.
//!
//! - [`Stamp`]: a row version's place in the total order, a hybrid logical clock and a region.
//! - [`crdt`]: fields that merge instead of winning or losing: counter, set, map.
//! - [`conflict`]: newer, stale, duplicate or concurrent, and what follows from it.
//! - [`Cursor`]: how far each source has been applied; what session tokens carry.
//! - [`Backoff`]: when to try again.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable
)]

pub mod conflict;
pub mod crdt;
pub mod limits;

mod backoff;
mod cursor;
mod stamp;

pub use backoff::Backoff;
pub use cursor::{Cursor, InvalidCursor};
pub use stamp::{Clock, Region, Stamp, TooFarAhead};
