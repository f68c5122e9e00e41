//! What the worker is told by its variables and secrets.

use std::net::IpAddr;

use ipnet::IpNet;
use meridian_wire::keyring::{InvalidKeyring, MacKeyring, PublicKeyring};
use worker::Env;

use crate::limits::{ORIGINS_MAX, PROXIES_MAX};

/// Configuration of an edge.
#[derive(Debug)]
pub struct Config {
    /// Name of this edge.
    pub edge: String,
    /// Where bundles, leases and news come from, in the order given; at least one.
    pub origins: Vec<Origin>,
    /// Keys of the signed context.
    pub context_keys: MacKeyring,
    /// Keys that may sign bundles.
    pub bundle_keys: PublicKeyring,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Address of the peer where the host can't tell it; `None` on Cloudflare's network.
    pub peer: Option<IpAddr>,
}

/// An origin as the edge's own calls reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its region.
    pub region: String,
    /// Base URL without a trailing slash.
    pub url: String,
}

/// A variable that is missing or not readable. Never holds a key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// There is no such variable.
    #[error("variable {0} is not set")]
    Missing(&'static str),
    /// A keyring is not one.
    #[error("variable {0}: {1}")]
    Keys(&'static str, InvalidKeyring),
    /// Anything else.
    #[error("variable {name}: found {found:?}, expected {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it holds there.
        found: String,
        /// What it should.
        expected: &'static str,
    },
}

impl Config {
    /// Reads the variables and secrets of the worker.
    pub fn read(env: &Env) -> Result<Self, InvalidConfig> {
        let text = |name: &'static str| env.var(name).map(|value| value.to_string()).unwrap_or_default();
        Self::parse(text)
    }

    fn parse(text: impl Fn(&'static str) -> String) -> Result<Self, InvalidConfig> {
        let needed =
            |name| Some(text(name)).filter(|value| !value.is_empty()).ok_or(InvalidConfig::Missing(name));
        let (contexts, bundles) = ("MERIDIAN_CONTEXT_KEYS", "MERIDIAN_BUNDLE_KEYS");
        let invalid_keys = |name| move |error| InvalidConfig::Keys(name, error);
        Ok(Self {
            edge: needed("MERIDIAN_EDGE")?,
            origins: origins(&needed("MERIDIAN_ORIGINS")?)?,
            context_keys: MacKeyring::parse(&needed(contexts)?).map_err(invalid_keys(contexts))?,
            bundle_keys: PublicKeyring::parse(&needed(bundles)?).map_err(invalid_keys(bundles))?,
            trusted_proxies: networks(&text("MERIDIAN_TRUSTED_PROXIES"))?,
            peer: peer(&text("MERIDIAN_PEER_ADDRESS"))?,
        })
    }
}

fn origins(text: &str) -> Result<Vec<Origin>, InvalidConfig> {
    let invalid = |found: &str| InvalidConfig::Value {
        name: "MERIDIAN_ORIGINS",
        found: found.to_owned(),
        expected: "REGION=URL[,REGION=URL…], at most 64",
    };
    let origin = |entry: &str| {
        let (region, url) = entry.trim().split_once('=').ok_or_else(|| invalid(entry))?;
        let absolute = url.starts_with("http://") || url.starts_with("https://");
        let url = url.trim_end_matches('/').to_owned();
        if absolute && !region.is_empty() {
            Ok(Origin { region: region.to_owned(), url })
        } else {
            Err(invalid(entry))
        }
    };
    let origins: Vec<_> = text.split(',').map(origin).collect::<Result<_, _>>()?;
    if origins.len() > ORIGINS_MAX { Err(invalid(text)) } else { Ok(origins) }
}

fn networks(text: &str) -> Result<Vec<IpNet>, InvalidConfig> {
    let invalid = |found: &str| InvalidConfig::Value {
        name: "MERIDIAN_TRUSTED_PROXIES",
        found: found.to_owned(),
        expected: "networks in CIDR notation, at most 64",
    };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let networks: Vec<_> =
        entries.map(|entry| entry.parse().map_err(|_| invalid(entry))).collect::<Result<_, _>>()?;
    if networks.len() > PROXIES_MAX { Err(invalid(text)) } else { Ok(networks) }
}

fn peer(text: &str) -> Result<Option<IpAddr>, InvalidConfig> {
    let invalid = || InvalidConfig::Value {
        name: "MERIDIAN_PEER_ADDRESS",
        found: text.to_owned(),
        expected: "an IP address or nothing",
    };
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(changed: &'static str, value: &'static str) -> Result<Config, InvalidConfig> {
        let key = "k1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
        Config::parse(move |name| {
            let given = match name {
                _ if name == changed => value,
                "MERIDIAN_EDGE" => "cloudflare-1",
                "MERIDIAN_ORIGINS" => "us-east-1=http://127.0.0.1:17101/,eu-west-1=https://eu.example",
                "MERIDIAN_CONTEXT_KEYS" | "MERIDIAN_BUNDLE_KEYS" => key,
                _ => "",
            };
            given.to_owned()
        })
    }

    #[test]
    fn reads_what_is_given() {
        let config = parse("MERIDIAN_TRUSTED_PROXIES", "127.0.0.0/8, ::1/128").unwrap();
        assert_eq!(
            config.origins[0],
            Origin { region: "us-east-1".into(), url: "http://127.0.0.1:17101".into() }
        );
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(config.peer, None);
    }

    #[test]
    fn says_which_variable_is_wrong_and_shows_no_key() {
        for (name, value) in [
            ("MERIDIAN_EDGE", ""),
            ("MERIDIAN_ORIGINS", "us-east-1"),
            ("MERIDIAN_ORIGINS", "us-east-1=ftp://a"),
            ("MERIDIAN_CONTEXT_KEYS", "k1:c2VjcmV0"),
            ("MERIDIAN_TRUSTED_PROXIES", "127.0.0.1/64"),
            ("MERIDIAN_PEER_ADDRESS", "localhost"),
        ] {
            let error = parse(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
