//! Answers that the rules give themselves: to preflights, and redirects. Both come before auth: a preflight carries no
//! credentials (Fetch standard, section 3.3.5), and a redirect tells nothing but the rule. Of the route's limits those count
//! them that need no token. An `OPTIONS` that may go no further is answered where any other would be forwarded.

use std::sync::Arc;

use super::Exchange;
use super::secure::Secured;
use crate::compiled::Compiled;
use crate::decision::Outcome;
use crate::expr::Inputs;
use crate::facts::{Facts, normalise_path};
use crate::headers::Headers;
use crate::node::Node;
use crate::policy::cache::query_part;
use crate::policy::request::forwards_left;
use crate::policy::route::Matched;
use crate::policy::security::Sample;
use crate::policy::transform::{announced_fields, preflight_method};
use crate::ruleset::{Cors, KeyPart, RuleRef, Transform};
use crate::step::Step;

impl Exchange {
    /// Answers a preflight to a route that shares across origins. Any other `OPTIONS` goes the usual way. Of the fields that
    /// the page will send it tells the names alone (Fetch standard, section 3.3.2), and the route is found by them.
    pub(super) fn preflight(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Option<Step> {
        let method = preflight_method(&self.facts)?.to_owned();
        let mut asked = self.facts.clone();
        asked.method.clone_from(&method);
        let inputs = Inputs { facts: &asked, ..self.inputs() };
        let fields = announced_fields(&self.facts);
        let Matched::Route(number) = rules.routes.find_announced(&rules.ruleset.routes, &inputs, &fields)
        else {
            return None;
        };
        let (rule, cors) = cors_of(rules, number, &inputs)?;
        self.route = Some(number);
        if self.sample == Sample::Unread {
            // Its body goes nowhere.
            self.sample = Sample::Missing;
        }
        let policies = rules.route(self.route).map_or(&[][..], |route| &route.security);
        if let Secured::Refused(problem) = self.secure(node, rules, policies, 0) {
            return Some(self.refuse(node, problem, Outcome::Denied));
        }
        let headers = cors.preflight(&self.facts, &method);
        let allowed = headers.get("access-control-allow-origin").is_some();
        let outcome = if allowed { "preflight answered" } else { "preflight: this origin may not" };
        self.explain("cors", Some(&rule), outcome, vec![("method", method)]);
        Some(self.answer_within_limits(node, 204, headers))
    }

    fn answer_within_limits(&mut self, node: &mut Node, status: u16, headers: Headers) -> Step {
        self.own_answer = Some((status, headers));
        self.check_limits(node)
    }

    /// The answer to an `OPTIONS` that must not be forwarded, as its final recipient (RFC 9110, section 7.6.2): with the methods
    /// that routes for its path take, where they name any.
    pub(super) fn last_answer(&mut self) -> Option<(u16, Headers)> {
        if !matches!(forwards_left(&self.facts.method, &self.facts.headers), Ok(Some(0))) {
            return None;
        }
        let rules = self.rules.clone()?;
        let allowed = rules.routes.methods(&rules.ruleset.routes, &self.facts);
        let rule = rules.route(self.route).map(|route| &route.rule);
        self.explain("options", rule, "answered here: Max-Forwards is 0", Vec::new());
        Some((204, allowed.into_iter().map(|methods| ("allow", methods.join(", "))).collect()))
    }

    /// Whether a transform is for this request; a condition that can't be evaluated is told and does not hold.
    pub(super) fn applies(&mut self, transform: &Transform) -> bool {
        transform.is_for(&self.inputs()).unwrap_or_else(|fault| {
            self.explain("transform", Some(&transform.rule), format!("left out: {fault}"), Vec::new());
            false
        })
    }

    /// Answers with the first redirect of the route's transforms.
    pub(super) fn redirect(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Option<Step> {
        let route = rules.route(self.route)?;
        for transform in rules.transforms(self.route) {
            let Some(redirect) = &transform.redirect else { continue };
            if !self.applies(transform) {
                continue;
            }
            let location = redirect.location.render(&self.facts, &route.matcher.path);
            self.explain(
                "redirect",
                Some(&transform.rule),
                format!("status {}", redirect.status),
                Vec::new(),
            );
            let headers =
                Headers::from_iter([("location", location.as_str()), ("cache-control", "no-store")]);
            return Some(self.answer_within_limits(node, redirect.status, headers));
        }
        None
    }

    /// Path and query for the target, where they are others than the client's: of what may be kept for others, the target gets
    /// those parameters alone that are in the key, and the route's transforms rewrite them. A path that is none any more stays as
    /// it was, and the explanation says so.
    pub(super) fn rewritten(&mut self) -> Option<(String, Option<String>)> {
        let rules = self.rules.clone()?;
        let route = rules.route(self.route)?;
        let keyed = self.keyed();
        let mut target = keyed.as_ref().map(|facts| (facts.path.clone(), facts.query.clone()));
        for transform in rules.transforms(self.route) {
            let Some(rewrite) = transform.rewrite.as_ref().filter(|_| self.applies(transform)) else {
                continue;
            };
            let facts = keyed.as_ref().unwrap_or(&self.facts);
            let (path, query) = target.get_or_insert_with(|| (facts.path.clone(), facts.query.clone()));
            if let Some(template) = &rewrite.query {
                let rendered = template.render(facts, &route.matcher.path);
                *query = Some(rendered).filter(|query| !query.is_empty());
            }
            if let Some(template) = &rewrite.path {
                match normalise_path(&template.render(facts, &route.matcher.path)) {
                    Ok(rewritten) => *path = rewritten.into_owned(),
                    Err(_) => self.explain("rewrite", Some(&transform.rule), "left out: no path", Vec::new()),
                }
            }
        }
        target
    }

    /// The request without those parameters that the key of its answer leaves out: by them one client would choose what others
    /// get. `None` where the key leaves out nothing, or where the answer is kept for nobody.
    fn keyed(&self) -> Option<Facts> {
        let policy = self.lookup.as_ref().and_then(|_| self.cache_policy())?;
        if policy.query == KeyPart::All {
            return None;
        }
        let query = query_part(policy, self.facts.query.as_deref());
        (query != self.facts.query).then(|| Facts { query, ..self.facts.clone() })
    }
}

/// The last sharing of the route's transforms that is for the request which the browser means: as replies have it.
fn cors_of(rules: &Compiled, route: usize, inputs: &Inputs<'_>) -> Option<(RuleRef, Cors)> {
    let mut transforms =
        rules.transforms(Some(route)).rev().filter(|transform| transform.is_for(inputs) == Ok(true));
    transforms.find_map(|transform| Some((transform.rule.clone(), transform.cors.clone()?)))
}
