//! `cargo xtask build`: the programs and Wasm files that the local stack and its tests run.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::paths;
use crate::progress::say;
use crate::run::run;
use crate::setup::{cargo_tools, npm, wasm};
use crate::stack::{self, places::Places};

/// What can be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Part {
    /// The Cloudflare worker: `edge/cloudflare/build/`.
    Cloudflare,
    /// The Spin component, where `spin.toml` expects it, and beside it a place database where there is none.
    Spin,
    /// The host that runs the Spin component.
    SpinHost,
    /// The regional origin.
    Origin,
    /// The `meridian` command.
    Cli,
}

/// Arguments of `cargo xtask build`.
#[derive(Args, Clone, Debug)]
pub struct Build {
    /// What to build; everything if nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

impl Build {
    /// Builds and says where the result is.
    ///
    /// # Errors
    /// When a tool is missing or a build fails.
    pub fn run(&self) -> Result<()> {
        say("Building");
        let parts = if self.parts.is_empty() { Part::value_variants() } else { &self.parts };
        for part in parts {
            println!("{}", obtain(*part, false)?.display());
            if *part == Part::Spin {
                places()?;
            }
        }
        Ok(())
    }
}

/// How the host of the Spin component is compiled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum HostProfile {
    /// Quick to build.
    #[default]
    Stack,
    /// Optimised as a whole: minutes longer to build, for measuring and for production.
    Release,
}

impl HostProfile {
    /// Cargo's name of it, and of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Release => "release",
        }
    }
}

/// What is compiled into a Wasm edge beside what goes to production.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Flavour {
    /// Nothing.
    #[default]
    Plain,
    /// The entrance through which the decision corpus is put to it.
    Corpus,
    /// Requests that break it on purpose.
    Fault,
}

impl Flavour {
    /// The cargo feature, and what it adds to names.
    fn feature(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Plain => None,
            Self::Corpus => Some(("corpus", "corpus")),
            Self::Fault => Some(("fault-injection", "fault")),
        }
    }
}

/// Everything that the local stack runs.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// The `meridian-origin` program.
    pub origin: PathBuf,
    /// The `meridian` program.
    pub cli: PathBuf,
    /// The `meridian-spin-host` program.
    pub spin_host: PathBuf,
    /// The folder with the worker's `index.js`.
    pub cloudflare: PathBuf,
    /// The Spin component.
    pub spin: PathBuf,
}

impl Artefacts {
    /// Builds everything, or with `no_build` takes what an earlier build left.
    ///
    /// # Errors
    /// When a tool is missing, a build fails, or something was never built.
    pub fn obtain(no_build: bool, host: HostProfile) -> Result<Self> {
        Ok(Self {
            origin: obtain(Part::Origin, no_build)?,
            cli: obtain(Part::Cli, no_build)?,
            spin_host: obtain_host(host, no_build)?,
            spin: obtain(Part::Spin, no_build)?,
            cloudflare: obtain(Part::Cloudflare, no_build)?,
        })
    }
}

/// One edge of a flavour, built, or with `no_build` as an earlier build left it; says where it is.
///
/// # Errors
/// As [`obtain`].
pub fn obtain_flavour(part: Part, flavour: Flavour, no_build: bool) -> Result<PathBuf> {
    let path = match (part, no_build) {
        (Part::Cloudflare, false) => cloudflare(flavour)?,
        (Part::Cloudflare, true) => cloudflare_output(flavour),
        (Part::Spin, false) => spin(flavour)?,
        (Part::Spin, true) => spin_output(flavour)?,
        (part, no_build) => return obtain(part, no_build),
    };
    anyhow::ensure!(path.exists(), "{} is not there: run `cargo xtask test` first", path.display());
    Ok(path)
}

/// Builds one part, or with `no_build` takes what an earlier build left; says where it is.
///
/// # Errors
/// When a tool is missing, the build fails, or the part was never built.
pub fn obtain(part: Part, no_build: bool) -> Result<PathBuf> {
    let path = match (part, no_build) {
        (Part::Cloudflare, true) => cloudflare_output(Flavour::Plain),
        (Part::Spin, true) => spin_output(Flavour::Plain)?,
        (Part::SpinHost, _) => return obtain_host(HostProfile::default(), no_build),
        (Part::Origin, true) => paths::target()?.join("stack/meridian-origin"),
        (Part::Cli, true) => paths::target()?.join("stack/meridian"),
        (Part::Cloudflare, false) => cloudflare(Flavour::Plain)?,
        (Part::Spin, false) => spin(Flavour::Plain)?,
        (Part::Origin, false) => native("meridian-origin", "meridian-origin")?,
        (Part::Cli, false) => native("meridian-cli", "meridian")?,
    };
    anyhow::ensure!(path.exists(), "{} is not there: run `cargo xtask build` first", path.display());
    Ok(path)
}

/// The host of the Spin component, built, or with `no_build` as an earlier build left it; says where it is.
///
/// # Errors
/// As [`obtain`].
pub fn obtain_host(profile: HostProfile, no_build: bool) -> Result<PathBuf> {
    let path = spin_host_target()?.join(profile.name()).join("meridian-spin-host");
    if !no_build {
        spin_host(profile)?;
    }
    anyhow::ensure!(path.exists(), "{} is not there: run this without --no-build first", path.display());
    Ok(path)
}

/// Builds a program for this machine, and says where it is.
///
/// # Errors
/// When the build fails.
pub fn native(package: &str, binary: &str) -> Result<PathBuf> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--profile", "stack", "--package", package, "--bin", binary]);
    run(&format!("build {binary}"), &mut cargo)?;
    Ok(paths::target()?.join("stack").join(binary))
}

/// Builds the host of the Spin component, in a target folder of its own in the cache: its engine takes many minutes
/// once, and would otherwise be built again for every clone and with every ordinary `cargo test`.
fn spin_host(profile: HostProfile) -> Result<()> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--profile", profile.name(), "--package", "meridian-spin-host", "--target-dir"]);
    cargo.arg(spin_host_target()?);
    run("build meridian-spin-host (the first time takes minutes)", &mut cargo).map(drop)
}

/// The target folder of everything that needs the Wasm engine, keyed by the engine's and the compiler's version.
///
/// # Errors
/// When the workspace's manifest can't be read or there is no compiler.
pub fn spin_host_target() -> Result<PathBuf> {
    let manifest =
        fs::read_to_string(paths::root().join("Cargo.toml")).context("could not read Cargo.toml")?;
    let manifest: toml::Table = manifest.parse().context("in Cargo.toml")?;
    let dependencies = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let engine = dependencies.and_then(|all| all.get("wasmtime")).and_then(|engine| engine.get("version"));
    let engine = engine.and_then(toml::Value::as_str).context("Cargo.toml names no wasmtime version")?;
    let name =
        format!("spin-host-wasmtime-{}-rust-{}", engine.trim_start_matches('='), paths::rustc()?.version);
    Ok(paths::cache()?.join(name))
}

/// Builds the Spin component and puts it where `spin.toml` looks for it (of another flavour: beside it).
///
/// # Errors
/// When the target's standard library is missing or the build fails.
pub fn spin(flavour: Flavour) -> Result<PathBuf> {
    let toolchain = wasm::toolchain(wasm::WASIP2)?;
    let target = paths::target()?;
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--release", "--package", "meridian-edge-spin", "--lib", "--target", wasm::WASIP2]);
    cargo.arg("--target-dir").arg(&target);
    let mut label = "build the Spin component".to_owned();
    if let Some((feature, name)) = flavour.feature() {
        cargo.args(["--features", feature]);
        label = format!("{label} ({name})");
    }
    run(&label, &mut cargo)?;
    let made = target.join(wasm::WASIP2).join("release/meridian_edge_spin.wasm");
    let output = spin_output(flavour)?;
    if made != output {
        put(&made, &output)?;
    }
    if flavour != Flavour::Plain {
        // It may lie where the plain one belongs: nobody shall take it for that.
        fs::remove_file(&made).with_context(|| format!("could not remove {}", made.display()))?;
    }
    Ok(output)
}

/// Sees to the place database that `spin.toml` mounts: an operator's own stays as it is.
fn places() -> Result<()> {
    let path = paths::root().join(stack::PLACES_MOUNTED);
    if !path.exists() {
        let folder = path.parent().context("the place database has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        Places::load()?.write(&path)?;
        say(&format!("{} is the demo's, of invented places: put your own there", path.display()));
    }
    Ok(())
}

/// Builds the function that the tests push.
///
/// # Errors
/// When the target's standard library is missing or the build fails.
pub fn function() -> Result<PathBuf> {
    let target = paths::target()?;
    let mut cargo = wasm::toolchain(wasm::WASIP2)?.cargo();
    cargo.args([
        "build",
        "--release",
        "--package",
        "meridian-test-function",
        "--lib",
        "--target",
        wasm::WASIP2,
    ]);
    cargo.arg("--target-dir").arg(&target);
    run("build the function of the tests", &mut cargo)?;
    Ok(target.join(wasm::WASIP2).join("release/meridian_test_function.wasm"))
}

/// Where `spin.toml` expects the component.
fn spin_output(flavour: Flavour) -> Result<PathBuf> {
    let path = paths::root().join("spin.toml");
    let manifest = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let manifest: toml::Table = manifest.parse().context("in spin.toml")?;
    let components =
        manifest.get("component").and_then(toml::Value::as_table).context("spin.toml: no component")?;
    let source =
        components.values().find_map(|component| component.get("source")).and_then(toml::Value::as_str);
    let output = paths::root().join(source.context("spin.toml: no component has a source")?);
    Ok(flavour.feature().map_or(output.clone(), |(_, name)| output.with_extension(format!("{name}.wasm"))))
}

/// Builds the Cloudflare worker with tools of known versions; nothing is downloaded but crates.
///
/// # Errors
/// When a tool is missing or the build fails.
pub fn cloudflare(flavour: Flavour) -> Result<PathBuf> {
    let tools = npm::tools()?;
    let toolchain = wasm::toolchain(wasm::UNKNOWN)?;
    let output = cloudflare_output(flavour);
    let mut build = Command::new(cargo_tools::worker_build()?);
    build.current_dir(paths::root().join("edge/cloudflare"));
    paths::forget_outer_cargo(&mut build);
    build.args(["--release", "--out-dir"]).arg(output.file_name().unwrap_or_default());
    let mut label = "build the Cloudflare worker".to_owned();
    if let Some((feature, name)) = flavour.feature() {
        // Only tests run it: minutes of wasm-opt would be for nothing.
        build.args(["--no-opt", ".", "--features", feature]);
        label = format!("{label} ({name})");
    }
    build.env("WASM_BINDGEN_BIN", cargo_tools::wasm_bindgen()?);
    build.env("WASM_OPT_BIN", &tools.wasm_opt).env("ESBUILD_BIN", &tools.esbuild);
    toolchain.apply(&mut build);
    run(&label, &mut build)?;
    anyhow::ensure!(output.join("index.js").is_file(), "worker-build made no {}/index.js", output.display());
    Ok(output)
}

/// Where `wrangler.toml` expects the worker.
fn cloudflare_output(flavour: Flavour) -> PathBuf {
    let folder = flavour.feature().map_or("build".to_owned(), |(_, name)| format!("build-{name}"));
    paths::root().join("edge/cloudflare").join(folder)
}

/// Copies under another name and renames, so that a host that reads the old file is not disturbed.
fn put(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("an output has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let mut part = OsString::from(to);
    part.push(".part");
    fs::copy(from, &part).with_context(|| format!("could not copy {}", from.display()))?;
    fs::rename(&part, to).with_context(|| format!("could not write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_build_makes_all_that_spin_toml_names() {
        let manifest = fs::read_to_string(paths::root().join("spin.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let edge = &manifest["component"]["edge"];
        assert_eq!(edge["build"]["command"].as_str(), Some("cargo xtask build spin"));
        let sources: Vec<_> =
            edge["files"].as_array().unwrap().iter().map(|file| file["source"].as_str()).collect();
        assert_eq!(sources, [Some(stack::PLACES_MOUNTED)]);
    }
}
