//! Cross-origin resource sharing (Fetch standard, section 3.3): what a page of another origin may read.

use crate::facts::Facts;
use crate::headers::Headers;
use crate::ruleset::{Cors, OriginPattern};

/// Whether a request is a preflight (Fetch standard, section 3.3.2), and for which method.
#[must_use]
pub fn preflight_method(facts: &Facts) -> Option<&str> {
    let asked = facts.headers.get("access-control-request-method")?;
    (facts.method == "OPTIONS" && facts.headers.get("origin").is_some()).then_some(asked)
}

/// The fields that a preflight asks for (Fetch standard, section 3.3.2), in lower case, in order and each once.
#[must_use]
pub fn announced_fields(facts: &Facts) -> Vec<String> {
    let asked = facts.headers.joined("access-control-request-headers").unwrap_or_default();
    let names = asked.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut fields: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

impl Cors {
    /// The answer to a preflight: what may be sent from that origin. Nothing is said to an origin that may not.
    #[must_use]
    pub fn preflight(&self, facts: &Facts, method: &str) -> Headers {
        let mut headers = Headers::default();
        headers.set("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
        if !self.allow_origin(facts, &mut headers) {
            return headers;
        }
        let simple = ["GET", "HEAD", "POST"];
        if self.methods.iter().any(|one| one == "*" || one == method) || simple.contains(&method) {
            headers.set("access-control-allow-methods", method);
        }
        let asked = facts.headers.joined("access-control-request-headers").unwrap_or_default();
        let allowed: Vec<&str> = asked
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty() && self.allows_field(name))
            .collect();
        if !allowed.is_empty() {
            headers.set("access-control-allow-headers", allowed.join(", "));
        }
        headers.set("access-control-max-age", self.max_age_s.to_string());
        headers
    }

    /// Whether a page may send a field. `*` is all of them but `Authorization`, which has to be named (Fetch standard, section
    /// 2.2.2, "CORS non-wildcard request-header name").
    fn allows_field(&self, name: &str) -> bool {
        let is_any = |allowed: &str| allowed == "*" && !name.eq_ignore_ascii_case("authorization");
        self.headers.iter().any(|allowed| is_any(allowed) || allowed.eq_ignore_ascii_case(name))
    }

    /// What a reply says to a page of the request's origin, in the place of what its target says.
    pub fn apply(&self, facts: &Facts, headers: &mut Headers) {
        headers.retain(|name, _| !name.starts_with("access-control-"));
        if self.origins != [OriginPattern::Any] {
            headers.append("vary", "Origin");
        }
        if self.allow_origin(facts, headers) && !self.expose.is_empty() {
            headers.set("access-control-expose-headers", self.expose.join(", "));
        }
    }

    /// Says that the request's origin may read the reply, if it may.
    fn allow_origin(&self, facts: &Facts, headers: &mut Headers) -> bool {
        let Some(origin) = facts.headers.get("origin") else { return false };
        let allowed = match self.origins.as_slice() {
            [OriginPattern::Any] if !self.credentials => "*",
            patterns if patterns.iter().any(|pattern| pattern.holds(origin)) => origin,
            _ => return false,
        };
        headers.set("access-control-allow-origin", allowed);
        if self.credentials {
            headers.set("access-control-allow-credentials", "true");
        }
        true
    }
}

impl OriginPattern {
    fn holds(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Below { scheme, domain } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_prefix("://")?.strip_suffix(domain.as_str())?.strip_suffix('.'))
                .is_some_and(|label| {
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
                    !label.is_empty() && label.bytes().all(plain)
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::request;

    fn cors(origins: &[OriginPattern], credentials: bool) -> Cors {
        Cors {
            origins: origins.to_vec(),
            methods: vec!["PATCH".to_owned()],
            headers: vec!["X-Trace".to_owned()],
            expose: vec!["ETag".to_owned()],
            credentials,
            max_age_s: 600,
        }
    }

    fn exact() -> OriginPattern {
        OriginPattern::Exact("https://app.example".to_owned())
    }

    fn below() -> OriginPattern {
        OriginPattern::Below { scheme: "https".to_owned(), domain: "app.example".to_owned() }
    }

    fn from(origin: &str) -> Facts {
        let mut facts = request("OPTIONS", "acme.example", "/");
        facts.headers.append("origin", origin);
        facts
    }

    #[test]
    fn origins_are_allowed_by_the_rule() {
        let check = |patterns: &[OriginPattern], credentials: bool, origin: &str, expect: Option<&str>| {
            let mut headers =
                Headers::from_iter([("access-control-allow-origin", "https://upstream.example")]);
            cors(patterns, credentials).apply(&from(origin), &mut headers);
            assert_eq!(headers.get("access-control-allow-origin"), expect, "{patterns:?} {origin}");
        };
        check(&[OriginPattern::Any], false, "https://a.example", Some("*"));
        check(&[exact()], true, "https://app.example", Some("https://app.example"));
        check(&[exact()], true, "https://app.example.evil", None);
        check(&[exact()], true, "http://app.example", None);
        check(&[exact()], true, "null", None);
        check(&[below()], true, "https://eu.app.example", Some("https://eu.app.example"));
        check(&[below()], true, "https://app.example", None);
        check(&[below()], true, "https://evilapp.example", None);
        check(&[below()], true, "https://evil/.app.example", None);
        check(&[exact(), below()], true, "https://eu.app.example", Some("https://eu.app.example"));
    }

    #[test]
    fn a_preflight_hears_what_it_may_send() {
        let mut facts = from("https://app.example");
        facts.headers.append("access-control-request-method", "PATCH");
        facts.headers.append("access-control-request-headers", "x-trace, x-secret");
        assert_eq!(preflight_method(&facts), Some("PATCH"));
        assert_eq!(announced_fields(&facts), ["x-secret", "x-trace"]);
        let headers = cors(&[exact()], true).preflight(&facts, "PATCH");
        let get = |name| headers.get(name);
        assert_eq!(get("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(get("access-control-allow-credentials"), Some("true"));
        assert_eq!(get("access-control-allow-methods"), Some("PATCH"));
        assert_eq!(get("access-control-allow-headers"), Some("x-trace"));
        assert_eq!(get("access-control-max-age"), Some("600"));
        let headers = cors(&[exact()], true).preflight(&facts, "DELETE");
        assert_eq!(headers.get("access-control-allow-methods"), None);
        let headers = cors(&[below()], true).preflight(&facts, "PATCH");
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["vary"]);
    }

    #[test]
    fn any_field_is_any_but_the_one_with_credentials() {
        let mut facts = from("https://app.example");
        facts.headers.append("access-control-request-headers", "x-trace, Authorization");
        let allowed = |headers: &[&str]| {
            let headers = headers.iter().map(|name| (*name).to_owned()).collect();
            let cors = Cors { headers, ..cors(&[exact()], false) };
            cors.preflight(&facts, "GET").get("access-control-allow-headers").map(str::to_owned)
        };
        assert_eq!(allowed(&["*"]).as_deref(), Some("x-trace"), "Fetch 2.2.2");
        assert_eq!(allowed(&["*", "authorization"]).as_deref(), Some("x-trace, Authorization"));
    }

    #[test]
    fn only_options_with_an_origin_and_a_method_is_a_preflight() {
        let mut facts = from("https://app.example");
        assert_eq!(preflight_method(&facts), None);
        facts.headers.append("access-control-request-method", "PUT");
        facts.method = "GET".to_owned();
        assert_eq!(preflight_method(&facts), None);
    }
}
