//! What a tenant's contract lets it have.

use serde::{Deserialize, Serialize};

use super::policy::{FailSpec, LimitScopeSpec};
use super::security::ModeSpec;
use super::unit::Span;

spec! {
/// What a tenant's contract lets it have. Where it says nothing, the platform's own limits are all there are.
#[derive(Eq, Default)]
pub struct PlanSpec {
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Limits of all requests of the tenant together, at most 4. They are counted where a route's limits are, before those:
    /// what security or the token's check refuses takes nothing of them. Clients see them as `plan:1`, `plan:2` and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<PlanLimitSpec>,
    /// `Route` documents that a push may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_routes: Option<u32>,
    /// Bytes that the bundle of a push may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bundle_bytes: Option<u64>,
    /// Whether a push may have `Function` documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<bool>,
}
}

spec! {
/// A limit of all requests of a tenant together, by the generic cell rate algorithm.
#[derive(Eq)]
pub struct PlanLimitSpec {
    /// Requests in a window.
    pub quota: u32,
    /// Window, 1s or more.
    pub window: Span,
    /// Requests that may come at once, at most as many as come back in 292 years. Without it, the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Who counts.
    #[serde(default)]
    pub scope: LimitScopeSpec,
    /// What happens when the authority is away.
    #[serde(default)]
    pub fail: FailSpec,
    /// What reaching it does: `off` counts nothing, `log` counts and reports, and neither denies.
    #[serde(default)]
    pub mode: ModeSpec,
}
}

impl PlanSpec {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
