//! `meridian replication …` and `meridian conflicts …`

use clap::Subcommand;
use serde_json::Value;

use crate::client::encode;
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;

#[derive(Subcommand)]
pub enum Replication {
    /// How replication with each other region stands, seen from one region.
    Status,
}

#[derive(Subcommand)]
pub enum Conflicts {
    /// The latest conflicts that replication resolved in a region.
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
}

impl Replication {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let Self::Status = self;
        let status = server.client()?.get("/replication")?.body;
        if json {
            print::json(&status);
            return Ok(());
        }
        print::line(&format!("seen from {}", cell(&status, "region")));
        let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
        if peers.is_empty() {
            print::line("no other region");
            return Ok(());
        }
        // The columns are those that the server tells, so that what it learns to tell is shown.
        let mut columns: Vec<String> = Vec::new();
        for name in peers.iter().filter_map(Value::as_object).flat_map(|peer| peer.keys()) {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        columns.sort_by_key(|name| (name != "region" && name != "peer", name != "state"));
        let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
        let rows: Vec<Vec<String>> =
            peers.iter().map(|peer| columns.iter().map(|name| cell(peer, name)).collect()).collect();
        print::table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        Ok(())
    }
}

impl Conflicts {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let Self::List { tenant, limit } = self;
        let tenant = tenant.map(|slug| format!("&tenant={}", encode(&slug))).unwrap_or_default();
        let answer = server.client()?.get(&format!("/conflicts?limit={limit}{tenant}"))?.body;
        if json {
            print::json(&answer);
            return Ok(());
        }
        let conflicts = answer.get("conflicts").and_then(Value::as_array).cloned().unwrap_or_default();
        let columns = ["id", "tenant", "table_name", "key", "class", "winner", "reason"];
        let rows: Vec<Vec<String>> =
            conflicts.iter().map(|one| columns.iter().map(|name| cell(one, name)).collect()).collect();
        print::table(&["ID", "TENANT", "TABLE", "KEY", "CLASS", "WINNER", "REASON"], &rows);
        Ok(())
    }
}
