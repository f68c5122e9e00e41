//! What is known about one request before anything is decided.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use geo_types::Point;
use ipnet::IpNet;

use crate::headers::Headers;
use crate::limits::HOST_BYTES_MAX;

/// What counts as one client: an IPv4 address, and of IPv6 the /64, of which whoever has one address has all (RFC 6177, section 2).
#[must_use]
pub fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}

/// Everything that the engine may look at of one request. The host gathers it once.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Request method, upper case as received (RFC 9110, section 9).
    pub method: String,
    /// `http` or `https`, as the client used it.
    pub scheme: Scheme,
    /// Host of the request in lower case, without the port.
    pub host: String,
    /// Path, percent-encoded as received; begins with `/`.
    pub path: String,
    /// Query without its `?`, as received.
    pub query: Option<String>,
    /// Header fields as received, hop-by-hop ones included.
    pub headers: Headers,
    /// Address of the client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// Where the client is, as far as the host can tell.
    pub place: Place,
    /// What is known of the body.
    pub body: BodySize,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Fresh random bits: the decision's id and the sampling come from them.
    pub random: [u8; 16],
}

/// Scheme of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// What is known of a request's body before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// There is none.
    Empty,
    /// `Content-Length` says so many bytes.
    Bytes(u64),
    /// There is one, of a length that is not known yet.
    Unknown,
}

/// Where a client is. Every field may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// ISO 3166-1 alpha-2 code.
    pub country: Option<String>,
    /// Two-letter continent code.
    pub continent: Option<String>,
    /// First-level subdivision, ISO 3166-2 without the country.
    pub subdivision: Option<String>,
    /// City, in English.
    pub city: Option<String>,
    /// IANA time zone.
    pub timezone: Option<String>,
    /// Autonomous system number.
    pub asn: Option<u32>,
    /// Longitude (x) and latitude (y) in degrees.
    pub coordinates: Option<Point<f64>>,
}

impl BodySize {
    /// What the header fields say of a body. `has_body` is whether the host sees one where no length is given.
    #[must_use]
    pub fn of(headers: &Headers, has_body: bool) -> Self {
        match headers.get("content-length").map(|length| length.trim().parse()) {
            Some(Ok(0)) => Self::Empty,
            Some(Ok(bytes)) => Self::Bytes(bytes),
            Some(Err(_)) => Self::Unknown,
            None if has_body || headers.get("transfer-encoding").is_some() => Self::Unknown,
            None => Self::Empty,
        }
    }
}

/// The address of the client. `peer` is who is connected to us; where it is one of the `trusted` networks, the
/// `X-Forwarded-For` field (its values joined) is read from the right, and the first address that is not trusted is the
/// client. What can't be read ends the search at the last address that could.
#[must_use]
pub fn client_address(peer: IpAddr, forwarded_for: Option<&str>, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    for hop in forwarded_for.into_iter().flat_map(|list| list.rsplit(',')) {
        if !is_trusted(&client) {
            break;
        }
        let Some(address) = parse_hop(hop.trim()) else { break };
        client = address;
    }
    client
}

/// The scheme that the client used. `used` is how `peer` is connected to us; where that is one of the `trusted` networks, the last
/// entry of the `X-Forwarded-Proto` field (its values joined) says how its own client was: TLS often ends before us.
#[must_use]
pub fn client_scheme(used: Scheme, peer: IpAddr, forwarded_proto: Option<&str>, trusted: &[IpNet]) -> Scheme {
    let peer = peer.to_canonical();
    let last = forwarded_proto.filter(|_| trusted.iter().any(|net| net.contains(&peer)));
    match last.and_then(|list| list.rsplit(',').next()).map(str::trim) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ => used,
    }
}

/// An address with or without brackets and port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split(']').next());
    bare.unwrap_or(hop)
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

/// A list of networks and addresses, separated by commas: `127.0.0.0/8, ::1`.
///
/// # Errors
/// The first part that is neither a network nor an address.
pub fn parse_networks(list: &str) -> Result<Vec<IpNet>, InvalidNetwork> {
    list.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let address = || part.parse::<IpAddr>().ok().map(IpNet::from);
            part.parse::<IpNet>().ok().or_else(address).ok_or_else(|| InvalidNetwork(part.to_owned()))
        })
        .collect()
}

/// Something that is neither a network nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found `{0}`, expected a network such as `10.0.0.0/8` or an address")]
pub struct InvalidNetwork(pub String);

/// The host of a `Host` field or authority, in lower case, without port and trailing dot (RFC 9110, section 7.2).
///
/// # Errors
/// What is not a registered name of letters, digits, `-`, `_` and `.`, nor an address.
pub fn normalise_host(authority: &str) -> Result<String, InvalidHost> {
    host_of(authority).map(str::to_ascii_lowercase)
}

/// The host of an authority as [`normalise_host`] takes it, in the letters that it came in.
pub(crate) fn host_of(authority: &str) -> Result<&str, InvalidHost> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(InvalidHost)?;
            address.parse::<Ipv6Addr>().map_err(|_| InvalidHost)?;
            let host = authority.get(..address.len() + 2).ok_or(InvalidHost)?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    let port = port.ok_or(InvalidHost)?;
    if port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidHost);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = host.bytes().all(named) && !host.split('.').any(str::is_empty);
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !(is_name || host.starts_with('[')) {
        return Err(InvalidHost);
    }
    Ok(host)
}

/// A host that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found a host that is neither a name nor an address")]
pub struct InvalidHost;

/// The path with its percent-encoding in one form (RFC 3986, section 6.2.2): encoded unreserved characters decoded,
/// hexadecimal digits in upper case, anything that has to be encoded encoded. Borrowed where nothing changes.
///
/// # Errors
/// Whatever one server may read in another way than the next: no leading `/`, `.` and `..` segments, empty segments, either of
/// them with parameters that some servers take off (`..;x`), encoded `/` and `\`, encoding twice, control characters, broken
/// percent-encoding.
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    if !path.starts_with('/') {
        return Err(InvalidPath::NoSlash);
    }
    let path = if path.bytes().all(|byte| is_unreserved(byte) || is_kept(byte)) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(normalise_encoding(path)?)
    };
    let inside = path.strip_prefix('/').unwrap_or(&path);
    let mut segments = inside.split('/').peekable();
    while let Some(segment) = segments.next() {
        if is_called(segment, ".") || is_called(segment, "..") {
            return Err(InvalidPath::Dots);
        }
        if is_called(segment, "") && segments.peek().is_some() {
            return Err(InvalidPath::EmptySegment);
        }
    }
    Ok(path)
}

/// Whether a segment is this name, or that with parameters (RFC 3986, section 3.3), which some servers take off, some after
/// decoding.
fn is_called(segment: &str, name: &str) -> bool {
    let behind = segment.strip_prefix(name);
    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(';') || behind.starts_with("%3B"))
}

fn normalise_encoding(path: &str) -> Result<String, InvalidPath> {
    let mut normal = String::with_capacity(path.len() + 8);
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = *first == b'%';
        let byte = match after {
            _ if !encoded => *first,
            [high, low, ..] => hexadecimal(*high)
                .zip(hexadecimal(*low))
                .map(|(h, l)| h << 4 | l)
                .ok_or(InvalidPath::Encoding)?,
            _ => return Err(InvalidPath::Encoding),
        };
        rest = if encoded { after.get(2..).unwrap_or_default() } else { after };
        match byte {
            b'/' if encoded => return Err(InvalidPath::EncodedSeparator),
            b'\\' => return Err(InvalidPath::EncodedSeparator),
            0..0x20 | 0x7f => return Err(InvalidPath::Control),
            _ if is_unreserved(byte) || (!encoded && is_kept(byte)) => normal.push(char::from(byte)),
            _ => {
                normal.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    normal.push(char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        }
    }
    // Asked of the result: the digits behind a `%25` may have been encoded themselves.
    let is_twice = |part: &[u8]| match part {
        [b'%', b'2', b'5', high, low] => hexadecimal(*high).is_some() && hexadecimal(*low).is_some(),
        _ => false,
    };
    if normal.as_bytes().windows(5).any(is_twice) {
        return Err(InvalidPath::EncodedTwice);
    }
    Ok(normal)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Unreserved characters (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a path may hold as it stands beside unreserved characters (RFC 3986, section 3.3).
fn is_kept(byte: u8) -> bool {
    matches!(
        byte,
        b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}

/// Text without its percent-encoding; bytes that are no UTF-8 become replacement characters. Borrowed where nothing
/// is encoded. With `plus`, a `+` is a space, as in a query.
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (plus && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let pair = match after {
            [high, low, behind @ ..] if *byte == b'%' => {
                hexadecimal(*high).zip(hexadecimal(*low)).map(|(high, low)| (high << 4 | low, behind))
            }
            _ => None,
        };
        match pair {
            Some((value, behind)) => {
                decoded.push(value);
                rest = behind;
            }
            None if plus && *byte == b'+' => decoded.push(b' '),
            None => decoded.push(*byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// The decoded value of the first query parameter of this name.
#[must_use]
pub fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    query?.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key, true) == name).then(|| percent_decode(value, true))
    })
}

/// The value of the first cookie of this name (RFC 6265, section 5.4).
#[must_use]
pub fn cookie<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.get_all("cookie").flat_map(|cookies| cookies.split(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It begins with something else.
    #[error("a path has to begin with `/`")]
    NoSlash,
    /// `.` or `..`, plain or encoded.
    #[error("`.` and `..` segments are refused")]
    Dots,
    /// Two slashes in a row.
    #[error("empty segments are refused")]
    EmptySegment,
    /// `%2F`, `%5C` or a backslash.
    #[error("encoded separators and backslashes are refused")]
    EncodedSeparator,
    /// `%25` before two hexadecimal digits.
    #[error("text that is percent-encoded twice is refused")]
    EncodedTwice,
    /// A control character, plain or encoded.
    #[error("control characters are refused")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("`%` needs two hexadecimal digits")]
    Encoding,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_client_is_the_first_address_from_the_right_that_is_not_trusted() {
        let trusted = parse_networks("127.0.0.0/8, ::1, 10.0.0.0/8").unwrap();
        let check = |peer: &str, forwarded: Option<&str>, expect: &str| {
            let got = client_address(peer.parse().unwrap(), forwarded, &trusted);
            assert_eq!(got.to_string(), expect, "{peer} {forwarded:?}");
        };
        check("203.0.113.9", Some("1.1.1.1"), "203.0.113.9");
        check("127.0.0.1", Some("198.51.100.7"), "198.51.100.7");
        check("127.0.0.1", Some("6.6.6.6, 198.51.100.7, 10.1.2.3"), "198.51.100.7");
        check("127.0.0.1", Some("10.0.0.1"), "10.0.0.1");
        check("127.0.0.1", None, "127.0.0.1");
        check("127.0.0.1", Some("nonsense"), "127.0.0.1");
        check("127.0.0.1", Some("6.6.6.6, nonsense, 10.0.0.1"), "10.0.0.1");
        check("::1", Some("[2001:db8::1]:443"), "2001:db8::1");
        check("::1", Some("198.51.100.7:4711"), "198.51.100.7");
        check("::ffff:127.0.0.1", Some("198.51.100.7"), "198.51.100.7");
    }

    #[test]
    fn the_scheme_is_what_a_trusted_proxy_says_last() {
        let trusted = parse_networks("127.0.0.0/8").unwrap();
        let check = |peer: &str, used, forwarded, expect| {
            assert_eq!(
                client_scheme(used, peer.parse().unwrap(), forwarded, &trusted),
                expect,
                "{forwarded:?}"
            );
        };
        check("127.0.0.1", Scheme::Http, Some("https"), Scheme::Https);
        check("::ffff:127.0.0.1", Scheme::Http, Some("http, HTTPS"), Scheme::Https);
        check("127.0.0.1", Scheme::Https, Some("https, http"), Scheme::Http);
        check("127.0.0.1", Scheme::Http, Some("wss"), Scheme::Http);
        check("127.0.0.1", Scheme::Http, None, Scheme::Http);
        check("192.0.2.1", Scheme::Http, Some("https"), Scheme::Http);
    }

    #[test]
    fn hosts_are_folded_and_odd_ones_refused() {
        let check = |host: &str, expect: Option<&str>| {
            assert_eq!(normalise_host(host).ok().as_deref(), expect, "{host}");
        };
        check("Acme.Example:8443", Some("acme.example"));
        check("acme.example.", Some("acme.example"));
        check("127.0.0.1:80", Some("127.0.0.1"));
        check("[::1]:8787", Some("[::1]"));
        check("[::1]", Some("[::1]"));
        for odd in [
            "", ":80", "a b", "a@b", "a/b", "[::1", "[x]", "[::1]x", "a:b", "a..b", ".a", "a..", "ä",
            "a:123456",
        ] {
            check(odd, None);
        }
    }

    #[test]
    fn paths_have_one_form_and_ambiguous_ones_are_refused() {
        let check = |path: &str, expect: Result<&str, InvalidPath>| {
            assert_eq!(normalise_path(path).as_deref(), expect.as_deref(), "{path}");
        };
        check("/", Ok("/"));
        check("/v1/orders/", Ok("/v1/orders/"));
        check("/%7euser/%41", Ok("/~user/A"));
        check("/caf%c3%a9", Ok("/caf%C3%A9"));
        check("/café", Ok("/caf%C3%A9"));
        check("/a%3Bb;c", Ok("/a%3Bb;c"));
        check("/a\"b", Ok("/a%22b"));
        check("a", Err(InvalidPath::NoSlash));
        check("*", Err(InvalidPath::NoSlash));
        check("/a/../b", Err(InvalidPath::Dots));
        check("/a/%2e%2E/b", Err(InvalidPath::Dots));
        check("/a/.", Err(InvalidPath::Dots));
        for dots in ["..;", "..;x=1", ".;x", "%2e%2e;", "..%3b", "%2E.%3Bx", ".;/"] {
            check(&format!("/public/{dots}/admin"), Err(InvalidPath::Dots));
            check(&format!("/public/{dots}"), Err(InvalidPath::Dots));
        }
        check("/public/;x/admin", Err(InvalidPath::EmptySegment));
        check("/public/%3bx/admin", Err(InvalidPath::EmptySegment));
        for parameters in
            ["/a;v=1/b", "/;jsessionid=1", "/a;x=..;y/b", "/...;x/b", "/.well-known;x/b", "/a/..b;x"]
        {
            check(parameters, Ok(parameters));
        }
        check("//a", Err(InvalidPath::EmptySegment));
        check("/a%2fb", Err(InvalidPath::EncodedSeparator));
        check("/a%5cb", Err(InvalidPath::EncodedSeparator));
        check("/a%252fb", Err(InvalidPath::EncodedTwice));
        check("/a%25%32%66b", Err(InvalidPath::EncodedTwice));
        check("/a%252%66b", Err(InvalidPath::EncodedTwice));
        check("/100%25", Ok("/100%25"));
        check("/a\\b", Err(InvalidPath::EncodedSeparator));
        check("/a%00", Err(InvalidPath::Control));
        check("/a\u{1}", Err(InvalidPath::Control));
        check("/a%0d%0ab", Err(InvalidPath::Control));
        check("/a%zz", Err(InvalidPath::Encoding));
        check("/a%4", Err(InvalidPath::Encoding));
    }

    #[test]
    fn parameters_and_cookies_are_found_by_name() {
        assert_eq!(query_parameter(Some("a=1&b=x+y%21&b=2"), "b").as_deref(), Some("x y!"));
        assert_eq!(query_parameter(Some("flag"), "flag").as_deref(), Some(""));
        assert_eq!(query_parameter(None, "flag"), None);
        let headers = Headers::from_iter([("Cookie", "a=1; b=\"2\""), ("Cookie", "c=3")]);
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), Some("3"));
        assert_eq!(cookie(&headers, "d"), None);
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_as_it_is(path in "/[ -~é]{0,40}") {
            if let Ok(normal) = normalise_path(&path) {
                let again = normalise_path(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert!(normal.is_ascii());
            }
        }
    }
}
