//! Tenants' own functions around forwarding: what they may do, what they may not, and what becomes of those that fail.
//! In the Spin host they are components that are pushed with the rules; the local Cloudflare has a service that runs them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::stack::{Stack, eventually, tool};

use crate::EdgeTest;
use crate::bad_bundles::roll_back;
use crate::rules::{demo_rules, head, push, push_for_all};
use crate::upstream;
use crate::upstreams::beside_upstream;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("requests_go_through_a_function", requests_go_through_a_function),
    ("a_function_that_fails_does_what_its_rule_says", a_function_that_fails_does_what_its_rule_says),
    ("a_function_that_edges_can_not_run_is_not_pushed", a_function_that_edges_can_not_run_is_not_pushed),
];
/// What the Spin host sees to itself. On Cloudflare isolation and limits are the platform's, a service is deployed by itself, and
/// scripts of a dispatch namespace, which the open-source runtime does not have, hold the version in their name.
pub const SPIN_TESTS: &[(&str, EdgeTest)] = &[
    ("a_function_has_no_authority_but_its_request", a_function_has_no_authority_but_its_request),
    ("versions_of_a_function_are_those_of_the_rules", versions_of_a_function_are_those_of_the_rules),
    ("functions_of_one_tenant_leave_others_alone", functions_of_one_tenant_leave_others_alone),
    ("a_function_is_bound_by_what_it_computes", a_function_is_bound_by_what_it_computes),
    ("a_function_is_bound_while_its_body_passes", a_function_is_bound_while_its_body_passes),
];

/// How long a decision may take to where it is explained.
const EXPLAINED_MAX: Duration = Duration::from_secs(15);
/// How long requests may take beside functions that use up what they may.
const BESIDE_MAX: Duration = Duration::from_secs(10);
const RULES: &str = r#"---
apiVersion: meridian/v1
kind: Function
metadata: {name: probe}
spec: {component: probe.wasm, cpu: 100ms, timeout: 3s, maxMemoryBytes: 8388608}
---
apiVersion: meridian/v1
kind: Function
metadata: {name: lenient}
spec: {component: probe.wasm, cpu: 100ms, timeout: 3s, maxMemoryBytes: 8388608, fail: open}
---
apiVersion: meridian/v1
kind: Function
metadata: {name: strict}
spec: {component: probe.wasm, cpu: 100ms, timeout: 3s}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: through-probe}
spec: {match: {path: "/through/probe/**"}, auth: {mode: anonymous}, upstream: own, function: probe}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: through-lenient}
spec: {match: {path: "/through/lenient/**"}, auth: {mode: anonymous}, upstream: own, function: lenient}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: through-strict}
spec: {match: {path: "/through/strict/**"}, auth: {mode: anonymous}, upstream: own, function: strict}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: through-to-origin}
spec: {match: {path: "/v1/collections/{name}/records/**", methods: [GET], headers: {x-through: "1"}, priority: 5}, function: probe}
"#;

/// The function's component, with this version in it.
fn component(version: u8) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(tool("MERIDIAN_FUNCTION")?)?;
    let text = b"probe-version-1";
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text)).map(|at| at + text.len() - 1).collect();
    ensure!(!places.is_empty(), "the component does not say its version");
    for at in places {
        bytes[at] = b'0' + version;
    }
    Ok(bytes)
}

/// Pushes the rules with the first version of the function, and takes them back after the test, which gets the edge's URL
/// and the folder.
fn with_function(stack: &Stack, edge: &str, test: impl FnOnce(&str, &PathBuf) -> Result<()>) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, &format!("{edge}-function"))?;
    beside_upstream(&folder, RULES)?;
    std::fs::write(folder.join("probe.wasm"), component(1)?)?;
    push_for_all(stack, &folder)?;
    let outcome = test(&stack.up()?.edges[edge], &folder);
    roll_back(stack, &before)?;
    outcome
}

fn requests_go_through_a_function(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        let (said, begins) = match edge {
            "spin" => ("probe-version-1", "probe-version-1: "),
            _ => ("service", ""),
        };
        for body in ["", "four", "x".repeat(100_000).as_str()] {
            let response = client.request("POST", "/through/probe/mirror", Some(body.into()))?.expect(200)?;
            ensure!(response.text() == format!("{begins}{body}"), "{}", response.text());
            ensure!(response.header("x-function") == said, "{:?}", response.headers);
            ensure!(response.header("meridian-function-ended").is_empty(), "{:?}", response.headers);
            ensure!(response.header("meridian-region") == "us-east-1", "{:?}", response.headers);
        }
        let explained = explained(stack, &client.get("/through/probe/x")?.expect(200)?, "sent on")?;
        ensure!(explained.contains("probe"), "{explained}");
        // Other routes of the tenant know nothing of it, and what clients say of functions counts for nothing.
        let other = client.with("meridian-function", "probe;tenant=acme").get("/nowhere")?;
        ensure!(other.header("x-function").is_empty(), "{:?}", other.headers);
        // To an origin it goes with the context that was signed for it.
        let token = stack.token("acme", "alice", "orders:read")?;
        let records = client.bearer(&token).with("x-through", "1").get("/v1/collections/orders/records")?;
        ensure!(records.header("x-function") == said, "{:?}", records.headers);
        let text = records.expect(200)?.text();
        ensure!(text.starts_with(&format!("{begins}{{")), "{text}");
        Ok(())
    })
}

fn a_function_that_fails_does_what_its_rule_says(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        if edge != "spin" {
            // The service knows neither of them.
            let refused = client.get("/through/strict/x")?.expect(502)?;
            ensure!(refused.value()?["type"].to_string().contains("function-failed"), "{}", refused.text());
            explained(stack, &refused, "failed: missing")?;
            let left_out = client.get("/through/lenient/x")?.expect(200)?;
            ensure!(left_out.header("x-function").is_empty(), "{:?}", left_out.headers);
            explained(stack, &left_out, "failed: missing; forwarded without it")?;
            return Ok(());
        }
        for (told, why) in
            [("loop", "cpu"), ("memory", "memory"), ("slow", "timeout"), ("trap", "trap"), ("error", "error")]
        {
            let since = Instant::now();
            let failed = client.with("x-do", told).get("/through/probe/x")?.expect(502)?;
            ensure!(since.elapsed() < BESIDE_MAX, "{told} took {:?}", since.elapsed());
            ensure!(failed.value()?["type"].to_string().contains("function-failed"), "{}", failed.text());
            explained(stack, &failed, &format!("failed: {why}"))?;
            for body in [None, Some(b"four".to_vec())] {
                let sent = body.clone().unwrap_or_default();
                let method = if body.is_some() { "POST" } else { "GET" };
                let open = client.with("x-do", told).request(method, "/through/lenient/mirror", body)?;
                let open = open.expect(200)?;
                ensure!(open.body == sent && open.header("x-function").is_empty(), "{told}: {open:?}");
            }
        }
        // The target saw the request: it is not sent again.
        let seen = client.with("x-do", "late-trap").get("/through/lenient/x")?.expect(502)?;
        explained(stack, &seen, "failed: trap after it sent the request on")?;
        // What failed for one request fails for no other.
        client.get("/through/probe/x")?.expect(200)?;
        Ok(())
    })
}

fn a_function_has_no_authority_but_its_request(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        let says = |told: &str, path: &str| -> Result<String> {
            Ok(client.with("x-do", told).get(path)?.expect(200)?.text())
        };
        let alone = says("answer", "/through/probe/x")?;
        ensure!(alone == "probe-version-1 answers by itself", "{alone}");
        let twice = says("twice", "/through/probe/x")?;
        ensure!(twice == "200, ErrorCode::HttpRequestDenied", "{twice}");
        let elsewhere = upstream::start()?;
        let elsewhere = elsewhere.trim_start_matches("http://");
        let refused =
            client.with("x-do", "elsewhere").with("x-to", elsewhere).get("/through/probe/x")?.expect(200)?;
        ensure!(refused.text() == "ErrorCode::HttpRequestDenied", "{}", refused.text());
        let other_path = says("path", "/through/probe/x")?;
        ensure!(other_path == "200", "{other_path}");
        // Of the platform it sees nothing, and to an origin it sends what was signed or nothing.
        let token = stack.token("acme", "alice", "orders:read")?;
        let to_origin = |told: &str| -> Result<Response> {
            let client = client.bearer(&token).with("x-through", "1").with("x-do", told);
            client.get("/v1/collections/orders/records")?.expect(200)
        };
        let looked = to_origin("look")?;
        ensure!(looked.text() == "fields [], 0 variables, no files", "{}", looked.text());
        ensure!(looked.header("meridian-region") == "edge", "{:?}", looked.headers);
        let changed = to_origin("path")?.text();
        ensure!(changed == "ErrorCode::HttpRequestDenied", "{changed}");
        Ok(())
    })
}

fn versions_of_a_function_are_those_of_the_rules(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, folder| {
        let client = Client::new(url, "acme.localhost");
        let serves = |version: &str| -> Result<()> {
            let response = client.get("/through/probe/x")?.expect(200)?;
            ensure!(response.header("x-function") == version, "{:?}", response.headers);
            Ok(())
        };
        serves("probe-version-1")?;
        let first = head(stack)?;
        std::fs::write(folder.join("probe.wasm"), component(2)?)?;
        push_for_all(stack, folder)?;
        serves("probe-version-2")?;
        roll_back(stack, &first)?;
        eventually(BESIDE_MAX, || serves("probe-version-1"))?;
        Ok(())
    })
}

fn functions_of_one_tenant_leave_others_alone(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let hostile = ["loop", "memory", "slow", "trap"];
        std::thread::scope(|scope| {
            let attacks: Vec<_> = (0..16)
                .map(|at| {
                    scope.spawn(move || -> Result<()> {
                        for _ in 0..3 {
                            let client = Client::new(url, "acme.localhost").with("x-do", hostile[at % 4]);
                            client.get("/through/probe/x")?.expect(502)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for _ in 0..50 {
                let since = Instant::now();
                let beside = stack.edge(edge, "globex")?.get("/nowhere")?.expect(404)?;
                ensure!(!beside.header("meridian-bundle").is_empty(), "{:?}", beside.headers);
                ensure!(since.elapsed() < BESIDE_MAX, "another tenant waited {:?}", since.elapsed());
                Client::new(url, "acme.localhost").get("/through/probe/x")?.expect(200)?;
            }
            attacks.into_iter().try_for_each(|attack| {
                attack.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
            })
        })
    })
}

/// Six hundred milliseconds of waiting are nothing of the hundred that it may compute; pauses between don't give it more.
fn a_function_is_bound_by_what_it_computes(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        client.with("x-do", "patient").get("/through/probe/x")?.expect(200)?;
        let bursts = client.with("x-do", "bursts").get("/through/probe/x")?.expect(502)?;
        explained(stack, &bursts, "failed: cpu").map(drop)
    })
}

/// A body that is not whole never looks as if it were.
fn a_function_is_bound_while_its_body_passes(stack: &Stack, edge: &str) -> Result<()> {
    with_function(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        for told in ["loop-in-body", "memory-in-body"] {
            let since = Instant::now();
            let cut = client.with("x-do", told).get("/through/probe/x");
            ensure!(cut.is_err(), "{told}: {cut:?}");
            ensure!(since.elapsed() < BESIDE_MAX, "{told} took {:?}", since.elapsed());
            client.get("/through/probe/x")?.expect(200)?;
        }
        Ok(())
    })
}

/// What is refused never reaches an edge, whichever of them asks.
fn a_function_that_edges_can_not_run_is_not_pushed(stack: &Stack, edge: &str) -> Result<()> {
    let folder = demo_rules(stack, &format!("{edge}-no-function"))?;
    beside_upstream(&folder, RULES)?;
    for (bytes, said) in [
        (None, "found \"probe.wasm\", expected the path of a file of the push that ends with .wasm"),
        (Some(b"\0asm\x01\0\0\0".to_vec()), "probe.wasm:1:1: found a core module"),
        (Some(std::fs::read(tool("MERIDIAN_SPIN_COMPONENT")?)?), "probe.wasm:1:1: found"),
    ] {
        if let Some(bytes) = bytes {
            std::fs::write(folder.join("probe.wasm"), bytes)?;
        }
        let output = push(stack, &folder, &[])?;
        let text = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.code != 0 && text.contains(said), "{text}");
    }
    Ok(())
}

/// What is said of a response's decision, once it is known; it has to say this.
fn explained(stack: &Stack, response: &Response, what: &str) -> Result<String> {
    let decision = response.header("meridian-decision");
    let mut said = None;
    eventually(EXPLAINED_MAX, || {
        let output = stack.meridian(&["explain", decision])?;
        ensure!(output.code == 0, "{}", output.stderr);
        said = Some(output.stdout);
        Ok(())
    })?;
    let said = said.context("an explanation")?;
    ensure!(said.contains(what), "no {what:?} in {said}");
    Ok(said)
}
