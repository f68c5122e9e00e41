//! Developer commands: set-up, the local stack, tests, benchmarks.

fn main() {}
