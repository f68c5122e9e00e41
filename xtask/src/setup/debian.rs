//! Debian packages: installed into the system when we may, or unpacked into the cache.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress::say;
use crate::{paths, run};

/// Installs the packages that are missing. For programs and headers that a command needs and that nothing else brings.
///
/// # Errors
/// When a package is missing and this is not Debian or we are not root: the error says what to install.
pub fn need_debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if paths::in_path("apt-get").is_none() {
        bail!("please install what Debian calls {names}");
    }
    if !paths::is_root() {
        bail!("please install what is missing: sudo apt-get install {names}");
    }
    let mut update = Command::new("apt-get");
    run::run("apt-get update", update.arg("update").env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    run::run(&format!("apt-get install {names}"), install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

/// Where a program is that a package of Debian brings, installed first where it is missing.
///
/// # Errors
/// As [`need_debian`]'s, or when the package does not bring it.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    // Programs of administrators are not in everybody's PATH.
    let found = || {
        paths::in_path(name).or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|path| path.is_file()))
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    need_debian(&[package])?;
    found().with_context(|| format!("{package} is installed, and there is no program {name}"))
}

/// As [`need_debian`], for servers that run with configurations of ours: Debian does not start them when it installs them.
///
/// # Errors
/// As [`need_debian`], and when Debian can't be told.
pub fn need_servers(packages: &[&str]) -> Result<()> {
    let missing = packages.iter().any(|package| !installed(package));
    let will_install = missing && paths::is_root() && paths::in_path("apt-get").is_some();
    let _unstarted = if will_install { Unstarted::tell(Path::new(POLICY))? } else { None };
    need_debian(packages)
}

/// Asked by Debian's packages before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, Debian's packages start no service.
struct Unstarted(PathBuf);

impl Unstarted {
    /// Where the machine has a policy of its own, that stays in force.
    fn tell(policy: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy);
        let mut file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            file => file.with_context(|| format!("could not create {}", policy.display()))?,
        };
        let unstarted = Self(policy.to_path_buf());
        // 101: the action is not allowed.
        file.write_all(b"#!/bin/sh\nexit 101\n")?;
        Ok(Some(unstarted))
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            say(&format!("  ! could not remove {}: {error}", self.0.display()));
        }
    }
}

fn installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// An apt of our own: its configuration and state are in one folder, the system's are only read.
///
/// Its sources are the machine's own Debian mirror with other suites, so that no host is named here.
pub struct PrivateApt {
    folder: PathBuf,
}

/// A version of a package and the suite that has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Available {
    /// Full Debian version.
    pub version: String,
}

impl PrivateApt {
    /// Makes the configuration in `folder` and fetches the package lists of those `suites` that the mirror has.
    ///
    /// # Errors
    /// When the machine has no Debian mirror configured, or the lists can't be fetched.
    pub fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let mirror = machine_mirror()?;
        for part in ["state/lists/partial", "cache/archives/partial", "sources", "packages"] {
            fs::create_dir_all(folder.join(part))?;
        }
        for suite in suites {
            let stanza = format!(
                "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{}",
                mirror.uri,
                mirror.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default()
            );
            fs::write(folder.join(format!("sources/{suite}.sources")), stanza)?;
        }
        let apt = Self { folder: folder.to_path_buf() };
        // A suite that the mirror lacks makes apt-get fail although the others are there.
        if let Err(error) = run::run("package lists of newer Debian suites", apt.get().arg("update")) {
            let lists = fs::read_dir(folder.join("state/lists"))?.flatten();
            let any = lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("Packages"));
            if !any {
                return Err(error);
            }
            say("    (some of them are not on this machine's mirror; the others will do)");
        }
        Ok(apt)
    }

    /// The versions of `package`, as apt orders them: newest first.
    ///
    /// # Errors
    /// When apt can't be run.
    pub fn versions(&self, package: &str) -> Result<Vec<Available>> {
        let output = self.command("apt-cache").args(["madison", package]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(parse_madison(&text))
    }

    /// Downloads and unpacks one package; returns the folder that stands for `/`.
    ///
    /// # Errors
    /// When it can't be downloaded or unpacked.
    pub fn unpack(&self, package: &str, version: &str) -> Result<PathBuf> {
        let packages = self.folder.join("packages");
        let mut download = self.get();
        download.arg("download").arg(format!("{package}={version}")).current_dir(&packages);
        run::run(&format!("download {package} {version}"), &mut download)?;
        let prefix = format!("{package}_");
        let file = fs::read_dir(&packages)?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .with_context(|| format!("apt-get download brought no {package}"))?;
        let unpacked = self.folder.join(package);
        let mut dpkg = Command::new("dpkg");
        run::run(&format!("unpack {package}"), dpkg.arg("-x").arg(file.path()).arg(&unpacked))?;
        Ok(unpacked)
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, part: &str| format!("{name}={}", self.folder.join(part).display());
        command.args(["-o", "Dir::Etc::sourcelist=/dev/null"]);
        command.args(["-o", &option("Dir::Etc::sourceparts", "sources")]);
        command.args(["-o", &option("Dir::State", "state"), "-o", &option("Dir::Cache", "cache")]);
        command.args(["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// Where the machine's own Debian packages come from.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

fn machine_mirror() -> Result<Mirror> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field =
        |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim_matches('"'));
    let codename =
        field("VERSION_CODENAME=").context("this machine is not a Debian that names its release")?;
    anyhow::ensure!(field("ID=") == Some("debian"), "this machine is not a Debian");
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    let parts =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    texts.extend(
        parts
            .filter(|path| path.extension().is_some_and(|end| end == "sources" || end == "list"))
            .filter_map(|path| fs::read_to_string(path).ok()),
    );
    texts
        .iter()
        .find_map(|text| find_mirror(text, codename))
        .with_context(|| format!("no source of the suite {codename} in /etc/apt"))
}

/// Finds the mirror of `suite` in a text of either of apt's two formats.
fn find_mirror(text: &str, suite: &str) -> Option<Mirror> {
    for line in text.lines().filter(|line| line.starts_with("deb ")) {
        let mut words = line.split_whitespace().skip(1).peekable();
        let mut signed_by = None;
        if words.peek()?.starts_with('[') {
            for word in words.by_ref() {
                let option = word.trim_matches(['[', ']']);
                signed_by = option.strip_prefix("signed-by=").map(str::to_owned).or(signed_by);
                if word.ends_with(']') {
                    break;
                }
            }
        }
        let (uri, found) = (words.next()?, words.next()?);
        if found == suite {
            return Some(Mirror { uri: uri.to_owned(), signed_by });
        }
    }
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let suites = field("Suites:")?;
        suites.split_whitespace().any(|word| word == suite).then_some(())?;
        let uri = field("URIs:")?.split_whitespace().next()?.to_owned();
        Some(Mirror { uri, signed_by: field("Signed-By:") })
    })
}

fn parse_madison(text: &str) -> Vec<Available> {
    text.lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| Available { version: version.trim().to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_forbidden_for_a_while_and_a_policy_of_the_machine_stays() {
        let policy = std::env::temp_dir().join(format!("meridian-policy-{}", std::process::id()));
        let unstarted = Unstarted::tell(&policy).unwrap();
        assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
        assert!(Unstarted::tell(&policy).unwrap().is_none());
        assert!(policy.exists());
        drop(unstarted);
        assert!(!policy.exists());
    }

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let expected = |key: Option<&str>| {
            Some(Mirror { uri: "http://mirror.example/debian".into(), signed_by: key.map(str::to_owned) })
        };
        let one_line = "# comment\ndeb http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(find_mirror(one_line, "bookworm"), expected(None));
        let options = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n";
        assert_eq!(find_mirror(options, "bookworm"), expected(Some("/k.gpg")));
        let stanzas = "Types: deb\nURIs: http://other.example/security\nSuites: bookworm-security\n\n\
                       Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nSigned-By: /k.gpg\n";
        assert_eq!(find_mirror(stanzas, "bookworm"), expected(Some("/k.gpg")));
        assert_eq!(find_mirror(stanzas, "trixie"), None);
    }

    #[test]
    fn versions_are_read_from_madison() {
        let text = " rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example trixie-backports/main\n\
                    \u{20}rust-src | 1.63.0+dfsg1-2 | http://mirror.example bookworm/main\n";
        let versions: Vec<String> = parse_madison(text).into_iter().map(|found| found.version).collect();
        assert_eq!(versions, ["1.95.0+dfsg1-2~bpo13+1", "1.63.0+dfsg1-2"]);
    }
}
