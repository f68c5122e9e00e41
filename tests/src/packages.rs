//! What cargo says of packages: asked once a test program, however many tests want to know.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

static OWN: LazyLock<Vec<Value>> = LazyLock::new(|| ask(&["--no-deps"]));
static ALL: LazyLock<Vec<Value>> = LazyLock::new(|| ask(&[]));

/// The workspace's own packages, as `cargo metadata` describes them.
///
/// # Panics
/// When cargo can't be run or fails.
pub fn own() -> &'static [Value] {
    &OWN
}

/// All packages, those that others publish among them.
///
/// # Panics
/// When cargo can't be run or fails.
pub fn all() -> &'static [Value] {
    &ALL
}

fn ask(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages").clone();
    assert!(!packages.is_empty(), "cargo metadata lists no package");
    packages
}
