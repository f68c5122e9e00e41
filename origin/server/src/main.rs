//! The regional origin service.

fn main() {}
