//! Tenants below tenants, their plans, and hostnames on their way, over HTTP.

mod support;

use http::{Method, StatusCode};
use meridian_origin::limits::LINEAGE_AT_ONCE_MAX;
use meridian_store::sqlx;
use serde_json::{Value, json};
use support::{Region, Reply, until};

const ROUTES: &str = "apiVersion: meridian/v1
kind: Route
metadata: { name: a }
spec: { match: { path: /a }, auth: { mode: anonymous } }
---
apiVersion: meridian/v1
kind: Route
metadata: { name: b }
spec: { match: { path: /b }, auth: { mode: anonymous } }
";

/// The `Tenant` and the `Domain` documents of the newest release.
async fn released(region: &Region, slug: &str) -> Vec<Value> {
    let target = format!("/targets/tenant:{slug}");
    let head = region.control(Method::GET, &format!("{target}/head"), None).await.json();
    let version = head["version"].as_str().unwrap().to_owned();
    let release = region.control(Method::GET, &format!("{target}/releases/{version}"), None).await.json();
    let documents = release["bundle"]["documents"].as_array().unwrap().clone();
    let of_tables = |document: &Value| matches!(document["kind"].as_str(), Some("Tenant" | "Domain"));
    documents.into_iter().filter(of_tables).collect()
}

async fn tenant_spec(region: &Region, slug: &str) -> Value {
    let documents = released(region, slug).await;
    documents.into_iter().find(|document| document["kind"] == "Tenant").unwrap()["spec"].clone()
}

async fn push(region: &Region, slug: &str) -> Reply {
    let target = format!("/targets/tenant:{slug}");
    let head = region.control(Method::GET, &format!("{target}/head"), None).await.json();
    let body = json!({"parent": head["version"], "files": [{"path": "routes.yaml", "content": ROUTES}], "note": null});
    region.control(Method::POST, &format!("{target}/releases"), Some(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_below_a_suspended_tenant_is_suspended_and_served_again_with_it() {
    let region = Region::alone().await;
    region.tenant("partner").await;
    let make = async |slug: &str, parent: &str| {
        let tenant = json!({"slug": slug, "name": slug, "home_region": "us-east-1", "parent": parent});
        region.control(Method::POST, "/tenants", Some(&tenant)).await
    };
    assert_eq!(make("org", "partner").await.status, StatusCode::CREATED);
    let team = make("team", "org").await;
    assert_eq!((team.status, &team.json()["parent"]), (StatusCode::CREATED, &json!("org")), "{team:?}");
    for (slug, parent) in [("deep", "team"), ("orphan", "nobody"), ("own", "own")] {
        let refused = make(slug, parent).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{slug}: {refused:?}");
        assert_eq!(refused.json()["errors"][0]["path"], "parent");
    }
    let moved = region.control(Method::PATCH, "/tenants/team", Some(&json!({"parent": "partner"}))).await;
    assert_eq!(moved.status, StatusCode::UNPROCESSABLE_ENTITY, "a parent is given once: {moved:?}");

    let state = json!({"state": "suspended"});
    let suspended = region.control(Method::PATCH, "/tenants/partner", Some(&state)).await;
    assert_eq!(suspended.status, StatusCode::OK, "{suspended:?}");
    for slug in ["org", "team"] {
        until("the suspension of those below", async || {
            let spec = tenant_spec(&region, slug).await;
            (spec["state"] == "suspended" && spec["suspendedBy"] == "partner").then_some(())
        })
        .await;
        let row = region.control(Method::GET, &format!("/tenants/{slug}"), None).await.json();
        assert_eq!((&row["state"], &row["suspended_by"]), (&json!("active"), &json!("partner")));
        let refused = region.as_tenant(slug, Method::GET, "/v1/collections/orders/records", None).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"));
    }
    // Who is made below one that is suspended is suspended from the first.
    let late = make("late", "org").await;
    assert_eq!((late.status, &late.json()["suspended_by"]), (StatusCode::CREATED, &json!("partner")));

    let state = json!({"state": "active"});
    assert_eq!(region.control(Method::PATCH, "/tenants/partner", Some(&state)).await.status, StatusCode::OK);
    for slug in ["org", "team", "late"] {
        until("the end of the suspension", async || {
            let spec = tenant_spec(&region, slug).await;
            (spec["state"] == "active" && spec.get("suspendedBy").is_none()).then_some(())
        })
        .await;
    }
    let audit = region.control(Method::GET, "/audit?tenant=team", None).await.json();
    let by_itself: Vec<_> =
        audit["audit"].as_array().unwrap().iter().filter(|line| line["actor"] == "system").collect();
    let actions: Vec<_> = by_itself.iter().map(|line| line["action"].as_str().unwrap()).collect();
    let once = ["tenant.change", "release.generated"];
    assert_eq!(actions.len(), 4, "once for each change: {actions:?}");
    assert!(once.iter().all(|action| actions.contains(action)), "{actions:?}");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_below_one_are_released_once_each() {
    let region = Region::alone().await;
    region.tenant("partner").await;
    let below: Vec<String> = (0..=2 * LINEAGE_AT_ONCE_MAX).map(|number| format!("org-{number}")).collect();
    for slug in &below {
        let tenant = json!({"slug": slug, "name": slug, "home_region": "us-east-1", "parent": "partner"});
        let made = region.control(Method::POST, "/tenants", Some(&tenant)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let state = json!({"state": "suspended"});
    assert_eq!(region.control(Method::PATCH, "/tenants/partner", Some(&state)).await.status, StatusCode::OK);
    for slug in &below {
        until("the suspension of those below", async || {
            (tenant_spec(&region, slug).await["suspendedBy"] == "partner").then_some(())
        })
        .await;
        let audit = region.control(Method::GET, &format!("/audit?tenant={slug}"), None).await.json();
        let lines = audit["audit"].as_array().unwrap();
        let by_itself = lines.iter().filter(|line| line["actor"] == "system").count();
        assert_eq!(by_itself, 2, "{slug}: its row and its release, once each: {lines:?}");
    }
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_suspends_across_regions() {
    let [us, eu] = Region::all([("us-east-1", 1), ("eu-west-1", 2)]).await;
    for (slug, home, parent) in [("partner", "us-east-1", None), ("org", "eu-west-1", Some("partner"))] {
        let tenant = json!({"slug": slug, "name": slug, "home_region": home, "parent": parent});
        let made = us.control(Method::POST, "/tenants", Some(&tenant)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    for (state, by) in [("suspended", json!("partner")), ("active", Value::Null)] {
        let wanted = json!({"state": state});
        let changed = us.control(Method::PATCH, "/tenants/partner", Some(&wanted)).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        // It is released at its own home, and that release comes back.
        for region in [&us, &eu] {
            until("the release of the one below", async || {
                let row = region.control(Method::GET, "/tenants/org", None).await.json();
                let spec = tenant_spec(region, "org").await;
                (row["suspended_by"] == by && spec["state"] == state).then_some(())
            })
            .await;
        }
    }
    for region in [&us, &eu] {
        assert_eq!(region.control(Method::GET, "/conflicts", None).await.json()["conflicts"], json!([]));
    }
    us.stop().await;
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_released_and_bounds_what_is_pushed() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let change = async |plan: Value| {
        region.control(Method::PATCH, "/tenants/acme", Some(&json!({"plan": plan}))).await
    };
    assert_eq!(push(&region, "acme").await.status, StatusCode::CREATED);
    // A smaller plan leaves what is released; only what is pushed has to be within it.
    let plan = json!({"name": "small", "limits": [{"quota": 5, "window": "1m"}], "maxRoutes": 1});
    let changed = change(plan).await;
    assert_eq!(
        (changed.status, &changed.json()["plan"]["name"]),
        (StatusCode::OK, &json!("small")),
        "{changed:?}"
    );
    assert_eq!(tenant_spec(&region, "acme").await["plan"]["maxRoutes"], 1);
    let refused = push(&region, "acme").await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    let error = refused.json()["errors"][0].clone();
    assert_eq!(
        (&error["file"], &error["line"], &error["found"], &error["expected"]),
        (
            &json!("routes.yaml"),
            &json!(6),
            &json!("2 Route documents"),
            &json!("at most 1, as the plan \"small\" allows")
        )
    );
    for (plan, path) in [
        (json!({"limits": [{"quota": 0, "window": "1m"}]}), "spec.plan.limits[0].quota"),
        (json!({"limits": vec![json!({"quota": 1, "window": "1m"}); 5]}), "spec.plan.limits"),
        (json!({"limits": [{"quota": 1, "window": "366d", "burst": 292}]}), "plan.limits[0].burst"),
    ] {
        let refused = change(plan).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        assert_eq!(refused.json()["errors"][0]["path"], path, "{refused:?}");
    }
    let odd = change(json!({"maxRuotes": 1})).await;
    assert_eq!(odd.status, StatusCode::UNPROCESSABLE_ENTITY, "{odd:?}");
    assert_eq!(change(json!({})).await.json()["plan"], json!({}));
    assert!(tenant_spec(&region, "acme").await.get("plan").is_none());
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostname_is_verified_by_whoever_says_so() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let add = async |hostname: &str, verification: Option<&str>| {
        let mut domain = json!({"hostname": hostname, "tenant": "acme"});
        if let Some(verification) = verification {
            domain["verification"] = json!(verification);
        }
        region.control(Method::POST, "/domains", Some(&domain)).await
    };
    let may = async |name: &str| {
        let request = http::Request::get(format!("/edge/v1/tls/ask?domain={name}"));
        region.send(request.body(http_body_util::Full::default()).unwrap()).await.status
    };
    let usual = add("acme.example", None).await;
    assert_eq!((usual.status, &usual.json()["verification"]), (StatusCode::CREATED, &json!("verified")));
    let waiting = add("*.Shop.example", Some("pending")).await;
    assert_eq!(
        (&waiting.json()["verification"], &waiting.json()["tls"]),
        (&json!("pending"), &json!("none"))
    );
    assert_eq!(add("b.example", Some("sure")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        [may("acme.example").await, may("a.shop.example").await, may("nobody.example").await],
        [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::NOT_FOUND]
    );
    let specs = async || -> Vec<Value> {
        let documents = released(&region, "acme").await;
        documents.into_iter().filter(|one| one["kind"] == "Domain").map(|one| one["spec"].clone()).collect()
    };
    let plain = json!({"tenant": "acme"});
    assert_eq!(specs().await, [json!({"tenant": "acme", "verification": "pending"}), plain.clone()]);

    let path = "/domains/*.shop.example";
    let verified = json!({"verification": "verified", "tls": "issuing"});
    let changed = region.control(Method::PATCH, path, Some(&verified)).await;
    assert_eq!((changed.status, &changed.json()["tls"]), (StatusCode::OK, &json!("issuing")), "{changed:?}");
    assert_eq!(may("a.SHOP.example").await, StatusCode::OK);
    assert_eq!(specs().await, [json!({"tenant": "acme", "tls": "issuing"}), plain]);
    for (path, wanted, status) in [
        (path, json!({"tls": "perhaps"}), StatusCode::UNPROCESSABLE_ENTITY),
        ("/domains/nobody.example", verified, StatusCode::NOT_FOUND),
    ] {
        let refused = region.control(Method::PATCH, path, Some(&wanted)).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    let audit = region.control(Method::GET, "/audit?tenant=acme", None).await.json();
    let change = audit["audit"].as_array().unwrap().iter().find(|line| line["action"] == "domain.change");
    assert_eq!(change.unwrap()["subject"], "*.shop.example");
    // What an edge forwards never reaches it, as if there were no such path.
    let forwarded = region.as_tenant("acme", Method::GET, "/edge/v1/tls/ask?domain=acme.example", None).await;
    assert_eq!(forwarded.status, StatusCode::NOT_FOUND, "{forwarded:?}");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_suspended_though_its_files_no_longer_compile() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    assert_eq!(push(&region, "acme").await.status, StatusCode::CREATED);
    // As files are that an older version took.
    let files = r#"[{"path": "old.yaml", "content": "apiVersion: meridian/v1\nkind: Forgotten\nmetadata: {name: a}\nspec: {}\n"}]"#;
    let sql = "update meridian.release set files = $1::jsonb where target = 'tenant:acme'";
    sqlx::query(sql).bind(files).execute(&mut region.cluster.superuser().await).await.unwrap();
    let state = json!({"state": "suspended"});
    let suspended = region.control(Method::PATCH, "/tenants/acme", Some(&state)).await;
    assert_eq!(suspended.status, StatusCode::OK, "{suspended:?}");
    assert_eq!(tenant_spec(&region, "acme").await["state"], "suspended");
    region.stop().await;
}
