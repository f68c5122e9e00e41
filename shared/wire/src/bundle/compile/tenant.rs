//! A tenant: itself, its domains and issuers, and the whole ruleset.

use std::sync::Arc;

use meridian_engine::policy::jwt::is_guarded;
use meridian_engine::ruleset::{
    Issuer, IssuerKey, Jwks, RegionId, Revoked, Ruleset, Tenant, TenantState, Version,
};
use meridian_engine::step::Algorithm;

use super::{Body, Compiler, Document, is_url, of_kind, rule, short};
use crate::bundle::key::key;
use crate::document::{IssuerSpec, JwksSpec, RevokedSpec, TenantSpec, TenantStateSpec};
use crate::limits::{ISSUER_KEYS_MAX, REVOKED_MAX};
use crate::sync::is_slug;

impl Compiler {
    pub(super) fn tenant(&mut self, documents: &[Document], slug: &str, version: Version) -> Option<Ruleset> {
        let mut tenant = self.tenant_itself(documents, slug);
        let allowed = tenant.as_ref().map(|tenant| tenant.allowed_regions.clone()).unwrap_or_default();
        let issuers = self.issuers(documents);
        let mut limits = self.limits(documents);
        let own = limits.len();
        limits.extend(self.plan(documents));
        if let Some(tenant) = &mut tenant {
            tenant.limits = (own..limits.len()).collect();
        }
        let experiments = self.experiments(documents);
        let caches = self.caches(documents);
        let transforms = self.transforms(documents);
        let security = self.security(documents);
        let segments = self.segments(documents);
        let upstreams = self.upstreams(documents, slug);
        let functions = self.functions(documents);
        let routes = self.routes(documents, &allowed, &transforms);
        Some(Ruleset {
            version,
            tenant: tenant?,
            issuers,
            limits,
            experiments,
            caches,
            transforms,
            security,
            segments,
            upstreams,
            functions,
            routes,
        })
    }

    fn tenant_itself(&mut self, documents: &[Document], slug: &str) -> Option<Tenant> {
        let Some((at, document, spec)) = of_kind!(documents, Tenant).next() else {
            self.document = 0;
            self.flaw("documents", "no Tenant", format!("the Tenant {slug:?}"));
            return None;
        };
        self.document = at;
        if document.metadata.name != slug {
            self.flaw(
                "metadata.name",
                format_args!("{:?}", short(&document.metadata.name)),
                format!("{slug:?}"),
            );
        }
        if spec.allowed_regions.is_empty() {
            self.flaw("spec.allowedRegions", "an empty list", "at least one region");
        }
        self.unique(&spec.allowed_regions, "spec.allowedRegions");
        if !spec.allowed_regions.is_empty() && !spec.allowed_regions.contains(&spec.home_region) {
            let found = format!("{:?}", short(&spec.home_region));
            self.flaw(
                "spec.homeRegion",
                found,
                format!("one of the allowed regions: {}", spec.allowed_regions.join(", ")),
            );
        }
        self.above(slug, spec);
        let (domains, unverified) = self.domains(documents, slug);
        let every = |(index, (_, _, spec)): (usize, (usize, &Document, &crate::document::SecuritySpec))| {
            spec.every_request.then_some(index)
        };
        Some(Tenant {
            slug: slug.to_owned(),
            state: match spec.state {
                TenantStateSpec::Active => TenantState::Active,
                TenantStateSpec::Suspended => TenantState::Suspended,
            },
            parent: spec.parent.clone(),
            suspended_by: spec.suspended_by.clone(),
            domains,
            unverified,
            home_region: Arc::from(spec.home_region.as_str()),
            allowed_regions: spec.allowed_regions.iter().map(|id| RegionId::from(id.as_str())).collect(),
            security: of_kind!(documents, Security).enumerate().filter_map(every).collect(),
            limits: Vec::new(),
        })
    }

    /// Checks what is said of the tenants above it.
    fn above(&mut self, slug: &str, spec: &TenantSpec) {
        if let Some(parent) = spec.parent.as_deref().filter(|parent| !is_slug(parent) || *parent == slug) {
            self.flaw("spec.parent", format_args!("{:?}", short(parent)), "the slug of another tenant");
        }
        if let Some(above) = &spec.suspended_by
            && (spec.parent.is_none() || spec.state == TenantStateSpec::Active)
        {
            let expected = "a parent and state: suspended beside it";
            self.flaw("spec.suspendedBy", format_args!("{:?}", short(above)), expected);
        }
    }

    /// Hostnames that are verified, and those that are not.
    fn domains(&mut self, documents: &[Document], slug: &str) -> (Vec<String>, Vec<String>) {
        let (mut domains, mut unverified) = (Vec::new(), Vec::new());
        for (at, document, spec) in of_kind!(documents, Domain) {
            self.document = at;
            if spec.tenant != slug {
                self.flaw("spec.tenant", format_args!("{:?}", short(&spec.tenant)), format!("{slug:?}"));
            }
            let list = if spec.verification.is_verified() { &mut domains } else { &mut unverified };
            list.push(document.metadata.name.clone());
        }
        (domains, unverified)
    }

    fn issuers(&mut self, documents: &[Document]) -> Vec<Issuer> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for (at, document, spec) in of_kind!(documents, Issuer) {
            self.document = at;
            if let Some(other) = issuers.iter().find(|issuer| issuer.iss == spec.issuer) {
                let expected = format!("an issuer of its own; {:?} has it too", other.rule.name);
                self.flaw("spec.issuer", format_args!("{:?}", short(&spec.issuer)), expected);
            }
            if spec.audiences.is_empty() != spec.any_audience {
                self.flaw(
                    "spec.audiences",
                    if spec.any_audience { "audiences beside anyAudience" } else { "no audience" },
                    "either audiences or anyAudience: true",
                );
            }
            if spec.algorithms.is_empty() {
                self.flaw("spec.algorithms", "an empty list", "at least one algorithm");
            }
            if spec.keys.is_empty() && spec.jwks.is_none() {
                self.flaw("spec", "neither keys nor jwks", "keys, jwks or both");
            }
            let keys = self.issuer_keys(spec);
            let jwks = spec.jwks.as_ref().map(|jwks| self.jwks(jwks, &spec.issuer));
            let revoked = self.revoked(&spec.revoked);
            issuers.push(Issuer {
                rule: rule(document),
                iss: spec.issuer.clone(),
                audiences: spec.audiences.clone(),
                algorithms: spec.algorithms.iter().map(|algorithm| Algorithm::from(*algorithm)).collect(),
                keys,
                jwks,
                skew_ms: spec.skew.ms,
                life_ms_max: spec.life_max.map_or(0, |life| life.ms),
                required_claims: spec.required_claims.clone(),
                scope_claim: spec.scope_claim.clone(),
                attributes: spec.attributes.clone(),
                revoked,
            });
        }
        issuers
    }

    fn issuer_keys(&mut self, spec: &IssuerSpec) -> Vec<IssuerKey> {
        let mut keys: Vec<IssuerKey> = Vec::new();
        if spec.keys.len() > ISSUER_KEYS_MAX {
            self.flaw(
                "spec.keys",
                format_args!("{} keys", spec.keys.len()),
                format!("at most {ISSUER_KEYS_MAX}"),
            );
        }
        for (at, key_spec) in spec.keys.iter().enumerate().take(ISSUER_KEYS_MAX) {
            let path = format!("spec.keys[{at}]");
            if !spec.algorithms.contains(&key_spec.alg) {
                let expected = format!("one of spec.algorithms: {:?}", spec.algorithms);
                self.flaw(format!("{path}.alg"), format_args!("{:?}", key_spec.alg), expected);
            }
            if key_spec.kid.is_none() && spec.keys.len() > 1 {
                self.flaw(format!("{path}.kid"), "nothing", "an id, as there is more than one key");
            }
            if key_spec.kid.is_some() && keys.iter().any(|key| key.kid == key_spec.kid) {
                let found = format!("{:?} again", key_spec.kid.as_deref().map(short).unwrap_or_default());
                self.flaw(format!("{path}.kid"), found, "every id once");
            }
            match key(key_spec) {
                Ok(key) => keys.push(IssuerKey {
                    kid: key_spec.kid.clone(),
                    algorithm: Algorithm::from(key_spec.alg),
                    key: Arc::new(key),
                }),
                Err(invalid) => {
                    let found = match invalid.member {
                        "kty" => key_spec.kty.as_deref(),
                        "crv" => key_spec.crv.as_deref(),
                        "use" => key_spec.usage.as_deref(),
                        // No part of a key is repeated in an error.
                        _ => Some("a text that is no such thing"),
                    };
                    let found = short(found.unwrap_or("nothing"));
                    self.flaw(format!("{path}.{}", invalid.member), found, invalid.expected);
                }
            }
        }
        keys
    }

    fn revoked(&mut self, specs: &[RevokedSpec]) -> Revoked {
        if specs.len() > REVOKED_MAX {
            self.flaw(
                "spec.revoked",
                format_args!("{} entries", specs.len()),
                format!("at most {REVOKED_MAX}"),
            );
        }
        let mut revoked = Revoked::default();
        for (at, spec) in specs.iter().enumerate().take(REVOKED_MAX) {
            let before_ms = spec.issued_before.map(|seconds| seconds.saturating_mul(1_000));
            match (&spec.token, &spec.subject, before_ms) {
                (Some(token), None, None) => _ = revoked.tokens.insert(token.clone()),
                (None, Some(subject), before_ms) => {
                    let latest_ms = revoked.subjects.entry(subject.clone()).or_default();
                    *latest_ms = before_ms.unwrap_or(u64::MAX).max(*latest_ms);
                }
                (None, None, Some(before_ms)) => revoked.before_ms = revoked.before_ms.max(before_ms),
                (token, ..) => self.flaw(
                    format!("spec.revoked[{at}]"),
                    if token.is_some() { "token beside others" } else { "nothing" },
                    "token alone, subject, issuedBefore, or subject and issuedBefore",
                ),
            }
        }
        revoked
    }

    fn jwks(&mut self, spec: &JwksSpec, issuer: &str) -> Jwks {
        let url = match (&spec.url, spec.discovery) {
            (Some(url), _) => url.clone(),
            (None, true) => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            (None, false) => String::new(),
        };
        if !is_url(&url) || !is_guarded(&url) {
            self.flaw(
                "spec.jwks.url",
                if url.is_empty() { "nothing".to_owned() } else { format!("{:?}", short(&url)) },
                "an absolute https URL (http only to this very machine), or discovery: true with an issuer that is one",
            );
        }
        if spec.refresh.ms < 1_000 || spec.refresh > spec.stale {
            self.flaw("spec.jwks.refresh", spec.refresh, "1s or more, and at most spec.jwks.stale");
        }
        if spec.refetch_interval.ms < 1_000 {
            self.flaw("spec.jwks.refetchInterval", spec.refetch_interval, "1s or more");
        }
        Jwks {
            url,
            discovery: spec.discovery,
            refresh_ms: spec.refresh.ms,
            stale_ms: spec.stale.ms,
            refetch_interval_ms: spec.refetch_interval.ms,
        }
    }
}
