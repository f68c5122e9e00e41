//! What is known about one request before anything is decided.

use std::net::IpAddr;

use geo_types::Point;

use crate::headers::Headers;

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
