//! Two regions with both ways between them, of which at most one is open.

#[path = "../../../origin/store/tests/cluster/mod.rs"]
mod cluster;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use meridian_cdc::{Config, PEER_HEADER, Peer, PeerKeys, Replication};
use meridian_store::sqlx::{self, AssertSqlSafe, Executor, PgConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

use crate::path::Path;

const REGIONS: [&str; 2] = ["us-east-1", "eu-west-1"];
const TENANT: &str = "bench";
const PEER_KEYS: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// A path that was opened carries changes within this time.
const OPEN_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Columns and values of row number `n`: about what an order is. Ids rise, as those of version 7 do.
const COLUMNS: &str = "tenant, collection, id, fields";
const VALUES: &str = "'bench', 'orders', ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    jsonb_build_object('number', 'ORD-' || n, 'customer', 'customer-' || n % 1000, 'city', 'Singapore',
        'status', 'placed', 'currency', 'SGD', 'total_cents', n % 100000)";

/// Writes transactions of so many rows each, as fast as one session can.
const FILL: &str = "
    create procedure public.fill_TABLENAME(first bigint, transactions int, rows int) language plpgsql as $$
    begin
        for at in 0 .. transactions - 1 loop
            insert into TABLE (COLUMNS) select VALUES
                from generate_series(first + at * rows, first + (at + 1) * rows - 1) as numbers(n);
            commit;
        end loop;
    end $$";

/// Two regions; the first is written, the second is watched.
pub struct Pair {
    origins: Vec<Origin>,
    source: PgConnection,
    target: tokio::sync::Mutex<PgConnection>,
    /// Number of the next row of each path.
    next: [u64; 2],
}

struct Origin {
    cluster: Cluster,
    listener: Arc<TcpListener>,
    peer: Peer,
    running: Option<(Arc<Replication>, JoinHandle<()>)>,
}

impl Pair {
    /// Makes both regions; no path is open.
    pub async fn start() -> Result<Self> {
        let mut listeners = Vec::new();
        for _ in REGIONS {
            listeners.push(Arc::new(TcpListener::bind("127.0.0.1:0").await?));
        }
        let mut origins = Vec::new();
        for (at, listener) in listeners.iter().enumerate() {
            let other = 1 - at;
            let peer = Peer {
                region: REGIONS[other].into(),
                ordinal: other as u16 + 1,
                url: format!("http://{}", listeners[other].local_addr()?),
            };
            let cluster = Cluster::start(REGIONS[at], at as u16 + 1).await;
            origins.push(Origin { cluster, listener: listener.clone(), peer, running: None });
        }
        origins[0].cluster.tenant(TENANT, &REGIONS).await;
        let (mut source, mut target) =
            (origins[0].cluster.superuser().await, origins[1].cluster.superuser().await);
        let plain = Path::Subscription.table();
        let create =
            "(tenant text collate \"C\" not null, collection text collate \"C\" not null, id uuid not null,
            fields jsonb not null, created_at timestamptz(3) not null default now(),
            updated_at timestamptz(3) not null default now(), primary key (tenant, collection, id))";
        for sql in [&mut source, &mut target] {
            execute(sql, format!("create table {plain} {create}")).await?;
        }
        for path in Path::ALL {
            let name = path.to_string();
            let fill = FILL.replace("TABLENAME", &name).replace("TABLE", path.table());
            execute(&mut source, fill.replace("COLUMNS", COLUMNS).replace("VALUES", VALUES)).await?;
        }
        // The peer at its best: it looks for new work as often as we do.
        execute(&mut target, "alter system set wal_retrieve_retry_interval = '50ms'".into()).await?;
        execute(&mut target, "select pg_reload_conf()".into()).await?;
        execute(&mut source, format!("create publication plain for table {plain}")).await?;
        let from = origins[0].cluster.superuser_url("meridian");
        let subscription = format!(
            "create subscription plain connection '{from}' publication plain with (copy_data = false)"
        );
        execute(&mut target, subscription).await?;
        execute(&mut target, "alter subscription plain disable".into()).await?;
        Ok(Self { origins, source, target: target.into(), next: [1; 2] })
    }

    /// PostgreSQL's version.
    pub async fn version(&mut self) -> Result<String> {
        Ok(sqlx::query_scalar("show server_version").fetch_one(&mut self.source).await?)
    }

    /// Opens one path and closes the other; returns when a row has come through.
    pub async fn switch(&mut self, path: Path) -> Result<()> {
        match path {
            Path::Meridian => {
                self.disable().await?;
                self.open(0).await?;
            }
            Path::Subscription => self.close().await,
        }
        self.release(path).await?;
        let row = self.write_one(path).await?;
        let started = Instant::now();
        while !self.arrived(path, row).await? {
            if started.elapsed() > OPEN_MAX {
                let status = self.origins[1].running.as_ref().map(|(replication, _)| replication.status());
                bail!("nothing comes by {path}: {status:#?}");
            }
            tokio::time::sleep(POLL).await;
        }
        self.await_readers().await
    }

    /// Waits until everything that reads either log has read what the other path wrote.
    async fn await_readers(&mut self) -> Result<()> {
        for sql in [&mut self.source, self.target.get_mut()] {
            let end: String =
                sqlx::query_scalar("select pg_current_wal_lsn()::text").fetch_one(&mut *sql).await?;
            let started = Instant::now();
            loop {
                let read: bool = sqlx::query_scalar(
                    "select coalesce(bool_and(sent_lsn >= $1::text::pg_lsn), true) from pg_stat_replication",
                )
                .bind(&end)
                .fetch_one(&mut *sql)
                .await?;
                if read {
                    break;
                }
                ensure!(started.elapsed() < OPEN_MAX, "a log is not read to its end");
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Opens this path at the source only, so that what is written waits there.
    pub async fn hold(&mut self, path: Path) -> Result<()> {
        self.switch(path).await?;
        match path {
            Path::Meridian => self.origins[1].stop().await,
            Path::Subscription => self.disable().await?,
        }
        Ok(())
    }

    /// Lets the target apply.
    pub async fn release(&mut self, path: Path) -> Result<()> {
        match path {
            Path::Meridian => self.open(1).await,
            Path::Subscription => {
                execute(&mut *self.target.lock().await, "alter subscription plain enable".into()).await
            }
        }
    }

    /// Waits until the source has done its own work for what was written: it journals its commits for its edges.
    pub async fn settle_source(&mut self, path: Path) -> Result<()> {
        if path == Path::Subscription {
            return Ok(());
        }
        let position: i64 = sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0')::bigint")
            .fetch_one(&mut self.source)
            .await?;
        // A commit of its own, beyond everything that was written.
        self.write_one(path).await?;
        let (replication, _) = self.origins[0].running.as_ref().context("the source's origin runs")?;
        let started = Instant::now();
        while replication.progress().vector().get(1) < position as u64 {
            ensure!(started.elapsed() < OPEN_MAX, "the source does not journal its commits");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Commits the next row; returns its number.
    pub async fn write_one(&mut self, path: Path) -> Result<u64> {
        let row = self.take(path, 1);
        let statement = match path {
            Path::Meridian => {
                "insert into meridian.record (tenant, collection, id, fields) values ($1, $2, $3::text::uuid, $4::text::jsonb)"
            }
            Path::Subscription => {
                "insert into public.plain_record (tenant, collection, id, fields) values ($1, $2, $3::text::uuid, $4::text::jsonb)"
            }
        };
        let fields = r#"{"number":"ORD-1","customer":"customer-1","city":"Singapore","status":"placed","currency":"SGD","total_cents":12900}"#;
        sqlx::query(statement)
            .bind(TENANT)
            .bind("orders")
            .bind(id(row))
            .bind(fields)
            .execute(&mut self.source)
            .await?;
        Ok(row)
    }

    /// Commits many rows; returns the numbers of the first and the last.
    pub async fn fill(&mut self, path: Path, transactions: u32, rows: u32) -> Result<(u64, u64)> {
        let count = u64::from(transactions) * u64::from(rows);
        let first = self.take(path, count);
        execute(&mut self.source, format!("call public.fill_{path}({first}, {transactions}, {rows})"))
            .await?;
        Ok((first, first + count - 1))
    }

    /// Whether the target shows a row.
    pub async fn arrived(&self, path: Path, row: u64) -> Result<bool> {
        let statement = match path {
            Path::Meridian => {
                "select exists (select from meridian.record where tenant = $1 and collection = $2 and id = $3::text::uuid)"
            }
            Path::Subscription => {
                "select exists (select from public.plain_record where tenant = $1 and collection = $2 and id = $3::text::uuid)"
            }
        };
        let mut target = self.target.lock().await;
        Ok(sqlx::query_scalar(statement)
            .bind(TENANT)
            .bind("orders")
            .bind(id(row))
            .fetch_one(&mut *target)
            .await?)
    }

    /// Rows that the target shows, of those from one number to another.
    pub async fn count_between(&self, path: Path, first: u64, last: u64) -> Result<u64> {
        let statement = format!(
            "select count(*) from {} where tenant = '{TENANT}' and collection = 'orders' and id between '{}' and '{}'",
            path.table(),
            id(first),
            id(last)
        );
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *self.target.lock().await).await?;
        Ok(count as u64)
    }

    /// Ends everything.
    pub async fn stop(mut self) -> Result<()> {
        self.close().await;
        self.disable().await?;
        // A subscription holds its source's slot: without it both clusters end in order.
        execute(self.target.get_mut(), "drop subscription plain".into()).await
    }

    fn take(&mut self, path: Path, count: u64) -> u64 {
        let next = &mut self.next[path as usize];
        let first = *next;
        *next += count;
        first
    }

    async fn open(&mut self, at: usize) -> Result<()> {
        self.origins[at].start().await
    }

    async fn close(&mut self) {
        for origin in &mut self.origins {
            origin.stop().await;
        }
    }

    /// Ends the subscription's worker and waits until it is gone on both sides.
    async fn disable(&mut self) -> Result<()> {
        execute(self.target.get_mut(), "alter subscription plain disable".into()).await?;
        let started = Instant::now();
        loop {
            let active: bool = sqlx::query_scalar(
                "select coalesce(bool_or(active), false) from pg_replication_slots where slot_name = 'plain'",
            )
            .fetch_one(&mut self.source)
            .await?;
            if !active {
                return Ok(());
            }
            ensure!(started.elapsed() < OPEN_MAX, "the subscription does not end");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Origin {
    async fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let config = Config {
            node: self.cluster.node.clone(),
            replication_url: self.cluster.url("meridian_replicator"),
            peers: vec![self.peer.clone()],
            peer_keys: PeerKeys::parse(PEER_KEYS).context("the peers' key")?,
            peer_tls: meridian_cdc::tls::trust(None)?,
        };
        let replication = Arc::new(Replication::start(config, Arc::new(|_| {})).await?);
        let accepting = tokio::spawn(accept(self.listener.clone(), replication.clone()));
        self.running = Some((replication, accepting));
        Ok(())
    }

    async fn stop(&mut self) {
        if let Some((replication, accepting)) = self.running.take() {
            accepting.abort();
            replication.shutdown().await;
        }
    }
}

/// Answers handshakes as an origin's server does, and hands the connection over.
async fn accept(listener: Arc<TcpListener>, replication: Arc<Replication>) {
    while let Ok((io, _)) = listener.accept().await {
        let replication = replication.clone();
        tokio::spawn(async move {
            if io.set_nodelay(true).is_err() {
                return;
            }
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
                        *response.status_mut() = StatusCode::UNAUTHORIZED;
                        Err(response)
                    }
                }
            };
            let socket = tokio_tungstenite::accept_hdr_async(io, check).await;
            if let (Ok(socket), Some(permit)) = (socket, permit) {
                permit.run(socket.into_inner()).await;
            }
        });
    }
}

fn id(row: u64) -> String {
    format!("01990000-0000-7000-8000-{row:012x}")
}

async fn execute(sql: &mut PgConnection, statement: String) -> Result<()> {
    sql.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}
