//! One request on its way through the pipeline, whose order is fixed: host → tenant; the tenant's security; route and
//! its security; auth; limits; experiments; cache lookup; steering; forward with failover; response transforms; cache
//! store; log.

mod answer;
mod attempt;
mod cache;
mod collapse;
mod content;
mod decide;
mod experiment;
mod forward;
mod function;
mod reply;
mod resolve;
mod secure;

use std::fmt::Display;
use std::sync::Arc;

use self::attempt::Attempts;
use self::collapse::Collapse;
use self::secure::Guard;
use crate::compiled::Compiled;
use crate::decision::{Participation, Wait, decision_id};
use crate::explanation::Explanation;
use crate::expr::Inputs;
use crate::facts::Facts;
use crate::headers::Headers;
use crate::limits::STEPS_MAX;
use crate::node::Node;
use crate::policy::cache::{CacheStatus, Lookup};
use crate::policy::jwt::{Identity, Pending};
use crate::policy::rate_limit::{LimitCheck, LimitReport};
pub use crate::policy::request::SESSION_COOKIE;
use crate::policy::request::{admit, asks_for_web_socket, is_looping};
use crate::policy::security::Sample;
use crate::policy::steering::Plan;
use crate::ruleset::{Platform, RegionId, Route, RuleRef};
use crate::step::{After, Answer, FetchFault, FetchKeys, LoadKey, Step};
use crate::trace::Trace;

/// One request on its way through the pipeline: begun with its facts, resumed with each answer, ended by a reply.
#[derive(Debug)]
pub struct Exchange {
    facts: Facts,
    /// The client's address as text.
    client: String,
    now_ms: u64,
    id: String,
    trace: Trace,
    steps: u32,
    waiting: Waiting,
    /// What was loaded or tried already: nothing is asked for twice.
    tried: Vec<LoadKey>,
    explanation: Explanation,
    /// Whose the host is.
    tenant: Option<Arc<str>>,
    rules: Option<Arc<Compiled>>,
    platform: Option<Arc<Platform>>,
    route: Option<usize>,
    /// What is at hand of the request's body, while policies may look into it.
    sample: Sample,
    /// A bearer token came with the request, and its route looks at it.
    bears_token: bool,
    /// How long keys that another exchange fetches were waited for.
    keys_waited_ms: u32,
    identity: Option<Arc<Identity>>,
    /// No limit is for who sent it.
    unlimited: bool,
    limits: Option<LimitCheck>,
    /// What the rules answer themselves once the limits let it pass: status and header fields.
    own_answer: Option<(u16, Headers)>,
    report: LimitReport,
    variants: Vec<(Arc<str>, Arc<str>)>,
    participation: Participation,
    cookies: Vec<String>,
    /// Goes to the route's canary.
    canary: bool,
    /// Values of the cache policy's expressions, for the key.
    key_values: Vec<Option<String>>,
    /// The rewrites that are for this request and not for every one of its route, for the key.
    key_rewrites: Vec<Arc<str>>,
    /// What the client said in `Accept-Encoding`, where the target is asked for something else.
    asked_codings: Option<String>,
    /// Length of the stored body that the reply has, if it has one and its length is known.
    served_bytes: Option<u64>,
    /// Of a 304 from the cache: the status that is stored, and the fields that describe the content, which does not come.
    confirms: Option<(u16, Headers)>,
    /// Path and query for the target, where they are others than the client's.
    target: Option<(String, Option<String>)>,
    session: Session,
    lookup: Option<Box<Lookup>>,
    cache: Option<CacheStatus>,
    collapse: Collapse,
    plan: Plan,
    attempts: Attempts,
    region: Option<RegionId>,
    after: Vec<After>,
    waits: Vec<Wait>,
    /// Answers nobody: a revalidation.
    background: bool,
    /// The connection is to become a WebSocket (RFC 6455).
    web_socket: bool,
}

/// What the client has seen, as its session token says.
#[derive(Clone, Debug, Default)]
struct Session {
    /// The token, as it came. The origin verifies it.
    token: Option<String>,
    /// What it says, unverified: a hint that can only cost its bearer a detour.
    positions: Vec<(u16, u64)>,
}

/// The step that is out.
#[derive(Debug)]
enum Waiting {
    Nothing,
    Sync,
    Load(Vec<LoadKey>),
    /// For the policy at this place among those of a guard.
    Peek(Guard, usize),
    Keys(FetchKeys),
    /// For a fetch of keys that another exchange has begun.
    KeysOfAnother,
    Signature(Box<Pending>),
    Take,
    LookUp,
    Pause,
    Forward,
}

impl Waiting {
    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Nothing => return None,
            Self::Sync => "sync",
            Self::Load(_) => "load",
            Self::Peek(..) => "peek",
            Self::Keys(_) | Self::KeysOfAnother => "keys",
            Self::Signature(_) => "signature",
            Self::Take => "take",
            Self::LookUp => "lookup",
            Self::Pause => "pause",
            Self::Forward => "forward",
        })
    }
}

impl Exchange {
    /// Begins an exchange and says what to do first.
    pub fn begin(node: &mut Node, mut facts: Facts) -> (Self, Step) {
        // Admitting takes out what says so.
        let web_socket = asks_for_web_socket(&facts.headers);
        let admitted = admit(&mut facts);
        let mut exchange = Self { web_socket, ..Self::new(facts) };
        let step = match admitted {
            Ok(()) if is_looping(&exchange.facts.headers) => exchange.refuse_loop(node),
            Ok(()) => exchange.resolve(node),
            Err(malformed) => exchange.refuse_malformed(node, malformed),
        };
        let step = exchange.counted(node, step);
        (exchange, step)
    }

    /// Takes the answer to the last step and says what to do next. An answer that does not fit the step counts as a
    /// failure of that step. `now_ms` is the time of the answer, in milliseconds since the Unix epoch.
    pub fn resume(&mut self, node: &mut Node, answer: Answer, now_ms: u64) -> Step {
        let asked_ms = self.now_ms;
        self.now_ms = asked_ms.max(now_ms);
        self.waited(asked_ms);
        let step = match (std::mem::replace(&mut self.waiting, Waiting::Nothing), answer) {
            (Waiting::Nothing, _) => self.fail_internally(node, "the exchange is over"),
            (Waiting::Sync, answer) => {
                node.synced(if let Answer::Synced(news) = answer { news } else { None }, self.now_ms);
                self.resolve(node)
            }
            (Waiting::Load(keys), Answer::Loaded(loaded)) => self.loaded(node, &keys, loaded),
            (Waiting::Load(keys), _) => self.loaded(node, &keys, Vec::new()),
            (Waiting::Peek(guard, at), answer) => self.peeked(
                node,
                (guard, at),
                if let Answer::Peeked(peeked) = answer { peeked } else { None },
            ),
            (Waiting::Keys(ask), answer) => {
                let keys = match answer {
                    Answer::Keys(keys) => keys,
                    _ => Err(FetchFault::Unreachable).into(),
                };
                node.tokens.keys_fetched(&ask, keys, self.now_ms);
                self.authenticate(node)
            }
            (Waiting::KeysOfAnother, _) => self.authenticate(node),
            (Waiting::Signature(pending), answer) => {
                let right = matches!(answer, Answer::Verified(true));
                let verdict = node.tokens.verified(*pending, right, self.now_ms);
                self.judged(node, verdict)
            }
            (Waiting::Take, answer) => {
                let leases = if let Answer::Taken(leases) = answer { leases } else { Vec::new() };
                if let Some(check) = &mut self.limits {
                    check.taken(&mut node.limits, &leases, self.now_ms);
                }
                self.limit(node)
            }
            (Waiting::LookUp, answer) => {
                self.found(node, if let Answer::Found(entry) = answer { entry } else { None })
            }
            (Waiting::Pause, _) => self.paused(node),
            (Waiting::Forward, Answer::Slow) => self.slow(node),
            (Waiting::Forward, Answer::Forwarded { attempt, result }) => {
                self.forwarded(node, attempt, result)
            }
            (Waiting::Forward, _) => self.broken(node),
        };
        self.counted(node, step)
    }

    /// Whether this exchange answers nobody: its reply's body is to be read to its end and dropped.
    #[must_use]
    pub fn is_background(&self) -> bool {
        self.background
    }

    fn new(facts: Facts) -> Self {
        Self {
            now_ms: facts.now_ms,
            id: decision_id(facts.now_ms, facts.random),
            trace: Trace::of(&facts.headers, facts.random),
            client: facts.client.to_string(),
            session: Session::of(&facts),
            facts,
            steps: 0,
            waiting: Waiting::Nothing,
            tried: Vec::new(),
            explanation: Explanation::default(),
            tenant: None,
            rules: None,
            platform: None,
            route: None,
            sample: Sample::default(),
            bears_token: false,
            keys_waited_ms: 0,
            identity: None,
            unlimited: false,
            limits: None,
            own_answer: None,
            report: LimitReport::default(),
            variants: Vec::new(),
            participation: Participation::default(),
            cookies: Vec::new(),
            canary: false,
            key_values: Vec::new(),
            key_rewrites: Vec::new(),
            asked_codings: None,
            served_bytes: None,
            confirms: None,
            target: None,
            lookup: None,
            cache: None,
            collapse: Collapse::default(),
            plan: Plan::default(),
            attempts: Attempts::default(),
            region: None,
            after: Vec::new(),
            waits: Vec::new(),
            background: false,
            web_socket: false,
        }
    }

    /// Every step counts; an exchange that does not come to an end is ended.
    fn counted(&mut self, node: &mut Node, step: Step) -> Step {
        self.steps += 1;
        if self.steps >= STEPS_MAX && !matches!(step, Step::Reply(_)) {
            self.waiting = Waiting::Nothing;
            return self.fail_internally(node, "too many steps");
        }
        step
    }

    /// Notes what was waited for since `asked_ms`.
    fn waited(&mut self, asked_ms: u64) {
        let short = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        let ms = short(self.now_ms.saturating_sub(asked_ms));
        if let Some(what) = self.waiting.name().filter(|_| ms > 0) {
            let after_ms = short(asked_ms.saturating_sub(self.facts.now_ms));
            self.waits.push(Wait { what, after_ms, ms });
        }
    }

    fn wait(&mut self, waiting: Waiting, step: Step) -> Step {
        self.waiting = waiting;
        step
    }

    /// What conditions may look at by now.
    fn inputs(&self) -> Inputs<'_> {
        let identity = self.identity.as_deref();
        Inputs {
            facts: &self.facts,
            tenant: self.tenant.as_deref().unwrap_or_default(),
            parent: self.rules.as_ref().and_then(|rules| rules.ruleset.tenant.parent.as_deref()),
            path: self.route().map(|route| &route.matcher.path),
            subject: identity.and_then(|identity| identity.subject.as_deref()),
            scopes: identity.map_or(&[], |identity| &identity.scopes),
            claims: identity.map(|identity| &identity.claims),
            variants: &self.variants,
            segments: self.rules.as_ref().map_or(&[], |rules| &rules.ruleset.segments),
        }
    }

    fn route(&self) -> Option<&Route> {
        self.rules.as_ref()?.route(self.route)
    }

    /// Adds a stage to the explanation. What most requests come by is noted without texts of its own, straight in the
    /// [`Explanation`].
    fn explain(
        &mut self,
        stage: &'static str,
        rule: Option<&RuleRef>,
        outcome: impl Display,
        inputs: Vec<(&'static str, String)>,
    ) {
        let explanation = self.explanation.note(stage, rule, outcome);
        for (name, value) in inputs {
            explanation.with(name, value);
        }
    }
}

#[cfg(test)]
mod tests;
