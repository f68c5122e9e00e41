//! The control API of each region.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::asking::Change;
use crate::scratch::Up;
use crate::stack::http::{Request, agent};

/// Where it is.
pub struct Control {
    regions: BTreeMap<String, String>,
    token: String,
    agent: ureq::Agent,
}

/// A file of a push: path and content.
pub type File = (String, String);

/// A release that was made.
pub struct Pushed {
    /// Its version.
    pub version: String,
    /// When it was made.
    pub change: Change,
}

impl Control {
    /// Of a running stack.
    pub fn new(up: &Up) -> Self {
        let regions = up.origins.iter().map(|(region, origin)| (region.clone(), origin.url.clone()));
        Self { regions: regions.collect(), token: up.control.token.clone(), agent: agent() }
    }

    /// The regions.
    pub fn regions(&self) -> Vec<String> {
        self.regions.keys().cloned().collect()
    }

    /// The value of `MERIDIAN_ORIGINS`, `first` before the others.
    pub fn origins(&self, first: &str) -> String {
        let mut regions: Vec<_> = self.regions.iter().collect();
        regions.sort_by_key(|(region, _)| *region != first);
        regions.iter().map(|(region, url)| format!("{region}={url}")).collect::<Vec<_>>().join(",")
    }

    /// Asks a region's API.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn get(&self, region: &str, path: &str) -> Result<Value> {
        let url = self.url(region, path)?;
        self.ask(Request::get(&url))
    }

    /// As [`Control::get`], with a body.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn post(&self, region: &str, path: &str, body: &Value) -> Result<Value> {
        let url = self.url(region, path)?;
        self.ask(Request::post(&url, body))
    }

    /// The version of a tenant's newest release.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn head(&self, region: &str, tenant: &str) -> Result<String> {
        version(&self.get(region, &format!("targets/tenant:{tenant}/head"))?)
    }

    /// Pushes a tenant's rules at a region.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn push(&self, region: &str, tenant: &str, parent: &str, files: &[File]) -> Result<Pushed> {
        let files: Vec<Value> =
            files.iter().map(|(path, content)| json!({"path": path, "content": content})).collect();
        let body = json!({"parent": parent, "files": files, "note": "bench rollout"});
        let sent = Instant::now();
        let made = self.post(region, &format!("targets/tenant:{tenant}/releases"), &body)?;
        let change = Change { sent, accepted: Instant::now() };
        Ok(Pushed { version: version(&made)?, change })
    }

    /// Makes a tenant with one hostname and these rules.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn tenant(&self, region: &str, slug: &str, host: &str, files: &[File]) -> Result<()> {
        let tenant = json!({"slug": slug, "name": slug, "home_region": region});
        self.post(region, "tenants", &tenant)?;
        self.push(region, slug, &self.head(region, slug)?, files)?;
        self.post(region, "domains", &json!({"hostname": host, "tenant": slug}))?;
        Ok(())
    }

    fn url(&self, region: &str, path: &str) -> Result<String> {
        let url = self.regions.get(region).with_context(|| format!("no region {region}"))?;
        Ok(format!("{url}/control/v1/{path}"))
    }

    fn ask(&self, request: Request<'_>) -> Result<Value> {
        let url = request.url;
        let answer =
            request.header("authorization", format!("Bearer {}", self.token)).send_by(&self.agent)?;
        ensure!((200..300).contains(&answer.status), "{url} answered {}: {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).with_context(|| format!("{url} answered no JSON"))
    }
}

fn version(release: &Value) -> Result<String> {
    Ok(release["version"].as_str().context("a release has a version")?.to_owned())
}

/// The files in a folder.
///
/// # Errors
/// When they can't be read.
pub fn files_in(folder: &Path) -> Result<Vec<File>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let content = fs::read_to_string(entry.path())
            .with_context(|| format!("could not read {}", entry.path().display()))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), content));
    }
    files.sort();
    Ok(files)
}

/// A rule that no route uses and that says how often rules were pushed: each push has a version of its own.
pub fn counter(number: u32) -> File {
    let text = format!(
        "apiVersion: meridian/v1\nkind: RateLimit\nmetadata: {{name: counter}}\n\
         spec: {{key: [subject], quota: {}, window: 1m}}\n",
        1 + number
    );
    ("counter.yaml".to_owned(), text)
}
