//! Connections to the database, and transactions that see what their caller may see.

use std::sync::Arc;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use crate::collection::Cache;
use crate::schema::{MIGRATIONS, options, quoted};
use crate::{Fault, limits};

/// The tables of this region's origin, as the role `meridian_app` sees them. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    pub(crate) collections: Arc<Cache>,
}

/// For whom a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access<'a> {
    /// One tenant, by its slug: other tenants' rows don't exist.
    Tenant(&'a str),
    /// The control plane: all tenants' rows and the platform's. Only for code that has checked who asks.
    Control,
}

/// An open transaction with its access set. Dropped without [`Scope::commit`], it is rolled back.
pub struct Scope {
    transaction: Transaction<'static, Postgres>,
    tenant: Option<String>,
    /// Lasts as long as the transaction.
    _span: tracing::Span,
}

impl Store {
    /// Opens a pool to the database as `meridian_app`.
    ///
    /// # Errors
    /// [`Fault::Configuration`] for a bad URL, [`Fault::Unavailable`] when the server can't be reached.
    pub async fn connect(app_url: &str, connections_max: u32) -> Result<Self, Fault> {
        let timeout_ms = limits::STATEMENT_TIMEOUT.as_millis().to_string();
        let options = options(app_url)?.options([
            ("statement_timeout", timeout_ms.as_str()),
            ("idle_in_transaction_session_timeout", timeout_ms.as_str()),
            // The tenant of a transaction is written as a literal: a backslash in it must mean itself.
            ("standard_conforming_strings", "on"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .min_connections(connections_max.min(2))
            .acquire_timeout(limits::ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        Ok(Self { pool, collections: Arc::new(Cache::default()) })
    }

    /// Begins a transaction; who it is for travels with `begin` in one round trip.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when no connection is free in time.
    pub async fn begin(&self, access: Access<'_>) -> Result<Scope, Fault> {
        let span = tracing::info_span!("transaction", db.system.name = "postgresql");
        let (begin, tenant) = match access {
            Access::Tenant(tenant) => {
                (format!("begin; set local meridian.tenant = {}", quoted(tenant)), Some(tenant.to_owned()))
            }
            Access::Control => ("begin; set local meridian.role = 'control'".to_owned(), None),
        };
        // Connections that died while idle in the pool (the server restarted) are found out here, one by one.
        let mut dead = 0;
        let transaction = loop {
            match self.pool.begin_with(AssertSqlSafe(begin.clone())).await {
                Ok(transaction) => break transaction,
                Err(error) if lost(&error) && dead <= self.pool.options().get_max_connections() => dead += 1,
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Scope { transaction, tenant, _span: span })
    }

    /// Whether the database answers and has every migration that this program knows.
    ///
    /// # Errors
    /// [`Fault::NotFound`] when a migration is missing, [`Fault::Unavailable`] when the database is away.
    pub async fn ready(&self) -> Result<(), Fault> {
        let done: i64 = sqlx::query_scalar("select count(*) from meridian._sqlx_migrations where success")
            .fetch_one(&self.pool)
            .await?;
        if done < MIGRATIONS.len() as i64 { Err(Fault::NotFound { what: "migration" }) } else { Ok(()) }
    }

    /// This region's position: at or after every transaction that committed before the call. For session tokens.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn position(&self) -> Result<u64, Fault> {
        let position: i64 = sqlx::query_scalar("select (pg_current_wal_flush_lsn() - '0/0')::bigint")
            .fetch_one(&self.pool)
            .await?;
        Ok(position as u64)
    }

    /// How many connections there are, and how many of them are idle.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections, once what they are doing has ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Scope {
    /// The connection, inside the transaction.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// The tenant that the transaction is for; none for the control plane.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the connection was lost: whether it committed is then unknown.
    pub async fn commit(self) -> Result<(), Fault> {
        Ok(self.transaction.commit().await?)
    }

    /// The tenant and the connection; records have a tenant always.
    pub(crate) fn split(&mut self) -> Result<(&str, &mut PgConnection), Fault> {
        match &self.tenant {
            Some(tenant) => Ok((tenant, &mut self.transaction)),
            None => Err(Fault::NotFound { what: "tenant" }),
        }
    }
}

fn lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P01"),
        _ => false,
    }
}
