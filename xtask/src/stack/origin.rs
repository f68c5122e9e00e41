//! The regional origins.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::http::Request;
use super::keys::Keys;
use super::layout::{Layout, REGIONS, Region};
use super::postgres::{DATABASE, SUPERUSER};
use super::supervise::{Service, Supervisor, Tier};
use crate::limits::ORIGIN_START_TIMEOUT;
use crate::run::run;

/// Makes databases and roles where they are missing, and starts the three origins.
///
/// # Errors
/// When a database can't be made ready or an origin does not serve.
pub fn start(program: &Path, layout: &Layout, keys: &Keys, supervisor: &mut Supervisor) -> Result<()> {
    for region in REGIONS {
        let mut bootstrap = Command::new(program);
        let superuser = layout.postgres_url(region, SUPERUSER, &keys.postgres_superuser, "postgres");
        // In the environment, where the list of processes does not show the password.
        bootstrap.arg("bootstrap").env("MERIDIAN_SUPERUSER_URL", &superuser);
        bootstrap.envs(environment(layout, keys, region));
        run(&format!("roles and database in {}", region.id), &mut bootstrap)?;
    }
    let services = REGIONS.map(|region| service(program, layout, keys, region)).into_iter().collect();
    supervisor.start("origins in three regions", services, ORIGIN_START_TIMEOUT)
}

fn service(program: &Path, layout: &Layout, keys: &Keys, region: Region) -> Service {
    let name = format!("origin-{}", region.id);
    let health = format!("{}/readyz", layout.origin_url(region));
    Service {
        log: layout.log(&name),
        watched_at: None,
        name,
        tier: Tier::Origin,
        program: program.to_path_buf(),
        arguments: vec!["serve".into()],
        environment: environment(layout, keys, region).into_iter().chain(passed_on()).collect(),
        folder: layout.data.clone(),
        run_as: None,
        ready: Box::new(move || match Request::get(&health).send() {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("/readyz answers {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// What whoever starts the stack tells its origins: where traces go (OpenTelemetry), who answers for names, and who may read numbers.
fn passed_on() -> impl Iterator<Item = (String, String)> {
    let is_theirs = |name: &str| {
        name.starts_with("OTEL_") || ["MERIDIAN_NAME_SERVERS", "MERIDIAN_METRICS_TOKEN"].contains(&name)
    };
    std::env::vars().filter(move |(name, _)| is_theirs(name))
}

/// The environment of one region's origin.
pub fn environment(layout: &Layout, keys: &Keys, region: Region) -> Vec<(String, String)> {
    let database = |role: &str, password: &str| layout.postgres_url(region, role, password, DATABASE);
    let peers = REGIONS.iter().filter(|peer| peer.id != region.id);
    let peers: Vec<String> =
        peers.map(|peer| format!("{}:{}={}", peer.id, peer.ordinal, layout.origin_url(*peer))).collect();
    let pairs = [
        ("MERIDIAN_REGION", region.id.to_owned()),
        ("MERIDIAN_REGION_ORDINAL", region.ordinal.to_string()),
        ("MERIDIAN_LISTEN", format!("127.0.0.1:{}", layout.origin_port(region))),
        ("MERIDIAN_PUBLIC_URL", layout.origin_url(region)),
        ("MERIDIAN_DATABASE_URL", database("meridian_app", &keys.postgres_app)),
        ("MERIDIAN_REPLICATION_URL", database("meridian_replicator", &keys.postgres_replicator)),
        ("MERIDIAN_OWNER_URL", database("meridian_owner", &keys.postgres_owner)),
        ("MERIDIAN_PEERS", peers.join(",")),
        ("MERIDIAN_CONTEXT_KEYS", keys.context.clone()),
        ("MERIDIAN_PEER_KEYS", keys.peer.clone()),
        ("MERIDIAN_BUNDLE_SIGNING_KEY", keys.bundle.secret()),
        ("MERIDIAN_CONTROL_TOKEN_SHA256", keys.control_token_sha256()),
        // What whoever develops an upstream runs here.
        ("MERIDIAN_UPSTREAM_CHECKS", "any".to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}
