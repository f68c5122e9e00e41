//! Functions around attempts: which one an attempt goes through, and what becomes of it where that fails.

use std::borrow::Cow;

use super::attempt::Attempt;
use super::{Exchange, Waiting};
use crate::facts::BodySize;
use crate::node::Node;
use crate::ruleset::{Fail, Function};
use crate::step::{ForwardFault, FunctionCall, FunctionFault, Ran, Step};

/// Letters of a component's SHA-256 in explanations.
const DIGEST_CHARS: usize = 16;

impl Exchange {
    fn function(&self) -> Option<&Function> {
        self.rules.as_ref()?.ruleset.functions.get(self.route()?.function?)
    }

    /// The function that the next attempt goes through.
    pub(super) fn function_call(&self) -> Option<Box<FunctionCall>> {
        let function = self.function().filter(|_| !self.attempts.without_function)?;
        Some(Box::new(FunctionCall {
            tenant: self.tenant.clone()?,
            name: function.rule.name.clone(),
            bundle: self.rules.as_ref()?.ruleset.version.hash.clone(),
            sha256: function.sha256.clone(),
            component_bytes: function.component_bytes,
            memory_bytes_max: function.memory_bytes_max,
            cpu_ms_max: function.cpu_ms_max,
            timeout_ms: function.timeout_ms,
        }))
    }

    /// Whether an attempt is made again without its function, should that fail.
    pub(super) fn fails_open(&self) -> bool {
        self.function().is_some_and(|function| function.fail == Fail::Open) && !self.attempts.without_function
    }

    /// Says what a function did with an attempt that brought a response.
    pub(super) fn explain_function(&mut self, attempt: &Attempt, ran: Ran) {
        let outcome = match ran {
            Ran::SentOn => "sent on",
            Ran::Answered => "answered by itself",
            Ran::Unseen => "ran",
        };
        self.note_function(attempt, outcome.into());
    }

    /// A function failed, which says nothing of the region. Where its rule lets it, and nobody saw the request, the same
    /// attempt is made without it.
    pub(super) fn function_failed(
        &mut self,
        node: &mut Node,
        attempt: Attempt,
        fault: FunctionFault,
    ) -> Step {
        let replayable = self.facts.body == BodySize::Empty || self.may_replay_body();
        let open = self.fails_open() && !fault.sent_on && replayable;
        let after = if fault.sent_on { " after it sent the request on" } else { "" };
        let then = if open { "; forwarded without it" } else { "" };
        self.note_function(&attempt, format!("failed: {}{after}{then}", fault.why.word()).into());
        if open {
            self.attempts.without_function = true;
            if let Some(step) = self.attempt_again(node, attempt.candidate) {
                return step;
            }
        }
        if !self.attempts.out.is_empty() {
            return self.wait(Waiting::Forward, Step::Await);
        }
        self.without_response(node, Some(ForwardFault::Function(fault)))
    }

    fn note_function(&mut self, attempt: &Attempt, outcome: Cow<'static, str>) {
        let Some(function) = self.function() else { return };
        let rule = function.rule.clone();
        let digest: String = function.sha256.chars().take(DIGEST_CHARS).collect();
        let inputs = vec![("attempt", attempt.number.to_string()), ("sha256", digest)];
        self.explain("function", Some(&rule), outcome, inputs);
    }
}
