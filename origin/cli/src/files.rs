//! Sets of documents on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use meridian_wire::authored::{File, FileKind, kind_of};

use crate::failure::Failure;
use crate::limits::FOLDER_DEPTH_MAX;

/// Reads a file, or every `.yaml`, `.yml` and `.json` file of a folder and those below, and the lists of networks
/// (`.netset`, `.ipset`) and of autonomous systems (`.asnset`) and components (`.wasm`) among them, in the order of their names.
/// Hidden files and folders are left out.
///
/// # Errors
/// Where something cannot be read, or nothing is there.
pub fn read(path: &Path) -> Result<Vec<File>, Failure> {
    let mut paths = Vec::new();
    if path.is_dir() {
        collect(path, 0, &mut paths)?;
    } else {
        paths.push(path.to_owned());
    }
    paths.sort();
    let file = |found: &PathBuf| {
        let inside = found.strip_prefix(path).ok().filter(|inside| !inside.as_os_str().is_empty());
        let name = inside
            .map_or_else(|| found.file_name().map(PathBuf::from).unwrap_or_default(), Path::to_path_buf);
        let path = name.to_string_lossy().replace('\\', "/");
        let bytes = fs::read(found).map_err(Failure::file(found))?;
        let file = File::of(path, bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        file.map_err(Failure::file(found))
    };
    let files = paths.iter().map(file).collect::<Result<Vec<_>, Failure>>()?;
    if files.is_empty() {
        return Err(Failure::Usage(format!("{} holds no .yaml, .yml or .json file", path.display())));
    }
    Ok(files)
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json")
}

fn collect(folder: &Path, depth: usize, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if depth > FOLDER_DEPTH_MAX {
        return Err(Failure::Usage(format!(
            "{} is more than {FOLDER_DEPTH_MAX} folders deep",
            folder.display()
        )));
    }
    for entry in fs::read_dir(folder).map_err(Failure::file(folder))? {
        let entry = entry.map_err(Failure::file(folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, into)?;
        } else if is_document(&path) || kind_of(&path.to_string_lossy()) != FileKind::Documents {
            into.push(path);
        }
    }
    Ok(())
}
