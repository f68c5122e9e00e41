//! Three regions as one: what is written in one is read in all that may see it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{Stack, eventually};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::rules::with_platform;
use crate::{EDGES, StackTest};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_write_reaches_every_region", a_write_reaches_every_region),
    ("a_writer_reads_its_write_anywhere", a_writer_reads_its_write_anywhere),
    ("counters_and_sets_merge", counters_and_sets_merge),
    ("concurrent_writes_converge_and_are_recorded", concurrent_writes_converge_and_are_recorded),
    ("a_deleted_record_stays_deleted", a_deleted_record_stays_deleted),
    ("residency_keeps_a_tenant_out", residency_keeps_a_tenant_out),
    ("tenants_cannot_see_each_other", tenants_cannot_see_each_other),
    ("replication_status_names_every_peer", replication_status_names_every_peer),
    ("a_region_whose_first_address_is_dead_serves", a_region_whose_first_address_is_dead_serves),
];

pub const RECORDS: &str = "/v1/collections/orders/records";
const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];
/// How long an idle, healthy stack may take to bring a change everywhere.
const SETTLE: Duration = Duration::from_secs(5);
/// How long it may take until a decision can be explained.
const EXPLAINED_MAX: Duration = Duration::from_secs(10);
/// How long it may take until an edge decides by new rules, and that can be explained.
const SEEN_MAX: Duration = Duration::from_secs(20);
/// An address at which nobody listens.
const DEAD: &str = "http://127.0.0.1:1";

/// A writer of acme whose requests go to a region and past the cache.
pub fn writer(stack: &Stack, edge: &str, subject: &str, region: &str) -> Result<Client> {
    let token = stack.token("acme", subject, "orders:read orders:write")?;
    let up = stack.up()?;
    Ok(stack
        .edge(edge, "acme")?
        .bearer(&token)
        .from(up.address_near(region)?)
        .with("cache-control", "no-cache"))
}

pub fn create(client: &Client, fields: &Value) -> Result<(String, String)> {
    let created = client.json("POST", RECORDS, fields)?.expect(201)?;
    let id = created.value()?["id"].as_str().context("a record has an id")?.to_owned();
    Ok((format!("{RECORDS}/{id}"), created.header("meridian-session").to_owned()))
}

fn a_write_reaches_every_region(stack: &Stack) -> Result<()> {
    for from in REGIONS {
        let (path, _) = create(&writer(stack, "spin", "everywhere", from)?, &json!({"customer": from}))?;
        for to in REGIONS {
            let reader = writer(stack, "cloudflare", "everywhere", to)?;
            eventually(SETTLE, || {
                let response = reader.get(&path)?.expect(200)?;
                ensure!(response.header("meridian-region") == to, "{}", response.header("meridian-region"));
                ensure!(response.value()?["customer"] == from);
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn a_writer_reads_its_write_anywhere(stack: &Stack) -> Result<()> {
    for edge in EDGES {
        let here = writer(stack, edge, "nomad", "us-east-1")?;
        let there = writer(stack, edge, "nomad", "ap-southeast-1")?;
        for number in 0..20 {
            let (path, session) = create(&here, &json!({"total": number}))?;
            ensure!(!session.is_empty(), "a write returns a session token");
            let read = there.with("meridian-session", &session).get(&path)?.expect(200)?;
            ensure!(read.value()?["total"] == number, "{}", read.text());
        }
    }
    Ok(())
}

fn counters_and_sets_merge(stack: &Stack) -> Result<()> {
    let us = writer(stack, "spin", "merger", "us-east-1")?;
    let eu = writer(stack, "cloudflare", "merger", "eu-west-1")?;
    let (path, session) = create(&us, &json!({"customer": "Lin", "reprints": 0, "labels": ["new"]}))?;
    eu.with("meridian-session", &session).get(&path)?.expect(200)?;
    for _ in 0..10 {
        us.json("PATCH", &path, &json!({"reprints": {"$add": 2}, "labels": {"$add": ["us"]}}))?
            .expect(200)?;
        eu.json("PATCH", &path, &json!({"reprints": {"$add": 3}, "labels": {"$add": ["eu"]}}))?
            .expect(200)?;
    }
    for client in [&us, &eu] {
        eventually(SETTLE, || {
            let record = client.get(&path)?.expect(200)?.value()?;
            ensure!(record["reprints"] == 50, "{record}");
            ensure!(record["labels"] == json!(["eu", "new", "us"]), "{record}");
            Ok(())
        })?;
    }
    Ok(())
}

fn concurrent_writes_converge_and_are_recorded(stack: &Stack) -> Result<()> {
    let us = writer(stack, "spin", "rival-a", "us-east-1")?;
    let asia = writer(stack, "spin", "rival-b", "ap-southeast-1")?;
    let (path, session) = create(&us, &json!({"customer": "nobody"}))?;
    asia.with("meridian-session", &session).get(&path)?.expect(200)?;
    for round in 0..5 {
        let other = {
            let (asia, path) = (asia.clone(), path.clone());
            std::thread::spawn(move || {
                asia.json("PATCH", &path, &json!({"customer": format!("asia-{round}")}))
            })
        };
        us.json("PATCH", &path, &json!({"customer": format!("us-{round}")}))?.expect(200)?;
        other.join().map_err(|_| anyhow::anyhow!("the other writer panicked"))??.expect(200)?;
    }
    eventually(SETTLE, || {
        let (a, b) = (us.get(&path)?.expect(200)?.value()?, asia.get(&path)?.expect(200)?.value()?);
        ensure!(a == b, "{a} is not {b}");
        Ok(())
    })?;
    let output = stack.meridian(&["conflicts", "list", "--json"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let conflicts: Value = serde_json::from_str(&output.stdout)?;
    let text = conflicts.to_string();
    let id = path.rsplit('/').next().context("a path has a last segment")?;
    ensure!(text.contains(id), "five races at one record left no conflict: {text}");
    Ok(())
}

fn a_deleted_record_stays_deleted(stack: &Stack) -> Result<()> {
    let us = writer(stack, "spin", "deleter", "us-east-1")?;
    let (path, session) = create(&us, &json!({"customer": "gone"}))?;
    for region in REGIONS {
        writer(stack, "spin", "deleter", region)?
            .with("meridian-session", &session)
            .get(&path)?
            .expect(200)?;
    }
    us.send("DELETE", &path)?.expect(204)?;
    for region in REGIONS {
        let reader = writer(stack, "spin", "deleter", region)?;
        eventually(SETTLE, || reader.get(&path)?.expect(404).map(drop))?;
    }
    Ok(())
}

fn residency_keeps_a_tenant_out(stack: &Stack) -> Result<()> {
    let token = stack.token("globex", "resident", "orders:read orders:write")?;
    let up = stack.up()?;
    let client = stack.edge("spin", "globex")?.bearer(&token).from(up.address_near("ap-southeast-1")?);
    let created = client.json("POST", RECORDS, &json!({"customer": "stays at home"}))?.expect(201)?;
    let region = created.header("meridian-region");
    ensure!(region != "ap-southeast-1", "a client in Asia was served in {region}, which residency forbids");
    let id = created.value()?["id"].as_str().context("id")?.to_owned();
    for region in ["us-east-1", "eu-west-1"] {
        let rows = eventually_rows(&up.origins[region].postgres, &id, 1);
        rows.with_context(|| format!("globex's record in {region}"))?;
    }
    // A later write of a tenant that may go there shows that the stream has passed the forbidden one.
    let (path, _) =
        create(&writer(stack, "spin", "marker", region_of(region)?)?, &json!({"customer": "marker"}))?;
    let marker = path.rsplit('/').next().context("a path has a last segment")?;
    eventually_rows(&up.origins["ap-southeast-1"].postgres, marker, 1)?;
    ensure!(rows(&up.origins["ap-southeast-1"].postgres, &id)? == 0, "globex's record is in Asia");
    let all = query(
        &up.origins["ap-southeast-1"].postgres,
        "select count(*) from meridian.record where tenant = 'globex'",
    )?;
    ensure!(all == 0, "{all} records of globex are in Asia");
    Ok(())
}

fn region_of(name: &str) -> Result<&'static str> {
    REGIONS.into_iter().find(|region| *region == name).with_context(|| format!("no region {name}"))
}

fn tenants_cannot_see_each_other(stack: &Stack) -> Result<()> {
    let (path, _) = create(&writer(stack, "spin", "owner", "us-east-1")?, &json!({"customer": "private"}))?;
    let token = stack.token("globex", "curious", "orders:read orders:write")?;
    for edge in EDGES {
        let curious = stack.edge(edge, "globex")?.bearer(&token);
        curious.get(&path)?.expect(404)?;
        curious.json("PATCH", &path, &json!({"customer": "mine"}))?.expect(404)?;
        // Its own token at the other tenant's host is no use either.
        stack.edge(edge, "acme")?.bearer(&token).get(&path)?.expect(401)?;
    }
    Ok(())
}

fn replication_status_names_every_peer(stack: &Stack) -> Result<()> {
    let output = stack.meridian(&["replication", "status", "--json"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let status: Value = serde_json::from_str(&output.stdout)?;
    for peer in ["eu-west-1", "ap-southeast-1"] {
        ensure!(status.to_string().contains(peer), "{status}");
    }
    ensure!(status.to_string().contains("lag_ms"), "{status}");
    Ok(())
}

fn a_region_whose_first_address_is_dead_serves(stack: &Stack) -> Result<()> {
    let url = stack.up()?.origins["eu-west-1"].url.clone();
    let double = |rules: String| rules.replace(&format!("[\"{url}\"]"), &format!("[\"{DEAD}\", \"{url}\"]"));
    with_platform(stack, double, || {
        EDGES.into_iter().try_for_each(|edge| serves_at_the_second_address(stack, edge))
    })
}

fn serves_at_the_second_address(stack: &Stack, edge: &str) -> Result<()> {
    let reader = writer(stack, edge, "addressed", "eu-west-1")?;
    eventually(SEEN_MAX, || {
        let reply = reader.get(&format!("{RECORDS}?limit=1"))?.expect(200)?;
        ensure!(reply.header("meridian-region") == "eu-west-1", "{edge}: {:?}", reply.headers);
        let mut told = String::new();
        eventually(EXPLAINED_MAX, || {
            let output = stack.meridian(&["rules", "explain", reply.header("meridian-decision")])?;
            ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
            told = output.stdout;
            Ok(())
        })?;
        ensure!(told.contains("address = 2"), "{edge}: {told}");
        Ok(())
    })?;
    Ok(())
}

fn eventually_rows(url: &str, id: &str, expected: i64) -> Result<()> {
    eventually(SETTLE, || {
        let found = rows(url, id)?;
        ensure!(found == expected, "{found} rows, not {expected}");
        Ok(())
    })
    .map(drop)
}

fn rows(url: &str, id: &str) -> Result<i64> {
    ensure!(id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{id} is no UUID");
    query(url, &format!("select count(*) from meridian.record where id = '{id}'"))
}

/// One number from a region's database, read as its superuser so that no policy hides a row.
pub fn query(url: &str, sql: &str) -> Result<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        let number = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(number)
    })
}
