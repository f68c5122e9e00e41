//! Rules and requests for the tests of this crate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::facts::{BodySize, Facts, Place, Scheme};
use crate::headers::Headers;
use crate::ruleset::{
    Affinity, Auth, Fail, Matcher, PathTemplate, Personal, Platform, Region, RegionId, RegionState, Route,
    RouteTarget, RuleRef, Ruleset, Sampling, Segment, Steering, Strategy, Tenant, TenantState, Upstream,
    Version,
};

/// Where a rule stands, for the tests of this crate.
pub(crate) fn rule(kind: &'static str) -> RuleRef {
    RuleRef { kind, name: "r".into(), file: "rules.yaml".into(), line: 1 }
}

/// An open route to the origin whose path is written as in the documents: `/a/{b}/**`.
pub(crate) fn route(template: &str) -> Route {
    let segment = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => Segment::Capture(name.to_owned()),
        None => Segment::Literal(part.to_owned()),
    };
    let (path, open) = template.strip_suffix("/**").map_or((template, false), |path| (path, true));
    let parts = path.strip_prefix('/').filter(|path| !path.is_empty());
    let segments = parts.into_iter().flat_map(|path| path.split('/')).map(segment).collect();
    Route {
        rule: rule("Route"),
        matcher: Matcher { path: PathTemplate { segments, open }, ..Matcher::default() },
        auth: Auth::Anonymous,
        auth_shadow: false,
        auth_fail: Fail::Closed,
        limits: vec![],
        experiments: vec![],
        cache: None,
        security: vec![],
        transforms: vec![],
        steering: Steering {
            strategy: Strategy::Nearest,
            retry_statuses: vec![502, 503, 504],
            attempts_max: 3,
            timeout_ms: 10_000,
            affinity: Affinity::None,
            canary: None,
            hedge: None,
        },
        target: RouteTarget::Origin,
        function: None,
        sampling: Sampling::default(),
        personal: Personal::default(),
        pattern: template.into(),
    }
}

/// A tenant `acme` at `acme.example` with these routes and no more.
pub(crate) fn ruleset(routes: Vec<Route>) -> Ruleset {
    Ruleset {
        version: Version { sequence: 1, hash: "00000000000000aa".to_owned() },
        tenant: Tenant {
            slug: "acme".to_owned(),
            state: TenantState::Active,
            parent: None,
            suspended_by: None,
            unverified: vec![],
            limits: vec![],
            domains: vec!["acme.example".to_owned()],
            home_region: "us-east-1".into(),
            allowed_regions: vec!["us-east-1".into(), "eu-west-1".into(), "ap-southeast-1".into()],
            security: vec![],
        },
        issuers: vec![],
        limits: vec![],
        experiments: vec![],
        caches: vec![],
        transforms: vec![],
        security: vec![],
        segments: vec![],
        upstreams: vec![],
        functions: vec![],
        routes,
    }
}

/// Three regions.
pub(crate) fn platform() -> Platform {
    let region = |id: &str, ordinal, latitude, longitude| Region {
        id: id.into(),
        ordinal,
        latitude,
        longitude,
        origins: vec![format!("http://{id}.origin.example").into()],
        weight: 1,
        state: RegionState::Active,
    };
    Platform {
        version: Version { sequence: 1, hash: "00000000000000bb".to_owned() },
        regions: vec![
            region("ap-southeast-1", 3, 1.35, 103.8),
            region("eu-west-1", 2, 53.35, -6.26),
            region("us-east-1", 1, 39.04, -77.49),
        ],
        upstreams: BTreeMap::new(),
    }
}

/// An upstream of `acme` without limits.
pub(crate) fn upstream(regions: Vec<(RegionId, String)>) -> Upstream {
    Upstream {
        rule: rule("Upstream"),
        service: "acme/r".into(),
        regions: regions.into_iter().map(|(id, url)| (id, url.into())).collect(),
        timeout_ms: 1_000,
        connect_timeout_ms: None,
        connections_max: None,
        body_timeout_ms: None,
        response_bytes_max: None,
        headers: Vec::new(),
    }
}

/// A plain request, for the tests of this crate.
pub(crate) fn request(method: &str, host: &str, path: &str) -> Facts {
    Facts {
        method: method.to_owned(),
        scheme: Scheme::Https,
        host: host.to_owned(),
        path: path.to_owned(),
        query: None,
        headers: Headers::default(),
        client: IpAddr::from([192, 0, 2, 7]),
        place: Place::default(),
        body: BodySize::Empty,
        now_ms: 1_800_000_000_000,
        random: [7; 16],
    }
}
