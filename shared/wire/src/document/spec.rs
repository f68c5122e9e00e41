//! What each kind of document holds.

use std::collections::BTreeMap;

use meridian_engine::step::Algorithm;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::unit::{Share, Span};

/// Derives for every spec: the JSON Schema only where documents are read from files.
macro_rules! spec {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name { $($body)* }
    };
    ($(#[$meta:meta])* pub enum $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub enum $name { $($body)* }
    };
}

spec! {
/// A place with an origin and a PostgreSQL. Its name is the region's id.
pub struct RegionSpec {
    /// Number in stamps and positions, from 1; never given to another region.
    pub ordinal: u16,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Base URLs of its origins.
    pub origins: Vec<String>,
    /// Share of traffic under a weighted strategy.
    #[serde(default = "weight")]
    pub weight: u32,
    /// Whether it takes traffic.
    #[serde(default)]
    pub state: RegionStateSpec,
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
/// A tenant's own HTTP service that routes may forward to.
pub struct UpstreamSpec {
    /// Base URL by region.
    pub regions: BTreeMap<String, String>,
    /// Until the head of a response must be there.
    #[serde(default = "timeout")]
    pub timeout: Span,
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
    /// RSA modulus, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA public exponent, base64url.
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
/// A key set that is fetched (RFC 7517, section 5).
pub struct JwksSpec {
    /// Absolute URL.
    pub url: String,
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

spec! {
/// Which requests a route is for and what is done with them.
pub struct RouteSpec {
    /// Which requests: all that is given must hold.
    #[serde(rename = "match")]
    pub matcher: MatchSpec,
    /// Who may. Without it, whoever has a valid token.
    #[serde(default)]
    pub auth: AuthSpec,
    /// Names of `RateLimit` documents, all of them checked.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Names of `Experiment` documents that it takes part in.
    #[serde(default)]
    pub experiments: Vec<String>,
    /// Name of a `CachePolicy` document. Without it, nothing is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Names of `Security` documents beside those for every request.
    #[serde(default)]
    pub security: Vec<String>,
    /// Names of `Transform` documents, in order.
    #[serde(default)]
    pub transforms: Vec<String>,
    /// How a region is chosen.
    #[serde(default)]
    pub steering: SteeringSpec,
    /// Name of an `Upstream` document. Without it, the region's Meridian origin answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}
}

spec! {
/// Which requests a route is for. All that is given must hold.
pub struct MatchSpec {
    /// Hostnames, exact or with a leading `*.`. Without any, all of the tenant's.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Path: `/v1/orders/{id}`; `{name}` takes one segment, a last `**` takes all that follow.
    pub path: String,
    /// Methods. Without any, all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header fields that must be there, with this value if one is given.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// Query parameters that must be there, with this value if one is given.
    #[serde(default)]
    pub query: BTreeMap<String, Option<String>>,
    /// Condition on the facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Decides between routes that are otherwise equally specific: the higher goes first.
    #[serde(default)]
    pub priority: i32,
}
}

spec! {
/// Who may use a route.
#[derive(Eq)]
pub struct AuthSpec {
    /// Whether a token is needed.
    #[serde(default)]
    pub mode: AuthMode,
    /// Scopes that the token must have, all of them. Only with `mode: required`.
    #[serde(default)]
    pub scopes: Vec<String>,
}
}

impl Default for AuthSpec {
    fn default() -> Self {
        Self { mode: AuthMode::Required, scopes: Vec::new() }
    }
}

spec! {
/// Whether a token is needed.
pub enum AuthMode {
    /// A valid token is needed.
    #[default]
    Required,
    /// Anybody; a token that is there must be valid.
    Optional,
    /// Anybody; a token is not looked at.
    Anonymous,
}
}

spec! {
/// How a region is chosen among those allowed.
#[derive(Eq)]
pub struct SteeringSpec {
    /// Order of preference.
    #[serde(default)]
    pub strategy: StrategySpec,
    /// Regions in order, for `strategy: priority`.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Statuses that count as a failure of the region.
    #[serde(default = "retry_statuses")]
    pub retry_statuses: Vec<u16>,
    /// Attempts at the most, the first included.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Until the head of a response must be there, for one attempt.
    #[serde(default = "timeout")]
    pub timeout: Span,
}
}

impl Default for SteeringSpec {
    fn default() -> Self {
        Self {
            strategy: StrategySpec::Nearest,
            regions: Vec::new(),
            retry_statuses: retry_statuses(),
            attempts: attempts(),
            timeout: timeout(),
        }
    }
}

spec! {
/// Order of preference of regions.
pub enum StrategySpec {
    /// The nearest by great circle.
    #[default]
    Nearest,
    /// In the order of `regions`.
    Priority,
    /// The tenant's home region, then the nearest.
    Home,
}
}

spec! {
/// A limit on how often.
pub struct RateLimitSpec {
    /// Whom it counts: `client`, `subject`, `tenant`, `header:NAME`, `claim:NAME`; the parts are joined.
    pub key: Vec<LimitKeySpec>,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window: Span,
    /// Units that may be taken at once. Without it, the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Units of one request.
    #[serde(default = "cost")]
    pub cost: u32,
    /// Who counts.
    #[serde(default)]
    pub scope: LimitScopeSpec,
    /// What happens when the authority is away.
    #[serde(default)]
    pub fail: FailSpec,
    /// Only counts and reports, never denies.
    #[serde(default)]
    pub shadow: bool,
}
}

/// What a limit counts by: `client`, `subject`, `tenant`, `header:NAME` or `claim:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LimitKeySpec(pub String);

#[cfg(feature = "documents")]
impl schemars::JsonSchema for LimitKeySpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(client|subject|tenant|header:.+|claim:.+)$",
            "description": "client, subject, tenant, header:NAME or claim:NAME."
        })
    }
}

spec! {
/// Who counts a limit.
pub enum LimitScopeSpec {
    /// Each edge node by itself.
    Node,
    /// The region's authority, by leases.
    #[default]
    Region,
}
}

spec! {
/// What a policy does when what it depends on is away.
pub enum FailSpec {
    /// Let the request through.
    #[default]
    Open,
    /// Refuse it.
    Closed,
}
}

spec! {
/// An A/B experiment.
pub struct ExperimentSpec {
    /// Experiments of one layer exclude one another: each has its own part of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerSpec>,
    /// Hash salt; a new one reshuffles. Without it, the experiment's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Who takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Condition>,
    /// What an assignment sticks to.
    #[serde(default)]
    pub unit: UnitSpec,
    /// Share of units that take part.
    #[serde(default = "all")]
    pub ramp: Share,
    /// Variants with their weights.
    pub variants: Vec<VariantSpec>,
}
}

spec! {
/// A layer and the part of it that an experiment has.
#[derive(Eq)]
pub struct LayerSpec {
    /// Name of the layer.
    pub name: String,
    /// Where the part begins.
    pub from: Share,
    /// Where the part ends.
    pub until: Share,
}
}

spec! {
/// What an assignment sticks to.
pub enum UnitSpec {
    /// The verified subject; without one, the cookie.
    #[default]
    Subject,
    /// A signed cookie that the edge sets.
    Cookie,
}
}

spec! {
/// One variant of an experiment.
#[derive(Eq)]
pub struct VariantSpec {
    /// Name.
    pub name: String,
    /// Weight among the variants.
    pub weight: u32,
}
}

spec! {
/// Whether and how responses are stored (RFC 9111).
pub struct CachePolicySpec {
    /// Lifetime by status, where the response gives none. A status that is not here is stored only if its response says so.
    #[serde(default)]
    pub ttl: BTreeMap<String, Span>,
    /// What tells entries apart, beside tenant, method, host and path.
    #[serde(default)]
    pub key: CacheKeySpec,
    /// Stale service while it is revalidated, where the response says nothing (RFC 5861).
    #[serde(default)]
    pub stale_while_revalidate: Span,
    /// Stale service while the origin fails, where the response says nothing (RFC 5861).
    #[serde(default)]
    pub stale_if_error: Span,
    /// Tags beside those of the response.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Requests that go past the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass: Option<Condition>,
}
}

spec! {
/// What tells cache entries apart.
#[derive(Default, Eq)]
pub struct CacheKeySpec {
    /// Query parameters: `all`, `none`, or a list of names.
    #[serde(default)]
    pub query: QueryKeySpec,
    /// Header fields, beside what `Vary` names.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Cookies.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// Claims of the verified token.
    #[serde(default)]
    pub claims: Vec<String>,
    /// The variants of the route's experiments.
    #[serde(default)]
    pub variants: bool,
}
}

/// Which query parameters are in a cache key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum QueryKeySpec {
    /// All or none of them.
    Word(QueryWord),
    /// These.
    Only(Vec<String>),
}

impl Default for QueryKeySpec {
    fn default() -> Self {
        Self::Word(QueryWord::All)
    }
}

spec! {
/// All query parameters, or none.
pub enum QueryWord {
    /// All.
    #[default]
    All,
    /// None.
    None,
}
}

spec! {
/// Changes to headers on the way in and out.
pub struct TransformSpec {
    /// Requests that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Changes to the forwarded request.
    #[serde(default)]
    pub request: ChangesSpec,
    /// Changes to the reply.
    #[serde(default)]
    pub response: ChangesSpec,
}
}

spec! {
/// Changes to header fields: first `remove`, then `set`, then `append`.
#[derive(Default)]
pub struct ChangesSpec {
    /// Fields to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Fields to set to one value.
    #[serde(default)]
    pub set: BTreeMap<String, HeaderText>,
    /// Fields to add a value to.
    #[serde(default)]
    pub append: BTreeMap<String, HeaderText>,
}
}

/// Value of a header field: a text as it stands, or `{cel: EXPRESSION}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderText {
    /// As it stands.
    Text(String),
    /// What the expression says; it must be a text.
    Expr(Condition),
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for HeaderText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HeaderText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A text as it stands, or an expression in CEL that gives one.",
            "anyOf": [
                { "type": "string" },
                { "type": "object", "properties": { "cel": { "type": "string" } }, "required": ["cel"], "additionalProperties": false }
            ]
        })
    }
}

spec! {
/// Lists of addresses.
#[derive(Eq)]
pub struct SecuritySpec {
    /// Networks that alone may come: `192.0.2.0/24`, `2001:db8::/32`, or one address. Without any, all may.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Networks that may not.
    #[serde(default)]
    pub deny: Vec<String>,
    /// What a hit does.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Whether it is for every request of the tenant, or only for the routes that name it.
    #[serde(default)]
    pub every_request: bool,
}
}

spec! {
/// What a security rule does when it hits.
pub enum ModeSpec {
    /// Nothing.
    Off,
    /// Is written to the decision.
    Log,
    /// Refuses the request.
    #[default]
    Block,
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

fn retry_statuses() -> Vec<u16> {
    vec![500, 502, 503, 504]
}

fn attempts() -> u32 {
    3
}

fn cost() -> u32 {
    1
}

fn all() -> Share {
    Share::ALL
}
