//! Records, row-level security, stamps and the purge journal on a real PostgreSQL.

mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::Cluster;
use meridian_store::record::{self, Query};
use meridian_store::sqlx::{self, Connection, Executor, PgConnection};
use meridian_store::{Access, Collection, Declaration, Fault, Merge, Scope, Store, purge};
use serde_json::{Map, Value, json};

fn orders() -> Declaration {
    Declaration {
        name: "orders".into(),
        json_schema: json!({"type": "object", "required": ["status"], "properties": {
            "status": {"enum": ["open", "paid"]}, "total": {"type": "number"}}}),
        merge: BTreeMap::from([
            ("stock".into(), Merge::Counter),
            ("tags".into(), Merge::Set),
            ("notes".into(), Merge::Map),
        ]),
    }
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

async fn opened(store: &Store, tenant: &str) -> (Scope, std::sync::Arc<Collection>) {
    let mut scope = store.begin(Access::Tenant(tenant)).await.unwrap();
    let collection = store.collection(&mut scope, "orders").await.unwrap();
    (scope, collection)
}

async fn declared() -> (Cluster, Store) {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 8).await.unwrap();
    for tenant in ["acme", "globex"] {
        let mut scope = store.begin(Access::Control).await.unwrap();
        store.declare_collection(&mut scope, tenant, &orders()).await.unwrap();
        scope.commit().await.unwrap();
    }
    (cluster, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_lives() {
    let (cluster, store) = declared().await;
    store.ready().await.unwrap();
    let (mut scope, orders) = opened(&store, "acme").await;
    let made = record::create(
        &mut scope,
        &orders,
        None,
        fields(json!({"status": "open", "total": 12.5, "stock": 10, "tags": ["b", "a"], "notes": {"x": 1}})),
    )
    .await
    .unwrap();
    assert_eq!(made.fields["tags"], json!(["a", "b"]));
    assert_eq!(record::get(&mut scope, &orders, made.id).await.unwrap(), made);

    let patch = json!({"status": "paid", "stock": {"$add": -3}, "tags": {"$add": ["c"], "$remove": ["a"]}, "notes": {"x": null, "y": 2}});
    let changed =
        record::patch(&mut scope, &orders, made.id, fields(patch), Some(&made.version)).await.unwrap();
    assert_eq!(
        Value::Object(changed.fields.clone()),
        json!({"status": "paid", "total": 12.5, "stock": 7, "tags": ["b", "c"], "notes": {"y": 2}})
    );
    assert_ne!(changed.version, made.version);
    let same =
        record::patch(&mut scope, &orders, made.id, fields(json!({"status": "paid"})), None).await.unwrap();
    assert_eq!(same.version, changed.version, "a patch that changes nothing writes nothing");

    let stale =
        record::patch(&mut scope, &orders, made.id, fields(json!({"total": 1})), Some(&made.version)).await;
    assert!(matches!(stale, Err(Fault::Version { .. })));
    let wrong = record::patch(&mut scope, &orders, made.id, fields(json!({"status": "lost"})), None).await;
    assert!(matches!(wrong, Err(Fault::Invalid(_))));
    let removed = record::patch(&mut scope, &orders, made.id, fields(json!({"stock": null})), None).await;
    assert!(matches!(removed, Err(Fault::Invalid(_))));

    record::delete(&mut scope, &orders, made.id, Some(&changed.version)).await.unwrap();
    assert!(matches!(record::get(&mut scope, &orders, made.id).await, Err(Fault::NotFound { .. })));
    assert!(matches!(record::delete(&mut scope, &orders, made.id, None).await, Err(Fault::NotFound { .. })));
    scope.commit().await.unwrap();

    let (mut scope, orders) = opened(&store, "acme").await;
    let again = record::create(&mut scope, &orders, Some(made.id), fields(json!({"status": "open"}))).await;
    assert!(matches!(again, Err(Fault::Exists { what: "record" })), "ids are not used twice: {again:?}");
    drop(scope);
    let dead: bool = sqlx::query_scalar("select _deleted from meridian.record where id = $1")
        .bind(made.id)
        .fetch_one(&mut cluster.superuser().await)
        .await
        .unwrap();
    assert!(dead, "the tombstone stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_filter_order_and_page() {
    let (_cluster, store) = declared().await;
    let (mut scope, orders) = opened(&store, "acme").await;
    for n in 0..30 {
        let status = if n % 3 == 0 { "paid" } else { "open" };
        let tags: Vec<String> = vec![format!("t{}", n % 2)];
        let made = fields(json!({"status": status, "total": n % 7, "tags": tags}));
        record::create(&mut scope, &orders, None, made).await.unwrap();
    }
    let totals = |records: &[record::Record]| -> Vec<i64> {
        records.iter().map(|r| r.fields["total"].as_i64().unwrap()).collect()
    };
    let base = [("status", "open"), ("total[gte]", "2"), ("tags", "t1"), ("order", "-total"), ("limit", "3")];
    let mut seen = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut cursor = String::new();
    loop {
        let mut pairs = base.to_vec();
        if !cursor.is_empty() {
            pairs.push(("cursor", &cursor));
        }
        let page = record::list(&mut scope, &orders, &Query::parse(pairs, &orders).unwrap()).await.unwrap();
        assert!(page.records.len() <= 3);
        seen.extend(totals(&page.records));
        ids.extend(page.records.iter().map(|r| r.id));
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let mut expected: Vec<i64> =
        (0..30).filter(|n| n % 3 != 0 && n % 2 == 1 && n % 7 >= 2).map(|n| n % 7).collect();
    expected.sort_by_key(|n| -n);
    assert_eq!(seen, expected);
    assert_eq!(ids.len(), expected.len());

    let query = Query::parse([("created_at[lt]", "2020-13-45"), ("limit", "1")], &orders).unwrap();
    assert!(matches!(record::list(&mut scope, &orders, &query).await, Err(Fault::Query(_))));
    drop(scope);
    let (mut scope, orders) = opened(&store, "acme").await;
    let query = Query::parse(
        [("created_at[gt]", "2020-01-01T00:00:00Z"), ("order", "-created_at"), ("limit", "200")],
        &orders,
    );
    let page = record::list(&mut scope, &orders, &query.unwrap()).await.unwrap();
    assert_eq!((page.records.len(), page.next), (0, None), "the first scope was rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_all_or_nothing() {
    let (_cluster, store) = declared().await;
    let (mut scope, orders) = opened(&store, "acme").await;
    let operations: Vec<record::Operation> = serde_json::from_value(json!([
        {"op": "create", "record": {"status": "open"}},
        {"op": "create", "record": {"status": "nowhere"}}
    ]))
    .unwrap();
    let failed = record::batch(&mut scope, &orders, &operations).await;
    assert!(matches!(failed, Err(Fault::At { index: 1, .. })), "{failed:?}");
    drop(scope);
    let (mut scope, orders) = opened(&store, "acme").await;
    let all = Query::parse([], &orders).unwrap();
    assert!(record::list(&mut scope, &orders, &all).await.unwrap().records.is_empty());
    record::batch(&mut scope, &orders, &operations[..1]).await.unwrap();
    scope.commit().await.unwrap();
    let (mut scope, orders) = opened(&store, "acme").await;
    assert_eq!(record::list(&mut scope, &orders, &all).await.unwrap().records.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tenants_do_not_exist() {
    let (cluster, store) = declared().await;
    let (mut scope, orders) = opened(&store, "acme").await;
    let made = record::create(&mut scope, &orders, None, fields(json!({"status": "open"}))).await.unwrap();
    scope.commit().await.unwrap();

    let (mut other, orders) = opened(&store, "globex").await;
    assert!(matches!(record::get(&mut other, &orders, made.id).await, Err(Fault::NotFound { .. })));
    let count: i64 =
        sqlx::query_scalar("select count(*) from meridian.record").fetch_one(other.conn()).await.unwrap();
    assert_eq!(count, 0, "another tenant's rows are invisible even without a condition");
    let written = other.conn().execute("insert into meridian.record (tenant, collection, id, fields) values ('acme', 'orders', gen_random_uuid(), '{}')").await;
    assert!(
        matches!(written.map_err(Fault::from), Err(Fault::Refused(_))),
        "a row of another tenant is refused"
    );
    drop(other);

    let mut app = PgConnection::connect(&cluster.url("meridian_app")).await.unwrap();
    let count: i64 =
        sqlx::query_scalar("select count(*) from meridian.record").fetch_one(&mut app).await.unwrap();
    assert_eq!(count, 0, "without a tenant there is nothing");
    for forbidden in [
        "set session_replication_role = replica",
        "update meridian.node set ordinal = 9",
        "truncate meridian.record",
        "alter table meridian.record disable row level security",
        "delete from meridian.cursor",
    ] {
        assert!(app.execute(forbidden).await.is_err(), "{forbidden}");
    }
    let mut control = store.begin(Access::Control).await.unwrap();
    let count: i64 =
        sqlx::query_scalar("select count(*) from meridian.record").fetch_one(control.conn()).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stamps_grow_under_concurrency_restart_and_clocks_that_step_back() {
    let (mut cluster, store) = declared().await;
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                let (mut scope, orders) = opened(&store, "acme").await;
                record::create(&mut scope, &orders, None, fields(json!({"status": "open"}))).await.unwrap();
                scope.commit().await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (rows, stamps, ahead_ms, highest): (i64, i64, f64, i64) = sqlx::query_as(
        "select count(*), count(distinct _stamp),
                max(abs((_stamp >> 16) - extract(epoch from created_at) * 1000))::float8, max(_stamp) from meridian.record",
    )
    .fetch_one(&mut cluster.superuser().await)
    .await
    .unwrap();
    assert_eq!((rows, stamps), (200, 200), "every stamp is unique");
    assert!(ahead_ms < 500.0, "stamps follow the wall clock: {ahead_ms} ms off");

    // A stamp of the future was applied (as if the wall clock had stepped back since), and the server crashes.
    let future = highest + (60_000 << 16);
    let mut superuser = cluster.superuser().await;
    sqlx::query("select meridian.observe($1)").bind(future).execute(&mut superuser).await.unwrap();
    superuser.execute("checkpoint").await.unwrap();
    cluster.kill();
    cluster.run().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut superuser = cluster.superuser().await;
    let mut last = future;
    for _ in 0..3 {
        let tick: i64 = sqlx::query_scalar("select meridian.tick()").fetch_one(&mut superuser).await.unwrap();
        assert!(tick > last);
        last = tick;
    }
    // A write of a row is above what the row was, whatever the clock says.
    let (base, stamp): (i64, i64) = sqlx::query_as(
        "update meridian.record set fields = fields where id = (select id from meridian.record limit 1)
         returning _base_stamp, _stamp",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert!(stamp > base && base > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolled_tables_bury_and_revive() {
    let (cluster, store) = declared().await;
    let mut control = store.begin(Access::Control).await.unwrap();
    let insert = "insert into meridian.tenant (slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms)
                  values ('initech', '', 'active', 'us-east-1', '{us-east-1}', 1, 1)";
    control.conn().execute(insert).await.unwrap();
    control.conn().execute("delete from meridian.tenant where slug = 'initech'").await.unwrap();
    let visible: i64 = sqlx::query_scalar("select count(*) from meridian.tenant where slug = 'initech'")
        .fetch_one(control.conn())
        .await
        .unwrap();
    assert_eq!(visible, 0);
    let mut superuser = cluster.superuser().await;
    control.commit().await.unwrap();
    let (deleted, buried): (bool, i64) =
        sqlx::query_as("select _deleted, _stamp from meridian.tenant where slug = 'initech'")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert!(deleted);
    let mut control = store.begin(Access::Control).await.unwrap();
    control.conn().execute(insert).await.unwrap();
    control.commit().await.unwrap();
    let (deleted, base): (bool, i64) =
        sqlx::query_as("select _deleted, _base_stamp from meridian.tenant where slug = 'initech'")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert_eq!((deleted, base), (false, buried), "the new row is based on the tombstone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_purge_journal_keeps_its_order() {
    let (cluster, store) = declared().await;
    let tag = |tenant: &str, tag: &str| (tenant.to_owned(), tag.to_owned());
    let start = purge::since(&store, None).await.unwrap();
    assert!(start.reset && start.rows.is_empty());
    // The first writer holds the journal; the second can't overtake it.
    let mut first = store.begin(Access::Control).await.unwrap();
    purge::manual(&mut first, &[tag("acme", "orders")], false).await.unwrap();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut second = store.begin(Access::Control).await.unwrap();
            purge::manual(&mut second, &[tag("globex", "orders"), tag("globex", "*")], true).await.unwrap();
            second.commit().await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    assert!(purge::since(&store, Some(start.next)).await.unwrap().rows.is_empty());
    first.commit().await.unwrap();
    second.await.unwrap();
    let purges = purge::since(&store, Some(start.next)).await.unwrap();
    let seen: Vec<(&str, &str, bool)> =
        purges.rows.iter().map(|p| (p.tenant.as_str(), p.tag.as_str(), p.soft)).collect();
    assert_eq!(seen, [("acme", "orders", false), ("globex", "orders", true), ("globex", "*", true)]);
    assert!(purge::since(&store, Some(purges.next + 1)).await.unwrap().reset, "a cursor of another database");

    let mut superuser = cluster.superuser().await;
    superuser
        .execute("update meridian.purge set at_ms = 1 where tenant = 'acme' or tag = 'orders'")
        .await
        .unwrap();
    let mut control = store.begin(Access::Control).await.unwrap();
    assert_eq!(purge::trim(&mut control, 10).await.unwrap(), 1);
    control.commit().await.unwrap();
    assert!(
        purge::since(&store, Some(start.next)).await.unwrap().reset,
        "what was trimmed may have been missed"
    );
    assert_eq!(purge::since(&store, Some(purges.next - 1)).await.unwrap().rows.len(), 1);
}

/// Tables that hold nothing of a tenant, so that row-level security would protect nothing.
const OF_NO_TENANT: [&str; 4] = ["_sqlx_migrations", "cursor", "enrolled", "node"];

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_without_row_level_security() {
    let (cluster, store) = declared().await;
    let mut superuser = cluster.superuser().await;
    let tables: Vec<(String, bool, bool, bool, bool)> = sqlx::query_as(
        "select c.relname, c.relrowsecurity, c.relforcerowsecurity,
                exists (select from pg_policy p where p.polrelid = c.oid and p.polroles @> array['meridian_app'::regrole::oid]),
                exists (select from pg_attribute a
                         where a.attrelid = c.oid and a.attname = 'tenant' and not a.attisdropped)
           from pg_class c
          where c.relnamespace = 'meridian'::regnamespace and c.relkind in ('r', 'p', 'f', 'v', 'm') order by 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert!(tables.iter().any(|(table, .., tenant)| table == "purge" && *tenant), "{tables:?}");
    for (table, enabled, forced, policy, tenant) in tables {
        if OF_NO_TENANT.contains(&table.as_str()) {
            assert!(!tenant, "{table} has a tenant");
        } else {
            assert!(
                enabled && forced && policy,
                "{table}: enabled {enabled}, forced {forced}, policy {policy}"
            );
        }
    }
    let exempt: i64 = sqlx::query_scalar(
        "select count(*) from pg_roles where rolname like 'meridian%' and (rolbypassrls or rolsuper)",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(exempt, 0, "no role of Meridian is above row-level security");

    let mut control = store.begin(Access::Control).await.unwrap();
    for tenant in ["acme", "globex"] {
        purge::manual(&mut control, &[(tenant.into(), "orders".into())], false).await.unwrap();
    }
    control.commit().await.unwrap();
    let journal = "select coalesce(string_agg(tenant, ',' order by tenant), '') from meridian.purge";
    for (access, expected) in [
        (Access::Tenant("acme"), "acme"),
        (Access::Tenant("nobody"), ""),
        (Access::Tenant("o'\\' or true --"), ""),
        (Access::Control, "acme,globex"),
    ] {
        let mut scope = store.begin(access).await.unwrap();
        let seen: String = sqlx::query_scalar(journal).fetch_one(scope.conn()).await.unwrap();
        assert_eq!(seen, expected, "{access:?}");
    }
    let mut app = PgConnection::connect(&cluster.url("meridian_app")).await.unwrap();
    let seen: String = sqlx::query_scalar(journal).fetch_one(&mut app).await.unwrap();
    assert_eq!(seen, "", "without a tenant there is nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_and_migrate_can_be_repeated_but_a_region_keeps_its_name() {
    let (cluster, _store) = declared().await;
    meridian_store::migrate(&cluster.url("meridian_owner"), &cluster.node).await.unwrap();
    let mut other = cluster.node.clone();
    other.ordinal = 2;
    let refused = meridian_store::migrate(&cluster.url("meridian_owner"), &other).await;
    assert!(matches!(refused, Err(Fault::Node { .. })));
    for ordinal in [0, 256] {
        other.ordinal = ordinal;
        let refused = meridian_store::migrate(&cluster.url("meridian_owner"), &other).await;
        let refused = refused.unwrap_err().to_string();
        assert_eq!(refused, "invalid region ordinal: expected a number from 1 to 255", "{ordinal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tombstones_that_everybody_has_passed_are_collected() {
    let (cluster, store) = declared().await;
    let (mut scope, orders) = opened(&store, "acme").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            record::create(&mut scope, &orders, None, fields(json!({"status": "open"}))).await.unwrap().id,
        );
    }
    record::delete(&mut scope, &orders, ids[0], None).await.unwrap();
    scope.commit().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (mut scope, orders) = opened(&store, "acme").await;
    record::delete(&mut scope, &orders, ids[1], None).await.unwrap();
    scope.commit().await.unwrap();
    let mut superuser = cluster.superuser().await;
    let second_ms: i64 = sqlx::query_scalar("select _stamp >> 16 from meridian.record where id = $1")
        .bind(ids[1])
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let mut replicator = PgConnection::connect(&cluster.url("meridian_replicator")).await.unwrap();
    let collected =
        meridian_store::apply::collect_tombstones(&mut replicator, second_ms as u64).await.unwrap();
    assert_eq!(collected, 1);
    let left: i64 =
        sqlx::query_scalar("select count(*) from meridian.record").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(left, 2);
}
