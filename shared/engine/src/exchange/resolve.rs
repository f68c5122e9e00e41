//! From the host to the tenant's rules, fresh enough to decide by.

use std::sync::Arc;

use super::{Exchange, SESSION_COOKIE, Waiting};
use crate::compiled::{Compiled, Serves};
use crate::decision::Outcome;
use crate::facts::{Facts, cookie};
use crate::headers::is_field_value;
use crate::limits::{LOOPS_MAX, SESSION_BYTES_MAX, SESSION_POSITIONS_MAX};
use crate::node::{HostKnown, Node, SyncNeed};
use crate::policy::request::Malformed;
use crate::problem::Problem;
use crate::ruleset::TenantState;
use crate::step::{LoadKey, Loaded, Step};

impl Exchange {
    pub(super) fn refuse_malformed(&mut self, node: &mut Node, malformed: Malformed) -> Step {
        self.explain("request", None, format!("denied: {malformed}"), Vec::new());
        self.refuse(node, malformed.problem(), Outcome::Denied)
    }

    /// Nothing is asked for such a request, of an origin neither. Its status is the one that says so (RFC 5842, section 7.2).
    pub(super) fn refuse_loop(&mut self, node: &mut Node) -> Step {
        self.explain("request", None, "denied: it goes in a loop", Vec::new());
        let problem = Problem::new(508, "loop-detected", "The request goes in a loop");
        let detail = format!("it was forwarded from here {LOOPS_MAX} times already, as CDN-Loop says");
        self.refuse(node, problem.detail(detail), Outcome::Denied)
    }

    /// Asks for news when they are old, loads what is missing or newer, then decides by the last good rules.
    pub(super) fn resolve(&mut self, node: &mut Node) -> Step {
        if self.steps == 0 && node.sync_need(self.now_ms) == SyncNeed::First {
            let ask = node.ask_sync(self.now_ms);
            return self.wait(Waiting::Sync, Step::Sync(ask));
        }
        let look = node.look(&self.facts.host, self.now_ms);
        let mut keys = look.wanted;
        let client = self.facts.client;
        let unasked = self.is_unasked();
        keys.retain(|key| !(self.tried.contains(key) || unasked && matches!(key, LoadKey::Host(_))));
        for key in &mut keys {
            if let LoadKey::Host(host) = key
                && !node.may_ask_host(client, self.now_ms)
            {
                *key = LoadKey::StoredHost(std::mem::take(host));
            }
        }
        if !keys.is_empty() {
            self.tried.extend_from_slice(&keys);
            node.loading(&keys, self.now_ms);
            return self.wait(Waiting::Load(keys.clone()), Step::Load(keys));
        }
        self.settle(node, look.host, look.rules)
    }

    /// Whether no origin is asked whose the host is, since too many are asked for.
    fn is_unasked(&self) -> bool {
        self.tried.iter().any(|key| matches!(key, LoadKey::StoredHost(_)))
    }

    pub(super) fn loaded(&mut self, node: &mut Node, keys: &[LoadKey], loaded: Vec<Loaded>) -> Step {
        let mut loaded = loaded.into_iter();
        for key in keys {
            let answer = loaded.next().unwrap_or_else(|| Loaded::Unavailable("no answer".to_owned()));
            if let Err(fault) = node.loaded(key, answer, self.now_ms) {
                self.explain("bundle", None, format!("fault: {fault}"), Vec::new());
            }
        }
        self.resolve(node)
    }

    /// Takes the rules that this request is decided by; from here on they don't change any more.
    fn settle(&mut self, node: &mut Node, known: HostKnown, rules: Option<Arc<Compiled>>) -> Step {
        let host = &self.facts.host;
        let (tenant, rules) = match known {
            HostKnown::Tenant(tenant) => (Some(tenant), rules),
            HostKnown::No => {
                if self.is_unasked() {
                    self.explanation.note("host", None, "not asked for: too many are").with("host", host);
                }
                let tenant = node.host_before(host);
                let rules = tenant.as_deref().and_then(|slug| node.rules(slug));
                (tenant, rules)
            }
            HostKnown::Nobody => {
                self.explanation.note("host", None, "unknown").with("host", host);
                let problem = unknown_host(node);
                return self.refuse(node, problem, Outcome::Denied);
            }
        };
        self.tenant = tenant;
        self.platform = node.platform();
        let Some(rules) = rules else {
            self.explanation.note("host", None, "no rules at hand").with("host", host);
            return self.refuse(node, not_ready(), Outcome::Failed);
        };
        let slug = &rules.ruleset.tenant.slug;
        self.explanation.note("host", None, format_args!("tenant {slug}")).with("host", host);
        let serves = rules.serves(host);
        self.rules = Some(Arc::clone(&rules));
        match serves {
            Serves::Yes => self.admit(node, &rules),
            Serves::Unverified => {
                self.explain("host", None, "denied: the host is not verified", Vec::new());
                let title = "This host is not served before it is verified";
                let problem = Problem::new(node.unknown_host_status, "host-unverified", title);
                let detail = "whoever gave the tenant this name has yet to show that it is the tenant's";
                self.refuse(node, problem.detail(detail), Outcome::Denied)
            }
            Serves::No => {
                self.explain("host", None, "denied: the tenant's rules don't name the host", Vec::new());
                let problem = unknown_host(node);
                self.refuse(node, problem, Outcome::Denied)
            }
        }
    }

    fn admit(&mut self, node: &mut Node, rules: &Arc<Compiled>) -> Step {
        let tenant = &rules.ruleset.tenant;
        if tenant.state == TenantState::Active {
            return self.decide(node, rules);
        }
        match &tenant.suspended_by {
            Some(above) => {
                let outcome = format_args!("denied: the tenant is suspended, by {above} above it");
                self.explain("host", None, outcome, Vec::new());
            }
            None => self.explain("host", None, "denied: the tenant is suspended", Vec::new()),
        }
        let problem = Problem::new(403, "tenant-suspended", "This tenant is suspended");
        self.refuse(node, problem, Outcome::Denied)
    }
}

fn unknown_host(node: &Node) -> Problem {
    Problem::new(node.unknown_host_status, "unknown-host", "This host is not served here")
}

pub(super) fn not_ready() -> Problem {
    Problem::new(503, "not-ready", "The configuration is not at hand yet").header("retry-after", "1")
}

impl super::Session {
    /// The session token of a request: the header, or else the cookie. What is odd or too long counts as none.
    pub(super) fn of(facts: &Facts) -> Self {
        let token =
            facts.headers.get("meridian-session").or_else(|| cookie(&facts.headers, SESSION_COOKIE)).filter(
                |token| !token.is_empty() && token.len() <= SESSION_BYTES_MAX && is_field_value(token),
            );
        let positions = token.and_then(positions).unwrap_or_default();
        Self { token: token.map(str::to_owned), positions }
    }
}

/// What the payload of a token `s1.KID.PAYLOAD.MAC` says: `{"p": {ORDINAL: POSITION}}`.
fn positions(token: &str) -> Option<Vec<(u16, u64)>> {
    use base64::Engine;
    let mut parts = token.split('.');
    let payload = parts.next().filter(|version| *version == "s1").and_then(|_| parts.nth(1))?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let payload: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let positions = payload.get("p")?.as_object()?;
    let position = |(ordinal, position): (&String, &serde_json::Value)| {
        Some((ordinal.parse().ok()?, position.as_u64()?))
    };
    Some(positions.iter().take(SESSION_POSITIONS_MAX).filter_map(position).collect())
}
