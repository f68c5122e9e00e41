//! `meridian tenant …`

use clap::Subcommand;
use serde_json::json;

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
    },
    /// All tenants.
    List,
}

impl Tenants {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        match self {
            Self::Create { slug, name, home_region, allowed_regions } => {
                let mut body = json!({
                    "slug": slug,
                    "name": name.unwrap_or_else(|| slug.clone()),
                    "home_region": home_region,
                });
                if !allowed_regions.is_empty() {
                    body["allowed_regions"] = json!(allowed_regions);
                }
                let made = client.post("/tenants", &body)?.body;
                if json {
                    print::json(&made);
                } else {
                    print::line(&format!("made tenant {slug}, at home in {}", cell(&made, "home_region")));
                }
            }
            Self::List => {
                let tenants = client.list("/tenants", "tenants", "after")?;
                if json {
                    print::json(&json!({ "tenants": tenants }));
                } else {
                    let columns = ["slug", "name", "state", "home_region", "allowed_regions"];
                    let row = |tenant| columns.iter().map(|column| cell(tenant, column)).collect();
                    let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
                    print::table(&["SLUG", "NAME", "STATE", "HOME", "ALLOWED"], &rows);
                }
            }
        }
        Ok(())
    }
}
