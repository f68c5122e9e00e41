//! Which tenants have upstreams with health checks, on a real PostgreSQL.

mod cluster;

use cluster::Cluster;
use meridian_store::sqlx::{self, Connection, PgConnection};
use meridian_store::{Access, Fault, Store, release};

#[tokio::test(flavor = "multi_thread")]
async fn tenants_with_checks_are_found_among_very_many() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let mut owner = PgConnection::connect(&cluster.superuser_url("meridian")).await.unwrap();
    // Every thousandth has had a check once, in the second of its three releases; all the others only speak of one.
    sqlx::query(
        r#"insert into meridian.release
               (target, sequence, version, kind, files, bundle, ticket, created_by, created_at_ms)
           select case when number = 0 then 'platform' else 'tenant:t' || number end, sequence, 'v' || sequence,
                  'push', '[]',
                  case when number % 1000 = 0 and sequence = 2 then '{"spec":{"healthCheck":{}}}'
                       else '{"description":"\"healthCheck\":{"}' end,
                  't', 'test', 0
             from generate_series(0, 3000) as number, generate_series(1, 3) as sequence"#,
    )
    .execute(&mut owner)
    .await
    .unwrap();

    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let mut scope = store.begin(Access::Control).await.unwrap();
    let mut found = Vec::new();
    for after in ["", "tenant:t2000", "tenant:t3000"] {
        let heads = release::checked(&mut scope, after, 2).await.unwrap();
        assert!(heads.iter().all(|head| head.sequence == 3 && head.version == "v3"), "{heads:?}");
        found.push(heads.into_iter().map(|head| head.target).collect::<Vec<_>>());
    }
    let expected: [&[&str]; 3] = [&["tenant:t1000", "tenant:t2000"], &["tenant:t3000"], &[]];
    assert_eq!(found, expected);
    assert!(release::bundle(&mut scope, "tenant:t1000", 2).await.unwrap().contains("healthCheck"));
    let missing = release::bundle(&mut scope, "tenant:t1000", 4).await;
    assert!(matches!(missing, Err(Fault::NotFound { what: "release" })), "{missing:?}");
}
