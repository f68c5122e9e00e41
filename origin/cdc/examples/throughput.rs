//! Measures how fast a region catches up, against PostgreSQL's own logical subscription reading the same log.
//!
//! `cargo run --profile stack -p meridian-cdc --example throughput [ROWS]`. Both sides start with the whole log before them, one
//! after the other, three rounds interleaved; the slot's start-up is part of both. Conflict handling is on: the
//! subscription has none.

#[path = "../tests/region/mod.rs"]
mod region;

use std::time::{Duration, Instant};

use meridian_replica::Cursor;
use meridian_store::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use region::World;
use region::cluster::Cluster;

const COLUMNS: &str = "tenant text collate \"C\" not null, collection text collate \"C\" not null, id uuid not null,
    fields jsonb not null, merge jsonb not null, created_at timestamptz(3) not null, updated_at timestamptz(3) not null,
    _stamp bigint not null, _region smallint not null, _base_stamp bigint not null, _base_region smallint not null,
    _deleted boolean not null, primary key (tenant, collection, id)";

#[tokio::main]
async fn main() {
    let rows: u64 = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(100_000);
    let mut world = World::quiet(2).await;
    world.tenants().await;
    world.regions[0].start_origin().await;
    world.regions[1].start_origin().await;
    world.settle().await;
    let plain = Cluster::bare("plain", 9).await;
    let mut subscriber = PgConnection::connect(&plain.superuser_url("postgres")).await.expect("a subscriber");
    let mut source = world.regions[0].sql().await;
    let port = world.regions[0].cluster.port;
    run(&mut subscriber, format!("create schema meridian; create table meridian.record ({COLUMNS})")).await;
    run(&mut subscriber, "alter system set wal_retrieve_retry_interval = '50ms'".to_owned()).await;
    run(&mut subscriber, "select pg_reload_conf()".to_owned()).await;
    run(
        &mut source,
        "create publication plain for table meridian.record with (publish = 'insert, update')".to_owned(),
    )
    .await;

    for (name, each) in
        [("one row a transaction", 1), ("100 rows a transaction", 100), ("one transaction", rows)]
    {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..3 {
            world.regions[1].stop_origin().await;
            let slot = format!("plain_{each}_{round}");
            run(&mut source, format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
                .await;
            let collection = format!("c{each}r{round}");
            run(
                &mut source,
                format!(
                    "do $$ begin for n in 1..{} loop
                         insert into meridian.record (tenant, collection, id, fields)
                         select 'acme', '{collection}', gen_random_uuid(), jsonb_build_object(
                             'status', 'open', 'customer', 'Ada Lovelace', 'total', m, 'lines', jsonb_build_array(m, n))
                           from generate_series(1, {each}) m;
                         commit;
                     end loop; end $$",
                    rows / each
                ),
            )
            .await;
            let position = world.regions[0].store.position().await.unwrap();
            let us = async |world: &mut World| {
                let begun = Instant::now();
                world.regions[1].start_origin().await;
                let wanted: Cursor = [(1, position)].into_iter().collect();
                let progress = world.regions[1].replication().progress();
                progress.wait_until(&wanted, Duration::from_secs(120)).await.expect("caught up");
                rows as f64 / begun.elapsed().as_secs_f64()
            };
            let them = async |subscriber: &mut PgConnection| {
                let begun = Instant::now();
                let count = format!("select count(*) from meridian.record where collection = '{collection}'");
                run(
                    subscriber,
                    format!(
                        "create subscription plain connection 'host=127.0.0.1 port={port} user=postgres \
                         password=only-for-tests dbname=meridian' publication plain \
                         with (create_slot = false, slot_name = '{slot}', copy_data = false)"
                    ),
                )
                .await;
                loop {
                    let found: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone()))
                        .fetch_one(&mut *subscriber)
                        .await
                        .unwrap();
                    if found as u64 >= rows {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let rate = rows as f64 / begun.elapsed().as_secs_f64();
                run(subscriber, "alter subscription plain disable".to_owned()).await;
                run(subscriber, "alter subscription plain set (slot_name = none)".to_owned()).await;
                run(subscriber, "drop subscription plain".to_owned()).await;
                rate
            };
            ours.push(us(&mut world).await);
            theirs.push(them(&mut subscriber).await);
        }
        let median = |rates: &mut Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        println!(
            "{name}: {ours:.0} rows/s, PostgreSQL's subscription {theirs:.0} rows/s, ratio {:.2}",
            ours / theirs
        );
    }
    // What stamping costs the writer: the same rows into the enrolled table and into a plain one, with nobody reading
    // the log meanwhile.
    world.stop().await;
    for (name, statements, rows) in
        [("bulk insert", 1, 50_000), ("single inserts", 2000, 1), ("update of all", 1, 0)]
    {
        let (mut enrolled, mut plainly) = (Vec::new(), Vec::new());
        for round in 0..3 {
            for (connection, times) in [(&mut source, &mut enrolled), (&mut subscriber, &mut plainly)] {
                let statement = if rows == 0 {
                    "update meridian.record set updated_at = now() where collection = 'w1-0'".to_owned()
                } else {
                    format!(
                        "insert into meridian.record (tenant, collection, id, fields, merge, created_at, updated_at,
                             _stamp, _region, _base_stamp, _base_region, _deleted)
                         select 'acme', 'w{statements}-{round}', gen_random_uuid(), '{{\"status\": \"open\"}}', '{{}}', now(),
                             now(), 1, 1, 0, 0, false from generate_series(1, {rows})"
                    )
                };
                let begun = Instant::now();
                for _ in 0..statements {
                    run(connection, statement.clone()).await;
                }
                times.push(begun.elapsed().as_secs_f64());
            }
        }
        enrolled.sort_by(f64::total_cmp);
        plainly.sort_by(f64::total_cmp);
        println!("{name}: enrolled takes {:.2} times as long as plain", enrolled[1] / plainly[1]);
    }
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.expect("a statement");
}
