//! Limits that an authority keeps, asked by many at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{Stack, eventually};

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
/// Each instance of an edge hears of new rules by itself.
const SEEN_MAX: Duration = Duration::from_secs(5);

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];

/// By region each authority has its own quota; the one of all regions has one for everybody.
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
            let mut passed = flood(stack, url, &path)?;
            if scope == "global" {
                let all = passed.values().sum();
                passed = BTreeMap::from([("all regions", all)]);
            }
            let most = QUOTA
                + u32::try_from(started.elapsed().as_secs())? * QUOTA / u32::try_from(WINDOW.as_secs())?
                + 1;
            for (region, passed) in passed {
                ensure!(
                    (QUOTA - LEFT_OVER..=most).contains(&passed),
                    "{path}: {passed} passed of {region}, {QUOTA} are the quota"
                );
            }
        }
        Ok(())
    })
}

/// Asks from near every region with all clients at once; how many passed of each.
fn flood(stack: &Stack, url: &str, path: &str) -> Result<BTreeMap<&'static str, u32>> {
    let up = stack.up()?;
    let mut passed: BTreeMap<_, u32> = BTreeMap::new();
    let mut threads = Vec::new();
    for region in REGIONS {
        let client = Client::new(url, "acme.localhost").from(up.address_near(region)?);
        for _ in 0..CLIENTS {
            let (client, path) = (client.clone(), path.to_owned());
            threads.push((
                region,
                std::thread::spawn(move || (0..REQUESTS_EACH).map(|_| passes(&client, &path)).sum()),
            ));
        }
    }
    for (region, thread) in threads {
        let all: Result<u32> = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        *passed.entry(region).or_default() += all?;
    }
    Ok(passed)
}

/// 1 where the request passes, 0 where the limit is reached; anything else is wrong, once the edge has the rules.
fn passes(client: &Client, path: &str) -> Result<u32> {
    let mut status = 0;
    eventually(SEEN_MAX, || {
        status = client.get(path)?.status;
        ensure!(status != 404, "{path}: no such route yet");
        Ok(())
    })?;
    ensure!(matches!(status, 200 | 429), "{path}: status {status}");
    Ok(u32::from(status == 200))
}
