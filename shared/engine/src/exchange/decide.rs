//! Whether the request may pass: security, route, auth, limits; and which variants it gets.

use std::fmt::Display;
use std::sync::Arc;

use super::collapse::pause_ms;
use super::secure::Guard;
use super::{Exchange, Waiting};
use crate::compiled::Compiled;
use crate::decision::Outcome;
use crate::explanation::Explanation;
use crate::facts::Facts;
use crate::limits::KEY_FETCH_LOST_MS;
use crate::node::Node;
use crate::policy::jwt::{Refusal, TokenError, Verdict, bearer, require_claims, require_scopes};
use crate::policy::rate_limit::{Denial, LimitCheck, LimitReport, LimitVerdict};
use crate::policy::route::Matched;
use crate::policy::steering::nearest;
use crate::problem::Problem;
use crate::ruleset::{Auth, Fail, LimitScope, RateLimit};
use crate::step::{ReplyBody, Step};

impl Exchange {
    /// Security of the tenant, the route, security of the route; then auth.
    pub(super) fn decide(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Step {
        self.guarded(node, rules, Guard::Tenant, 0)
    }

    /// Goes on behind the security of the tenant.
    pub(super) fn find_route(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Step {
        if let Some(step) = self.preflight(node, rules) {
            return step;
        }
        let mut faults = Vec::new();
        let matched = rules.routes.find(&rules.ruleset.routes, &self.inputs(), &mut faults);
        for fault in faults {
            self.explain("route", None, format!("no match: {fault}"), Vec::new());
        }
        let Facts { method, path, .. } = &self.facts;
        match matched {
            Matched::Route(number) => {
                self.route = Some(number);
                let rule = rules.route(self.route).map(|route| &route.rule);
                self.explanation.note("route", rule, "matched").with("method", method).with("path", path);
                self.begin_trace();
            }
            Matched::None => {
                self.explanation.note("route", None, "no route").with("method", method).with("path", path);
                let problem = Problem::new(404, "no-route", "There is nothing here");
                return self.refuse(node, problem, Outcome::Denied);
            }
            Matched::Methods(methods) => {
                let allow = methods.join(", ");
                let outcome = format_args!("method not allowed: {allow} would be");
                self.explanation.note("route", None, outcome).with("method", method).with("path", path);
                let problem = Problem::new(405, "method-not-allowed", "This method is not allowed here");
                return self.refuse(node, problem.header("allow", allow), Outcome::Denied);
            }
        }
        self.guarded(node, rules, Guard::Route, 0)
    }

    /// Goes on behind the security of the route.
    pub(super) fn enter_route(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Step {
        match self.redirect(node, rules) {
            Some(step) => step,
            None => self.token_of_request(node),
        }
    }

    fn token_of_request(&mut self, node: &mut Node) -> Step {
        let Some(route) = self.route() else {
            return self.fail_internally(node, "no route to authorise for");
        };
        let (anonymous, optional) = (route.auth == Auth::Anonymous, route.auth == Auth::Optional);
        if anonymous {
            self.explain_auth("anonymous");
            return self.check_limits(node);
        }
        match bearer(&self.facts.headers) {
            Ok(Some(_)) => {
                self.bears_token = true;
                self.authenticate(node)
            }
            Ok(None) if optional => {
                self.explain_auth("anonymous: no token");
                self.check_limits(node)
            }
            Ok(None) => self.refuse_token(node, &Refusal::missing()),
            Err(refusal) => self.refuse_token(node, &refusal),
        }
    }

    /// Asks the memory of tokens, as often as it needs something first.
    pub(super) fn authenticate(&mut self, node: &mut Node) -> Step {
        let (Some(rules), Ok(Some(token))) = (&self.rules, bearer(&self.facts.headers)) else {
            return self.fail_internally(node, "no token to check");
        };
        let has_waited = self.keys_waited_ms > 0;
        let verdict = node.tokens.poll(&rules.ruleset, token, has_waited, self.now_ms);
        self.judged(node, verdict)
    }

    pub(super) fn judged(&mut self, node: &mut Node, verdict: Verdict) -> Step {
        let identity = match verdict {
            Verdict::NeedKeys(ask) => return self.wait(Waiting::Keys(ask.clone()), Step::FetchKeys(ask)),
            Verdict::Wait => return self.wait_for_keys(node),
            Verdict::NeedSignature(verify, pending) => {
                return self.wait(Waiting::Signature(pending), Step::Verify(*verify));
            }
            Verdict::Refused(refusal) => return self.refuse_token(node, &refusal),
            Verdict::Valid(identity) => identity,
        };
        self.identity = Some(Arc::clone(&identity));
        if let Some(Auth::Required { scopes, when }) = self.route().map(|route| &route.auth) {
            let holds = || when.as_ref().map_or(Ok(true), |when| when.holds(&self.inputs()));
            if let Err(refusal) = require_scopes(&identity, scopes).and_then(|()| require_claims(holds())) {
                self.identity = None;
                return self.refuse_token(node, &refusal);
            }
        }
        self.explain_auth("verified").with("issuer", &identity.issuer);
        self.check_limits(node)
    }

    /// Pauses while another exchange fetches the keys, within bounds: shortly at first, and few times in all.
    fn wait_for_keys(&mut self, node: &mut Node) -> Step {
        if u64::from(self.keys_waited_ms) >= KEY_FETCH_LOST_MS {
            return self.refuse_token(node, &Refusal::keys_unavailable());
        }
        let ms = pause_ms(self.keys_waited_ms);
        self.keys_waited_ms += ms;
        self.wait(Waiting::KeysOfAnother, Step::Pause { ms })
    }

    /// Refuses the request because of its token, or lets it go on without an identity where the route does not refuse any, or
    /// not for that.
    fn refuse_token(&mut self, node: &mut Node, refusal: &Refusal) -> Step {
        let is_away = refusal.error == TokenError::KeysUnavailable;
        let lets_through = match self.route() {
            Some(route) if route.auth_shadow => Some("denied, in shadow"),
            Some(route) if is_away && route.auth_fail == Fail::Open => Some("passed without an identity"),
            _ => None,
        };
        if let Some(outcome) = lets_through {
            self.explain_auth(format_args!("{outcome}: {}", refusal.reason));
            return self.check_limits(node);
        }
        self.explain_auth(format_args!("denied: {}", refusal.reason));
        let status = refusal.status();
        let (slug, title) = match refusal.error {
            TokenError::Missing => ("token-missing", "A bearer token is needed"),
            TokenError::InvalidRequest => ("token-malformed", "The credentials are malformed"),
            TokenError::InvalidToken => ("token-invalid", "The token is not valid"),
            TokenError::InsufficientScope => ("scope-missing", "The token lacks a scope"),
            TokenError::KeysUnavailable => ("keys-unavailable", "The issuer's keys can't be had"),
        };
        let mut problem = Problem::new(status, slug, title);
        if let Some(challenge) = refusal.challenge(&self.facts.host) {
            problem = problem.header("www-authenticate", challenge);
        }
        if status == 503 {
            problem = problem.header("retry-after", "1");
        }
        let outcome = if status == 503 { Outcome::Failed } else { Outcome::Denied };
        self.refuse(node, problem, outcome)
    }

    fn explain_auth(&mut self, outcome: impl Display) -> &mut Explanation {
        let route = self.rules.as_ref().and_then(|rules| rules.route(self.route));
        self.explanation.note("auth", route.map(|route| &route.rule), outcome)
    }

    pub(super) fn check_limits(&mut self, node: &mut Node) -> Step {
        let Some(rules) = self.rules.clone() else {
            return self.fail_internally(node, "no rules to limit by");
        };
        let Some(route) = rules.route(self.route) else {
            return self.fail_internally(node, "no route to limit");
        };
        let tenant = &rules.ruleset.tenant;
        // A tenant may let a crawler past its own limits, not past those of its plan.
        let mut own = route.limits.as_slice();
        if self.unlimited && !own.is_empty() {
            own = &[];
            let none = if tenant.limits.is_empty() { "none" } else { "none but the plan's" };
            self.explain("limit", None, format_args!("{none}: a verified crawler"), Vec::new());
        }
        if own.is_empty() && tenant.limits.is_empty() {
            return self.within_limits(node);
        }
        let regions = self.platform.as_ref().map_or(&[][..], |platform| &platform.regions);
        let nearest = || nearest(regions, tenant, &self.facts.place).unwrap_or(&tenant.home_region);
        let (inputs, identity) = (self.inputs(), self.identity.as_deref());
        let check = LimitCheck::new(&rules.ruleset, own, &inputs, identity, nearest);
        let is_known = self.own_answer.is_none();
        let is_for_it = |limit: &RateLimit| is_known || limit.is_without_token();
        let check = check.only(|index| rules.ruleset.limits.get(index).is_some_and(is_for_it));
        self.limits = Some(check);
        self.limit(node)
    }

    /// Asks the limits, once more after the authority's answer.
    pub(super) fn limit(&mut self, node: &mut Node) -> Step {
        let Some(check) = &mut self.limits else {
            return self.fail_internally(node, "no limits to check");
        };
        match check.poll(&mut node.limits, &node.secrets.hashing, self.now_ms) {
            LimitVerdict::NeedTake(mut takes) => {
                let allowed = self.rules.iter().flat_map(|rules| &rules.ruleset.tenant.allowed_regions);
                for take in takes.iter_mut().filter(|take| take.scope == LimitScope::Region) {
                    take.others = allowed.clone().filter(|region| **region != take.region).cloned().collect();
                }
                self.wait(Waiting::Take, Step::Take(takes))
            }
            LimitVerdict::Passed(report) => {
                self.explain_limits(&report);
                self.report = report;
                self.within_limits(node)
            }
            LimitVerdict::Denied(report, denial) => {
                self.explain_limits(&report);
                self.report = report;
                self.refuse_limit(node, denial)
            }
        }
    }

    /// Goes on behind the limits, or ends with the answer that the rules give themselves.
    fn within_limits(&mut self, node: &mut Node) -> Step {
        match self.own_answer.take().or_else(|| self.last_answer()) {
            Some((status, headers)) => {
                self.finish(node, status, headers, ReplyBody::Empty, Outcome::Answered)
            }
            None => self.experiment(node),
        }
    }

    fn refuse_limit(&mut self, node: &mut Node, denial: Denial) -> Step {
        let mut problem = Problem::new(denial.status, "", denial.title);
        problem.kind = denial.problem_type.into();
        problem.violated = denial.violated;
        let problem = problem.header("retry-after", denial.retry_after_s.to_string());
        self.refuse(node, problem, Outcome::Limited)
    }

    fn explain_limits(&mut self, report: &LimitReport) {
        let Some(rules) = &self.rules else { return };
        for state in &report.limits {
            let limit = rules.ruleset.limits.get(state.index);
            let outcome = match (state.exceeded, state.away == Some(Fail::Closed), state.shadow) {
                (true, _, true) => "exceeded, in shadow",
                (true, _, false) => "exceeded",
                (false, true, true) => "denied, in shadow: the authority is away",
                (false, true, false) => "denied: the authority is away",
                (false, false, _) => "passed",
            };
            let explanation = self.explanation.note("limit", limit.map(|limit| &limit.rule), outcome);
            explanation.with("remaining", format_args!("{}/{}", state.remaining, state.quota));
            if state.exceeded {
                explanation.with("wait_ms", state.wait_ms);
            }
            if state.away.is_some() {
                explanation.with("authority", "away");
            }
        }
    }
}
