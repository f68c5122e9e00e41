//! The pure rule engine: [`Facts`](facts::Facts) of one request go in, bounded [`Step`](step::Step)s come out, and
//! the last of them is a reply with its [`Decision`](decision::Decision).
//!
//! Nothing here reads a clock, a random source, a socket or a file: time, randomness and everything that has to be
//! looked up are arguments. The same code therefore answers byte for byte alike on Cloudflare, in a Spin component and
//! natively. What an edge remembers from one request to the next is a value too, the [`Node`](node::Node), which the
//! host keeps and hands in.
//!
//! This crate never panics, never blocks and never forwards a request that its pipeline has not permitted: only it can
//! make the [`Permit`](step::Permit) that a [`Forward`](step::Forward) carries.
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

pub mod bounded;
mod clock;
pub mod compiled;
pub mod decision;
pub mod destination;
pub mod exchange;
pub mod explanation;
pub mod expr;
pub mod facts;
pub mod fair;
#[cfg(test)]
mod fixtures;
pub mod headers;
pub mod limits;
pub mod lint;
pub mod node;
pub mod policy;
pub mod problem;
pub mod purge;
pub mod refusal;
pub mod ruleset;
pub mod secret;
pub mod step;
pub mod trace;
mod words;
