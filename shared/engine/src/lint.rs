//! What is odd in a ruleset: allowed, but hardly meant. Findings are data; whoever pushes rules gets them as warnings.

use std::fmt;

use crate::limits::ATTEMPTS_MAX;
use crate::policy::transform::is_reserved;
use crate::ruleset::{
    Auth, Experiment, HeaderChange, Matcher, Mode, PathTemplate, RouteTarget, RuleRef, Ruleset, Segment,
    Strategy,
};

/// Something odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it is; `None` for what is about the tenant as a whole.
    pub rule: Option<RuleRef>,
    /// Which kind of oddity.
    pub kind: Oddity,
    /// What was found, for people.
    pub found: String,
}

/// Kinds of oddities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// An earlier route takes every request that this one could.
    UnreachableRoute,
    /// A route needs a token, and nobody can issue one.
    NobodyCanPass,
    /// No route looks at tokens, but there is an issuer.
    IssuerUnused,
    /// No route uses it.
    Unused,
    /// All units get the same variant, or none do.
    NoExperiment,
    /// Two experiments of a layer share buckets.
    LayerOverlap,
    /// A region that the tenant may not use is named.
    RegionNotAllowed,
    /// A header field that no rule may touch is named.
    ReservedField,
    /// Something is said that can't come to pass.
    NoEffect,
    /// A number that the engine does not go to.
    BeyondLimit,
    /// Every address is refused.
    RefusesAll,
}

impl Oddity {
    /// The kind as a word, for machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnreachableRoute => "unreachable-route",
            Self::NobodyCanPass => "nobody-can-pass",
            Self::IssuerUnused => "issuer-unused",
            Self::Unused => "unused",
            Self::NoExperiment => "no-experiment",
            Self::LayerOverlap => "layer-overlap",
            Self::RegionNotAllowed => "region-not-allowed",
            Self::ReservedField => "reserved-field",
            Self::NoEffect => "no-effect",
            Self::BeyondLimit => "beyond-limit",
            Self::RefusesAll => "refuses-all",
        }
    }
}

/// `acme/routes.yaml:12: Route orders: unreachable-route: …`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(RuleRef { kind, name, file, line }) = &self.rule {
            write!(f, "{file}:{line}: {kind} {name}: ")?;
        }
        write!(f, "{}: {}", self.kind.as_str(), self.found)
    }
}

/// Everything odd in a ruleset, in the order of its rules.
#[must_use]
pub fn lint(rules: &Ruleset) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    lint_routes(rules, &mut findings);
    lint_auth(rules, &mut findings);
    lint_unused(rules, &mut findings);
    lint_experiments(rules, &mut findings);
    lint_regions(rules, &mut findings);
    lint_changes(rules, &mut findings);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &RuleRef, kind: Oddity, found: impl Into<String>) {
        self.0.push(Finding { rule: Some(rule.clone()), kind, found: found.into() });
    }
}

fn lint_routes(rules: &Ruleset, findings: &mut Findings) {
    for (number, route) in rules.routes.iter().enumerate() {
        let mut earlier = rules.routes.iter().take(number);
        if let Some(first) = earlier.find(|earlier| covers(&earlier.matcher, &route.matcher)) {
            let RuleRef { name, file, line, .. } = &first.rule;
            let found = format!("{name} ({file}:{line}) takes every request that this route could");
            findings.add(&route.rule, Oddity::UnreachableRoute, found);
        }
        if route.steering.attempts_max > ATTEMPTS_MAX {
            let found = format!(
                "{} attempts, of which {ATTEMPTS_MAX} are made at the most",
                route.steering.attempts_max
            );
            findings.add(&route.rule, Oddity::BeyondLimit, found);
        }
        if route.steering.hedge.is_some()
            && matches!(&route.steering.strategy, Strategy::Pinned(only) if only.len() == 1)
        {
            let found = "a hedge, but the route is pinned to one region: there is no other to ask";
            findings.add(&route.rule, Oddity::NoEffect, found);
        }
    }
    for policy in rules.security.iter().filter(|policy| policy.mode == Mode::Block) {
        if policy.deny.holds_a_family() {
            findings.add(&policy.rule, Oddity::RefusesAll, "the deny list holds every address of a family");
        }
    }
}

/// Whether every request that `later` is for goes to `earlier`.
fn covers(earlier: &Matcher, later: &Matcher) -> bool {
    let all_of = |have: &[String], of: &[String]| {
        have.is_empty() || (!of.is_empty() && of.iter().all(|one| have.contains(one)))
    };
    earlier.headers.is_empty()
        && earlier.query.is_empty()
        && earlier.when.is_none()
        && path_covers(&earlier.path, &later.path)
        && all_of(&earlier.hosts, &later.hosts)
        && all_of(&earlier.methods, &later.methods)
}

fn path_covers(earlier: &PathTemplate, later: &PathTemplate) -> bool {
    let long = match (earlier.open, later.open) {
        (true, _) => earlier.segments.len() <= later.segments.len(),
        (false, true) => false,
        (false, false) => earlier.segments.len() == later.segments.len(),
    };
    long && earlier.segments.iter().zip(&later.segments).all(|(earlier, later)| match (earlier, later) {
        (Segment::Capture(_), _) => true,
        (Segment::Literal(earlier), Segment::Literal(later)) => earlier == later,
        (Segment::Literal(_), Segment::Capture(_)) => false,
    })
}

fn lint_auth(rules: &Ruleset, findings: &mut Findings) {
    let mut looked_at = false;
    for route in &rules.routes {
        looked_at |= route.auth != Auth::Anonymous;
        if rules.issuers.is_empty() && matches!(route.auth, Auth::Required { .. }) {
            findings.add(
                &route.rule,
                Oddity::NobodyCanPass,
                "it needs a token, and the tenant has no issuer",
            );
        }
    }
    for issuer in rules.issuers.iter().filter(|_| !looked_at) {
        findings.add(&issuer.rule, Oddity::IssuerUnused, "no route looks at tokens");
    }
}

fn lint_unused(rules: &Ruleset, findings: &mut Findings) {
    let mut check = |used: Vec<usize>, all: Vec<&RuleRef>| {
        for (_, rule) in all.into_iter().enumerate().filter(|(number, _)| !used.contains(number)) {
            findings.add(rule, Oddity::Unused, "no route uses it");
        }
    };
    let routes = || rules.routes.iter();
    check(
        routes().flat_map(|route| route.limits.clone()).collect(),
        rules.limits.iter().map(|limit| &limit.rule).collect(),
    );
    check(
        routes().flat_map(|route| route.experiments.clone()).collect(),
        rules.experiments.iter().map(|experiment| &experiment.rule).collect(),
    );
    check(
        routes().filter_map(|route| route.cache).collect(),
        rules.caches.iter().map(|cache| &cache.rule).collect(),
    );
    check(
        routes().flat_map(|route| route.transforms.clone()).collect(),
        rules.transforms.iter().map(|transform| &transform.rule).collect(),
    );
    check(
        routes()
            .flat_map(|route| route.security.clone())
            .chain(rules.tenant.security.iter().copied())
            .collect(),
        rules.security.iter().map(|security| &security.rule).collect(),
    );
    let target = |target: &RouteTarget| match target {
        RouteTarget::Upstream(number) => Some(*number),
        RouteTarget::Origin => None,
    };
    check(
        routes().filter_map(|route| target(&route.target)).collect(),
        rules.upstreams.iter().map(|upstream| &upstream.rule).collect(),
    );
}

fn lint_experiments(rules: &Ruleset, findings: &mut Findings) {
    for (number, experiment) in rules.experiments.iter().enumerate() {
        let weighted = experiment.variants.iter().filter(|variant| variant.weight > 0).count();
        if weighted == 1 {
            findings.add(&experiment.rule, Oddity::NoExperiment, "all the weight is on one variant");
        }
        if experiment.ramp == 0 || experiment.layer.as_ref().is_some_and(|layer| layer.from >= layer.until) {
            findings.add(&experiment.rule, Oddity::NoExperiment, "nobody takes part");
        }
        let mut others = rules.experiments.iter().take(number);
        if let Some(other) = others.find(|other| overlap(experiment, other)) {
            let found = format!("it shares a part of its layer with {}", other.rule.name);
            findings.add(&experiment.rule, Oddity::LayerOverlap, found);
        }
    }
}

fn overlap(left: &Experiment, right: &Experiment) -> bool {
    match (&left.layer, &right.layer) {
        (Some(left), Some(right)) => {
            left.name == right.name && left.from < right.until && right.from < left.until
        }
        _ => false,
    }
}

fn lint_regions(rules: &Ruleset, findings: &mut Findings) {
    let allowed = &rules.tenant.allowed_regions;
    let found = |region: &str| format!("the tenant may not use {region}");
    if !allowed.contains(&rules.tenant.home_region) {
        let found = found(&rules.tenant.home_region);
        findings.0.push(Finding { rule: None, kind: Oddity::RegionNotAllowed, found });
    }
    for route in &rules.routes {
        if let Strategy::Priority(order) = &route.steering.strategy {
            for region in order.iter().filter(|region| !allowed.contains(region)) {
                findings.add(&route.rule, Oddity::RegionNotAllowed, found(region));
            }
        }
    }
    for upstream in &rules.upstreams {
        for (region, _) in upstream.regions.iter().filter(|(region, _)| !allowed.contains(region)) {
            findings.add(&upstream.rule, Oddity::RegionNotAllowed, found(region));
        }
    }
}

fn lint_changes(rules: &Ruleset, findings: &mut Findings) {
    for transform in &rules.transforms {
        for change in transform.request.iter().chain(&transform.response) {
            let (HeaderChange::Set(name, _) | HeaderChange::Append(name, _) | HeaderChange::Remove(name)) =
                change;
            if is_reserved(name) {
                let found = format!("{name} is the platform's own and stays as it is");
                findings.add(&transform.rule, Oddity::ReservedField, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{route, rule, ruleset, upstream};
    use crate::policy::security::{AddressSet, Security};
    use crate::ruleset::{HeaderValue, Layer, Route, Transform, Unit, Variant};

    fn check(rules: &Ruleset, expect: &[&str]) {
        let found: Vec<String> = lint(rules).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    fn experiment(layer: Option<(u32, u32)>, ramp: u32, weights: &[u32]) -> Experiment {
        let variant = |weight: &u32| Variant { name: "v".into(), weight: *weight };
        Experiment {
            rule: rule("Experiment"),
            layer: layer.map(|(from, until)| Layer { name: "l".to_owned(), from, until }),
            salt: String::new(),
            audience: None,
            unit: Unit::Cookie,
            ramp,
            variants: weights.iter().map(variant).collect(),
            version: "".into(),
            force: None,
            goals: vec![],
        }
    }

    #[test]
    fn nothing_is_odd_about_plain_rules() {
        check(&ruleset(vec![route("/v1/orders/{id}"), route("/v1/orders"), route("/**")]), &[]);
    }

    #[test]
    fn a_route_behind_a_wider_one_is_found() {
        let check = |earlier: Route, later: Route, expect: bool| {
            let got = lint(&ruleset(vec![earlier.clone(), later.clone()]));
            assert_eq!(
                got.iter().any(|finding| finding.kind == Oddity::UnreachableRoute),
                expect,
                "{earlier:?} {later:?}"
            );
        };
        let with = |template: &str, methods: &[&str]| {
            let mut route = route(template);
            route.matcher.methods = methods.iter().map(ToString::to_string).collect();
            route
        };
        check(route("/a/{x}"), route("/a/{y}"), true);
        check(route("/a/**"), route("/a/b/c"), true);
        check(route("/a/**"), route("/a"), true);
        check(route("/a/{x}"), route("/a/**"), false);
        check(route("/a/b"), route("/a/{x}"), false);
        check(with("/a", &["GET", "POST"]), with("/a", &["POST"]), true);
        check(with("/a", &["GET"]), with("/a", &[]), false);
        let mut conditional = route("/a");
        conditional.matcher.headers.push(("x-beta".to_owned(), None));
        check(conditional, route("/a"), false);
    }

    #[test]
    fn each_oddity_is_told_with_its_place() {
        let mut rules = ruleset(vec![route("/**")]);
        rules.routes[0].auth = Auth::Required { scopes: vec![], when: None };
        rules.routes[0].steering.attempts_max = 9;
        rules.routes[0].steering.strategy = Strategy::Priority(vec!["mars-1".into()]);
        rules.routes[0].experiments = vec![0, 1];
        rules.routes[0].transforms = vec![0];
        rules.experiments.push(experiment(Some((0, 6_000)), 10_000, &[1, 0]));
        rules.experiments.push(experiment(Some((5_000, 10_000)), 0, &[1, 1]));
        rules.transforms.push(Transform {
            request: vec![HeaderChange::Set("host".to_owned(), HeaderValue::Text("x".to_owned()))],
            response: vec![],
            ..Transform::new(rule("Transform"))
        });
        let deny = AddressSet::new(&["0.0.0.0/0".parse().unwrap()]);
        rules.security.push(Security { deny, ..Security::new(rule("Security"), Mode::Block) });
        rules.upstreams.push(upstream(vec![]));
        let expect = [
            "rules.yaml:1: Route r: beyond-limit: 9 attempts, of which 5 are made at the most",
            "rules.yaml:1: Security r: refuses-all: the deny list holds every address of a family",
            "rules.yaml:1: Route r: nobody-can-pass: it needs a token, and the tenant has no issuer",
            "rules.yaml:1: Security r: unused: no route uses it",
            "rules.yaml:1: Upstream r: unused: no route uses it",
            "rules.yaml:1: Experiment r: no-experiment: all the weight is on one variant",
            "rules.yaml:1: Experiment r: no-experiment: nobody takes part",
            "rules.yaml:1: Experiment r: layer-overlap: it shares a part of its layer with r",
            "rules.yaml:1: Route r: region-not-allowed: the tenant may not use mars-1",
            "rules.yaml:1: Transform r: reserved-field: host is the platform's own and stays as it is",
        ];
        check(&rules, &expect);
    }
}
