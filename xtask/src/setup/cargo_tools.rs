//! Tools that cargo builds: `wasm-bindgen` and `worker-build`, each at the version that the workspace pins, and `cargo-fuzz`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{cache, debian};
use crate::{paths, run};

/// A program that `cargo install` brings.
struct Tool {
    package: &'static str,
    binary: &'static str,
    version: &'static str,
    arguments: &'static [&'static str],
}

/// Must be the version of the `wasm-bindgen` crate in the workspace: its output format changes with each release.
const WASM_BINDGEN: Tool = Tool {
    package: "wasm-bindgen-cli",
    binary: "wasm-bindgen",
    version: "0.2.130",
    arguments: &["--no-default-features", "--bin", "wasm-bindgen"],
};

/// Must be the version of the `worker` crate in the workspace.
const WORKER_BUILD: Tool =
    Tool { package: "worker-build", binary: "worker-build", version: "0.8.7", arguments: &["--locked"] };

const CARGO_FUZZ: Tool =
    Tool { package: "cargo-fuzz", binary: "cargo-fuzz", version: "0.13.2", arguments: &["--locked"] };

/// The `wasm-bindgen` program.
///
/// # Errors
/// When it is missing and can't be built.
pub fn wasm_bindgen() -> Result<PathBuf> {
    WASM_BINDGEN.path()
}

/// The `worker-build` program.
///
/// # Errors
/// When it is missing and can't be built.
pub fn worker_build() -> Result<PathBuf> {
    if cfg!(target_os = "linux") && WORKER_BUILD.found()?.is_none() {
        // It downloads tools by itself where it is not told of any, over the system's OpenSSL.
        debian::need_debian(&["pkg-config", "libssl-dev"])?;
    }
    WORKER_BUILD.path()
}

/// The `cargo-fuzz` program.
///
/// # Errors
/// When it is missing and can't be built.
pub fn cargo_fuzz() -> Result<PathBuf> {
    CARGO_FUZZ.path()
}

impl Tool {
    fn path(&self) -> Result<PathBuf> {
        if let Some(found) = self.found()? {
            return Ok(found);
        }
        let folder = cache::piece(&self.piece(), |part| {
            let mut install = paths::cargo();
            install
                .args(["install", "--root"])
                .arg(part)
                .arg("--target-dir")
                .arg(part.join("target"))
                .arg(format!("{}@{}", self.package, self.version))
                .args(self.arguments)
                // They work for seconds, and would take minutes longer to build as fast programs.
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
            run::run(&format!("cargo install {} {}", self.package, self.version), &mut install)?;
            std::fs::remove_dir_all(part.join("target")).context("could not remove the tool's build output")
        })?;
        Ok(folder.join("bin").join(self.binary))
    }

    fn found(&self) -> Result<Option<PathBuf>> {
        let cached = cache::find(&self.piece())?.map(|folder| folder.join("bin").join(self.binary));
        Ok(cached.or_else(|| self.installed()))
    }

    fn piece(&self) -> String {
        format!("{}-{}", self.binary, self.version)
    }

    /// The program in `PATH`, when it is of the right version.
    fn installed(&self) -> Option<PathBuf> {
        let program = paths::in_path(self.binary)?;
        let output = Command::new(&program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().any(|word| word == self.version).then_some(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The programs only understand what the crates of the same version make.
    #[test]
    fn versions_are_those_of_the_workspace() {
        let manifest = std::fs::read_to_string(paths::root().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = &manifest["workspace"]["dependencies"];
        assert_eq!(dependencies["wasm-bindgen"].as_str().unwrap(), format!("={}", WASM_BINDGEN.version));
        assert_eq!(dependencies["worker"].as_str().unwrap(), format!("={}", WORKER_BUILD.version));
    }
}
