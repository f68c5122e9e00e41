//! What the cache is judged beside: a proxy that caches as the crate `http-cache-semantics` says, `tests/conformance/semantics`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::artefacts;
use crate::limits::PEER_START_TIMEOUT;
use crate::paths;
use crate::scratch::Stop;
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Supervisor, Tier};

/// The crate that it is named after.
const LIBRARY: &str = "http-cache-semantics";
/// The package, and its program.
const PACKAGE: &str = "meridian-test-semantics";

/// The running proxy; ended when dropped.
pub(super) struct Peer {
    /// Its name and version, as the report calls it.
    pub(super) title: String,
    /// Where it listens.
    pub(super) url: String,
    _running: Supervisor,
}

impl Peer {
    /// Starts it on a port of 127.0.0.1 before the server at `upstream`, an address with a port; its files are in `folder`.
    ///
    /// # Errors
    /// When it can't be built, or does not serve.
    pub(super) fn start(
        folder: &Path,
        port: u16,
        upstream: &str,
        no_build: bool,
        stop: &Stop,
    ) -> Result<Self> {
        let program = program(no_build)?;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        let url = format!("http://127.0.0.1:{port}");
        let asked = url.clone();
        let service = Service {
            name: "semantics".to_owned(),
            tier: Tier::Edge,
            program,
            arguments: vec![format!("127.0.0.1:{port}").into(), upstream.into()],
            environment: vec![],
            folder: folder.to_path_buf(),
            run_as: None,
            log: folder.join("semantics.log"),
            watched_at: None,
            // The suite's server does not run yet: that it is away is an answer as well.
            ready: Box::new(move || Request::get(&asked).send().map(drop).map_err(|error| error.to_string())),
        };
        let mut running = Supervisor::new(folder.join("run.json"), stop.0.clone());
        running.start(&format!("start {PACKAGE}"), vec![service], PEER_START_TIMEOUT)?;
        Ok(Self { title: title()?, url, _running: running })
    }
}

fn program(no_build: bool) -> Result<PathBuf> {
    if !no_build {
        return artefacts::native(PACKAGE, PACKAGE);
    }
    let program = paths::target()?.join("stack").join(PACKAGE);
    ensure!(program.is_file(), "{} is not there: leave out --no-build", program.display());
    Ok(program)
}

/// The crate's name and version, as it is locked.
fn title() -> Result<String> {
    let metadata = paths::metadata(&["--locked"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let library = packages.iter().find(|package| package["name"] == LIBRARY);
    let version = library.and_then(|library| library["version"].as_str());
    Ok(format!("{LIBRARY} {}", version.with_context(|| format!("{LIBRARY} is no dependency"))?))
}
