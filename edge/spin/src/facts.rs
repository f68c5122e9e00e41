//! From a request's head to the facts that the engine decides by.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use meridian_engine::facts::{BodySize, Facts, Scheme, client_address, client_scheme, normalise_host};
use meridian_engine::headers::Headers;
use meridian_wire::place::Places;

/// Header fields under which Spin tells a component about its request; they are Spin's alone and go no further.
const SPIN_PREFIX: &str = "spin-";
const CLIENT_ADDRESS: &str = "spin-client-addr";

/// Head of a request, as the host hands it over.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Method.
    pub method: String,
    /// Whether the client used TLS.
    pub secure: bool,
    /// Host and port that the request is for.
    pub authority: Option<String>,
    /// Path and query.
    pub target: Option<String>,
    /// Header fields.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// What facts come from beside the head.
pub struct Sources<'a> {
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: &'a [IpNet],
    /// Places of addresses, if there is a database.
    pub places: Option<&'a Places>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Fresh random bits.
    pub random: [u8; 16],
}

/// Gathers the facts of a request. `has_body` is whether it has a body where no length is given.
#[must_use]
pub fn gather(head: Head, has_body: bool, sources: &Sources<'_>) -> Facts {
    let mut headers = Headers::with_capacity(head.fields.len());
    let mut peer = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut host_field = None;
    let is_unframed = !takes_a_body(&head.method);
    for (name, value) in head.fields {
        // What is no text in a value becomes U+FFFD, as it does on workerd and in responses: the other fields say all the same
        // what they say.
        let value = String::from_utf8_lossy(&value);
        if name.starts_with(SPIN_PREFIX) {
            if name == CLIENT_ADDRESS {
                peer = peer_address(&value).unwrap_or(peer);
            }
        } else if name == "host" {
            host_field = Some(value.into_owned());
        } else if is_unframed && name == "content-length" && value == "0" {
            // The host's way to say that there is no body.
        } else {
            headers.append(name, value);
        }
    }
    let authority = head.authority.or(host_field).unwrap_or_default();
    // A host that is none stays as it is: the engine refuses it, with a decision that says so.
    let host = normalise_host(&authority).unwrap_or(authority);
    let target = head.target.unwrap_or_else(|| "/".to_owned());
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target, None),
    };
    let used = if head.secure { Scheme::Https } else { Scheme::Http };
    let proto = headers.joined("x-forwarded-proto");
    let client = client_address(peer, headers.joined("x-forwarded-for").as_deref(), sources.trusted_proxies);
    Facts {
        body: BodySize::of(&headers, has_body),
        method: head.method,
        scheme: client_scheme(used, peer, proto.as_deref(), sources.trusted_proxies),
        host,
        path: if path.is_empty() { "/".to_owned() } else { path },
        query,
        headers,
        client,
        place: sources.places.map(|places| places.look_up(client)).unwrap_or_default(),
        now_ms: sources.now_ms,
        random: sources.random,
    }
}

impl Head {
    /// Whether there is a body, as far as the head tells: the host hides `Transfer-Encoding`, so that where no length
    /// is given either only the body itself does (`None`), but for methods that are nothing without one. The local Spin host says
    /// `Content-Length: 0` where there is none.
    #[must_use]
    pub fn has_body(&self) -> Option<bool> {
        match self.fields.iter().find(|(name, _)| name == "content-length") {
            Some((_, length)) => Some(length != b"0"),
            None => takes_a_body(&self.method).then_some(true),
        }
    }
}

/// Whether a request of this method without a body says so (RFC 9110, section 8.6).
fn takes_a_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// Spin gives the peer's address with its port.
fn peer_address(text: &str) -> Option<IpAddr> {
    text.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, authority: &str, target: &str, fields: &[(&str, &str)]) -> Head {
        Head {
            method: method.to_owned(),
            secure: false,
            authority: Some(authority.to_owned()).filter(|authority| !authority.is_empty()),
            target: Some(target.to_owned()),
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
        }
    }

    fn facts(head: Head) -> Facts {
        let trusted: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
        let has_body = head.has_body().unwrap_or_default();
        gather(
            head,
            has_body,
            &Sources { trusted_proxies: &trusted, places: None, now_ms: 5, random: [7; 16] },
        )
    }

    #[test]
    fn a_head_becomes_facts() {
        let found = facts(head(
            "GET",
            "Acme.localhost:3000",
            "/v1/a%2Fb?x=1?y",
            &[
                ("accept", "text/html"),
                ("spin-client-addr", "192.0.2.1:5000"),
                ("spin-full-url", "http://forged/"),
            ],
        ));
        assert_eq!((found.host.as_str(), found.path.as_str()), ("acme.localhost", "/v1/a%2Fb"));
        assert_eq!(found.query.as_deref(), Some("x=1?y"));
        assert_eq!(found.client, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(found.headers.len(), 1);
        assert_eq!(found.body, BodySize::Empty);
        assert_eq!((found.now_ms, found.random), (5, [7; 16]));
    }

    #[test]
    fn the_client_is_who_trusted_proxies_say() {
        #[rustfmt::skip]
        let cases = [
            ("127.0.0.1:9", "203.0.113.9", "203.0.113.9"),
            ("127.0.0.1:9", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("192.0.2.1:9", "203.0.113.9", "192.0.2.1"),
            ("[2001:db8::1]:9", "", "2001:db8::1"),
            ("nonsense", "203.0.113.9", "0.0.0.0"),
        ];
        for (peer, forwarded, client) in cases {
            let fields =
                [("spin-client-addr", peer), ("x-forwarded-for", forwarded), ("x-forwarded-proto", "https")];
            let found = facts(head("GET", "a", "/", &fields));
            assert_eq!(found.client, client.parse::<IpAddr>().unwrap(), "{peer} {forwarded}");
            assert_eq!(found.scheme == Scheme::Https, peer.starts_with("127."), "{peer}");
        }
    }

    #[test]
    fn bodies_are_recognised() {
        let size = |method, fields: &[(&str, &str)]| facts(head(method, "a", "/", fields)).body;
        assert_eq!(size("POST", &[("content-length", "12")]), BodySize::Bytes(12));
        assert_eq!(size("POST", &[("content-length", "0")]), BodySize::Empty);
        assert_eq!(size("POST", &[]), BodySize::Unknown);
        assert_eq!(size("GET", &[]), BodySize::Empty);
        assert_eq!(size("DELETE", &[("content-length", "3")]), BodySize::Bytes(3));
        assert_eq!(head("DELETE", "a", "/", &[]).has_body(), None, "the body itself has to be asked");
        let none = head("GET", "a", "/", &[("content-length", "0")]);
        assert_eq!(none.has_body(), Some(false));
        assert!(facts(none).headers.is_empty(), "nobody said that but the host");
    }

    #[test]
    fn the_host_field_counts_where_there_is_no_authority() {
        assert_eq!(facts(head("GET", "", "/", &[("host", "b.example:80")])).host, "b.example");
        assert_eq!(facts(head("GET", "a.example", "/", &[("host", "b.example")])).host, "a.example");
        assert_eq!(facts(head("GET", "not a host", "/", &[])).host, "not a host");
    }

    #[test]
    fn what_is_no_text_in_a_value_is_marked_as_such() {
        let mut odd = head("GET", "a", "/", &[("y", "caf\u{e9}")]);
        odd.fields.push(("x".to_owned(), b"caf\xe9 \xf0\x9f".to_vec()));
        let facts = facts(odd);
        assert_eq!(facts.headers.get("x"), Some("caf\u{fffd} \u{fffd}"));
        assert_eq!(facts.headers.get("y"), Some("caf\u{e9}"));
    }
}
