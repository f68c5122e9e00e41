//! The Spin component as Spin 4 sees it: what it asks its host for, and what it offers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use meridian_tests::stack::{Stack, tool};
use wasmparser::{Parser, Payload};

use crate::StackTest;

pub const TESTS: &[(&str, StackTest)] =
    &[("the_component_asks_for_what_spin_gives", the_component_asks_for_what_spin_gives)];

/// Packages with the versions of them that Spin 4 has. No sockets: `allowed_outbound_hosts` bounds HTTP alone.
const GIVEN: [(&str, &[&str]); 8] = [
    ("spin:key-value", &["3.0."]),
    ("spin:variables", &["3.0."]),
    ("wasi:cli", &["0.2.", "0.3.0"]),
    ("wasi:clocks", &["0.2.", "0.3.0"]),
    ("wasi:filesystem", &["0.2.", "0.3.0"]),
    ("wasi:http", &["0.3.0"]),
    ("wasi:io", &["0.2."]),
    ("wasi:random", &["0.2.", "0.3.0"]),
];

fn the_component_asks_for_what_spin_gives(_: &Stack) -> Result<()> {
    let file = tool("MERIDIAN_SPIN_COMPONENT")?;
    let (imports, exports) = interfaces(&std::fs::read(&file)?)?;
    ensure!(imports.iter().any(|name| name.starts_with("spin:key-value/")), "not the edge: {imports:?}");
    let strange: Vec<&String> = imports.iter().filter(|name| !is_given(name)).collect();
    ensure!(strange.is_empty(), "Spin 4 does not give {strange:?}");
    ensure!(exports.contains("wasi:http/handler@0.3.0"), "it serves nothing: {exports:?}");
    for other in ["wasi:sockets/tcp@0.2.0", "wasi:http/types@0.2.6", "spin:sqlite/sqlite@3.0.0", "given"] {
        ensure!(!is_given(other), "{other} would not be noticed");
    }
    Ok(())
}

/// Whether an interface, `PACKAGE/NAME@VERSION`, is of a version of a package that Spin has.
fn is_given(interface: &str) -> bool {
    let Some((name, version)) = interface.split_once('@') else { return false };
    let package = name.split('/').next().unwrap_or_default();
    GIVEN.iter().any(|(given, versions)| {
        *given == package && versions.iter().any(|prefix| version.starts_with(prefix))
    })
}

/// What a component itself imports and exports, and not what the components inside of it do.
fn interfaces(bytes: &[u8]) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut imports, mut exports, mut depth) = (BTreeSet::new(), BTreeSet::new(), 0_u32);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("not a component")? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.insert(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.insert(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}
