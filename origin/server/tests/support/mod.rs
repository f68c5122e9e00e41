//! A real origin on a real PostgreSQL, spoken to over real HTTP.
#![allow(dead_code, reason = "each test file uses what it needs")]

#[path = "../../../store/tests/cluster/mod.rs"]
pub mod cluster;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Cluster;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use meridian_origin::config::{Config, Events, Identity, Peer, UpstreamChecks};
use meridian_origin::context::now_ms;
use meridian_origin::serve::{Serving, start};
use meridian_origin::traces::Traces;
use meridian_wire::context::Context;
use meridian_wire::encoding::{base64url, sha256_hex};
use meridian_wire::keyring::{MacKeyring, PublicKeyring, SigningKey};
use serde_json::{Value, json};

pub const CONTROL_TOKEN: &str = "only-for-tests";
pub const METRICS_TOKEN: &str = "numbers-for-tests";

/// An origin with its own cluster.
pub struct Region {
    pub cluster: Cluster,
    pub serving: Serving,
    pub client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().expect("text")
    }

    /// Last segment of the problem's type.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let kind = self.json()["type"].as_str().expect("a type").to_owned();
        kind.rsplit('/').next().expect("a segment").to_owned()
    }
}

pub fn context_keys() -> MacKeyring {
    MacKeyring::parse(&format!("t1:{}", base64url(&[7; 32]))).expect("a keyring")
}

pub fn peer_keys() -> MacKeyring {
    MacKeyring::parse(&format!("p1:{}", base64url(&[8; 32]))).expect("a keyring")
}

pub fn signing_key() -> SigningKey {
    // Seed and public key of test vector 1 in RFC 8032, section 7.1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let bytes: Vec<u8> = [seed, public]
        .concat()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect();
    SigningKey::parse(&format!("b1:{}", base64url(&bytes))).expect("a signing key")
}

pub fn bundle_keys() -> PublicKeyring {
    PublicKeyring::of(&signing_key())
}

pub fn config(cluster: &Cluster, port: u16, peers: Vec<Peer>) -> Config {
    Config {
        identity: Identity { region: cluster.node.region.clone(), region_ordinal: cluster.node.ordinal },
        listen: ([127, 0, 0, 1], port).into(),
        public_urls: vec![format!("http://127.0.0.1:{port}").parse().expect("a URL")],
        database_url: cluster.url("meridian_app").parse().expect("a URL"),
        replication_url: cluster.url("meridian_replicator").parse().expect("a URL"),
        owner_url: None,
        peers,
        platform_home: None,
        context_keys: context_keys(),
        peer_ca: None,
        peer_keys: peer_keys(),
        bundle_signing_key: Some(signing_key()),
        control_token_sha256: Some(sha256_hex(CONTROL_TOKEN.as_bytes()).parse().expect("a hash")),
        metrics_token: Some(METRICS_TOKEN.parse().expect("a text")),
        name_servers: vec![],
        upstream_checks: UpstreamChecks::Public,
        events: Events::default(),
    }
}

/// A port that nobody listens on; test processes run side by side, so each starts looking elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = (0..50).map(|_| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) + u64::from(std::process::id()) * 7;
        21_300 + u16::try_from(step % 50).expect("below 50")
    });
    ports.into_iter().find(free).expect("a free port from 21300 to 21349")
}

/// A context as an edge would make it, fresh.
pub fn context(tenant: &str, scopes: &[&str]) -> Context {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Context {
        tenant: Some(tenant.to_owned()),
        subject: Some("ada".to_owned()),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        client: "192.0.2.1".to_owned(),
        consistency: "session".to_owned(),
        ..Context::of_edge("test-edge", &id, now_ms())
    }
}

/// Asks until the answer is right, for a bounded time.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Region {
    /// Regions that know one another, each by name and ordinal.
    pub async fn all<const MANY: usize>(named: [(&str, u16); MANY]) -> [Self; MANY] {
        let clusters = join_all(named.map(|(region, ordinal)| Cluster::start(region, ordinal))).await;
        let ports = named.map(|_| free_port());
        let peer = |((region, ordinal), port): (&(&str, u16), &u16)| Peer {
            region: (*region).to_owned(),
            ordinal: *ordinal,
            url: format!("http://127.0.0.1:{port}").parse().expect("a URL"),
        };
        let peers: Vec<Peer> = named.iter().zip(&ports).map(peer).collect();
        let mut regions = Vec::new();
        for (cluster, port) in clusters.into_iter().zip(ports) {
            let others = peers.iter().filter(|peer| peer.region != cluster.node.region).cloned().collect();
            regions.push(Self::at(cluster, port, others).await);
        }
        regions.try_into().unwrap_or_else(|_| panic!("as many regions as names"))
    }

    /// One region alone.
    pub async fn alone() -> Self {
        let cluster = Cluster::start("us-east-1", 1).await;
        Self::at(cluster, free_port(), Vec::new()).await
    }

    pub async fn at(cluster: Cluster, port: u16, peers: Vec<Peer>) -> Self {
        let serving =
            start(config(&cluster, port, peers), Traces::default()).await.expect("the origin starts");
        Self::of(cluster, serving)
    }

    pub fn of(cluster: Cluster, serving: Serving) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { cluster, serving, client }
    }

    /// Goes down: the origin first, then its database.
    pub async fn stop(self) {
        self.serving.stop().await;
    }

    pub fn authority(&self) -> String {
        self.serving.address().to_string()
    }

    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Reply {
        let path = request.uri().path_and_query().expect("a path").to_string();
        *request.uri_mut() = format!("http://{}{path}", self.authority()).parse().expect("a URL");
        let response = self.client.request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    /// A request as an edge forwards it.
    pub fn forwarded(
        &self,
        context: &Context,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Request<Full<Bytes>> {
        let signed = context.sign(&context_keys(), method.as_str(), &self.authority(), path);
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.authority())
            .header("meridian-context", signed)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a request")
    }

    /// As the tenant's subject with all scopes of `orders`.
    pub async fn as_tenant(&self, tenant: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let context = context(tenant, &["orders:read", "orders:write"]);
        self.send(self.forwarded(&context, method, path, body)).await
    }

    /// As an edge for itself.
    pub async fn as_edge(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let context = Context { tenant: None, subject: None, ..context("", &[]) };
        self.send(self.forwarded(&context, method, path, body)).await
    }

    /// With the first control token.
    pub async fn control(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.control_as(CONTROL_TOKEN, method, path, body).await
    }

    pub async fn control_as(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/control/v1{path}"))
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a request");
        self.send(request).await
    }

    /// What Prometheus would read.
    pub async fn metrics(&self) -> String {
        let request = Request::get("/metrics").header(AUTHORIZATION, format!("Bearer {METRICS_TOKEN}"));
        let reply = self.send(request.body(Full::default()).expect("a request")).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        String::from_utf8(reply.body.to_vec()).expect("text")
    }

    /// Makes a tenant with a collection `orders`.
    pub async fn tenant(&self, slug: &str) {
        let region = &self.cluster.node.region;
        let tenant = json!({"slug": slug, "name": slug, "home_region": region, "allowed_regions": [region]});
        let made = self.control(Method::POST, "/tenants", Some(&tenant)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let orders = json!({
            "name": "orders",
            "json_schema": {"type": "object", "properties": {
                "status": {"enum": ["open", "paid"]}, "total": {"type": "number"}}},
            "merge": {"reprints": "counter", "labels": "set"},
        });
        let made = self.control(Method::POST, &format!("/tenants/{slug}/collections"), Some(&orders)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
}
