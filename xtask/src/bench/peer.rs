//! The JavaScript peer on its own workerd, and the tokens of the benchmark.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::paths;
use crate::run::run;
use crate::setup::npm;
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Tier};

/// Distinct tokens: several times what an edge remembers, so that each is forgotten when its turn comes again.
pub const TOKENS: u64 = 40_000;
const ISSUER: &str = "https://issuer.bench.example";
const AUDIENCE: &str = "https://api.bench.example";

/// Keys and tokens, made anew for every run.
pub struct Tokens {
    /// JSON Web Key Set of the two keys, secrets included.
    pub keys: Value,
    /// File of one HS256 token.
    pub hs256: PathBuf,
    /// File of [`TOKENS`] ES256 tokens.
    pub es256: PathBuf,
}

impl Tokens {
    /// Makes them in `folder`.
    ///
    /// # Errors
    /// When Node is missing or fails.
    pub fn mint(folder: &Path) -> Result<Self> {
        let script = paths::root().join("tests/bench/tokens.mjs");
        let mut node = Command::new("node");
        let printed = run("mint tokens", node.arg(script).arg(folder).arg(TOKENS.to_string()))?;
        let keys = serde_json::from_str(&printed).context("tokens.mjs printed no JSON")?;
        Ok(Self { keys, hs256: folder.join("hs256.txt"), es256: folder.join("es256.txt") })
    }

    /// A member of the key with this id.
    pub fn key(&self, kid: &str, member: &str) -> Result<&str> {
        let keys = self.keys["keys"].as_array().context("a key set has keys")?;
        let key = keys.iter().find(|key| key["kid"] == kid);
        key.and_then(|key| key[member].as_str()).with_context(|| format!("key {kid} has no {member}"))
    }

    /// The first token of a file.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn first(file: &Path) -> Result<String> {
        let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

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
    let mut text =
        fs::read_to_string(&template).with_context(|| format!("could not read {}", template.display()))?;
    let values = [
        ("@LISTEN@", format!("127.0.0.1:{port}")),
        ("@BUNDLE@", bundle.to_string_lossy().into_owned()),
        ("@WORKERD@", paths::root().join("infra/workerd").to_string_lossy().into_owned()),
        ("@JWKS@", tokens.keys.to_string()),
        ("@ISSUER@", ISSUER.to_owned()),
        ("@AUDIENCE@", AUDIENCE.to_owned()),
        ("@UPSTREAM@", upstream.to_owned()),
    ];
    for (name, value) in values {
        ensure!(text.contains(name), "{} has no {name}", template.display());
        text = text.replace(name, &value.replace('\\', "\\\\").replace('"', "\\\""));
    }
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
        ready: Box::new(move || match Request::get(&url).send() {
            Ok(answer) if answer.status == 404 => Ok(()),
            Ok(answer) => Err(format!("answers {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }),
    })
}
