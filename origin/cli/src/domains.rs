//! `meridian domain …`

use clap::Subcommand;
use serde_json::json;

use crate::client::encode;
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;

#[derive(Subcommand)]
pub enum Domains {
    /// Give a tenant a hostname.
    Add {
        /// Exact, or with a leading `*.`.
        hostname: String,
        /// Slug of the tenant.
        #[arg(long, value_name = "SLUG")]
        tenant: String,
    },
    /// Hostnames.
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
    },
}

impl Domains {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        match self {
            Self::Add { hostname, tenant } => {
                let made = client.post("/domains", &json!({ "hostname": hostname, "tenant": tenant }))?.body;
                if json {
                    print::json(&made);
                } else {
                    print::line(&format!("{} belongs to {tenant}", cell(&made, "hostname")));
                }
            }
            Self::List { tenant } => {
                let path = match tenant {
                    Some(tenant) => format!("/domains?tenant={}", encode(&tenant)),
                    None => "/domains".to_owned(),
                };
                let domains = client.list(&path, "domains", "after")?;
                if json {
                    print::json(&json!({ "domains": domains }));
                } else {
                    let row = |domain| {
                        vec![cell(domain, "hostname"), cell(domain, "tenant"), cell(domain, "created_at")]
                    };
                    let rows: Vec<Vec<String>> = domains.iter().map(row).collect();
                    print::table(&["HOSTNAME", "TENANT", "SINCE"], &rows);
                }
            }
        }
        Ok(())
    }
}
