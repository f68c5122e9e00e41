//! The shape of a request, before anything is decided by it. What two servers could read in two ways is refused
//! (RFC 9112, section 11.2), never guessed; what only the platform may say is taken out.

use std::borrow::Cow;

use super::experiment::{GIVEN_COOKIE, UNIT_COOKIE};
use super::steering::REGION_COOKIE;
use super::transform::is_reserved;
use crate::facts::{Facts, host_of, normalise_path};
use crate::headers::{Headers, hyphened, is_field_name, is_field_value, is_token};
use crate::limits::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX, LOOPS_MAX, METHOD_BYTES_MAX, URL_BYTES_MAX};
use crate::problem::Problem;

/// Cookie that holds the session token of a client which keeps cookies.
pub const SESSION_COOKIE: &str = "meridian_session";

/// What every request that goes on from here says in `CDN-Loop`: where it has been (RFC 8586, section 2).
pub const CDN_ID: &str = "meridian";

/// Why a request is refused for its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A method that is no token, or too long.
    #[error("the method is not a method")]
    Method,
    /// `CONNECT` and `TRACE`, which no route can take.
    #[error("this method is not supported")]
    MethodUnsupported,
    /// A bad host, several, or another than the one asked for.
    #[error("the host is not one host")]
    Host,
    /// A path that can be read in several ways.
    #[error("{0}")]
    Path(#[from] crate::facts::InvalidPath),
    /// A query with what can't be in one.
    #[error("control characters and spaces in the query are refused")]
    Query,
    /// A path and query beyond [`URL_BYTES_MAX`].
    #[error("path and query are longer than allowed")]
    UrlTooLong,
    /// Header fields beyond [`HEADER_FIELDS_MAX`] or [`HEADER_BYTES_MAX`].
    #[error("there are more header fields than allowed")]
    HeadersTooLarge,
    /// A name or value that can't be a header field's.
    #[error("a header field is malformed")]
    Header,
    /// Lengths that contradict each other.
    #[error("the length of the body is ambiguous")]
    Length,
    /// A coding other than `chunked`.
    #[error("the transfer coding is not supported")]
    TransferCoding,
    /// A WebSocket, where the host can let none through.
    #[error("WebSockets do not pass this edge")]
    WebSocket,
    /// A WebSocket that is asked for in another way than the handshake (RFC 6455, section 4.2.1).
    #[error("the WebSocket handshake of version 13 is not complete")]
    Handshake,
    /// A `Max-Forwards` that is not one number.
    #[error("Max-Forwards is not one number")]
    MaxForwards,
    /// `Connection` names a field that is for more than one connection.
    #[error("the Connection field names an end-to-end field")]
    Connection,
}

impl Malformed {
    /// Status code of the reply.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::UrlTooLong => 414,
            Self::HeadersTooLarge => 431,
            Self::MethodUnsupported | Self::TransferCoding | Self::WebSocket => 501,
            _ => 400,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        let problem = Problem::new(self.status(), "malformed-request", "The request can't be accepted");
        let problem = problem.detail(self.to_string());
        // The versions that would be understood (RFC 6455, section 4.4).
        if self == Self::Handshake { problem.header("sec-websocket-version", "13") } else { problem }
    }
}

/// Checks the shape of a request and gives it the one form that the pipeline works on: path and host normalised,
/// connection-bound and internal fields taken out. Whatever is forwarded later is made from this form.
///
/// # Errors
/// The first thing that is refused.
pub fn admit(facts: &mut Facts) -> Result<(), Malformed> {
    check_method(&facts.method)?;
    check_headers(&facts.headers)?;
    check_connection(&facts.headers)?;
    if asks_for_web_socket(&facts.headers) {
        check_handshake(&facts.method, &facts.headers)?;
    }
    forwards_left(&facts.method, &facts.headers)?;
    check_host(facts)?;
    let query = facts.query.as_deref().unwrap_or_default();
    if facts.path.len() + query.len() > URL_BYTES_MAX {
        return Err(Malformed::UrlTooLong);
    }
    if query.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(Malformed::Query);
    }
    if let Cow::Owned(path) = normalise_path(&facts.path)? {
        facts.path = path;
    }
    facts.headers.strip_hop_by_hop();
    facts.headers.retain(|name, _| !is_internal(name));
    join_cookies(&mut facts.headers);
    Ok(())
}

/// Makes one field of several `Cookie` fields, as HTTP/2 and HTTP/3 split them and nobody else reads them (RFC 9113, section
/// 8.2.3; RFC 9114, section 4.2.1).
fn join_cookies(headers: &mut Headers) {
    if headers.get_all("cookie").nth(1).is_none() {
        return;
    }
    let lines = headers.get_all("cookie").map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join("; ");
    headers.set("cookie", joined);
}

/// Whether a request was forwarded from here as often as it may be: it goes in a loop (RFC 8586, section 2).
#[must_use]
pub fn is_looping(headers: &Headers) -> bool {
    times_forwarded(headers.get_all("cdn-loop")) >= LOOPS_MAX
}

/// How often a request was forwarded from here, as the values of its `CDN-Loop` fields say (RFC 8586, section 2). What else a
/// member has behind its id changes nothing.
#[must_use]
pub fn times_forwarded(fields: impl IntoIterator<Item = impl AsRef<str>>) -> usize {
    let in_field = |field: &str| {
        let ids = field.split(',').map(|member| member.split(';').next().unwrap_or_default().trim());
        ids.filter(|id| id.eq_ignore_ascii_case(CDN_ID)).count()
    };
    fields.into_iter().map(|field| in_field(field.as_ref())).sum()
}

/// How often a request may still be forwarded, where its method has that said (RFC 9110, section 7.6.2): `OPTIONS`, as no
/// `TRACE` is let through.
///
/// # Errors
/// [`Malformed::MaxForwards`]: what is no number bounds nothing, and whoever comes next may read it in another way.
pub fn forwards_left(method: &str, headers: &Headers) -> Result<Option<u32>, Malformed> {
    if method != "OPTIONS" || headers.get("max-forwards").is_none() {
        return Ok(None);
    }
    let value = one(headers, "max-forwards").map(str::trim).ok_or(Malformed::MaxForwards)?;
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::MaxForwards);
    }
    // More than we can count is as much as we can.
    Ok(Some(value.parse().unwrap_or(u32::MAX)))
}

fn check_method(method: &str) -> Result<(), Malformed> {
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.bytes().all(is_token) {
        return Err(Malformed::Method);
    }
    if matches!(method, "CONNECT" | "TRACE") { Err(Malformed::MethodUnsupported) } else { Ok(()) }
}

fn check_headers(headers: &Headers) -> Result<(), Malformed> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADER_FIELDS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Malformed::HeadersTooLarge);
    }
    if !headers.iter().all(|(name, value)| is_field_name(name) && is_field_value(value)) {
        return Err(Malformed::Header);
    }
    Ok(())
}

/// Checks what the fields of a request say of its connection: where its body ends, and which fields go no further. For hosts that
/// let nobody behind them see these fields.
///
/// # Errors
/// The first thing that is refused.
pub fn check_connection(headers: &Headers) -> Result<(), Malformed> {
    let end_to_end = |name: &str| {
        const NEVER: [&str; 7] = [
            "host",
            "content-length",
            "authorization",
            "cookie",
            "cache-control",
            "cdn-loop",
            "meridian-session",
        ];
        NEVER.iter().any(|never| name.trim().eq_ignore_ascii_case(never))
    };
    if headers.get_all("connection").flat_map(|list| list.split(',')).any(end_to_end) {
        return Err(Malformed::Connection);
    }
    check_length(headers)
}

/// Whether the connection is to become a WebSocket. Any other protocol is left alone, and the answer comes in this one (RFC 9110,
/// section 7.8).
#[must_use]
pub fn asks_for_web_socket(headers: &Headers) -> bool {
    has_member(headers, "upgrade", "websocket")
}

/// Checks the handshake of a WebSocket (RFC 6455, section 4.2.1): nobody behind sees it as the client sent it.
///
/// # Errors
/// [`Malformed::Handshake`] where anything is missing.
pub fn check_handshake(method: &str, headers: &Headers) -> Result<(), Malformed> {
    // 16 bytes in base64 (section 4.1).
    let is_key = |key: &str| {
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        key.strip_suffix("==").is_some_and(|key| key.len() == 22 && key.bytes().all(in_alphabet))
    };
    let is_whole = method == "GET"
        && has_member(headers, "connection", "upgrade")
        && one(headers, "sec-websocket-version").is_some_and(|version| version.trim() == "13")
        && one(headers, "sec-websocket-key").is_some_and(|key| is_key(key.trim()))
        && headers.get("transfer-encoding").is_none()
        && headers.get("content-length").is_none_or(|length| length.trim() == "0");
    if is_whole { Ok(()) } else { Err(Malformed::Handshake) }
}

/// Whether a request is a call of gRPC over HTTP/2 (`PROTOCOL-HTTP2.md` of gRPC): a `POST` of `application/grpc`, with or without
/// what the messages are in (`+proto`). gRPC-Web is none: its trailers are a part of the body.
#[must_use]
pub fn is_grpc(method: &str, headers: &Headers) -> bool {
    let is_type = |field: &str| {
        let media_type = field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media_type
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
    };
    method == "POST" && headers.get_all("content-type").any(is_type)
}

/// The value of a field that is there once.
fn one<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

fn has_member(headers: &Headers, name: &str, member: &str) -> bool {
    headers.get_all(name).flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(member))
}

/// One length or one coding, and what says so says it once (RFC 9112, section 6.3). Of responses as well, for hosts that let nobody
/// behind them see the coding.
///
/// # Errors
/// [`Malformed::Length`] and [`Malformed::TransferCoding`].
pub fn check_length(headers: &Headers) -> Result<(), Malformed> {
    let mut lengths = headers.get_all("content-length");
    let first = lengths.next();
    let digits = |length: &str| !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let parses = |length: &str| digits(length) && length.parse::<u64>().is_ok();
    if first.is_some_and(|length| !parses(length) || lengths.any(|other| other != length)) {
        return Err(Malformed::Length);
    }
    let mut codings = headers.get_all("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if first.is_some() => Err(Malformed::Length),
        (Some(_), Some(_)) => Err(Malformed::Length),
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(()),
        _ => Err(Malformed::TransferCoding),
    }
}

fn check_host(facts: &mut Facts) -> Result<(), Malformed> {
    let host = host_of(&facts.host).map_err(|_| Malformed::Host)?;
    let mut fields = facts.headers.get_all("host");
    let same = |field| host_of(field).is_ok_and(|field| field.eq_ignore_ascii_case(host));
    if !fields.next().is_none_or(same) || fields.next().is_some() {
        return Err(Malformed::Host);
    }
    if host.len() != facts.host.len() || host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        facts.host = host.to_ascii_lowercase();
    }
    Ok(())
}

/// Fields that only the platform may set. A client's session token is its own to bring; who came before us was looked
/// at when the client's address was found, and is told anew to whoever comes next. What some targets take for such a field, or
/// for one that frames the message, is one as well: `x_forwarded_for`.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    let is_ours = |name: &str| {
        name.starts_with("meridian-")
            || name.starts_with("x-forwarded-")
            || matches!(name, "forwarded" | "x-real-ip" | "cf-connecting-ip" | "true-client-ip")
    };
    match hyphened(name) {
        Cow::Borrowed(name) => is_ours(name) && name != "meridian-session",
        Cow::Owned(name) => is_ours(&name) || is_reserved(&name),
    }
}

/// Whether a cookie is the edge's own, which no target sees. `pair` is its name and value.
#[must_use]
pub(crate) fn is_own_cookie(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default().trim();
    matches!(name, SESSION_COOKIE | UNIT_COOKIE | GIVEN_COOKIE | REGION_COOKIE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::request;

    fn check(headers: &[(&str, &str)], expect: Result<(), Malformed>) {
        let mut facts = request("POST", "acme.example", "/v1/orders");
        facts.headers = headers.iter().copied().collect();
        assert_eq!(admit(&mut facts), expect, "{headers:?}");
    }

    #[test]
    fn smuggling_shapes_are_refused() {
        check(&[("content-length", "5")], Ok(()));
        check(&[("content-length", "5"), ("content-length", "5")], Ok(()));
        check(&[("transfer-encoding", "Chunked")], Ok(()));
        check(&[("content-length", "5"), ("transfer-encoding", "chunked")], Err(Malformed::Length));
        check(&[("content-length", "5"), ("content-length", "6")], Err(Malformed::Length));
        check(&[("content-length", "5, 5")], Err(Malformed::Length));
        check(&[("content-length", "+5")], Err(Malformed::Length));
        check(&[("content-length", "")], Err(Malformed::Length));
        check(&[("content-length", "99999999999999999999")], Err(Malformed::Length));
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(Malformed::Length));
        check(&[("transfer-encoding", "gzip, chunked")], Err(Malformed::TransferCoding));
        check(&[("transfer-encoding", " chunked")], Err(Malformed::TransferCoding));
        check(&[("connection", "close, Authorization")], Err(Malformed::Connection));
        check(&[("connection", "CDN-Loop"), ("cdn-loop", "meridian")], Err(Malformed::Connection));
        check(&[("connection", "Upgrade"), ("upgrade", "h2c")], Ok(()));
        check(&[("connection", "Upgrade"), ("upgrade", "h2c, WebSocket")], Err(Malformed::Handshake));
        check(&[("x a", "1")], Err(Malformed::Header));
        check(&[("x-a", "1\r\nx-b: 2")], Err(Malformed::Header));
        check(&[("host", "acme.example:8787")], Ok(()));
        check(&[("host", "globex.example")], Err(Malformed::Host));
        check(&[("host", "acme.example"), ("host", "acme.example")], Err(Malformed::Host));
        let many: Vec<(&str, &str)> = vec![("x-a", "1"); HEADER_FIELDS_MAX + 1];
        check(&many, Err(Malformed::HeadersTooLarge));
        check(&[("x-a", &"1".repeat(HEADER_BYTES_MAX))], Err(Malformed::HeadersTooLarge));
    }

    #[test]
    fn forwards_are_counted_where_the_method_has_that_said() {
        let check = |method: &str, values: &[&str], expect: Result<Option<u32>, Malformed>| {
            let headers: Headers = values.iter().map(|value| ("max-forwards", *value)).collect();
            assert_eq!(forwards_left(method, &headers), expect, "{method} {values:?}");
        };
        check("OPTIONS", &[], Ok(None));
        check("OPTIONS", &["0"], Ok(Some(0)));
        check("OPTIONS", &[" 7 "], Ok(Some(7)));
        check("OPTIONS", &["99999999999999999999"], Ok(Some(u32::MAX)));
        for odd in [&["-1"][..], &["+1"], &[""], &["1.0"], &["one"], &["1, 2"], &["1", "1"]] {
            check("OPTIONS", odd, Err(Malformed::MaxForwards));
            check("GET", odd, Ok(None));
        }
        let mut facts = request("OPTIONS", "acme.example", "/");
        facts.headers = Headers::from_iter([("max-forwards", "many")]);
        assert_eq!(admit(&mut facts).map_err(Malformed::status), Err(400));
    }

    #[test]
    fn a_web_socket_is_asked_for_in_one_way() {
        const WHOLE: [(&str, &str); 4] = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let check = |method: &str, fields: &[(&str, &str)], expect: Result<(), Malformed>| {
            let mut facts = request(method, "acme.example", "/");
            facts.headers = fields.iter().copied().collect();
            assert_eq!(admit(&mut facts), expect, "{method} {fields:?}");
        };
        check("GET", &WHOLE, Ok(()));
        check("POST", &WHOLE, Err(Malformed::Handshake));
        for at in [0, 2, 3] {
            let mut less = WHOLE.to_vec();
            less.remove(at);
            check("GET", &less, Err(Malformed::Handshake));
        }
        for odd in [
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ] {
            check("GET", &[&WHOLE[..], &[odd][..]].concat(), Err(Malformed::Handshake));
        }
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25j ZQ=="] {
            let with_key = [&WHOLE[..3], &[("sec-websocket-key", key)][..]].concat();
            check("GET", &with_key, Err(Malformed::Handshake));
        }
    }

    #[test]
    fn grpc_is_told_by_its_media_type() {
        let check = |method: &str, media_types: &[&str], expect: bool| {
            let headers: Headers =
                media_types.iter().map(|media_type| ("content-type", *media_type)).collect();
            assert_eq!(is_grpc(method, &headers), expect, "{method} {media_types:?}");
        };
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC ; a=b",
            " application/grpc+json;a",
        ] {
            check("POST", &[grpc], true);
            check("POST", &["text/plain", grpc], true);
            check("GET", &[grpc], false);
        }
        for other in
            ["application/grpc-web", "application/grpc-web-text+proto", "application/grpcs", "text/grpc", ""]
        {
            check("POST", &[other], false);
        }
        check("POST", &[], false);
    }

    #[test]
    fn methods_paths_and_queries_are_checked() {
        let check = |method: &str, path: &str, query: &str, expect: Result<(), u16>| {
            let mut facts = request(method, "acme.example", path);
            facts.query = Some(query.to_owned());
            assert_eq!(admit(&mut facts).map_err(Malformed::status), expect, "{method} {path} {query}");
        };
        check("GET", "/a", "b=%00", Ok(()));
        check("PURGE", "/a", "", Ok(()));
        check("G T", "/a", "", Err(400));
        check("", "/a", "", Err(400));
        check("TRACE", "/a", "", Err(501));
        check("GET", "/a/../b", "", Err(400));
        check("GET", "/a", "b c", Err(400));
        check("GET", "/a", "b\0", Err(400));
        check("GET", "/a", &"b".repeat(URL_BYTES_MAX), Err(414));
    }

    #[test]
    fn a_request_loops_that_was_here_as_often_as_it_may_be() {
        let check = |lines: &[&str], expect: bool| {
            let headers: Headers = lines.iter().map(|line| ("cdn-loop", *line)).collect();
            assert_eq!(is_looping(&headers), expect, "RFC 8586, section 2: {lines:?}");
            assert_eq!(times_forwarded(lines) >= LOOPS_MAX, expect, "{lines:?}");
        };
        check(&[], false);
        check(&["meridian, meridian", "meridian"], false);
        check(&["meridian, other.example; n=1, meridian", "Meridian;a=b ,meridian"], true);
        check(&["meridian.example, not-meridian, meridian:80, other; x=meridian"; LOOPS_MAX], false);
        check(&[",", "", "meridian;meridian;meridian;meridian"], false);
        assert_eq!(times_forwarded(["other.example; meridian", "Meridian ; n=1, meridian"]), 2);
    }

    #[test]
    fn several_cookie_fields_become_one() {
        let check = |lines: &[&str], expect: Option<&str>| {
            let mut facts = request("GET", "acme.example", "/");
            facts.headers = lines.iter().map(|line| ("cookie", *line)).collect();
            assert_eq!(admit(&mut facts), Ok(()));
            assert_eq!(
                facts.headers.joined("cookie").as_deref(),
                expect,
                "RFC 9113, section 8.2.3: {lines:?}"
            );
        };
        check(&[], None);
        check(&["a=1;b=2"], Some("a=1;b=2"));
        check(&["", "a=1", " "], Some("a=1"));
        check(&["a=1", "b=2; c=3", "d=\"4, 5\""], Some("a=1; b=2; c=3; d=\"4, 5\""));
    }

    #[test]
    fn what_only_the_platform_may_say_is_taken_out() {
        let mut facts = request("GET", "acme.example", "/%61");
        facts.headers = Headers::from_iter([
            ("Meridian-Context", "forged"),
            ("Meridian-Session", "s1.k.p.m"),
            ("Forwarded", "for=1.1.1.1"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("TE", "trailers"),
            ("accept", "*/*"),
        ]);
        assert_eq!(admit(&mut facts), Ok(()));
        assert_eq!(facts.headers, Headers::from_iter([("meridian-session", "s1.k.p.m"), ("accept", "*/*")]));
        assert_eq!(facts.path, "/a");
    }

    #[test]
    fn what_some_targets_take_for_a_field_of_the_platform_is_taken_out_and_nothing_else() {
        let mut facts = request("GET", "acme.example", "/");
        let (ours, theirs) = (
            ["X_Forwarded_For", "X-Forwarded_Proto", "x.forwarded.for", "Meridian_Session", "Content_Length"],
            ["api_key", "x_theme", "x_forwarded", "accept_language"],
        );
        facts.headers = ours.into_iter().chain(theirs).map(|name| (name, "1")).collect();
        for ours in ["x_real_ip", "Transfer_Encoding", "Cf_Connecting-Ip", "CDN_Loop"] {
            facts.headers.append(ours, "1");
        }
        assert_eq!(admit(&mut facts), Ok(()));
        let left: Headers = theirs.into_iter().map(|name| (name, "1")).collect();
        assert_eq!(facts.headers, left, "RFC 3875, section 4.1.18");
    }
}
