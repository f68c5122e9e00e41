//! The command line of platform engineers and operators.

fn main() {}
