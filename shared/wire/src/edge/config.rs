//! What an edge is told by its variables and secrets.

use std::net::IpAddr;

use ipnet::IpNet;
use meridian_engine::facts::parse_networks;
use meridian_engine::secret::Secrets;

use crate::keyring::{HashKey, InvalidHashKey, InvalidKeyring, MacKeyring, PublicKeyring};
use crate::limits::{EDGE_ORIGINS_MAX, TRUSTED_PROXIES_MAX};

const EDGE: &str = "MERIDIAN_EDGE";
const ORIGINS: &str = "MERIDIAN_ORIGINS";
const CONTEXT_KEYS: &str = "MERIDIAN_CONTEXT_KEYS";
const HASH_KEY: &str = "MERIDIAN_HASH_KEY";
const BUNDLE_KEYS: &str = "MERIDIAN_BUNDLE_KEYS";
const TRUSTED_PROXIES: &str = "MERIDIAN_TRUSTED_PROXIES";
const UNKNOWN_HOST_STATUS: &str = "MERIDIAN_UNKNOWN_HOST_STATUS";
/// The variable of hosts that can't tell an edge who its peer is.
pub const PEER_ADDRESS: &str = "MERIDIAN_PEER_ADDRESS";
/// The variables of every edge.
pub const VARIABLES: [&str; 7] =
    [EDGE, ORIGINS, CONTEXT_KEYS, HASH_KEY, BUNDLE_KEYS, TRUSTED_PROXIES, UNKNOWN_HOST_STATUS];

/// Domain of the keys of the edges' own cookies, which are the same on every edge with the same keyring.
const COOKIES: &str = "meridian-cookie-v1\n";
/// Domain of what the engine hashes with.
const HASHES: &str = "meridian-hash-v1\n";

/// Configuration of an edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this edge.
    pub edge: String,
    /// Where bundles, leases and news come from, in the order given; at least one.
    pub origins: Vec<Origin>,
    /// Keys of the signed context, and of the edge's own cookies.
    pub context_keys: MacKeyring,
    /// Secret of keyed hashes. It has nothing to do with keys, so that those can rotate.
    pub hash_key: HashKey,
    /// Keys that may sign bundles.
    pub bundle_keys: PublicKeyring,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Status of the reply to a host that is nobody's: 421, or 404.
    pub unknown_host_status: u16,
    /// Address of the peer, where the host can't tell it.
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// There is no such variable, or it is empty.
    #[error("variable {0} is not set")]
    Missing(&'static str),
    /// A keyring is not one.
    #[error("variable {0}: {1}")]
    Keys(&'static str, InvalidKeyring),
    /// The secret of hashes is not one.
    #[error("variable {0}: {1}")]
    HashKey(&'static str, InvalidHashKey),
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
    /// Reads the configuration from the variables' values; what is not set is empty.
    ///
    /// # Errors
    /// The first variable that is missing or not readable.
    pub fn parse(value: impl Fn(&'static str) -> String) -> Result<Self, InvalidConfig> {
        let needed =
            |name| Some(value(name)).filter(|text| !text.is_empty()).ok_or(InvalidConfig::Missing(name));
        let invalid_keys = |name| move |error| InvalidConfig::Keys(name, error);
        Ok(Self {
            edge: needed(EDGE)?,
            origins: origins(&needed(ORIGINS)?)?,
            context_keys: MacKeyring::parse(&needed(CONTEXT_KEYS)?)
                .and_then(MacKeyring::without_zeros)
                .map_err(invalid_keys(CONTEXT_KEYS))?,
            hash_key: HashKey::parse(&needed(HASH_KEY)?)
                .map_err(|error| InvalidConfig::HashKey(HASH_KEY, error))?,
            bundle_keys: PublicKeyring::parse(&needed(BUNDLE_KEYS)?).map_err(invalid_keys(BUNDLE_KEYS))?,
            trusted_proxies: networks(&value(TRUSTED_PROXIES))?,
            unknown_host_status: unknown_host_status(&value(UNKNOWN_HOST_STATUS))?,
            peer: peer(&value(PEER_ADDRESS))?,
        })
    }

    /// What the engine signs and hashes with: cookies by all keys of the keyring, hashes by their own secret.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let mut signing = self.context_keys.derive(COOKIES);
        let first = signing.next().unwrap_or_default();
        Secrets::new(&self.hash_key.hash(HASHES, b"derive"), &first).with_older(signing)
    }
}

fn origins(text: &str) -> Result<Vec<Origin>, InvalidConfig> {
    let invalid = |found: &str| InvalidConfig::Value {
        name: ORIGINS,
        found: found.to_owned(),
        expected: "REGION=URL[,REGION=URL…], at most 64 of them (EDGE_ORIGINS_MAX)",
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
    if origins.len() > EDGE_ORIGINS_MAX { Err(invalid(text)) } else { Ok(origins) }
}

fn networks(text: &str) -> Result<Vec<IpNet>, InvalidConfig> {
    let invalid = |found: String| InvalidConfig::Value {
        name: TRUSTED_PROXIES,
        found,
        expected: "networks in CIDR notation or addresses, at most 64 of them (TRUSTED_PROXIES_MAX)",
    };
    let networks = parse_networks(text).map_err(|error| invalid(error.0))?;
    if networks.len() > TRUSTED_PROXIES_MAX {
        Err(invalid(format!("{} networks", networks.len())))
    } else {
        Ok(networks)
    }
}

fn unknown_host_status(text: &str) -> Result<u16, InvalidConfig> {
    match text {
        "" | "421" => Ok(421),
        "404" => Ok(404),
        found => Err(InvalidConfig::Value {
            name: UNKNOWN_HOST_STATUS,
            found: found.to_owned(),
            expected: "421, 404 or nothing",
        }),
    }
}

fn peer(text: &str) -> Result<Option<IpAddr>, InvalidConfig> {
    let invalid = || InvalidConfig::Value {
        name: PEER_ADDRESS,
        found: text.to_owned(),
        expected: "an IP address or nothing",
    };
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64url;

    fn parse(changed: &'static str, value: &str) -> Result<Config, InvalidConfig> {
        let public = *ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([3; 32])).pk;
        Config::parse(|name| match name {
            _ if name == changed => value.to_owned(),
            EDGE => "spin-1".to_owned(),
            ORIGINS => "us-east-1=http://127.0.0.1:17101/, eu-west-1=https://eu.example".to_owned(),
            CONTEXT_KEYS => format!("k1:{}", base64url(&[7; 32])),
            HASH_KEY => base64url(&[8; 32]),
            BUNDLE_KEYS => format!("b1:{}", base64url(&public)),
            _ => String::new(),
        })
    }

    #[test]
    fn reads_what_is_given() {
        let config = parse(TRUSTED_PROXIES, "127.0.0.0/8, ::1").unwrap();
        assert_eq!(
            config.origins[0],
            Origin { region: "us-east-1".into(), url: "http://127.0.0.1:17101".into() }
        );
        assert_eq!(config.origins[1].region, "eu-west-1");
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!((config.peer, config.unknown_host_status), (None, 421));
        assert_eq!(parse(UNKNOWN_HOST_STATUS, "404").unwrap().unknown_host_status, 404);
        assert!(parse("", "").unwrap().trusted_proxies.is_empty());
        assert_eq!(parse(PEER_ADDRESS, "127.0.0.1").unwrap().peer, "127.0.0.1".parse().ok());
    }

    #[test]
    fn says_which_variable_is_wrong_and_shows_no_key() {
        let zero = base64url(&[0; 32]);
        for (name, value) in [
            (EDGE, ""),
            (ORIGINS, ""),
            (ORIGINS, "us-east-1"),
            (ORIGINS, "us-east-1=ftp://a"),
            (ORIGINS, &"a=http://b,".repeat(EDGE_ORIGINS_MAX + 1)),
            (CONTEXT_KEYS, "k1:c2VjcmV0"),
            (CONTEXT_KEYS, &format!("k1:{zero}")),
            (HASH_KEY, ""),
            (HASH_KEY, "c2VjcmV0"),
            (HASH_KEY, &zero),
            (BUNDLE_KEYS, "c2VjcmV0"),
            (BUNDLE_KEYS, &format!("k1:{zero}")),
            (TRUSTED_PROXIES, "127.0.0.1/64"),
            (TRUSTED_PROXIES, &"::1,".repeat(TRUSTED_PROXIES_MAX + 1)),
            (UNKNOWN_HOST_STATUS, "200"),
            (PEER_ADDRESS, "localhost"),
        ] {
            let error = parse(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("c2VjcmV0") && !error.contains(&zero), "{error}");
        }
    }
}
