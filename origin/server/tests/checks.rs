//! Health checks of tenants' upstreams, made by real origins at a service on loopback.

mod support;

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use meridian_cdc::{PEER_HEADER, Purpose, prove};
use meridian_origin::config::{Config, Peer, UpstreamChecks};
use meridian_origin::context::now_ms;
use meridian_origin::serve::start;
use meridian_origin::traces::Traces;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Region, config, free_port, peer_keys, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Status that stands for no answer at all.
const SILENT: u16 = 0;

/// A tenant's own service.
struct Service {
    url: String,
    /// With what it answers.
    status: Arc<AtomicU16>,
    /// Heads of the requests that came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let service = Self { url, status: Arc::new(AtomicU16::new(200)), heads: Arc::default() };
        let (status, heads) = (service.status.clone(), service.heads.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, status.load(Ordering::SeqCst), heads.clone()));
            }
        });
        service
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic before").clone()
    }
}

/// Answers with a head whose body never comes, and with a place to go to that nobody may follow.
async fn answer(mut stream: TcpStream, status: u16, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    heads.lock().expect("no panic before").push(String::from_utf8_lossy(&head).to_ascii_lowercase());
    if status != SILENT {
        let answer =
            format!("HTTP/1.1 {status} Odd\r\nlocation: /elsewhere\r\ncontent-length: 1000000\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    // Until the other side has had enough.
    let _ = stream.read_u8().await;
}

async fn checking(upstream_checks: UpstreamChecks) -> Region {
    let cluster = Cluster::start("us-east-1", 1).await;
    at(cluster, free_port(), vec![], upstream_checks).await
}

async fn at(cluster: Cluster, port: u16, peers: Vec<Peer>, upstream_checks: UpstreamChecks) -> Region {
    let config = Config { upstream_checks, ..config(&cluster, port, peers) };
    let serving = start(config, Traces::default()).await.expect("the origin starts");
    Region::of(cluster, serving)
}

/// Releases rules of acme that have this service checked in us-east-1.
async fn push(region: &Region, url: &str) {
    let rules = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: own}}\nspec:\n  regions: {{us-east-1: \"{url}\"}}\n  \
         headers: {{x-edge-key: k}}\n  healthCheck: {{path: \"/up?deep=1\", interval: 1s, timeout: 500ms, failures: 2}}\n"
    );
    let head = region.control(Method::GET, "/targets/tenant:acme/head", None).await.json();
    let body =
        json!({"parent": head["version"], "files": [{"path": "own.yaml", "content": rules}], "note": null});
    let made = region.control(Method::POST, "/targets/tenant:acme/releases", Some(&body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
}

/// What an edge that has acme in memory is told to be unhealthy in this region.
async fn unhealthy(region: &Region) -> Value {
    regions(region, json!({"tenant:acme": 0})).await[0]["unhealthy"].clone()
}

/// What `/readyz` says is unhealthy, to whoever shows this.
async fn told(region: &Region, proof: Option<String>) -> Value {
    let request =
        proof.into_iter().fold(Request::get("/readyz"), |asked, proof| asked.header(PEER_HEADER, proof));
    let reply = region.send(request.body(Full::default()).expect("a request")).await;
    assert_eq!((reply.status, &reply.json()["ready"]), (StatusCode::OK, &json!(true)), "{reply:?}");
    reply.json()["unhealthy"].clone()
}

/// What an edge with these targets is told of the regions.
async fn regions(region: &Region, targets: Value) -> Value {
    let ask = json!({"edge": "e", "targets": targets, "purge_cursor": null});
    region.as_edge(Method::POST, "/edge/v1/sync", Some(&ask)).await.json()["regions"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_told_as_unhealthy_while_its_checks_fail() {
    let service = Service::start().await;
    let region = checking(UpstreamChecks::Any).await;
    region.tenant("acme").await;
    push(&region, &service.url).await;
    let first = until("a check", async || service.heads().first().cloned()).await;
    let authority = service.url.trim_start_matches("http://");
    assert!(first.starts_with("get /up?deep=1 http/1.1\r\n"), "{first}");
    let host = format!("host: {authority}");
    for field in [host.as_str(), "user-agent: meridian-health-check/1", "cdn-loop: meridian", "x-edge-key: k"]
    {
        assert!(first.contains(&format!("\r\n{field}\r\n")), "no {field} in {first}");
    }
    assert_eq!(unhealthy(&region).await, Value::Null);

    for status in [503, SILENT, 404] {
        service.answers(status);
        until("bad news", async || (unhealthy(&region).await == json!(["acme/own"])).then_some(())).await;
        let told = regions(&region, json!({"tenant:acme": 0, "platform": 0})).await;
        assert_eq!((&told[0]["unhealthy"], &told[0]["healthy"]), (&json!(["acme/own"]), &json!(true)));
        let told = regions(&region, json!({"tenant:globex": 0})).await;
        assert_eq!(told[0]["unhealthy"], Value::Null, "an edge hears of its own tenants alone");
        // A redirect passes, and is not followed.
        service.answers(302);
        until("good news", async || unhealthy(&region).await.is_null().then_some(())).await;
    }
    assert!(service.heads().iter().all(|head| head.starts_with("get /up?deep=1 ")), "{:?}", service.heads());
    let metrics = region.metrics().await;
    for outcome in ["passed", "status", "timeout"] {
        let series = format!("meridian_upstream_checks_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&series), "no {series} in {metrics}");
    }
    assert!(metrics.contains("meridian_upstreams_checked 1\n"), "{metrics}");

    // Suspended, the tenant is served nowhere, and checked nowhere.
    let suspended = json!({"state": "suspended"});
    let changed = region.control(Method::PATCH, "/tenants/acme", Some(&suspended)).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    until("the end of the checks", async || {
        region.metrics().await.contains("meridian_upstreams_checked 0\n").then_some(())
    })
    .await;
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_of_the_origins_network_is_asked_unless_somebody_says_so() {
    let service = Service::start().await;
    service.answers(503);
    let region = checking(UpstreamChecks::Public).await;
    region.tenant("acme").await;
    push(&region, &service.url).await;
    let refused = "meridian_upstream_checks_total{outcome=\"refused\"} ";
    until("three checks that are refused", async || {
        let metrics = region.metrics().await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(refused))?.parse::<u64>().ok()?;
        (count >= 3).then_some(())
    })
    .await;
    assert_eq!(service.heads(), Vec::<String>::new());
    assert_eq!(unhealthy(&region).await, Value::Null, "what nobody checks counts as healthy");
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_region_tells_what_the_others_have_found() {
    let service = Service::start().await;
    let (us, eu) = tokio::join!(Cluster::start("us-east-1", 1), Cluster::start("eu-west-1", 2));
    let (us_port, eu_port) = (free_port(), free_port());
    let peer = |region: &str, ordinal, port: u16| Peer {
        region: region.to_owned(),
        ordinal,
        url: format!("http://127.0.0.1:{port}").parse().expect("a URL"),
    };
    let us = at(us, us_port, vec![peer("eu-west-1", 2, eu_port)], UpstreamChecks::Any).await;
    let eu = at(eu, eu_port, vec![peer("us-east-1", 1, us_port)], UpstreamChecks::Any).await;
    us.tenant("acme").await;
    push(&us, &service.url).await;
    service.answers(500);
    let of_us = async || regions(&eu, json!({"tenant:acme": 0})).await[1].clone();
    until("the other region's news", async || {
        let of_us = of_us().await;
        (of_us["unhealthy"] == json!(["acme/own"]) && of_us["healthy"] == true).then_some(())
    })
    .await;
    assert_eq!(unhealthy(&eu).await, Value::Null, "the upstream is not in this region");

    // Whose upstreams fail is nobody's business but the other regions'.
    let proof = |purpose, from: &str, to: &str| Some(prove(&peer_keys(), purpose, from, to, now_ms()));
    for (shown, expect) in [
        (proof(Purpose::Readiness, "eu-west-1", "us-east-1"), json!(["acme/own"])),
        (proof(Purpose::Readiness, "eu-west-1", "ap-southeast-1"), Value::Null),
        (proof(Purpose::Readiness, "ap-southeast-1", "us-east-1"), Value::Null),
        (proof(Purpose::Stream, "eu-west-1", "us-east-1"), Value::Null),
        (None, Value::Null),
    ] {
        assert_eq!(told(&us, shown.clone()).await, expect, "{shown:?}");
    }

    // A region that no longer answers has said its last word, which counts for a while.
    us.stop().await;
    let last = until("the end of the other region", async || {
        let of_us = of_us().await;
        (of_us["healthy"] == false).then_some(of_us)
    })
    .await;
    assert_eq!(last["unhealthy"], json!(["acme/own"]));
    eu.stop().await;
}
