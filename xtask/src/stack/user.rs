//! The unprivileged user that PostgreSQL runs as when we are root, and folders that it can reach.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::paths;

/// A user without rights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RunAs {
    uid: u32,
    gid: u32,
}

impl RunAs {
    /// The user `nobody` when we are root (PostgreSQL refuses to run as root), else nobody else than ourselves.
    ///
    /// # Errors
    /// When the machine has no such user.
    pub fn unprivileged() -> Result<Option<Self>> {
        if !paths::is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        parse(&passwd, "nobody").map(Some).context("this machine has no user nobody")
    }

    /// Makes `command` run as this user.
    pub fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).env("HOME", "/nonexistent");
    }

    /// Gives a folder or file to this user.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("could not give {} to nobody", path.display()))
    }

    /// Whether this user can walk to `path`: its existing parents, and itself if it exists, let anybody through.
    pub fn reaches(&self, path: &Path) -> bool {
        path.ancestors().filter_map(|folder| fs::metadata(folder).ok()).all(|folder| {
            let mode = folder.permissions().mode();
            if folder.uid() == self.uid { mode & 0o100 != 0 } else { mode & 0o001 != 0 }
        })
    }
}

/// Finds the folder for data that this user must reach: `wanted` if it can be, else one under `/var/lib` or `/tmp`
/// that is named by `id`.
///
/// # Errors
/// When there is no such folder.
pub fn reachable_folder(user: Option<RunAs>, wanted: &Path, id: &str) -> Result<PathBuf> {
    let Some(user) = user else { return Ok(wanted.to_path_buf()) };
    if user.reaches(wanted) {
        return Ok(wanted.to_path_buf());
    }
    fallback_folders(id)
        .into_iter()
        .find(|folder| {
            let parent = folder.parent().unwrap_or(folder);
            user.reaches(folder) && fs::create_dir_all(parent).is_ok()
        })
        .with_context(|| format!("user nobody can reach neither {} nor /var/lib nor /tmp", wanted.display()))
}

/// Where data goes that can't be in the project.
pub fn fallback_folders(id: &str) -> [PathBuf; 2] {
    [PathBuf::from(format!("/var/lib/meridian-{id}")), PathBuf::from(format!("/tmp/meridian-{id}"))]
}

fn parse(passwd: &str, name: &str) -> Option<RunAs> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(RunAs { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_found_in_the_password_file() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(parse(passwd, "nobody"), Some(RunAs { uid: 65534, gid: 65533 }));
        assert_eq!(parse(passwd, "nobod"), None);
    }

    #[test]
    fn a_closed_parent_keeps_a_user_out() {
        let folder = std::env::temp_dir().join(format!("meridian-reach-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        let user = RunAs { uid: 65534, gid: 65534 };
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(user.reaches(&folder.join("inner/not-yet-there")));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!user.reaches(&folder.join("inner")));
        let instead = reachable_folder(Some(user), &folder.join("inner"), "0123").unwrap();
        assert!(instead.ends_with("meridian-0123"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
