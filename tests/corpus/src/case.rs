//! The shape of a case, as the hosts receive it: tokens are minted and rules compiled already.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use geo_types::Point;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use serde::{Deserialize, Serialize};

/// When the first request of a case happens, in milliseconds since the Unix epoch: 2026-01-01T00:00:00Z.
pub const START_MS: u64 = 1_767_225_600_000;

/// A case with the bundles that it is decided by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Bundle of the platform.
    pub platform: String,
    /// Bundle by tenant.
    pub tenants: BTreeMap<String, String>,
    /// The case.
    pub case: Case,
}

/// Requests in order, in one world, on one edge node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in one sentence that names the standard where there is one.
    pub about: String,
    /// Which rules it is decided by: a folder beside the cases.
    #[serde(default = "default_rules")]
    pub rules: String,
    /// What each origin or upstream answers, by the beginning of its URL, until a request says otherwise.
    #[serde(default)]
    pub origins: BTreeMap<String, Vec<Reaction>>,
    /// What is at a key set's URL.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// What this edge answers for a host that is nobody's, if not its default.
    #[serde(default)]
    pub unknown_host_status: Option<u16>,
    /// The requests.
    pub requests: Vec<Request>,
}

fn default_rules() -> String {
    "shop".to_owned()
}

/// One request and what is different in the world from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Milliseconds after [`START_MS`].
    #[serde(default)]
    pub at_ms: i64,
    /// Method.
    #[serde(default = "default_method")]
    pub method: String,
    /// URL, scheme and host included.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Client's address.
    #[serde(default = "default_client")]
    pub client: IpAddr,
    /// Client's place.
    #[serde(default)]
    pub place: PlaceCase,
    /// Length of the body; none without.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// The body itself; with `body_bytes` alone there is one that can't be looked into.
    #[serde(default)]
    pub body: Option<String>,
    /// Replaces the reactions of these origins.
    #[serde(default)]
    pub origins: BTreeMap<String, Vec<Reaction>>,
    /// Replaces what is at these key set URLs; an empty text is an issuer that is down.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// What an origin says when asked for news; `null` is no origin in reach.
    #[serde(default)]
    pub news: Option<News>,
    /// Parts that are away: `sync`, `rules`, `authority`.
    #[serde(default)]
    pub away: Vec<String>,
    /// What has to come of it; read by the test, ignored here.
    #[serde(default)]
    pub expect: serde_json::Value,
}

fn default_method() -> String {
    "GET".to_owned()
}

fn default_client() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

/// A client's place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct PlaceCase {
    pub country: Option<String>,
    pub continent: Option<String>,
    pub city: Option<String>,
    pub asn: Option<u32>,
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
}

/// What one attempt meets. The last of a list goes on for ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// `connect`, `timeout` or `broken`, or `body broke off` or `body paused` of the client's body: no response comes.
    #[serde(default)]
    pub fault: Option<String>,
    /// What became of the function that the attempt goes through, as where it runs would say; without it, it sent the
    /// request on.
    #[serde(default)]
    pub function: Option<String>,
    /// Status.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Body.
    #[serde(default)]
    pub body: String,
    /// Milliseconds until it comes.
    #[serde(default)]
    pub after_ms: u64,
}

fn default_status() -> u16 {
    200
}

/// What an origin says when asked for news.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct News {
    /// Newest sequence by target.
    pub heads: BTreeMap<String, u64>,
    /// Regions whose health check fails.
    pub unhealthy: Vec<String>,
    /// Upstreams whose health check fails, as `tenant/name`, by region.
    pub unhealthy_upstreams: BTreeMap<String, BTreeSet<String>>,
    /// Position applied by source ordinal, by region.
    pub applied: BTreeMap<String, BTreeMap<u16, u64>>,
    /// Purges: tenant, tag, source, position.
    pub purges: Vec<(String, String, u16, u64)>,
    /// Soft purges by hand: tenant, tag.
    pub soft_purges: Vec<(String, String)>,
    /// Confirmed name by address, of those that the edge asks for; an empty text is none.
    pub names: BTreeMap<IpAddr, String>,
    /// Whether the journal no longer reaches back.
    pub reset: bool,
}

/// The facts of a request. `index` makes its random bits, so that they are the same on every host.
pub fn facts(request: &Request, index: usize) -> Result<Facts, String> {
    let (scheme, rest) =
        request.url.split_once("://").ok_or_else(|| format!("no scheme in {}", request.url))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
    let coordinates = request.place.longitude.zip(request.place.latitude).map(|(x, y)| Point::new(x, y));
    let body = match request.body_bytes.or(request.body.as_ref().map(|body| body.len() as u64)) {
        None | Some(0) => BodySize::Empty,
        Some(bytes) => BodySize::Bytes(bytes),
    };
    Ok(Facts {
        method: request.method.clone(),
        scheme: if scheme == "https" { Scheme::Https } else { Scheme::Http },
        host: host.split(':').next().unwrap_or_default().to_ascii_lowercase(),
        path: path.to_owned(),
        query,
        headers: request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect::<Headers>(),
        client: request.client,
        place: Place {
            country: request.place.country.clone(),
            continent: request.place.continent.clone(),
            city: request.place.city.clone(),
            asn: request.place.asn,
            coordinates,
            ..Place::default()
        },
        body,
        now_ms: START_MS.saturating_add_signed(request.at_ms),
        random: [u8::try_from(index % 251).unwrap_or_default(); 16],
    })
}
