//! `cargo xtask check`: format, lints, licences and hygiene.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::artefacts;
use crate::licence;
use crate::paths;
use crate::progress::say;
use crate::run::run;
use crate::setup::wasm;

/// A check and its name.
type Named = (&'static str, fn() -> Result<()>);

/// Arguments of `cargo xtask check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Run only checks whose name contains one of these.
    filter: Vec<String>,
}

impl Check {
    /// Runs all checks, and names all that fail.
    ///
    /// # Errors
    /// When one fails.
    pub fn run(&self) -> Result<()> {
        say("Checking");
        let checks: [Named; 8] = [
            ("lock file", lock_file),
            ("format", format),
            ("lints", lints),
            ("lints of the Spin host", lints_of_spin_host),
            ("lints for Wasm", lints_for_wasm),
            ("licences and duplicates", licences),
            ("advisories", advisories),
            ("hygiene", hygiene),
        ];
        let mut failed = Vec::new();
        for (name, check) in checks {
            if !self.filter.is_empty() && !self.filter.iter().any(|part| name.contains(part.as_str())) {
                continue;
            }
            if let Err(error) = check() {
                say(&format!("  ✗ {name}: {error:#}"));
                failed.push(name);
            }
        }
        if !failed.is_empty() {
            bail!("these checks failed: {}", failed.join(", "));
        }
        println!("all checks passed");
        Ok(())
    }
}

fn lock_file() -> Result<()> {
    run("Cargo.lock is up to date", paths::cargo().args(["metadata", "--locked", "--format-version=1"]))?;
    Ok(())
}

fn format() -> Result<()> {
    run("cargo fmt --check", paths::cargo().args(["fmt", "--all", "--check"]))?;
    Ok(())
}

fn lints() -> Result<()> {
    let mut clippy = paths::cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "meridian-spin-host", "--all-targets"]);
    clippy.args(["--features", "meridian-tests/stack", "--", "--deny", "warnings"]);
    run("cargo clippy", &mut clippy)?;
    Ok(())
}

fn lints_of_spin_host() -> Result<()> {
    let mut clippy = paths::cargo();
    clippy.args([
        "clippy",
        "--profile",
        "stack",
        "--package",
        "meridian-spin-host",
        "--all-targets",
        "--target-dir",
    ]);
    clippy.arg(artefacts::spin_host_target()?).args(["--", "--deny", "warnings"]);
    run("cargo clippy of meridian-spin-host", &mut clippy)?;
    Ok(())
}

/// Half of each edge only exists when compiled for Wasm.
fn lints_for_wasm() -> Result<()> {
    for (package, target) in
        [("meridian-edge-cloudflare", wasm::UNKNOWN), ("meridian-edge-spin", wasm::WASIP2)]
    {
        let mut clippy = wasm::toolchain(target)?.cargo();
        clippy.args(["clippy", "--package", package, "--target", target, "--", "--deny", "warnings"]);
        run(&format!("cargo clippy of {package} for {target}"), &mut clippy)?;
    }
    Ok(())
}

/// Every dependency's licence is one that `deny.toml` allows; versions that are there twice are named.
fn licences() -> Result<()> {
    let path = paths::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let policy: toml::Table = text.parse().context("in deny.toml")?;
    let allowed =
        policy.get("licenses").and_then(|licences| licences.get("allow")).and_then(toml::Value::as_array);
    let allowed = allowed.context("deny.toml: no licenses.allow")?;
    let allowed: BTreeSet<&str> = allowed.iter().filter_map(toml::Value::as_str).collect();
    let metadata = paths::metadata(&["--locked"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut refused = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        versions.entry(field("name")).or_default().insert(field("version"));
        if !licence::allows(field("license"), &allowed) {
            refused.push(format!("{} {}: {:?}", field("name"), field("version"), field("license")));
        }
    }
    let twice: Vec<String> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} {}", versions.iter().copied().collect::<Vec<_>>().join("/")))
        .collect();
    if !twice.is_empty() {
        say(&format!("  · {} crates in more than one version: {}", twice.len(), twice.join(", ")));
    }
    if !refused.is_empty() {
        bail!("licences that deny.toml does not allow:\n{}", refused.join("\n"));
    }
    say(&format!("  ✓ licences of {} packages", packages.len()));
    Ok(())
}

/// Known vulnerabilities are listed in a database that is in no package registry, so it may be out of reach.
fn advisories() -> Result<()> {
    if paths::in_path("cargo-deny").is_none() {
        say(
            "  · advisories NOT checked: that needs cargo-deny and the advisory database, which no registry carries",
        );
        return Ok(());
    }
    run(
        "cargo deny check",
        paths::cargo().args(["deny", "--all-features", "check", "advisories", "bans", "sources"]),
    )?;
    Ok(())
}

/// Nothing that is committed knows this machine: neither its folders nor its package registries.
fn hygiene() -> Result<()> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(paths::root()).output();
    let output = output.context("could not run git")?;
    anyhow::ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let root = paths::root();
    let mut banned = vec![format!("{}/", root.display())];
    banned.extend(std::env::var("HOME").ok().filter(|home| home.len() > 1).map(|home| format!("{home}/")));
    let mut found = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = banned.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{name}:{}: {word}", number + 1));
            }
        }
        if name.ends_with("package-lock.json") && names_a_registry(&text) {
            found.push(format!("{name}: \"resolved\" names a registry"));
        }
    }
    if !found.is_empty() {
        bail!("committed files name this machine:\n{}", found.join("\n"));
    }
    say("  ✓ nothing committed names this machine");
    Ok(())
}

fn names_a_registry(lock: &str) -> bool {
    let lock: Value = serde_json::from_str(lock).unwrap_or_default();
    let packages = lock["packages"].as_object().into_iter().flatten();
    packages.into_iter().any(|(_, package)| package.get("resolved").is_some())
}
