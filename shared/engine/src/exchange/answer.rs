//! Answers that the rules give themselves: to preflights, and redirects. Both come before auth: a preflight carries no
//! credentials (Fetch standard, section 3.3.5), and a redirect tells nothing but the rule.

use std::sync::Arc;

use super::Exchange;
use crate::compiled::Compiled;
use crate::decision::Outcome;
use crate::headers::Headers;
use crate::node::Node;
use crate::policy::route::Matched;
use crate::policy::transform::preflight_method;
use crate::ruleset::{Cors, RuleRef, Transform};
use crate::step::{ReplyBody, Step};

impl Exchange {
    /// Answers a preflight to a route that shares across origins. Any other `OPTIONS` goes the usual way.
    pub(super) fn preflight(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Option<Step> {
        let method = preflight_method(&self.facts)?.to_owned();
        let mut asked = self.facts.clone();
        asked.method.clone_from(&method);
        let inputs = crate::expr::Inputs { facts: &asked, ..self.inputs() };
        let Matched::Route(number) = rules.routes.find(&rules.ruleset.routes, &inputs, &mut Vec::new())
        else {
            return None;
        };
        let (rule, cors) = self.cors_of(rules, number)?;
        self.route = Some(number);
        let headers = cors.preflight(&self.facts, &method);
        let allowed = headers.get("access-control-allow-origin").is_some();
        let outcome = if allowed { "preflight answered" } else { "preflight: this origin may not" };
        self.explain("cors", Some(&rule), outcome, vec![("method", method)]);
        Some(self.finish(node, 204, headers, ReplyBody::Empty, Outcome::Answered))
    }

    fn cors_of(&self, rules: &Compiled, route: usize) -> Option<(RuleRef, Cors)> {
        let route = rules.route(Some(route))?;
        let mut transforms =
            route.transforms.iter().filter_map(|number| rules.ruleset.transforms.get(*number));
        transforms.find_map(|transform| Some((transform.rule.clone(), transform.cors.clone()?)))
    }

    /// Answers with the first redirect of the route's transforms.
    pub(super) fn redirect(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Option<Step> {
        let route = rules.route(self.route)?;
        let holds = |transform: &&Transform| {
            transform.redirect.is_some()
                && transform.when.as_ref().is_none_or(|when| when.holds(&self.inputs()) == Ok(true))
        };
        let transform =
            route.transforms.iter().filter_map(|number| rules.ruleset.transforms.get(*number)).find(holds)?;
        let redirect = transform.redirect.as_ref()?;
        let location = redirect.location.render(&self.facts, &route.matcher.path);
        self.explain("redirect", Some(&transform.rule), format!("status {}", redirect.status), Vec::new());
        let headers = Headers::from_iter([("location", location.as_str()), ("cache-control", "no-store")]);
        Some(self.finish(node, redirect.status, headers, ReplyBody::Empty, Outcome::Answered))
    }

    /// Path and query for the target: the request's, as the route's transforms rewrite them.
    pub(super) fn target(&self) -> (String, Option<String>) {
        let (mut path, mut query) = (self.facts.path.clone(), self.facts.query.clone());
        let Some((rules, route)) = self.rules.as_ref().zip(self.route()) else { return (path, query) };
        for transform in route.transforms.iter().filter_map(|number| rules.ruleset.transforms.get(*number)) {
            let Some(rewrite) = &transform.rewrite else { continue };
            if transform.when.as_ref().is_some_and(|when| when.holds(&self.inputs()) != Ok(true)) {
                continue;
            }
            if let Some(template) = &rewrite.path {
                path = template.render(&self.facts, &route.matcher.path);
            }
            if let Some(template) = &rewrite.query {
                query =
                    Some(template.render(&self.facts, &route.matcher.path)).filter(|query| !query.is_empty());
            }
        }
        (path, query)
    }
}
