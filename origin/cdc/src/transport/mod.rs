//! How changes travel between origins.

pub(crate) mod direct;
