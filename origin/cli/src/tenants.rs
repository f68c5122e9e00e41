//! `meridian tenant …`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::encode;
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;

#[derive(Subcommand)]
pub enum Tenants {
    /// Make a tenant.
    Create {
        /// 1 to 63 lower-case letters, digits and inner hyphens; never changes.
        slug: String,
        /// Name for people; the slug where it is not given.
        #[arg(long)]
        name: Option<String>,
        /// Region of its writes by default.
        #[arg(long, value_name = "REGION")]
        home_region: String,
        /// Regions that may hold its data, separated by commas; all that the server knows where they are not given.
        #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
        allowed_regions: Vec<String>,
        /// Slug of the tenant above it: it is served only while all above it are. Never changes.
        #[arg(long, value_name = "SLUG")]
        parent: Option<String>,
        /// What its contract lets it have: a file with the `plan` of a Tenant document, as JSON.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// Change a tenant.
    Change {
        /// Its slug.
        slug: String,
        /// `active` or `suspended`. While it is suspended, so are all below it.
        #[arg(long)]
        state: Option<String>,
        /// Name for people.
        #[arg(long)]
        name: Option<String>,
        /// Region of its writes by default; one of those allowed.
        #[arg(long, value_name = "REGION")]
        home_region: Option<String>,
        /// What its contract lets it have: a file with the `plan` of a Tenant document, as JSON; `{}` takes it away.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// All tenants.
    List,
}

impl Tenants {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        match self {
            Self::Create { slug, name, home_region, allowed_regions, parent, plan } => {
                let mut body = json!({
                    "slug": slug,
                    "name": name.unwrap_or_else(|| slug.clone()),
                    "home_region": home_region,
                });
                if !allowed_regions.is_empty() {
                    body["allowed_regions"] = json!(allowed_regions);
                }
                if let Some(parent) = parent {
                    body["parent"] = json!(parent);
                }
                if let Some(plan) = plan {
                    body["plan"] = read(&plan)?;
                }
                let made = client.post("/tenants", &body)?.body;
                if json {
                    print::json(&made);
                } else {
                    print::line(&format!("made tenant {slug}, at home in {}", cell(&made, "home_region")));
                }
            }
            Self::Change { slug, state, name, home_region, plan } => {
                let mut body = json!({ "state": state, "name": name, "home_region": home_region });
                if let Some(plan) = plan {
                    body["plan"] = read(&plan)?;
                }
                let changed = client.patch(&format!("/tenants/{}", encode(&slug)), &body)?.body;
                if json {
                    print::json(&changed);
                } else {
                    let home = cell(&changed, "home_region");
                    print::line(&format!("tenant {slug} is {}, at home in {home}", state_of(&changed)));
                }
            }
            Self::List => {
                let tenants = client.list("/tenants", "tenants", "after")?;
                if json {
                    print::json(&json!({ "tenants": tenants }));
                } else {
                    let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
                    print::table(&["SLUG", "NAME", "PARENT", "STATE", "PLAN", "HOME", "ALLOWED"], &rows);
                }
            }
        }
        Ok(())
    }
}

fn row(tenant: &Value) -> Vec<String> {
    let plan = tenant.get("plan").map(|plan| cell(plan, "name")).unwrap_or_default();
    let text = |column| cell(tenant, column);
    let (home, allowed) = (text("home_region"), text("allowed_regions"));
    vec![text("slug"), text("name"), text("parent"), state_of(tenant), plan, home, allowed]
}

/// Whether a tenant is served, and by whom it is not.
fn state_of(tenant: &Value) -> String {
    match tenant.get("suspended_by").and_then(Value::as_str) {
        Some(above) => format!("suspended by {above}"),
        None => cell(tenant, "state"),
    }
}

/// A file with JSON.
fn read(path: &Path) -> Result<Value, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("no JSON: {error}")))
}
