//! The cache's part: look up, serve, revalidate.

use std::fmt::Display;
use std::sync::Arc;

use super::{Exchange, Waiting};
use crate::compiled::Compiled;
use crate::decision::Outcome;
use crate::expr::{Fault, Inputs};
use crate::facts::Facts;
use crate::node::Node;
use crate::policy::cache::{self, Begin, CacheStatus, Found, Fwd, Keying, Serve, Store};
use crate::policy::route::method_matches;
use crate::problem::Problem;
use crate::ruleset::{CachePolicy, Route};
use crate::step::{After, Entry, Step};

impl Exchange {
    pub(super) fn cache_policy(&self) -> Option<&CachePolicy> {
        let number = self.route()?.cache?;
        self.rules.as_ref()?.ruleset.caches.get(number)
    }

    fn subject(&self) -> cache::Subject<'_> {
        cache::Subject {
            tenant: self.tenant.as_deref().unwrap_or_default(),
            route: self.rules.as_ref().map_or("", |rules| rules.mark(self.route)),
            rewrites: &self.key_rewrites,
            facts: &self.facts,
            identity: self.identity.as_deref(),
            variants: &self.variants,
            values: &self.key_values,
            tells_language: self.tells_language(),
            positions: &self.session.positions,
        }
    }

    /// Whether the target is told the language of the client: in the signed context, or by a field that a rule sets for some
    /// clients.
    fn tells_language(&self) -> bool {
        let by_rules = |rules: &Arc<Compiled>| {
            let mut transforms = rules.transforms(self.route);
            transforms.any(|transform| transform.rewritten().next().is_some())
        };
        self.is_for_origin() || self.rules.as_ref().is_some_and(by_rules)
    }

    /// Looks the request up where the route's policy says so; then steering.
    pub(super) fn consult_cache(&mut self, node: &mut Node) -> Step {
        self.ask_for_whole();
        // What the canary answers is for those who go there, and not to be kept for others; a WebSocket is its client's alone.
        let Some(policy) = self.cache_policy().filter(|_| !self.canary && !self.web_socket) else {
            self.cache = Some(CacheStatus { fwd: Some(Fwd::Bypass), ..CacheStatus::default() });
            return self.steer(node);
        };
        let rule = policy.rule.clone();
        let inputs = self.inputs();
        let bypass = policy.bypass.as_ref().map_or(Ok(false), |bypass| bypass.holds(&inputs));
        let values = values(policy, &inputs);
        let rewrites = self.rules.as_ref().map(|rules| rewrites(rules, self.route, &inputs));
        let rewrites = rewrites.unwrap_or_default();
        // What can't be evaluated is the safe way: past the cache.
        let (bypass, values, fault) = match bypass.and_then(|bypass| Ok((bypass, values?))) {
            Ok((bypass, values)) => (bypass, values, None),
            Err(fault) => (true, Vec::new(), Some(fault)),
        };
        let subject = cache::Subject { values: &values, rewrites: &rewrites, ..self.subject() };
        let begun = cache::begin(policy, &subject, bypass);
        (self.key_values, self.key_rewrites) = (values, rewrites);
        match begun {
            Begin::Pass(status) => {
                let inputs = fault.map(|fault| ("bypass", fault.to_string())).into_iter().collect();
                self.explain("cache", Some(&rule), format!("passed by: {status}"), inputs);
                self.cache = Some(status);
                self.steer(node)
            }
            Begin::LookUp(lookup) => {
                let key = lookup.key().clone();
                self.lookup = Some(lookup);
                self.wait(Waiting::LookUp, Step::LookUp(key))
            }
        }
    }

    pub(super) fn found(&mut self, node: &mut Node, entry: Option<Entry>) -> Step {
        let Some(lookup) = &mut self.lookup else {
            return self.fail_internally(node, "nothing was looked up");
        };
        match lookup.found(entry, &self.facts.headers, &node.purges, self.now_ms) {
            Found::LookUp(key) => self.wait(Waiting::LookUp, Step::LookUp(key)),
            Found::Serve(mut serve) => {
                self.reused(&mut serve);
                self.serve(node, serve)
            }
            Found::Forward => {
                self.explain_cache("no answer stored");
                self.fetch(node)
            }
            Found::OnlyIfCached(status) => {
                self.explain_cache(format!("only-if-cached: {status}"));
                self.cache = Some(status);
                let problem = Problem::new(504, "only-if-cached", "No stored answer is at hand");
                self.refuse(node, problem, Outcome::Failed)
            }
        }
    }

    /// Answers with the entry found last.
    pub(super) fn serve(&mut self, node: &mut Node, serve: Serve) -> Step {
        self.explain_cache(serve.status_line.to_string());
        self.cache = Some(serve.status_line);
        self.served_bytes = serve.stored_bytes;
        self.confirms = serve.confirms;
        if serve.revalidate
            && !self.background
            && let Some(lookup) = &self.lookup
        {
            let (key, leads) = (lookup.key().clone(), lookup.place().clone());
            let mut background = self.revalidation();
            if node.fetches.begin_background(&leads, &background.id, self.now_ms) {
                background.collapse.leads = Some(leads);
                self.after.push(After::Run(Box::new(background), Box::new(Step::LookUp(key))));
            }
        }
        self.finish(node, serve.status, serve.headers, serve.body, Outcome::Cached)
    }

    /// An exchange that fetches anew what was just served, for nobody.
    fn revalidation(&self) -> Self {
        let mut facts = self.facts.clone();
        // Another decision, so that the origin does not take it for a replay of this one.
        facts.random = facts.random.map(|byte| !byte);
        Self {
            now_ms: self.now_ms,
            steps: 1,
            waiting: Waiting::LookUp,
            tenant: self.tenant.clone(),
            rules: self.rules.clone(),
            platform: self.platform.clone(),
            route: self.route,
            identity: self.identity.clone(),
            variants: self.variants.clone(),
            session: self.session.clone(),
            lookup: self.lookup.as_ref().map(|lookup| Box::new(lookup.revalidation())),
            background: true,
            ..Self::new(facts)
        }
    }

    pub(super) fn store(&mut self, store: Store) {
        let Store { key, entry, keep_ms, refresh } = store;
        self.after.push(After::Store { key, entry, keep_ms, refresh });
    }

    /// What the response to an unsafe request made stale.
    pub(super) fn invalidate(&mut self, node: &mut Node, head: &crate::step::ResponseHead) {
        let policy = self.cache_policy();
        let bypass = policy.and_then(|policy| policy.bypass.as_ref()).filter(|_| self.facts.method == "POST");
        let bypass = bypass.is_some_and(|bypass| bypass.holds(&self.inputs()).unwrap_or(true));
        let is_too_large =
            head.body_bytes().is_some_and(|bytes| bytes > node.content_bytes_max(&head.headers));
        // What the canary answers is not for others.
        let may_store = !self.canary && !bypass && !is_too_large;
        let keyings = |path: &str, query: Option<&str>| self.keyings(path, query);
        let policy = policy.filter(|_| may_store);
        let invalidation = cache::invalidate(&self.subject(), policy, &keyings, head, self.now_ms);
        // Where nothing is ever stored, nothing gets stale.
        let stores = self.rules.as_ref().is_some_and(|rules| !rules.ruleset.caches.is_empty());
        for purge in invalidation.purges.iter().filter(|_| stores) {
            node.purges.mark(purge);
        }
        if !invalidation.forget.is_empty() {
            self.after.push(After::Forget(invalidation.forget));
        }
        if let Some(store) = invalidation.store {
            self.store(store);
            if let Some(status) = &mut self.cache {
                status.stored = true;
            }
        }
    }

    /// How the routes that store answers of `GET` for a path and query of this host make the keys of who sent this request.
    /// A value that can't be had for it leaves a route out: then there is nothing stored of theirs.
    fn keyings(&self, path: &str, query: Option<&str>) -> Vec<Keying<'_>> {
        let Some(rules) = &self.rules else { return Vec::new() };
        let stores = |number: usize| {
            let route = rules.route(Some(number))?;
            let policy = rules.ruleset.caches.get(route.cache?)?;
            method_matches(&route.matcher.methods, "GET").then_some((number, route, policy))
        };
        let covering = rules.routes.covering(&self.facts.host, path);
        let mut stores = covering.filter_map(stores).peekable();
        if stores.peek().is_none() {
            return Vec::new();
        }
        let (method, query) = ("GET".to_owned(), query.map(str::to_owned));
        let asked = Facts { method, path: path.to_owned(), query, ..self.facts.clone() };
        let keying = |(number, route, policy): (usize, &Route, _)| {
            let inputs = Inputs { facts: &asked, path: Some(&route.matcher.path), ..self.inputs() };
            let values = values(policy, &inputs).ok()?;
            let rewrites = rewrites(rules, Some(number), &inputs);
            Some(Keying { policy, route: rules.mark(Some(number)), rewrites, values })
        };
        stores.filter_map(keying).collect()
    }

    pub(super) fn explain_cache(&mut self, outcome: impl Display) {
        let rules = self.rules.clone();
        let policy =
            rules.as_ref().and_then(|rules| rules.ruleset.caches.get(rules.route(self.route)?.cache?));
        self.explain("cache", policy.map(|policy| &policy.rule), outcome, Vec::new());
    }
}

/// Values of a policy's expressions, for the key.
fn values(policy: &CachePolicy, inputs: &Inputs<'_>) -> Result<Vec<Option<String>>, Fault> {
    policy.values.iter().map(|value| value.evaluate(inputs)?.into_text()).collect()
}

/// Names of the rewrites of a route that are for this request and not for every one, for the key: where a request goes follows
/// from them and its URL.
fn rewrites(rules: &Compiled, route: Option<usize>, inputs: &Inputs<'_>) -> Vec<Arc<str>> {
    let conditional =
        rules.transforms(route).filter(|transform| transform.rewrite.is_some() && transform.when.is_some());
    let applied = conditional.filter(|transform| transform.is_for(inputs) == Ok(true));
    applied.map(|transform| Arc::clone(&transform.rule.name)).collect()
}
