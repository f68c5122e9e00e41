//! What a collector is told, and what becomes of an origin whose collector does not answer.

mod support;

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use meridian_origin::context::now_ms;
use meridian_origin::serve::start;
use meridian_origin::traces::{Settings, Traces};
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Region, config, free_port, until};

const EVENTS: usize = 60;
const QUEUED: usize = 4;

fn followed(number: usize) -> Value {
    json!({"id": format!("01T{number}"), "at_ms": now_ms(), "tenant": "acme", "bundle": null, "route": "orders",
        "outcome": "forwarded", "status": 200, "region": "us-east-1", "subject_hash": null, "cache": null,
        "method": "GET", "host": "acme.localhost", "path": "/", "country": null, "elapsed_ms": 3,
        "trace": {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "span": format!("{:016x}", number + 1), "sampled": true}})
}

async fn metric(region: &Region, name: &str) -> usize {
    let text = region.metrics().await;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_keeps_nobody_waiting() {
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let settings = Settings {
        endpoint: Some(format!("http://{}/v1/traces", silent.local_addr().expect("an address"))),
        queue_spans: QUEUED,
        batch_spans: 2,
        delay: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
    };
    let cluster = Cluster::start("us-east-1", 1).await;
    let config = config(&cluster, free_port(), vec![]);
    let traces = Traces::new(Some(&settings), "us-east-1").expect("a collector");
    let serving = start(config, traces).await.expect("the origin starts");
    let region = Region::of(cluster, serving);
    let began = Instant::now();
    for number in 0..EVENTS {
        let batch = json!({"edge": "e", "events": [followed(number)]});
        let taken = region.as_edge(Method::POST, "/edge/v1/events", Some(&batch)).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    }
    let all = began.elapsed();
    let dropped = metric(&region, "meridian_spans_dropped_total ").await;
    // Two may be on their way to the collector, and as many wait as may.
    assert!((EVENTS - QUEUED - 2..=EVENTS).contains(&dropped), "{dropped}");
    assert_eq!(metric(&region, "meridian_spans_exported_total ").await, 0);
    assert!(all < settings.timeout, "{all:?}");
    until("the events", async || {
        (metric(&region, "meridian_events_written_total ").await == EVENTS).then_some(())
    })
    .await;
    region.stop().await;
}
