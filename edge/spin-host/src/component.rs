//! The engine, and components compiled and linked for it.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use sha2::{Digest, Sha256};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ProfilingStrategy,
    component::{Component, Linker},
};
use wasmtime_wasi_http::p3::{self, bindings::ServicePre};

use crate::{instance::Guest, key_value, key_value::hex, limits, variables};

/// The engine of all components, with a thread that ticks its epoch for as long as it lives. With `perf_map` it writes where
/// each compiled function lies, and its name, as Linux perf wants it.
pub fn engine(memory_bytes_max: usize, perf_map: bool) -> anyhow::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits::INSTANCES_MAX)
        .total_core_instances(limits::INSTANCES_MAX * 8)
        .total_memories(limits::INSTANCES_MAX)
        .total_tables(limits::INSTANCES_MAX * 4)
        .total_stacks(limits::INSTANCES_MAX * 2)
        .table_elements(limits::INSTANCE_TABLE_ELEMENTS_MAX)
        .max_memory_size(memory_bytes_max)
        .linear_memory_keep_resident(512 << 10)
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(100);
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    if perf_map {
        config.profiler(ProfilingStrategy::PerfMap);
    }
    let engine = Engine::new(&config).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let ticked = engine.weak();
    std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
        while let Some(engine) = ticked.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(limits::EPOCH_TICK);
        }
    })?;
    Ok(engine)
}

/// Compiles the component, or loads what an earlier start has compiled of the very same file.
pub fn load(engine: &Engine, source: &Path, cache: &Path) -> anyhow::Result<Component> {
    let size = fs::metadata(source).with_context(|| format!("{}: not built yet?", source.display()))?.len();
    anyhow::ensure!(
        size <= limits::SOURCE_BYTES_MAX,
        "{}: has {size} bytes, at most {} are run",
        source.display(),
        limits::SOURCE_BYTES_MAX
    );
    let wasm = fs::read(source).with_context(|| source.display().to_string())?;
    compiled(engine, &wasm, &source.display().to_string(), cache, limits::COMPILED_FILES_MAX)
}

/// The same of these bytes, which are called `name`; at most `files_max` compiled components are kept in `cache`.
pub fn compiled(
    engine: &Engine,
    wasm: &[u8],
    name: &str,
    cache: &Path,
    files_max: usize,
) -> anyhow::Result<Component> {
    let compiled = cache.join(format!("{}.cwasm", cache_key(engine, wasm)));
    if compiled.is_file() {
        match deserialize(engine, &compiled) {
            Ok(component) => return Ok(component),
            Err(error) => tracing::warn!(file = %compiled.display(), %error, "compiling again"),
        }
    }
    let start = std::time::Instant::now();
    let component = Component::new(engine, wasm).map_err(|e| anyhow::anyhow!("{name}: {e:#}"))?;
    tracing::info!(source = name, seconds = start.elapsed().as_secs_f32(), "compiled");
    if let Err(error) = keep(&component, &compiled, cache, files_max) {
        tracing::warn!(%error, "the compiled component is not kept: the next start compiles again");
    }
    Ok(component)
}

/// Names what was compiled and by what: the component, the engine's version and its settings.
fn cache_key(engine: &Engine, wasm: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    format!("{}-{:016x}", hex(&Sha256::digest(wasm)), settings.finish())
}

#[expect(unsafe_code, reason = "loading machine code that this host compiled is what a compile cache is")]
fn deserialize(engine: &Engine, compiled: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by `keep` into the state folder, which only the host's user may write to; whoever
    // can change it can as well change the host. It was renamed into place whole, and its name pins engine and source.
    unsafe { Component::deserialize_file(engine, compiled) }
}

fn keep(component: &Component, compiled: &Path, cache: &Path, files_max: usize) -> anyhow::Result<()> {
    fs::create_dir_all(cache)?;
    let code = component.serialize().map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let beside = compiled.with_extension("new");
    fs::write(&beside, code)?;
    fs::rename(&beside, compiled)?;
    let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(cache)?
        .map(|entry| entry.and_then(|entry| Ok((entry.metadata()?.modified()?, entry.path()))))
        .collect::<Result<_, _>>()?;
    files.sort();
    let surplus = files.len().saturating_sub(files_max);
    for (_, path) in files.into_iter().take(surplus) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Links a component to everything that the host provides.
pub fn link(engine: &Engine, component: &Component) -> anyhow::Result<ServicePre<Guest>> {
    let mut linker = function_linker(engine)?;
    let linked = key_value::link(&mut linker).and_then(|()| variables::link(&mut linker));
    linked.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    link_to(&linker, component)
}

/// What a tenant's function is linked to: WASI, and nothing of the application.
pub fn function_linker(engine: &Engine) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    let mut link = || {
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        p3::add_to_linker(&mut linker)
    };
    link().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    Ok(linker)
}

/// Links a component to what the linker has.
pub fn link_to(linker: &Linker<Guest>, component: &Component) -> anyhow::Result<ServicePre<Guest>> {
    linker.instantiate_pre(component).and_then(ServicePre::new).map_err(|error| {
        anyhow::anyhow!(
            "it doesn't fit this host, which runs components that export wasi:http/handler@0.3: {error:#}"
        )
    })
}
