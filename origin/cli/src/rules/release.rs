//! Releases: compared, made, taken back, listed, through the control API.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use meridian_engine::ruleset::Target;
use meridian_wire::authored::{Compiled, File, Warning};
use meridian_wire::bundle::Bundle;
use meridian_wire::document::{Body, Document, Metadata, PlanSpec, Source, TenantSpec, TenantStateSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Set, checked, show, target};
use crate::client::{Client, encode, errors_of};
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;

#[derive(Args)]
pub struct Push {
    /// Folder or file of all documents of the target.
    path: PathBuf,
    /// `platform` or `tenant:SLUG`. Without it, what a Tenant or Region document among them says.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    /// Version that these documents were made from, or `none`. Without it, the newest release.
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
    /// What for.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Args)]
pub struct Rollback {
    /// `platform` or `tenant:SLUG`.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Target,
    /// Version to release again. Without it, the one before the newest.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Version that is the newest. Without it, whichever is.
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
    /// What for.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Args)]
pub struct List {
    /// `platform` or `tenant:SLUG`.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Target,
}

/// `rules diff` against the newest release.
pub fn diff(set: &Set, server: &Server, json: bool) -> Result<(), Failure> {
    let client = server.client()?;
    let (files, target) = set.read()?;
    let compiled = checked(&target, &files, Some(&generated(&client, &target)?))?;
    let head = head(&client, &target)?;
    let diff = against(&client, &target, head.as_deref(), &compiled)?;
    if json {
        print::json(&json!({ "target": target.to_string(), "head": head, "diff": diff }));
    } else {
        show::diff(&diff);
    }
    Ok(())
}

impl Push {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        let set = Set { path: self.path.clone(), target: self.target.clone() };
        let (files, target) = set.read()?;
        // Checked here first: errors are shown with their lines, and nothing is sent that would be refused.
        let compiled = checked(&target, &files, Some(&generated(&client, &target)?))?;
        let head = head(&client, &target)?;
        let diff = against(&client, &target, head.as_deref(), &compiled)?;
        if !json {
            show::warnings(&compiled.warnings);
            print::line(&format!("{target} on {}", client.url()));
            show::diff(&diff);
        }
        let parent = match self.parent {
            None => head,
            Some(none) if none == "none" => None,
            Some(version) => Some(version),
        };
        let sent: Vec<Value> =
            files.iter().map(|file| json!({ "path": file.path, "content": file.content })).collect();
        let body = json!({ "parent": parent, "files": sent, "note": self.note });
        let path = format!("/targets/{}/releases", encode(&target.to_string()));
        let answer = client.post(&path, &body).map_err(|failure| with_lines(failure, &files))?;
        let pushed = answer.status == 201;
        if json {
            print::json(&json!({ "pushed": pushed, "release": answer.body, "diff": diff }));
        } else if pushed {
            print::line(&released(&answer.body));
        } else {
            print::line(&format!("nothing to release: {} is the same", cell(&answer.body, "version")));
        }
        Ok(())
    }
}

impl Rollback {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        let base = format!("/targets/{}", encode(&self.target.to_string()));
        let head = client.get(&format!("{base}/head"))?.body;
        let before = head.get("parent").and_then(Value::as_str).map(str::to_owned);
        let to = self.to.or(before).ok_or_else(|| {
            Failure::Usage(format!("{} has no release before the newest: give --to VERSION", self.target))
        })?;
        let parent = self.parent.unwrap_or_else(|| cell(&head, "version"));
        let body = json!({ "parent": parent, "to": to, "note": self.note });
        let answer = client.post(&format!("{base}/rollback"), &body)?;
        if json {
            print::json(&json!({ "pushed": answer.status == 201, "release": answer.body }));
            return Ok(());
        }
        show::warnings(&warnings(&answer.body));
        if answer.status == 201 {
            print::line(&format!("{}, as {to}", released(&answer.body)));
        } else {
            print::line(&format!("nothing to release: {} is the same", cell(&answer.body, "version")));
        }
        Ok(())
    }
}

impl List {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        let path = format!("/targets/{}/releases", encode(&self.target.to_string()));
        let releases = client.list(&path, "releases", "before")?;
        if json {
            print::json(&json!({ "target": self.target.to_string(), "releases": releases }));
            return Ok(());
        }
        let columns = ["sequence", "version", "parent", "kind", "created_at", "created_by", "note"];
        let rows: Vec<Vec<String>> =
            releases.iter().map(|release| columns.iter().map(|name| cell(release, name)).collect()).collect();
        print::table(&["SEQUENCE", "VERSION", "PARENT", "KIND", "AT", "BY", "NOTE"], &rows);
        Ok(())
    }
}

fn released(release: &Value) -> String {
    format!("released {} (sequence {})", cell(release, "version"), cell(release, "sequence"))
}

/// What the server says of a release that it made; none from one that says nothing of the kind.
fn warnings(release: &Value) -> Vec<Warning> {
    let warnings = release.get("warnings").cloned();
    warnings.and_then(|warnings| serde_json::from_value(warnings).ok()).unwrap_or_default()
}

/// A refused push, with the lines of the files that it is about.
fn with_lines(failure: Failure, files: &[File]) -> Failure {
    match failure {
        Failure::Refused { what, status, problem } => {
            let errors = errors_of(&problem);
            let what = if errors.is_empty() { what } else { print::invalid(files, &errors) };
            Failure::Refused { what, status, problem }
        }
        other => other,
    }
}

/// Version of the newest release, if there is one.
fn head(client: &Client, target: &Target) -> Result<Option<String>, Failure> {
    match client.get(&format!("/targets/{}/head", encode(&target.to_string()))) {
        Ok(answer) => Ok(answer.body.get("version").and_then(Value::as_str).map(str::to_owned)),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn against(
    client: &Client,
    target: &Target,
    head: Option<&str>,
    compiled: &Compiled,
) -> Result<meridian_wire::authored::Diff, Failure> {
    let before: Vec<Document> = match head {
        None => Vec::new(),
        Some(version) => {
            let path = format!("/targets/{}/releases/{}", encode(&target.to_string()), encode(version));
            let release = client.get(&path)?.body;
            let bundle = release.get("bundle").cloned().unwrap_or(Value::Null);
            let bundle: Bundle = serde_json::from_value(bundle).map_err(|error| {
                Failure::Server(format!("the bundle of release {version} is not readable: {error}"))
            })?;
            bundle.documents
        }
    };
    Ok(meridian_wire::authored::diff(&before, &compiled.documents))
}

/// The documents that the control plane makes of its tables.
fn generated(client: &Client, target: &Target) -> Result<Vec<Document>, Failure> {
    let Target::Tenant(slug) = target else { return Ok(Vec::new()) };
    let tenant = client.get(&format!("/tenants/{}", encode(slug)))?.body;
    let regions =
        tenant.get("allowed_regions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |name: &str| tenant.get(name).and_then(Value::as_str).map(str::to_owned);
    let suspended_by = text("suspended_by");
    let spec = TenantSpec {
        state: match tenant.get("state").and_then(Value::as_str) {
            Some("suspended") => TenantStateSpec::Suspended,
            _ if suspended_by.is_some() => TenantStateSpec::Suspended,
            _ => TenantStateSpec::Active,
        },
        home_region: cell(&tenant, "home_region"),
        allowed_regions: regions.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        parent: text("parent"),
        suspended_by,
        plan: tenant.get("plan").map(read::<PlanSpec>).transpose()?.unwrap_or_default(),
    };
    let document = |body: Body, name: String| Document {
        body,
        metadata: Metadata { name, description: None },
        source: Source { file: "control-plane".to_owned(), line: 1 },
    };
    let mut documents = vec![document(Body::Tenant(spec), slug.clone())];
    let domains = client.list(&format!("/domains?tenant={}", encode(slug)), "domains", "after")?;
    let domains: BTreeMap<String, &Value> =
        domains.iter().map(|domain| (cell(domain, "hostname"), domain)).collect();
    for (hostname, domain) in domains {
        let state = |name: &str| domain.get(name).map(|state| (name.to_owned(), state.clone()));
        let states = ["tenant", "verification", "tls"].into_iter().filter_map(state).collect();
        documents.push(document(Body::Domain(read(&Value::Object(states))?), hostname));
    }
    Ok(documents)
}

/// A part of a document, as the server has it.
fn read<T: DeserializeOwned>(part: &Value) -> Result<T, Failure> {
    serde_json::from_value(part.clone()).map_err(|error| {
        Failure::Server(format!("the server says of a tenant what is not known here: {error}"))
    })
}
