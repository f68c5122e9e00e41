//! Says how much memory the worker's Wasm may have.

/// Bytes that Cloudflare gives an isolate, JavaScript included. A worker that is out of memory breaks by itself, wherever
/// it runs, and is made anew.
const MEMORY_BYTES_MAX: u32 = 128 * 1024 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=--max-memory={MEMORY_BYTES_MAX}");
    }
}
