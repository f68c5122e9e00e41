//! Rule documents: one set of types for what people write and for what a bundle carries.
//!
//! A document has `apiVersion`, `kind`, `metadata` and `spec`, as platform engineers know it. Unknown fields are
//! refused everywhere. Times are written with their unit (`90s`, `5m`), shares as per cent (`12.5%`), conditions in CEL.

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

mod condition;
mod content;
mod experiment;
mod function;
mod health;
mod party;
mod plan;
mod policy;
mod read;
mod route;
mod security;
mod segment;
mod transform;
mod unit;

pub use condition::{Condition, FactTree, Tree};
#[cfg(feature = "documents")]
pub(crate) use condition::{ENTRY_FACTS, PLAIN_FACTS};
pub use content::{AttributeSpec, CompressSpec, HtmlRuleSpec, MarkupSpec};
pub use experiment::{ExperimentSpec, ForceSpec, GoalSpec, LayerSpec, NewcomersSpec, UnitSpec, VariantSpec};
pub use function::{ComponentDigest, ComponentFile, FunctionSpec};
pub use health::{HealthCheckSpec, RegionCheckSpec};
pub use party::{
    AlgorithmSpec, Coordinates, DomainSpec, IssuerSpec, JwksSpec, KeySpec, RegionSpec, RegionStateSpec,
    RevokedSpec, Secret, TenantSpec, TenantStateSpec, TenantsSpec, TenantsWord, TlsStateSpec, UpstreamSpec,
    VerificationSpec,
};
pub use plan::{PlanLimitSpec, PlanSpec};
pub use policy::{
    CacheKeySpec, CachePolicySpec, CostSpec, FailSpec, LimitAlgorithmSpec, LimitKeySpec, LimitScopeSpec,
    QueryKeySpec, QueryWord, RateLimitSpec,
};
pub use route::{
    AffinitySpec, AuthMode, AuthSpec, CanarySpec, HedgeSpec, LogSpec, MatchSpec, PersonalSpec, RouteSpec,
    SteeringSpec, StrategySpec,
};
pub use security::{
    AsnFile, AsnsSpec, BotsSpec, CountriesSpec, CrawlerSpec, ExclusionSpec, InjectionSpec, ModeSpec,
    NetworkFile, SecuritySpec, SizesSpec, UnknownSpec, UnverifiedSpec,
};
pub use segment::SegmentSpec;
pub use transform::{ChangesSpec, CorsSpec, HeaderText, RedirectSpec, RewriteSpec, TransformSpec};
pub(crate) use unit::statuses;
pub use unit::{InvalidUnit, Patience, Share, Span};

use serde::{Deserialize, Serialize};

/// The one `apiVersion` of documents.
pub const API_VERSION: &str = "meridian/v1";

/// One document of a bundle, with the place that it was pushed from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// Kind and what it holds.
    #[serde(flatten)]
    pub body: Body,
    /// Name.
    pub metadata: Metadata,
    /// Where it was pushed from.
    pub source: Source,
}

/// What a document is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "documents", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Name, once per kind and target. Of a `Region` its id, of a `Tenant` its slug, of a `Domain` the hostname.
    pub name: String,
    /// What it is for, in the words of whoever wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where a document was pushed from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// File, relative to what was pushed.
    pub file: String,
    /// Line at which the document begins, from 1.
    pub line: u32,
}

/// Kind of a document and its `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "spec")]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Body {
    Region(RegionSpec),
    Upstream(UpstreamSpec),
    Tenant(TenantSpec),
    Domain(DomainSpec),
    Issuer(IssuerSpec),
    Route(RouteSpec),
    RateLimit(RateLimitSpec),
    Experiment(ExperimentSpec),
    CachePolicy(CachePolicySpec),
    Transform(TransformSpec),
    Security(SecuritySpec),
    Segment(SegmentSpec),
    Function(FunctionSpec),
}

impl Body {
    /// Kind of the document.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Region(_) => "Region",
            Self::Upstream(_) => "Upstream",
            Self::Tenant(_) => "Tenant",
            Self::Domain(_) => "Domain",
            Self::Issuer(_) => "Issuer",
            Self::Route(_) => "Route",
            Self::RateLimit(_) => "RateLimit",
            Self::Experiment(_) => "Experiment",
            Self::CachePolicy(_) => "CachePolicy",
            Self::Transform(_) => "Transform",
            Self::Security(_) => "Security",
            Self::Segment(_) => "Segment",
            Self::Function(_) => "Function",
        }
    }
}
