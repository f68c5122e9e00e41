//! Caddy, which stands in front of edges: the one in `PATH`, else Debian's, unpacked into the cache.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::cache;
use super::debian::PrivateApt;
use crate::paths;

/// Debian suites that have it, the older first: its packages need nothing else of them.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// The `caddy` program.
///
/// # Errors
/// When it is neither there nor to be had; the error says what to do.
pub fn program() -> Result<PathBuf> {
    if let Some(program) = paths::in_path("caddy") {
        return Ok(program);
    }
    let folder = cache::piece("caddy", |part| {
        let apt = PrivateApt::new(&part.join("apt"), &SUITES)?;
        let newest = apt.versions("caddy")?.into_iter().next().context("no suite has a package caddy")?;
        let unpacked = apt.unpack("caddy", &newest.version)?;
        fs::copy(unpacked.join("usr/bin/caddy"), part.join("caddy")).context("the package has no caddy")?;
        Ok(fs::remove_dir_all(part.join("apt"))?)
    });
    let folder = folder.context("please install Caddy 2.6 or newer, or put it into PATH")?;
    Ok(folder.join("caddy"))
}
