//! What is checked: the upstreams that a tenant's bundle names for this region, with how.

use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Uri};
use meridian_engine::policy::request::CDN_ID;
use meridian_engine::ruleset::Target;
use meridian_wire::bundle::{Bundle, InvalidBundle};
use meridian_wire::document::{Body, HealthCheckSpec, Secret, Span, TenantStateSpec, UpstreamSpec};
use meridian_wire::limits::HEALTH_CHECKS_MAX;

use super::verdict::Thresholds;

/// What a service is told of who asks.
const AGENT: &str = "meridian-health-check/1";

/// An upstream of a tenant in this region, and how it is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checked {
    /// Slug of the tenant.
    pub(super) tenant: String,
    /// Name of the upstream.
    pub(super) name: String,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// Name or address, the latter without brackets.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// What is asked for: path and query.
    pub(super) path: String,
    /// Fields of the request. Values may be secrets, and are marked as such.
    pub(super) headers: HeaderMap,
    /// Time from one check to the next.
    pub(super) interval: Duration,
    /// How much of it is needed in a row.
    pub(super) thresholds: Thresholds,
    /// Until the head of the response must be there.
    pub(super) timeout: Duration,
    check: HealthCheckSpec,
}

impl Checked {
    /// Whether a response with this status passes.
    pub(super) fn passes(&self, status: u16) -> bool {
        self.check.passes(status)
    }
}

/// What a tenant's bundle has checked in this region: nothing where the tenant is suspended, or may not be here.
///
/// # Errors
/// Where the bundle can't be read.
pub(super) fn checked(bundle: &[u8], tenant: &str, region: &str) -> Result<Vec<Checked>, InvalidBundle> {
    let documents = Bundle::read(bundle, &Target::Tenant(tenant.to_owned()))?.documents;
    let is_here = documents.iter().any(|document| match &document.body {
        Body::Tenant(spec) => {
            spec.state == TenantStateSpec::Active && spec.allowed_regions.iter().any(|id| id == region)
        }
        _ => false,
    });
    let upstreams = documents.iter().filter_map(|document| match &document.body {
        Body::Upstream(spec) if is_here => one(tenant, &document.metadata.name, spec, region),
        _ => None,
    });
    Ok(upstreams.take(HEALTH_CHECKS_MAX).collect())
}

fn one(tenant: &str, name: &str, spec: &UpstreamSpec, region: &str) -> Option<Checked> {
    let check = spec.health_check.as_ref()?;
    let base = spec.regions.get(region)?.trim_end_matches('/');
    let uri: Uri = format!("{base}{}", check.path).parse().ok()?;
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let authority = uri.authority()?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(authority.as_str()).ok()?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, Secret(value)) in &spec.headers {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    // One that is behind our own edges, or leads to them, does not go in circles (RFC 8586, section 2).
    headers.insert("cdn-loop", HeaderValue::from_static(CDN_ID));
    Some(Checked {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        tls,
        host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        path: uri.path_and_query()?.as_str().to_owned(),
        headers,
        interval: duration(check.interval),
        thresholds: Thresholds { failures: check.failures, successes: check.successes },
        timeout: duration(check.timeout()),
        check: check.clone(),
    })
}

fn duration(span: Span) -> Duration {
    Duration::from_millis(span.ms)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A bundle of acme, active in us-east-1, with these documents beside it.
    pub(in crate::checks) fn bundle(state: &str, upstreams: &[(&str, &str)]) -> String {
        let upstreams: String = upstreams
            .iter()
            .map(|(name, spec)| {
                format!(
                    r#",{{"kind":"Upstream","spec":{spec},"metadata":{{"name":"{name}"}},"source":{{"file":"a","line":1}}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"format":1,"target":"tenant:acme","documents":[{{"kind":"Tenant",
                "spec":{{"state":"{state}","homeRegion":"us-east-1","allowedRegions":["us-east-1"]}},
                "metadata":{{"name":"acme"}},"source":{{"file":"a","line":1}}}}{upstreams}]}}"#
        )
    }

    const REGIONS: &str =
        r#""regions":{"us-east-1":"https://up.example/base/","eu-west-1":"http://[2001:db8::1]:8080"}"#;

    #[test]
    fn what_is_asked_is_what_the_rules_say() {
        let usual = format!(r#"{{{REGIONS},"healthCheck":{{}}}}"#);
        let special = format!(
            r#"{{{REGIONS},"headers":{{"x-edge-key":"s3cret"}},"healthCheck":{{"path":"/up?deep=1","interval":"1s",
                "failures":1,"successes":4,"statuses":["204"]}}}}"#
        );
        let without = format!(r#"{{{REGIONS}}}"#);
        let elsewhere = r#"{"regions":{"eu-west-1":"https://up.example"},"healthCheck":{}}"#;
        let upstreams =
            [("a", usual.as_str()), ("b", special.as_str()), ("c", without.as_str()), ("d", elsewhere)];
        let found = checked(bundle("active", &upstreams).as_bytes(), "acme", "us-east-1").unwrap();
        let [a, b] = found.as_slice() else { panic!("two are checked here: {found:?}") };
        assert_eq!((a.tls, a.host.as_str(), a.port, a.path.as_str()), (true, "up.example", 443, "/base/"));
        assert_eq!((a.interval.as_secs(), a.timeout.as_secs()), (10, 2));
        assert_eq!(
            (&a.headers["host"], &a.headers["user-agent"]),
            (&HeaderValue::from_static("up.example"), &HeaderValue::from_static("meridian-health-check/1"),)
        );
        assert_eq!(a.headers["cdn-loop"], CDN_ID);
        assert!(a.passes(200) && a.passes(304) && !a.passes(404));
        assert_eq!((b.path.as_str(), b.timeout.as_secs()), ("/base/up?deep=1", 1));
        assert_eq!(b.thresholds, Thresholds { failures: 1, successes: 4 });
        assert!(b.passes(204) && !b.passes(200));
        assert_eq!(b.headers["x-edge-key"], "s3cret");
        assert!(!format!("{b:?}").contains("s3cret"));
    }

    #[test]
    fn an_address_is_asked_as_it_is() {
        let usual = format!(r#"{{{REGIONS},"healthCheck":{{}}}}"#);
        let bundle = bundle("active", &[("a", usual.as_str())]);
        let bundle = bundle.replace(r#"["us-east-1"]"#, r#"["us-east-1","eu-west-1"]"#);
        let found = checked(bundle.as_bytes(), "acme", "eu-west-1").unwrap();
        let there = &found[0];
        assert_eq!((there.tls, there.host.as_str(), there.port), (false, "2001:db8::1", 8080));
        assert_eq!(there.headers["host"], "[2001:db8::1]:8080");
    }

    #[test]
    fn who_is_not_served_here_is_not_checked_here() {
        let usual = format!(r#"{{{REGIONS},"healthCheck":{{}}}}"#);
        let suspended = bundle("suspended", &[("a", usual.as_str())]);
        assert!(checked(suspended.as_bytes(), "acme", "us-east-1").unwrap().is_empty());
        let active = bundle("active", &[("a", usual.as_str())]);
        assert!(checked(active.as_bytes(), "acme", "eu-west-1").unwrap().is_empty());
        assert!(checked(active.as_bytes(), "globex", "us-east-1").is_err());
    }
}
