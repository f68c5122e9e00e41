//! What coverage-guided fuzzing runs: one function a target, from bytes to assertions.
//!
//! A target takes what comes from outside (rules, bundles, tokens, heads of requests, whole connections …), hands it to the code that reads it, and
//! asserts what has to hold of the outcome beyond that nothing panics. The program in `libfuzzer/` runs a target under
//! libFuzzer (`cargo xtask fuzz`, with the nightly compiler); `tests/replay.rs` runs the kept inputs of `corpus/` through the same
//! functions with any compiler. Targets read no clock and no random source: an input always does the same.

mod bundles;
mod content;
mod cookies;
mod documents;
mod edge;
mod framing;
mod input;
mod jwt;
mod paths;
mod places;
mod ranges;
mod requests;
mod seeds;
mod tokens;

use std::path::PathBuf;

pub use bundles::bundles;
pub use content::content;
pub use cookies::cookies;
pub use documents::{conditions, documents, networks};
pub use framing::framing;
pub use jwt::jwt;
pub use paths::paths;
pub use places::places;
pub use ranges::ranges;
pub use requests::{headers, requests};
pub use tokens::tokens;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of the function and of its folder in `corpus/`.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made of the repository's own rules, cases and stored files.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 14] = [
    Target { name: "documents", run: documents, seeds: seeds::documents },
    Target { name: "conditions", run: conditions, seeds: seeds::conditions },
    Target { name: "networks", run: networks, seeds: seeds::networks },
    Target { name: "bundles", run: bundles, seeds: seeds::bundles },
    Target { name: "tokens", run: tokens, seeds: seeds::tokens },
    Target { name: "jwt", run: jwt, seeds: seeds::jwt },
    Target { name: "headers", run: headers, seeds: seeds::heads },
    Target { name: "requests", run: requests, seeds: seeds::requests },
    Target { name: "framing", run: framing, seeds: seeds::framing },
    Target { name: "cookies", run: cookies, seeds: seeds::cookies },
    Target { name: "paths", run: paths, seeds: seeds::paths },
    Target { name: "ranges", run: ranges, seeds: seeds::ranges },
    Target { name: "places", run: places, seeds: seeds::places },
    Target { name: "content", run: content, seeds: seeds::content },
];

/// The kept inputs of a target.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}
