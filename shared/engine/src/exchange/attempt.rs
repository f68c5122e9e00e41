//! Attempts to have a region answer: one after the other as long as they fail, and a second one beside the first where a route
//! hedges and the first takes its time. The first good answer wins, and what is still out then is given up.
//!
//! Where a region has several addresses, they are tried before the next region, but for the last attempt: that goes to another
//! region where one stands no worse, so that one that is gone as a whole loses nothing for it.

use super::{Exchange, Waiting};
use crate::explanation::Explanation;
use crate::facts::BodySize;
use crate::headers::Headers;
use crate::limits::{ATTEMPTS_MAX, HEDGE_AFTER_MS_MIN};
use crate::node::Node;
use crate::policy::cache::date_text;
use crate::policy::steering::{AttemptOutcome, Candidate, Connection, Standing};
use crate::ruleset::Hedge;
use crate::step::{ClientFault, Forward, ForwardFault, Permit, Ran, ResponseHead, Step};

/// The attempts of an exchange.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// How many were made.
    made: u32,
    /// Those that have not ended.
    pub(super) out: Vec<Attempt>,
    /// A second one was begun beside the first, or there was nowhere to.
    hedged: bool,
    /// A region was passed over: as many connections to it are in use as may be.
    busy: bool,
    /// The function failed, and attempts go without it from now on.
    pub(super) without_function: bool,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) candidate: Candidate,
    pub(super) requested_ms: u64,
}

impl Exchange {
    /// The next attempt, if there is a region for it and the retry budget allows it.
    pub(super) fn attempt(&mut self, node: &mut Node) -> Option<Step> {
        let number = self.attempts.made;
        if number >= self.attempts_max() {
            return None;
        }
        let connection = self.connection(node);
        // What the budget does not allow now stays for a later attempt.
        if !node.regions.attempt(self.tenant.as_ref()?, self.plan.candidates.first()?, number, self.now_ms) {
            self.explain("forward", None, "retry budget used up", Vec::new());
            return None;
        }
        let candidate = self.plan.take_next()?;
        Some(self.send(node, candidate, connection))
    }

    /// An attempt again of which nobody has seen anything, at the same region as far as there is a connection.
    pub(super) fn attempt_again(&mut self, node: &mut Node, candidate: Candidate) -> Option<Step> {
        self.plan.candidates.insert(0, candidate);
        let connection = self.connection(node);
        let candidate = self.plan.take_next()?;
        Some(self.send(node, candidate, connection))
    }

    /// How many attempts there may be. One that was not made, since its function failed, counts for nothing.
    fn attempts_max(&self) -> u32 {
        let of_route = self.route().map_or(1, |route| route.steering.attempts_max.clamp(1, ATTEMPTS_MAX));
        of_route + u32::from(self.attempts.without_function)
    }

    fn timeout_ms(&self) -> u32 {
        let of_route = self.route().map_or(0, |route| route.steering.timeout_ms);
        self.upstream().map_or(of_route, |upstream| upstream.timeout_ms.min(of_route))
    }

    /// Sends the request to this region.
    fn send(&mut self, node: &mut Node, candidate: Candidate, connection: Option<Connection>) -> Step {
        let timeout_ms = self.timeout_ms();
        let number = self.attempts.made;
        self.attempts.made += 1;
        let more = number + 1 < self.attempts_max() && !self.plan.candidates.is_empty();
        let patience_ms = self.patience_ms(node, &candidate).filter(|ms| more && *ms < timeout_ms);
        let forward = Forward {
            permit: Permit(()),
            attempt: number,
            region: Some(candidate.region.clone()),
            url: self.url(&candidate),
            method: self.facts.method.clone(),
            headers: self.forwarded_headers(node),
            sign: self.is_for_origin().then(|| Box::new(self.context(number))),
            function: self.function_call(),
            send_body: self.facts.body != BodySize::Empty && !self.background,
            keep_body: (more || self.fails_open()) && self.may_replay_body(),
            timeout_ms,
            connect_timeout_ms: self
                .upstream()
                .and_then(|upstream| upstream.connect_timeout_ms)
                .map_or(timeout_ms, |connect_ms| connect_ms.min(timeout_ms)),
            body_timeout_ms: self.upstream().and_then(|upstream| upstream.body_timeout_ms),
            response_bytes_max: self.upstream().and_then(|upstream| upstream.response_bytes_max),
            connection,
            patience_ms,
        };
        self.attempts.out.push(Attempt { number, candidate, requested_ms: self.now_ms });
        self.wait(Waiting::Forward, Step::Forward(Box::new(forward)))
    }

    /// A connection to the first of the regions that has one free, where their number is limited; those before it are
    /// passed over.
    fn connection(&mut self, node: &mut Node) -> Option<Connection> {
        let in_function_ms = self.function_call().map_or(0, |call| call.timeout_ms);
        let timeout_ms = self.timeout_ms().max(in_function_ms);
        let max = self.upstream()?.connections_max?;
        let (tenant, rule) = (self.tenant.clone()?, self.upstream_rule());
        while let Some(candidate) = self.plan.candidates.first() {
            if let Some(connection) = node.regions.connect(&tenant, candidate, max, timeout_ms, self.now_ms) {
                return Some(connection);
            }
            let inputs = vec![("region", candidate.region.to_string()), ("connections_max", max.to_string())];
            self.plan.candidates.remove(0);
            self.attempts.busy = true;
            self.explain("forward", rule.as_ref(), "passed over: all connections are in use", inputs);
        }
        None
    }

    /// Whether nothing was tried, for there was no connection to be had.
    pub(super) fn is_busy(&self) -> bool {
        self.attempts.busy && self.attempts.made == 0
    }

    /// How long an attempt may take before another one is made beside it. Only safe methods without a body are sent twice
    /// before the first has failed, and only to a region that is as well as the first.
    fn patience_ms(&self, node: &Node, candidate: &Candidate) -> Option<u32> {
        let hedge = self.route()?.steering.hedge?;
        let is_safe = matches!(self.facts.method.as_str(), "GET" | "HEAD" | "OPTIONS")
            && self.facts.body == BodySize::Empty
            && !self.background
            && !self.web_socket;
        let other = self.plan.elsewhere(&candidate.region);
        let has_other = other.is_some_and(|other| other.standing == Standing::Ready);
        if !is_safe || !has_other || self.attempts.hedged {
            return None;
        }
        match hedge {
            Hedge::After(ms) => Some(ms),
            Hedge::Percentile95 => Some(node.regions.percentile_95_ms(candidate)?.max(HEDGE_AFTER_MS_MIN)),
        }
    }

    /// The attempt that is out takes its time: another one beside it.
    pub(super) fn slow(&mut self, node: &mut Node) -> Step {
        let Some(slow) = self.attempts.out.first() else {
            return self.fail_internally(node, "nothing was forwarded");
        };
        let waited_ms = self.now_ms.saturating_sub(slow.requested_ms).to_string();
        let inputs = vec![
            ("region", slow.candidate.region.to_string()),
            ("attempt", slow.number.to_string()),
            ("waited_ms", waited_ms),
        ];
        self.attempts.hedged = true;
        self.plan.prefer_elsewhere(&slow.candidate.region);
        self.explain("hedge", None, "no answer yet, another region is asked too", inputs);
        self.attempt(node).unwrap_or_else(|| self.wait(Waiting::Forward, Step::Await))
    }

    /// Takes the outcome of an attempt: wait for the other one, another attempt, a stale answer, or the reply.
    pub(super) fn forwarded(
        &mut self,
        node: &mut Node,
        number: u32,
        result: Result<ResponseHead, ForwardFault>,
    ) -> Step {
        let Some(at) = self.attempts.out.iter().position(|attempt| attempt.number == number) else {
            return self.fail_internally(node, "an answer to nothing that was forwarded");
        };
        let attempt = self.attempts.out.swap_remove(at);
        if let Err(ForwardFault::Function(fault)) = result {
            return self.function_failed(node, attempt, fault);
        }
        let result = result.and_then(|head| self.final_head(head));
        let ran = result.as_ref().ok().and_then(|head| head.ran);
        if let Some(ran) = ran {
            self.explain_function(&attempt, ran);
        }
        // What a function says by itself says nothing of the region.
        let answered = ran == Some(Ran::Answered);
        let behind = result.as_ref().ok().and_then(behind).filter(|_| !answered);
        let failed = match &result {
            Ok(head) => {
                let retry =
                    self.route().is_some_and(|route| route.steering.retry_statuses.contains(&head.status));
                retry && behind.is_none() && !answered
            }
            Err(_) => true,
        };
        // Then it is not the target that failed, and there is nothing to send to another one.
        let body_gone = matches!(result, Err(ForwardFault::BodyGone | ForwardFault::Client(_)));
        if let Some(tenant) = self.tenant.as_ref().filter(|_| !body_gone && !answered) {
            let took_all = self.now_ms.saturating_sub(attempt.requested_ms) >= u64::from(self.timeout_ms());
            let outcome = match &result {
                Ok(_) if !failed => AttemptOutcome::Answered,
                Err(ForwardFault::Connect | ForwardFault::Broken) if !took_all => AttemptOutcome::Failed,
                _ => AttemptOutcome::FailedRoute,
            };
            let elapsed_ms = result.as_ref().ok().map(|head| head.elapsed_ms);
            node.regions.record(tenant, &attempt.candidate, outcome, elapsed_ms, self.now_ms);
        }
        if !answered {
            self.explain_attempt(&attempt, &result, behind);
        }
        if failed || behind.is_some() {
            if let Some(source) = behind {
                self.plan.prefer_source(&attempt.candidate.region, source);
            }
            if !self.attempts.out.is_empty() {
                return self.wait(Waiting::Forward, Step::Await);
            }
            let safe = self.is_idempotent() || matches!(result, Err(ForwardFault::Connect));
            let replayable = self.facts.body == BodySize::Empty || self.may_replay_body();
            if self.attempts.made + 1 >= self.attempts_max() {
                self.plan.prefer_elsewhere(&attempt.candidate.region);
            }
            if safe
                && !body_gone
                && replayable
                && let Some(step) = self.attempt(node)
            {
                return step;
            }
        }
        self.give_up_others(node);
        match result {
            Ok(head) if self.is_too_large(&head) => self.too_large(node, &head),
            Ok(head) => self.respond(node, attempt, head),
            Err(fault) => self.without_response(node, Some(fault)),
        }
    }

    /// The head of a response as it goes on from here. Interim responses are the host's; one here means that the response never
    /// came.
    fn final_head(&self, mut head: ResponseHead) -> Result<ResponseHead, ForwardFault> {
        let is_final = (200..600).contains(&head.status) || (head.status == 101 && self.web_socket);
        if !is_final {
            return Err(ForwardFault::Broken);
        }
        head.headers.strip_hop_by_hop();
        say_length_once(&mut head.headers)?;
        // RFC 9110, section 6.6.1: for whoever gets it, now or from the cache.
        if head.headers.get("date").is_none() {
            head.headers.append("date", date_text(self.now_ms));
        }
        Ok(head)
    }

    /// Whether a response says that it is longer than its upstream's may be. To HEAD, and with a 304, that is not its own
    /// length (RFC 9110, section 8.6).
    fn is_too_large(&self, head: &ResponseHead) -> bool {
        let bytes_max = self.upstream().and_then(|upstream| upstream.response_bytes_max);
        let has_content = self.facts.method != "HEAD" && head.status != 304;
        has_content && bytes_max.is_some_and(|max| head.body_bytes().is_some_and(|bytes| bytes > max))
    }

    /// An answer that is none: what is out counts as broken.
    pub(super) fn broken(&mut self, node: &mut Node) -> Step {
        let number = self.attempts.out.first().map_or(0, |attempt| attempt.number);
        self.forwarded(node, number, Err(ForwardFault::Broken))
    }

    /// Gives up what is still out. That says nothing of the region's health, and of how fast it is only that its answer
    /// takes longer.
    fn give_up_others(&mut self, node: &mut Node) {
        for attempt in std::mem::take(&mut self.attempts.out) {
            let elapsed_ms = self.now_ms.saturating_sub(attempt.requested_ms);
            node.regions.given_up(&attempt.candidate, elapsed_ms, self.now_ms);
            let outcome = "given up: another region answered first";
            attempt.explain(self.explanation.note("forward", None, outcome));
        }
    }

    /// Whether sending it twice is as good as once (RFC 9110, section 9.2.2), or the client sees to that.
    fn is_idempotent(&self) -> bool {
        matches!(self.facts.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
            // Origins keep keys, and of POST only: another method with one, or another target, promises nothing.
            || (self.facts.method == "POST"
                && self.is_for_origin()
                && self.facts.headers.get("idempotency-key").is_some())
    }

    fn explain_attempt(
        &mut self,
        attempt: &Attempt,
        result: &Result<ResponseHead, ForwardFault>,
        behind: Option<u16>,
    ) {
        let explanation = &mut self.explanation;
        let explanation = match (result, behind) {
            (Ok(_), Some(source)) => {
                explanation.note("forward", None, format_args!("behind region {source}"))
            }
            (Ok(head), None) => explanation.note("forward", None, format_args!("status {}", head.status)),
            (Err(fault), _) => explanation.note(
                "forward",
                None,
                match fault {
                    ForwardFault::Connect => "no connection",
                    ForwardFault::Timeout => "no answer in time",
                    ForwardFault::Broken => "connection broke",
                    ForwardFault::BodyGone => "body not kept",
                    ForwardFault::Client(ClientFault::BrokeOff) => "the client's body broke off",
                    ForwardFault::Client(ClientFault::Paused) => "the client's body did not go on",
                    ForwardFault::Function(_) => "function failed",
                },
            ),
        };
        attempt.explain(explanation);
    }
}

impl Attempt {
    fn explain(&self, explanation: &mut Explanation) {
        let Self { number, candidate, .. } = self;
        explanation.with("region", &candidate.region).with("attempt", number);
        if let Some(number) = candidate.number {
            explanation.with("address", number);
        }
        if let Some(service) = &candidate.service {
            explanation.with("service", service);
        }
    }
}

/// A length that is said again is said once, as a reply with two is none that a host can send (RFC 9110, section 8.6); of two
/// lengths nobody knows which is right.
fn say_length_once(headers: &mut Headers) -> Result<(), ForwardFault> {
    let once = {
        let mut lengths = headers.get_all("content-length");
        let (Some(first), Some(second)) = (lengths.next(), lengths.next()) else { return Ok(()) };
        if second != first || lengths.any(|length| length != first) {
            return Err(ForwardFault::Broken);
        }
        first.to_owned()
    };
    headers.set("content-length", once);
    Ok(())
}

/// The region that a response says its own is behind of.
fn behind(head: &ResponseHead) -> Option<u16> {
    if head.status != 503 {
        return None;
    }
    head.headers.get("meridian-behind")?.trim().parse().ok()
}
