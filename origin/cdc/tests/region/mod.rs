//! Whole regions in one process: a real PostgreSQL, the change path, and real WebSockets between them, each through
//! a tap that can listen and be cut.
#![allow(dead_code, reason = "each test file uses what it needs")]

#[path = "../../../store/tests/cluster/mod.rs"]
pub mod cluster;

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::Cluster;
use meridian_cdc::tls::trust;
use meridian_cdc::{Applied, Config, Hook, PEER_HEADER, Peer, PeerKeys, Replication};
use meridian_replica::Cursor;
use meridian_store::record::{self, Record};
use meridian_store::sqlx::{self, PgConnection};
use meridian_store::{Access, Collection, Declaration, Fault, Merge, Scope, Store};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use uuid::Uuid;

pub const NAMES: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-1"];
const KEYS: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Region {
    pub cluster: Cluster,
    pub store: Store,
    pub hooks: Arc<Mutex<Vec<Applied>>>,
    origin: Option<Origin>,
    /// Where the origin's own reading and writing goes when not plainly to the cluster.
    pub replication_url: String,
    /// Set before the start: origins speak TLS to each other.
    pub tls: Option<Tls>,
    listener: Arc<TcpListener>,
    peers: Vec<Peer>,
}

/// How a region presents itself, and whom it trusts.
#[derive(Clone)]
pub struct Tls {
    pub acceptor: TlsAcceptor,
    pub authorities: PathBuf,
}

struct Origin {
    replication: Arc<Replication>,
    accepting: JoinHandle<()>,
}

/// One connection's way from a receiver to a source.
pub struct Tap {
    pub url: String,
    open: watch::Sender<bool>,
    /// Everything that the source sent.
    pub heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

pub struct World {
    pub regions: Vec<Region>,
    /// By receiver and source.
    pub taps: BTreeMap<(usize, usize), Tap>,
}

impl World {
    /// Regions that replicate with each other, with two tenants, of which `globex` may not be in the third region.
    pub async fn start(count: usize) -> Self {
        let mut world = Self::quiet(count).await;
        world.tenants().await;
        for at in 0..count {
            world.regions[at].start_origin().await;
        }
        world.settle().await;
        world
    }

    /// Regions whose change path does not run yet, without tenants.
    pub async fn quiet(count: usize) -> Self {
        let clusters = (0..count).map(|at| Cluster::start(NAMES[at], at as u16 + 1));
        let clusters = futures_util::future::join_all(clusters).await;
        let listeners: Vec<Arc<TcpListener>> = (0..count).map(|_| Arc::new(listener())).collect();
        let mut taps = BTreeMap::new();
        for receiver in 0..count {
            for source in (0..count).filter(|source| *source != receiver) {
                taps.insert((receiver, source), Tap::start(listeners[source].local_addr().unwrap().port()));
            }
        }
        let mut regions = Vec::new();
        for (at, (cluster, listener)) in clusters.into_iter().zip(listeners).enumerate() {
            let peers = (0..count).filter(|other| *other != at).map(|other| Peer {
                region: NAMES[other].into(),
                ordinal: other as u16 + 1,
                url: taps[&(at, other)].url.clone(),
            });
            let store = Store::connect(&cluster.url("meridian_app"), 8).await.unwrap();
            let peers = peers.collect();
            let replication_url = cluster.url("meridian_replicator");
            let (hooks, origin, tls) = (Arc::default(), None, None);
            regions.push(Region { cluster, store, hooks, origin, replication_url, tls, listener, peers });
        }
        Self { regions, taps }
    }

    pub async fn tenants(&self) {
        let first = &self.regions[0];
        first.cluster.tenant("acme", &NAMES).await;
        first.cluster.tenant("globex", &NAMES[..2]).await;
        for tenant in ["acme", "globex"] {
            let mut scope = first.store.begin(Access::Control).await.unwrap();
            first.store.declare_collection(&mut scope, tenant, &orders()).await.unwrap();
            scope.commit().await.unwrap();
        }
    }

    /// Waits until every running region has applied everything that every other has committed.
    pub async fn settle(&self) {
        for (at, source) in self.regions.iter().enumerate() {
            let position = source.store.position().await.unwrap();
            let wanted: Cursor = [(at as u16 + 1, position)].into_iter().collect();
            for (other, region) in self.regions.iter().enumerate() {
                let Some(origin) = &region.origin else { continue };
                if other == at || source.origin.is_none() || !*self.taps[&(other, at)].open.borrow() {
                    continue;
                }
                if let Err(behind) = origin.replication.progress().wait_until(&wanted, PATIENCE).await {
                    let status = origin.replication.status();
                    panic!("{}: {behind}, wanted {wanted}: {status:#?}", NAMES[other]);
                }
            }
        }
    }

    /// Settles, and asserts that all regions hold the same bytes of every replicated table.
    pub async fn assert_equal(&self) {
        self.settle().await;
        let mut first: Option<BTreeMap<String, String>> = None;
        for region in &self.regions {
            let mut rows = region.rows().await;
            // Where there is a third region, one tenant's rows are not there.
            rows.retain(|key, _| self.regions.len() < 3 || !key.contains("(globex,"));
            match &first {
                None => first = Some(rows),
                Some(first) => {
                    for (key, row) in first {
                        assert_eq!(
                            Some(row),
                            rows.get(key),
                            "{key} differs in {}",
                            region.cluster.node.region
                        );
                    }
                    assert_eq!(first.len(), rows.len(), "number of rows in {}", region.cluster.node.region);
                }
            }
        }
    }

    /// Opens or cuts both ways between two regions.
    pub fn link(&self, a: usize, b: usize, open: bool) {
        self.taps[&(a, b)].open.send_replace(open);
        self.taps[&(b, a)].open.send_replace(open);
    }

    pub async fn stop(&mut self) {
        for region in &mut self.regions {
            region.stop_origin().await;
        }
    }
}

impl Region {
    pub async fn start_origin(&mut self) {
        self.try_start_origin().await.expect("the change path starts");
    }

    pub async fn try_start_origin(&mut self) -> Result<(), meridian_cdc::Fault> {
        let hooks = self.hooks.clone();
        let hook: Hook = Arc::new(move |applied: &Applied| hooks.lock().unwrap().push(applied.clone()));
        let mut peers = self.peers.clone();
        if self.tls.is_some() {
            for peer in &mut peers {
                peer.url = peer.url.replace("http://", "https://");
            }
        }
        let authorities = self.tls.as_ref().map(|tls| tls.authorities.as_path());
        let config = Config {
            node: self.cluster.node.clone(),
            replication_url: self.replication_url.clone(),
            peers,
            peer_keys: PeerKeys::parse(KEYS).unwrap(),
            peer_tls: trust(authorities).unwrap(),
        };
        let replication = Arc::new(Replication::start(config, hook).await?);
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor.clone());
        let accepting = tokio::spawn(accept(self.listener.clone(), acceptor, replication.clone()));
        self.origin = Some(Origin { replication, accepting });
        Ok(())
    }

    /// Stops in order.
    pub async fn stop_origin(&mut self) {
        if let Some(origin) = self.origin.take() {
            origin.accepting.abort();
            origin.replication.shutdown().await;
        }
    }

    /// Ends without any order, as a crash would.
    pub fn crash_origin(&mut self) {
        self.origin = None;
    }

    pub fn replication(&self) -> &Replication {
        &self.origin.as_ref().expect("the origin runs").replication
    }

    pub async fn write(&self, tenant: &str) -> (Scope, Arc<Collection>) {
        self.try_write(tenant).await.unwrap()
    }

    pub async fn try_write(&self, tenant: &str) -> Result<(Scope, Arc<Collection>), Fault> {
        let mut scope = self.store.begin(Access::Tenant(tenant)).await?;
        let collection = self.store.collection(&mut scope, "orders").await?;
        Ok((scope, collection))
    }

    pub async fn create(&self, tenant: &str, fields: Value) -> Record {
        let (mut scope, orders) = self.write(tenant).await;
        let record = record::create(&mut scope, &orders, None, object(fields)).await.unwrap();
        scope.commit().await.unwrap();
        record
    }

    pub async fn patch(&self, tenant: &str, id: Uuid, fields: Value) -> Result<Record, Fault> {
        let (mut scope, orders) = self.try_write(tenant).await?;
        let record = record::patch(&mut scope, &orders, id, object(fields), None).await?;
        scope.commit().await?;
        Ok(record)
    }

    pub async fn delete(&self, tenant: &str, id: Uuid) -> Result<(), Fault> {
        let (mut scope, orders) = self.try_write(tenant).await?;
        record::delete(&mut scope, &orders, id, None).await?;
        scope.commit().await
    }

    pub async fn get(&self, tenant: &str, id: Uuid) -> Result<Record, Fault> {
        let (mut scope, orders) = self.try_write(tenant).await?;
        record::get(&mut scope, &orders, id).await
    }

    /// Every row of every replicated table, by table and key, as PostgreSQL shows it.
    pub async fn rows(&self) -> BTreeMap<String, String> {
        let mut sql = self.cluster.superuser().await;
        let tables: Vec<(String, Vec<String>)> =
            sqlx::query_as("select table_name, key_columns from meridian.enrolled")
                .fetch_all(&mut sql)
                .await
                .unwrap();
        let mut rows = BTreeMap::new();
        for (table, key) in tables {
            let statement = format!("select row({})::text, t::text from meridian.{table} t", key.join(", "));
            let found: Vec<(String, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(statement)).fetch_all(&mut sql).await.unwrap();
            rows.extend(found.into_iter().map(|(key, row)| (format!("{table} {key}"), row)));
        }
        rows
    }

    /// Runs statements as the role that owns the schema.
    pub async fn migrate(&self, statements: &'static str) {
        use sqlx::{Connection as _, Executor as _};
        let mut owner = PgConnection::connect(&self.cluster.url("meridian_owner")).await.unwrap();
        owner.execute(statements).await.unwrap();
    }

    pub async fn sql(&self) -> PgConnection {
        self.cluster.superuser().await
    }

    pub async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut self.sql().await).await.unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub fn orders() -> Declaration {
    Declaration {
        name: "orders".into(),
        json_schema: json!({"type": "object"}),
        merge: BTreeMap::from([
            ("stock".into(), Merge::Counter),
            ("tags".into(), Merge::Set),
            ("notes".into(), Merge::Map),
        ]),
    }
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Asks until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Accepts connections as an origin's server does, or the proxy with its certificate before it. They end with it.
async fn accept(listener: Arc<TcpListener>, acceptor: Option<TlsAcceptor>, replication: Arc<Replication>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((io, _)) = listener.accept().await else { return };
        io.set_nodelay(true).ok();
        let (acceptor, replication) = (acceptor.clone(), replication.clone());
        connections.spawn(async move {
            match acceptor {
                None => serve(io, &replication).await,
                Some(acceptor) => {
                    if let Ok(io) = acceptor.accept(io).await {
                        serve(io, &replication).await;
                    }
                }
            }
        });
    }
}

/// Answers the handshake, and hands the connection over.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(io: S, replication: &Replication) {
    let mut permit = None;
    #[expect(clippy::result_large_err, reason = "the callback's type is given")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let proof = request.headers().get(PEER_HEADER).and_then(|proof| proof.to_str().ok());
        match replication.serve(proof) {
            Ok(granted) => {
                permit = Some(granted);
                Ok(response)
            }
            Err(refused) => {
                let mut response = ErrorResponse::new(Some(refused.to_string()));
                *response.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::UNAUTHORIZED;
                Err(response)
            }
        }
    };
    let socket = tokio_tungstenite::accept_hdr_async(io, check).await;
    if let (Ok(socket), Some(permit)) = (socket, permit) {
        permit.run(socket.into_inner()).await;
    }
}

fn listener() -> TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(50);
    let range = std::env::var("MERIDIAN_TEST_PORTS").unwrap_or_else(|_| "21100-21199".into());
    let (first, last) = range.split_once('-').expect("MERIDIAN_TEST_PORTS is FIRST-LAST");
    let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
    for _ in first..=last {
        let port =
            first + (std::process::id() * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % (last - first + 1);
        if let Ok(listener) = StdListener::bind(("127.0.0.1", port as u16)) {
            listener.set_nonblocking(true).unwrap();
            return TcpListener::from_std(listener).unwrap();
        }
    }
    panic!("no free port in {range}");
}

impl Tap {
    fn start(to: u16) -> Self {
        let listener = listener();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let open = watch::Sender::new(true);
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let task = tokio::spawn({
            let (open, heard) = (open.clone(), heard.clone());
            async move {
                loop {
                    let Ok((mut near, _)) = listener.accept().await else { return };
                    let (mut open, heard) = (open.subscribe(), heard.clone());
                    tokio::spawn(async move {
                        if !*open.borrow() {
                            return;
                        }
                        let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                        near.set_nodelay(true).ok();
                        far.set_nodelay(true).ok();
                        let (mut up, mut down) = ([0; 16 * 1024], [0; 64 * 1024]);
                        loop {
                            // Cut comes first: what is written after a cut does not get through.
                            tokio::select! {
                                biased;
                                () = closed(&mut open) => return,
                                read = near.read(&mut up) => match read {
                                    Ok(count) if count > 0 && far.write_all(&up[..count]).await.is_ok() => {}
                                    _ => return,
                                },
                                read = far.read(&mut down) => match read {
                                    Ok(count) if count > 0 => {
                                        heard.lock().unwrap().extend_from_slice(&down[..count]);
                                        if near.write_all(&down[..count]).await.is_err() {
                                            return;
                                        }
                                    }
                                    _ => return,
                                },
                            }
                        }
                    });
                }
            }
        });
        Self { url, open, heard, task }
    }

    /// Whether the source ever sent these bytes.
    pub fn heard(&self, needle: &str) -> bool {
        self.heard.lock().unwrap().windows(needle.len()).any(|window| window == needle.as_bytes())
    }
}

async fn closed(open: &mut watch::Receiver<bool>) {
    let _ = open.wait_for(|open| !*open).await;
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}
