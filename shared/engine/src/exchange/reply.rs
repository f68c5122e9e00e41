//! The reply: what every client is told, and what is left to do after it.

use super::{Exchange, SESSION_COOKIE, Waiting};
use crate::decision::{Bytes, Decision, Outcome, Participation, Persons, personal_hash};
use crate::facts::{BodySize, Scheme};
use crate::headers::{Headers, is_field_value, joined};
use crate::limits::SESSION_BYTES_MAX;
use crate::node::{Node, SyncNeed};
use crate::policy::sampling::{self, Kept};
use crate::problem::Problem;
use crate::refusal::{problem_headers, say_who};
use crate::ruleset::{PageChanges, Personal, SHARE_ALL};
use crate::step::{After, Reply, ReplyBody, Step};

/// How long a client keeps its session token.
const SESSION_COOKIE_LIFE_S: u32 = 86_400;
/// About how many fields we add, and how long they are: room for them is made at once.
const OWN_FIELDS: usize = 12;
const OWN_FIELDS_BYTES: usize = 512;

impl Exchange {
    /// Replies with a problem.
    pub(super) fn refuse(&mut self, node: &mut Node, problem: Problem, outcome: Outcome) -> Step {
        let headers = problem_headers(&problem);
        let body = if self.facts.method == "HEAD" {
            ReplyBody::Empty
        } else {
            ReplyBody::Bytes(problem.body(&self.id))
        };
        self.finish(node, problem.status, headers, body, outcome)
    }

    /// Something that can't be went wrong here; the client is told no more.
    pub(super) fn fail_internally(&mut self, node: &mut Node, what: &'static str) -> Step {
        self.explain("exchange", None, format!("failed: {what}"), Vec::new());
        self.refuse(node, Problem::new(500, "internal", "The edge failed"), Outcome::Failed)
    }

    /// The reply, with what every client is told.
    pub(super) fn finish(
        &mut self,
        node: &mut Node,
        status: u16,
        mut headers: Headers,
        body: ReplyBody,
        outcome: Outcome,
    ) -> Step {
        self.waiting = Waiting::Nothing;
        let from_origin = body == ReplyBody::Forwarded && self.is_for_origin();
        let session = headers.get("meridian-session").filter(|token| from_origin && is_session(token));
        let session = session.map(str::to_owned);
        headers.retain(|name, _| !is_between_us(name));
        headers.reserve(OWN_FIELDS, OWN_FIELDS_BYTES);
        if !self.background {
            self.transform(true, &mut headers);
        }
        if node.recodes && !self.background {
            self.fit_recoded(&mut headers);
        }
        let (html, coding) = match self.background || status == 101 {
            true => (PageChanges::default(), None),
            false => self.rework(status, &mut headers, &body),
        };
        // What a target said has it already.
        if outcome != Outcome::Forwarded
            && let Some(status) = &self.cache
        {
            headers.append_display("cache-status", status.field());
        }
        let bundle = self.rules.as_ref().map(|rules| rules.bundle.clone());
        say_who(&mut headers, &self.id, self.region.as_deref(), bundle.as_deref());
        if !self.variants.is_empty() {
            let variants =
                joined(&self.variants, |f, (experiment, variant)| write!(f, "{experiment}={variant}"));
            headers.append_display("meridian-variant", variants);
        }
        headers.remove("traceparent");
        headers.append_display("traceparent", self.trace);
        self.report.write_headers(&mut headers);
        self.give_cookies(session, &mut headers);
        let participation = self.participated(status);
        let bytes = self.bytes(status, &headers, &body, !html.is_empty() || coding.is_some());
        let weight = self.weight(outcome, status, &participation);
        let persons = if weight > 0 { self.persons(node) } else { Persons::default() };
        let after = self.after(node, weight);
        let decision = Decision {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            bundle,
            route: self.route().map(|route| route.rule.name.clone()),
            outcome,
            status,
            region: self.region.clone(),
            subject: self.identity.as_ref().and_then(|identity| identity.subject.clone()),
            subject_hash: self.identity.as_ref().and_then(|identity| identity.subject_hash.clone()),
            variants: std::mem::take(&mut self.variants),
            participation,
            cache: self.cache.as_ref().map(ToString::to_string),
            bytes,
            persons,
            weight,
            trace: self.trace,
            waits: std::mem::take(&mut self.waits),
            explanation: std::mem::take(&mut self.explanation),
        };
        Step::Reply(Box::new(Reply { status, headers, body, html, coding, decision, after }))
    }

    /// The session token and the cookies that are the edge's own.
    fn give_cookies(&mut self, session: Option<String>, headers: &mut Headers) {
        if let Some(token) = session {
            let secure = if self.facts.scheme == Scheme::Https { "; Secure" } else { "" };
            headers.append(
                "set-cookie",
                format!(
                    "{SESSION_COOKIE}={token}; Path=/; Max-Age={SESSION_COOKIE_LIFE_S}; HttpOnly; \
                     SameSite=Lax{secure}"
                ),
            );
            headers.append("meridian-session", token);
        }
        for cookie in std::mem::take(&mut self.cookies) {
            headers.append("set-cookie", cookie);
        }
    }

    /// How long the bodies are. `is_reworked` is whether the host changes the reply's on its way out.
    fn bytes(&self, status: u16, headers: &Headers, body: &ReplyBody, is_reworked: bool) -> Bytes {
        let request = match self.facts.body {
            BodySize::Empty => Some(0),
            BodySize::Bytes(bytes) => Some(bytes),
            BodySize::Unknown => None,
        };
        // Of these a length in the head is that of a body that does not come (RFC 9110, section 8.6).
        let is_head = self.facts.method == "HEAD" || matches!(status, 204 | 304);
        let response = match body {
            _ if is_head => Some(0),
            ReplyBody::Empty => Some(0),
            _ if is_reworked => None,
            ReplyBody::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            ReplyBody::Cached => self.served_bytes,
            ReplyBody::CachedPart { bytes, .. } => Some(*bytes),
            ReplyBody::Forwarded => {
                headers.get("content-length").and_then(|length| length.trim().parse().ok())
            }
        };
        Bytes { request, response }
    }

    /// What is told of persons.
    fn persons(&self, node: &Node) -> Persons {
        let (rule, pattern) = match self.route() {
            Some(route) => (route.personal, Some(route.pattern.clone())),
            None => (Personal::default(), None),
        };
        let hash =
            |value| personal_hash(&node.secrets.hashing, self.tenant.as_deref().unwrap_or_default(), value);
        match rule {
            Personal::Keep | Personal::Drop => Persons { rule, path: pattern, client: None },
            Personal::Hash => Persons {
                rule,
                path: Some(pattern.unwrap_or_else(|| hash(self.facts.path.as_str()).into())),
                client: self.explanation.input("client").map(hash),
            },
        }
    }

    /// What is left to do once the reply is on its way.
    fn after(&mut self, node: &mut Node, weight: u32) -> Vec<After> {
        let mut after = std::mem::take(&mut self.after);
        self.end_fetch(node, &after);
        if self.background {
            return after;
        }
        if let Some(rules) = self.rules.as_ref().filter(|_| self.bears_token) {
            after.extend(node.tokens.due(&rules.ruleset, self.now_ms).into_iter().map(After::FetchKeys));
        }
        if node.sync_need(self.now_ms) != SyncNeed::None {
            after.push(After::Sync(node.ask_sync(self.now_ms)));
        }
        if weight > 0 {
            after.push(After::Log);
        }
        after
    }

    /// Follows a trace that begins here if the route's share says so.
    pub(super) fn begin_trace(&mut self) {
        let random = self.facts.random;
        let follows = self.route().is_some_and(|route| sampling::follow(&route.sampling, random));
        if follows && !self.trace.is_continued() {
            self.trace.sample();
        }
    }

    /// How many decisions the event of this one stands for; 0 where it is not written down.
    fn weight(&mut self, outcome: Outcome, status: u16, participation: &Participation) -> u32 {
        let Some(rules) = self.rules.clone().filter(|_| !self.background) else { return 1 };
        let Some(route) = rules.route(self.route).filter(|route| route.sampling.share < SHARE_ALL) else {
            return 1;
        };
        let rule = &route.sampling;
        let always = sampling::always(outcome, status, participation, self.trace.is_sampled());
        let (kept, why) =
            match (always, rule.when.as_ref().map_or(Ok(true), |when| when.holds(&self.inputs()))) {
                (Some(why), _) => (Kept::Whole, format!("kept: {why}")),
                (None, Err(fault)) => (Kept::Whole, format!("kept: {fault}")),
                (None, Ok(false)) => (Kept::Whole, "kept: not one to sample".to_owned()),
                (None, Ok(true)) => match sampling::keep(rule, self.facts.random) {
                    Kept::Out => (Kept::Out, "sampled out".to_owned()),
                    kept => (kept, format!("kept for {}", kept.weight())),
                },
            };
        self.explain("log", Some(&route.rule), why, Vec::new());
        kept.weight()
    }
}

/// What an origin tells the edge, not the client; and what only the edge itself may tell the client.
fn is_between_us(name: &str) -> bool {
    name.starts_with("meridian-") || matches!(name, "cache-tag" | "surrogate-key" | "surrogate-control")
}

/// Whether a session token can stand in a header field and in a cookie.
fn is_session(token: &str) -> bool {
    let odd = |byte: u8| matches!(byte, b' ' | b';' | b',' | b'"' | b'\\' | b'\t');
    !token.is_empty() && token.len() <= SESSION_BYTES_MAX && is_field_value(token) && !token.bytes().any(odd)
}
