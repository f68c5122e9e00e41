//! Limits that an authority keeps, asked by many at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;

use crate::EdgeTest;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("lets_through_no_more_than_the_quota", lets_through_no_more_than_the_quota)];

/// Clients that ask at the same time, and how often each does: together twice the quota.
const CLIENTS: usize = 16;
const REQUESTS_EACH: usize = 20;
const QUOTA: u32 = 160;
/// Nearly nothing comes back while the test runs.
const WINDOW: Duration = Duration::from_secs(3_600);
/// What instances may hold of the quota and not spend: a lease is at most a 32nd of what is left, and there are few.
const LEFT_OVER: u32 = QUOTA / 4;

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];

/// Each region's authority hands out its quota and no more, whoever asks: of a limit by region, an edge whose nearest
/// authority does not answer asks the next one, so that the bound is that of all of them. A global limit has one authority.
fn lets_through_no_more_than_the_quota(stack: &Stack, edge: &str) -> Result<()> {
    let limits =
        [("region", "gcra"), ("region", "slidingWindow"), ("global", "gcra"), ("global", "slidingWindow")];
    let mut rules = String::new();
    for (scope, algorithm) in limits {
        let name = format!("{scope}-{}", algorithm.to_lowercase());
        rules.push_str(&format!(
            "---\napiVersion: meridian/v1\nkind: RateLimit\nmetadata: {{name: {name}}}\n\
             spec: {{key: [tenant], quota: {QUOTA}, window: 1h, scope: {scope}, algorithm: {algorithm}, fail: closed}}\n---\n\
             apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: {name}}}\n\
             spec: {{match: {{path: /{name}}}, auth: {{mode: anonymous}}, limits: [{name}], upstream: own}}\n"
        ));
    }
    with_rules(stack, edge, &rules, |url| {
        for (scope, algorithm) in limits {
            let path = format!("/{scope}-{}", algorithm.to_lowercase());
            let started = Instant::now();
            let passed = flood(stack, url, &path)?;
            let authorities = if scope == "global" { 1 } else { REGIONS.len() as u32 };
            let refilled =
                u32::try_from(started.elapsed().as_secs())? * QUOTA / u32::try_from(WINDOW.as_secs())? + 1;
            ensure!(
                (authorities * (QUOTA - LEFT_OVER)..=authorities * (QUOTA + refilled)).contains(&passed),
                "{path}: {passed} passed, {QUOTA} are the quota of each of {authorities}"
            );
        }
        Ok(())
    })
}

/// Asks from near every region with all clients at once; how many passed.
fn flood(stack: &Stack, url: &str, path: &str) -> Result<u32> {
    let up = stack.up()?;
    let mut threads = Vec::new();
    for region in REGIONS {
        let client = Client::new(url, "acme.localhost").from(up.address_near(region)?);
        for _ in 0..CLIENTS {
            let (client, path) = (client.clone(), path.to_owned());
            threads
                .push(std::thread::spawn(move || (0..REQUESTS_EACH).map(|_| passes(&client, &path)).sum()));
        }
    }
    let one = |thread: std::thread::JoinHandle<Result<u32>>| {
        thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
    };
    threads.into_iter().map(one).sum()
}

/// 1 where the request passes, 0 where the limit is reached; anything else is wrong.
fn passes(client: &Client, path: &str) -> Result<u32> {
    let status = client.get(path)?.status;
    ensure!(matches!(status, 200 | 429), "{path}: status {status}");
    Ok(u32::from(status == 200))
}
