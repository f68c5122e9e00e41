//! What every edge does alike whatever its host: read its variables, and look for rules.

mod config;
mod search;

pub use config::{Config, InvalidConfig, Origin, PEER_ADDRESS, VARIABLES};
pub use search::{Offer, Search, Turns};
