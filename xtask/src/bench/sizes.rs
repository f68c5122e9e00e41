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
const WORKER_WASM: &str = "the worker's Wasm";
/// Name of the Spin component in the tables.
const COMPONENT: &str = "the Spin component";
/// The target of the worker's Wasm, in bytes of gzip.
const WASM_GZIP_MAX: u64 = 1_000_000;
/// The budget of the Spin component: it brings what Cloudflare's runtime has itself (signatures, content codings, HTML
/// rewriting, places).
const COMPONENT_GZIP_MAX: u64 = 2_000_000;

/// Both edges as they were built.
///
/// # Errors
/// When they were not.
pub fn of_edges() -> Result<Vec<Size>> {
    let cloudflare = obtain(Part::Cloudflare, true)?;
    Ok(vec![
        Size::of(WORKER_WASM, &cloudflare.join("index_bg.wasm"))?,
        Size::of("the worker's JavaScript", &cloudflare.join("index.js"))?,
        Size::of(COMPONENT, &obtain(Part::Spin, true)?)?,
    ])
}

/// As a table.
pub fn table(sizes: &[Size]) -> String {
    let row = |size: &Size| vec![size.what.to_owned(), size.raw.to_string(), size.gzip.to_string()];
    report::table(&["what", "raw", "gzip"], &sizes.iter().map(row).collect::<Vec<_>>())
}

/// Whether both are as small as they have to be, in sentences.
pub fn verdict(sizes: &[Size]) -> String {
    let gzip = |what: &str| sizes.iter().find(|size| size.what == what).map(|size| size.gzip);
    let (Some(worker), Some(component)) = (gzip(WORKER_WASM), gzip(COMPONENT)) else { return String::new() };
    let met = |is_met| if is_met { "met" } else { "**missed**" };
    let reached = if component < WASM_GZIP_MAX { "below" } else { "above" };
    format!(
        "Target: the worker's Wasm, which Cloudflare takes, below {WASM_GZIP_MAX} bytes of gzip; {}. Cloudflare's own limit of a \
         worker is 3 MB of gzip on its free plan and 10 MB on others. The Spin component has a budget of its own, \
         {COMPONENT_GZIP_MAX} bytes of gzip, since it brings what Cloudflare's runtime has itself; {}. It is \
         {reached} the worker's target.\n",
        met(worker < WASM_GZIP_MAX),
        met(component < COMPONENT_GZIP_MAX)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_judged_by_its_own_budget() {
        let sizes = |worker: u64, component: u64| {
            [(WORKER_WASM, worker), (COMPONENT, component)].map(|(what, gzip)| Size {
                what,
                raw: 2 * gzip,
                gzip,
            })
        };
        let text = verdict(&sizes(999_999, 2_000_000));
        assert!(
            text.contains("1000000 bytes of gzip; met.") && text.contains("itself; **missed**."),
            "{text}"
        );
        let text = verdict(&sizes(1_000_000, 999_999));
        assert!(
            text.contains("1000000 bytes of gzip; **missed**.") && text.contains("itself; met."),
            "{text}"
        );
        assert!(text.ends_with("It is below the worker's target.\n"), "{text}");
        assert_eq!(verdict(&[]), "");
    }
}
