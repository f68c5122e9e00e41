//! Runs the Spin component of spin.toml where the Spin CLI is not at hand.

fn main() {}
