//! What routes name: limits and cache policies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::security::ModeSpec;
use super::unit::{Share, Span};

spec! {
/// A limit on how often.
pub struct RateLimitSpec {
    /// Whom it counts: `client`, `subject`, `tenant`, `header:NAME`, `claim:NAME` or an expression; the parts are joined. No
    /// variant is given yet: `variants` can't be asked for.
    pub key: Vec<LimitKeySpec>,
    /// How it counts.
    #[serde(default)]
    pub algorithm: LimitAlgorithmSpec,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window: Span,
    /// Units that may be taken at once, at most as many as come back in 292 years. Without it, the quota; a sliding window has
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Units of one request, 1 at the least: where an expression says more than the burst, it never passes. Here too,
    /// `variants` can't be asked for.
    #[serde(default)]
    pub cost: CostSpec,
    /// Who counts.
    #[serde(default)]
    pub scope: LimitScopeSpec,
    /// What happens when the authority is away.
    #[serde(default)]
    pub fail: FailSpec,
    /// What reaching it does: `off` counts nothing, `log` counts and reports, and neither denies.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Another spelling of `mode: log`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}
}

/// What a limit counts by: `client`, `subject`, `tenant`, `header:NAME`, `claim:NAME`, or `{cel: EXPRESSION}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitKeySpec {
    /// One of the words.
    Word(String),
    /// What the expression says; it must be a text.
    Expr(Condition),
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for LimitKeySpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "client, subject, tenant, header:NAME, claim:NAME, or an expression in CEL that gives a text.",
            "anyOf": [
                { "type": "string", "pattern": "^(client|subject|tenant|header:.+|claim:.+)$" },
                { "type": "object", "properties": { "cel": { "type": "string" } }, "required": ["cel"], "additionalProperties": false }
            ]
        })
    }
}

spec! {
/// How a limit counts.
pub enum LimitAlgorithmSpec {
    /// The generic cell rate algorithm: units come back evenly, up to the burst.
    #[default]
    Gcra,
    /// What passed in the window that ends now is at most the quota.
    SlidingWindow,
}
}

/// Units of one request: a number, or `{cel: EXPRESSION}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CostSpec {
    /// So many.
    Units(u32),
    /// What the expression says; it must be a whole number.
    Expr(Condition),
}

impl Default for CostSpec {
    fn default() -> Self {
        Self::Units(1)
    }
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for CostSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number of units, or an expression in CEL that gives one.",
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "object", "properties": { "cel": { "type": "string" } }, "required": ["cel"], "additionalProperties": false }
            ]
        })
    }
}

spec! {
/// Who counts a limit.
///
/// An authority hands its quota out in leases and counts them when it does, so that no more passes than it has counted. A unit
/// is spent within L of that: a tenth of the window, at least 1 s and at most 5 s. In any time T at most burst + quota × (T + L) ÷
/// window pass, of a sliding window at most the quota for each window that T + L takes, one that has begun included. The number of
/// nodes and what requests cost change nothing of it. An authority that starts again knows nothing of before, and has its burst
/// once more; each of several processes behind one URL is an authority of its own.
///
/// A node, and the authority of an origin, remember 50,000 counters of all tenants and limits together; on Cloudflare an
/// authority stores its own, and forgets none that counts. Beyond that, counters that are whole again go first, then, of tenants
/// with more than an even share, those that owe the least. Whoever such a one was for may have as much as it owed once more, at
/// most a burst, of a sliding window a quota, each time.
pub enum LimitScopeSpec {
    /// Each edge node by itself: an isolate on Cloudflare, an instance of the component in Spin. Hosts run as many as they like
    /// and start them anew, so that the limit of all together is this one as often as there are nodes.
    Node,
    /// The authority of the region nearest to the client, by leases: who goes from region to region has a quota at each. In
    /// Spin authorities are the regions' origins, and while that one is away another one that the tenant allows counts; on
    /// Cloudflare they are Durable Objects, none counts in another's place, and `fail` decides at once.
    #[default]
    Region,
    /// One authority for all regions, that of the tenant's home region, by leases.
    Global,
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

impl FailSpec {
    pub(super) fn is_open(&self) -> bool {
        *self == Self::Open
    }

    pub(super) fn is_closed(&self) -> bool {
        *self == Self::Closed
    }

    pub(super) fn closed() -> Self {
        Self::Closed
    }
}

spec! {
/// Whether and how responses are stored (RFC 9111).
pub struct CachePolicySpec {
    /// Lifetime by status, where the response gives none. A status that is not here is stored only if its response says so.
    #[serde(default)]
    pub ttl: BTreeMap<String, Span>,
    /// What tells entries apart, beside the tenant, the URL, the route with its target and function, and rewrites under conditions.
    #[serde(default)]
    pub key: CacheKeySpec,
    /// Stale service while it is revalidated, where the response says nothing (RFC 5861).
    #[serde(default)]
    pub stale_while_revalidate: Span,
    /// Stale service while the origin fails, where the response says nothing (RFC 5861).
    #[serde(default)]
    pub stale_if_error: Span,
    /// Lifetime of a response that gives none, as a share of the time since its `Last-Modified`, a day at the most (RFC 9111,
    /// section 4.2.2). Without it, none.
    #[serde(default)]
    pub heuristic: Share,
    /// Whether a response with `Set-Cookie` may be stored: everybody gets the same cookie then.
    #[serde(default)]
    pub store_cookies: bool,
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
#[derive(Default)]
pub struct CacheKeySpec {
    /// Query parameters: `all`, `none`, or a list of names. A target whose answer may be stored gets no others.
    #[serde(default)]
    pub query: QueryKeySpec,
    /// Header fields, beside what `Vary` names.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Cookies, all of a name as they came.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// Claims of the verified token.
    #[serde(default)]
    pub claims: Vec<String>,
    /// The variants of the route's experiments.
    #[serde(default)]
    pub variants: bool,
    /// What expressions say: texts such as `client.device`, or `segments["vip"] ? "vip" : "others"`. At most 16. Where one
    /// can't be evaluated, the request goes past the cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Condition>,
}
}

/// Which query parameters are in a cache key. Of a list, a query with a `;` in it is in the key whole.
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
