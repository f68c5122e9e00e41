//! A tenant's own services.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_engine::destination::Destination;
use meridian_engine::policy::jwt::is_guarded;
use meridian_engine::ruleset::{RegionId, Upstream};

use super::{Body, Compiler, Document, of_kind, rule, short};
use crate::document::{Secret, UpstreamSpec};
use crate::limits::{
    BODY_TIMEOUT_MS_MAX, BODY_TIMEOUT_MS_MIN, CONNECTIONS_MAX, FIELD_VALUE_BYTES_MAX, RESPONSE_BYTES_MAX,
    UPSTREAM_HEADERS_MAX,
};

impl Compiler {
    pub(super) fn upstreams(&mut self, documents: &[Document], slug: &str) -> Vec<Upstream> {
        let (mut upstreams, mut checked) = (Vec::new(), 0);
        for (at, document, spec) in of_kind!(documents, Upstream) {
            self.document = at;
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
            if let Some(check) = &spec.health_check {
                checked += 1;
                self.health_check(check, checked);
            }
            upstreams.push(Upstream {
                rule: rule(document),
                service: format!("{slug}/{}", document.metadata.name).into(),
                regions,
                timeout_ms: self.timeout(spec.timeout, "spec.timeout"),
                connect_timeout_ms: self.connect_timeout(spec),
                body_timeout_ms: self.body_timeout(spec),
                connections_max: self.connections(spec),
                response_bytes_max: self.response_bytes(spec),
                headers: self.upstream_headers(&spec.headers),
            });
        }
        upstreams
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
