//! The JavaScript peer on its own workerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::tokens::{AUDIENCE, ISSUER, Tokens};
use crate::paths;
use crate::run::run;
use crate::setup::npm;
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Tier};
use crate::template::fill_in_quoted;

/// Bundles the peer; returns the one file that it is.
///
/// # Errors
/// When esbuild fails.
pub fn bundle(tools: &npm::Tools, folder: &Path) -> Result<PathBuf> {
    let output = folder.join("peer.js");
    let mut esbuild = Command::new(&tools.esbuild);
    esbuild.arg(paths::root().join("tests/bench/peer/worker.js"));
    esbuild.args(["--bundle", "--format=esm", "--minify"]).arg(format!("--outfile={}", output.display()));
    esbuild.env("NODE_PATH", tools.folder.join("node_modules"));
    run("bundle the JavaScript peer", &mut esbuild)?;
    Ok(output)
}

/// The peer as a service.
///
/// # Errors
/// When its configuration can't be written.
pub fn service(
    tools: &npm::Tools,
    folder: &Path,
    bundle: &Path,
    port: u16,
    tokens: &Tokens,
    upstream: &str,
) -> Result<Service> {
    let template = paths::root().join("tests/bench/peer/config.capnp.in");
    let text =
        fs::read_to_string(&template).with_context(|| format!("could not read {}", template.display()))?;
    let values = [
        ("LISTEN", format!("127.0.0.1:{port}")),
        ("BUNDLE", bundle.to_string_lossy().into_owned()),
        ("WORKERD", paths::root().join("infra/workerd").to_string_lossy().into_owned()),
        ("JWKS", tokens.keys.to_string()),
        ("ISSUER", ISSUER.to_owned()),
        ("AUDIENCE", AUDIENCE.to_owned()),
        ("UPSTREAM", upstream.to_owned()),
    ];
    let text = fill_in_quoted(&text, &values).with_context(|| format!("in {}", template.display()))?;
    let config = folder.join("peer.capnp");
    fs::write(&config, text).with_context(|| format!("could not write {}", config.display()))?;
    let url = format!("http://127.0.0.1:{port}/local/open");
    Ok(Service {
        name: "peer".to_owned(),
        tier: Tier::Edge,
        program: tools.workerd.clone(),
        arguments: vec!["serve".into(), "-I".into(), "/".into(), config.into()],
        environment: vec![],
        folder: folder.to_path_buf(),
        run_as: None,
        log: folder.join("peer.log"),
        watched_at: None,
        ready: Box::new(move || match Request::get(&url).send() {
            Ok(answer) if answer.status == 404 => Ok(()),
            Ok(answer) => Err(format!("answers {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }),
    })
}
