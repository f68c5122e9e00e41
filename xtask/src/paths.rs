//! Where things are: the project, its build output, the cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The project's root folder.
pub fn root() -> PathBuf {
    let crate_folder =
        env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).filter(|folder| folder.join("npm").is_dir());
    let crate_folder = crate_folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    crate_folder.parent().map_or(crate_folder.clone(), Path::to_path_buf)
}

/// The folder of everything that is fetched or built once: `$MERIDIAN_CACHE`, else `$XDG_CACHE_HOME/meridian`,
/// else `~/.cache/meridian`. It is outside the project, so that every clone shares it.
///
/// # Errors
/// When none of the three variables (`HOME` for the last) is set.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MERIDIAN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("meridian")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/meridian")))
        .context("no place for the cache: set MERIDIAN_CACHE, XDG_CACHE_HOME or HOME")
}

/// Cargo's target folder of this project, as cargo sees it (settings and environment included).
///
/// # Errors
/// When `cargo metadata` fails.
pub fn target() -> Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(folder))
}

/// What `cargo metadata` says about the workspace.
///
/// # Errors
/// When cargo fails or prints something that is not JSON.
pub fn metadata(arguments: &[&str]) -> Result<serde_json::Value> {
    let output = cargo()
        .args(["metadata", "--format-version=1"])
        .args(arguments)
        .output()
        .context("could not run cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")
}

/// The cargo that started this program, in the project's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    forget_outer_cargo(&mut command);
    command
}

/// Takes from `command` what the outer `cargo run` told this program about itself: an inner cargo would take it for
/// its own, and the library path would mix two toolchains.
pub fn forget_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let about_us = text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_");
        if about_us || ["CARGO", "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"].contains(&text) {
            command.env_remove(&name);
        }
    }
}

/// The compiler that builds the project: `1.95.0` and its folder.
#[derive(Clone, Debug)]
pub struct Rustc {
    /// Version, such as `1.95.0`.
    pub version: String,
    /// The host's target triple.
    pub host: String,
    /// Root of the toolchain.
    pub sysroot: PathBuf,
}

/// Asks the compiler that is active in the project for its version and folder.
///
/// # Errors
/// When `rustc` can't be run or says something unknown.
pub fn rustc() -> Result<Rustc> {
    let ask = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("rustc")
            .args(arguments)
            .current_dir(root())
            .output()
            .context("could not run rustc")?;
        anyhow::ensure!(
            output.status.success(),
            "rustc {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    let verbose = ask(&["-vV"])?;
    let line = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    Ok(Rustc {
        version: line("release: ").context("rustc -vV names no release")?,
        host: line("host: ").context("rustc -vV names no host")?,
        sysroot: PathBuf::from(ask(&["--print", "sysroot"])?.trim()),
    })
}

/// The first twelve hexadecimal digits of SHA-256: a name for a content.
pub fn short_hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The full path of a program in `PATH`, if it is there.
pub fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask/npm/tools/package.json").is_file());
    }

    #[test]
    fn a_short_hash_has_twelve_digits_and_depends_on_every_part() {
        assert_eq!(short_hash(&[b""]), "e3b0c44298fc");
        assert_ne!(short_hash(&[b"a", b"b"]), short_hash(&[b"a", b"c"]));
    }
}
