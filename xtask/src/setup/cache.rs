//! The cache: one folder a piece, named by the piece's version, whole or not there.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::paths;
use crate::progress::say;

/// The cache folder of `name` when it is whole.
///
/// # Errors
/// When there is no place for a cache.
pub fn find(name: &str) -> Result<Option<PathBuf>> {
    let folder = paths::cache()?.join(name);
    Ok(folder.is_dir().then_some(folder))
}

/// The cache folder of `name`, made by `make` when it is missing.
///
/// `make` gets an empty folder beside it, which is renamed when `make` succeeded: an interrupted set-up leaves no
/// half piece. A file lock keeps two set-ups from making the same piece.
///
/// # Errors
/// When `make` fails or the folder can't be made.
pub fn piece(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = paths::cache()?;
    let whole = cache.join(name);
    if whole.is_dir() {
        return Ok(whole);
    }
    fs::create_dir_all(&cache).with_context(|| format!("could not create {}", cache.display()))?;
    let _lock = lock(&cache.join(format!(".{name}.lock")), name)?;
    if whole.is_dir() {
        return Ok(whole);
    }
    let part = cache.join(format!(".{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("could not remove {}", part.display()))?;
    }
    fs::create_dir(&part).with_context(|| format!("could not create {}", part.display()))?;
    make(&part).with_context(|| format!("could not set up {name}"))?;
    fs::rename(&part, &whole).with_context(|| format!("could not rename {}", part.display()))?;
    Ok(whole)
}

fn lock(path: &Path, name: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("could not create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("  … another set-up makes {name}; waiting for it"));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}
