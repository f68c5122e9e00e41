//! The pure crates as WebAssembly, whole: a module that imports nothing can reach no clock, no socket, no random source.

use std::path::{Path, PathBuf};
use std::process::Command;

use wasmparser::{Parser, Payload};

use super::root;

const TARGET: &str = "wasm32-unknown-unknown";
/// Nothing is left out because nobody calls it: what a crate could do counts, not what one program would use. It takes a
/// build without optimisation to have it so.
const KEEP_ALL: [&str; 4] = ["-C", "link-dead-code", "-C", "link-arg=--no-gc-sections"];
/// A crate of some thousand lines comes to more functions than this, the parts of the standard library that it uses included.
const FUNCTIONS_MIN: u32 = 1_000;

#[test]
fn the_wasm_of_pure_crates_imports_nothing() {
    for package in ["meridian-engine", "meridian-replica"] {
        // The folder of all builds, for what is there already: cargo holds no lock while tests run.
        let target = tmp().parent().expect("it is inside of it").to_owned();
        let output = toolchain("cargo")
            .args(["rustc", "--locked", "--lib", "--crate-type", "cdylib", "--package", package])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target)
            .arg("--")
            .args(KEEP_ALL)
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = target.join(TARGET).join("debug").join(package.replace('-', "_")).with_extension("wasm");
        let module = Module::read(&file);
        assert!(module.functions > FUNCTIONS_MIN, "{package} has only {} functions", module.functions);
        assert!(module.imports.is_empty(), "{package} imports {:?}", module.imports);
    }
}

/// What the test above relies on: an import shows even where nobody calls what needs it.
#[test]
fn an_import_that_nobody_calls_is_seen() {
    let (source, file) = (tmp().join("import.rs"), tmp().join("import.wasm"));
    let code =
        "unsafe extern \"C\" { fn host_clock() -> u64; }\npub fn now() -> u64 { unsafe { host_clock() } }\n";
    std::fs::write(&source, code).expect("the folder can be written");
    let output = toolchain("rustc")
        .args(["--edition", "2024", "--crate-type", "cdylib", "--target", TARGET])
        .args(KEEP_ALL)
        .arg("-o")
        .args([&file, &source])
        .output()
        .expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Module::read(&file).imports, ["env host_clock"]);
}

struct Module {
    imports: Vec<String>,
    functions: u32,
}

impl Module {
    fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut module = Self { imports: Vec::new(), functions: 0 };
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.expect("rustc writes modules that can be read") {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.expect("an import can be read");
                        module.imports.push(format!("{} {}", import.module, import.name));
                    }
                }
                Payload::FunctionSection(section) => module.functions = section.count(),
                _ => {}
            }
        }
        module
    }
}

fn tmp() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A program of the toolchain that can build for the target: `cargo xtask test` names it where it is not the active one.
fn toolchain(program: &str) -> Command {
    let mut command = match std::env::var_os("MERIDIAN_WASM_TOOLCHAIN") {
        Some(folder) => {
            let bin = PathBuf::from(folder).join("bin");
            let mut command = Command::new(bin.join(program));
            command.env("RUSTC", bin.join("rustc")).env_remove("LD_LIBRARY_PATH");
            command
        }
        None if program == "cargo" => Command::new(env!("CARGO")),
        None => Command::new(program),
    };
    command.current_dir(root());
    command
}
