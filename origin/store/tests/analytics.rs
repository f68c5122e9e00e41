//! Decisions, their days and their roll-ups on a real PostgreSQL, by a time that the test names.

mod cluster;

use cluster::Cluster;
use meridian_store::event::{self, Event, Filter, Page};
use meridian_store::limits::{ROLLUP_NAME_BYTES_MAX, ROLLUP_SERIES_MAX};
use meridian_store::rollup::{self, By, MINUTE_MS, Measure, OTHER, Total};
use meridian_store::sqlx::migrate::{Migration, MigrationType, Migrator};
use meridian_store::sqlx::{self, Connection, Executor, PgConnection, SqlSafeStr};
use meridian_store::{Access, Bootstrap, Fault, Store, bootstrap, migrate};
use serde_json::{Value, json};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// 2030-01-01, noon.
const NOON_MS: i64 = 21_915 * DAY_MS + DAY_MS / 2;

async fn opened() -> (Cluster, Store) {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 8).await.unwrap();
    keep(&store, NOON_MS, 7).await.unwrap();
    (cluster, store)
}

async fn keep(store: &Store, now_ms: i64, days: u16) -> Result<u32, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let dropped = event::keep(&mut scope, now_ms, days).await?;
    scope.commit().await?;
    Ok(dropped)
}

fn decision(id: &str, tenant: &str, at_ms: i64, measure: Measure) -> Event {
    let body = json!({"id": id, "route": measure.route, "outcome": measure.outcome, "status": measure.status,
        "explanation": [{"stage": "host"}]});
    let (tenant, participation) = (Some(tenant.into()), Value::Null);
    Event { decision: id.into(), tenant, edge: "e".into(), at_ms, measure, participation, body }
}

fn measure(route: &str, status: u16, elapsed_ms: u32) -> Measure {
    let outcome = if status == 403 { "denied" } else { "forwarded" };
    Measure {
        route: route.into(),
        outcome,
        status,
        cache: "",
        region: "us-east-1".into(),
        elapsed_ms,
        request_bytes: Some(2),
        response_bytes: (elapsed_ms < 50).then_some(100),
        weight: 1,
    }
}

async fn add(store: &Store, events: &[Event]) -> Result<Vec<usize>, Fault> {
    let mut scope = store.begin(Access::Control).await?;
    let new = event::add(&mut scope, events).await?;
    scope.commit().await?;
    Ok(new)
}

async fn totals(store: &Store, tenant: Option<&str>, by: By, limit: i64) -> Vec<Total> {
    let mut scope = store.begin(Access::Control).await.unwrap();
    rollup::totals(&mut scope, tenant, by, NOON_MS, NOON_MS + 5 * MINUTE_MS, limit).await.unwrap()
}

async fn days(cluster: &Cluster, table: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select right(c.relname, 8) from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = $1::text::regclass order by 1",
    )
    .bind(format!("meridian.{table}"))
    .fetch_all(&mut cluster.superuser().await)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_from_before_there_were_days_stay() {
    let cluster = Cluster::bare("us-east-1", 1).await;
    let password = || "only-for-tests".to_owned();
    let roles = Bootstrap {
        database: "meridian".into(),
        owner_password: password(),
        app_password: password(),
        replicator_password: password(),
    };
    bootstrap(&cluster.superuser_url("postgres"), &roles).await.unwrap();
    let mut owner = PgConnection::connect(&cluster.url("meridian_owner")).await.unwrap();
    owner.execute("set search_path = meridian").await.unwrap();
    let migrations = [
        (1, "foundation", include_str!("../migrations/0001_foundation.sql")),
        (2, "control", include_str!("../migrations/0002_control.sql")),
        (3, "protection", include_str!("../migrations/0003_protection.sql")),
    ]
    .map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.to_vec()).run(&mut owner).await.unwrap();
    owner
        .execute(
            "insert into meridian.event (decision, tenant, edge, at_ms, body)
             select id, 'acme', 'e', (date_part('epoch', now()) * 1000)::bigint - age, jsonb_build_object('id', id)
               from (values ('new', 0), ('old', 30::bigint * 86400000)) as x (id, age)",
        )
        .await
        .unwrap();
    migrate(&cluster.url("meridian_owner"), &cluster.node).await.unwrap();
    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let mut scope = store.begin(Access::Control).await.unwrap();
    assert_eq!(event::get(&mut scope, "new").await.unwrap().body, json!({"id": "new"}));
    assert!(matches!(event::get(&mut scope, "old").await, Err(Fault::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn days_come_before_they_begin_and_go_whole() {
    let (cluster, store) = opened().await;
    let first = days(&cluster, "event").await;
    let expected =
        ["20291225", "20291226", "20291227", "20291228", "20291229", "20291230", "20291231", "20300101"];
    assert_eq!(
        first,
        [&expected[..], &["20300102", "20300103"]].concat(),
        "what was of today before is gone"
    );
    assert_eq!(days(&cluster, "rollup").await.len(), 31 + 3);
    assert_eq!(keep(&store, NOON_MS, 7).await.unwrap(), 0, "again changes nothing");
    assert_eq!(days(&cluster, "event").await, first);

    let oldest = decision("old", "acme", NOON_MS - 7 * DAY_MS, measure("orders", 200, 1));
    let newest = decision("new", "acme", NOON_MS + DAY_MS, measure("orders", 200, 1));
    assert_eq!(add(&store, &[oldest.clone(), newest]).await.unwrap(), [0, 1]);
    let late = decision("late", "acme", NOON_MS - 8 * DAY_MS, measure("orders", 200, 1));
    let refused = add(&store, &[late]).await.unwrap_err();
    assert!(refused.sqlstate().is_some_and(|state| state.starts_with("23")), "of its rows: {refused}");

    // A day on, the oldest day goes with all that is in it, and nobody has to look for its rows.
    assert_eq!(keep(&store, NOON_MS + DAY_MS, 7).await.unwrap(), 2, "one of decisions, one of roll-ups");
    let second = days(&cluster, "event").await;
    assert_eq!((second[0].as_str(), second.last().unwrap().as_str()), ("20291226", "20300104"));
    let mut scope = store.begin(Access::Control).await.unwrap();
    assert!(matches!(event::get(&mut scope, "old").await, Err(Fault::NotFound { .. })));
    assert_eq!(event::get(&mut scope, "new").await.unwrap().body["explanation"][0]["stage"], "host");
    drop(scope);

    // A shorter time takes effect at once, and a reader in the way is not waited for.
    let mut reader = store.begin(Access::Control).await.unwrap();
    event::get(&mut reader, "new").await.unwrap();
    let refused = keep(&store, NOON_MS + DAY_MS, 1).await.unwrap_err();
    assert_eq!(refused.sqlstate().as_deref(), Some("55P03"), "lock_not_available: {refused}");
    drop(reader);
    assert_eq!(keep(&store, NOON_MS + DAY_MS, 1).await.unwrap(), 6);
    assert_eq!(days(&cluster, "event").await, ["20300101", "20300102", "20300103", "20300104"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_counts_once_however_often_it_is_reported() {
    let (_cluster, store) = opened().await;
    let batch = [
        decision("a", "acme", NOON_MS, measure("orders", 200, 3)),
        decision("b", "acme", NOON_MS + 59_999, measure("orders", 503, 70)),
        decision("c", "acme", NOON_MS + MINUTE_MS, measure("carts", 403, 6_000)),
        decision("d", "globex", NOON_MS, measure("orders", 200, 1)),
        decision("a", "acme", NOON_MS, measure("orders", 200, 3)),
    ];
    // Origins of one region write side by side; one of them twice, as after a lost answer.
    let (one, two) = tokio::join!(add(&store, &batch), add(&store, &batch));
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 4);
    assert_eq!(add(&store, &batch[..2]).await.unwrap(), [0usize; 0]);

    let routes = totals(&store, Some("acme"), By::Route, 10).await;
    let orders = Total {
        key: "orders".into(),
        requests: 2,
        unwritten: 0,
        failed: 1,
        elapsed_sum_ms: 73,
        elapsed_max_ms: 70,
        request_bytes: 4,
        response_bytes: 100,
        unmeasured: 1,
        buckets: [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    };
    assert_eq!(routes[0], orders);
    assert_eq!((routes[1].key.as_str(), routes[1].requests, routes[1].buckets[12]), ("carts", 1, 1));
    let keys = async |tenant, by| {
        let totals = totals(&store, tenant, by, 10).await;
        totals.into_iter().map(|total| (total.key, total.requests)).collect::<Vec<_>>()
    };
    assert_eq!(keys(None, By::Tenant).await, [("acme".into(), 3), ("globex".into(), 1)]);
    assert_eq!(
        keys(Some("acme"), By::Status).await,
        [("2xx".into(), 1), ("4xx".into(), 1), ("5xx".into(), 1)]
    );
    assert_eq!(keys(Some("acme"), By::Outcome).await, [("forwarded".into(), 2), ("denied".into(), 1)]);
    assert_eq!(keys(Some("acme"), By::Region).await, [("us-east-1".into(), 3)]);
    assert_eq!(totals(&store, None, By::Route, 1).await.len(), 1);
    // A later batch adds to what is there.
    add(&store, &[decision("e", "acme", NOON_MS + 1, measure("orders", 200, 3))]).await.unwrap();
    let routes = totals(&store, Some("acme"), By::Route, 1).await;
    assert_eq!((routes[0].requests, routes[0].elapsed_sum_ms, routes[0].buckets[2]), (3, 76, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_counts_for_those_that_were_sampled_out() {
    let (_cluster, store) = opened().await;
    let sampled =
        |route, status, elapsed_ms, weight| Measure { weight, ..measure(route, status, elapsed_ms) };
    let batch = [
        decision("a", "acme", NOON_MS, sampled("orders", 200, 3, 20)),
        decision("b", "acme", NOON_MS + 1, sampled("orders", 200, 8, 19)),
        decision("c", "acme", NOON_MS, sampled("orders", 503, 40, 1)),
        decision("d", "acme", NOON_MS, measure("carts", 200, 1)),
    ];
    add(&store, &batch[..2]).await.unwrap();
    add(&store, &batch).await.unwrap();
    let routes = totals(&store, Some("acme"), By::Route, 10).await;
    let orders = Total {
        key: "orders".into(),
        requests: 40,
        unwritten: 37,
        failed: 1,
        elapsed_sum_ms: 20 * 3 + 19 * 8 + 40,
        elapsed_max_ms: 40,
        request_bytes: 80,
        response_bytes: 4_000,
        unmeasured: 0,
        buckets: [0, 0, 20, 19, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    };
    assert_eq!(routes[0], orders);
    assert!(routes[0].is_estimate() && !routes[1].is_estimate());
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_nobody_can_mean_stop_at_the_most_that_there_can_be() {
    let (_cluster, store) = opened().await;
    let long = Measure { request_bytes: Some(u64::MAX), weight: 3, ..measure("orders", 200, 1) };
    for (id, at_ms) in [("a", NOON_MS), ("b", NOON_MS), ("c", NOON_MS + 60_000)] {
        add(&store, &[decision(id, "acme", at_ms, long.clone())]).await.unwrap();
    }
    let routes = totals(&store, Some("acme"), By::Route, 10).await;
    assert_eq!((routes[0].request_bytes, routes[0].response_bytes, routes[0].requests), (i64::MAX, 900, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_begins_a_bounded_number_of_series_a_minute() {
    let (cluster, store) = opened().await;
    let flood = |from: i64, to: i64| {
        let one = |number: i64| {
            decision(&format!("f{number}"), "acme", NOON_MS, measure(&format!("route-{number}"), 200, 1))
        };
        (from..to).map(one).collect::<Vec<_>>()
    };
    add(&store, &flood(0, ROLLUP_SERIES_MAX - 10)).await.unwrap();
    add(&store, &flood(ROLLUP_SERIES_MAX - 10, ROLLUP_SERIES_MAX + 1000)).await.unwrap();
    add(&store, &[decision("again", "acme", NOON_MS, measure("route-0", 200, 1))]).await.unwrap();
    let long = "x".repeat(ROLLUP_NAME_BYTES_MAX + 1);
    add(&store, &[decision("long", "acme", NOON_MS, measure(&long, 200, 1))]).await.unwrap();
    add(&store, &[decision("else", "globex", NOON_MS, measure("orders", 200, 1))]).await.unwrap();
    let series: Vec<(String, i64)> =
        sqlx::query_as("select tenant, count(*) from meridian.rollup group by tenant order by tenant")
            .fetch_all(&mut cluster.superuser().await)
            .await
            .unwrap();
    assert_eq!(series, [("acme".into(), ROLLUP_SERIES_MAX + 1), ("globex".into(), 1)]);
    let top = totals(&store, Some("acme"), By::Route, 2).await;
    assert_eq!((top[0].key.as_str(), top[0].requests), (OTHER, 1001));
    assert_eq!((top[1].key.as_str(), top[1].requests), ("route-0", 2), "a series that is there goes on");
    let all: i64 =
        totals(&store, Some("acme"), By::Outcome, 9).await.iter().map(|total| total.requests).sum();
    assert_eq!(all, ROLLUP_SERIES_MAX + 1002, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_follow_the_order_of_arrival() {
    let (_cluster, store) = opened().await;
    let page = async |filter: &Filter, after: Option<i64>, limit| {
        let mut scope = store.begin(Access::Control).await.unwrap();
        match after {
            Some(seq) => event::after(&mut scope, filter, seq, limit).await.unwrap(),
            None => event::newest(&mut scope, filter, limit).await.unwrap(),
        }
    };
    let ids = |page: &Page| {
        page.events.iter().map(|event| event.body["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let acme = Filter { tenant: Some("acme".into()), ..Filter::default() };
    assert_eq!(page(&acme, None, 5).await, Page { events: vec![], next: 0 });
    add(
        &store,
        &[
            decision("a", "acme", NOON_MS + 9, measure("orders", 200, 1)),
            decision("g", "globex", NOON_MS, measure("orders", 200, 1)),
            decision("b", "acme", NOON_MS, measure("carts", 403, 1)),
        ],
    )
    .await
    .unwrap();
    let newest = page(&acme, None, 5).await;
    assert_eq!(ids(&newest), ["a", "b"]);
    assert!(newest.events[0].body.get("explanation").is_none(), "a list is short");
    assert_eq!(ids(&page(&acme, None, 1).await), ["b"]);
    assert_eq!(ids(&page(&Filter::default(), None, 9).await), ["a", "g", "b"]);
    for (filter, expected) in [
        (Filter { route: Some("orders".into()), ..acme.clone() }, "a"),
        (Filter { outcome: Some("denied".into()), ..acme.clone() }, "b"),
        (Filter { status: Some((400, 499)), ..acme.clone() }, "b"),
        (Filter { status: Some((200, 200)), ..acme.clone() }, "a"),
    ] {
        assert_eq!(ids(&page(&filter, None, 5).await), [expected], "{filter:?}");
    }
    // What was decided earlier but arrives later is not missed, and a page that is full goes on where it ended.
    add(&store, &[decision("c", "acme", NOON_MS - DAY_MS, measure("orders", 200, 1))]).await.unwrap();
    add(&store, &[decision("d", "acme", NOON_MS, measure("orders", 200, 1))]).await.unwrap();
    let first = page(&acme, Some(newest.next), 1).await;
    assert_eq!(ids(&first), ["c"]);
    let second = page(&acme, Some(first.next), 5).await;
    assert_eq!(ids(&second), ["d"]);
    let end = page(&acme, Some(second.next), 5).await;
    assert_eq!(end, Page { events: vec![], next: second.next });
    // What a filter leaves out is passed over for good.
    let denied = Filter { outcome: Some("denied".into()), ..acme.clone() };
    assert_eq!(page(&denied, Some(newest.next), 5).await, Page { events: vec![], next: second.next });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_days_alone() {
    let (cluster, store) = opened().await;
    for tenant in ["acme", "globex"] {
        add(&store, &[decision(tenant, tenant, NOON_MS, measure("orders", 200, 1))]).await.unwrap();
    }
    let mut app = PgConnection::connect(&cluster.url("meridian_app")).await.unwrap();
    app.execute("set meridian.tenant = 'acme'").await.unwrap();
    for table in ["event", "event_20300101", "rollup", "rollup_20300101"] {
        let seen: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select tenant from meridian.{table}")))
                .fetch_all(&mut app)
                .await
                .unwrap();
        assert_eq!(seen, ["acme"], "{table}");
    }
    let odd =
        sqlx::query("select meridian.keep_days('meridian.record'::regclass, 1, 1)").execute(&mut app).await;
    assert!(odd.is_err(), "only these tables have days");
}
