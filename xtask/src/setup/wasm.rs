//! Rust's standard library for the two Wasm targets.
//!
//! In this order: the active toolchain has it; `rustup target add` brings it; Debian's packages have its source, from
//! which it is built once into a copy of the toolchain in the cache. `MERIDIAN_WASM_STD=rustup|debian` forces a way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache;
use super::debian::PrivateApt;
use crate::limits::RUSTUP_TIMEOUT;
use crate::paths::{self, Rustc};
use crate::progress::say;
use crate::run;

/// The target of the Cloudflare worker.
pub const UNKNOWN: &str = "wasm32-unknown-unknown";
/// The target of the Spin component.
pub const WASIP2: &str = "wasm32-wasip2";

/// Debian suites that may have the source of the active compiler, or wasi-libc with the second WASI.
const SUITES: [&str; 6] =
    ["bookworm-backports", "trixie", "trixie-backports", "trixie-backports-sloppy", "forky", "sid"];

/// A toolchain that can build for a Wasm target.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The folder for `RUSTUP_TOOLCHAIN`, when it is not the active toolchain.
    pub folder: Option<PathBuf>,
}

impl Toolchain {
    /// Makes `command` (a cargo, or a program that runs cargo) use this toolchain.
    pub fn apply(&self, command: &mut Command) {
        let Some(folder) = &self.folder else { return };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(folder.join("bin")).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        command.env("RUSTUP_TOOLCHAIN", folder).env_remove("RUSTC").env_remove("CARGO");
        // Set by `cargo run`; with it the compiler would load the libraries, and so the folders, of the other toolchain.
        command.env_remove("LD_LIBRARY_PATH").env_remove("DYLD_FALLBACK_LIBRARY_PATH");
    }

    /// The cargo of this toolchain.
    pub fn cargo(&self) -> Command {
        let mut command = match &self.folder {
            Some(folder) => {
                let mut command = Command::new(folder.join("bin/cargo"));
                command.current_dir(paths::root());
                command
            }
            None => paths::cargo(),
        };
        self.apply(&mut command);
        command
    }
}

/// A toolchain with the standard library of `target`, brought here if need be.
///
/// # Errors
/// When all ways fail; the error tells each of them.
pub fn toolchain(target: &str) -> Result<Toolchain> {
    let rustc = paths::rustc()?;
    let forced = std::env::var("MERIDIAN_WASM_STD").unwrap_or_default();
    if forced != "debian" {
        if has_std(&rustc.sysroot, target) {
            return Ok(Toolchain { folder: None });
        }
        match rustup(&rustc, target) {
            Ok(()) => return Ok(Toolchain { folder: None }),
            Err(error) if forced == "rustup" => return Err(error),
            Err(error) => say(&format!(
                "  · rustup can't bring {target} here; building it from Debian's source instead\n    ({})",
                error.to_string().lines().next().unwrap_or_default()
            )),
        }
    }
    let folder = debian(&rustc).with_context(|| {
        format!("no standard library for {target}: where its server can be reached, `rustup target add {target}` brings it")
    })?;
    Ok(Toolchain { folder: Some(folder) })
}

fn has_std(sysroot: &Path, target: &str) -> bool {
    let folder = sysroot.join("lib/rustlib").join(target).join("lib");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

fn rustup(rustc: &Rustc, target: &str) -> Result<()> {
    anyhow::ensure!(paths::in_path("rustup").is_some(), "rustup is not installed");
    let mut command = Command::new("rustup");
    command.args(["target", "add", target]).current_dir(paths::root());
    run::run_within(&format!("rustup target add {target}"), &mut command, Some(RUSTUP_TIMEOUT))?;
    anyhow::ensure!(has_std(&rustc.sysroot, target), "rustup added {target} to another toolchain");
    Ok(())
}

/// Builds both standard libraries from Debian's source of the same compiler version, into one copy of the toolchain.
fn debian(rustc: &Rustc) -> Result<PathBuf> {
    cache::piece(&format!("rust-{}-wasm", rustc.version), |part| {
        let work = part.join("work");
        let apt = PrivateApt::new(&work.join("apt"), &SUITES)?;
        let source = unpack_source(&apt, &rustc.version)?;
        copy_toolchain(&rustc.sysroot, part)?;
        let sources = part.join("lib/rustlib/src/rust");
        fs::create_dir_all(&sources)?;
        copy_folder(&source.join("library"), &sources.join("library"))?;
        for target in [UNKNOWN, WASIP2] {
            let output = part.join("lib/rustlib").join(target).join("lib");
            if output.is_dir() {
                fs::remove_dir_all(&output)?;
            }
            fs::create_dir_all(&output)?;
            build_std(part, &work.join("std"), target, &output)?;
            anyhow::ensure!(has_std(part, target), "the build made no libstd for {target}");
        }
        link_objects(&apt, &part.join("lib/rustlib").join(WASIP2).join("lib"))?;
        fs::remove_dir_all(&work).context("could not remove the working folder")
    })
}

fn unpack_source(apt: &PrivateApt, version: &str) -> Result<PathBuf> {
    let versions = apt.versions("rust-src")?;
    let found = versions.iter().find(|found| found.version.split(['+', '-', '~']).next() == Some(version));
    let Some(found) = found else {
        let list: Vec<&str> = versions.iter().map(|found| found.version.as_str()).collect();
        bail!("rustc is {version}, but Debian's rust-src comes in other versions only: {}", list.join(", "));
    };
    let unpacked = apt.unpack("rust-src", &found.version)?;
    Ok(unpacked.join("usr/src").join(format!("rustc-{version}")))
}

fn copy_toolchain(from: &Path, to: &Path) -> Result<()> {
    for part in ["bin", "lib", "libexec"] {
        if from.join(part).is_dir() {
            copy_folder(&from.join(part), &to.join(part))?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let label = format!("copy {} of the toolchain", from.file_name().unwrap_or_default().to_string_lossy());
    run::run(&label, Command::new("cp").arg("-a").arg(from).arg(to))?;
    Ok(())
}

fn build_std(toolchain: &Path, work: &Path, target: &str, output: &Path) -> Result<()> {
    fs::create_dir_all(work.join("src"))?;
    fs::write(work.join("src/lib.rs"), "")?;
    let manifest = "[package]\nname = \"std-for-wasm\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                    [profile.release]\nopt-level = 3\ncodegen-units = 1\ndebug = 0\n";
    fs::write(work.join("Cargo.toml"), manifest)?;
    let mut cargo = Toolchain { folder: Some(toolchain.to_path_buf()) }.cargo();
    cargo
        .args(["build", "--release", "-Zbuild-std=std,panic_abort,proc_macro,test", "--target", target])
        .current_dir(work)
        // The only use of a nightly feature: the library is the compiler's own, of the same version.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("CARGO_TARGET_DIR", work.join("target"));
    run::run(&format!("build Rust's standard library for {target}"), &mut cargo)?;
    for entry in fs::read_dir(work.join("target").join(target).join("release/deps"))? {
        let (name, path) = { entry.map(|entry| (entry.file_name(), entry.path()))? };
        let name = name.to_string_lossy();
        if name.starts_with("lib") && name.ends_with(".rlib") && !name.starts_with("libstd_for_wasm-") {
            fs::copy(&path, output.join(&*name))?;
        }
    }
    Ok(())
}

/// WASI programs are linked with wasi-libc, which rustup's build of the standard library carries along.
fn link_objects(apt: &PrivateApt, output: &Path) -> Result<()> {
    let versions = apt.versions("wasi-libc")?;
    let newest = versions.first().context("Debian has no wasi-libc")?;
    let unpacked = apt.unpack("wasi-libc", &newest.version)?.join("usr/lib").join(WASIP2);
    let to = output.join("self-contained");
    fs::create_dir_all(&to)?;
    for file in ["crt1-command.o", "crt1-reactor.o", "libc.a"] {
        fs::copy(unpacked.join(file), to.join(file))
            .with_context(|| format!("wasi-libc {} has no {file} for {WASIP2}", newest.version))?;
    }
    Ok(())
}
