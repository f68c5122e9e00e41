//! Hostnames on a real PostgreSQL: how many there are makes no difference to finding one.

mod cluster;

use std::time::Duration;

use cluster::Cluster;
use meridian_store::sqlx::{self, Connection, Executor, PgConnection};
use meridian_store::{Access, Store, domain};

const HOSTNAMES: i64 = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_hostname_among_very_many_is_found_by_the_index() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let mut owner = PgConnection::connect(&cluster.superuser_url("meridian")).await.unwrap();
    sqlx::query(
        "insert into meridian.domain (hostname, tenant, created_at_ms)
         select 'shop-' || number || '.example', 'tenant-' || number % 1000, 0 from generate_series(1, $1) as number
         union all select '*.wild-' || number || '.example', 'wild', 0 from generate_series(1, $1 / 10) as number",
    )
    .bind(HOSTNAMES)
    .execute(&mut owner)
    .await
    .unwrap();
    let claim = "insert into meridian.domain (hostname, tenant, verification, created_at_ms)
                 values ('a.wild-7.example', 'claimant', 'pending', 0), ('new.example', 'claimant', 'failed', 0)";
    owner.execute(claim).await.unwrap();
    owner.execute("analyze meridian.domain").await.unwrap();
    let before = reads(&mut owner).await;

    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let mut scope = store.begin(Access::Control).await.unwrap();
    let mut found = Vec::new();
    for candidates in [
        &["shop-77777.example", "*.example"][..],
        &["a.wild-42.example", "*.wild-42.example", "*.example"],
        &["nobody.example", "*.example"],
        // What nobody has verified takes nothing from what somebody has.
        &["a.wild-7.example", "*.wild-7.example", "*.example"],
        &["new.example", "*.example"],
    ] {
        let candidates: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        found.push(domain::find(&mut scope, &candidates).await.unwrap().map(|domain| domain.tenant));
    }
    scope.commit().await.unwrap();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some("tenant-777"), Some("wild"), None, Some("wild"), Some("claimant")]);

    // A session reports what it did when it ends, which takes a moment.
    store.close().await;
    let after = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let after = reads(&mut owner).await;
            if after.by_index > before.by_index {
                return after;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let after = after.await.expect("no index was read");
    assert_eq!(after.whole, before.whole, "the table was read from end to end");
}

/// How often the table was read from end to end, and how often by an index.
struct Reads {
    whole: i64,
    by_index: i64,
}

async fn reads(owner: &mut PgConnection) -> Reads {
    owner.execute("select pg_stat_clear_snapshot()").await.unwrap();
    let sql = "select seq_scan, idx_scan from pg_stat_user_tables where relname = 'domain'";
    let (whole, by_index) = sqlx::query_as(sql).fetch_one(owner).await.unwrap();
    Reads { whole, by_index }
}
