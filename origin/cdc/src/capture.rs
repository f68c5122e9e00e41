//! Reads this region's own log: a logical replication slot, decoded by `pgoutput`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use meridian_store::sqlx::{self, PgConnection};
use percent_encoding::percent_decode_str;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationConfig, ReplicationEvent, SslMode, TlsConfig};

use crate::decode::{self, Message};
use crate::{Fault, limits};

/// The publication that every enrolled table is a member of.
const PUBLICATION: &str = "meridian";

/// The slot whose reader journals own commits for the edges.
pub(crate) const LOCAL_SLOT: &str = "meridian_local";

/// The slot that keeps the log for one peer.
#[must_use]
pub fn slot_of(region: &str) -> String {
    let plain = region.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    "meridian_to_".chars().chain(plain).take(63).collect()
}

/// A slot as it is found or made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// The position from which it serves.
    pub(crate) serves_from: u64,
    /// Whether it was made just now: nothing before is kept.
    pub(crate) fresh: bool,
}

/// Makes a slot if it is not there, or lost what it kept.
pub(crate) async fn ensure_slot(connection: &mut PgConnection, slot: &str) -> Result<Slot, Fault> {
    let found: Option<(Option<i64>, Option<String>)> = sqlx::query_as(
        "select (confirmed_flush_lsn - '0/0')::bigint, wal_status from pg_replication_slots where slot_name = $1",
    )
    .bind(slot)
    .fetch_optional(&mut *connection)
    .await?;
    match found {
        Some((Some(position), status)) if status.as_deref() != Some("lost") => {
            return Ok(Slot { serves_from: position as u64, fresh: false });
        }
        Some(_) => {
            tracing::warn!(
                slot,
                "the slot lost what it kept: it is made anew, and its peer copies everything"
            );
            sqlx::query("select pg_drop_replication_slot($1)").bind(slot).execute(&mut *connection).await?;
        }
        None => {}
    }
    let position: i64 = sqlx::query_scalar(
        "select (lsn - '0/0')::bigint from pg_create_logical_replication_slot($1, 'pgoutput')",
    )
    .bind(slot)
    .fetch_one(connection)
    .await?;
    Ok(Slot { serves_from: position as u64, fresh: true })
}

/// How much of the log a slot keeps, in bytes, and what PostgreSQL says of it.
pub(crate) async fn retained(
    connection: &mut PgConnection,
    slot: &str,
) -> Result<Option<(u64, String)>, Fault> {
    let found: Option<(Option<i64>, Option<String>)> = sqlx::query_as(
        "select (pg_current_wal_insert_lsn() - restart_lsn)::bigint, wal_status from pg_replication_slots
          where slot_name = $1",
    )
    .bind(slot)
    .fetch_optional(connection)
    .await?;
    Ok(found
        .map(|(bytes, status)| (bytes.unwrap_or(0).max(0) as u64, status.unwrap_or_else(|| "lost".into()))))
}

/// Ends a reader of before that still holds the slot: its connection may have died without the server noticing.
pub(crate) async fn free_slot(connection: &mut PgConnection, slot: &str) -> Result<(), Fault> {
    let deadline = Instant::now() + limits::SLOT_WAIT_MAX;
    loop {
        let held: Option<bool> = sqlx::query_scalar(
            "select pg_terminate_backend(active_pid) from pg_replication_slots
              where slot_name = $1 and active_pid is not null",
        )
        .bind(slot)
        .fetch_optional(&mut *connection)
        .await?
        .flatten();
        if held.is_none() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Fault::SlotHeld { slot: slot.to_owned() });
        }
        tokio::time::sleep(limits::SLOT_ASK_INTERVAL).await;
    }
}

/// Where and as whom to read the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
    tls: TlsConfig,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE[?sslmode=…&sslrootcert=…]`, both as libpq has them.
    pub(crate) fn parse(url: &str) -> Result<Self, Fault> {
        let parsed = || {
            let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
            let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
            let (authority, database) = rest.split_once('/')?;
            let (credentials, server) = authority.rsplit_once('@')?;
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let (host, port) = match server.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (server, 5432),
            };
            let parameter = |name: &str| {
                let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
                value.map(percent_decoded)
            };
            let sslmode = match parameter("sslmode") {
                None => "prefer".to_owned(),
                Some(sslmode) => sslmode?,
            };
            Some(Self {
                host: percent_decoded(host.trim_matches(['[', ']']))?,
                port,
                user: percent_decoded(user)?,
                password: percent_decoded(password)?,
                database: percent_decoded(database)?,
                tls: TlsConfig {
                    mode: match sslmode.as_str() {
                        "disable" | "allow" => SslMode::Disable,
                        "prefer" => SslMode::Prefer,
                        "require" => SslMode::Require,
                        "verify-ca" => SslMode::VerifyCa,
                        "verify-full" => SslMode::VerifyFull,
                        _ => return None,
                    },
                    ca_pem_path: match parameter("sslrootcert") {
                        None => None,
                        Some(path) => Some(path?.into()),
                    },
                    ..TlsConfig::default()
                },
            })
        };
        parsed().ok_or(Fault::Url {
            what: "replication URL",
            expected: "postgres://USER:PASSWORD@HOST:PORT/DATABASE, with sslmode disable, allow, prefer, require, verify-ca or verify-full",
        })
    }

    fn config(&self, slot: &str) -> ReplicationConfig {
        ReplicationConfig::new(&*self.host, &*self.user, &*self.password, &*self.database, slot, PUBLICATION)
            .with_port(self.port)
            .with_tls(self.tls.clone())
            .with_status_interval(limits::SLOT_STATUS_INTERVAL)
            .with_options(
                "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c timezone=UTC",
            )
            .with_application_name(format!("meridian {slot}"))
            .with_buffer_size(limits::LOG_EVENTS_HELD_MAX)
    }
}

/// `None` where the bytes are no text.
fn percent_decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// A table in the log.
#[derive(Debug)]
pub(crate) struct LogRelation {
    pub(crate) id: u32,
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

impl LogRelation {
    pub(crate) fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == column)
    }
}

/// What happens in the log, in the order of commits.
pub(crate) enum Item {
    /// A transaction begins.
    Begin { commit_ms: u64 },
    /// It was applied from a peer, not written here.
    Foreign,
    /// A table is described, for the first time or again.
    Relation(Arc<LogRelation>),
    /// A row was written; [`decode::read`] reads it.
    Row { relation: Arc<LogRelation>, bytes: Bytes },
    /// The transaction ends.
    Commit { end: u64, commit_ms: u64 },
    /// Nothing more to come up to here.
    Progress { position: u64 },
}

/// An open slot.
pub(crate) struct Log {
    client: ReplicationClient,
    relations: HashMap<u32, Arc<LogRelation>>,
    in_transaction: bool,
}

impl Log {
    /// Opens a slot at a position.
    pub(crate) async fn open(address: &Address, slot: &str, position: u64) -> Result<Self, Fault> {
        let config = address.config(slot).with_start_lsn(Lsn(position));
        let mut client = ReplicationClient::connect(config).await.map_err(Fault::Log)?;
        client.wait_started().await.map_err(Fault::Log)?;
        Ok(Self { client, relations: HashMap::new(), in_transaction: false })
    }

    /// The next item, when there is one.
    pub(crate) async fn next(&mut self) -> Result<Item, Fault> {
        loop {
            let event = self.client.recv().await.map_err(Fault::Log)?.ok_or(Fault::LogEnded)?;
            if let Some(item) = self.item(event)? {
                return Ok(item);
            }
        }
    }

    /// The next item, if it is there already.
    pub(crate) fn ready(&mut self) -> Result<Option<Item>, Fault> {
        loop {
            let Some(received) = self.client.recv().now_or_never() else { return Ok(None) };
            let event = received.map_err(Fault::Log)?.ok_or(Fault::LogEnded)?;
            if let Some(item) = self.item(event)? {
                return Ok(Some(item));
            }
        }
    }

    /// Says that everything up to here is safe elsewhere: the slot moves.
    pub(crate) fn acknowledge(&self, position: u64) {
        self.client.update_applied_lsn(Lsn(position));
    }

    fn item(&mut self, event: ReplicationEvent) -> Result<Option<Item>, Fault> {
        Ok(match event {
            ReplicationEvent::Begin { commit_time_micros, .. } => {
                self.in_transaction = true;
                Some(Item::Begin { commit_ms: decode::unix_ms(commit_time_micros) })
            }
            ReplicationEvent::Commit { end_lsn, commit_time_micros, .. } => {
                self.in_transaction = false;
                Some(Item::Commit { end: end_lsn.as_u64(), commit_ms: decode::unix_ms(commit_time_micros) })
            }
            // Inside a transaction a keep-alive says nothing about the transaction itself.
            ReplicationEvent::KeepAlive { wal_end, .. } if !self.in_transaction => {
                Some(Item::Progress { position: wal_end.as_u64() })
            }
            ReplicationEvent::XLogData { data, .. } => self.data(data)?,
            ReplicationEvent::StoppedAt { .. } => return Err(Fault::LogEnded),
            _ => None,
        })
    }

    fn data(&mut self, bytes: Bytes) -> Result<Option<Item>, Fault> {
        if let Some(id) = decode::written_relation(&bytes) {
            let relation = self.relations.get(&id).cloned().ok_or(Fault::Relation { id })?;
            return Ok(Some(Item::Row { relation, bytes }));
        }
        Ok(match decode::read(&bytes)? {
            Message::Origin { .. } => Some(Item::Foreign),
            Message::Relation(relation) => {
                let relation = Arc::new(LogRelation {
                    id: relation.id,
                    table: relation.table.to_owned(),
                    columns: relation.columns.into_iter().map(str::to_owned).collect(),
                });
                self.relations.insert(relation.id, relation.clone());
                Some(Item::Relation(relation))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_plain_names() {
        assert_eq!(slot_of("eu-west-1"), "meridian_to_eu_west_1");
        assert_eq!(slot_of(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn reads_urls() {
        let address =
            Address::parse("postgres://meridian_replicator:p%40ss@127.0.0.1:17201/meridian").unwrap();
        assert_eq!((address.password.as_str(), address.port), ("p@ss", 17201));
        assert_eq!(Address::parse("postgresql://u@[::1]/db?sslmode=disable").unwrap().host, "::1");
        let verified = "postgres://u@db.example/d?sslmode=verify-full&sslrootcert=/etc/a%20b.pem";
        let tls = Address::parse(verified).unwrap().tls;
        assert_eq!((tls.mode, tls.ca_pem_path), (SslMode::VerifyFull, Some("/etc/a b.pem".into())));
        assert_eq!(address.tls.mode, SslMode::Prefer);
        for bad in [
            "",
            "mysql://a@b/c",
            "postgres://nothing",
            "postgres://u:p@h:x/db",
            "postgres://u:p@h/db?sslmode=no",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
