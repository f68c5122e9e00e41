//! What edges report, counted and listed over HTTP.

mod support;

use http::{Method, StatusCode};
use meridian_origin::config::{Events, Personal};
use meridian_origin::context::now_ms;
use meridian_origin::serve::start;
use meridian_origin::traces::Traces;
use meridian_store::sqlx;
use serde_json::{Value, json};
use support::{Region, config, until};

fn event(id: &str, members: Value) -> Value {
    let mut event = json!({"id": id, "at_ms": now_ms(), "tenant": "acme", "bundle": null, "route": "orders",
        "outcome": "forwarded", "status": 200, "region": "us-east-1", "subject_hash": "5ab3", "cache": "hit; ttl=3",
        "method": "GET", "host": "acme.localhost", "path": "/v1/people/ada", "country": "DE", "elapsed_ms": 3,
        "explanation": [{"stage": "host", "rule": null, "outcome": "matched", "inputs": {"client": "192.0.2.0/24"}}]});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event
}

async fn report(region: &Region, events: &[Value]) {
    let batch = json!({"edge": "e", "events": events});
    let taken = region.as_edge(Method::POST, "/edge/v1/events", Some(&batch)).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
}

async fn ask(region: &Region, path: &str) -> Value {
    let answer = region.control(Method::GET, path, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
    answer.json()
}

/// The answer once this many decisions are counted.
async fn counted(region: &Region, path: &str, many: i64) -> Value {
    until("the counts", async || {
        let answer = ask(region, path).await;
        let sum: i64 = answer["top"].as_array()?.iter().filter_map(|one| one["requests"].as_i64()).sum();
        (sum >= many).then_some(answer)
    })
    .await
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["logs"].as_array().unwrap().iter().map(|line| line["event"]["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_of_all_regions_are_counted_once_and_followed() {
    let [us, eu] = Region::all([("us-east-1", 1), ("eu-west-1", 2)]).await;
    let now = now_ms();
    let first = [
        event("01A", json!({"at_ms": now, "elapsed_ms": 3})),
        event(
            "01B",
            json!({"at_ms": now + 1, "route": "carts", "status": 503, "outcome": "failed", "elapsed_ms": 40}),
        ),
        event("01C", json!({"at_ms": now, "tenant": "globex"})),
    ];
    // Twice, as when an edge did not get the answer.
    report(&us, &first).await;
    report(&us, &first).await;
    report(&eu, &[event("01D", json!({"at_ms": now + 2, "region": "eu-west-1", "elapsed_ms": 8}))]).await;

    let top = counted(&us, "/top?tenant=acme", 3).await;
    assert_eq!((&top["by"], &top["away"]), (&json!("route"), &json!([])));
    let orders = &top["top"][0];
    assert_eq!(
        (&orders["key"], &orders["requests"], &orders["failed"]),
        (&json!("orders"), &json!(2), &json!(0))
    );
    assert_eq!(
        (&orders["mean_ms"], &orders["p50_ms"], &orders["max_ms"]),
        (&json!(5.5), &json!(5), &json!(8))
    );
    assert_eq!((&top["top"][1]["key"], &top["top"][1]["failed"]), (&json!("carts"), &json!(1)));
    let keys = async |path: &str| {
        let answer = ask(&eu, path).await;
        let top = answer["top"].as_array().unwrap().clone();
        top.iter()
            .map(|one| format!("{}={}", one["key"].as_str().unwrap(), one["requests"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("/top").await, ["acme=3", "globex=1"]);
    assert_eq!(keys("/top?tenant=acme&by=region").await, ["us-east-1=2", "eu-west-1=1"]);
    assert_eq!(keys("/top?tenant=acme&by=status").await, ["2xx=2", "5xx=1"]);
    assert_eq!(keys("/top?tenant=acme&by=outcome&limit=1").await, ["forwarded=2"]);
    assert_eq!(keys("/top?by=cache").await, ["hit=4"]);
    for wrong in ["/top?by=colour", "/top?window_s=0", "/top?window_s=86401"] {
        let refused = us.control(Method::GET, wrong, None).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }

    assert_eq!(orders["estimated"], json!(false));
    // One that counts for others, in one of two regions: the sum is an estimate.
    report(&eu, &[event("01E", json!({"tenant": "initech", "weight": 20}))]).await;
    report(&us, &[event("01F", json!({"tenant": "initech"}))]).await;
    let top = counted(&us, "/top?tenant=initech", 21).await;
    assert_eq!((&top["top"][0]["requests"], &top["top"][0]["estimated"]), (&json!(21), &json!(true)));
    let metrics = eu.metrics().await;
    let decisions = r#"meridian_decisions_total{tenant="initech",outcome="forwarded",status="2xx"} 20"#;
    assert!(metrics.contains(decisions), "{metrics}");
    assert!(metrics.contains("meridian_decisions_unwritten_total 19"), "{metrics}");

    let gone = us.control(Method::GET, "/decisions/01KDVDNC000000000000000000", None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let said = gone.json()["detail"].as_str().unwrap().to_owned();
    assert!(said.contains("or sampled out (a route whose log.share is "), "{said}");

    let newest = ask(&us, "/logs?tenant=acme").await;
    assert_eq!(ids(&newest), ["01A", "01B", "01D"], "in the order of their times, whatever region");
    let line = &newest["logs"][2];
    assert_eq!((&line["region"], &line["edge"]), (&json!("eu-west-1"), &json!("test-edge")));
    assert!(line["at"].as_str().unwrap().ends_with('Z') && line["event"].get("explanation").is_none());
    assert_eq!(ids(&ask(&us, "/logs?tenant=acme&limit=1").await), ["01D"]);
    assert_eq!(ids(&ask(&us, "/logs?tenant=acme&status=5xx").await), ["01B"]);
    assert_eq!(
        ids(&ask(&us, "/logs?tenant=acme&status=200&route=orders&outcome=forwarded").await),
        ["01A", "01D"]
    );
    let wrong = us.control(Method::GET, "/logs?status=abc", None).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = us.control(Method::GET, "/logs?after=here", None).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);

    // Who follows gets what arrives anywhere, each once, even if it was decided earlier.
    report(&eu, &[event("01E", json!({"at_ms": now - 60_000}))]).await;
    report(&us, &[event("01F", json!({})), event("01G", json!({"tenant": "globex"}))]).await;
    let mut next = newest["next"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    until("the news", async || {
        let after = next.replace('=', "%3D").replace(',', "%2C");
        let page = ask(&us, &format!("/logs?tenant=acme&after={after}")).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        next = page["next"].as_str()?.to_owned();
        (seen.len() >= 2).then_some(())
    })
    .await;
    seen.sort();
    assert_eq!(seen, ["01E", "01F"]);

    // A region that is away is named, and keeps its place.
    eu.stop().await;
    let away = ask(&us, &format!("/logs?tenant=acme&after={}", next.replace(',', "%2C"))).await;
    assert_eq!(
        (&away["away"], &away["logs"], away["next"].as_str()),
        (&json!(["eu-west-1"]), &json!([]), Some(&*next))
    );
    assert_eq!(ask(&us, "/top").await["away"], json!(["eu-west-1"]));
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_goes_and_old_days_are_dropped_where_the_region_is_told_to() {
    let Region { cluster, serving, client } = Region::alone().await;
    serving.stop().await;
    let mut config = config(&cluster, support::free_port(), Vec::new());
    config.events = Events { keep_days: 1, personal: Personal::Drop };
    let serving = start(config, Traces::default()).await.expect("the origin starts again");
    let region = Region { cluster, serving, client };
    let day_ms = 24 * 60 * 60 * 1000;
    let part = json!({
        "exposures": [{"experiment": "checkout", "version": "1", "unit": "0f3e", "variant": "a"}],
        "conversions": [{"experiment": "checkout", "version": "1", "unit": "0f3e", "goal": "bought"}],
    });
    report(
        &region,
        &[
            event("01A", part),
            event("old", json!({"at_ms": now_ms() - 3 * day_ms})),
            event("odd", json!({"at_ms": u64::MAX})),
        ],
    )
    .await;
    let found = until("the decision", async || {
        let found = region.control(Method::GET, "/decisions/01A", None).await;
        (found.status == StatusCode::OK).then(|| found.json())
    })
    .await;
    let text = found.to_string();
    for personal in ["5ab3", "ada", "192.0.2", "DE", "0f3e"] {
        assert!(!text.contains(personal), "{personal}: {text}");
    }
    let counted: i64 = sqlx::query_scalar(
        "select count(*) from meridian.exposure e join meridian.conversion c using (tenant, unit) where unit = '0f3e'",
    )
    .fetch_one(&mut region.cluster.superuser().await)
    .await
    .expect("a count");
    assert_eq!(counted, 1, "experiments count all the same");
    assert_eq!(ids(&ask(&region, "/logs").await), ["01A"]);
    let metrics = region.metrics().await;
    assert!(metrics.contains("meridian_events_dropped_total 2\n"), "{metrics}");
    assert!(
        metrics
            .contains("meridian_decisions_total{tenant=\"acme\",outcome=\"forwarded\",status=\"2xx\"} 1\n"),
        "{metrics}"
    );
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_add_no_series_to_the_metrics() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let series = async || {
        let text = region.metrics().await;
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let visit = async |number: usize| {
        let method = Method::from_bytes(format!("BREW{number}").as_bytes()).expect("a method");
        region.as_tenant("acme", Method::GET, &format!("/nowhere/{number}"), None).await;
        region.as_tenant("acme", Method::GET, &format!("/v1/orders/{number}"), None).await;
        region.as_tenant("acme", method, "/v1/orders", None).await;
        let reported = event(
            &format!("m{number}"),
            json!({"route": format!("r{number}"), "outcome": format!("o{number}"), "cache": format!("c{number}"),
                "region": format!("g{number}"), "host": format!("h{number}")}),
        );
        report(&region, &[reported]).await;
    };
    visit(0).await;
    counted(&region, "/top", 1).await;
    series().await;
    let before = series().await;
    for number in 1..30 {
        visit(number).await;
    }
    counted(&region, "/top", 30).await;
    assert_eq!(series().await, before);
    region.stop().await;
}
