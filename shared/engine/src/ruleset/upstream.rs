//! Upstreams: services in the place of the regions' own origins.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{RegionId, RuleRef};

/// An upstream, as a tenant's rules name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamRef {
    /// The tenant's own, by index into [`Ruleset::upstreams`](super::Ruleset::upstreams).
    Own(usize),
    /// The platform's, by what it is called in [`Platform::upstreams`](super::Platform::upstreams). Whether it is there, and for
    /// this tenant, the platform's rules say when a request comes.
    Platform(Arc<str>),
}

/// An upstream of the platform.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedUpstream {
    /// The upstream.
    pub upstream: Upstream,
    /// Slugs of the tenants that may use it; `None` for all.
    pub tenants: Option<BTreeSet<String>>,
}

impl SharedUpstream {
    /// Whether the tenant with this slug may use it.
    #[must_use]
    pub fn is_for(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

/// An HTTP service of a tenant or of the platform, by region.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Where it stands.
    pub rule: RuleRef,
    /// Whose it is and its name, `tenant/name` or `platform:name`: what its health is told and kept by.
    pub service: Arc<str>,
    /// Base URL by region.
    pub regions: Vec<(RegionId, Arc<str>)>,
    /// Until the head of a response must be there.
    pub timeout_ms: u32,
    /// Until there must be a connection.
    pub connect_timeout_ms: Option<u32>,
    /// The longest pause in a response's body.
    pub body_timeout_ms: Option<u32>,
    /// Connections to each region of it that a node may have in use at once for one tenant.
    pub connections_max: Option<u32>,
    /// Bytes that a response's body may have.
    pub response_bytes_max: Option<u64>,
    /// Fields set on each request to it, by name in lower case. Values may be secrets.
    pub headers: Vec<(String, String)>,
}
