//! Services in the place of the regions' own origins: a tenant's, and the platform's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_engine::destination::Destination;
use meridian_engine::policy::jwt::is_guarded;
use meridian_engine::ruleset::{Region, RegionId, RuleRef, SharedUpstream, Upstream, UpstreamRef};

use super::{Body, Compiler, Document, is_name, of_kind, rule, short};
use crate::document::{Secret, TenantsSpec, TenantsWord, UpstreamSpec};
use crate::limits::{
    BODY_TIMEOUT_MS_MAX, BODY_TIMEOUT_MS_MIN, CONNECTIONS_MAX, FIELD_VALUE_BYTES_MAX, RESPONSE_BYTES_MAX,
    UPSTREAM_HEADERS_MAX,
};
use crate::sync::is_slug;

/// What stands before the name of an upstream of the platform, where a tenant's rules name it. No name holds a colon.
const PLATFORM_UPSTREAM: &str = "platform:";

impl Compiler {
    /// The upstream that a route names. Whether the platform has one is known where its rules are at hand: at a push to an origin,
    /// and when a request comes.
    pub(super) fn named_upstream(&mut self, name: &str, path: &str) -> Option<UpstreamRef> {
        let Some(of_platform) = name.strip_prefix(PLATFORM_UPSTREAM) else {
            return self.find("Upstream", name, path).map(UpstreamRef::Own);
        };
        if !is_name(of_platform) {
            let expected = "platform: and the name of an upstream of the platform";
            self.flaw(path, format_args!("{:?}", short(name)), expected);
        }
        Some(UpstreamRef::Platform(name.into()))
    }

    /// Those of the tenant with this slug.
    pub(super) fn upstreams(&mut self, documents: &[Document], slug: &str) -> Vec<Upstream> {
        let (mut upstreams, mut checked) = (Vec::new(), 0);
        for (at, document, spec) in of_kind!(documents, Upstream) {
            self.document = at;
            if let Some(check) = &spec.health_check {
                checked += 1;
                self.health_check(check, checked);
            }
            if spec.tenants.is_some() {
                let expected = "nothing: one of a tenant's own is for that tenant alone";
                self.flaw("spec.tenants", "tenants", expected);
            }
            upstreams.push(self.upstream(rule(document), spec, format!("{slug}/{}", document.metadata.name)));
        }
        upstreams
    }

    /// Those of the platform, by what tenants' rules call them.
    pub(super) fn shared_upstreams(
        &mut self,
        documents: &[Document],
        regions: &[Region],
    ) -> BTreeMap<Arc<str>, SharedUpstream> {
        let mut shared = BTreeMap::new();
        for (at, document, spec) in of_kind!(documents, Upstream) {
            self.document = at;
            if spec.health_check.is_some() {
                let expected = "nothing: only requests tell of upstreams of the platform";
                self.flaw("spec.healthCheck", "a health check", expected);
            }
            for (id, url) in &spec.regions {
                self.outside(id, url, regions);
            }
            let tenants = self.users(spec.tenants.as_ref());
            let name = format!("{PLATFORM_UPSTREAM}{}", document.metadata.name);
            let rule = RuleRef { name: name.as_str().into(), ..rule(document) };
            let upstream = self.upstream(rule, spec, name.clone());
            shared.insert(name.into(), SharedUpstream { upstream, tenants });
        }
        shared
    }

    /// A place of an upstream of the platform has to be in a region that there is, and not where a region's origin is.
    fn outside(&mut self, id: &str, url: &str, regions: &[Region]) {
        let path = format!("spec.regions.{id}");
        if !regions.iter().any(|region| *region.id == *id) {
            let ids: Vec<&str> = regions.iter().map(|region| &*region.id).collect();
            self.flaw(
                &path,
                format_args!("{:?}", short(id)),
                format!("one of the regions: {}", ids.join(", ")),
            );
        }
        let Some(to) = Destination::of(url).filter(|_| self.is_push) else { return };
        let mut origins =
            regions.iter().flat_map(|region| &region.origins).filter_map(|url| Destination::of(url));
        if origins.any(|origin| origin.is_same(to)) {
            let expected = "a service that is no origin of the platform";
            self.flaw(path, format_args!("{:?}", short(to.host())), expected);
        }
    }

    /// Slugs of the tenants that may use an upstream of the platform; `None` for all.
    fn users(&mut self, tenants: Option<&TenantsSpec>) -> Option<BTreeSet<String>> {
        let slugs = match tenants {
            Some(TenantsSpec::Word(TenantsWord::All)) => return None,
            Some(TenantsSpec::Only(slugs)) => slugs.as_slice(),
            None => &[],
        };
        if slugs.is_empty() {
            self.flaw("spec.tenants", "nobody", "all, or the slugs of the tenants that may use it");
        }
        self.unique(slugs, "spec.tenants");
        for (at, slug) in slugs.iter().enumerate().filter(|(_, slug)| !is_slug(slug)) {
            self.flaw(
                format!("spec.tenants[{at}]"),
                format_args!("{:?}", short(slug)),
                "the slug of a tenant",
            );
        }
        Some(slugs.iter().cloned().collect())
    }

    fn upstream(&mut self, rule: RuleRef, spec: &UpstreamSpec, service: String) -> Upstream {
        if spec.regions.is_empty() {
            self.flaw("spec.regions", "no region", "a URL for at least one region");
        }
        let regions = spec.regions.iter().map(|(id, url)| {
            let path = format!("spec.regions.{id}");
            let base = Arc::<str>::from(self.base_url(url, &path));
            self.reach(url, &path);
            if url.starts_with("http://") && !is_guarded(url) && !spec.plaintext {
                let expected = "https, http to this very machine, or plaintext: true beside it";
                self.flaw(path, "http", expected);
            }
            (RegionId::from(id.as_str()), base)
        });
        let regions = regions.collect();
        Upstream {
            rule,
            service: service.into(),
            regions,
            timeout_ms: self.timeout(spec.timeout, "spec.timeout"),
            connect_timeout_ms: self.connect_timeout(spec),
            body_timeout_ms: self.body_timeout(spec),
            connections_max: self.connections(spec),
            response_bytes_max: self.response_bytes(spec),
            headers: self.upstream_headers(&spec.headers),
        }
    }

    /// Loopback and private networks are for whoever runs the edges to close: local stacks and services of one's own are there.
    fn reach(&mut self, url: &str, path: &str) {
        let Some(to) = Destination::of(url).filter(|_| self.is_push) else { return };
        if to.is_for_machines() || to.is_odd_number() {
            let expected = "a name or a whole address, no link-local one and no metadata service of a cloud";
            self.flaw(path, format_args!("{:?}", short(to.host())), expected);
        }
    }

    fn connect_timeout(&mut self, spec: &UpstreamSpec) -> Option<u32> {
        let timeout = spec.connect_timeout?;
        if timeout.ms < 10 || timeout > spec.timeout {
            self.flaw("spec.connectTimeout", timeout, "10ms or more, and at most spec.timeout");
        }
        u32::try_from(timeout.ms).ok()
    }

    fn body_timeout(&mut self, spec: &UpstreamSpec) -> Option<u32> {
        let timeout = spec.body_timeout?;
        if !(BODY_TIMEOUT_MS_MIN..=BODY_TIMEOUT_MS_MAX).contains(&timeout.ms) {
            self.flaw("spec.bodyTimeout", timeout, "100ms to 10m");
        }
        u32::try_from(timeout.ms).ok()
    }

    fn connections(&mut self, spec: &UpstreamSpec) -> Option<u32> {
        let connections = spec.max_connections?;
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let expected = format!("1 to {CONNECTIONS_MAX} (CONNECTIONS_MAX)");
            self.flaw("spec.maxConnections", connections, expected);
        }
        Some(connections)
    }

    fn response_bytes(&mut self, spec: &UpstreamSpec) -> Option<u64> {
        let bytes = spec.max_response_bytes?;
        if !(1..=RESPONSE_BYTES_MAX).contains(&bytes) {
            let expected = format!("1 to {RESPONSE_BYTES_MAX} (RESPONSE_BYTES_MAX)");
            self.flaw("spec.maxResponseBytes", bytes, expected);
        }
        Some(bytes)
    }

    fn upstream_headers(&mut self, fields: &BTreeMap<String, Secret>) -> Vec<(String, String)> {
        if fields.len() > UPSTREAM_HEADERS_MAX {
            let expected = format!("at most {UPSTREAM_HEADERS_MAX} (UPSTREAM_HEADERS_MAX)");
            self.flaw("spec.headers", format_args!("{} fields", fields.len()), expected);
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, Secret(value)) in fields {
            let path = format!("spec.headers.{name}");
            let name = self.changeable(name, &path);
            if headers.iter().any(|(other, _)| *other == name) {
                self.flaw(&path, "the same field again, in other letters", "every field once");
            }
            // RFC 9110, section 5.5: no control characters. The value may be a secret.
            if value.chars().any(char::is_control) || value.len() > FIELD_VALUE_BYTES_MAX {
                let expected = "a text without control characters, 4096 bytes at the most";
                self.flaw(&path, "a text that is no such thing", expected);
            }
            headers.push((name, value.clone()));
        }
        headers
    }
}
