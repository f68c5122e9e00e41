//! Documents about who there is: regions, upstreams, tenants, domains, issuers.

use std::collections::BTreeMap;

use meridian_engine::step::Algorithm;
use serde::{Deserialize, Serialize};

use super::health::{HealthCheckSpec, RegionCheckSpec};
use super::plan::PlanSpec;
use super::unit::Span;

spec! {
/// A place with an origin and a PostgreSQL. Its name is the region's id.
pub struct RegionSpec {
    /// Number in stamps and positions, from 1; never given to another region.
    pub ordinal: u16,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Base URLs of its origin, 1 to 4, each as good as the others, in order of preference. The first that has not failed again and
    /// again is asked, and where that fails the next one before another region is. The origin is told all of them
    /// (`MERIDIAN_PUBLIC_URL`). Where several processes of it share a database, they are those of what balances between them:
    /// contexts that were used before, and the quotas of limits, are known to each process alone.
    pub origins: Vec<String>,
    /// Share of traffic under a weighted strategy.
    #[serde(default = "weight")]
    pub weight: u32,
    /// Whether it takes traffic.
    #[serde(default)]
    pub state: RegionStateSpec,
    /// How the other regions' origins ask whether it is healthy; by default once a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<RegionCheckSpec>,
}
}

spec! {
/// A point on the globe.
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
}
}

spec! {
/// Whether a region takes traffic.
pub enum RegionStateSpec {
    /// Takes traffic.
    #[default]
    Active,
    /// Keeps the sessions that it has, takes no new ones.
    Draining,
    /// Takes none.
    Down,
}
}

spec! {
/// An HTTP service of a tenant, or of the platform, that routes may forward to.
pub struct UpstreamSpec {
    /// Base URL by region. Those of regions' own origins are refused and, where one is released nevertheless, not tried; link-local
    /// addresses and metadata services of clouds are refused. Loopback and private addresses are not: whoever runs the edges says
    /// where these may connect to.
    pub regions: BTreeMap<String, String>,
    /// Until the head of a response must be there. What the client takes to send its body does not count.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Until there is a connection, 10ms to `timeout`, which is the default: then the service has seen nothing, and any
    /// request may go to another region. On Cloudflare, where nobody can tell connecting from waiting, it has no meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// The longest pause in a response's body, 100ms to 10m; after a longer one the response breaks off. By default the
    /// edge's host decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<Span>,
    /// Connections that each isolate or instance of an edge may have in use at once to each region of it, 1 to 10,000; of one of
    /// the platform's, for each tenant. By default the edge's host decides. One is in use from the request until the response's
    /// body has come, at the most 10 minutes after its head; on Cloudflare until the head. A request that finds all of them in
    /// use goes to the next region, and where there is none it gets 503 `upstream-busy`, or what is stored where a failure lets
    /// that be served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Bytes that the body of a response may have, 1 to 2⁴⁰. One that says that it is longer is not passed on (502
    /// `response-too-large`), and one that turns out to be breaks off. Content is counted as the edge gets it: on
    /// Cloudflare, what comes in gzip or br without a length is counted decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_response_bytes: Option<u64>,
    /// Header fields set on each request to it, after all transforms; at most 32, each at most 4096 bytes long. They are
    /// never shown, so that they may hold what the service knows the edge by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Lets base URLs be http to other machines than the edge's own. With https, certificates are
    /// always verified, against the authorities that the edge's host trusts; there are no others, and no client certificates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// How each region's origin asks whether it is healthy; by default only requests tell. At most 50 upstreams may
    /// have one, and none of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSpec>,
    /// Which tenants' routes may name it, as `platform:NAME`, where it is the platform's: `all`, or a list of slugs. A tenant's own is
    /// for that tenant alone and says nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<TenantsSpec>,
}
}

/// Tenants that may use an upstream of the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum TenantsSpec {
    /// All of them.
    Word(TenantsWord),
    /// Those with these slugs.
    Only(Vec<String>),
}

spec! {
/// All tenants.
pub enum TenantsWord {
    /// All.
    #[default]
    All,
}
}

spec! {
/// A customer organisation. Its name is the tenant's slug.
pub struct TenantSpec {
    /// Whether it is served.
    #[serde(default)]
    pub state: TenantStateSpec,
    /// Region of its writes by default.
    pub home_region: String,
    /// Regions that may see its data.
    pub allowed_regions: Vec<String>,
    /// Slug of the tenant above it: an organisation's partner, a team's organisation. It is served only while all above it
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Slug of the nearest tenant above it that is suspended; `state` is `suspended` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_by: Option<String>,
    /// What its contract lets it have.
    #[serde(default, skip_serializing_if = "PlanSpec::is_empty")]
    pub plan: PlanSpec,
}
}

spec! {
/// Whether a tenant is served.
pub enum TenantStateSpec {
    /// Served.
    #[default]
    Active,
    /// Every request gets a clear 403.
    Suspended,
}
}

spec! {
/// A hostname of a tenant. Its name is the hostname, exact or with a leading `*.`.
pub struct DomainSpec {
    /// Slug of the tenant.
    pub tenant: String,
    /// Whether it is known to be the tenant's. It is served only when it is.
    #[serde(default, skip_serializing_if = "VerificationSpec::is_verified")]
    pub verification: VerificationSpec,
    /// How far its certificate is. It is told, and decides nothing: TLS ends in front of the edge.
    #[serde(default, skip_serializing_if = "TlsStateSpec::is_none")]
    pub tls: TlsStateSpec,
}
}

spec! {
/// Whether a hostname is known to be its tenant's.
pub enum VerificationSpec {
    /// Not yet.
    Pending,
    /// It is.
    #[default]
    Verified,
    /// It is not, or not any more.
    Failed,
}
}

impl VerificationSpec {
    pub(crate) fn is_verified(&self) -> bool {
        *self == Self::Verified
    }
}

spec! {
/// How far the certificate of a hostname is.
pub enum TlsStateSpec {
    /// There is none that the platform knows of.
    #[default]
    None,
    /// The first is being had.
    Issuing,
    /// There is one.
    Active,
    /// There is one, and the next is being had.
    Renewing,
    /// There is none, and none could be had.
    Failed,
}
}

impl TlsStateSpec {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

spec! {
/// Who signs a tenant's tokens (RFC 7519).
pub struct IssuerSpec {
    /// Exact `iss` of its tokens.
    pub issuer: String,
    /// Audiences, one of which `aud` must hold.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Accepts any audience; `audiences` must be empty then.
    #[serde(default)]
    pub any_audience: bool,
    /// Signature algorithms that its keys may have.
    pub algorithms: Vec<AlgorithmSpec>,
    /// Keys written here.
    #[serde(default)]
    pub keys: Vec<KeySpec>,
    /// Key set that is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwksSpec>,
    /// Clock skew allowed on `exp`, `nbf` and `iat`.
    #[serde(default = "skew")]
    pub skew: Span,
    /// Longest life accepted, from `iat` to `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_max: Option<Span>,
    /// Claims that must be there.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// Claim that holds the scopes: a space-separated string or a list.
    #[serde(default = "scope_claim")]
    pub scope_claim: String,
    /// Claims that go to the origin: the attribute's name by the claim's.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Tokens that are right and no longer count.
    #[serde(default)]
    pub revoked: Vec<RevokedSpec>,
}
}

spec! {
/// Tokens that no longer count: all that fit everything that is given.
#[derive(Eq, Default)]
pub struct RevokedSpec {
    /// The one with this `jti`. Alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Those with this `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Those issued before this moment, in seconds since the Unix epoch as `iat` is, and those that don't say when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
}
}

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[allow(missing_docs)]
pub enum AlgorithmSpec {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

spec! {
/// A key of an issuer, as a JSON Web Key (RFC 7517) or in PEM. `alg` pins it to one algorithm.
pub struct KeySpec {
    /// Id that tokens name it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The one algorithm that it is for.
    pub alg: AlgorithmSpec,
    /// `RSA`, `EC`, `OKP` or `oct`; must fit `alg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// `sig`, if given.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// `P-256`, `P-384` or `Ed25519`; must fit `alg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// RSA modulus of 2048 to 4096 bits, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA public exponent, base64url: `AQAB` (65537).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// Ed25519 public key, or x of a point; base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// y of a point, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// Shared secret of an HS algorithm, base64url. Whoever can read the rules can sign tokens with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<Secret>,
    /// A public key in PEM (`BEGIN PUBLIC KEY`), in the place of the members above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
}
}

/// A secret text. It never shows in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

spec! {
/// A key set that is fetched (RFC 7517, section 5), once by each isolate or instance of an edge at a time. Its first 100 keys
/// are used: one behind them is as if it were not there.
pub struct JwksSpec {
    /// Absolute URL; with `discovery`, that of the metadata, and without it `/.well-known/openid-configuration` of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The provider's metadata say where the key set is (OpenID Connect Discovery 1.0).
    #[serde(default)]
    pub discovery: bool,
    /// Age from which it is refreshed in the background.
    #[serde(default = "jwks_refresh")]
    pub refresh: Span,
    /// Age from which it is no longer used without a successful refresh.
    #[serde(default = "jwks_stale")]
    pub stale: Span,
    /// An unknown `kid` fetches again at most once in this time.
    #[serde(default = "jwks_refetch")]
    pub refetch_interval: Span,
}
}

impl From<AlgorithmSpec> for Algorithm {
    fn from(spec: AlgorithmSpec) -> Self {
        match spec {
            AlgorithmSpec::HS256 => Self::HS256,
            AlgorithmSpec::HS384 => Self::HS384,
            AlgorithmSpec::HS512 => Self::HS512,
            AlgorithmSpec::RS256 => Self::RS256,
            AlgorithmSpec::RS384 => Self::RS384,
            AlgorithmSpec::RS512 => Self::RS512,
            AlgorithmSpec::PS256 => Self::PS256,
            AlgorithmSpec::PS384 => Self::PS384,
            AlgorithmSpec::PS512 => Self::PS512,
            AlgorithmSpec::ES256 => Self::ES256,
            AlgorithmSpec::ES384 => Self::ES384,
            AlgorithmSpec::EdDSA => Self::EdDSA,
        }
    }
}

fn weight() -> u32 {
    100
}

fn timeout() -> Span {
    Span::from_secs(5)
}

fn skew() -> Span {
    Span::from_secs(30)
}

fn scope_claim() -> String {
    "scope".to_owned()
}

fn jwks_refresh() -> Span {
    Span::from_secs(600)
}

fn jwks_stale() -> Span {
    Span::from_secs(86_400)
}

fn jwks_refetch() -> Span {
    Span::from_secs(30)
}
