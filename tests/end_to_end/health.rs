//! Health checks by the origins: an upstream whose check fails is left alone by both edges while it is well elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{Stack, eventually};

use crate::bad_bundles::roll_back;
use crate::rules::{demo_rules, head, push_for_all};
use crate::stack::metrics;
use crate::{EDGES, StackTest, upstream};

pub const TESTS: &[(&str, StackTest)] =
    &[("leaves_an_upstream_alone_whose_check_fails", leaves_an_upstream_alone_whose_check_fails)];

/// Two checks in a row, a second apart, then the news of it at every origin and at every instance of an edge.
const KNOWN_MAX: Duration = Duration::from_secs(10);
/// As many requests in a row have to go where they should.
const REQUESTS: usize = 40;
/// Region that comes first by the rules, and the one behind it.
const FIRST: &str = "us-east-1";
const SECOND: &str = "eu-west-1";

fn leaves_an_upstream_alone_whose_check_fails(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "health")?;
    let (first, is_unwell) = upstream::start_with_health()?;
    let second = upstream::start()?;
    let rules = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: checked}}\n\
         spec:\n  regions: {{{FIRST}: \"{first}\", {SECOND}: \"{second}\"}}\n  \
         healthCheck: {{path: /deep/health, interval: 1s, timeout: 500ms, failures: 2, successes: 2}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: checked}}\n\
         spec:\n  match: {{path: \"/checked/**\"}}\n  auth: {{mode: anonymous}}\n  upstream: checked\n  \
         steering: {{strategy: priority, regions: [{FIRST}, {SECOND}]}}\n"
    );
    std::fs::write(folder.join("health.yaml"), rules)?;
    push_for_all(stack, &folder)?;
    let outcome = falls_ill_and_recovers(stack, &first, &is_unwell);
    roll_back(stack, &before)?;
    outcome
}

fn falls_ill_and_recovers(stack: &Stack, first: &str, is_unwell: &AtomicBool) -> Result<()> {
    known(stack, FIRST, 0)?;
    is_unwell.store(true, Ordering::SeqCst);
    known(stack, SECOND, 1).context("unwell")?;
    // All but its check answers as before.
    Client::new(first, "checked").get("/checked/echo")?.expect(200)?;
    is_unwell.store(false, Ordering::SeqCst);
    known(stack, FIRST, 0).context("well again")
}

/// Both edges ask the upstream in this region, and the origin of the first counts so many that are unhealthy there. Which they
/// are it tells to other origins alone.
fn known(stack: &Stack, region: &str, unhealthy: u32) -> Result<()> {
    let origin = stack.up()?.origins[FIRST].url.clone();
    let expected = format!("meridian_upstreams_unhealthy {unhealthy}\n");
    eventually(KNOWN_MAX, || {
        let said = metrics(&origin)?;
        ensure!(said.contains(&expected), "{FIRST} does not say {expected:?}");
        Ok(())
    })?;
    let said = Client::new(&origin, "origin").get("/readyz")?.expect(200)?.value()?;
    ensure!(said["unhealthy"].is_null(), "{FIRST} tells everybody: {said}");
    for edge in EDGES {
        let client = stack.edge(edge, "acme")?;
        eventually(KNOWN_MAX, || {
            for _ in 0..REQUESTS {
                let asked = client.get("/checked/echo")?.expect(200)?.header("meridian-region").to_owned();
                ensure!(asked == region, "{edge} asks {asked}, expected {region}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
