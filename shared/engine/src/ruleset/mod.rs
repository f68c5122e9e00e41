//! Rules after parsing and checking: what the engine decides by. `wire` makes these from documents.

mod cache;
mod content;
mod experiment;
mod function;
mod issuer;
mod limit;
mod route;
mod segment;
mod transform;
mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::cache::{CachePolicy, KeyPart};
pub use self::content::{
    Coding, Compress, HtmlChange, HtmlEdit, HtmlRule, Markup, MediaType, PageChanges, Spot,
};
pub use self::experiment::{Experiment, Force, Goal, Layer, Newcomers, Unit, Variant};
pub use self::function::Function;
pub use self::issuer::{Issuer, IssuerKey, Jwks, Revoked};
pub use self::limit::{Cost, Fail, LimitAlgorithm, LimitKey, LimitScope, RateLimit};
pub use self::route::{
    Affinity, Auth, Canary, Hedge, Matcher, PathTemplate, Personal, Route, RouteTarget, SHARE_ALL, Sampling,
    Segment, Steering, Strategy,
};
pub use self::segment::UserSegment;
pub use self::transform::{
    Cors, HeaderChange, HeaderValue, OriginPattern, Piece, Redirect, Rewrite, Template, Transform,
};
pub use self::upstream::{SharedUpstream, Upstream, UpstreamRef};
use crate::policy::security::Security;

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

/// The platform: regions shared by all tenants, and services that some may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// Release.
    pub version: Version,
    /// Regions in the order of their ids.
    pub regions: Vec<Region>,
    /// Upstreams by what tenants' rules call them, `platform:NAME`.
    pub upstreams: BTreeMap<Arc<str>, SharedUpstream>,
}

impl Platform {
    /// The upstream that a tenant's rules call so, where it is there and for that tenant.
    #[must_use]
    pub fn upstream(&self, name: &str, tenant: &str) -> Option<&Upstream> {
        let shared = self.upstreams.get(name).filter(|shared| shared.is_for(tenant))?;
        Some(&shared.upstream)
    }
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
    /// Base URLs of its origin, without a trailing slash: at least one, each as good as the others, in order of preference.
    pub origins: Vec<Arc<str>>,
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
    /// Limits, by index from routes and from the tenant.
    pub limits: Vec<RateLimit>,
    /// Experiments, by index from routes.
    pub experiments: Vec<Experiment>,
    /// Cache policies, by index from routes.
    pub caches: Vec<CachePolicy>,
    /// Transforms, by index from routes.
    pub transforms: Vec<Transform>,
    /// Security policies, by index from routes and from the tenant.
    pub security: Vec<Security>,
    /// Segments of its users.
    pub segments: Vec<UserSegment>,
    /// Upstreams, by index from routes.
    pub upstreams: Vec<Upstream>,
    /// Functions, by index from routes.
    pub functions: Vec<Function>,
    /// Routes, most specific first but for their hosts: of those whose host says most of the request's, the first that
    /// matches decides.
    pub routes: Vec<Route>,
}

impl Ruleset {
    /// Bytes that its lists of addresses and of autonomous systems take in memory.
    #[must_use]
    pub fn list_bytes(&self) -> usize {
        self.security.iter().map(Security::list_bytes).sum()
    }

    /// Bytes that its routes take in memory, as [`Route::bytes`] counts them.
    #[must_use]
    pub fn route_bytes(&self) -> usize {
        self.routes.iter().map(Route::bytes).sum()
    }
}

/// A customer organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Slug.
    pub slug: String,
    /// Whether it is served.
    pub state: TenantState,
    /// Slug of the tenant above it.
    pub parent: Option<String>,
    /// Slug of the nearest tenant above it that is suspended; it is suspended itself then.
    pub suspended_by: Option<String>,
    /// Hostnames that are known to be its own, exact or with a leading `*.`.
    pub domains: Vec<String>,
    /// Hostnames that are not, or not yet: they are not served.
    pub unverified: Vec<String>,
    /// Region of its writes by default.
    pub home_region: RegionId,
    /// Regions that may see its data; never empty.
    pub allowed_regions: Vec<RegionId>,
    /// Security policies of every request of the tenant, by index.
    pub security: Vec<usize>,
    /// Limits of its plan, by index into [`Ruleset::limits`]: they stand before those of any route.
    pub limits: Vec<usize>,
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// Served.
    Active,
    /// Every request gets a clear 403.
    Suspended,
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
