//! The walls of the house, checked: who may depend on whom, what may not stand in the sources.

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use meridian_tests::packages;
use serde_json::Value;

/// Dependencies between the workspace's own crates: an arrow that is not here does not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("meridian-engine", &[]),
    ("meridian-content", &["meridian-engine"]),
    ("meridian-wire", &["meridian-engine", "meridian-content"]),
    ("meridian-replica", &[]),
    ("meridian-edge-cloudflare", &["meridian-engine", "meridian-wire", "meridian-corpus"]),
    ("meridian-edge-spin", &["meridian-content", "meridian-engine", "meridian-wire", "meridian-corpus"]),
    ("meridian-edge-http", &["meridian-engine"]),
    ("meridian-spin-host", &["meridian-edge-http", "meridian-engine"]),
    ("meridian-store", &["meridian-engine", "meridian-wire", "meridian-replica"]),
    ("meridian-cdc", &["meridian-store", "meridian-replica", "meridian-wire"]),
    (
        "meridian-origin",
        &["meridian-store", "meridian-cdc", "meridian-engine", "meridian-wire", "meridian-replica"],
    ),
    ("meridian-cli", &["meridian-engine", "meridian-wire"]),
    ("meridian-corpus", &["meridian-engine", "meridian-wire"]),
    ("meridian-fuzz", &["meridian-content", "meridian-edge-http", "meridian-engine", "meridian-wire"]),
    (
        "meridian-tests",
        &[
            "meridian-cdc",
            "meridian-content",
            "meridian-corpus",
            "meridian-engine",
            "meridian-store",
            "meridian-wire",
        ],
    ),
    ("meridian-test-function", &[]),
    ("meridian-test-semantics", &[]),
    ("xtask", &[]),
];

/// Libraries that belong to one room only.
const ROOMS: &[(&str, &[&str])] = &[
    ("sqlx", &["meridian-store", "meridian-cdc", "meridian-tests"]),
    ("pgwire-replication", &["meridian-cdc"]),
    ("moka", &["meridian-origin"]),
    ("http-cache-semantics", &["meridian-test-semantics"]),
    ("axum", &["meridian-origin"]),
    ("worker", &["meridian-edge-cloudflare"]),
    ("wasm-bindgen", &["meridian-edge-cloudflare"]),
    ("spin-sdk", &["meridian-edge-spin"]),
    ("wasmtime", &["meridian-spin-host"]),
];

/// What the engine and the replica may never reach, however indirectly: clocks, sockets, random sources, hosts.
const IMPURE: &[&str] =
    &["getrandom", "rand", "tokio", "mio", "socket2", "js-sys", "wasm-bindgen", "web-time", "chrono"];

/// Longest source file. Around 500 is what we write; nothing may reach this.
const FILE_LINES_MAX: usize = 700;

#[test]
fn crates_depend_along_the_arrows_only() {
    let own: BTreeSet<String> = packages::own().iter().map(|package| text(package, "name")).collect();
    for package in packages::own() {
        let name = text(package, "name");
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            panic!("{name} has no line in ARROWS");
        };
        for dependency in dependencies(package, false) {
            assert!(
                !own.contains(&dependency) || allowed.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}: the arrows are {allowed:?}"
            );
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    for package in packages::own() {
        let name = text(package, "name");
        for dependency in dependencies(package, true) {
            if let Some((_, rooms)) = ROOMS.iter().find(|(library, _)| *library == dependency) {
                assert!(
                    rooms.contains(&name.as_str()),
                    "{name} uses {dependency}, which belongs to {rooms:?}"
                );
            }
        }
    }
}

#[test]
fn pure_crates_reach_nothing_impure() {
    for pure in ["meridian-engine", "meridian-replica"] {
        let arguments = ["tree", "--locked", "--target", "wasm32-unknown-unknown", "--edges", "normal"];
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .args(["--prefix", "none", "--format", "{p}", "--package", pure])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).expect("crates have ASCII names");
        let reached: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(reached.contains(pure) && reached.len() > 1, "the tree of {pure} is {reached:?}");
        for impure in IMPURE {
            assert!(!reached.contains(impure), "{pure} reaches {impure}");
        }
    }
}

#[test]
fn versions_stand_in_one_place() {
    for manifest in files(&["Cargo.toml"]).iter().filter(|path| path.parent() != Some(root().as_path())) {
        let content = read(manifest);
        // What the workspace leaves out can't take versions from it.
        if content.lines().any(|line| line == "[workspace]") {
            continue;
        }
        let mut in_dependencies = false;
        for (number, line) in content.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') {
                assert!(
                    line.contains("workspace = true"),
                    "{}:{}: a version belongs into [workspace.dependencies]: {line}",
                    manifest.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["TO", "FIX", "X"].map(|start| match start {
        "TO" => "TO".to_owned() + "DO",
        "FIX" => "FIX".to_owned() + "ME",
        _ => "X".repeat(3),
    });
    let attribute = format!("#[{}", "ignore");
    for file in files(&[".rs", ".sql", ".js", ".toml", ".yaml", ".sh"]) {
        for (number, line) in read(&file).lines().enumerate() {
            let left =
                words.iter().any(|word| line.split(|c: char| !c.is_alphanumeric()).any(|have| have == word));
            assert!(!left && !line.contains(&attribute), "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = files(&[".rs", ".js"])
        .iter()
        .map(|file| (read(file).lines().count(), file))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, file)| format!("{} has {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn no_place_of_one_machine_is_named() {
    let hosts = [
        format!("{}.crates.io", "static"),
        format!("registry.{}", "npmjs.org"),
        format!("deb.{}", "debian.org"),
    ];
    for file in files(&[".rs", ".sql", ".js", ".toml", ".yaml", ".md", ".json", ".sh", "run"]) {
        if file.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let content = read(&file);
        for host in &hosts {
            assert!(!content.contains(host), "{} names {host}", file.display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is inside the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files that git knows or would add, by the ends of their names.
fn files(ends: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    let listing = String::from_utf8(output.stdout).expect("our file names are UTF-8");
    let files: Vec<PathBuf> = listing
        .lines()
        .filter(|name| ends.iter().any(|end| name.ends_with(end)))
        .map(|name| root().join(name))
        .filter(|path| path.exists())
        .collect();
    assert!(!files.is_empty(), "no file ends with any of {ends:?}");
    files
}

fn dependencies(package: &Value, with_dev: bool) -> Vec<String> {
    package["dependencies"]
        .as_array()
        .expect("a package lists dependencies")
        .iter()
        .filter(|dependency| with_dev || dependency["kind"] != "dev")
        .map(|dependency| text(dependency, "name"))
        .collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
