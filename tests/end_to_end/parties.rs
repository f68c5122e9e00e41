//! Tenants below tenants, plans, and hostnames on their way to be served: said on the command line, obeyed by both edges.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{Stack, eventually};
use serde_json::Value;

use crate::{EDGES, EdgeTest, StackTest};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_partner_suspends_who_is_below_it", a_partner_suspends_who_is_below_it),
    ("a_hostname_is_served_once_it_is_verified", a_hostname_is_served_once_it_is_verified),
];

pub const EDGE_TESTS: &[(&str, EdgeTest)] =
    &[("counts_all_requests_of_a_plan", counts_all_requests_of_a_plan)];

/// How long both edges may take to do as they are told: the region of whoever is below looks every second, and its release
/// goes through another region.
const SEEN_MAX: Duration = Duration::from_secs(10);
const QUOTA: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Runs a command that has to succeed, and reads what it printed.
fn run(stack: &Stack, arguments: &[&str]) -> Result<Value> {
    let output = stack.meridian(&[arguments, &["--json"][..]].concat())?;
    ensure!(output.code == 0, "{}: {}{}", arguments.join(" "), output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).with_context(|| output.stdout)
}

/// Waits until both edges answer requests to a host with this status, and a body that has this text.
fn both_answer(stack: &Stack, host: &str, status: u16, text: &str) -> Result<()> {
    let up = stack.up()?;
    for edge in EDGES {
        let client = Client::new(&up.edges[edge], host);
        let took = eventually(SEEN_MAX, || {
            let reply = client.get("/")?;
            let body = reply.text();
            ensure!(reply.status == status && body.contains(text), "{edge}: {} {body}", reply.status);
            Ok(())
        })?;
        println!("{edge} answers {host} with {status} after {took:?}");
    }
    Ok(())
}

fn a_partner_suspends_who_is_below_it(stack: &Stack) -> Result<()> {
    run(stack, &["tenant", "create", "umbrella", "--home-region", "us-east-1"])?;
    // At home elsewhere, where it is released.
    run(stack, &["tenant", "create", "hive", "--home-region", "eu-west-1", "--parent", "umbrella"])?;
    run(stack, &["domain", "add", "hive.localhost", "--tenant", "hive"])?;
    both_answer(stack, "hive.localhost", 404, "no-route")?;

    run(stack, &["tenant", "change", "umbrella", "--state", "suspended"])?;
    both_answer(stack, "hive.localhost", 403, "tenant-suspended")?;
    let listed = stack.meridian(&["tenant", "list"])?.stdout;
    ensure!(listed.contains("suspended by umbrella"), "{listed}");

    run(stack, &["tenant", "change", "umbrella", "--state", "active"])?;
    both_answer(stack, "hive.localhost", 404, "no-route")
}

fn a_hostname_is_served_once_it_is_verified(stack: &Stack) -> Result<()> {
    run(stack, &["tenant", "create", "hopeful", "--home-region", "us-east-1"])?;
    run(stack, &["domain", "add", "hopeful.localhost", "--tenant", "hopeful", "--verification", "pending"])?;
    both_answer(stack, "hopeful.localhost", 421, "host-unverified")?;
    let changed = run(stack, &["domain", "change", "hopeful.localhost", "--verification", "verified"])?;
    ensure!(changed["verification"] == "verified", "{changed}");
    both_answer(stack, "hopeful.localhost", 404, "no-route")?;
    run(stack, &["domain", "change", "hopeful.localhost", "--verification", "failed", "--tls", "failed"])?;
    both_answer(stack, "hopeful.localhost", 421, "host-unverified")
}

fn counts_all_requests_of_a_plan(stack: &Stack, edge: &str) -> Result<()> {
    let (slug, host) = (format!("metered-{edge}"), format!("metered-{edge}.localhost"));
    let folder = stack.data().join("test-rules").join(&slug);
    std::fs::create_dir_all(&folder)?;
    let plan = folder.join("plan.json");
    let limit = format!(r#"{{"quota": {QUOTA}, "window": "{}s", "fail": "closed"}}"#, WINDOW.as_secs());
    std::fs::write(&plan, format!(r#"{{"name": "small", "limits": [{limit}], "maxRoutes": 1}}"#))?;
    let route = "apiVersion: meridian/v1\nkind: Route\nmetadata: {name: all}\n\
                 spec: {match: {path: \"/**\"}, auth: {mode: anonymous}}\n";
    let rules = folder.join("rules.yaml");
    std::fs::write(&rules, route)?;
    let (plan, rules) = (plan.to_str().context("UTF-8")?, rules.to_str().context("UTF-8")?);
    run(stack, &["tenant", "create", &slug, "--home-region", "us-east-1", "--plan", plan])?;
    run(stack, &["domain", "add", &host, "--tenant", &slug])?;
    let target = format!("tenant:{slug}");
    run(stack, &["rules", "push", rules, "--target", &target])?;

    let client = Client::new(&stack.up()?.edges[edge], &host);
    let policy = format!("\"plan:1\";q={QUOTA};w={}", WINDOW.as_secs());
    let started = Instant::now();
    eventually(SEEN_MAX, || {
        let reply = client.get("/v1/whoami")?;
        let told = reply.header("ratelimit-policy");
        ensure!(reply.status == 200 && told == policy, "{} {told:?} {}", reply.status, reply.text());
        Ok(())
    })?;
    let mut passed = 1;
    let limited = loop {
        let reply = client.get("/v1/whoami")?;
        if reply.status == 429 {
            break reply;
        }
        passed += 1;
        ensure!(reply.status == 200 && passed < 4 * QUOTA, "{passed} passed of {QUOTA}: {}", reply.text());
    };
    let came_back =
        usize::try_from(started.elapsed().as_secs())? * QUOTA / usize::try_from(WINDOW.as_secs())?;
    ensure!((QUOTA..=QUOTA + came_back + 1).contains(&passed), "{passed} passed of {QUOTA}");
    ensure!(limited.header("ratelimit-policy") == policy, "{:?}", limited.headers);
    ensure!(!limited.header("retry-after").is_empty(), "{:?}", limited.headers);
    ensure!(limited.text().contains("quota-exceeded"), "{}", limited.text());

    // What the plan does not allow is not pushed.
    std::fs::write(rules, format!("{route}---\n{}", route.replace("all", "more").replace("/**", "/more")))?;
    let refused = stack.meridian(&["rules", "push", rules, "--target", &target])?;
    ensure!(refused.code == 1 && refused.stderr.contains("at most 1, as the plan"), "{}", refused.stderr);
    Ok(())
}
