//! The JavaScript peers, each on a workerd of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::field::Peer;
use super::tokens::{AUDIENCE, ISSUER, Tokens};
use crate::paths;
use crate::run::run;
use crate::setup::npm;
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Tier};
use crate::template::fill_in_quoted;

/// One of the peers.
#[derive(Clone, Copy)]
pub struct Script {
    /// Name of its process.
    pub name: &'static str,
    /// Its file in `tests/bench/peer`.
    pub file: &'static str,
}

/// Does for every request what a worker in production does.
pub const PEER: Script = Script { name: "peer", file: "worker.js" };
/// Does the JWT, the forwarding and the cache alone.
pub const LEAN: Script = Script { name: "lean", file: "lean.js" };

impl Script {
    /// The one file that it is bundled into.
    pub fn bundle(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.js", self.name))
    }
}

/// Bundles a peer; what it is as a service on a port of 127.0.0.1.
///
/// # Errors
/// When esbuild fails, or its configuration can't be written.
pub fn peer(
    script: Script,
    tools: &npm::Tools,
    folder: &Path,
    port: u16,
    tokens: &Tokens,
    upstream: &str,
) -> Result<Peer> {
    let bundled = bundle(script, tools, folder)?;
    let template = paths::root().join("tests/bench/peer/config.capnp.in");
    let text =
        fs::read_to_string(&template).with_context(|| format!("could not read {}", template.display()))?;
    let values = [
        ("LISTEN", format!("127.0.0.1:{port}")),
        ("BUNDLE", bundled.to_string_lossy().into_owned()),
        ("WORKERD", paths::root().join("infra/workerd").to_string_lossy().into_owned()),
        ("JWKS", tokens.keys.to_string()),
        ("ISSUER", ISSUER.to_owned()),
        ("AUDIENCE", AUDIENCE.to_owned()),
        ("UPSTREAM", upstream.to_owned()),
    ];
    let text = fill_in_quoted(&text, &values).with_context(|| format!("in {}", template.display()))?;
    let config = folder.join(format!("{}.capnp", script.name));
    fs::write(&config, text).with_context(|| format!("could not write {}", config.display()))?;
    let url = format!("http://127.0.0.1:{port}");
    let asked = format!("{url}/local/open");
    let service = Service {
        name: script.name.to_owned(),
        tier: Tier::Edge,
        program: tools.workerd.clone(),
        arguments: vec!["serve".into(), "-I".into(), "/".into(), config.into()],
        environment: vec![],
        folder: folder.to_path_buf(),
        run_as: None,
        log: folder.join(format!("{}.log", script.name)),
        watched_at: None,
        ready: Box::new(move || match Request::get(&asked).send() {
            Ok(answer) if answer.status == 404 => Ok(()),
            Ok(answer) => Err(format!("answers {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }),
    };
    Ok(Peer { url, service })
}

fn bundle(script: Script, tools: &npm::Tools, folder: &Path) -> Result<PathBuf> {
    let output = script.bundle(folder);
    let mut esbuild = Command::new(&tools.esbuild);
    esbuild.arg(paths::root().join("tests/bench/peer").join(script.file));
    esbuild.args(["--bundle", "--format=esm", "--minify"]).arg(format!("--outfile={}", output.display()));
    esbuild.env("NODE_PATH", tools.folder.join("node_modules"));
    run(&format!("bundle the JavaScript peer {}", script.file), &mut esbuild)?;
    Ok(output)
}
