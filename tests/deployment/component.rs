//! The Spin component as Spin 4.1 sees it: what it asks its host for, and what it offers, with the types of both.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use meridian_tests::packages;
use meridian_tests::stack::tool;
use wac_types::{ItemKind, Package, Type, Types, WorldId, validate_target};
use wit_parser::Resolve;

/// The world that Spin gives.
const SPIN: &str = include_str!("spin.wit");

#[test]
fn the_component_fits_the_world_that_spin_gives() {
    let component = std::fs::read(tool("MERIDIAN_SPIN_COMPONENT").unwrap()).unwrap();
    fits(SPIN, component).unwrap();
}

#[test]
fn a_world_without_a_store_is_too_small() {
    let smaller = SPIN.replace("import spin:key-value/key-value@3.0.0;", "");
    let component = std::fs::read(tool("MERIDIAN_SPIN_COMPONENT").unwrap()).unwrap();
    let error = fits(&smaller, component).unwrap_err().to_string();
    assert!(error.contains("spin:key-value/key-value@3.0.0"), "{error}");
}

#[test]
fn a_component_of_another_kind_serves_nothing() {
    let error = fits(SPIN, b"\0asm\x0d\0\x01\0".to_vec()).unwrap_err().to_string();
    assert!(error.contains("wasi:http/handler@0.3.0"), "{error}");
}

/// Whether a component asks for no more than `world` has, offers what it wants, and means the same by both.
fn fits(world: &str, component: Vec<u8>) -> Result<()> {
    let mut interfaces = Resolve::new();
    for (package, folder) in [("spin-sdk", "wit"), ("wasmtime-wasi", "src/p2/wit")] {
        let folder = source_of(package)?.join(folder);
        interfaces.push_dir(&folder).with_context(|| format!("in {}", folder.display()))?;
    }
    let package = interfaces.push_str("spin.wit", world).context("in spin.wit")?;
    let world = wit_component::encode(&interfaces, package)?;
    let mut types = Types::default();
    let world = Package::from_bytes("meridian:deployment", None, world, &mut types)?;
    let component = Package::from_bytes("meridian:edge", None, component, &mut types)?;
    Ok(validate_target(&types, only_world(&types, world.ty())?, component.ty())?)
}

/// The one world of an encoded package: a component type that exports another, which exports the world's own.
fn only_world(types: &Types, package: WorldId) -> Result<WorldId> {
    let Some(ItemKind::Type(Type::World(outer))) = types[package].exports.values().next() else {
        bail!("the package has no world")
    };
    let Some(ItemKind::Component(world)) = types[*outer].exports.values().next() else {
        bail!("the package's world is empty")
    };
    Ok(*world)
}

/// The folder of a dependency's source.
fn source_of(package: &str) -> Result<PathBuf> {
    let found = packages::all().iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    Ok(folder.with_context(|| format!("{package} is no dependency"))?.to_owned())
}
