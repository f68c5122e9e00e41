//! What happens when parts of the platform are killed, paused or lied to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::stack::{Stack, eventually};
use rustix::process::Signal;
use serde_json::json;

use crate::regions::{RECORDS, create, query, writer};
use crate::{EDGES, StackTest};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_killed_origin_costs_no_idempotent_request", a_killed_origin_costs_no_idempotent_request),
    ("a_region_cut_off_catches_up", a_region_cut_off_catches_up),
    ("a_killed_postgresql_loses_nothing", a_killed_postgresql_loses_nothing),
    ("a_killed_edge_comes_back_with_its_rules", a_killed_edge_comes_back_with_its_rules),
    ("a_panic_does_not_poison_the_isolate", a_panic_does_not_poison_the_isolate),
    ("a_stopped_stack_comes_back_with_its_data", a_stopped_stack_comes_back_with_its_data),
];

/// How long a killed process may take to be back and caught up.
const RECOVER: Duration = Duration::from_secs(60);

/// Reads near one region without a pause until told to stop; remembers when which status came.
fn load(
    stack: &Stack,
    edge: &str,
    stop: &Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<Vec<(Instant, u16)>>> {
    let client = writer(stack, edge, &format!("load-{edge}"), "eu-west-1")?;
    let stop = Arc::clone(stop);
    Ok(std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) && seen.len() < 280 {
            let status = client.get(&format!("{RECORDS}?limit=1")).map_or(0, |response| response.status);
            seen.push((Instant::now(), status));
            std::thread::sleep(Duration::from_millis(25));
        }
        seen
    }))
}

fn a_killed_origin_costs_no_idempotent_request(stack: &Stack) -> Result<()> {
    let before = *stack.up()?.pids.get("origin-eu-west-1").context("pid")?;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = EDGES.iter().map(|edge| load(stack, edge, &stop)).collect::<Result<_>>()?;
    let scribe = writer(stack, "spin", "scribe", "eu-west-1")?;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push(create(&scribe, &json!({"total": number}))?.0);
    }
    stack.signal("origin-eu-west-1", Signal::KILL)?;
    let killed = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    stop.store(true, Ordering::Relaxed);
    for (edge, load) in EDGES.iter().zip(loads) {
        let seen = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        let late: Vec<_> = seen
            .iter()
            .filter(|(at, status)| *status != 200 && *at > killed + Duration::from_secs(1))
            .collect();
        ensure!(late.is_empty(), "{edge}: failed later than a second after the kill: {late:?}");
        ensure!(seen.iter().filter(|(at, _)| *at > killed).count() > 20, "{edge} was hardly under load");
    }
    eventually(RECOVER, || {
        let up = stack.up()?;
        ensure!(up.pids["origin-eu-west-1"] != before, "not restarted");
        Client::new(&up.origins["eu-west-1"].url, "origin").get("/readyz")?.expect(200)?;
        Ok(())
    })?;
    for region in ["us-east-1", "eu-west-1", "ap-southeast-1"] {
        let reader = writer(stack, "spin", "auditor", region)?;
        for path in &acknowledged {
            eventually(RECOVER, || reader.get(path)?.expect(200).map(drop))?;
        }
    }
    Ok(())
}

fn a_region_cut_off_catches_up(stack: &Stack) -> Result<()> {
    stack.signal("origin-ap-southeast-1", Signal::STOP)?;
    let cut = (|| {
        let us = writer(stack, "spin", "stayer", "us-east-1")?;
        (0..50).map(|number| Ok(create(&us, &json!({"total": number}))?.0)).collect::<Result<Vec<_>>>()
    })();
    // A client near the region that is cut off is served elsewhere meanwhile.
    let elsewhere =
        writer(stack, "cloudflare", "stayer", "ap-southeast-1")?.get(&format!("{RECORDS}?limit=1"));
    stack.signal("origin-ap-southeast-1", Signal::CONT)?;
    let written = cut?;
    let elsewhere = elsewhere?.expect(200)?;
    ensure!(elsewhere.header("meridian-region") != "ap-southeast-1", "{:?}", elsewhere.headers);
    let up = stack.up()?;
    for path in &written {
        let id = path.rsplit('/').next().context("a path has a last segment")?;
        eventually(RECOVER, || {
            let sql = format!("select count(*) from meridian.record where id = '{id}'");
            ensure!(query(&up.origins["ap-southeast-1"].postgres, &sql)? == 1, "{id} did not arrive");
            Ok(())
        })?;
    }
    converged(stack)
}

fn a_killed_postgresql_loses_nothing(stack: &Stack) -> Result<()> {
    let us = writer(stack, "spin", "durable", "us-east-1")?;
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        acknowledged.push(create(&us, &json!({"total": number}))?.0);
        if number == 15 {
            stack.signal("postgres-us-east-1", Signal::KILL)?;
            eventually(RECOVER, || {
                let response = us.json("POST", RECORDS, &json!({"customer": "after the crash"}))?;
                ensure!(response.status == 201, "{} {}", response.status, response.text());
                Ok(())
            })?;
        }
    }
    for path in &acknowledged {
        eventually(RECOVER, || us.get(path)?.expect(200).map(drop))?;
    }
    converged(stack)
}

fn a_killed_edge_comes_back_with_its_rules(stack: &Stack) -> Result<()> {
    for edge in EDGES {
        let name = format!("edge-{edge}");
        let before = stack.up()?.pids[&name];
        stack.signal(&name, Signal::KILL)?;
        eventually(RECOVER, || {
            let up = stack.up()?;
            ensure!(up.pids[&name] != before, "not restarted");
            let reader = &up.tenant("acme")?.tokens["reader"];
            stack.edge(edge, "acme")?.bearer(reader).get("/v1/whoami")?.expect(200).map(drop)
        })?;
    }
    Ok(())
}

fn a_panic_does_not_poison_the_isolate(stack: &Stack) -> Result<()> {
    let up = stack.up()?;
    let origins: Vec<String> =
        up.origins.iter().map(|(region, origin)| format!("{region}={}", origin.url)).collect();
    let state = stack.data().join("broken-on-purpose");
    let edge = Edge::start("cloudflare", Flavour::Fault, 27320, &origins.join(","), stack.data(), &state)?;
    let token = stack.token("acme", "unharmed", "orders:read")?;
    let client = Client::new(&edge.url, "acme.localhost").bearer(&token);
    eventually(RECOVER, || client.get("/v1/whoami")?.expect(200).map(drop))?;
    for path in ["/.fault/panic", "/.fault/panic-later", "/.fault/trap-later"] {
        let broken = client.get(path)?;
        ensure!(broken.status == 500, "{path}: {} {}", broken.status, broken.text());
        ensure!(broken.header("content-type") == "application/problem+json", "{path}: {:?}", broken.headers);
        for _ in 0..5 {
            client.get("/v1/whoami")?.expect(200).with_context(|| format!("after {path}"))?;
        }
    }
    Ok(())
}

fn a_stopped_stack_comes_back_with_its_data(stack: &Stack) -> Result<()> {
    let (path, _) =
        create(&writer(stack, "spin", "keeper", "us-east-1")?, &json!({"customer": "still here"}))?;
    let before = stack.up()?;
    stack.stop()?;
    for (name, pid) in &before.pids {
        ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{name} was left running");
    }
    ensure!(!stack.data().join("up.json").exists(), "up.json of a stack that is down");
    stack.start_again()?;
    for region in ["us-east-1", "ap-southeast-1"] {
        let reader = writer(stack, "cloudflare", "keeper", region)?;
        eventually(RECOVER, || {
            ensure!(reader.get(&path)?.expect(200)?.value()?["customer"] == "still here");
            Ok(())
        })?;
    }
    Ok(())
}

/// Every region holds the same records of acme, down to the stamps.
fn converged(stack: &Stack) -> Result<()> {
    let up = stack.up()?;
    let digest = "select coalesce(sum(hashtextextended(record_digest.text, 0) % 1000000007), 0)::bigint \
                  from (select concat_ws('|', id, fields, _stamp, _region, _deleted) as text \
                        from meridian.record where tenant = 'acme') as record_digest";
    eventually(RECOVER, || {
        let digests: Vec<i64> =
            up.origins.values().map(|origin| query(&origin.postgres, digest)).collect::<Result<_>>()?;
        ensure!(digests.windows(2).all(|pair| pair[0] == pair[1]), "regions differ: {digests:?}");
        ensure!(digests[0] != 0, "there are no records to compare");
        Ok(())
    })?;
    Ok(())
}
