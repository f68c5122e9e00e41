//! What is odd in a ruleset: allowed, but hardly meant. Findings are data; whoever pushes rules gets them as warnings, beside
//! what `wire` finds odd in the documents themselves.

use crate::policy::cache::query_part;
use crate::policy::route::{RouteIndex, method_matches};
use crate::ruleset::{Auth, Matcher, Mode, RuleRef, Ruleset, Strategy};

/// Something odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that is odd.
    pub rule: RuleRef,
    /// What it does, for people, as it goes on behind the rule's name: `needs a token, and the tenant has no issuer`.
    pub found: String,
}

/// Everything odd in a ruleset.
#[must_use]
pub fn lint(rules: &Ruleset) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    lint_routes(rules, &mut findings);
    lint_auth(rules, &mut findings);
    lint_security(rules, &mut findings);
    lint_experiments(rules, &mut findings);
    lint_upstreams(rules, &mut findings);
    lint_caches(rules, &mut findings);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &RuleRef, found: impl Into<String>) {
        self.0.push(Finding { rule: rule.clone(), found: found.into() });
    }
}

fn lint_routes(rules: &Ruleset, findings: &mut Findings) {
    // The index finds the few whose path is as wide: trying each with each would take minutes where there are many.
    let index = RouteIndex::new(&rules.routes);
    for (number, route) in rules.routes.iter().enumerate() {
        // Whoever takes everything has all of its hosts, the first among them.
        let host = route.matcher.hosts.first().map(String::as_str);
        let earlier = index.over(host, &route.matcher.path).into_iter().filter(|earlier| *earlier < number);
        let earlier = earlier.filter_map(|earlier| Some((earlier, rules.routes.get(earlier)?)));
        let first = earlier.filter(|(_, earlier)| covers(&earlier.matcher, &route.matcher));
        if let Some((_, first)) = first.min_by_key(|(earlier, _)| *earlier) {
            let RuleRef { kind, name, file, line } = &first.rule;
            let found = format!("gets no request: {kind} {name:?} at {file}:{line} takes all that it could");
            findings.add(&route.rule, found);
        }
        if route.steering.hedge.is_some()
            && matches!(&route.steering.strategy, Strategy::Pinned(only) if only.len() == 1)
        {
            let found = "hedges, but is pinned to one region: there is no other to ask";
            findings.add(&route.rule, found);
        }
    }
}

/// Whether every request that `later` is for goes to `earlier`, which stands before it in the order and whose path takes all
/// that the path of `later` takes. Only a route with the same hosts does that: whichever of them a request has, both say equally
/// much of it, or `earlier` more.
fn covers(earlier: &Matcher, later: &Matcher) -> bool {
    let hosts = match (earlier.hosts.is_empty(), later.hosts.is_empty()) {
        (false, false) => later.hosts.iter().all(|host| earlier.hosts.contains(host)),
        (of_all, too) => of_all && too,
    };
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty()
            && later.methods.iter().all(|method| method_matches(&earlier.methods, method)));
    hosts && methods && earlier.headers.is_empty() && earlier.query.is_empty() && earlier.when.is_none()
}

fn lint_auth(rules: &Ruleset, findings: &mut Findings) {
    let mut looked_at = false;
    for route in &rules.routes {
        looked_at |= route.auth != Auth::Anonymous;
        if rules.issuers.is_empty() && matches!(route.auth, Auth::Required { .. }) && !route.auth_shadow {
            findings.add(&route.rule, "needs a token, and the tenant has no issuer");
        }
    }
    for issuer in rules.issuers.iter().filter(|_| !looked_at) {
        findings.add(&issuer.rule, "is asked for nothing: no route looks at tokens");
    }
}

fn lint_security(rules: &Ruleset, findings: &mut Findings) {
    for policy in rules.security.iter().filter(|policy| policy.mode == Mode::Block) {
        if policy.deny.holds_a_family() {
            findings.add(&policy.rule, "refuses every address of IPv4, of IPv6 or of both");
        }
    }
}

fn lint_experiments(rules: &Ruleset, findings: &mut Findings) {
    // Variants without weight and ramps of nothing are for testers, where there are any.
    for experiment in rules.experiments.iter().filter(|experiment| experiment.force.is_none()) {
        let weighted = experiment.variants.iter().filter(|variant| variant.weight > 0).count();
        if weighted == 1 && experiment.variants.len() > 1 {
            findings.add(&experiment.rule, "has all its weight on one variant");
        }
        if experiment.ramp == 0 {
            findings.add(&experiment.rule, "has a ramp of nothing: nobody takes part");
        }
    }
}

fn lint_upstreams(rules: &Ruleset, findings: &mut Findings) {
    for upstream in &rules.upstreams {
        let allowed = &rules.tenant.allowed_regions;
        for (region, _) in upstream.regions.iter().filter(|(region, _)| !allowed.contains(region)) {
            findings.add(&upstream.rule, format!("has a URL for {region}, which the tenant may not use"));
        }
    }
}

/// What a key leaves out of the query does not reach the target, not even what a route is chosen by.
fn lint_caches(rules: &Ruleset, findings: &mut Findings) {
    for route in &rules.routes {
        let Some(policy) = route.cache.and_then(|number| rules.caches.get(number)) else { continue };
        let reaches = |name: &str| query_part(policy, Some(name)).is_some();
        for (name, _) in route.matcher.query.iter().filter(|(name, _)| !reaches(name)) {
            let key = &policy.rule.name;
            let found = format!(
                "asks for the query parameter {name:?}, which does not reach its target: \
                 the key of CachePolicy {key:?} leaves it out"
            );
            findings.add(&route.rule, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fixtures::{route, rule, ruleset, upstream};
    use crate::policy::security::{AddressSet, Security};
    use crate::ruleset::{CachePolicy, Experiment, Hedge, KeyPart, Newcomers, Route, Unit, Variant};

    fn check(rules: &Ruleset, expect: &[&str]) {
        let told = |finding: &Finding| format!("{} {}", finding.rule.kind, finding.found);
        let found: Vec<String> = lint(rules).iter().map(told).collect();
        assert_eq!(found, expect);
    }

    fn experiment(ramp: u32, weights: &[u32]) -> Experiment {
        let variant = |weight: &u32| Variant { name: "v".into(), weight: *weight };
        Experiment {
            rule: rule("Experiment"),
            layer: None,
            salt: String::new(),
            audience: None,
            unit: Unit::Cookie,
            newcomers: Newcomers::OnReturn,
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
            let found = lint(&ruleset(vec![earlier.clone(), later.clone()]));
            assert_eq!(!found.is_empty(), expect, "{earlier:?} {later:?}");
        };
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let with = |template: &str, methods: &[&str]| {
            let mut route = route(template);
            route.matcher.methods = list(methods);
            route
        };
        check(route("/a/{x}"), route("/a/{y}"), true);
        check(route("/a/**"), route("/a/b/c"), true);
        check(route("/a/**"), route("/a"), true);
        check(route("/a/{x}"), route("/a/**"), false);
        check(route("/a/b"), route("/a/{x}"), false);
        check(with("/a", &["GET", "POST"]), with("/a", &["POST"]), true);
        check(with("/a", &["GET"]), with("/a", &["HEAD"]), true);
        check(with("/a", &["HEAD"]), with("/a", &["GET"]), false);
        check(with("/a", &["GET"]), with("/a", &[]), false);
        let mut conditional = route("/a");
        conditional.matcher.headers.push(("x-beta".to_owned(), None));
        check(conditional, route("/a"), false);
        let at = |hosts: &[&str]| {
            let mut route = route("/a");
            route.matcher.hosts = list(hosts);
            route
        };
        check(at(&["*.example", "a.example"]), at(&["a.example"]), true);
        check(at(&["*.example"]), at(&["a.example"]), false);
        check(at(&[]), at(&["a.example"]), false);
        check(at(&["a.example"]), at(&[]), false);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what takes a time that grows with the square takes minutes here"
    )]
    fn ten_thousand_routes_are_looked_at_in_a_moment() {
        let mut routes: Vec<Route> = (0..10_000).map(|number| route(&format!("/a/{number}/{{x}}"))).collect();
        routes.push(route("/a/{x}/**"));
        routes.push(route("/a/7/{y}"));
        let started = std::time::Instant::now();
        let found = lint(&ruleset(routes));
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(found.len(), 1, "the last stands behind the eighth");
    }

    #[test]
    fn each_oddity_is_told() {
        let mut rules = ruleset(vec![route("/**")]);
        rules.routes[0].auth = Auth::Required { scopes: vec![], when: None };
        rules.routes[0].steering.strategy = Strategy::Pinned(vec!["us-east-1".into()]);
        rules.routes[0].steering.hedge = Some(Hedge::Percentile95);
        rules.experiments.push(experiment(10_000, &[1, 0]));
        rules.experiments.push(experiment(0, &[1, 1]));
        rules.experiments.push(experiment(5_000, &[1]));
        let deny = AddressSet::new(&["0.0.0.0/0".parse().unwrap()]);
        rules.security.push(Security { deny, ..Security::new(rule("Security"), Mode::Block) });
        rules.upstreams.push(upstream(vec![("mars-1".into(), "https://mars.example".to_owned())]));
        let expect = [
            "Route hedges, but is pinned to one region: there is no other to ask",
            "Route needs a token, and the tenant has no issuer",
            "Security refuses every address of IPv4, of IPv6 or of both",
            "Experiment has all its weight on one variant",
            "Experiment has a ramp of nothing: nobody takes part",
            "Upstream has a URL for mars-1, which the tenant may not use",
        ];
        check(&rules, &expect);
    }

    #[test]
    fn a_parameter_that_a_route_asks_for_and_its_target_does_not_get_is_found() {
        let of = |query: KeyPart| {
            let mut rules = ruleset(vec![route("/search")]);
            rules.routes[0].matcher.query = vec![("preview".to_owned(), None)];
            rules.routes[0].cache = Some(0);
            rules.caches.push(CachePolicy {
                rule: rule("CachePolicy"),
                default_ttl_ms: BTreeMap::new(),
                query,
                headers: vec![],
                cookies: vec![],
                claims: vec![],
                variants: false,
                values: vec![],
                stale_while_revalidate_ms: 0,
                stale_if_error_ms: 0,
                heuristic: 0,
                store_cookies: false,
                tags: vec![],
                bypass: None,
            });
            rules
        };
        let only = |name: &str| KeyPart::Only(vec![name.to_owned()]);
        let found = "Route asks for the query parameter \"preview\", which does not reach its target: \
                     the key of CachePolicy \"r\" leaves it out";
        check(&of(only("page")), &[found]);
        check(&of(KeyPart::None), &[found]);
        check(&of(only("preview")), &[]);
        check(&of(KeyPart::All), &[]);
    }
}
