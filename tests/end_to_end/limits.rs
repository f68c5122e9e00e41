//! Limits that an authority keeps, asked by many at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use meridian_engine::policy::rate_limit::passed_max;
use meridian_engine::ruleset::{Cost, Fail, LimitAlgorithm, LimitKey, LimitScope, Mode, RateLimit, RuleRef};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;

use crate::EdgeTest;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("lets_through_no_more_than_the_engine_says", lets_through_no_more_than_the_engine_says),
    ("counts_a_request_that_costs_millions", counts_a_request_that_costs_millions),
];

/// Clients near each region that ask at the same time, how often each does at the least, and for how long.
const CLIENTS: usize = 8;
const REQUESTS_MIN: usize = 40;
/// Longer than a lease of the window lives, so that units lapse and others come back.
const FLOOD: Duration = Duration::from_secs(5);
const QUOTA: u32 = 160;
const WINDOW: Duration = Duration::from_secs(20);
/// Units of every second request; the others cost 1.
const DEAR: u32 = 5;
/// What instances may hold of the quota and not spend: a lease is at most a 32nd of what is left, and there are few.
const LEFT_OVER: u32 = QUOTA / 4;

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];

/// A request that passed: when it was sent and answered, in milliseconds since the flood began, and what it cost.
struct Pass {
    sent_ms: u64,
    answered_ms: u64,
    cost: u32,
}

/// In no time does more pass than [`passed_max`], whoever asks and whatever it costs. Of a limit by region, an edge whose
/// nearest authority does not answer asks the next one, so that the bound is that of all of them. A global limit has one
/// authority.
fn lets_through_no_more_than_the_engine_says(stack: &Stack, edge: &str) -> Result<()> {
    let limits = [
        (LimitScope::Region, LimitAlgorithm::Gcra),
        (LimitScope::Region, LimitAlgorithm::SlidingWindow),
        (LimitScope::Global, LimitAlgorithm::Gcra),
        (LimitScope::Global, LimitAlgorithm::SlidingWindow),
    ]
    .map(|(scope, algorithm)| limit(scope, algorithm));
    with_rules(stack, edge, &limits.iter().map(written).collect::<String>(), |url| {
        for limit in &limits {
            let authorities = if limit.scope == LimitScope::Global { 1 } else { REGIONS.len() as u32 };
            let (passes, asked) = flood(stack, url, &limit.rule.name)?;
            let name = &limit.rule.name;
            let ended_ms = passes.iter().map(|pass| pass.answered_ms).max().unwrap_or_default();
            let bound = passed_max(limit, authorities, ended_ms);
            ensure!(asked > bound, "{name}: {asked} units were asked for, too few to exceed {bound}");
            let passed: u64 = passes.iter().map(|pass| u64::from(pass.cost)).sum();
            let expected = u64::from(authorities * (QUOTA - LEFT_OVER));
            ensure!(passed >= expected, "{name}: {passed} units passed, {expected} or more should have");
            within_bound(limit, authorities, &passes)?;
        }
        Ok(())
    })
}

fn limit(scope: LimitScope, algorithm: LimitAlgorithm) -> RateLimit {
    let by = if scope == LimitScope::Global { "global" } else { "region" };
    let how = if algorithm == LimitAlgorithm::Gcra { "gcra" } else { "slides" };
    let name = format!("{by}-{how}").into();
    RateLimit {
        rule: RuleRef { kind: "RateLimit", name, file: "upstream.yaml".into(), line: 1 },
        key: vec![LimitKey::Tenant],
        algorithm,
        quota: QUOTA,
        window_ms: WINDOW.as_secs() * 1_000,
        burst: QUOTA,
        cost: Cost::Units(DEAR),
        scope,
        fail: Fail::Closed,
        mode: Mode::Block,
    }
}

/// The limit as a document, with a route of its name.
fn written(limit: &RateLimit) -> String {
    let name = &limit.rule.name;
    let scope = if limit.scope == LimitScope::Global { "global" } else { "region" };
    let algorithm = if limit.algorithm == LimitAlgorithm::Gcra { "gcra" } else { "slidingWindow" };
    format!(
        "---\napiVersion: meridian/v1\nkind: RateLimit\nmetadata: {{name: {name}}}\n\
         spec:\n  {{key: [tenant], quota: {QUOTA}, window: {}s, scope: {scope}, algorithm: {algorithm}, fail: closed,\n  \
         cost: {{cel: 'request.query.contains(\"dear\") ? {DEAR} : 1'}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: {name}}}\n\
         spec: {{match: {{path: /{name}}}, auth: {{mode: anonymous}}, limits: [{name}], upstream: own}}\n",
        WINDOW.as_secs()
    )
}

/// Asks from near every region with all clients at once: what passed, and how many units were asked for.
fn flood(stack: &Stack, url: &str, name: &str) -> Result<(Vec<Pass>, u64)> {
    let up = stack.up()?;
    let started = Instant::now();
    let mut threads = Vec::new();
    for region in REGIONS {
        let client = Client::new(url, "acme.localhost").from(up.address_near(region)?);
        for _ in 0..CLIENTS {
            let (client, name) = (client.clone(), name.to_owned());
            threads.push(std::thread::spawn(move || ask(&client, &name, started)));
        }
    }
    let (mut passes, mut asked) = (Vec::new(), 0);
    for thread in threads {
        let (passed, units) = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        passes.extend(passed);
        asked += units;
    }
    Ok((passes, asked))
}

/// One client of the flood.
fn ask(client: &Client, name: &str, started: Instant) -> Result<(Vec<Pass>, u64)> {
    let since_ms = || u64::try_from(started.elapsed().as_millis());
    let (mut passes, mut asked, mut count) = (Vec::new(), 0, 0);
    while count < REQUESTS_MIN || started.elapsed() < FLOOD {
        let (path, cost) = match count % 2 {
            0 => (format!("/{name}"), 1),
            _ => (format!("/{name}?dear"), DEAR),
        };
        let sent_ms = since_ms()?;
        let status = client.get(&path)?.status;
        // The moment at which it passed lies between the two.
        let answered_ms = since_ms()?;
        match status {
            200 => passes.push(Pass { sent_ms, answered_ms: answered_ms + 1, cost }),
            429 => {}
            _ => anyhow::bail!("{path}: status {status}"),
        }
        asked += u64::from(cost);
        count += 1;
    }
    Ok((passes, asked))
}

/// Looks at every time that begins with a request and ends with an answer.
fn within_bound(limit: &RateLimit, authorities: u32, passes: &[Pass]) -> Result<()> {
    for first in passes {
        let mut within: Vec<_> = passes.iter().filter(|pass| pass.sent_ms >= first.sent_ms).collect();
        within.sort_unstable_by_key(|pass| pass.answered_ms);
        let mut passed = 0;
        for pass in within {
            passed += u64::from(pass.cost);
            let span_ms = pass.answered_ms - first.sent_ms;
            let bound = passed_max(limit, authorities, span_ms);
            let name = &limit.rule.name;
            ensure!(passed <= bound, "{name}: {passed} units passed in {span_ms} ms, at most {bound} may");
        }
    }
    Ok(())
}

/// A limit that fails closed, so that a question that its authority does not understand is seen.
fn counts_a_request_that_costs_millions(stack: &Stack, edge: &str) -> Result<()> {
    let rules = "---\napiVersion: meridian/v1\nkind: RateLimit\nmetadata: {name: exports}\n\
         spec: {key: [tenant], quota: 3000000, window: 1h, cost: 2000000, scope: global, fail: closed}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {name: exports}\n\
         spec: {match: {path: /exports}, auth: {mode: anonymous}, limits: [exports], upstream: own}\n";
    with_rules(stack, edge, rules, |url| {
        let client = Client::new(url, "acme.localhost");
        client.get("/exports")?.expect(200)?;
        let refused = client.get("/exports")?.expect(429)?;
        let wait_s: u32 = refused.header("retry-after").parse()?;
        ensure!((1_100..=1_200).contains(&wait_s), "retry after {wait_s} s, a third of an hour was expected");
        Ok(())
    })
}
