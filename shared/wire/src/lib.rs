//! The serialised shapes that Meridian's parts exchange: rule documents, signed bundles, the signed context, the
//! session token, the edge API and replicated changes.
//!
//! Every shape is read here once, with limits, into values that are right by construction; `meridian-engine` decides
//! by them and knows nothing of how they were written. This crate reads no clock and no random source, opens nothing,
//! and never panics on any input. What it shows of a secret, in `Debug` or an error, is at most the id of the key.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable
)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(feature = "documents")]
pub mod authored;
pub mod bundle;
pub mod change;
pub mod context;
pub mod document;
pub mod edge;
pub mod encoding;
pub mod event;
pub mod keyring;
pub mod lease;
pub mod limits;
#[cfg(feature = "place")]
pub mod place;
pub mod problem;
pub mod session;
pub mod signature;
pub mod sync;
