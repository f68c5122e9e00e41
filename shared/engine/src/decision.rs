//! What was decided about a request, with what it takes to explain it.

use crate::explanation::Explanation;
use crate::ruleset::RegionId;

/// What was decided about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Id: 26 characters of Crockford base 32, sortable by time (48 bits of milliseconds, 80 random bits).
    pub id: String,
    /// Tenant, once known.
    pub tenant: Option<String>,
    /// Version of the tenant's bundle, once known.
    pub bundle: Option<String>,
    /// Name of the route, once known.
    pub route: Option<String>,
    /// Outcome in one word.
    pub outcome: Outcome,
    /// Status that the client got.
    pub status: u16,
    /// Region that answered.
    pub region: Option<RegionId>,
    /// Verified subject.
    pub subject: Option<String>,
    /// Variant by experiment.
    pub variants: Vec<(String, String)>,
    /// Value of `Cache-Status`, without the cache's name.
    pub cache: Option<String>,
    /// Each stage with its rule, its inputs and its outcome.
    pub explanation: Explanation,
}

/// Outcome of a decision in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A target answered.
    Forwarded,
    /// The cache answered.
    Cached,
    /// The rules said no.
    Denied,
    /// A limit said no.
    Limited,
    /// Nothing could answer.
    Failed,
}
