//! `up.json`: what a running stack tells tests and people about itself.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::keys::Keys;
use super::layout::{Layout, REGIONS, write_private};
use super::places::Places;
use super::postgres::{DATABASE, SUPERUSER};
use super::tokens::Issuer;

/// The whole file.
#[derive(Clone, Debug, Serialize)]
pub struct UpFile {
    edges: BTreeMap<&'static str, String>,
    origins: BTreeMap<&'static str, Origin>,
    control: Control,
    tenants: Vec<Tenant>,
    places: BTreeMap<String, String>,
    pids: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Serialize)]
struct Origin {
    url: String,
    postgres: String,
}

#[derive(Clone, Debug, Serialize)]
struct Control {
    url: String,
    token: String,
}

#[derive(Clone, Debug, Serialize)]
struct Tenant {
    slug: &'static str,
    host: &'static str,
    collection: &'static str,
    tokens: Tokens,
}

/// Tokens to try.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    /// May read orders.
    pub reader: String,
    /// May read and write orders.
    pub writer: String,
    /// Was valid yesterday.
    pub expired: String,
    /// Is valid, but another tenant's issuer signed it.
    pub other_tenant: String,
}

impl Tokens {
    /// Fresh tokens.
    pub fn mint(keys: &Keys) -> Self {
        let acme = Issuer::acme(keys);
        Self {
            reader: acme.token("reader-1", "orders:read"),
            writer: acme.token("writer-1", "orders:read orders:write"),
            expired: acme.expired("reader-1", "orders:read"),
            other_tenant: Issuer::globex(keys).token("reader-1", "orders:read"),
        }
    }
}

impl UpFile {
    /// Describes a stack whose processes are not known yet.
    pub fn new(layout: &Layout, keys: &Keys, tokens: Tokens, places: &Places) -> Self {
        let origin = |region| Origin {
            url: layout.origin_url(region),
            postgres: layout.postgres_url(region, SUPERUSER, &keys.postgres_superuser, DATABASE),
        };
        Self {
            edges: BTreeMap::from([("cloudflare", layout.cloudflare_url()), ("spin", layout.spin_url())]),
            origins: REGIONS.map(|region| (region.id, origin(region))).into(),
            control: Control { url: layout.origin_url(REGIONS[0]), token: keys.control_token.clone() },
            tenants: vec![Tenant { slug: "acme", host: "acme.localhost", collection: "orders", tokens }],
            places: places.samples(),
            pids: BTreeMap::new(),
        }
    }

    /// Writes the file with the processes that run now: whole, and readable by its owner only.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&mut self, layout: &Layout, pids: Vec<(String, u32)>) -> Result<()> {
        self.pids = pids.into_iter().collect();
        write_private(&layout.up_file(), &serde_json::to_vec_pretty(self)?)
    }

    /// The file on one line.
    pub fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}
