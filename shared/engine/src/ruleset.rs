//! Rules after parsing and checking: what the engine decides by. `wire` makes these from documents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::expr::Expr;
use crate::policy::security::Security;
use crate::step::{Algorithm, VerificationKey};

/// Id of a region, `us-east-1`.
pub type RegionId = Arc<str>;

/// What rules are released to: the platform as a whole or one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Regions and upstreams that everybody shares.
    Platform,
    /// The rules of the tenant with this slug.
    Tenant(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Platform => f.write_str("platform"),
            Self::Tenant(slug) => write!(f, "tenant:{slug}"),
        }
    }
}

/// Which release a ruleset comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Grows by one with every release of the target, rollbacks included.
    pub sequence: u64,
    /// First 16 hexadecimal characters of the bundle's SHA-256.
    pub hash: String,
}

/// Where a rule stands, for explanations and errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Kind of the document: `Route`, `RateLimit` …
    pub kind: &'static str,
    /// Its `metadata.name`.
    pub name: Arc<str>,
    /// File that it was pushed from.
    pub file: Arc<str>,
    /// Line at which the document begins, from 1.
    pub line: u32,
}

/// The platform: regions shared by all tenants.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// Release.
    pub version: Version,
    /// Regions in the order of their ids.
    pub regions: Vec<Region>,
}

/// A place with an origin and a PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Id.
    pub id: RegionId,
    /// Number in stamps and positions, from 1.
    pub ordinal: u16,
    /// Latitude in degrees.
    pub latitude: f64,
    /// Longitude in degrees.
    pub longitude: f64,
    /// Base URLs of its origins, without a trailing slash; at least one.
    pub origins: Vec<String>,
    /// Share of traffic under a weighted strategy.
    pub weight: u32,
    /// Whether it takes traffic.
    pub state: RegionState,
}

/// Whether a region takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Takes traffic.
    Active,
    /// Keeps the sessions that it has, takes no new ones.
    Draining,
    /// Takes none.
    Down,
}

/// One tenant's rules.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// Release.
    pub version: Version,
    /// The tenant.
    pub tenant: Tenant,
    /// Who signs its tokens.
    pub issuers: Vec<Issuer>,
    /// Limits, by index from routes.
    pub limits: Vec<RateLimit>,
    /// Experiments, by index from routes.
    pub experiments: Vec<Experiment>,
    /// Cache policies, by index from routes.
    pub caches: Vec<CachePolicy>,
    /// Transforms, by index from routes.
    pub transforms: Vec<Transform>,
    /// Security policies, by index from routes and from the tenant.
    pub security: Vec<Security>,
    /// Upstreams, by index from routes.
    pub upstreams: Vec<Upstream>,
    /// Routes, most specific first: the first that matches decides.
    pub routes: Vec<Route>,
}

/// A customer organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Slug.
    pub slug: String,
    /// Whether it is served.
    pub state: TenantState,
    /// Hostnames, exact or with a leading `*.`.
    pub domains: Vec<String>,
    /// Region of its writes by default.
    pub home_region: RegionId,
    /// Regions that may see its data; never empty.
    pub allowed_regions: Vec<RegionId>,
    /// Security policies of every request of the tenant, by index.
    pub security: Vec<usize>,
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// Served.
    Active,
    /// Every request gets a clear 403.
    Suspended,
}

/// Who signs a tenant's tokens (RFC 7519).
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Where it stands.
    pub rule: RuleRef,
    /// Exact `iss`.
    pub iss: String,
    /// Audiences, one of which `aud` must hold; empty only where the document says that any will do.
    pub audiences: Vec<String>,
    /// Algorithms allowed; a key's own algorithm must be among them.
    pub algorithms: Vec<Algorithm>,
    /// Keys written in the document.
    pub keys: Vec<IssuerKey>,
    /// Where the key set is, if it is fetched.
    pub jwks: Option<Jwks>,
    /// Clock skew allowed on `exp`, `nbf`, `iat`.
    pub skew_ms: u64,
    /// Longest life (`exp` − `iat`) accepted; 0 is any.
    pub life_ms_max: u64,
    /// Claims that must be there.
    pub required_claims: Vec<String>,
    /// Claim that holds the scopes (a space-separated string or a list).
    pub scope_claim: String,
    /// Claims that go to the origin, attribute by claim.
    pub attributes: BTreeMap<String, String>,
    /// Tokens that are right and no longer count.
    pub revoked: Revoked,
}

/// Tokens of an issuer that no longer count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// By `jti`.
    pub tokens: BTreeSet<String>,
    /// By `sub`: those issued (`iat`) before this moment, in milliseconds since the Unix epoch; those without `iat` always.
    pub subjects: BTreeMap<String, u64>,
    /// Of anybody, issued before this moment; 0 revokes none.
    pub before_ms: u64,
}

/// A key of an issuer, with the one algorithm that it is for.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    /// Key id; a token without `kid` may use it only where it is the only key.
    pub kid: Option<String>,
    /// Algorithm pinned to it.
    pub algorithm: Algorithm,
    /// The key.
    pub key: Arc<VerificationKey>,
}

/// A key set at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// Absolute URL of the key set, or of the provider's metadata, which says where the key set is.
    pub url: String,
    /// The URL is that of OpenID Provider Metadata (OpenID Connect Discovery 1.0, section 4; RFC 8414).
    pub discovery: bool,
    /// Age from which it is refreshed in the background.
    pub refresh_ms: u64,
    /// Age from which it is no longer used without a successful refresh.
    pub stale_ms: u64,
    /// An unknown `kid` fetches again at most once in this time.
    pub refetch_interval_ms: u64,
}

/// What requests a route is for and what is done with them.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it stands.
    pub rule: RuleRef,
    /// Which requests.
    pub matcher: Matcher,
    /// Who may.
    pub auth: Auth,
    /// Limits, all of them checked.
    pub limits: Vec<usize>,
    /// Experiments that it takes part in.
    pub experiments: Vec<usize>,
    /// Whether and how responses are stored.
    pub cache: Option<usize>,
    /// Security policies beside the tenant's.
    pub security: Vec<usize>,
    /// Transforms, in order.
    pub transforms: Vec<usize>,
    /// How a region is chosen.
    pub steering: Steering,
    /// Where it goes.
    pub target: RouteTarget,
}

/// Which requests a route is for. All that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Hostnames, exact or with a leading `*.`; empty is all of the tenant's.
    pub hosts: Vec<String>,
    /// Segments of the path.
    pub path: PathTemplate,
    /// Methods; empty is all.
    pub methods: Vec<String>,
    /// Header fields that must be there, with this value if one is given (name in lower case).
    pub headers: Vec<(String, Option<String>)>,
    /// Query parameters that must be there, with this value if one is given.
    pub query: Vec<(String, Option<String>)>,
    /// Condition on the facts.
    pub when: Option<Expr>,
}

/// Path of a route as segments; the last may take the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTemplate {
    /// Segments in order.
    pub segments: Vec<Segment>,
    /// Whether anything may follow.
    pub open: bool,
}

/// One segment of a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this.
    Literal(String),
    /// Anything but nothing; the name captures it.
    Capture(String),
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// Anybody; a token is not looked at.
    Anonymous,
    /// Anybody; a token that is there must be right.
    Optional,
    /// Whoever has a token with all these scopes.
    Required {
        /// Scopes, all of them needed.
        scopes: Vec<String>,
        /// What must hold of the token and the request beside.
        when: Option<Expr>,
    },
}

/// A limit on how often.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Where it stands.
    pub rule: RuleRef,
    /// Whom it counts: the parts are joined.
    pub key: Vec<LimitKey>,
    /// How it counts.
    pub algorithm: LimitAlgorithm,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window_ms: u64,
    /// Units that may be taken at once; of a sliding window the quota.
    pub burst: u32,
    /// Units of one request.
    pub cost: Cost,
    /// Who counts.
    pub scope: LimitScope,
    /// What happens when the authority is away.
    pub fail: Fail,
    /// Only counts and reports, never denies.
    pub shadow: bool,
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitKey {
    /// Address of the client (IPv6: its /64).
    Client,
    /// Verified subject, or the client's address where there is none.
    Subject,
    /// The tenant as a whole.
    Tenant,
    /// A header field's value (name in lower case).
    Header(String),
    /// A claim's value.
    Claim(String),
    /// What the expression says.
    Expr(Expr),
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// The generic cell rate algorithm: units come back evenly, up to the burst.
    #[default]
    Gcra,
    /// What passed in the window that ends now is at most the quota.
    SlidingWindow,
}

/// Units that one request takes of a limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// So many.
    Units(u32),
    /// A whole number that the expression says; 1 where it says something else.
    Expr(Expr),
}

/// Who counts a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Each edge node by itself.
    Node,
    /// The authority of the region nearest to the client, by leases.
    Region,
    /// One authority for all regions, that of the tenant's home region, by leases.
    Global,
}

/// What a policy does when what it depends on is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// Let the request through.
    Open,
    /// Refuse it.
    Closed,
}

/// An A/B experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Where it stands.
    pub rule: RuleRef,
    /// Experiments of one layer exclude one another: each has its own range of the layer's units.
    pub layer: Option<Layer>,
    /// Hash salt; a new one reshuffles.
    pub salt: String,
    /// Who takes part.
    pub audience: Option<Expr>,
    /// What stays the same for a unit.
    pub unit: Unit,
    /// Share of units that take part, in hundredths of a per cent (0 to 10,000).
    pub ramp: u32,
    /// Variants with their weights; at least one weight is not 0. The first is the control.
    pub variants: Vec<Variant>,
    /// What decides which variant a unit gets, as [`crate::policy::experiment::version`] tells it.
    pub version: String,
    /// How testers choose their variant.
    pub force: Option<Force>,
    /// What counts as success.
    pub goals: Vec<Goal>,
}

/// How testers choose their variant: the first of these places that has a text names it.
#[derive(Clone, Debug)]
pub struct Force {
    /// Header field, in lower case.
    pub header: Option<String>,
    /// Query parameter.
    pub query: Option<String>,
    /// Cookie.
    pub cookie: Option<String>,
    /// Who may.
    pub when: Expr,
}

/// Something that a variant shall make more frequent.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Name, once in the experiment.
    pub name: String,
    /// Requests that reach it, whatever their route.
    pub when: Expr,
    /// Statuses of the reply with which they do.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// A layer and the part of it that an experiment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Name.
    pub name: String,
    /// First bucket, of 10,000.
    pub from: u32,
    /// One past the last bucket.
    pub until: u32,
}

/// What an assignment sticks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The verified subject; without one, the cookie.
    Subject,
    /// A signed cookie that the edge sets.
    Cookie,
}

/// One variant of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Name.
    pub name: String,
    /// Weight.
    pub weight: u32,
}

/// Whether and how responses are stored (RFC 9111).
#[derive(Clone, Debug)]
pub struct CachePolicy {
    /// Where it stands.
    pub rule: RuleRef,
    /// Lifetime where the response gives none, by status; a status that is not here is not stored by it.
    pub default_ttl_ms: BTreeMap<u16, u64>,
    /// Query parameters in the key: all, or only these.
    pub query: KeyPart,
    /// Header fields in the key (lower case), beside what `Vary` names.
    pub headers: Vec<String>,
    /// Cookies in the key.
    pub cookies: Vec<String>,
    /// Claims in the key.
    pub claims: Vec<String>,
    /// Whether the variants are in the key.
    pub variants: bool,
    /// Stale service while it is revalidated, where the response says nothing (RFC 5861).
    pub stale_while_revalidate_ms: u64,
    /// Stale service while the origin fails, where the response says nothing (RFC 5861).
    pub stale_if_error_ms: u64,
    /// Lifetime of a response that gives none, as a share of the time since its `Last-Modified`, in hundredths of a per cent
    /// (RFC 9111, section 4.2.2); 0 is none.
    pub heuristic: u32,
    /// Whether a response with `Set-Cookie` may be stored, for everybody.
    pub store_cookies: bool,
    /// Tags beside those of the response.
    pub tags: Vec<String>,
    /// Requests that go past the cache.
    pub bypass: Option<Expr>,
}

/// Which query parameters are in a cache key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// All of them.
    All,
    /// None of them.
    None,
    /// These.
    Only(Vec<String>),
}

/// Changes to headers on the way in and out.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Where it stands.
    pub rule: RuleRef,
    /// Requests that it is for.
    pub when: Option<Expr>,
    /// Answers with a redirect, and nothing goes further.
    pub redirect: Option<Redirect>,
    /// Another path or query for the target.
    pub rewrite: Option<Rewrite>,
    /// What pages of other origins may read.
    pub cors: Option<Cors>,
    /// Whether the reply gets the headers that make a browser careful.
    pub security_headers: bool,
    /// Changes to the forwarded request.
    pub request: Vec<HeaderChange>,
    /// Changes to the reply.
    pub response: Vec<HeaderChange>,
}

/// An answer that sends the client elsewhere (RFC 9110, section 15.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `Location`.
    pub location: Template,
}

/// Where a request goes at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Path; `None` leaves it.
    pub path: Option<Template>,
    /// Query without its mark; `None` leaves it, and an empty text takes it away.
    pub query: Option<Template>,
}

/// A text with parts of the request in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `{name}`: a capture of the route's path, encoded as it came.
    Capture(String),
    /// `{**}`: what follows the segments of an open path.
    Rest,
    /// `{scheme}`
    Scheme,
    /// `{host}`
    Host,
    /// `{path}`
    Path,
    /// `{query}`
    Query,
    /// `{?query}`: the query with its mark, or nothing.
    QueryWithMark,
}

/// Cross-origin resource sharing (Fetch standard, section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Vec<OriginPattern>,
    /// Methods beside GET, HEAD and POST; `*` is all.
    pub methods: Vec<String>,
    /// Request headers; `*` is all that are asked for.
    pub headers: Vec<String>,
    /// Response headers that pages may read.
    pub expose: Vec<String>,
    /// Whether requests may carry cookies and other credentials; not with [`OriginPattern::Any`].
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age_s: u32,
}

/// Origins (RFC 6454, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// All.
    Any,
    /// This one.
    Exact(String),
    /// All hosts below a domain.
    Below {
        /// `https` or `http`.
        scheme: String,
        /// The domain, with the port if there is one.
        domain: String,
    },
}

/// One change to header fields (names in lower case).
#[derive(Clone, Debug)]
pub enum HeaderChange {
    /// Set to one value.
    Set(String, HeaderValue),
    /// Add a value.
    Append(String, HeaderValue),
    /// Remove all.
    Remove(String),
}

/// Value of a [`HeaderChange`].
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// As it stands.
    Text(String),
    /// What the expression says (a string; otherwise the change is left out and the explanation says so).
    Expr(Expr),
}

/// What a security rule does when it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// Is written to the decision.
    Log,
    /// Refuses the request.
    Block,
}

/// A tenant's own HTTP service, by region.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Where it stands.
    pub rule: RuleRef,
    /// Base URL by region.
    pub regions: Vec<(RegionId, String)>,
    /// Until the head of a response must be there.
    pub timeout_ms: u32,
}

/// How a region is chosen among those allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Order of preference.
    pub strategy: Strategy,
    /// Statuses that count as a failure of the region.
    pub retry_statuses: Vec<u16>,
    /// Attempts at the most, the first included.
    pub attempts_max: u32,
    /// Until the head of a response must be there, for one attempt.
    pub timeout_ms: u32,
    /// What keeps a client at its region.
    pub affinity: Affinity,
    /// A share of clients that goes to another target.
    pub canary: Option<Canary>,
}

/// What keeps a client at its region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// A signed cookie that names the region which answered first.
    Cookie,
    /// A hash of the client's address (IPv6: its /64).
    Client,
    /// A hash of the verified subject, or of the client's address where there is none.
    Subject,
}

/// A share of clients that goes to another target, always the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Share of units, in hundredths of a per cent (0 to 10,000).
    pub share: u32,
    /// The upstream that they go to, by index.
    pub upstream: usize,
}

/// Order of preference of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The nearest by great circle.
    Nearest,
    /// The one that has answered fastest lately; the nearest where nothing is known.
    Latency,
    /// Each for its share of these weights, or of the regions' own where none is given.
    Weighted(BTreeMap<RegionId, u32>),
    /// Only these, in this order.
    Pinned(Vec<RegionId>),
    /// In this order.
    Priority(Vec<RegionId>),
    /// The tenant's home region, then the nearest.
    Home,
}

/// Where a route goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The region's Meridian origin.
    Origin,
    /// An upstream, by index.
    Upstream(usize),
}
