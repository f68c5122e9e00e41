//! Tenants above and below one another, on a real PostgreSQL.

mod cluster;

use cluster::Cluster;
use meridian_store::tenant::{self, Tenant};
use meridian_store::{Access, Scope, Store};
use serde_json::json;

fn row(slug: &str, parent: Option<&str>, home_region: &str) -> Tenant {
    Tenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        state: "active".to_owned(),
        parent: parent.map(str::to_owned),
        suspended_by: None,
        home_region: home_region.to_owned(),
        allowed_regions: vec!["us-east-1".to_owned(), "eu-west-1".to_owned()],
        plan: None,
        created_at_ms: 1,
        updated_at_ms: 1,
    }
}

async fn suspend(scope: &mut Scope, slug: &str, state: &str) {
    let mut row = tenant::get_for_update(scope, slug).await.unwrap();
    row.state = state.to_owned();
    tenant::update(scope, &row).await.unwrap();
}

async fn unsettled(scope: &mut Scope, after: &str, limit: i64) -> Vec<String> {
    tenant::unsettled(scope, "us-east-1", after, limit).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn those_below_a_suspended_tenant_are_found_until_their_rows_say_so() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let store = Store::connect(&cluster.url("meridian_app"), 2).await.unwrap();
    let mut scope = store.begin(Access::Control).await.unwrap();
    for tenant in [
        row("partner", None, "eu-west-1"),
        row("org", Some("partner"), "us-east-1"),
        row("team", Some("org"), "us-east-1"),
        row("abroad", Some("partner"), "eu-west-1"),
        row("alone", None, "us-east-1"),
        // Its parent has not arrived here.
        row("early", Some("nobody-yet"), "us-east-1"),
    ] {
        tenant::create(&mut scope, &tenant).await.unwrap();
    }
    let above = tenant::above(&mut scope, Some("org")).await.unwrap();
    assert_eq!(above.iter().map(|tenant| &*tenant.slug).collect::<Vec<_>>(), ["org", "partner"]);
    assert_eq!(tenant::above(&mut scope, Some("nobody-yet")).await.unwrap(), []);
    assert!(unsettled(&mut scope, "", 9).await.is_empty());

    suspend(&mut scope, "partner", "suspended").await;
    assert_eq!(unsettled(&mut scope, "", 9).await, ["org", "team"]);
    assert_eq!(unsettled(&mut scope, "", 1).await, ["org"]);
    assert_eq!(unsettled(&mut scope, "org", 9).await, ["team"]);
    let mut org = tenant::get(&mut scope, "org").await.unwrap();
    assert!(org.is_served());
    org.suspended_by = Some("partner".to_owned());
    org.plan = Some(json!({"name": "business", "limits": [{"quota": 5, "window": "1m"}]}));
    tenant::update(&mut scope, &org).await.unwrap();
    assert!(!org.is_served());
    assert_eq!(tenant::get(&mut scope, "org").await.unwrap(), org);
    assert_eq!(unsettled(&mut scope, "", 9).await, ["team"]);

    // The nearest counts.
    suspend(&mut scope, "org", "suspended").await;
    let mut team = tenant::get(&mut scope, "team").await.unwrap();
    team.suspended_by = Some("org".to_owned());
    tenant::update(&mut scope, &team).await.unwrap();
    assert!(unsettled(&mut scope, "", 9).await.is_empty());
    suspend(&mut scope, "org", "active").await;
    suspend(&mut scope, "partner", "active").await;
    assert_eq!(unsettled(&mut scope, "", 9).await, ["org", "team"]);
    scope.commit().await.unwrap();
}
