//! HTTP on both sides of the Spin host: the protocols as they are set up, what is checked of a head before a component sees it,
//! and what ends with its connection.
//!
//! A crate of its own, so that what decides where a message ends can be tested without the runtime of components. It never reads
//! or writes a socket, and keeps no time.

pub mod head;
pub mod hop;
pub mod limits;
mod protocols;

pub use protocols::protocols;
