//! Limits and cache policies.

use meridian_engine::expr::Expr;
use meridian_engine::policy::rate_limit::burst_max;
use meridian_engine::ruleset::{
    CachePolicy, Cost, Fail, KeyPart, LimitAlgorithm, LimitKey, LimitScope, Mode, RateLimit, RuleRef,
};

use super::{Body, Compiler, Document, of_kind, rule, short};
use crate::document::{
    CachePolicySpec, Condition, CostSpec, FailSpec, LimitAlgorithmSpec, LimitKeySpec, LimitScopeSpec,
    ModeSpec, QueryKeySpec, QueryWord, Span,
};
use crate::limits::{KEY_VALUES_MAX, PLAN_LIMITS_MAX};

impl From<FailSpec> for Fail {
    fn from(fail: FailSpec) -> Self {
        match fail {
            FailSpec::Open => Self::Open,
            FailSpec::Closed => Self::Closed,
        }
    }
}

impl From<LimitScopeSpec> for LimitScope {
    fn from(scope: LimitScopeSpec) -> Self {
        match scope {
            LimitScopeSpec::Node => Self::Node,
            LimitScopeSpec::Region => Self::Region,
            LimitScopeSpec::Global => Self::Global,
        }
    }
}

impl Compiler {
    pub(super) fn limits(&mut self, documents: &[Document]) -> Vec<RateLimit> {
        let mut limits = Vec::new();
        for (at, document, spec) in of_kind!(documents, RateLimit) {
            self.document = at;
            let burst = spec.burst.unwrap_or(spec.quota);
            if spec.key.is_empty() {
                self.flaw(
                    "spec.key",
                    "an empty list",
                    "at least one of client, subject, tenant, header:NAME, claim:NAME, {cel: EXPRESSION}",
                );
            }
            self.rate(spec.quota, spec.window, "spec");
            match (spec.burst, spec.algorithm) {
                (Some(burst), LimitAlgorithmSpec::SlidingWindow) => {
                    let expected = "no burst: a sliding window lets its quota through at once";
                    self.flaw("spec.burst", burst, expected);
                }
                (Some(burst), LimitAlgorithmSpec::Gcra) => {
                    self.burst(burst, spec.quota, spec.window, "spec");
                }
                (None, _) => {}
            }
            if spec.shadow && spec.mode == ModeSpec::Off {
                self.flaw("spec.shadow", "a shadow with mode: off", "mode: log, or no shadow");
            }
            let cost = match &spec.cost {
                CostSpec::Expr(condition) => self.condition(Some(condition), "spec.cost.cel").map(Cost::Expr),
                CostSpec::Units(units) => {
                    if *units == 0 || *units > burst {
                        self.flaw("spec.cost", units, format!("1 to the burst, {burst}"));
                    }
                    Some(Cost::Units(*units))
                }
            };
            let key = |(at, key): (usize, &LimitKeySpec)| self.limit_key(key, &format!("spec.key[{at}]"));
            limits.push(RateLimit {
                rule: rule(document),
                key: spec.key.iter().enumerate().filter_map(key).collect(),
                algorithm: match spec.algorithm {
                    LimitAlgorithmSpec::Gcra => LimitAlgorithm::Gcra,
                    LimitAlgorithmSpec::SlidingWindow => LimitAlgorithm::SlidingWindow,
                },
                quota: spec.quota,
                window_ms: spec.window.ms,
                burst,
                cost: cost.unwrap_or(Cost::Units(1)),
                scope: spec.scope.into(),
                fail: spec.fail.into(),
                mode: if spec.shadow { Mode::Log } else { spec.mode.into() },
            });
        }
        limits
    }

    /// The limits of the tenant's plan.
    pub(super) fn plan(&mut self, documents: &[Document]) -> Vec<RateLimit> {
        let Some((at, document, tenant)) = of_kind!(documents, Tenant).next() else { return Vec::new() };
        self.document = at;
        let specs = &tenant.plan.limits;
        if specs.len() > PLAN_LIMITS_MAX {
            let expected = format!("at most {PLAN_LIMITS_MAX} (PLAN_LIMITS_MAX)");
            self.flaw("spec.plan.limits", format_args!("{} limits", specs.len()), expected);
        }
        let mut limits = Vec::new();
        for (at, spec) in specs.iter().enumerate().take(PLAN_LIMITS_MAX) {
            let path = format!("spec.plan.limits[{at}]");
            self.rate(spec.quota, spec.window, &path);
            if spec.burst == Some(0) {
                self.flaw(format!("{path}.burst"), 0, "1 or more");
            }
            if let Some(burst) = spec.burst {
                self.burst(burst, spec.quota, spec.window, &path);
            }
            // No document's name has a colon, so that clients take none of the tenant's own limits for one of these.
            let name = format!("plan:{}", at + 1).into();
            limits.push(RateLimit {
                rule: RuleRef { name, ..rule(document) },
                key: vec![LimitKey::Plan],
                algorithm: LimitAlgorithm::Gcra,
                quota: spec.quota,
                window_ms: spec.window.ms,
                burst: spec.burst.unwrap_or(spec.quota),
                cost: Cost::Units(1),
                scope: spec.scope.into(),
                fail: spec.fail.into(),
                mode: spec.mode.into(),
            });
        }
        limits
    }

    fn rate(&mut self, quota: u32, window: Span, path: &str) {
        if quota == 0 {
            self.flaw(format!("{path}.quota"), 0, "1 or more");
        }
        if window.ms < 1_000 {
            self.flaw(format!("{path}.window"), window, "1s or more");
        }
    }

    /// Refuses to push what takes too long to come back. In a release the edges take as much of it as may be.
    fn burst(&mut self, burst: u32, quota: u32, window: Span, path: &str) {
        let max = burst_max(quota, window.ms);
        if self.is_push && quota > 0 && burst > max {
            let expected = format!("at most {max}, what comes back in 292 years (LIMIT_DEPTH_NS_MAX)");
            self.flaw(format!("{path}.burst"), burst, expected);
        }
    }

    fn limit_key(&mut self, spec: &LimitKeySpec, path: &str) -> Option<LimitKey> {
        let word = match spec {
            LimitKeySpec::Word(word) => word.as_str(),
            LimitKeySpec::Expr(condition) => {
                return self.condition(Some(condition), &format!("{path}.cel")).map(LimitKey::Expr);
            }
        };
        let key = match word.split_once(':') {
            None if word == "client" => Some(LimitKey::Client),
            None if word == "subject" => Some(LimitKey::Subject),
            None if word == "tenant" => Some(LimitKey::Tenant),
            Some(("header", name)) if is_field_name(name) => {
                Some(LimitKey::Header(name.to_ascii_lowercase()))
            }
            Some(("claim", name)) if !name.is_empty() => Some(LimitKey::Claim(name.to_owned())),
            _ => None,
        };
        if key.is_none() {
            self.flaw(
                path,
                format_args!("{:?}", short(word)),
                "client, subject, tenant, header:NAME, claim:NAME or {cel: EXPRESSION}",
            );
        }
        key
    }

    pub(super) fn caches(&mut self, documents: &[Document]) -> Vec<CachePolicy> {
        let mut caches = Vec::new();
        for (at, document, spec) in of_kind!(documents, CachePolicy) {
            self.document = at;
            let mut default_ttl_ms = std::collections::BTreeMap::new();
            for (status, ttl) in &spec.ttl {
                match status.parse::<u16>().ok().filter(|status| (200..=599).contains(status)) {
                    Some(status) => _ = default_ttl_ms.insert(status, ttl.ms),
                    None => {
                        self.flaw(
                            "spec.ttl",
                            format_args!("{:?}", short(status)),
                            "a status from 200 to 599",
                        );
                    }
                }
            }
            let headers = self.field_names(&spec.key.headers, "spec.key.headers");
            self.tags(spec);
            caches.push(CachePolicy {
                rule: rule(document),
                default_ttl_ms,
                query: match &spec.key.query {
                    QueryKeySpec::Word(QueryWord::All) => KeyPart::All,
                    QueryKeySpec::Word(QueryWord::None) => KeyPart::None,
                    QueryKeySpec::Only(names) => KeyPart::Only(names.clone()),
                },
                headers,
                cookies: spec.key.cookies.clone(),
                claims: spec.key.claims.clone(),
                variants: spec.key.variants,
                values: self.key_values(&spec.key.values),
                stale_while_revalidate_ms: spec.stale_while_revalidate.ms,
                stale_if_error_ms: spec.stale_if_error.ms,
                heuristic: spec.heuristic.basis_points,
                store_cookies: spec.store_cookies,
                tags: spec.tags.clone(),
                bypass: self.condition(spec.bypass.as_ref(), "spec.bypass"),
            });
        }
        caches
    }

    fn key_values(&mut self, values: &[Condition]) -> Vec<Expr> {
        if values.len() > KEY_VALUES_MAX {
            let expected = format!("at most {KEY_VALUES_MAX} (KEY_VALUES_MAX)");
            self.flaw("spec.key.values", format_args!("{} expressions", values.len()), expected);
        }
        let values = values.iter().enumerate();
        values
            .filter_map(|(at, value)| self.condition(Some(value), &format!("spec.key.values[{at}]")))
            .collect()
    }

    fn tags(&mut self, spec: &CachePolicySpec) {
        for (at, tag) in spec.tags.iter().enumerate() {
            if tag == "*"
                || tag.len() > 256
                || !tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
            {
                let expected = "1 to 256 printable characters without space or comma, and not \"*\"";
                self.flaw(format!("spec.tags[{at}]"), format_args!("{:?}", short(tag)), expected);
            }
        }
    }

    fn field_names(&mut self, names: &[String], path: &str) -> Vec<String> {
        self.unique(names, path);
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !is_field_name(name)) {
            self.flaw(
                format!("{path}[{at}]"),
                format_args!("{:?}", short(name)),
                "the name of a header field",
            );
        }
        names.iter().map(|name| name.to_ascii_lowercase()).collect()
    }
}

/// Whether a text is the name of a header field (RFC 9110, section 5.1: a token).
pub(super) fn is_field_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
