//! `cargo xtask`: what a developer of Meridian types.
//!
//! Everything is in the library of the same name, so that the end-to-end tests can start the same stack.

fn main() -> std::process::ExitCode {
    xtask::main()
}
