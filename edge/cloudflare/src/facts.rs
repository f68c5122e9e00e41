//! From a request to the facts that the engine decides by.

use std::net::{IpAddr, Ipv4Addr};

use meridian_engine::facts::{BodySize, Facts, Place, Scheme, client_address, client_scheme, normalise_host};
use meridian_engine::headers::Headers;
use meridian_wire::edge::Config;
use meridian_wire::place::Places;

use crate::host;

/// Lines of [`host::head`] before the header fields.
pub const LINES_BEFORE_FIELDS: usize = 4;

/// Where the facts come from beside the request's head.
pub struct Sources<'a> {
    /// Whom to believe.
    pub config: &'a Config,
    /// Places of addresses, where Cloudflare does not tell them.
    pub places: Option<&'a Places>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Fresh random bits.
    pub random: [u8; 16],
}

/// Facts of a request out of what [`host::head`] says of it.
pub fn gather(head: &str, sources: &Sources) -> Facts {
    let mut lines = head.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, url, bodied, cf) = (next(), next(), next(), next());
    // A URL that is none has no host, and a host that is none stays as it is: the engine refuses both, with a decision
    // that says so.
    let url = Url::parse(url).unwrap_or_default();
    let headers = host::fields(lines);
    let client = client(&headers, sources.config);
    let place = match cf {
        "" => sources.places.map(|places| places.look_up(client)).unwrap_or_default(),
        cf => place(cf),
    };
    // What a client sends with GET or HEAD can't be sent on by fetch, whatever length it has.
    let body = if bodied == "1" { BodySize::of(&headers, true) } else { BodySize::Empty };
    Facts {
        method: method.to_owned(),
        scheme: scheme(&headers, sources.config, url.scheme),
        host: normalise_host(url.authority).unwrap_or_else(|_| url.authority.to_owned()),
        path: url.path.to_owned(),
        query: url.query.map(str::to_owned),
        headers,
        client,
        place,
        body,
        now_ms: sources.now_ms,
        random: sources.random,
    }
}

struct Url<'a> {
    scheme: Scheme,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl Default for Url<'_> {
    fn default() -> Self {
        Self { scheme: Scheme::Https, authority: "", path: "/", query: None }
    }
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = match url.strip_prefix("https://") {
            Some(rest) => (Scheme::Https, rest),
            None => (Scheme::Http, url.strip_prefix("http://")?),
        };
        let rest = rest.split('#').next()?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Some(Self { scheme, authority, path, query })
    }
}

/// The client: on Cloudflare's network what it says, elsewhere the peer, looked through where it is a trusted proxy.
fn client(headers: &Headers, config: &Config) -> IpAddr {
    let Some(peer) = config.peer else {
        let address = headers.get("cf-connecting-ip").and_then(|address| address.parse().ok());
        return address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    };
    client_address(peer, headers.joined("x-forwarded-for").as_deref(), &config.trusted_proxies)
}

/// Cloudflare's network says the scheme in the URL; elsewhere TLS may end before us.
fn scheme(headers: &Headers, config: &Config, used: Scheme) -> Scheme {
    let proto = headers.joined("x-forwarded-proto");
    config.peer.map_or(used, |peer| client_scheme(used, peer, proto.as_deref(), &config.trusted_proxies))
}

/// Place out of what Cloudflare's network says: country, continent, subdivision, city, time zone, autonomous system,
/// longitude and latitude, with tabs between.
fn place(cf: &str) -> Place {
    let mut fields = cf.split('\t').map(|field| Some(field).filter(|field| !field.is_empty()));
    let mut next = || fields.next().flatten();
    let mut place = Place {
        country: next().map(str::to_owned),
        continent: next().map(str::to_owned),
        subdivision: next().map(str::to_owned),
        city: next().map(str::to_owned),
        timezone: next().map(str::to_owned),
        asn: next().and_then(|number| number.parse().ok()),
        coordinates: None,
    };
    let degrees = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok());
    let (longitude, latitude) = (degrees(next()), degrees(next()));
    place.coordinates = longitude.zip(latitude).map(Into::into);
    place
}

#[cfg(test)]
mod tests {
    use meridian_engine::policy::request::{Malformed, admit};

    use super::*;

    #[test]
    fn urls_come_apart() {
        let check = |url, authority, path, query| {
            let url = Url::parse(url).unwrap();
            assert_eq!((url.authority, url.path, url.query), (authority, path, query));
        };
        check("http://acme.localhost:8787/v1/a%2Fb?x=1?y", "acme.localhost:8787", "/v1/a%2Fb", Some("x=1?y"));
        check("https://acme.example", "acme.example", "/", None);
        check("https://acme.example?x", "acme.example", "/", Some("x"));
        check("http://[::1]:80/", "[::1]:80", "/", None);
        check("http://[::1]/", "[::1]", "/", None);
        assert!(Url::parse("ftp://a/").is_none());
    }

    #[test]
    fn a_head_becomes_facts() {
        let key = |kid: &str, key: &str| format!("{kid}:{key}");
        let config = Config::parse(|name| match name {
            "MERIDIAN_EDGE" => "cloudflare-1".to_owned(),
            "MERIDIAN_ORIGINS" => "us-east-1=http://127.0.0.1:17101".to_owned(),
            "MERIDIAN_TRUSTED_PROXIES" => "127.0.0.0/8".to_owned(),
            "MERIDIAN_PEER_ADDRESS" => "127.0.0.1".to_owned(),
            "MERIDIAN_CONTEXT_KEYS" => key("k1", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"),
            "MERIDIAN_HASH_KEY" => "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg".to_owned(),
            // The public key of RFC 8032, section 7.1, test 1.
            "MERIDIAN_BUNDLE_KEYS" => key("b1", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
            _ => String::new(),
        })
        .unwrap();
        let sources = Sources { config: &config, places: None, now_ms: 5, random: [7; 16] };
        let head = |method: &str, url: &str, bodied: u8, fields: &str| {
            gather(&format!("{method}\n{url}\n{bodied}\n{fields}"), &sources)
        };
        let found =
            head("POST", "http://Acme.localhost:8787/a", 1, "\nx-forwarded-for\n6.6.6.6, 203.0.113.9");
        assert_eq!((found.host.as_str(), found.body), ("acme.localhost", BodySize::Unknown));
        assert_eq!(found.client, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert_eq!(found.scheme, Scheme::Http);
        assert_eq!(head("GET", "http://a/", 0, "\nx-forwarded-proto\nhttps").scheme, Scheme::Https);
        assert_eq!(head("DELETE", "http://a/", 1, "\ncontent-length\n3").body, BodySize::Bytes(3));
        assert_eq!(head("GET", "http://a/", 0, "\ncontent-length\n3").body, BodySize::Empty);
        for (url, host) in [("ftp://a/", ""), ("http://a b/", "a b"), ("http://a:b/", "a:b")] {
            let mut odd = head("GET", url, 0, "");
            assert_eq!(odd.host, host);
            assert_eq!(admit(&mut odd), Err(Malformed::Host), "{url}");
        }
    }

    #[test]
    fn what_cloudflare_does_not_know_stays_empty() {
        let found = place("DE\tEU\tBE\t\tEurope/Berlin\t64496\t13.4\t52.5");
        assert_eq!((found.country.as_deref(), found.city, found.asn), (Some("DE"), None, Some(64496)));
        assert_eq!(found.coordinates, Some((13.4, 52.5).into()));
        assert_eq!(place("\t\t\t\t\t\t\t"), Place::default());
    }
}
