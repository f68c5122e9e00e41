//! Regions that write at once end with the same bytes.

mod region;

use std::time::{Duration, Instant};

use meridian_cdc::PeerStatus;
use meridian_replica::Cursor;
use meridian_store::sqlx;
use meridian_store::{Fault, conflict, purge};
use region::{NAMES, PATIENCE, Region, World, eventually};
use serde_json::json;
use uuid::Uuid;

/// A small generator of choices: the same seed, the same run.
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_write_the_same_records_at_once() {
    let mut world = World::start(3).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(
            world.regions[0].create("acme", json!({"status": "new", "stock": 100, "tags": ["a"]})).await.id,
        );
    }
    world.settle().await;
    let sent = |world: &World| -> Vec<Vec<(u64, u64)>> {
        let numbers = |s: &PeerStatus| (s.sent_changes, s.connects);
        let sent = |region: &Region| region.replication().status().iter().map(numbers).collect();
        world.regions.iter().map(sent).collect()
    };
    let before = sent(&world);

    let started = Instant::now();
    let work = world.regions.iter().enumerate().map(|(at, region)| {
        let ids = &ids;
        async move {
            let mut choices = Choices(0x9e37_79b9_7f4a_7c15 + at as u64);
            let (mut added, mut written) = (vec![0i64; ids.len()], 0u64);
            for n in 0..120 {
                // The last two are only ever counted, so that their sum can be checked.
                let which = choices.next(ids.len() as u64) as usize;
                let done = match choices.next(if which < 10 { 8 } else { 1 }) {
                    0 => {
                        let delta = choices.next(9) as i64 - 4;
                        let done = region.patch("acme", ids[which], json!({"stock": {"$add": delta}})).await;
                        if done.is_ok() {
                            added[which] += delta;
                        }
                        written += u64::from(delta != 0 && done.is_ok());
                        continue;
                    }
                    1 => {
                        region
                            .patch("acme", ids[which], json!({"tags": {"$add": [format!("{at}-{n}")]}}))
                            .await
                    }
                    2 => region.patch("acme", ids[which], json!({"notes": {format!("k{}", n % 3): n}})).await,
                    3 if which < 2 => match region.delete("acme", ids[which]).await {
                        Ok(()) => {
                            written += 1;
                            continue;
                        }
                        Err(fault) => Err(fault),
                    },
                    4 => {
                        region.create("acme", json!({"status": format!("made in {at}")})).await;
                        written += 1;
                        continue;
                    }
                    _ => region.patch("acme", ids[which], json!({"status": format!("{at}-{n}")})).await,
                };
                match done {
                    Ok(_) => written += 1,
                    Err(Fault::NotFound { .. }) => {}
                    Err(fault) => panic!("{fault:?}"),
                }
            }
            (added, written)
        }
    });
    let done = futures_util::future::join_all(work).await;
    eprintln!("wrote in {:?}", started.elapsed());
    world.assert_equal().await;

    for which in 10..12 {
        let sum: i64 = 100 + done.iter().map(|(added, _)| added[which]).sum::<i64>();
        for region in &world.regions {
            let record = region.get("acme", ids[which]).await.unwrap();
            assert_eq!(record.fields["stock"], json!(sum), "every region's additions count");
        }
    }
    // Each row crossed each link once: nothing that was applied was sent on, nothing came back.
    let after = sent(&world);
    let reconnected = before.iter().flatten().zip(after.iter().flatten()).any(|(b, a)| b.1 != a.1);
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        for (before, after) in before.iter().zip(after) {
            let sent = after.0 - before.0;
            // A connection that broke, on a starved machine, sends again what was not acknowledged.
            assert!(sent == done[at].1 || reconnected && sent > done[at].1, "{} sent {sent}", NAMES[at]);
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_heals_conflicts_are_recorded_and_the_dead_stay_dead() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    let kept = a.create("acme", json!({"status": "new", "stock": 1})).await.id;
    let dead = a.create("acme", json!({"status": "new"})).await.id;
    let risen = a.create("acme", json!({"status": "new"})).await.id;
    world.settle().await;

    world.link(0, 1, false);
    b.patch("acme", kept, json!({"status": "b", "stock": {"$add": 5}})).await.unwrap();
    b.patch("acme", dead, json!({"status": "b"})).await.unwrap();
    a.delete("acme", risen).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    a.patch("acme", kept, json!({"status": "a", "stock": {"$add": 7}})).await.unwrap();
    a.delete("acme", dead).await.unwrap();
    b.patch("acme", risen, json!({"status": "later"})).await.unwrap();
    world.link(0, 1, true);
    world.assert_equal().await;

    for region in [a, b] {
        let record = region.get("acme", kept).await.unwrap();
        assert_eq!((&record.fields["status"], &record.fields["stock"]), (&json!("a"), &json!(13)));
        assert!(
            matches!(region.get("acme", dead).await, Err(Fault::NotFound { .. })),
            "an older update revives nothing"
        );
        assert_eq!(
            region.get("acme", risen).await.unwrap().fields["status"],
            json!("later"),
            "a later one does"
        );
        let classes: Vec<String> = {
            let mut found = conflict::list(&region.store, Some("acme"), 10).await.unwrap();
            found.sort_by(|x, y| x.class.cmp(&y.class));
            found.into_iter().map(|c| format!("{} {}", c.class, c.table_name)).collect()
        };
        assert_eq!(classes, ["update_delete record", "update_delete record", "update_update record"]);
    }
    let found = conflict::list(&b.store, Some("acme"), 10).await.unwrap();
    let both = found.iter().find(|c| c.class == "update_update").unwrap();
    assert_eq!(
        (&both.mine["fields"]["status"], &both.theirs["fields"]["status"]),
        (&json!("b"), &json!("a"))
    );
    assert_eq!(both.winner, "merged", "{}", both.reason);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_there_can_be_read_here_and_caches_are_told() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    let start = purge::since(&b.store, None).await.unwrap().next;
    let mut waits = Vec::new();
    for n in 0..100 {
        let begun = Instant::now();
        let id = a.create("acme", json!({"n": n})).await.id;
        let wanted: Cursor = [(1, a.store.position().await.unwrap())].into_iter().collect();
        b.replication().progress().wait_until(&wanted, PATIENCE).await.unwrap();
        waits.push(begun.elapsed());
        assert_eq!(b.get("acme", id).await.unwrap().fields["n"], json!(n));
        let told = b.hooks.lock().unwrap().iter().any(|applied| {
            applied.source == 1 && applied.purges.contains(&("acme".into(), format!("orders/{id}")))
        });
        assert!(told, "the cache hears of it before anyone reads");
    }
    waits.sort();
    eprintln!("write to visible elsewhere: p50 {:?}, p99 {:?}", waits[50], waits[98]);
    let purges = purge::since(&b.store, Some(start)).await.unwrap();
    assert!(purges.rows.iter().filter(|p| p.source == 1 && p.tag.starts_with("orders/")).count() == 100);

    // The writing region journals its own commits too, with their own positions.
    let id = a.create("acme", json!({})).await.id;
    let position = a.store.position().await.unwrap();
    eventually("the own commit is journalled", || async {
        let purges = purge::since(&a.store, Some(0)).await.unwrap();
        purges.rows.iter().any(|p| {
            p.source == 1
                && p.tag == format!("orders/{id}")
                && p.position > 0
                && p.position as u64 <= position
        })
    })
    .await;
    eventually("the cache hears of own commits", || async {
        a.hooks.lock().unwrap().iter().any(|applied| applied.source == 1)
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_arrives_whole() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    let mut sql = a.sql().await;
    let (looked, mut looking) = tokio::sync::watch::channel(false);
    let seen = tokio::spawn({
        let mut sql = b.sql().await;
        async move {
            let mut seen = std::collections::BTreeSet::new();
            let deadline = Instant::now() + PATIENCE;
            while !seen.contains(&30_000i64) && Instant::now() < deadline {
                let count: i64 =
                    sqlx::query_scalar("select count(*) from meridian.record where collection = 'bulk'")
                        .fetch_one(&mut sql)
                        .await
                        .unwrap();
                seen.insert(count);
                looked.send_replace(true);
            }
            seen
        }
    });
    looking.wait_for(|looked| *looked).await.unwrap();
    sqlx::query(
        "insert into meridian.record (tenant, collection, id, fields)
         select 'acme', 'bulk', gen_random_uuid(), jsonb_build_object('n', n, 'text', repeat('x', 200))
           from generate_series(1, 30000) n",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let seen: Vec<i64> = seen.await.unwrap().into_iter().collect();
    assert_eq!(seen, [0, 30_000], "all of it or nothing");
    world.assert_equal().await;
    let everything = purge::since(&world.regions[1].store, Some(0)).await.unwrap();
    assert!(everything.rows.iter().any(|p| p.source == 1 && p.tag == "*"), "too many tags become one");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_that_an_update_leaves_alone_arrive() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    // Not compressible, so that PostgreSQL stores it beside the row and leaves it out of the log.
    let large: String = (0..400).map(|_| Uuid::new_v4().to_string()).collect();
    let id = a.create("acme", json!({"large": large})).await.id;
    world.settle().await;
    sqlx::query("update meridian.record set updated_at = now() + interval '1 hour' where id = $1")
        .bind(id)
        .execute(&mut a.sql().await)
        .await
        .unwrap();
    world.assert_equal().await;
    assert_eq!(b.get("acme", id).await.unwrap().fields["large"], json!(large));
    world.stop().await;
}

/// A commit is in the log before others see it: here for as long as a standby is waited for that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_arrive_though_the_log_is_ahead_of_what_is_seen() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    let large: String = (0..400).map(|_| Uuid::new_v4().to_string()).collect();
    let id = a.create("acme", json!({"large": large})).await.id;
    world.settle().await;
    let mut sql = a.sql().await;
    let standby = async |sql: &mut sqlx::PgConnection, change: &'static str| {
        sqlx::query(change).execute(&mut *sql).await.unwrap();
        sqlx::query("select pg_reload_conf()").execute(sql).await.unwrap();
    };
    standby(&mut sql, "alter system set synchronous_standby_names = 'nobody'").await;
    let mut writer = a.sql().await;
    let update = tokio::spawn(async move {
        // Not before this connection has heard of it.
        while sqlx::query_scalar::<_, String>("show synchronous_standby_names")
            .fetch_one(&mut writer)
            .await
            .unwrap()
            != "nobody"
        {
            tokio::task::yield_now().await;
        }
        let update = "update meridian.record set updated_at = now() + interval '1 hour' where id = $1";
        sqlx::query(update).bind(id).execute(&mut writer).await.unwrap();
    });
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let sent = "select count(*) from pg_stat_replication where sent_lsn >= pg_current_wal_flush_lsn()";
    for what in [waits, sent] {
        eventually(what, async || a.count(what).await > 0).await;
    }
    standby(&mut sql, "alter system reset synchronous_standby_names").await;
    update.await.unwrap();
    world.assert_equal().await;
    assert_eq!(b.get("acme", id).await.unwrap().fields["large"], json!(large));
    world.stop().await;
}
