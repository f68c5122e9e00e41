//! What single arguments are read as.

use std::str::FromStr;

use http::Uri;
use meridian_store::limits::REGION_ORDINAL_MAX;

/// A text that no log and no error shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An absolute `http` or `https` URL without path, query and trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    authority: String,
    host: String,
}

impl BaseUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host[:port]`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether requests that were signed for this authority (`host[:port]`) are meant for this origin: its own
    /// authority, and where that is a loopback address, any other port of the loopback as well, so that a
    /// proxy may stand between on a developer's machine.
    #[must_use]
    pub fn accepts(&self, authority: &str) -> bool {
        if authority == self.authority {
            return true;
        }
        let host = authority.parse::<http::uri::Authority>().ok();
        is_loopback(&self.host) && host.is_some_and(|authority| is_loopback(authority.host()))
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A text that is not a [`BaseUrl`].
#[derive(Debug, thiserror::Error)]
#[error("expected http://HOST[:PORT] or https://HOST[:PORT], without a path, found {0:?}")]
pub struct InvalidBaseUrl(String);

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidBaseUrl(text.to_owned());
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| invalid())?;
        let authority = uri.authority().ok_or_else(invalid)?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https"))
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !plain {
            return Err(invalid());
        }
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            authority: authority.as_str().to_owned(),
            host: authority.host().to_owned(),
        })
    }
}

/// Another region: `REGION:ORDINAL=URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Id.
    pub region: String,
    /// Ordinal.
    pub ordinal: u16,
    /// Where its origin is.
    pub url: BaseUrl,
}

/// A text that is not a [`Peer`].
#[derive(Debug, thiserror::Error)]
#[error("expected REGION:ORDINAL=URL with an ordinal from 1 to {max}, found {0:?}", max = REGION_ORDINAL_MAX)]
pub struct InvalidPeer(String);

impl FromStr for Peer {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let peer = || {
            let (name, url) = text.split_once('=')?;
            let (region, ordinal) = name.split_once(':')?;
            let ordinal =
                ordinal.parse().ok().filter(|ordinal| (1..=REGION_ORDINAL_MAX).contains(ordinal))?;
            Some(Self { region: region.to_owned(), ordinal, url: url.parse().ok()? })
        };
        peer().filter(|peer| !peer.region.is_empty()).ok_or_else(|| InvalidPeer(text.to_owned()))
    }
}

/// A SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// In lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a [`Sha256Hex`].
#[derive(Debug, thiserror::Error)]
#[error("expected a SHA-256 as 64 hexadecimal characters")]
pub struct InvalidSha256;

impl FromStr for Sha256Hex {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidSha256)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::Cli;

    #[test]
    fn a_peer_is_read() {
        let peer: Peer = "eu-west-1:2=http://127.0.0.1:17102/".parse().unwrap();
        assert_eq!(
            (peer.region.as_str(), peer.ordinal, peer.url.as_str()),
            ("eu-west-1", 2, "http://127.0.0.1:17102")
        );
        for wrong in
            ["eu-west-1=http://a", ":2=http://a", "eu:0=http://a", "eu:2=ftp://a", "eu:2=http://a/b", "eu:2"]
        {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
        assert!("eu:255=http://a".parse::<Peer>().is_ok());
        let wrong = "eu:256=http://a".parse::<Peer>().unwrap_err().to_string();
        assert!(wrong.contains("an ordinal from 1 to 255"), "{wrong}");
        let read = |ordinal: &str| {
            let arguments = ["origin", "migrate", "--region", "eu", "--region-ordinal", ordinal];
            Cli::read(arguments.into_iter().chain(["--owner-url", "postgres://a"]).map(OsString::from))
        };
        assert!(read("255").is_ok());
        let wrong = read("256").unwrap_err().to_string();
        assert!(wrong.contains("1..=255"), "{wrong}");
    }

    #[test]
    fn only_its_own_authority_is_accepted_beyond_the_loopback() {
        let local: BaseUrl = "http://127.0.0.1:17101".parse().unwrap();
        assert!(local.accepts("127.0.0.1:17101") && local.accepts("localhost:9") && local.accepts("[::1]:9"));
        assert!(!local.accepts("origin.example"));
        let public: BaseUrl = "https://us.origin.example".parse().unwrap();
        assert!(public.accepts("us.origin.example"));
        assert!(!public.accepts("eu.origin.example") && !public.accepts("127.0.0.1:17101"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret: Secret = "postgres://a:hush@b/c".parse().unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
