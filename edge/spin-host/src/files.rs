//! The files that a component sees: collected once at the start into one folder, which the component gets read-only.

use std::{
    fs, io,
    path::{Component as Part, Path, PathBuf},
};

use globset::GlobBuilder;

use crate::{limits, manifest::Mount};

/// What makes a name a pattern.
const WILD: [char; 3] = ['*', '?', '['];

/// A component's files that can't be provided.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFiles {
    /// A glob that isn't one.
    #[error("found the glob \"{glob}\": {problem}")]
    Glob {
        /// The glob as written.
        glob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that can't be read or copied.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A path that leads out of the folder of files.
    #[error("found the path \"{0}\", expected one without \"..\", and a pattern without \"/\" at its start")]
    Outside(String),
    /// A folder in place of a pattern.
    #[error(
        "found the folder \"{0}\", expected a pattern, \"{0}/**/*\", or a source with its destination: of a folder alone \
         Spin 4 puts all files below \"{0}/{0}\""
    )]
    Folder(String),
    /// A file that isn't there.
    #[error("found \"{0}\", which is no file that there is, and no pattern")]
    Missing(String),
    /// More than a component may have.
    #[error("more than {} files or {} bytes", limits::MOUNT_FILES_MAX, limits::MOUNT_BYTES_MAX)]
    TooMuch,
}

/// Collects a component's files from beside the manifest (`from`) into `to`, which is emptied first.
/// Returns whether there are any.
pub fn collect(mounts: &[Mount], from: &Path, to: &Path) -> Result<bool, InvalidFiles> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(to)(error)),
        _ => {}
    }
    // What is beside "spin.toml", a path without a folder, is in this one.
    let from = if from.as_os_str().is_empty() { Path::new(".") } else { from };
    let mut collection = Collection { to, files: 0, bytes: 0 };
    for mount in mounts {
        match mount {
            Mount::Place { source, destination } => {
                collection.take(&from.join(source), &relative(Path::new(destination))?)?;
            }
            Mount::Glob(glob) => collection.pattern(from, glob)?,
        }
    }
    Ok(collection.files > 0)
}

struct Collection<'a> {
    to: &'a Path,
    files: usize,
    bytes: u64,
}

impl Collection<'_> {
    /// Takes the file of that name, or else all files that match.
    fn pattern(&mut self, from: &Path, glob: &str) -> Result<(), InvalidFiles> {
        if glob.starts_with('/') {
            return Err(InvalidFiles::Outside(glob.to_owned()));
        }
        let path = relative(Path::new(glob))?;
        let file = from.join(&path);
        if path.as_os_str().is_empty() || file.is_dir() {
            return Err(InvalidFiles::Folder(glob.trim_end_matches('/').to_owned()));
        }
        if file.is_file() {
            return self.take(&file, &path);
        }
        if !glob.contains(WILD) {
            return Err(InvalidFiles::Missing(glob.to_owned()));
        }
        let invalid = |problem: String| InvalidFiles::Glob { glob: glob.to_owned(), problem };
        if glob.contains(['{', '}', '\\']) {
            return Err(invalid("Spin's patterns have no braces and no backslashes".to_owned()));
        }
        let matcher = GlobBuilder::new(&path.to_string_lossy())
            .literal_separator(true)
            .build()
            .map_err(|error| invalid(error.kind().to_string()))?
            .compile_matcher();
        self.search(from, &literal_start(&path), &|path| matcher.is_match(path))
    }

    /// Takes the files below `from.join(path)` whose path matches.
    fn search(
        &mut self,
        from: &Path,
        path: &Path,
        matches: &dyn Fn(&Path) -> bool,
    ) -> Result<(), InvalidFiles> {
        let here = from.join(path);
        if here.is_dir() {
            for name in names(&here)? {
                self.search(from, &path.join(name), matches)?;
            }
            Ok(())
        } else if here.is_file() && matches(path) {
            self.take(&here, path)
        } else {
            Ok(())
        }
    }

    /// Takes a file, or a folder whole.
    fn take(&mut self, source: &Path, destination: &Path) -> Result<(), InvalidFiles> {
        let size = fs::metadata(source).map_err(file_error(source))?;
        if size.is_dir() {
            for name in names(source)? {
                self.take(&source.join(&name), &destination.join(&name))?;
            }
            return Ok(());
        }
        self.files += 1;
        self.bytes += size.len();
        if self.files > limits::MOUNT_FILES_MAX || self.bytes > limits::MOUNT_BYTES_MAX {
            return Err(InvalidFiles::TooMuch);
        }
        let target = self.to.join(destination);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(file_error(folder))?;
        }
        fs::copy(source, &target).map(drop).map_err(file_error(source))
    }
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, InvalidFiles> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(file_error(folder))
}

/// The path without its root; it may not lead upwards.
fn relative(path: &Path) -> Result<PathBuf, InvalidFiles> {
    path.components()
        .filter(|part| !matches!(part, Part::RootDir | Part::CurDir))
        .map(|part| match part {
            Part::Normal(name) => Ok(name),
            _ => Err(InvalidFiles::Outside(path.display().to_string())),
        })
        .collect()
}

/// The folders at the start of a pattern that have no wildcard, where the search for it starts.
fn literal_start(pattern: &Path) -> PathBuf {
    pattern.components().take_while(|part| !part.as_os_str().to_string_lossy().contains(WILD)).collect()
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> InvalidFiles {
    let path = path.display().to_string();
    move |source| InvalidFiles::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_collected() {
        let folder = std::env::temp_dir().join(format!("meridian-spin-host-files-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        let from = folder.join("app");
        for path in [
            "places.mmdb",
            "assets/a.css",
            "assets/deep/b.css",
            "assets/c.js",
            "assets/d.js",
            "secret.txt",
            "LICENCE",
        ] {
            let path = from.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.display().to_string()).unwrap();
        }
        let to = folder.join("mounts");
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("stale"), "").unwrap();
        let mounts = [
            Mount::Glob("assets/**/*.css".to_owned()),
            Mount::Glob("./assets/d.[jt]s".to_owned()),
            Mount::Glob("./LICENCE".to_owned()),
            Mount::Glob("none/*".to_owned()),
            Mount::Place { source: "places.mmdb".into(), destination: "/data/places.mmdb".to_owned() },
            Mount::Place { source: "assets".into(), destination: "/all".to_owned() },
        ];
        assert!(collect(&mounts, &from, &to).unwrap());
        for (path, expected) in [
            ("assets/a.css", true),
            ("assets/deep/b.css", true),
            ("assets/c.js", false),
            ("assets/d.js", true),
            ("LICENCE", true),
            ("secret.txt", false),
            ("stale", false),
            ("data/places.mmdb", true),
            ("all/deep/b.css", true),
        ] {
            assert_eq!(to.join(path).exists(), expected, "{path}");
        }
        let outside = [Mount::Place { source: "places.mmdb".into(), destination: "/../x".to_owned() }];
        assert!(matches!(collect(&outside, &from, &to), Err(InvalidFiles::Outside(_))));
        let missing = [Mount::Place { source: "none".into(), destination: "/x".to_owned() }];
        assert!(collect(&missing, &from, &to).unwrap_err().to_string().contains("app/none: "));
        #[rustfmt::skip]
        let refused = [
            ("assets", "found the folder \"assets\", expected a pattern, \"assets/**/*\""), ("assets/", "found the folder \"assets\""),
            (".", "found the folder"), ("assets/.", "found the folder"), ("none", "found \"none\", which is no file"),
            ("assets/none.css", "no file"), ("/assets/*", "found the path"), ("../app/*", "found the path"),
            ("assets/*.{css,js}", "no braces"), ("assets/[a", "found the glob"),
        ];
        for (glob, expected) in refused {
            let error = collect(&[Mount::Glob(glob.to_owned())], &from, &to).unwrap_err().to_string();
            assert!(error.contains(expected), "{glob}: {error}");
        }
        // Tests run in the crate's folder.
        assert!(collect(&[Mount::Glob("Cargo.tom?".to_owned())], Path::new(""), &to).unwrap());
        assert!(!collect(&[], &from, &to).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }
}
