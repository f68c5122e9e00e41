//! Response headers that make a browser careful: the OWASP Secure Headers Project's list of 2026-07-19.
//!
//! Two fields of the list are left out, since they are about one response and not about a site: `Cache-Control: no-store`,
//! with which nothing could be cached, and `Clear-Site-Data`, which ends sessions. A transform's `response` can set either.

use crate::facts::Scheme;
use crate::headers::Headers;

/// Fields and values that are set where the response has none.
const SET: [(&str, &str); 10] = [
    (
        "content-security-policy",
        "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; upgrade-insecure-requests",
    ),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(), encrypted-media=(), \
         fullscreen=(), geolocation=(), gyroscope=(), keyboard-map=(), magnetometer=(), microphone=(), midi=(), payment=(), \
         picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), sync-xhr=(self), usb=(), web-share=(), \
         xr-spatial-tracking=(), clipboard-read=(), clipboard-write=(), gamepad=(), hid=(), idle-detection=(), \
         interest-cohort=(), serial=(), unload=()",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-dns-prefetch-control", "off"),
    ("x-frame-options", "deny"),
    ("x-permitted-cross-domain-policies", "none"),
];

/// Only over https (RFC 6797, section 7.2).
const OVER_TLS: (&str, &str) = ("strict-transport-security", "max-age=63072000; includeSubDomains");

/// Fields that tell what software answered, in the order of their bytes.
#[rustfmt::skip]
const REMOVED: [&str; 87] = [
    "$wsep", "host-header", "k-proxy-request", "liferay-portal", "oraclecommercecloud-version", "pega-host",
    "powered-by", "product", "server", "sourcemap", "x-aspnet-version", "x-aspnetmvc-version",
    "x-atmosphere-error", "x-atmosphere-first-request", "x-atmosphere-tracking-id", "x-b3-parentspanid",
    "x-b3-sampled", "x-b3-spanid", "x-b3-traceid", "x-backside-transport", "x-beserver", "x-calculatedbetarget",
    "x-cf-powered-by", "x-cms", "x-cocoon-version", "x-content-encoded-by", "x-datadog-origin",
    "x-datadog-parent-id", "x-datadog-sampling-priority", "x-datadog-tags", "x-datadog-trace-id", "x-diaginfo",
    "x-dtagentid", "x-dthealthcheck", "x-dtinjectedservlet", "x-envoy-attempt-count",
    "x-envoy-external-address", "x-envoy-internal", "x-envoy-original-dst-host",
    "x-envoy-upstream-service-time", "x-feserver", "x-framework", "x-generated-by", "x-generator",
    "x-gitlab-meta", "x-jitsi-release", "x-joomla-version", "x-kong-admin-latency", "x-kong-client-latency",
    "x-kong-proxy-latency", "x-kong-request-id", "x-kong-response-latency", "x-kong-third-party-latency",
    "x-kong-total-latency", "x-kong-upstream-latency", "x-kong-upstream-status",
    "x-kubernetes-pf-flowschema-ui", "x-kubernetes-pf-prioritylevel-uid", "x-litespeed-cache",
    "x-litespeed-cache-control", "x-litespeed-purge", "x-litespeed-tag", "x-litespeed-vary", "x-mod-pagespeed",
    "x-nextjs-cache", "x-nextjs-matched-path", "x-nextjs-page", "x-nextjs-redirect", "x-old-content-length",
    "x-oneagent-js-injection", "x-owa-version", "x-page-speed", "x-php-version", "x-powered-by",
    "x-powered-by-plesk", "x-powered-cms", "x-redirect-by", "x-ruxit-js-agent", "x-server-powered-by",
    "x-sourcefiles", "x-sourcemap", "x-turbo-charged-by", "x-tyk-trace-id", "x-umbraco-version",
    "x-varnish-backend", "x-varnish-server", "x-woodpecker-version",
];

/// Sets what is missing and removes what tells too much.
pub fn harden(scheme: Scheme, headers: &mut Headers) {
    headers.retain(|name, _| REMOVED.binary_search(&name).is_err());
    let over_tls = (scheme == Scheme::Https).then_some(OVER_TLS);
    for (name, value) in SET.into_iter().chain(over_tls) {
        if headers.get(name).is_none() {
            headers.set(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_set_and_what_is_there_stays() {
        let mut headers = Headers::from_iter([("x-frame-options", "SAMEORIGIN")]);
        harden(Scheme::Http, &mut headers);
        assert_eq!(headers.get("x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(headers.get("strict-transport-security"), None);
        harden(Scheme::Https, &mut headers);
        assert_eq!(headers.get(OVER_TLS.0), Some(OVER_TLS.1));
        for (name, value) in SET.into_iter().filter(|(name, _)| *name != "x-frame-options") {
            assert_eq!(headers.get(name), Some(value));
        }
        assert_eq!(headers.len(), SET.len() + 1);
    }

    #[test]
    fn what_tells_too_much_goes() {
        let mut headers: Headers = REMOVED.iter().map(|name| (*name, "nginx")).collect();
        headers.append("x-request-id", "1");
        harden(Scheme::Http, &mut headers);
        assert!(REMOVED.iter().all(|name| headers.get(name).is_none()));
        assert_eq!(headers.get("x-request-id"), Some("1"));
        assert!(REMOVED.is_sorted() && REMOVED.iter().all(|name| *name == name.to_ascii_lowercase()));
    }
}
