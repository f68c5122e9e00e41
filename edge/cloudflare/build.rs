//! Says how much memory the worker's Wasm may have.

/// Three quarters of the 128 MB that Cloudflare gives an isolate; the rest is JavaScript's. So a worker that is out of memory breaks
/// by itself before the platform ends it, and is made anew.
const MEMORY_BYTES_MAX: u32 = 96 * 1024 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=--max-memory={MEMORY_BYTES_MAX}");
    }
}
