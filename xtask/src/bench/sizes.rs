//! Bytes that are deployed.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::artefacts::{Part, obtain};
use crate::report;

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// What it is.
    pub what: &'static str,
    /// Bytes as it is.
    pub raw: u64,
    /// Bytes as gzip makes it.
    pub gzip: u64,
}

impl Size {
    /// Of a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(what: &'static str, path: &Path) -> Result<Self> {
        let (raw, gzip) = report::sizes(path)?;
        Ok(Self { what, raw, gzip })
    }
}

/// Name of the worker's Wasm in the tables.
pub const WORKER_WASM: &str = "the worker's Wasm";

/// Both edges as they were built.
///
/// # Errors
/// When they were not.
pub fn of_edges() -> Result<Vec<Size>> {
    let cloudflare = obtain(Part::Cloudflare, true)?;
    Ok(vec![
        Size::of(WORKER_WASM, &cloudflare.join("index_bg.wasm"))?,
        Size::of("the worker's JavaScript", &cloudflare.join("index.js"))?,
        Size::of("the Spin component", &obtain(Part::Spin, true)?)?,
    ])
}

/// As a table.
pub fn table(sizes: &[Size]) -> String {
    let row = |size: &Size| vec![size.what.to_owned(), size.raw.to_string(), size.gzip.to_string()];
    report::table(&["what", "raw", "gzip"], &sizes.iter().map(row).collect::<Vec<_>>())
}
