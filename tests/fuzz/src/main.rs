//! Writes what each target begins with: `meridian-fuzz FOLDER` makes `FOLDER/TARGET/NUMBER`.

use std::fs;
use std::io;
use std::path::PathBuf;

use meridian_fuzz::TARGETS;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("expected a folder"))?;
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(number.to_string()), seed)?;
        }
    }
    Ok(())
}
