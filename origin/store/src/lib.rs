//! PostgreSQL tables of an origin, one file a table family. The only crate that speaks SQL to them.
//!
//! Everything is in the schema `meridian`, and three roles without superuser's powers use it: `meridian_owner`
//! migrates, `meridian_app` serves the data and control API under forced row-level security ([`Store`], [`Scope`]),
//! `meridian_replicator` applies what other regions wrote ([`apply`]). Text of the database never leaves in an
//! error's message ([`Fault`]).

pub mod apply;
pub mod audit;
pub mod conflict;
pub mod domain;
pub mod event;
pub mod experiment;
pub mod idempotency;
pub mod limits;
pub mod progress;
pub mod purge;
pub mod record;
pub mod release;
pub mod rollup;
pub mod tenant;
pub mod token;

mod collection;
mod fault;
mod pool;
mod schema;
mod taken;

pub use collection::{Collection, Declaration, Merge};
pub use fault::{Fault, Violation};
pub use pool::{Access, Scope, Store};
pub use schema::{Bootstrap, Node, bootstrap, check_ordinal, migrate};
pub use sqlx;
