//! What experiments count, on a real PostgreSQL.

mod cluster;

use cluster::Cluster;
use meridian_store::event::Event;
use meridian_store::experiment::{add, tallies, trim};
use meridian_store::limits::PARTICIPATION_AGE_MAX;
use meridian_store::rollup::Measure;
use meridian_store::{Access, Store, sqlx};
use serde_json::{Value, json};

const NOW_MS: i64 = 1_800_000_000_000;

fn event(tenant: &str, at_ms: i64, participation: Value) -> Event {
    let (decision, tenant, body) = ("d".to_owned(), Some(tenant.to_owned()), json!({}));
    Event { decision, tenant, edge: "e".to_owned(), at_ms, measure: Measure::default(), participation, body }
}

fn exposed(tenant: &str, at_ms: i64, unit: &str) -> Event {
    let exposure = json!({"experiment": "checkout", "version": "1", "unit": unit, "variant": "a"});
    event(tenant, at_ms, json!({"exposures": [exposure, exposure]}))
}

fn reached(at_ms: i64, unit: &str) -> Event {
    let conversion = json!({"experiment": "checkout", "version": "1", "unit": unit, "goal": "bought"});
    event("acme", at_ms, json!({"conversions": [conversion, conversion]}))
}

/// Units and conversions of variant `a` as a tenant sees them.
async fn seen(store: &Store, tenant: &str) -> (u64, u64) {
    let mut scope = store.begin(Access::Tenant(tenant)).await.unwrap();
    let tally = tallies(&mut scope, "acme", "checkout", "1").await.unwrap().remove("a").unwrap_or_default();
    (tally.units, tally.goals.get("bought").copied().unwrap_or(0))
}

async fn told(store: &Store, events: &[Event]) {
    let mut scope = store.begin(Access::Control).await.unwrap();
    add(&mut scope, events).await.unwrap();
    scope.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_counts_once_and_for_its_tenant_alone() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let batch =
        [exposed("acme", NOW_MS, "u1"), exposed("acme", NOW_MS + 1, "u1"), exposed("acme", NOW_MS, "u2")];
    told(&store, &batch).await;
    told(&store, &batch).await;
    told(&store, &[exposed("globex", NOW_MS, "u3"), event("acme", NOW_MS, json!({"exposures": "odd"}))])
        .await;
    assert_eq!(seen(&store, "acme").await, (2, 0));
    assert_eq!(seen(&store, "globex").await, (0, 0), "another tenant's rows do not exist");

    // Before its exposure, of nobody who was exposed, then with the exposure, and again.
    told(&store, &[reached(NOW_MS - 1, "u1"), reached(NOW_MS, "u9")]).await;
    assert_eq!(seen(&store, "acme").await, (2, 0));
    told(&store, &[reached(NOW_MS, "u1"), reached(NOW_MS + 5, "u1")]).await;
    told(&store, &[reached(NOW_MS + 9, "u1")]).await;
    assert_eq!(seen(&store, "acme").await, (2, 1));
}

/// All orders of these numbers.
fn orders(numbers: &[usize]) -> Vec<Vec<usize>> {
    if numbers.is_empty() {
        return vec![vec![]];
    }
    let with_first = |first: &usize| {
        let rest: Vec<usize> = numbers.iter().copied().filter(|number| number != first).collect();
        orders(&rest).into_iter().map(|rest| [vec![*first], rest].concat()).collect::<Vec<_>>()
    };
    numbers.iter().flat_map(with_first).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_arrival_changes_nothing() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    // What happens to a unit: when, and the variant of an exposure, or none for a conversion. Then whether the variant of
    // the earliest exposure, `a`, has converted.
    let (a, b) = (Some("a"), Some("b"));
    let stories = [
        ("reached before and after", [(5, a), (7, b), (3, None), (6, None)], 1),
        ("reached between the exposures", [(5, b), (2, a), (1, None), (3, None)], 1),
        ("reached before only", [(5, a), (5, b), (1, None), (4, None)], 0),
    ];
    let happened = |unit: &str, story: [(i64, Option<&str>); 4]| {
        story.map(|(at_ms, variant)| match variant {
            None => reached(NOW_MS + at_ms, unit),
            Some(variant) => {
                let exposure =
                    json!({"experiment": "checkout", "version": "1", "unit": unit, "variant": variant});
                event("acme", NOW_MS + at_ms, json!({"exposures": [exposure]}))
            }
        })
    };
    let (mut units, mut goals) = (0, 0);
    for (name, story, converted) in stories {
        for order in orders(&[0, 1, 2, 3]) {
            let unit = format!("{name} {order:?}");
            let events = happened(&unit, story);
            for place in order {
                told(&store, &events[place..=place]).await;
            }
            units += 1;
            goals += converted;
            assert_eq!(seen(&store, "acme").await, (units, goals), "{unit}");
        }
        let unit = format!("{name} at once");
        told(&store, &happened(&unit, story)).await;
        units += 1;
        goals += converted;
        assert_eq!(seen(&store, "acme").await, (units, goals), "{unit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_forgotten_some_at_once() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let events: Vec<Event> = ["u1", "u2", "u3"].map(|unit| exposed("acme", NOW_MS, unit)).into();
    told(&store, &events).await;
    told(&store, &[reached(NOW_MS, "u1")]).await;
    let age_ms = i64::try_from(PARTICIPATION_AGE_MAX.as_millis()).unwrap();
    for (now_ms, gone, left) in
        [(NOW_MS + age_ms, 0, 3), (NOW_MS + age_ms + 1, 2, 1), (NOW_MS + age_ms + 1, 1, 0), (i64::MAX, 0, 0)]
    {
        let mut scope = store.begin(Access::Control).await.unwrap();
        assert_eq!(trim(&mut scope, now_ms, 2).await.unwrap(), gone);
        scope.commit().await.unwrap();
        assert_eq!(seen(&store, "acme").await.0, left);
    }
    let mut superuser = cluster.superuser().await;
    let dead: i64 = sqlx::query_scalar("select count(*) from meridian.conversion where _deleted")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(dead, 1, "other regions hear of it");
}
