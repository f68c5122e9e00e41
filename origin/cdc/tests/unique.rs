//! Different rows that claim one unique value in several regions at once.

mod region;

use std::collections::BTreeMap;

use meridian_store::conflict;
use meridian_store::sqlx;
use region::{Region, World, eventually};
use uuid::Uuid;

const TABLE: &str = "create table meridian.shop (
         tenant text not null, id uuid primary key, slug varchar(60) not null, code text, number integer not null,
         note text not null default '');
     select meridian.enroll('meridian.shop', 'tenant');
     create unique index shop_slug on meridian.shop (tenant, lower(slug)) where not _deleted;
     create unique index shop_code on meridian.shop (code) where not _deleted;
     create unique index shop_number on meridian.shop (number) where not _deleted;";

/// Opens a shop; `None` when a value is taken here already.
async fn open(region: &Region, slug: &str, code: Option<&str>, number: i32) -> Option<Uuid> {
    let id = Uuid::new_v4();
    let done = sqlx::query("insert into meridian.shop values ('acme', $1, $2, $3, $4)")
        .bind(id)
        .bind(slug)
        .bind(code)
        .bind(number)
        .execute(&mut region.sql().await)
        .await;
    match done {
        Ok(_) => Some(id),
        Err(error) => {
            let taken = error.as_database_error().is_some_and(|error| error.is_unique_violation());
            assert!(taken, "{error}");
            None
        }
    }
}

type Shop = (String, Option<String>, i32, bool);

async fn shops(region: &Region) -> BTreeMap<Uuid, Shop> {
    let rows: Vec<(Uuid, String, Option<String>, i32, bool)> =
        sqlx::query_as("select id, slug, code, number, _deleted from meridian.shop")
            .fetch_all(&mut region.sql().await)
            .await
            .unwrap();
    rows.into_iter().map(|(id, slug, code, number, deleted)| (id, (slug, code, number, deleted))).collect()
}

async fn world() -> World {
    let world = World::start(3).await;
    for region in &world.regions {
        region.migrate(TABLE).await;
    }
    world
}

/// Waits until nothing is set aside anywhere and all regions hold the same.
async fn assert_settled(world: &World) {
    for region in &world.regions {
        eventually("every clash is settled", || async {
            world.settle().await;
            region.count("select count(*) from meridian.parked").await == 0
        })
        .await;
    }
    world.assert_equal().await;
}

fn cut(world: &World, open: bool) {
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.link(a, b, open);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earliest_claim_keeps_the_value_and_the_others_go_on_under_a_marked_one() {
    let mut world = world().await;
    let [us, eu, ap] = &world.regions[..] else { unreachable!() };
    cut(&world, false);
    // Each is written before the next begins, so their stamps are in this order on one machine's clock.
    let first = open(us, "Corner", Some("c1"), 1).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let second = open(eu, "corner", Some("c2"), 2).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let third = open(ap, "CORNER", Some("c2"), 3).await.unwrap();
    let other = open(ap, "other", None, 1).await.unwrap();
    cut(&world, true);
    assert_settled(&world).await;

    let found = shops(us).await;
    assert_eq!(found[&first], ("Corner".into(), Some("c1".into()), 1, false));
    let (slug, code, number, deleted) = &found[&second];
    assert!(slug.starts_with("corner~") && slug.ends_with(".2"), "{slug}");
    assert_eq!((code.as_deref(), *number, *deleted), (Some("c2"), 2, false), "other values stay");
    let (slug, code, number, deleted) = &found[&third];
    assert!(slug.starts_with("CORNER~") && slug.ends_with(".3"), "{slug}");
    assert!(code.as_ref().unwrap().starts_with("c2~"), "{code:?}");
    assert_eq!((*number, *deleted), (3, false));
    // A value that can neither be marked nor be null: the row is buried with all it holds.
    assert_eq!(found[&other], ("other".into(), None, 1, true));

    let mut reported = Vec::new();
    for region in [us, eu, ap] {
        reported.extend(conflict::list(&region.store, Some("acme"), 100).await.unwrap());
    }
    for id in [second, third, other] {
        let of: Vec<_> = reported.iter().filter(|c| c.key["id"] == id.to_string()).collect();
        assert!(of.iter().any(|c| c.class == "unique" && c.table_name == "shop"), "{id} is reported");
        for c in of.iter().filter(|c| c.class == "unique") {
            let loser = if c.winner == "mine" { &c.theirs } else { &c.mine };
            assert_eq!(loser["id"], id.to_string(), "{c:?}");
        }
    }

    // The loser is a row like any other: it can be given another name, in any region.
    sqlx::query("update meridian.shop set slug = 'corner-2' where id = $1")
        .bind(second)
        .execute(&mut ap.sql().await)
        .await
        .unwrap();
    assert_settled(&world).await;
    assert_eq!(shops(us).await[&second].0, "corner-2");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_order_all_regions_end_alike_and_no_row_is_lost() {
    let mut world = world().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut choose = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut opened: Vec<Uuid> = Vec::new();
    for round in 0..4 {
        // Another partition in every round, none in the last.
        for (at, (a, b)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
            world.link(a, b, round == 3 || at == round);
        }
        for n in 0..40 {
            let region = &world.regions[choose(3) as usize];
            let (slug, code) = (format!("s{}", choose(12)), format!("c{}", choose(12)));
            match choose(4) {
                0 | 1 => {
                    let code = (n % 3 > 0).then_some(code.as_str());
                    opened.extend(open(region, &slug, code, round as i32 * 1000 + n).await);
                }
                kind => {
                    let Some(id) = opened.get(choose(opened.len().max(1) as u64) as usize) else { continue };
                    let change = if kind == 2 { "slug = $2" } else { "note = $2" };
                    let statement =
                        format!("update meridian.shop set {change} where id = $1 and not _deleted");
                    // Taken here: nothing changes.
                    let _ = sqlx::query(sqlx::AssertSqlSafe(statement))
                        .bind(id)
                        .bind(slug)
                        .execute(&mut region.sql().await)
                        .await;
                }
            }
        }
    }
    assert_settled(&world).await;
    let found = shops(&world.regions[0]).await;
    for id in &opened {
        assert!(!found[id].3, "{id} is still there");
    }
    let marked = found.values().filter(|(slug, ..)| slug.contains('~')).count();
    assert!(marked > 0, "some claimed the same");
    world.stop().await;
}
