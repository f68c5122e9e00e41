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
        /// Whether it is known to be the tenant's: `pending`, `verified` or `failed`. Only verified hostnames are served.
        #[arg(long, value_name = "STATE", default_value = "verified")]
        verification: String,
    },
    /// Say how far a hostname is.
    Change {
        /// As it was added.
        hostname: String,
        /// `pending`, `verified` or `failed`.
        #[arg(long, value_name = "STATE")]
        verification: Option<String>,
        /// How far its certificate is: `none`, `issuing`, `active`, `renewing` or `failed`.
        #[arg(long, value_name = "STATE")]
        tls: Option<String>,
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
            Self::Add { hostname, tenant, verification } => {
                let body = json!({ "hostname": hostname, "tenant": tenant, "verification": verification });
                let made = client.post("/domains", &body)?.body;
                if json {
                    print::json(&made);
                } else {
                    let (hostname, verification) = (cell(&made, "hostname"), cell(&made, "verification"));
                    print::line(&format!("{hostname} belongs to {tenant}, {verification}"));
                }
            }
            Self::Change { hostname, verification, tls } => {
                let body = json!({ "verification": verification, "tls": tls });
                let changed = client.patch(&format!("/domains/{}", encode(&hostname)), &body)?.body;
                if json {
                    print::json(&changed);
                } else {
                    let (verification, tls) = (cell(&changed, "verification"), cell(&changed, "tls"));
                    print::line(&format!("{hostname} is {verification}, its certificate {tls}"));
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
                    let columns = ["hostname", "tenant", "verification", "tls", "created_at"];
                    let row = |domain| columns.iter().map(|column| cell(domain, column)).collect();
                    let rows: Vec<Vec<String>> = domains.iter().map(row).collect();
                    print::table(&["HOSTNAME", "TENANT", "VERIFICATION", "TLS", "SINCE"], &rows);
                }
            }
        }
        Ok(())
    }
}
