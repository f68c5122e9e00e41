//! The security policies of a tenant and of its routes, one after the other. One that looks into the body has its
//! beginning read first, once an exchange.

use std::sync::Arc;

use super::{Exchange, Waiting};
use crate::compiled::Compiled;
use crate::decision::Outcome;
use crate::limits::PEEK_BYTES_MAX;
use crate::node::Node;
use crate::policy::security::{Sample, Security};
use crate::problem::Problem;
use crate::step::{Peeked, Step};

/// Whose policies are asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Guard {
    Tenant,
    Route,
}

/// What policies say of a request.
pub(super) enum Secured {
    Passed,
    Refused(Problem),
    /// The one at this place has to look into the body.
    NeedsBody(usize),
}

impl Exchange {
    /// Asks the policies of a guard from this place on, then goes on behind it.
    pub(super) fn guarded(
        &mut self,
        node: &mut Node,
        rules: &Arc<Compiled>,
        guard: Guard,
        from: usize,
    ) -> Step {
        let policies = match guard {
            Guard::Tenant => &rules.ruleset.tenant.security[..],
            Guard::Route => rules.route(self.route).map_or(&[][..], |route| &route.security),
        };
        match (self.secure(node, rules, policies, from), guard) {
            (Secured::Refused(problem), _) => self.refuse(node, problem, Outcome::Denied),
            (Secured::NeedsBody(at), _) => {
                // As much as any policy wants: one of the route may ask for more than the tenant's.
                let wanted = rules.ruleset.security.iter().filter_map(Security::body_bytes_max).max();
                let bytes_max = wanted.unwrap_or_default().min(PEEK_BYTES_MAX);
                self.wait(Waiting::Peek(guard, at), Step::Peek { bytes_max })
            }
            (Secured::Passed, Guard::Tenant) => self.find_route(node, rules),
            (Secured::Passed, Guard::Route) => {
                self.sample = Sample::default();
                self.enter_route(node, rules)
            }
        }
    }

    /// Takes the beginning of the body, and goes on with the policy that needs it.
    pub(super) fn peeked(
        &mut self,
        node: &mut Node,
        (guard, at): (Guard, usize),
        peeked: Option<Peeked>,
    ) -> Step {
        self.sample = peeked.map_or(Sample::Missing, Sample::Begun);
        match self.rules.clone() {
            Some(rules) => self.guarded(node, &rules, guard, at),
            None => self.fail_internally(node, "no rules to go on with"),
        }
    }

    /// The first refusal of these policies, in order. A policy that only notes is written down, and the next is asked.
    pub(super) fn secure(
        &mut self,
        node: &mut Node,
        rules: &Compiled,
        policies: &[usize],
        from: usize,
    ) -> Secured {
        for (at, number) in policies.iter().enumerate().skip(from) {
            let Some(policy) = rules.ruleset.security.get(*number).filter(|policy| !policy.is_off()) else {
                continue;
            };
            let inspection = policy.inspect(&self.facts, &self.sample, &mut node.names, self.now_ms);
            if inspection.needs_body {
                return Secured::NeedsBody(at);
            }
            self.unlimited |= inspection.is_unlimited;
            if inspection.hits.is_empty() {
                self.explain("security", Some(&policy.rule), "passed", inspection.inputs);
            }
            for hit in inspection.hits {
                let verb = if hit.blocks { "denied" } else { "noted" };
                self.explain("security", Some(&policy.rule), format!("{verb}: {}", hit.what), hit.inputs);
                if hit.blocks {
                    let refusal = hit.refusal;
                    return Secured::Refused(Problem::new(refusal.status, refusal.slug, refusal.title));
                }
            }
        }
        Secured::Passed
    }
}
