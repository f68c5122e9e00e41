//! The regional origin service: data API, control API, edge API, the replication endpoint, health and metrics.
//!
//! It checks who asks before anything else: edges by their signed context, operators by their control token, other
//! regions by their proof. It never takes the tenant of a request from anywhere but the signed context, and speaks no
//! SQL: that is the store's.

pub mod cache;
pub mod checks;
pub mod config;
pub mod consistency;
pub mod context;
pub mod control;
pub mod data;
pub mod edge;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod observe;
pub mod problem;
pub mod replication;
pub mod request;
pub mod router;
pub mod serve;
pub mod state;
pub mod traces;
