//! Decisions of both edges on the command line: listed, counted, followed, explained.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::stack::{Stack, eventually, tool};
use serde_json::Value;

use crate::{EDGES, StackTest};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_decision_is_listed_counted_and_explained", a_decision_is_listed_counted_and_explained),
    ("decisions_are_followed", decisions_are_followed),
    ("a_decision_names_no_person_where_its_route_says_nothing", names_no_person),
];

/// How long a decision may take from an edge to the command line.
const SEEN_MAX: Duration = Duration::from_secs(15);

/// Has an edge decide something, and returns the decision's id.
fn denied(stack: &Stack, edge: &str) -> Result<String> {
    let reply = stack.edge(edge, "acme")?.get("/v1/whoami")?.expect(401)?;
    Ok(reply.header("meridian-decision").to_owned())
}

fn json(stack: &Stack, arguments: &[&str]) -> Result<Value> {
    let output = stack.meridian(arguments)?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    Ok(serde_json::from_str(&output.stdout)?)
}

fn a_decision_is_listed_counted_and_explained(stack: &Stack) -> Result<()> {
    for edge in EDGES {
        let decision = denied(stack, edge)?;
        let list = [
            "logs",
            "--target",
            "tenant:acme",
            "--outcome",
            "denied",
            "--status",
            "4xx",
            "--limit",
            "200",
            "--json",
        ];
        eventually(SEEN_MAX, || {
            let listed = json(stack, &list)?;
            let logs = listed["logs"].as_array().context("a list")?;
            let found = logs.iter().find(|line| line["event"]["id"] == decision.as_str());
            let found = found.with_context(|| format!("{decision} is not listed"))?;
            ensure!(found["event"]["status"] == 401 && found["event"]["route"].is_string(), "{found}");
            let bytes = |member: &str| found["event"][member].as_u64();
            ensure!(bytes("request_bytes") == Some(0) && bytes("response_bytes") > Some(0), "{found}");
            Ok(())
        })
        .with_context(|| format!("decision of {edge}"))?;
        let counted = json(stack, &["top", "--target", "tenant:acme", "--by", "outcome", "--json"])?;
        let kinds = counted["top"].as_array().context("kinds")?;
        let denied = kinds.iter().find(|kind| kind["key"] == "denied");
        ensure!(denied.is_some_and(|kind| kind["requests"].as_u64() >= Some(1)), "{counted}");
        let explained = stack.meridian(&["explain", &decision])?;
        ensure!(explained.code == 0 && explained.stdout.contains("auth"), "{}", explained.stdout);
    }
    Ok(())
}

/// The path of a request may hold a name: what leaves the edge is that of the route.
fn names_no_person(stack: &Stack) -> Result<()> {
    for edge in EDGES {
        let reply =
            stack.edge(edge, "acme")?.get("/v1/collections/orders/records/ada-lovelace")?.expect(401)?;
        let decision = reply.header("meridian-decision").to_owned();
        eventually(SEEN_MAX, || {
            let explained = json(stack, &["explain", &decision, "--json"])?;
            let event = explained.get("event").unwrap_or(&explained);
            let path = "/v1/collections/{name}/records/**";
            ensure!(event["personal"] == "hash" && event["path"] == path, "{event}");
            let text = event.to_string();
            ensure!(!text.contains("ada-lovelace") && !text.contains("127.0.0."), "{text}");
            Ok(())
        })
        .with_context(|| format!("decision of {edge}"))?;
    }
    Ok(())
}

fn decisions_are_followed(stack: &Stack) -> Result<()> {
    let control = stack.up()?.control;
    let mut following = Command::new(tool("MERIDIAN_BIN_CLI")?)
        .args(["logs", "--follow", "--target", "tenant:acme", "--limit", "1", "--json"])
        .env("MERIDIAN_URL", control.url)
        .env("MERIDIAN_TOKEN", control.token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = following.stdout.take().context("its output")?;
    let (send, lines) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    let followed = EDGES.iter().try_for_each(|edge| {
        let decision = denied(stack, edge)?;
        let deadline = Instant::now() + SEEN_MAX;
        loop {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| format!("decision of {edge} did not come"))?;
            if serde_json::from_str::<Value>(&line)?["event"]["id"] == decision.as_str() {
                return Ok(());
            }
        }
    });
    following.kill()?;
    following.wait()?;
    drop(lines);
    let _ = reading.join();
    followed
}
