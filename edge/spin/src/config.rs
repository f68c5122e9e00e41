//! What the component is told by its variables.

use ipnet::IpNet;
use meridian_engine::facts::parse_networks;
use meridian_wire::keyring::{InvalidKeyring, MacKeyring, PublicKeyring};

use crate::limits::{ORIGINS_MAX, PROXIES_MAX};

/// Names of the variables, as `spin.toml` declares them.
pub const VARIABLES: [&str; 5] = [
    "meridian_edge",
    "meridian_origins",
    "meridian_context_keys",
    "meridian_bundle_keys",
    "meridian_trusted_proxies",
];

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
    /// There is no such variable, or it is empty.
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
    /// Reads the configuration from the variables' values.
    ///
    /// # Errors
    /// The first variable that is missing or not readable.
    pub fn parse(value: impl Fn(&'static str) -> String) -> Result<Self, InvalidConfig> {
        let [edge, origins, context_keys, bundle_keys, proxies] = VARIABLES;
        let needed =
            |name| Some(value(name)).filter(|text| !text.is_empty()).ok_or(InvalidConfig::Missing(name));
        Ok(Self {
            edge: needed(edge)?,
            origins: parse_origins(origins, &needed(origins)?)?,
            context_keys: MacKeyring::parse(&needed(context_keys)?)
                .map_err(|error| InvalidConfig::Keys(context_keys, error))?,
            bundle_keys: PublicKeyring::parse(&needed(bundle_keys)?)
                .map_err(|error| InvalidConfig::Keys(bundle_keys, error))?,
            trusted_proxies: proxy_networks(proxies, &value(proxies))?,
        })
    }
}

fn parse_origins(name: &'static str, text: &str) -> Result<Vec<Origin>, InvalidConfig> {
    let invalid = |found: &str| InvalidConfig::Value {
        name,
        found: found.to_owned(),
        expected: "REGION=URL[,REGION=URL…], at most 64 of them",
    };
    let origin = |entry: &str| {
        let (region, url) = entry.trim().split_once('=').ok_or_else(|| invalid(entry))?;
        let absolute = url.starts_with("http://") || url.starts_with("https://");
        if !absolute || region.is_empty() {
            return Err(invalid(entry));
        }
        Ok(Origin { region: region.to_owned(), url: url.trim_end_matches('/').to_owned() })
    };
    let origins: Vec<Origin> = text.split(',').map(origin).collect::<Result<_, _>>()?;
    if origins.len() > ORIGINS_MAX { Err(invalid(text)) } else { Ok(origins) }
}

fn proxy_networks(name: &'static str, text: &str) -> Result<Vec<IpNet>, InvalidConfig> {
    let invalid = |found: String| InvalidConfig::Value {
        name,
        found,
        expected: "networks in CIDR notation or addresses, at most 64 of them",
    };
    let networks = parse_networks(text).map_err(|error| invalid(error.0))?;
    if networks.len() > PROXIES_MAX {
        Err(invalid(format!("{} networks", networks.len())))
    } else {
        Ok(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(changed: &'static str, value: &'static str) -> Result<Config, InvalidConfig> {
        let key = "k1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
        Config::parse(move |name| {
            let given = match name {
                _ if name == changed => value,
                "meridian_edge" => "spin-1",
                "meridian_origins" => "us-east-1=http://127.0.0.1:17101/, eu-west-1=https://eu.example",
                "meridian_context_keys" | "meridian_bundle_keys" => key,
                _ => "",
            };
            given.to_owned()
        })
    }

    #[test]
    fn reads_what_is_given() {
        let config = parse("meridian_trusted_proxies", "127.0.0.0/8, ::1").unwrap();
        assert_eq!(
            config.origins[0],
            Origin { region: "us-east-1".into(), url: "http://127.0.0.1:17101".into() }
        );
        assert_eq!(config.origins[1].region, "eu-west-1");
        assert_eq!(config.trusted_proxies.len(), 2);
        assert!(parse("", "").unwrap().trusted_proxies.is_empty());
    }

    #[test]
    fn says_which_variable_is_wrong_and_shows_no_key() {
        for (name, value) in [
            ("meridian_edge", ""),
            ("meridian_origins", ""),
            ("meridian_origins", "us-east-1"),
            ("meridian_origins", "us-east-1=ftp://a"),
            ("meridian_context_keys", "k1:c2VjcmV0"),
            ("meridian_bundle_keys", "c2VjcmV0"),
            ("meridian_trusted_proxies", "127.0.0.1/64"),
        ] {
            let error = parse(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
