//! Coming up, health, and going down without dropping a request.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use support::{Region, context};

const RECORDS: &str = "/v1/collections/orders/records";

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_from_readiness() {
    let mut region = Region::alone().await;
    let get = async |region: &Region, path: &str| {
        region.send(Request::get(path.to_owned()).body(Full::default()).expect("a request")).await
    };
    assert_eq!(get(&region, "/healthz").await.status, StatusCode::OK);
    let ready = get(&region, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!((&ready.json()["region"], &ready.json()["ready"]), (&json!("us-east-1"), &json!(true)));
    region.cluster.kill();
    assert_eq!(get(&region, "/healthz").await.status, StatusCode::OK, "the process is still up");
    assert_eq!(get(&region, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let asked = region.as_tenant("acme", Method::GET, RECORDS, None).await;
    assert_eq!((asked.status, asked.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    let text = String::from_utf8(asked.body.to_vec()).unwrap().to_lowercase();
    assert!(!text.contains("sqlx") && !text.contains("postgres") && !text.contains("connection"), "{text}");
    region.cluster.run().await;
    for _ in 0..100 {
        if get(&region, "/readyz").await.status == StatusCode::OK {
            region.serving.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not ready again");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_does_not_wait_for_a_database_that_is_away() {
    let mut region = Region::alone().await;
    region.tenant("acme").await;
    region.cluster.kill();
    let stopped = tokio::time::timeout(Duration::from_secs(60), region.serving.stop()).await;
    assert!(stopped.is_ok(), "still going down after a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_description_are_served() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    // What the change path tells of the tenant's making may make the first answers stale.
    for _ in 0..50 {
        region.as_tenant("acme", Method::GET, RECORDS, None).await;
    }
    let get = async |path: &str| {
        let reply =
            region.send(Request::get(path.to_owned()).body(Full::default()).expect("a request")).await;
        String::from_utf8(reply.body.to_vec()).expect("text")
    };
    let metrics = region.metrics().await;
    for expected in [
        "meridian_http_requests_total{route=\"/v1/collections/{name}/records\",method=\"GET\",status=\"2xx\"} 50",
        "meridian_cache_reads_total{result=\"hit\"} ",
        "meridian_cache_reads_total{result=\"miss\"} ",
        "meridian_database_connections ",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
    assert!(!metrics.contains("acme"), "no label comes from a request");
    let description: serde_json::Value = serde_json::from_str(&get("/openapi.json").await).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{}", description["openapi"]);
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_drops_no_request() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let Region { cluster, serving, client } = region;
    let address = serving.address();
    let stopping = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let client_of = async |worker: usize| {
        for number in 0..400 {
            let context = context("acme", &["orders:write"]);
            let signed = context.sign(&support::context_keys(), "POST", &address.to_string(), RECORDS);
            let request = Request::post(format!("http://{address}{RECORDS}"))
                .header("meridian-context", signed)
                .header("idempotency-key", format!("{worker}-{number}"))
                .body(Full::from(json!({"total": number}).to_string()))
                .expect("a request");
            match client.request(request).await {
                Ok(response) => {
                    assert_eq!(response.status(), StatusCode::CREATED);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                // Nobody listens any more; whether anything was taken and not answered is counted below.
                Err(error) => {
                    assert!(stopping.load(Ordering::SeqCst), "refused while serving: {error:?}");
                    return;
                }
            }
        }
    };
    let stop = async {
        while answered.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
        stopping.store(true, Ordering::SeqCst);
        serving.stop().await;
    };
    let clients = futures_util::future::join_all((0..8).map(client_of));
    tokio::join!(stop, clients);
    let answered = answered.load(Ordering::SeqCst);
    assert!((100..3_200).contains(&answered), "{answered}: the stop came in the middle");
    let mut database = cluster.superuser().await;
    let stored: i64 =
        meridian_store::sqlx::query_scalar("select count(*) from meridian.record where not _deleted")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(
        usize::try_from(stored).unwrap(),
        answered,
        "what was stored was answered, and the other way round"
    );
}
