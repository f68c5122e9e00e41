//! Where the request goes, and where it goes next when that fails.

use std::borrow::Cow;
use std::sync::Arc;

use super::Exchange;
use super::attempt::Attempt;
use super::resolve::not_ready;
use crate::decision::Outcome;
use crate::expr::Inputs;
use crate::facts::{BodySize, Scheme};
use crate::headers::{Headers, is_one_variable};
use crate::limits::REPLAY_BODY_BYTES_MAX;
use crate::node::{Fetched, Node};
use crate::policy::cache::{Arrival, VARY_REWRITTEN};
use crate::policy::request::{CDN_ID, forwards_left, is_grpc, is_own_cookie};
use crate::policy::steering::{Ask, Candidate, region_cookie, region_of_cookie};
use crate::policy::{personal, transform};
use crate::problem::Problem;
use crate::ruleset::{
    Affinity, CachePolicy, RegionId, RouteTarget, RuleRef, Transform, Upstream, UpstreamRef, UserSegment,
};
use crate::step::{After, ClientFault, ContextClaims, ForwardFault, Ran, ReplyBody, ResponseHead, Step};

/// About how many fields we add, and how long they are: room for them is made at once.
const OWN_FIELDS: usize = 11;
const OWN_FIELDS_BYTES: usize = 512;

/// Fields by which some frameworks answer to another method, path or host than those of the request. Of what may be kept, they
/// would poison the entry of that request.
const OVERRIDES: [&str; 8] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-host-override",
];

impl Exchange {
    /// The upstream that the rules name for the request.
    fn named_upstream(&self) -> Option<&UpstreamRef> {
        let route = self.route()?;
        match (&route.steering.canary, &route.target) {
            (Some(canary), _) if self.canary => Some(&canary.upstream),
            (_, RouteTarget::Upstream(upstream)) => Some(upstream),
            (_, RouteTarget::Origin) => None,
        }
    }

    /// Whether the request goes to the regions' own origins. One for an upstream never does, whether that is there or not.
    pub(super) fn is_for_origin(&self) -> bool {
        self.named_upstream().is_none()
    }

    /// The upstream that the request goes to; `None` for the regions' own origins, and where it is not there.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        let ruleset = &self.rules.as_ref()?.ruleset;
        match self.named_upstream()? {
            UpstreamRef::Own(number) => ruleset.upstreams.get(*number),
            UpstreamRef::Platform(name) => self.platform.as_ref()?.upstream(name, &ruleset.tenant.slug),
        }
    }

    /// Where the upstream stands in the tenant's rules. Where one of the platform stands in the platform's is no business of a
    /// tenant.
    pub(super) fn upstream_rule(&self) -> Option<RuleRef> {
        match self.named_upstream()? {
            UpstreamRef::Own(_) => self.upstream().map(|upstream| upstream.rule.clone()),
            UpstreamRef::Platform(_) => None,
        }
    }

    /// The region that the client is to stay at.
    fn sticky(&self, node: &Node) -> Option<&str> {
        let by_cookie = self.route()?.steering.affinity == Affinity::Cookie;
        let tenant = self.tenant.as_deref()?;
        by_cookie.then(|| region_of_cookie(&self.facts, &node.secrets.signing, tenant)).flatten()
    }

    /// Lets the client come back to the region that has answered.
    fn keep_at(&mut self, node: &Node, region: &RegionId) {
        let by_cookie = self.route().is_some_and(|route| route.steering.affinity == Affinity::Cookie);
        if by_cookie && !self.background && self.sticky(node) != Some(&**region) {
            let tenant = self.tenant.as_deref().unwrap_or_default();
            self.cookies.push(region_cookie(&self.facts, &node.secrets.signing, tenant, region));
        }
    }

    /// Plans the regions to try, then tries the first.
    pub(super) fn steer(&mut self, node: &mut Node) -> Step {
        if let Some((explanation, problem)) = self.not_forwardable() {
            self.explain("forward", None, explanation, Vec::new());
            return self.refuse(node, problem, Outcome::Denied);
        }
        let (Some(platform), Some(rules), Some(route)) = (&self.platform, &self.rules, self.route()) else {
            self.explain("steering", None, "no regions at hand", Vec::new());
            return self.without_response(node, None);
        };
        if let Some(missing) = self.named_upstream().filter(|_| self.upstream().is_none()).cloned() {
            return self.no_upstream(node, &missing);
        }
        let person = self.identity.as_ref().filter(|_| route.steering.affinity == Affinity::Subject);
        let person = person.and_then(|identity| identity.person());
        let ask = Ask {
            platform,
            tenant: &rules.ruleset.tenant,
            steering: &route.steering,
            facts: &self.facts,
            person: person.as_deref(),
            sticky: self.sticky(node),
            positions: &self.session.positions,
            upstream: self.upstream(),
        };
        let plan = node.regions.plan(&ask, self.now_ms);
        let rules = Arc::clone(rules);
        let rule = rules.route(self.route).map(|route| &route.rule);
        let explanation = match plan.candidates.first() {
            Some(first) => self.explanation.note("steering", rule, format_args!("{} first", first.region)),
            None => self.explanation.note("steering", rule, "no region left"),
        };
        explanation.with("order", plan.order());
        if let Some(country) = &self.facts.place.country {
            explanation.with("country", country);
        }
        let left_out = plan.left_out();
        if !left_out.is_empty() {
            explanation.with("excluded", left_out);
        }
        self.plan = plan;
        self.target = self.rewritten();
        self.attempt(node).unwrap_or_else(|| self.without_response(node, None))
    }

    /// What can't be forwarded whatever the rules say: the explanation, and what the client is told.
    fn not_forwardable(&self) -> Option<(&'static str, Problem)> {
        if self.web_socket && (self.is_for_origin() || self.function_call().is_some()) {
            let problem = Problem::new(501, "websocket-unsupported", "WebSockets go to upstreams alone");
            return Some(("denied: a WebSocket, which goes to upstreams alone", problem));
        }
        // Without the trailers that its status stands in, a call looks cut off, whatever came of it.
        if is_grpc(&self.facts.method, &self.facts.headers) {
            let problem = Problem::new(501, "grpc-unsupported", "gRPC does not pass this edge");
            return Some(("denied: gRPC, whose status stands in trailers, which end here", problem));
        }
        None
    }

    pub(super) fn url(&self, candidate: &Candidate) -> String {
        let base = candidate.base.trim_end_matches('/');
        let (path, query) = match &self.target {
            Some((path, query)) => (path, query),
            None => (&self.facts.path, &self.facts.query),
        };
        match query {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        }
    }

    pub(super) fn may_replay_body(&self) -> bool {
        match self.facts.body {
            BodySize::Empty => false,
            BodySize::Bytes(bytes) => bytes <= REPLAY_BODY_BYTES_MAX,
            BodySize::Unknown => true,
        }
    }

    pub(super) fn context(&self, attempt: u32) -> ContextClaims {
        ContextClaims {
            tenant: self.tenant.clone().unwrap_or_default(),
            identity: self.identity.clone(),
            country: self.facts.place.country.clone(),
            nearest: self.plan.nearest.clone(),
            client: self.client.clone(),
            variants: self.variants.clone(),
            attributes: attributes(&self.inputs()),
            decision: self.id.clone(),
            attempt,
            consistency: if self.session.token.is_some() { "session" } else { "eventual" },
            bundle: self.rules.as_ref().map(|rules| rules.bundle.clone()).unwrap_or_default(),
            issued_ms: self.now_ms,
        }
    }

    /// The request's fields as the target gets them: the client's, changed by the rules, then what only we may say.
    pub(super) fn forwarded_headers(&mut self, node: &Node) -> Headers {
        let to_origin = self.is_for_origin();
        let given = &self.facts.headers;
        let mut headers = Headers::default();
        headers.reserve(given.len() + OWN_FIELDS, given.text_bytes() + OWN_FIELDS_BYTES);
        let left = forwards_left(&self.facts.method, given).ok().flatten();
        for (name, value) in given.iter() {
            let goes_on = match name {
                "max-forwards" => left.is_none(),
                "host" | "content-length" | "expect" | "traceparent" | "meridian-session" => false,
                "tracestate" => self.trace.is_continued(),
                // Each connection has a handshake of its own, without the extensions of the other.
                "sec-websocket-key" | "sec-websocket-version" | "sec-websocket-extensions" => {
                    !self.web_socket
                }
                name if OVERRIDES.iter().any(|other| is_one_variable(other, name)) => !self.is_unkeyed(name),
                // The signed context says who it is; the token itself goes no further.
                "authorization" => !to_origin,
                _ => true,
            };
            if goes_on {
                headers.append(name, value);
            }
        }
        if let Some(left) = left {
            headers.append_display("max-forwards", left.saturating_sub(1));
        }
        strip_own_cookies(&mut headers);
        self.transform(false, &mut headers);
        for (name, value) in self.upstream().iter().flat_map(|upstream| &upstream.headers) {
            headers.retain(|other, _| !is_one_variable(other, name));
            headers.set(name.as_str(), value.as_str());
        }
        let client = &self.client;
        let scheme = match self.facts.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let host = &self.facts.host;
        headers.append_display("via", format_args!("1.1 meridian-{}", node.edge));
        headers.append("cdn-loop", CDN_ID);
        if self.facts.client.is_ipv6() {
            headers.append_display(
                "forwarded",
                format_args!("for=\"[{client}]\";host=\"{host}\";proto={scheme}"),
            );
        } else {
            headers.append_display("forwarded", format_args!("for={client};host=\"{host}\";proto={scheme}"));
        }
        headers.append("x-forwarded-for", client);
        headers.append("x-forwarded-host", host);
        headers.append("x-forwarded-proto", scheme);
        headers.append_display("traceparent", self.trace);
        if self.web_socket {
            headers.append("upgrade", "websocket");
        }
        if let Some(token) = self.session.token.as_ref().filter(|_| to_origin) {
            headers.append("meridian-session", token);
        }
        if let Some(lookup) = &mut self.lookup {
            lookup.condition(&mut headers);
        }
        headers
    }

    /// Whether the answer may be kept for others who do not send this field.
    fn is_unkeyed(&self, name: &str) -> bool {
        let is_key = |policy: &CachePolicy| policy.headers.iter().any(|header| is_one_variable(header, name));
        self.lookup.is_some() && !self.cache_policy().is_some_and(is_key)
    }

    fn is_preflight(&self) -> bool {
        transform::preflight_method(&self.facts).is_some()
    }

    /// Applies the transforms of the route to a request or (`response`) a reply.
    pub(super) fn transform(&mut self, response: bool, headers: &mut Headers) {
        let Some(rules) = self.rules.clone() else { return };
        for transform in rules.transforms(self.route) {
            let changes = if response { &transform.response } else { &transform.request };
            let does_more = response && (transform.security_headers || transform.cors.is_some());
            if changes.is_empty() && !does_more {
                continue;
            }
            let outcome = match transform.is_for(&self.inputs()) {
                Ok(false) => continue,
                Err(fault) => Cow::Owned(format!("left out: {fault}")),
                Ok(true) => {
                    if response && transform.security_headers {
                        transform::harden(self.facts.scheme, headers);
                    }
                    if let Some(cors) = transform.cors.as_ref().filter(|_| response && !self.is_preflight()) {
                        cors.apply(&self.facts, headers);
                    }
                    let left_out = transform::apply(changes, &self.inputs(), headers);
                    if left_out.is_empty() {
                        Cow::Borrowed("applied")
                    } else {
                        format!("applied but for {}", left_out.join("; ")).into()
                    }
                }
            };
            let side = if response { "response" } else { "request" };
            self.explanation.note("transform", Some(&transform.rule), outcome).with("side", side);
        }
    }

    /// A response is there: the cache takes what it may, the client gets it or something stored.
    pub(super) fn respond(&mut self, node: &mut Node, attempt: Attempt, mut head: ResponseHead) -> Step {
        let Attempt { candidate, requested_ms, .. } = attempt;
        if self.lookup.as_ref().is_some_and(|lookup| lookup.is_odd(head.status, &self.facts.headers)) {
            return self.without_response(node, Some(ForwardFault::Broken));
        }
        self.invalidate(node, &head);
        if let (Some(lookup), Some(policy)) = (&self.lookup, self.cache_policy()) {
            let transforms = self.rules.iter().flat_map(|rules| rules.transforms(self.route));
            let rewritten: Vec<&str> = transforms.flat_map(Transform::rewritten).collect();
            let responded = lookup.responded(&Arrival {
                policy,
                request: &self.facts.headers,
                rewritten: &rewritten,
                head: &head,
                journal: &node.purges,
                content_bytes_max: node.content_bytes_max(&head.headers),
                requested_ms,
                now_ms: self.now_ms,
            });
            if responded.is_other {
                return self.fetch_whole(node, candidate);
            }
            match responded.store {
                Some(store) => self.store(store),
                // What was purged on its way says nothing of what comes next.
                None if responded.status_line.detail == Some("purged") => {}
                None => self.collapse.fetched = Fetched::NotForOthers,
            }
            self.after.extend(responded.forget.map(|key| After::Forget(vec![key])));
            if let Some(serve) = responded.serve {
                if head.status == 304 {
                    self.region = Some(candidate.region);
                }
                return self.serve(node, serve);
            }
            if responded.status_line.detail == Some(VARY_REWRITTEN) {
                self.explain_cache("not stored: varies by a field that the edge writes");
            }
            self.cache = Some(responded.status_line);
        }
        if head.ran != Some(Ran::Answered) {
            self.keep_at(node, &candidate.region);
            self.region = Some(candidate.region);
        }
        if let Some(status) = &self.cache {
            head.headers.append_display("cache-status", status.field());
        }
        if head.status == 101 {
            head.headers.remove("sec-websocket-accept");
            head.headers.remove("sec-websocket-extensions");
        }
        self.finish(node, head.status, head.headers, ReplyBody::Forwarded, Outcome::Forwarded)
    }

    /// Forwards again, without the condition that brought a 304 about another response than the one stored.
    fn fetch_whole(&mut self, node: &mut Node, candidate: Candidate) -> Step {
        if let Some(lookup) = &mut self.lookup {
            lookup.disown();
        }
        self.explain_cache("304 about another response than the one stored: fetched anew");
        self.attempt_again(node, candidate).unwrap_or_else(|| self.without_response(node, None))
    }

    /// No attempt brought a response: something stale, or a problem.
    pub(super) fn without_response(&mut self, node: &mut Node, fault: Option<ForwardFault>) -> Step {
        if let Some(ForwardFault::Client(fault)) = fault {
            return self.refuse_body(node, fault);
        }
        let problem = match fault {
            Some(ForwardFault::Timeout) => {
                Problem::new(504, "target-timeout", "No region answered in time").header("retry-after", "1")
            }
            Some(ForwardFault::Function(_)) => {
                Problem::new(502, "function-failed", "The function on the way to the target failed")
            }
            Some(_) => {
                Problem::new(502, "target-unreachable", "No region could answer").header("retry-after", "1")
            }
            None if self.platform.is_none() => not_ready(),
            None if self.is_busy() => {
                Problem::new(503, "upstream-busy", "The upstream takes no more requests at once")
                    .header("retry-after", "1")
            }
            None => Problem::new(503, "no-region", "No region may answer now").header("retry-after", "1"),
        };
        self.stale_or(node, problem)
    }

    /// The rules name an upstream that is not there: as a rule one that the platform has not, or not for this tenant. Which of the
    /// two is told to nobody: names of what others use are none of a tenant's business.
    fn no_upstream(&mut self, node: &mut Node, missing: &UpstreamRef) -> Step {
        let (outcome, name) = match missing {
            UpstreamRef::Platform(name) => {
                ("the platform has no such upstream for this tenant", name.to_string())
            }
            UpstreamRef::Own(number) => ("the rules have no such upstream", number.to_string()),
        };
        self.explain("forward", None, outcome, vec![("upstream", name)]);
        let problem =
            Problem::new(503, "no-upstream", "The upstream is not there").header("retry-after", "1");
        self.stale_or(node, problem)
    }

    /// The client's body did not come whole: nothing that is stored answers such a request either. A status of 408 is that of
    /// RFC 9110, section 15.5.9.
    fn refuse_body(&mut self, node: &mut Node, fault: ClientFault) -> Step {
        self.collapse.fetched = Fetched::NotForOthers;
        let problem = match fault {
            ClientFault::BrokeOff => Problem::new(400, "body-broke-off", "The request's body broke off"),
            ClientFault::Paused => Problem::new(408, "body-too-slow", "The request's body came too slowly"),
        };
        self.refuse(node, problem, Outcome::Denied)
    }

    /// A response is longer than it may be: another region's would be too.
    pub(super) fn too_large(&mut self, node: &mut Node, head: &ResponseHead) -> Step {
        let rule = self.upstream_rule();
        let bytes_max = self.upstream().and_then(|upstream| upstream.response_bytes_max).unwrap_or_default();
        let inputs = vec![
            ("bytes", head.body_bytes().unwrap_or_default().to_string()),
            ("bytes_max", bytes_max.to_string()),
        ];
        self.explain("forward", rule.as_ref(), "response too large", inputs);
        let problem =
            Problem::new(502, "response-too-large", "The upstream's response is longer than it may be");
        self.stale_or(node, problem)
    }

    /// Something stale where a failure lets it be served, or a problem.
    fn stale_or(&mut self, node: &mut Node, problem: Problem) -> Step {
        // Nobody shall wait for one failure after the other.
        self.collapse.fetched = Fetched::NotForOthers;
        match self.lookup.as_ref().and_then(|lookup| lookup.failed(&self.facts.headers, self.now_ms)) {
            Some(serve) => self.serve(node, serve),
            None => self.refuse(node, problem, Outcome::Failed),
        }
    }
}

/// Takes the edge's own cookies out of what goes on.
fn strip_own_cookies(headers: &mut Headers) {
    if !headers.get_all("cookie").flat_map(|cookies| cookies.split(';')).any(is_own_cookie) {
        return;
    }
    let kept: Vec<&str> = headers
        .get_all("cookie")
        .flat_map(|cookies| cookies.split(';'))
        .map(str::trim)
        .filter(|pair| !pair.is_empty() && !is_own_cookie(pair))
        .collect();
    let kept = kept.join("; ");
    headers.remove("cookie");
    if !kept.is_empty() {
        headers.append("cookie", kept);
    }
}

/// What an origin may personalise by, by name.
fn attributes(inputs: &Inputs<'_>) -> Vec<(&'static str, Cow<'static, str>)> {
    let (place, headers) = (&inputs.facts.place, &inputs.facts.headers);
    // A segment whose condition can't be evaluated has nobody in it.
    let holds = |segment: &&UserSegment| segment.when.holds(&Inputs { segments: &[], ..*inputs }) == Ok(true);
    let held: Vec<&str> = inputs.segments.iter().filter(holds).map(|segment| &*segment.rule.name).collect();
    let segments = Some(held.join(",")).filter(|names| !names.is_empty());
    let owned = |text: &Option<String>| text.clone().map(Cow::Owned);
    [
        ("city", owned(&place.city)),
        ("continent", owned(&place.continent)),
        ("country", owned(&place.country)),
        ("device", Some(personal::device(headers).into())),
        ("language", personal::language(headers).map(Cow::Owned)),
        ("segments", segments.map(Cow::Owned)),
        ("subdivision", owned(&place.subdivision)),
        ("timezone", owned(&place.timezone)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
