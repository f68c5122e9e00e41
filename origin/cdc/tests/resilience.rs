//! What goes wrong, and that nothing is lost, leaked or passed over.

mod region;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use meridian_store::record;
use meridian_store::sqlx::{self, Executor};
use meridian_store::{Access, Fault, Store};
use region::{World, eventually, object};
use serde_json::json;
use uuid::Uuid;

/// Writes until told to stop; returns the records whose commit was acknowledged, and counts them as it goes.
async fn write(
    store: Store,
    name: &'static str,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> Vec<Uuid> {
    let mut acknowledged = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let id = Uuid::now_v7();
        let one = async {
            let mut scope = store.begin(Access::Tenant("acme")).await?;
            let orders = store.collection(&mut scope, "orders").await?;
            record::create(&mut scope, &orders, Some(id), object(json!({"by": name, "n": n}))).await?;
            if let Some(before) = acknowledged.last() {
                record::patch(&mut scope, &orders, *before, object(json!({"next": n})), None).await?;
            }
            scope.commit().await
        };
        match one.await {
            Ok(()) => {
                acknowledged.push(id);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(fault) if fault.transient() => tokio::time::sleep(Duration::from_millis(20)).await,
            // A commit whose answer was lost may have happened; the record before is then changed or not.
            Err(Fault::NotFound { .. } | Fault::Database(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(fault) => panic!("{name}: {fault:?}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_origins_and_databases_are_killed() {
    let mut world = World::start(2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written: [Arc<AtomicUsize>; 2] = Default::default();
    let writer =
        |at: usize| write(world.regions[at].store.clone(), ["a", "b"][at], stop.clone(), written[at].clone());
    let writers: Vec<_> = (0..2).map(|at| tokio::spawn(writer(at))).collect();
    // Goes on once those whose database runs have written some more.
    let some_more = async |running: &[usize]| {
        let before: Vec<usize> = running.iter().map(|&at| written[at].load(Ordering::Relaxed)).collect();
        eventually("the writers get on", || async {
            running.iter().zip(&before).all(|(&at, before)| written[at].load(Ordering::Relaxed) > before + 10)
        })
        .await;
    };
    some_more(&[0, 1]).await;
    world.regions[1].crash_origin();
    some_more(&[0, 1]).await;
    world.regions[1].start_origin().await;
    some_more(&[0, 1]).await;
    world.regions[1].cluster.kill();
    some_more(&[0]).await;
    world.regions[1].cluster.run().await;
    some_more(&[0, 1]).await;
    world.regions[0].cluster.kill();
    world.regions[0].cluster.run().await;
    some_more(&[0, 1]).await;
    world.regions[0].crash_origin();
    world.regions[0].start_origin().await;
    some_more(&[0, 1]).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    world.assert_equal().await;
    for region in &world.regions {
        let found: i64 =
            sqlx::query_scalar("select count(*) from meridian.record where id = any($1) and not _deleted")
                .bind(&acknowledged)
                .fetch_one(&mut region.sql().await)
                .await
                .unwrap();
        assert_eq!(found as usize, acknowledged.len(), "in {}", region.cluster.node.region);
        assert_eq!(region.count("select count(*) from meridian.parked").await, 0);
    }
    eprintln!("{} acknowledged writes", acknowledged.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_bytes_never_go_where_it_forbids() {
    let mut world = World::start(3).await;
    let [us, eu, ap] = &world.regions[..] else { unreachable!() };
    let secret = "Rosebud-7391";
    let from_us = us.create("globex", json!({"note": secret})).await.id;
    let from_eu = eu.create("globex", json!({"note": secret})).await.id;
    // What everybody may know goes through both taps.
    us.create("acme", json!({"note": "from us"})).await;
    eu.create("acme", json!({"note": "from eu"})).await;
    world.assert_equal().await;
    assert_eq!(eu.get("globex", from_us).await.unwrap().fields["note"], json!(secret));
    for source in 0..2 {
        assert!(!world.taps[&(2, source)].heard(secret), "region {source} sent a forbidden tenant's bytes");
        assert!(world.taps[&(2, source)].heard("acme"));
    }
    assert!(us.replication().status()[1].withheld > 0);
    assert_eq!(ap.count("select count(*) from meridian.record where tenant = 'globex'").await, 0);

    // Admitted: what is there already is copied, from wherever it was written.
    let admit = "update meridian.tenant set allowed_regions = '{us-east-1,eu-west-1,ap-southeast-1}' where slug = 'globex'";
    us.sql().await.execute(admit).await.unwrap();
    eventually("the admitted tenant's records are in the third region", || async {
        ap.count("select count(*) from meridian.record where tenant = 'globex'").await == 2
    })
    .await;
    assert_eq!(ap.get("globex", from_eu).await.unwrap().fields["note"], json!(secret));

    // Expelled: nothing new is sent, also when the stream starts again.
    let expel = "update meridian.tenant set allowed_regions = '{us-east-1,eu-west-1}' where slug = 'globex'";
    us.sql().await.execute(expel).await.unwrap();
    world.settle().await;
    let later = "Xanadu-1188";
    us.create("globex", json!({"note": later})).await;
    world.link(0, 2, false);
    us.create("globex", json!({"note": later})).await;
    world.link(0, 2, true);
    world.settle().await;
    for source in 0..2 {
        assert!(!world.taps[&(2, source)].heard(later), "region {source} sent an expelled tenant's bytes");
    }

    // A stream that is late comes upon the admission when it has been taken back.
    world.link(1, 2, false);
    us.sql().await.execute(admit).await.unwrap();
    us.sql().await.execute(expel).await.unwrap();
    let latest = "Alhambra-5521";
    us.create("globex", json!({"note": latest})).await;
    world.settle().await;
    world.link(1, 2, true);
    eu.create("acme", json!({"note": "the stream has come this far"})).await;
    world.settle().await;
    assert!(!world.taps[&(2, 1)].heard(latest), "a late stream copied an expelled tenant");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_region_and_a_lost_slot_are_copied_whole() {
    let mut world = World::quiet(2).await;
    world.tenants().await;
    // The first region has a life before the second.
    world.regions[0].start_origin().await;
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(world.regions[0].create("acme", json!({"n": n, "stock": 1})).await.id);
    }
    world.regions[0].delete("acme", ids[0]).await.unwrap();
    world.regions[1].start_origin().await;
    world.assert_equal().await;
    eventually("the copy is followed by the log", || async {
        let status = world.regions[1].replication().status();
        (status[0].state, &status[0].detail) == ("streaming", &None)
    })
    .await;

    // The slot is lost while the second region is away; it also writes meanwhile.
    world.regions[1].stop_origin().await;
    let first = &world.regions[0];
    eventually("the slot is lost", || async {
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                     where slot_name = 'meridian_to_eu_west_1' and active_pid is null";
        // Refused while its reader of before is still there.
        let _ = first.sql().await.execute(drop).await;
        let slots = "select count(*) from pg_replication_slots where slot_name = 'meridian_to_eu_west_1'";
        first.count(slots).await == 0
    })
    .await;
    world.regions[0].patch("acme", ids[1], json!({"stock": {"$add": 10}})).await.unwrap();
    world.regions[1].patch("acme", ids[1], json!({"stock": {"$add": 100}})).await.unwrap();
    world.regions[0].delete("acme", ids[2]).await.unwrap();
    world.regions[0].create("acme", json!({"n": "after"})).await;
    world.regions[1].start_origin().await;
    world.assert_equal().await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    assert_eq!(b.get("acme", ids[1]).await.unwrap().fields["stock"], json!(111));
    assert!(matches!(b.get("acme", ids[2]).await, Err(Fault::NotFound { .. })));
    // And it goes on from there.
    let id = a.create("acme", json!({"n": "later"})).await.id;
    world.settle().await;
    assert!(b.get("acme", id).await.is_ok());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_applied_waits_and_holds_nothing_up() {
    let mut world = World::start(2).await;
    let [a, b] = &world.regions[..] else { unreachable!() };
    let table = "create table meridian.extra (tenant text not null, id uuid primary key, note text);
                 select meridian.enroll('meridian.extra', 'tenant');";
    a.migrate(table).await;
    a.sql()
        .await
        .execute("insert into meridian.extra values ('acme', gen_random_uuid(), 'first')")
        .await
        .unwrap();
    let id = a.create("acme", json!({"n": 1})).await.id;
    world.settle().await;
    assert!(b.get("acme", id).await.is_ok(), "what comes after is not held up");
    assert_eq!(b.count("select count(*) from meridian.parked where state = 'unknown_table'").await, 1);
    assert_eq!(b.replication().status()[0].parked, 1);

    b.migrate(table).await;
    eventually("the row arrives with its table", || async {
        b.count("select count(*) from meridian.extra").await == 1
            && b.count("select count(*) from meridian.parked").await == 0
    })
    .await;

    // A column that is not there yet.
    a.migrate("alter table meridian.extra add column colour text").await;
    a.sql().await.execute("insert into meridian.extra values ('acme', gen_random_uuid(), 'second', default, default, default, default, default, 'red')").await.unwrap();
    eventually("a row with an unknown column is set aside", || async {
        b.count("select count(*) from meridian.parked where state = 'unknown_column'").await == 1
    })
    .await;
    b.migrate("alter table meridian.extra add column colour text").await;
    eventually("the row arrives with its column", || async {
        b.count("select count(*) from meridian.extra where colour = 'red'").await == 1
    })
    .await;

    // A stamp from a clock that is an hour ahead.
    a.sql()
        .await
        .execute("set session_replication_role = replica;
                  update meridian.record set _stamp = _stamp + (3600000::bigint << 16) where collection = 'orders'")
        .await
        .unwrap();
    eventually("changes from the future are set aside", || async {
        b.count("select count(*) from meridian.parked where state = 'stamp_ahead'").await == 1
    })
    .await;
    world.stop().await;
}
