//! From a request to the facts that the engine decides by.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_wire::place::Places;

use crate::config::Config;
use crate::host;
use crate::limits::FORWARDED_FOR_MAX;

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

/// Facts of a request out of what [`host::head`] says of it; `None` where its URL can't be read.
pub fn gather(head: &str, sources: &Sources) -> Option<Facts> {
    let mut lines = head.split('\n');
    let (method, url, bodied, cf) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let url = Url::parse(url)?;
    let headers = host::fields(lines);
    let client = client(&headers, sources.config);
    let place = match cf {
        "" => sources.places.map(|places| places.look_up(client)).unwrap_or_default(),
        cf => place(cf),
    };
    let body = match headers.get("content-length").and_then(|length| length.parse().ok()) {
        Some(0) => BodySize::Empty,
        Some(length) if bodied == "1" => BodySize::Bytes(length),
        None if bodied == "1" => BodySize::Unknown,
        _ => BodySize::Empty,
    };
    Some(Facts {
        method: method.to_owned(),
        scheme: url.scheme,
        host: url.host.to_ascii_lowercase(),
        path: url.path.to_owned(),
        query: url.query.map(str::to_owned),
        headers,
        client,
        place,
        body,
        now_ms: sources.now_ms,
        random: sources.random,
    })
}

struct Url<'a> {
    scheme: Scheme,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
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
        Some(Self { scheme, host: without_port(authority), path, query })
    }
}

/// The host of an authority: `[::1]:80` and `a:80` lose their port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The client: on Cloudflare's network what it says, elsewhere the peer, looked through where it is a trusted proxy.
fn client(headers: &Headers, config: &Config) -> IpAddr {
    let Some(peer) = config.peer else {
        let address = headers.get("cf-connecting-ip").and_then(|address| address.parse().ok());
        return address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    };
    let forwarded = headers.joined("x-forwarded-for").unwrap_or_default();
    through_proxies(peer, &forwarded, &config.trusted_proxies)
}

/// The last address, from the end of `X-Forwarded-For`, that a trusted proxy vouches for.
fn through_proxies(peer: IpAddr, forwarded: &str, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    for entry in forwarded.rsplit(',').take(FORWARDED_FOR_MAX) {
        let Ok(address) = entry.trim().parse() else { break };
        if !is_trusted(&client) {
            break;
        }
        client = address;
    }
    client
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
    use super::*;

    #[test]
    fn urls_come_apart() {
        let check = |url, host, path, query| {
            let url = Url::parse(url).unwrap();
            assert_eq!((url.host, url.path, url.query), (host, path, query));
        };
        check("http://acme.localhost:8787/v1/a%2Fb?x=1?y", "acme.localhost", "/v1/a%2Fb", Some("x=1?y"));
        check("https://acme.example", "acme.example", "/", None);
        check("https://acme.example?x", "acme.example", "/", Some("x"));
        check("http://[::1]:80/", "[::1]", "/", None);
        check("http://[::1]/", "[::1]", "/", None);
        assert!(Url::parse("ftp://a/").is_none());
    }

    #[test]
    fn only_trusted_proxies_are_looked_through() {
        let trusted: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let check = |peer: &str, forwarded, client: &str| {
            let found = through_proxies(peer.parse().unwrap(), forwarded, &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap());
        };
        check("127.0.0.1", "203.0.113.9", "203.0.113.9");
        check("127.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9");
        check("127.0.0.1", "1.1.1.1, 203.0.113.9, 10.1.1.1", "203.0.113.9");
        check("192.0.2.1", "203.0.113.9", "192.0.2.1");
        check("127.0.0.1", "unknown", "127.0.0.1");
        check("127.0.0.1", "203.0.113.9, unknown", "127.0.0.1");
        check("127.0.0.1", "", "127.0.0.1");
    }

    #[test]
    fn what_cloudflare_does_not_know_stays_empty() {
        let found = place("DE\tEU\tBE\t\tEurope/Berlin\t64496\t13.4\t52.5");
        assert_eq!((found.country.as_deref(), found.city, found.asn), (Some("DE"), None, Some(64496)));
        assert_eq!(found.coordinates, Some((13.4, 52.5).into()));
        assert_eq!(place("\t\t\t\t\t\t\t"), Place::default());
    }
}
