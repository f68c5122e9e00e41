//! Which hosts a component may send requests to: the patterns of `allowed_outbound_hosts`.
//!
//! A pattern is `scheme://host[:port]`. The scheme is a name or `*`; the host is a name, `*`, `*.` and a domain, an IP
//! address or a network in CIDR form; the port is a number, a range `low..high` (the end not included), or `*`, and
//! where it is left out it is the scheme's own. See <https://spinframework.dev/http-outbound>. Hosts by which Spin leads
//! requests back into the application are refused, as this host can't: all but [`AUTHORITY`], behind which functions run.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::Range};

use ipnet::IpNet;

use crate::{functions::AUTHORITY, variables::Template};

/// The domain of the application's own components (service chaining).
const COMPONENTS: &str = "spin.internal";
/// The application itself.
const SELF: [&str; 2] = ["self", "self.alt"];

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPattern {
    scheme: Scheme,
    host: Host,
    port: Port,
}

#[derive(Clone, Debug, PartialEq)]
enum Scheme {
    Any,
    Name(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Host {
    Any,
    Name(String),
    Below(String),
    Network(IpNet),
}

#[derive(Clone, Debug, PartialEq)]
enum Port {
    Any,
    Range(Range<u32>),
}

/// A host pattern that isn't one, and why.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("found the host pattern \"{pattern}\", {problem}")]
pub struct InvalidHostPattern {
    pattern: String,
    problem: String,
}

/// The patterns of `allowed_outbound_hosts` with variables' values in them. One that is nothing but variables without a
/// value, or a scheme and these, allows nothing.
pub fn allowed(
    templates: &[Template],
    values: &BTreeMap<String, String>,
) -> Result<Vec<HostPattern>, InvalidHostPattern> {
    let unset = |template: &Template, pattern: &str| {
        template.names().next().is_some() && matches!(pattern, "" | "http://" | "https://")
    };
    templates
        .iter()
        .map(|template| (template, template.fill(values)))
        .filter(|(template, pattern)| !unset(template, pattern))
        .map(|(_, pattern)| HostPattern::parse(&pattern))
        .collect()
}

impl HostPattern {
    /// Parses the text of a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidHostPattern> {
        let invalid =
            |problem: &str| InvalidHostPattern { pattern: text.to_owned(), problem: problem.to_owned() };
        let (scheme, rest) =
            text.trim().split_once("://").ok_or_else(|| invalid("expected scheme://host[:port]"))?;
        let scheme = match scheme {
            "*" => Scheme::Any,
            name if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Scheme::Name(name.to_ascii_lowercase())
            }
            _ => return Err(invalid("expected a scheme of letters or \"*\" before \"://\"")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A network of IPv6 has colons, and needs no brackets.
        let (host, port) = if rest.parse::<IpNet>().is_ok() { (rest, None) } else { split_port(rest) };
        let host = parse_host(host).ok_or_else(|| {
            invalid("expected a host name, an address, a network, \"*\" or \"*.domain\" after \"://\"")
        })?;
        if let Host::Name(name) | Host::Below(name) = &host {
            if SELF.contains(&name.as_str()) {
                return Err(invalid("but requests to the application itself are not led back to it here"));
            }
            if (name == COMPONENTS || is_below(name, COMPONENTS)) && host != Host::Name(AUTHORITY.to_owned())
            {
                return Err(invalid(
                    "but components can't ask each other here (service chaining): below \"spin.internal\" there is \
                     \"functions.spin.internal\" alone",
                ));
            }
        }
        let port = match (port, &scheme) {
            (Some("*"), _) => Port::Any,
            (Some(port), _) => Port::Range(
                parse_ports(port)
                    .ok_or_else(|| invalid("expected a port, a range low..high or \"*\" after \":\""))?,
            ),
            (None, Scheme::Any) => return Err(invalid("expected a port, because the scheme is any")),
            (None, Scheme::Name(scheme)) => {
                let port = default_port(scheme)
                    .ok_or_else(|| invalid("expected a port, because none is known as the scheme's own"))?;
                Port::Range(port..port + 1)
            }
        };
        Ok(Self { scheme, host, port })
    }

    /// Whether a request to this place is allowed. `port` is the scheme's own where the request names none.
    pub fn allows(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let Some(port) = port.map(u32::from).or_else(|| default_port(scheme)) else { return false };
        let scheme_fits = match &self.scheme {
            Scheme::Any => true,
            Scheme::Name(name) => name == scheme,
        };
        let port_fits = match &self.port {
            Port::Any => true,
            Port::Range(range) => range.contains(&port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host_fits = || match &self.host {
            Host::Any => true,
            Host::Name(name) => name.eq_ignore_ascii_case(host),
            Host::Below(domain) => is_below(host, domain),
            Host::Network(network) => host.parse::<IpAddr>().is_ok_and(|address| network.contains(&address)),
        };
        scheme_fits && port_fits && host_fits()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Any => write!(f, "*://")?,
            Scheme::Name(name) => write!(f, "{name}://")?,
        }
        match &self.host {
            Host::Any => write!(f, "*")?,
            Host::Name(name) => write!(f, "{name}")?,
            Host::Below(domain) => write!(f, "*.{domain}")?,
            Host::Network(network) => write!(f, "{network}")?,
        }
        match &self.port {
            Port::Any => write!(f, ":*"),
            Port::Range(range) if range.len() == 1 => write!(f, ":{}", range.start),
            Port::Range(range) => write!(f, ":{}..{}", range.start, range.end),
        }
    }
}

/// Whether `host` is a name under `domain`, at any depth, but not the domain itself.
fn is_below(host: &str, domain: &str) -> bool {
    host.len() > domain.len() + 1
        && host.is_char_boundary(host.len() - domain.len())
        && host.split_at(host.len() - domain.len()).1.eq_ignore_ascii_case(domain)
        && host.as_bytes().get(host.len() - domain.len() - 1) == Some(&b'.')
}

fn split_port(rest: &str) -> (&str, Option<&str>) {
    let after_brackets = rest.rfind(']').map_or(0, |at| at + 1);
    match rest.get(after_brackets..).and_then(|tail| tail.rfind(':')) {
        Some(colon) => {
            let (host, port) = rest.split_at(after_brackets + colon);
            (host, port.strip_prefix(':'))
        }
        None => (rest, None),
    }
}

fn parse_host(host: &str) -> Option<Host> {
    if host == "*" {
        return Some(Host::Any);
    }
    let bare = host.replace(['[', ']'], "");
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Host::Network(IpNet::from(address)));
    }
    if let Ok(network) = bare.parse::<IpNet>() {
        return Some(Host::Network(network));
    }
    let (below, name) = match host.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, host),
    };
    let labels_fit = name.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    match labels_fit {
        true if below => Some(Host::Below(name.to_ascii_lowercase())),
        true => Some(Host::Name(name.to_ascii_lowercase())),
        false => None,
    }
}

fn parse_ports(text: &str) -> Option<Range<u32>> {
    match text.split_once("..") {
        Some((low, high)) => {
            let (low, high) = (low.parse::<u16>().ok()?, high.parse::<u16>().ok()?);
            (low < high).then(|| u32::from(low)..u32::from(high))
        }
        None => text.parse::<u16>().ok().map(|port| u32::from(port)..u32::from(port) + 1),
    }
}

fn default_port(scheme: &str) -> Option<u32> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "mqtt" => Some(1883),
        "mysql" => Some(3306),
        "postgres" => Some(5432),
        "redis" => Some(6379),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_allow_hosts() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, &str, Option<u16>, bool)] = &[
            ("http://127.0.0.1:17101", "http", "127.0.0.1", Some(17101), true),
            ("http://127.0.0.1:17101", "http", "127.0.0.1", Some(17102), false),
            ("http://127.0.0.1:17101", "https", "127.0.0.1", Some(17101), false),
            ("http://127.0.0.1:*", "http", "127.0.0.1", Some(9), true),
            ("http://127.0.0.0/24:*", "http", "127.0.0.9", Some(9), true),
            ("http://127.0.0.0/24:*", "http", "127.0.1.9", Some(9), false),
            ("http://127.0.0.0/24:*", "http", "localhost", Some(9), false),
            ("http://[::1]:8080", "http", "[::1]", Some(8080), true),
            ("http://[::1]:8080", "http", "::2", Some(8080), false),
            ("https://api.example.com", "https", "api.example.com", None, true),
            ("https://api.example.com", "https", "API.example.com", Some(443), true),
            ("https://api.example.com", "https", "api.example.com", Some(8443), false),
            ("https://api.example.com/", "https", "api.example.com", None, true),
            ("https://*.example.com", "https", "a.b.example.com", None, true),
            ("https://*.example.com", "https", "example.com", None, false),
            ("https://*.example.com", "https", "badexample.com", None, false),
            ("https://*.example.com", "https", ".example.com", None, false),
            ("https://*.example.com", "https", "example.com.evil.org", None, false),
            ("http://h:8000..8010", "http", "h", Some(8000), true),
            ("http://h:8000..8010", "http", "h", Some(8010), false),
            ("*://*:*", "gopher", "h", Some(70), true),
            ("*://h:80", "http", "h", None, true),
            ("*://h:80", "https", "h", None, false),
            ("https://*", "https", "anything.example", None, true),
            ("https://*", "http", "anything.example", None, false),
            ("http://ff00::/8", "http", "[ff00::1]", None, true),
            ("http://2001:db8::/32:8080", "http", "[2001:db8::1]", Some(8080), true),
            ("http://functions.spin.internal", "http", "functions.spin.internal", None, true),
            ("http://spin.internal.example", "http", "spin.internal.example", None, true),
        ];
        for (pattern, scheme, host, port, expected) in cases {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert_eq!(parsed.allows(scheme, host, *port), *expected, "{pattern} {scheme} {host} {port:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        #[rustfmt::skip]
        let cases = [
            "", "example.com", "http://", "://h", "http://h:", "http://h:x", "http://h:70000", "http://h:20..10",
            "http://a..b", "http://*x", "http://a.*.b", "*://h", "gopher://h", "h2c://h:80", "http://h/path", "http://127.0.0.0/33:80",
        ];
        for pattern in cases {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn what_leads_back_into_the_application_is_refused() {
        #[rustfmt::skip]
        let cases = [
            ("http://self", "itself"), ("https://SELF.alt", "itself"), ("http://shop.spin.internal", "service chaining"),
            ("http://*.spin.internal", "service chaining"), ("http://spin.internal:80", "service chaining"),
            ("http://*.functions.spin.internal", "service chaining"),
        ];
        for (pattern, why) in cases {
            let error = HostPattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(pattern), "{error}");
        }
    }

    #[test]
    fn a_variable_without_a_value_allows_nothing() {
        let values =
            BTreeMap::from([("none".to_owned(), String::new()), ("host".to_owned(), "h".to_owned())]);
        let allow = |text: &str| allowed(&[Template::parse(text).unwrap()], &values);
        for unset in ["{{ none }}", "https://{{ none }}"] {
            assert_eq!(allow(unset), Ok(Vec::new()), "{unset}");
        }
        assert_eq!(allow("https://{{ host }}").unwrap(), [HostPattern::parse("https://h").unwrap()]);
        for wrong in ["", "https://", "https://{{ none }}:80"] {
            assert!(allow(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_are_shown_as_they_are_understood() {
        for (text, shown) in [
            ("https://A.example.com", "https://a.example.com:443"),
            ("*://*:*", "*://*:*"),
            ("http://*.example.com:80..90", "http://*.example.com:80..90"),
            ("redis://h", "redis://h:6379"),
            ("postgres://h", "postgres://h:5432"),
        ] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), shown);
        }
    }
}
