//! The two edges: the Cloudflare worker on workerd, and the Spin component in its host.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::http::Request;
use super::keys::Keys;
use super::layout::write_private;
use super::supervise::{Ready, Service, Tier};
use crate::paths;
use crate::setup::npm;
use crate::template::fill_in_quoted;

/// The local edges believe `X-Forwarded-For` from this machine, so that a place can be tried.
const TRUSTED_PROXIES: &str = "127.0.0.0/8,::1/128";

/// Where the configuration of workerd has flags of V8.
const V8_FLAGS: &str = "v8Flags = [";

/// What one edge needs to know.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its name in logs, `up.json` and decisions: `edge-NAME` is the process.
    pub name: String,
    /// `HOST:PORT`.
    pub listen: String,
    /// The value of `MERIDIAN_ORIGINS`.
    pub origins: String,
    /// Where it keeps what it remembers.
    pub state: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// The place database.
    pub places: PathBuf,
    /// Whether it only counts as serving when it has rules; else any answer of its own will do.
    pub with_rules: bool,
    /// Whether its runtime tells Linux perf of the functions that it compiles.
    pub perf_map: bool,
}

impl Edge {
    /// The variables that every edge gets, whatever its host.
    fn variables(&self, keys: &Keys) -> Vec<(&'static str, String)> {
        vec![
            ("MERIDIAN_EDGE", format!("{}-1", self.name)),
            ("MERIDIAN_ORIGINS", self.origins.clone()),
            ("MERIDIAN_CONTEXT_KEYS", keys.context.clone()),
            ("MERIDIAN_HASH_KEY", keys.hash.clone()),
            ("MERIDIAN_BUNDLE_KEYS", keys.bundle.public()),
            ("MERIDIAN_TRUSTED_PROXIES", TRUSTED_PROXIES.to_owned()),
            ("MERIDIAN_UNKNOWN_HOST_STATUS", String::new()),
        ]
    }

    /// Serves when it answers with a decision; one that has no rules yet answers 503.
    fn ready(&self) -> Ready {
        let (url, with_rules) = (format!("http://{}/", self.listen), self.with_rules);
        Box::new(move || match Request::get(&url).header("host", "acme.localhost").send() {
            Ok(answer) if with_rules && answer.status == 503 => Err("has no rules yet".to_owned()),
            Ok(answer) if with_rules && answer.status == 500 => Err("is not configured".to_owned()),
            Ok(answer) if answer.decision().is_some() => Ok(()),
            Ok(answer) => Err(format!("answers {} without a decision", answer.status)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// The edge on workerd; `build` is the folder with the built worker.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn on_workerd(&self, build: &Path, tools: &npm::Tools, keys: &Keys) -> Result<Service> {
        for folder in ["kv", "objects", "cache"] {
            fs::create_dir_all(self.state.join(folder))
                .with_context(|| format!("could not create {}", self.state.display()))?;
        }
        let here = paths::root().join("infra/workerd");
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut values = self.variables(keys);
        values.extend([
            // The local runtime does not tell the worker who its peer is.
            ("MERIDIAN_PEER_ADDRESS", "127.0.0.1".to_owned()),
            ("LISTEN", self.listen.clone()),
            ("BUILD", text(build.to_path_buf())),
            ("EDGE", text(paths::root().join("edge/cloudflare"))),
            ("HERE", text(here.clone())),
            ("SIMULATORS", text(tools.folder.join("node_modules/miniflare/dist/src/workers"))),
            ("STATE", text(self.state.clone())),
            ("PLACES", text(self.places.clone())),
        ]);
        let template = here.join("config.capnp.in");
        let text = fs::read_to_string(&template)
            .with_context(|| format!("could not read {}", template.display()))?;
        let config = self.state.join("config.capnp");
        let mut text =
            fill_in_quoted(&text, &values).with_context(|| format!("in {}", template.display()))?;
        if self.perf_map {
            ensure!(text.contains(V8_FLAGS), "{} has no flags of V8", template.display());
            text = text.replace(V8_FLAGS, &format!("{V8_FLAGS}\"--perf-basic-prof\", "));
        }
        write_private(&config, text.as_bytes())?;
        Ok(Service {
            name: format!("edge-{}", self.name),
            tier: Tier::Edge,
            program: tools.workerd.clone(),
            arguments: ["serve", "--experimental", "-I", "/"]
                .map(Into::into)
                .into_iter()
                .chain([config.into()])
                .collect(),
            environment: vec![],
            folder: self.state.clone(),
            run_as: None,
            log: self.log.clone(),
            ready: self.ready(),
            // The open-source runtime lets a worker compute for ever.
            watched_at: self.listen.parse().ok(),
        })
    }

    /// The edge in the Spin host, as `manifest` describes it.
    ///
    /// # Errors
    /// When its state folder can't be made.
    pub fn in_spin_host(&self, program: &Path, manifest: &Path, keys: &Keys) -> Result<Service> {
        fs::create_dir_all(&self.state)
            .with_context(|| format!("could not create {}", self.state.display()))?;
        let mut variables = self.variables(keys);
        // What whoever develops an upstream runs here.
        variables.push(("MERIDIAN_UPSTREAM_HOSTS", "https://localhost:*".to_owned()));
        let mut arguments: Vec<OsString> = vec![
            "--manifest".into(),
            manifest.into(),
            "--listen".into(),
            self.listen.clone().into(),
            "--state-dir".into(),
            self.state.clone().into(),
        ];
        if self.perf_map {
            arguments.push("--perf-map".into());
        }
        Ok(Service {
            name: format!("edge-{}", self.name),
            tier: Tier::Edge,
            program: program.to_path_buf(),
            arguments,
            // In the environment, where the list of processes does not show the keys; `spin up` reads the same names.
            environment: variables
                .into_iter()
                .map(|(name, value)| (format!("SPIN_VARIABLE_{name}"), value))
                .collect(),
            folder: paths::root(),
            run_as: None,
            log: self.log.clone(),
            ready: self.ready(),
            watched_at: None,
        })
    }
}

/// A copy of `spin.toml` in `folder` that runs another component.
///
/// # Errors
/// When the one can't be read or the other not be written.
pub fn manifest_with(component: &Path, folder: &Path) -> Result<PathBuf> {
    let path = paths::root().join("spin.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let mut manifest: toml::Table = text.parse().context("in spin.toml")?;
    let components = manifest.get_mut("component").and_then(toml::Value::as_table_mut);
    for (_, table) in components.context("spin.toml: no component")?.iter_mut() {
        let table = table.as_table_mut().context("spin.toml: a component is a table")?;
        table.insert("source".to_owned(), component.to_string_lossy().into_owned().into());
        for file in table.get_mut("files").and_then(toml::Value::as_array_mut).into_iter().flatten() {
            if let Some(source) = file.get_mut("source") {
                let absolute = paths::root().join(source.as_str().unwrap_or_default());
                *source = absolute.to_string_lossy().into_owned().into();
            }
        }
    }
    let copy = folder.join("spin.toml");
    fs::write(&copy, manifest.to_string()).with_context(|| format!("could not write {}", copy.display()))?;
    Ok(copy)
}
