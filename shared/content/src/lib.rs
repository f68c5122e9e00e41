//! What becomes of a reply's content on its way out, where the host's runtime does not do it: bytes in, bytes out.
//!
//! [`Coder`] applies a content coding (RFC 9110, section 8.4.1), [`Rewriter`] changes HTML as the engine's reply says.
//! Both take a body piece by piece and hold back no more than their limits name. Nothing here decides anything, waits,
//! or reads and writes but memory.
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

mod coder;
mod html;
pub mod limits;
mod minify;

pub use coder::Coder;
pub use html::{InvalidSelector, RewriteFault, Rewriter, check_selector, rewrite_whole};
