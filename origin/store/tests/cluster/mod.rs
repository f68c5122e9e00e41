//! Private PostgreSQL clusters for tests: made from nothing, stopped and removed when dropped.
//!
//! Binaries come from `MERIDIAN_PG_BIN`, else the newest under `/usr/lib/postgresql/*/bin`. PostgreSQL refuses to
//! run as root; from a root process the server runs as `nobody`. Ports come from `MERIDIAN_TEST_PORTS`
//! (`FIRST-LAST`, default 21100-21199).
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use meridian_store::sqlx::{Connection, PgConnection};
use meridian_store::{Bootstrap, Node, bootstrap, migrate};

const NOBODY: u32 = 65534;
const PASSWORD: &str = "only-for-tests";
const DATABASE: &str = "meridian";

/// A running cluster with Meridian's database in it.
pub struct Cluster {
    pub node: Node,
    pub port: u16,
    directory: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    /// A cluster of a region, bootstrapped and migrated.
    pub async fn start(region: &str, ordinal: u16) -> Self {
        let cluster = Self::bare(region, ordinal).await;
        let passwords = Bootstrap {
            database: DATABASE.into(),
            owner_password: PASSWORD.into(),
            app_password: PASSWORD.into(),
            replicator_password: PASSWORD.into(),
        };
        bootstrap(&cluster.superuser_url("postgres"), &passwords).await.expect("bootstrap");
        migrate(&cluster.url("meridian_owner"), &cluster.node).await.expect("migrate");
        cluster
    }

    /// A cluster with nothing in it.
    pub async fn bare(region: &str, ordinal: u16) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("meridian-test-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let password_file = directory.join("password");
        std::fs::write(&password_file, PASSWORD).expect("the password file");
        if is_root() {
            for path in [&directory, &password_file] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown to nobody");
            }
        }
        let data = directory.join("data");
        let mut initdb = unprivileged(&binary("initdb"));
        initdb.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        initdb.arg(format!("--pwfile={}", password_file.display())).arg("-D").arg(&data);
        let output = initdb.output().expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let node = Node { region: region.into(), ordinal };
        let mut cluster = Self { node, port: free_port(), directory, server: None };
        cluster.run().await;
        cluster
    }

    /// Starts the server, on the same port and data as before.
    pub async fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let log = log.expect("the server's log");
        let mut server = unprivileged(&binary("postgres"));
        server.arg("-D").arg(self.directory.join("data")).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "wal_level=logical",
            "max_replication_slots=20",
            "max_wal_senders=20",
            "max_connections=60",
            "wal_sender_timeout=10s",
            "fsync=off",
            "log_min_messages=warning",
        ] {
            server.arg("-c").arg(setting);
        }
        server.arg("-c").arg(format!("unix_socket_directories={}", self.directory.display()));
        server.stdout(log.try_clone().expect("a second handle")).stderr(log).stdin(Stdio::null());
        let url = self.superuser_url("postgres");
        let running = self.server.insert(server.spawn().expect("postgres starts"));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            // Processes of a server that was killed may hold its memory a moment longer than it lived.
            if running.try_wait().expect("the server's state").is_some() {
                *running = server.spawn().expect("postgres starts again");
            }
            match PgConnection::connect(&url).await {
                Ok(connection) => {
                    connection.close().await.ok();
                    return;
                }
                Err(error) => {
                    let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                    assert!(Instant::now() < deadline, "{error}\n{log}");
                }
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().ok();
            server.wait().ok();
        }
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The URL of the database for a role: `meridian_app`, `meridian_owner` or `meridian_replicator`.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection as the superuser: sees everything, for assertions.
    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.superuser_url(DATABASE)).await.expect("a superuser connection")
    }

    /// Adds a tenant that may be in these regions.
    pub async fn tenant(&self, slug: &str, regions: &[&str]) {
        meridian_store::sqlx::query(
            "insert into meridian.tenant
                 (slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms)
             values ($1, $1, 'active', $2, $3, 1, 1)",
        )
        .bind(slug)
        .bind(regions[0])
        .bind(regions)
        .execute(&mut self.superuser().await)
        .await
        .expect("a tenant");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Immediate shutdown: the data is thrown away.
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            server.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!(
                "last lines of {}'s log:\n{}",
                self.node.region,
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn binary(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("MERIDIAN_PG_BIN") {
        return PathBuf::from(directory).join(name);
    }
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.pop().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

/// A port that nobody listens on. Test processes run side by side, so each starts looking elsewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::env::var("MERIDIAN_TEST_PORTS").unwrap_or_else(|_| "21100-21199".into());
    let (first, last) = range.split_once('-').expect("MERIDIAN_TEST_PORTS is FIRST-LAST");
    let (first, last): (u32, u32) = (first.parse().expect("a port"), last.parse().expect("a port"));
    let count = last - first + 1;
    for _ in 0..count {
        let port = first + (std::process::id() * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {range}");
}
