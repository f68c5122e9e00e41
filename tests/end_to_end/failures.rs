//! What happens when parts of the platform are killed, paused or lied to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{Stack, eventually};
use rustix::process::Signal;
use serde_json::json;

use crate::load::{Load, Work};
use crate::regions::{RECORDS, create, query, writer};
use crate::{EDGES, StackTest};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_killed_origin_costs_no_idempotent_request", a_killed_origin_costs_no_idempotent_request),
    ("a_region_cut_off_catches_up", a_region_cut_off_catches_up),
    ("a_killed_postgresql_loses_nothing", a_killed_postgresql_loses_nothing),
    ("a_killed_edge_comes_back_with_its_rules", a_killed_edge_comes_back_with_its_rules),
    ("a_stopped_stack_comes_back_with_its_data", a_stopped_stack_comes_back_with_its_data),
];

/// How long a killed process may take to be back and caught up.
const RECOVER: Duration = Duration::from_secs(60);
/// As many requests are served by a region before it counts as under load.
const SERVED: usize = 20;
/// Times that the same origin is killed; each time it is away for longer before it is started again.
const KILLS: usize = 3;

fn a_killed_origin_costs_no_idempotent_request(stack: &Stack) -> Result<()> {
    let (victim, region) = ("origin-eu-west-1", "eu-west-1");
    let mut loads = Vec::new();
    for edge in EDGES {
        for work in [Work::Read, Work::Write] {
            loads.push(Load::start(stack, edge, region, work)?);
        }
    }
    let under_load = |since: Instant| {
        eventually(RECOVER, || loads.iter().try_for_each(|load| load.was_served(SERVED, region, since)))
    };
    under_load(Instant::now())?;
    let mut kills = Vec::new();
    for round in 1..=KILLS {
        let before = *stack.up()?.pids.get(victim).context("pid")?;
        stack.signal(victim, Signal::KILL)?;
        kills.push(Instant::now());
        let away = eventually(RECOVER, || {
            let up = stack.up()?;
            ensure!(up.pids[victim] != before, "not restarted");
            Client::new(&up.origins[region].url, "origin").get("/readyz")?.expect(200).map(drop)
        })?;
        under_load(Instant::now()).with_context(|| format!("after kill {round}, which took {away:?}"))?;
        println!("kill {round}: {region} was away for {:.1} s", away.as_secs_f64());
    }
    let done = loads.into_iter().map(Load::stop).collect::<Result<Vec<_>>>()?;
    let mut unforgiven = Vec::new();
    for load in &done {
        println!("{}", load.summary(&kills));
        unforgiven.extend(load.unforgiven(&kills));
        load.is_written_once(stack, RECOVER)?;
    }
    ensure!(unforgiven.is_empty(), "{}", unforgiven.join("\n"));
    converged(stack)
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
