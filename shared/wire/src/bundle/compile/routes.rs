//! Routes, in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use meridian_engine::facts::{InvalidPath, normalise_path};
use meridian_engine::limits::{ATTEMPTS_MAX, HEDGE_AFTER_MS_MIN, ROUTE_WORK_MAX, TENANT_ROUTE_BYTES_MAX};
use meridian_engine::policy::route::RouteIndex;
use meridian_engine::ruleset::{
    Affinity, Auth, Canary, Hedge, Matcher, PathTemplate, RegionId, Route, RouteTarget, SHARE_ALL, Sampling,
    Segment, Steering, Strategy, Transform, UpstreamRef,
};

use super::policies::is_field_name;
use super::{Body, Compiler, Document, Flaw, is_host, of_kind, rule, short};
use crate::bundle::order::{Ranked, order, ties};
use crate::document::{
    AffinitySpec, AuthMode, AuthSpec, FailSpec, HedgeSpec, LogSpec, MatchSpec, Patience, Span, SteeringSpec,
    StrategySpec,
};
use crate::limits::PATH_SEGMENTS_MAX;

/// A route on its way into the order.
struct Placed {
    document: usize,
    priority: i32,
    route: Route,
}

impl Placed {
    fn ranked(&self) -> Ranked<'_> {
        Ranked { matcher: &self.route.matcher, priority: self.priority }
    }
}

impl Compiler {
    pub(super) fn routes(
        &mut self,
        documents: &[Document],
        allowed: &[RegionId],
        transforms: &[Transform],
    ) -> Vec<Route> {
        let mut placed: Vec<Placed> = Vec::new();
        for (at, document, spec) in of_kind!(documents, Route) {
            self.document = at;
            let matcher = self.matcher(&spec.matcher);
            let steering = self.steering(&spec.steering, allowed, &matcher);
            let route = Route {
                rule: rule(document),
                matcher,
                auth: self.auth(&spec.auth),
                auth_shadow: spec.auth.shadow,
                auth_fail: spec.auth.fail.into(),
                limits: self.find_all("RateLimit", &spec.limits, "spec.limits"),
                experiments: self.find_all("Experiment", &spec.experiments, "spec.experiments"),
                cache: spec.cache.as_ref().and_then(|name| self.find("CachePolicy", name, "spec.cache")),
                security: self.find_all("Security", &spec.security, "spec.security"),
                transforms: self.find_all("Transform", &spec.transforms, "spec.transforms"),
                steering,
                target: match &spec.upstream {
                    None => RouteTarget::Origin,
                    Some(name) => self
                        .named_upstream(name, "spec.upstream")
                        .map_or(RouteTarget::Origin, RouteTarget::Upstream),
                },
                function: spec
                    .function
                    .as_ref()
                    .and_then(|name| self.find("Function", name, "spec.function")),
                sampling: spec.log.as_ref().map(|log| self.sampling(log)).unwrap_or_default(),
                personal: spec.log.as_ref().map(|log| log.personal.into()).unwrap_or_default(),
                pattern: spec.matcher.path.as_str().into(),
            };
            let is_shared = route.upstreams().any(|of| matches!(of, UpstreamRef::Platform(_)));
            if is_shared && spec.function.is_some() {
                let expected = "no function: it would see the header fields that are the platform's";
                self.flaw("spec.function", "a function before an upstream of the platform", expected);
            }
            self.captures_of(&route, transforms);
            placed.push(Placed { document: at, priority: spec.matcher.priority, route });
        }
        placed.sort_by(|a, b| {
            order(a.ranked(), b.ranked()).then_with(|| a.route.rule.name.cmp(&b.route.rule.name))
        });
        if self.is_push {
            self.among_one_another(&placed);
        }
        placed.into_iter().map(|placed| placed.route).collect()
    }

    /// Checks the routes whose match could be read beside one another.
    fn among_one_another(&mut self, placed: &[Placed]) {
        let of_match = |flaw: &&Flaw| flaw.path.starts_with("spec.match");
        let unread: BTreeSet<usize> = self.flaws.iter().filter(of_match).map(|flaw| flaw.document).collect();
        let read: Vec<&Placed> = placed.iter().filter(|route| !unread.contains(&route.document)).collect();
        if self.fit(&read) {
            self.ties(&read);
        }
    }

    /// Whether edges can hold the routes and find the one of any request; says so where they can't.
    fn fit(&mut self, read: &[&Placed]) -> bool {
        let bytes: usize = read.iter().map(|placed| placed.route.bytes()).sum();
        if bytes > TENANT_ROUTE_BYTES_MAX {
            let found = format!("routes that take {bytes} bytes in memory with their hosts and paths");
            let expected = format!("at most {TENANT_ROUTE_BYTES_MAX} (TENANT_ROUTE_BYTES_MAX)");
            self.flaw("documents", found, expected);
            return false;
        }
        let work = RouteIndex::of(read.iter().map(|placed| &placed.route.matcher)).work_max();
        if work > ROUTE_WORK_MAX {
            let found =
                format!("one request for which {work} routes and places of their paths are looked at");
            let expected = format!(
                "at most {ROUTE_WORK_MAX} (ROUTE_WORK_MAX): fewer routes of one host and path, or fewer captures \
                 beside literals"
            );
            self.flaw("documents", found, expected);
        }
        work <= ROUTE_WORK_MAX
    }

    /// Says which routes tie.
    fn ties(&mut self, read: &[&Placed]) {
        let ranked: Vec<Ranked<'_>> = read.iter().map(|placed| placed.ranked()).collect();
        for (at, behind) in ties(&ranked) {
            let (Some(route), Some(other)) = (read.get(at), read.get(behind)) else { continue };
            let (first, second) =
                if route.document < other.document { (route, other) } else { (other, route) };
            let rule = &first.route.rule;
            self.document = second.document;
            self.flaw(
                "spec.match",
                "the same requests as another route, equally specific",
                format!(
                    "a match that differs from that of {:?} at {}:{}, or another spec.match.priority",
                    rule.name, rule.file, rule.line
                ),
            );
        }
    }

    fn matcher(&mut self, spec: &MatchSpec) -> Matcher {
        self.unique(&spec.hosts, "spec.match.hosts");
        for (at, host) in spec.hosts.iter().enumerate() {
            if !is_host(host) {
                let path = format!("spec.match.hosts[{at}]");
                self.flaw(
                    path,
                    format_args!("{:?}", short(host)),
                    "a hostname in lower case, exact or with a leading \"*.\"",
                );
            }
        }
        self.unique(&spec.methods, "spec.match.methods");
        for (at, method) in spec.methods.iter().enumerate() {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
                let path = format!("spec.match.methods[{at}]");
                self.flaw(path, format_args!("{:?}", short(method)), "a method in upper case");
            }
        }
        let mut fields = BTreeSet::new();
        for name in spec.headers.keys() {
            if !is_field_name(name) {
                self.flaw(
                    "spec.match.headers",
                    format_args!("{:?}", short(name)),
                    "the name of a header field",
                );
            } else if !fields.insert(name.to_ascii_lowercase()) && self.is_push {
                self.flaw(
                    "spec.match.headers",
                    format_args!("{:?} again", short(name)),
                    "every field once, whatever its letters",
                );
            }
        }
        let path = self.path(&spec.path);
        let fields = |(name, value): (&String, &Option<String>)| (name.to_ascii_lowercase(), value.clone());
        Matcher {
            hosts: spec.hosts.clone(),
            path,
            methods: spec.methods.clone(),
            headers: spec.headers.iter().map(fields).collect(),
            query: spec.query.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            when: self.condition(spec.when.as_ref(), "spec.match.when"),
        }
    }

    fn path(&mut self, text: &str) -> PathTemplate {
        let mut template = path_template(text).unwrap_or_else(|expected| {
            self.flaw("spec.match.path", format_args!("{:?}", short(text)), expected);
            PathTemplate::default()
        });
        if let Err(invalid) = normalise(&mut template)
            && self.is_push
        {
            let expected = format!("a path that a request can have: {invalid}");
            self.flaw("spec.match.path", format_args!("{:?}", short(text)), expected);
        }
        template
    }

    fn auth(&mut self, spec: &AuthSpec) -> Auth {
        if spec.mode != AuthMode::Required && !spec.scopes.is_empty() {
            self.flaw("spec.auth.scopes", "scopes without mode: required", "no scopes, or mode: required");
        }
        self.unique(&spec.scopes, "spec.auth.scopes");
        if spec.mode != AuthMode::Required && spec.when.is_some() {
            self.flaw(
                "spec.auth.when",
                "a condition without mode: required",
                "no condition, or mode: required",
            );
        }
        if spec.mode == AuthMode::Anonymous && spec.shadow {
            self.flaw("spec.auth.shadow", "a shadow with mode: anonymous", "no shadow, or another mode");
        }
        if spec.mode == AuthMode::Anonymous && spec.fail == FailSpec::Open {
            self.flaw("spec.auth.fail", "open with mode: anonymous", "no fail, or another mode");
        }
        let when = self.condition(spec.when.as_ref(), "spec.auth.when");
        match spec.mode {
            AuthMode::Required => Auth::Required { scopes: spec.scopes.clone(), when },
            AuthMode::Optional => Auth::Optional,
            AuthMode::Anonymous => Auth::Anonymous,
        }
    }

    fn sampling(&mut self, spec: &LogSpec) -> Sampling {
        if spec.when.is_some() && spec.share.basis_points == SHARE_ALL {
            self.flaw("spec.log.when", "a condition without a share", "a share below 100% with it");
        }
        Sampling {
            share: spec.share.basis_points,
            when: self.condition(spec.when.as_ref(), "spec.log.when"),
            traces: spec.traces.basis_points,
        }
    }

    fn steering(&mut self, spec: &SteeringSpec, allowed: &[RegionId], matcher: &Matcher) -> Steering {
        let lists = matches!(spec.strategy, StrategySpec::Priority | StrategySpec::Pinned);
        if lists == spec.regions.is_empty() {
            self.flaw(
                "spec.steering.regions",
                if spec.regions.is_empty() { "no region" } else { "regions" },
                "regions with strategy: priority or pinned, and only with these",
            );
        }
        self.unique(&spec.regions, "spec.steering.regions");
        for (at, region) in spec.regions.iter().enumerate() {
            self.allowed_region(region, allowed, format!("spec.steering.regions[{at}]"));
        }
        if !spec.weights.is_empty() && spec.strategy != StrategySpec::Weighted {
            self.flaw("spec.steering.weights", "weights", "weights only with strategy: weighted");
        }
        if !spec.weights.is_empty() && spec.weights.values().all(|weight| *weight == 0) {
            self.flaw("spec.steering.weights", "no weight", "at least one region with a weight of 1 or more");
        }
        for region in spec.weights.keys() {
            self.allowed_region(region, allowed, format!("spec.steering.weights.{region}"));
        }
        if matches!(spec.affinity, AffinitySpec::Client | AffinitySpec::Subject)
            && spec.strategy != StrategySpec::Weighted
        {
            self.flaw(
                "spec.steering.affinity",
                "an affinity by hash",
                "strategy: weighted with it, or affinity: cookie",
            );
        }
        if !(1..=ATTEMPTS_MAX).contains(&spec.attempts) {
            self.flaw("spec.steering.attempts", spec.attempts, format!("1 to {ATTEMPTS_MAX}"));
        }
        for (at, status) in spec.retry_statuses.iter().enumerate() {
            if !(400..=599).contains(status) {
                self.flaw(format!("spec.steering.retryStatuses[{at}]"), status, "a status from 400 to 599");
            }
        }
        let ids = || spec.regions.iter().map(|id| Arc::from(id.as_str())).collect();
        Steering {
            strategy: match spec.strategy {
                StrategySpec::Nearest => Strategy::Nearest,
                StrategySpec::Latency => Strategy::Latency,
                StrategySpec::Weighted => Strategy::Weighted(
                    spec.weights.iter().map(|(id, weight)| (Arc::from(id.as_str()), *weight)).collect(),
                ),
                StrategySpec::Home => Strategy::Home,
                StrategySpec::Priority => Strategy::Priority(ids()),
                StrategySpec::Pinned => Strategy::Pinned(ids()),
            },
            retry_statuses: spec.retry_statuses.clone(),
            attempts_max: spec.attempts,
            timeout_ms: self.timeout(spec.timeout, "spec.steering.timeout"),
            affinity: match spec.affinity {
                AffinitySpec::None => Affinity::None,
                AffinitySpec::Cookie => Affinity::Cookie,
                AffinitySpec::Client => Affinity::Client,
                AffinitySpec::Subject => Affinity::Subject,
            },
            hedge: spec.hedge.as_ref().map(|hedge| self.hedge(hedge, spec, matcher)),
            canary: spec.canary.as_ref().and_then(|canary| {
                let upstream = self.named_upstream(&canary.upstream, "spec.steering.canary.upstream")?;
                Some(Canary { share: canary.share.basis_points, upstream })
            }),
        }
    }

    fn hedge(&mut self, spec: &HedgeSpec, steering: &SteeringSpec, matcher: &Matcher) -> Hedge {
        if steering.attempts < 2 {
            self.flaw("spec.steering.hedge", "a hedge with one attempt", "attempts: 2 or more with it");
        }
        if !matcher.methods.is_empty()
            && !matcher.methods.iter().any(|method| matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS"))
        {
            self.flaw(
                "spec.steering.hedge",
                "a hedge on a route without safe methods",
                "a route for GET, HEAD or OPTIONS with it",
            );
        }
        match spec.after {
            Patience::Percentile95 => Hedge::Percentile95,
            Patience::Span(after) => {
                if after.ms < HEDGE_AFTER_MS_MIN.into() || after >= steering.timeout {
                    let expected = format!(
                        "{HEDGE_AFTER_MS_MIN}ms or more and less than the timeout ({}), or p95",
                        steering.timeout
                    );
                    self.flaw("spec.steering.hedge.after", after, expected);
                }
                Hedge::After(u32::try_from(after.ms).unwrap_or(u32::MAX))
            }
        }
    }

    fn allowed_region(&mut self, region: &str, allowed: &[RegionId], path: String) {
        if !allowed.iter().any(|id| **id == *region) {
            self.flaws.push(Flaw {
                document: self.document,
                path,
                found: format!("{:?}", short(region)),
                expected: format!("one of the tenant's allowed regions: {}", allowed.join(", ")),
                names: allowed.iter().map(|id| id.to_string()).collect(),
            });
        }
    }

    pub(super) fn timeout(&mut self, timeout: Span, path: &str) -> u32 {
        if !(10..=60_000).contains(&timeout.ms) {
            self.flaw(path, timeout, "10ms to 1m");
        }
        u32::try_from(timeout.ms).unwrap_or(60_000)
    }
}

/// Reads `/v1/orders/{id}` or `/v1/**`; the error says what was expected.
pub(in crate::bundle) fn path_template(text: &str) -> Result<PathTemplate, &'static str> {
    let rest = text.strip_prefix('/').ok_or("a path that begins with \"/\"")?;
    let mut template = PathTemplate::default();
    if rest.is_empty() {
        return Ok(template);
    }
    for part in rest.split('/') {
        if template.open {
            return Err("\"**\" at the end of the path only");
        }
        if template.segments.len() >= PATH_SEGMENTS_MAX {
            return Err("at most 32 segments");
        }
        if part == "**" {
            template.open = true;
        } else if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            if !is_capture(name) {
                return Err("a capture such as {name}: letters, digits and '_', beginning with a letter");
            }
            if template.segments.contains(&Segment::Capture(name.to_owned())) {
                return Err("every capture's name once");
            }
            template.segments.push(Segment::Capture(name.to_owned()));
        } else if is_literal(part) {
            template.segments.push(Segment::Literal(part.to_owned()));
        } else {
            return Err("segments that are literal, {name} or a last \"**\", none of them empty");
        }
    }
    Ok(template)
}

/// Gives the literals of a path the form that they have in requests' paths. Where no request's path can have them, they stay.
fn normalise(template: &mut PathTemplate) -> Result<(), InvalidPath> {
    let part = |segment: &Segment| match segment {
        Segment::Literal(text) => format!("/{text}"),
        Segment::Capture(_) => "/any".to_owned(),
    };
    let path: String = template.segments.iter().map(part).collect();
    if path.is_empty() {
        return Ok(());
    }
    let path = normalise_path(&path)?;
    for (segment, part) in template.segments.iter_mut().zip(path.split('/').skip(1)) {
        if let Segment::Literal(text) = segment {
            part.clone_into(text);
        }
    }
    Ok(())
}

fn is_capture(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Characters of a path segment (RFC 3986, section 3.3) but `*`, which would look like a pattern.
fn is_literal(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=:@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_literals_captures_and_an_open_end() {
        let path = path_template("/v1/{name}/**").unwrap();
        assert_eq!(path.segments, [Segment::Literal("v1".into()), Segment::Capture("name".into())]);
        assert!(path.open);
        assert_eq!(path_template("/").unwrap(), PathTemplate::default());
        for wrong in ["", "v1", "/v1/", "//", "/**/x", "/{}", "/{a}/{a}", "/x{a}", "/a*", "/{1}", "/a b"] {
            assert!(path_template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn literals_have_the_form_that_they_have_in_requests() {
        let normal = |text: &str| {
            let mut template = path_template(text).unwrap();
            normalise(&mut template).map(|()| template)
        };
        assert_eq!(
            normal("/%61b/%7ec/{x}/caf%c3%a9/a;v=1"),
            Ok(path_template("/ab/~c/{x}/caf%C3%A9/a;v=1").unwrap())
        );
        assert_eq!(normal("/a/;x/**"), Ok(path_template("/a/;x/**").unwrap()));
        assert_eq!(normal("/**"), Ok(path_template("/**").unwrap()));
        for (wrong, why) in [
            ("/a/../b", InvalidPath::Dots),
            ("/..;x", InvalidPath::Dots),
            ("/a/%2E", InvalidPath::Dots),
            ("/a/;x/b", InvalidPath::EmptySegment),
            ("/a%zz", InvalidPath::Encoding),
            ("/a%", InvalidPath::Encoding),
            ("/a%2fb", InvalidPath::EncodedSeparator),
            ("/a%00", InvalidPath::Control),
            ("/a%2561", InvalidPath::EncodedTwice),
        ] {
            assert_eq!(normal(wrong), Err(why), "{wrong}");
        }
    }
}
