//! The policies of the pipeline, one file each.

pub mod cache;
pub mod experiment;
pub mod jwt;
pub mod personal;
pub mod rate_limit;
pub mod request;
pub mod route;
pub mod sampling;
pub mod security;
pub mod steering;
pub mod transform;
