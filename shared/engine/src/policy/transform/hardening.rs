//! Response headers that make a browser careful: the OWASP Secure Headers Project's list.

use crate::facts::Scheme;
use crate::headers::Headers;

/// Fields and values that are set where the response has none.
const SET: [(&str, &str); 9] = [
    ("x-frame-options", "deny"),
    ("x-content-type-options", "nosniff"),
    (
        "content-security-policy",
        "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; upgrade-insecure-requests",
    ),
    ("x-permitted-cross-domain-policies", "none"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), \
         gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), screen-wake-lock=(), \
         usb=(), web-share=(), xr-spatial-tracking=()",
    ),
];

/// Only over https (RFC 6797, section 7.2).
const OVER_TLS: (&str, &str) = ("strict-transport-security", "max-age=31536000; includeSubDomains");

/// Fields that tell what software answered.
const REMOVED: [&str; 9] = [
    "server",
    "x-powered-by",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-generator",
    "x-runtime",
    "x-version",
    "x-backend-server",
    "liferay-portal",
];

/// Sets what is missing and removes what tells too much.
pub fn harden(scheme: Scheme, headers: &mut Headers) {
    headers.retain(|name, _| !REMOVED.contains(&name));
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
    fn what_is_missing_is_set_and_what_tells_too_much_goes() {
        let mut headers = Headers::from_iter([("server", "nginx"), ("x-frame-options", "SAMEORIGIN")]);
        harden(Scheme::Http, &mut headers);
        assert_eq!(headers.get("server"), None);
        assert_eq!(headers.get("x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(headers.get("x-content-type-options"), Some("nosniff"));
        assert_eq!(headers.get("strict-transport-security"), None);
        harden(Scheme::Https, &mut headers);
        assert!(headers.get("strict-transport-security").is_some());
    }
}
