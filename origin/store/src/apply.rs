//! Applies changes.
