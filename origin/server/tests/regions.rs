//! Two regions, each a real origin on a real PostgreSQL, replicating to each other.

mod support;

use http::{Method, StatusCode};
use meridian_wire::session::{Positions, Session};
use serde_json::{Value, json};
use support::{Region, Reply, context, context_keys, until};

const RECORDS: &str = "/v1/collections/orders/records";

struct Pair {
    us: Region,
    eu: Region,
}

async fn pair() -> Pair {
    let [us, eu] = Region::all([("us-east-1", 1), ("eu-west-1", 2)]).await;
    Pair { us, eu }
}

async fn tenant(pair: &Pair, slug: &str, allowed: &[&str]) {
    let tenant = json!({"slug": slug, "name": slug, "home_region": "us-east-1", "allowed_regions": allowed});
    let made = pair.us.control(Method::POST, "/tenants", Some(&tenant)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let orders = json!({"name": "orders", "json_schema": {"type": "object"}, "merge": {}});
    let made = pair.us.control(Method::POST, &format!("/tenants/{slug}/collections"), Some(&orders)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
}

async fn read(region: &Region, path: &str, session: &str) -> Reply {
    let mut request = region.forwarded(&context("acme", &["orders:read"]), Method::GET, path, None);
    request.headers_mut().insert("meridian-session", session.parse().expect("a token"));
    region.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_its_writes_in_the_other_region() {
    let pair = pair().await;
    tenant(&pair, "acme", &["us-east-1", "eu-west-1"]).await;
    until("the tenant's arrival", async || {
        let listed = pair.eu.as_tenant("acme", Method::GET, RECORDS, None).await;
        (listed.status == StatusCode::OK).then_some(())
    })
    .await;
    let mut waited = 0;
    for total in 0..40 {
        let made = pair.us.as_tenant("acme", Method::POST, RECORDS, Some(&json!({"total": total}))).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let session = made.header("meridian-session");
        // The list was kept in memory over there a moment ago, without this record.
        let listed = read(&pair.eu, &format!("{RECORDS}?limit=200"), session).await;
        if listed.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!((listed.problem().as_str(), listed.header("meridian-behind")), ("behind", "1"));
            waited += 1;
            continue;
        }
        let found =
            listed.json()["records"].as_array().unwrap().iter().any(|record| record["total"] == total);
        assert!(found, "the list of the other region lacks record {total}, which its session has written");
        let one = read(&pair.eu, made.header("location"), session).await;
        assert_eq!(one.status, StatusCode::OK, "{one:?}");
        // And what the session has seen over there, it has seen back here.
        let seen =
            Session::verify(one.header("meridian-session"), &context_keys(), "acme").expect("a session");
        assert!(seen.positions.contains_key(&1) && seen.positions.contains_key(&2), "{seen:?}");
    }
    assert!(waited < 20, "{waited} of 40 reads gave up");

    let far =
        Session { tenant: "acme".into(), positions: Positions::from([(1, u64::MAX)]) }.sign(&context_keys());
    let refused = read(&pair.eu, RECORDS, &far).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "behind"));
    assert_eq!(refused.header("meridian-behind"), "1");
    assert_eq!(read(&pair.us, RECORDS, &far).await.status, StatusCode::OK, "a region never waits for itself");
    assert_eq!(read(&pair.eu, RECORDS, "s1.odd").await.status, StatusCode::OK, "a bad token counts as none");
    tokio::join!(pair.us.serving.stop(), pair.eu.serving.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_region_serves_edges_and_operators() {
    let pair = pair().await;
    tenant(&pair, "acme", &["us-east-1", "eu-west-1"]).await;
    tenant(&pair, "globex", &["us-east-1"]).await;
    let domain = json!({"hostname": "globex.localhost", "tenant": "globex"});
    assert_eq!(pair.us.control(Method::POST, "/domains", Some(&domain)).await.status, StatusCode::CREATED);
    // Rules and hostnames go everywhere, data only where the tenant allows.
    until("the hostname's arrival", async || {
        let found = pair.eu.as_edge(Method::GET, "/edge/v1/hosts/globex.localhost", None).await;
        (found.status == StatusCode::OK).then_some(())
    })
    .await;
    let ask =
        |region: &str| json!({"edge": "e", "targets": {"tenant:globex": 0}, "purge_cursor": {region: 0}});
    let here = pair.us.as_edge(Method::POST, "/edge/v1/sync", Some(&ask("us-east-1"))).await.json();
    let there = until("the release's arrival", async || {
        let there = pair.eu.as_edge(Method::POST, "/edge/v1/sync", Some(&ask("eu-west-1"))).await.json();
        (there["heads"] == here["heads"]).then_some(there)
    })
    .await;
    assert_eq!(there["heads"]["tenant:globex"]["sequence"], 2);
    let refused = pair.eu.as_tenant("globex", Method::GET, RECORDS, None).await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::MISDIRECTED_REQUEST, "region-not-allowed")
    );

    // A change here is a purge there, with the position that it has here.
    let made = pair.us.as_tenant("acme", Method::POST, RECORDS, Some(&json!({"total": 1}))).await;
    let tag = format!("orders/{}", made.json()["id"].as_str().unwrap());
    let purge = until("the purge's arrival", async || {
        let there = pair.eu.as_edge(Method::POST, "/edge/v1/sync", Some(&ask("eu-west-1"))).await.json();
        there["purges"].as_array().unwrap().iter().find(|purge| purge["tag"] == tag.as_str()).cloned()
    })
    .await;
    assert_eq!((&purge["source"], &purge["tenant"]), (&json!(1), &json!("acme")));
    let regions = until("news of the other region", async || {
        let there = pair.eu.as_edge(Method::POST, "/edge/v1/sync", Some(&ask("eu-west-1"))).await.json();
        let other = there["regions"][1].clone();
        (other["healthy"] == true && other["applied"]["1"].is_u64()).then_some(there["regions"].clone())
    })
    .await;
    assert_eq!((&regions[0]["id"], &regions[1]["id"]), (&json!("eu-west-1"), &json!("us-east-1")));

    // What was reported to one region is found from the other; a purge by hand reaches both.
    let event = json!({"id": "01Z", "at_ms": meridian_origin::context::now_ms(), "tenant": "acme", "bundle": null, "route": null, "outcome": "denied",
        "status": 403, "region": null, "subject_hash": null, "cache": null, "method": "GET", "host": "h", "path": "/",
        "country": null, "elapsed_ms": 1});
    let taken = pair
        .eu
        .as_edge(Method::POST, "/edge/v1/events", Some(&json!({"edge": "e", "events": [event]})))
        .await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    let found = until("the decision", async || {
        let found = pair.us.control(Method::GET, "/decisions/01Z", None).await;
        (found.status == StatusCode::OK).then(|| found.json())
    })
    .await;
    assert_eq!(found["region"], "eu-west-1");
    let purge = json!({"tenant": "acme", "tags": ["by-hand"]});
    let done = pair.us.control(Method::POST, "/purges", Some(&purge)).await.json();
    assert_eq!(done["regions"], json!({"us-east-1": "purged", "eu-west-1": "purged"}));
    let there = pair.eu.as_edge(Method::POST, "/edge/v1/sync", Some(&ask("eu-west-1"))).await.json();
    let by_hand = |purge: &Value| purge["tag"] == "by-hand" && purge["source"] == 0;
    assert!(there["purges"].as_array().unwrap().iter().any(by_hand), "{there}");

    let peer = until("the stream", async || {
        let status = pair.us.control(Method::GET, "/replication", None).await.json();
        (status["peers"][0]["state"] == "streaming").then(|| status["peers"][0].clone())
    })
    .await;
    assert_eq!(peer["region"], "eu-west-1");
    tokio::join!(pair.us.serving.stop(), pair.eu.serving.stop());
}
