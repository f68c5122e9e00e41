use std::str::FromStr;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqlSafeStr};

use crate::Fault;
use crate::limits::REGION_ORDINAL_MAX;

/// Every migration, in order: number, name, text. A number is never reused and a text never changed.
pub(crate) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "foundation", include_str!("../migrations/0001_foundation.sql")),
    (2, "control", include_str!("../migrations/0002_control.sql")),
    (3, "protection", include_str!("../migrations/0003_protection.sql")),
    (4, "analytics", include_str!("../migrations/0004_analytics.sql")),
    (5, "experiments", include_str!("../migrations/0005_experiments.sql")),
    (6, "soft_purge", include_str!("../migrations/0006_soft_purge.sql")),
    (7, "sampling", include_str!("../migrations/0007_sampling.sql")),
    (8, "health_checks", include_str!("../migrations/0008_health_checks.sql")),
    (9, "parties", include_str!("../migrations/0009_parties.sql")),
    (10, "bytes", include_str!("../migrations/0010_bytes.sql")),
];

/// Which region a database belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The region's name, such as `us-east-1`.
    pub region: String,
    /// The region's ordinal, from 1 to [`REGION_ORDINAL_MAX`]; never used again for another region.
    pub ordinal: u16,
}

/// Whether a region may have this ordinal: see [`REGION_ORDINAL_MAX`].
///
/// # Errors
/// [`Fault::Configuration`] where it may not.
pub fn check_ordinal(ordinal: u16) -> Result<(), Fault> {
    // The text below says it.
    const { assert!(REGION_ORDINAL_MAX == 255) };
    if (1..=REGION_ORDINAL_MAX).contains(&ordinal) {
        Ok(())
    } else {
        Err(Fault::Configuration { what: "region ordinal", expected: "a number from 1 to 255" })
    }
}

/// What [`bootstrap`] makes: a database and three roles, none of them superuser.
#[derive(Clone)]
pub struct Bootstrap {
    /// Name of the database.
    pub database: String,
    /// Password of `meridian_owner`, which owns the schema and only migrates.
    pub owner_password: String,
    /// Password of `meridian_app`, which the data and control API use; row-level security applies to it.
    pub app_password: String,
    /// Password of `meridian_replicator`, which reads the slots and applies changes.
    pub replicator_password: String,
}

/// Creates the database, the roles and their grants, as a superuser. Doing it again changes nothing but the passwords.
///
/// # Errors
/// [`Fault::Configuration`] for an odd database name, [`Fault::Unavailable`] when the server can't be reached.
pub async fn bootstrap(superuser_url: &str, bootstrap: &Bootstrap) -> Result<(), Fault> {
    let database = &bootstrap.database;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if database.is_empty() || database.len() > 63 || !database.chars().all(plain) {
        return Err(Fault::Configuration { what: "database name", expected: "up to 63 of a-z, 0-9 and _" });
    }
    let options = options(superuser_url)?;
    let mut server = options.connect().await?;
    for (role, attributes, password) in [
        ("meridian_owner", "NOREPLICATION", &bootstrap.owner_password),
        ("meridian_app", "NOREPLICATION", &bootstrap.app_password),
        ("meridian_replicator", "REPLICATION", &bootstrap.replicator_password),
    ] {
        let exists: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
            .bind(role)
            .fetch_one(&mut server)
            .await?;
        let verb = if exists { "alter" } else { "create" };
        let password = quoted(password);
        run(
            &mut server,
            format!(
                "{verb} role {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE {attributes} PASSWORD {password}"
            ),
        )
        .await?;
    }
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(database)
        .fetch_one(&mut server)
        .await?;
    if !exists {
        run(
            &mut server,
            format!("create database {database} owner meridian_owner encoding 'UTF8' template template0"),
        )
        .await?;
    }
    server.close().await?;

    let mut server = options.database(database).connect().await?;
    run(&mut server, GRANTS.replace("DATABASE", database)).await?;
    server.close().await?;
    Ok(())
}

/// Grants inside the database: progress tracking for the apply loop, and the one parameter that keeps triggers from
/// stamping applied rows again (PostgreSQL 15: a parameter can be granted).
const GRANTS: &str = "
revoke all on database DATABASE from public;
grant connect on database DATABASE to meridian_app, meridian_replicator;
create schema if not exists meridian authorization meridian_owner;
grant usage on schema meridian to meridian_app, meridian_replicator;
revoke create on schema public from public;
grant set on parameter session_replication_role to meridian_replicator;
grant execute on function
    pg_replication_origin_create(text), pg_replication_origin_drop(text), pg_replication_origin_oid(text),
    pg_replication_origin_session_setup(text), pg_replication_origin_session_reset(),
    pg_replication_origin_xact_setup(pg_lsn, timestamptz), pg_replication_origin_xact_reset(),
    pg_replication_origin_progress(text, boolean), pg_replication_origin_session_progress(boolean)
    to meridian_replicator;
";

/// Brings the schema up to date and writes down which region this is. Several origins may do it at once: one works,
/// the others wait and find nothing left to do.
///
/// # Errors
/// [`Fault::Configuration`] for an ordinal that no region may have, [`Fault::Node`] when the database already belongs to
/// another region, [`Fault::Migration`] when a migration fails.
pub async fn migrate(owner_url: &str, node: &Node) -> Result<(), Fault> {
    check_ordinal(node.ordinal)?;
    let mut owner = options(owner_url)?.options([("search_path", "meridian")]).connect().await?;
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
        .run(&mut owner)
        .await
        .map_err(|error| Fault::Migration(Box::new(error)))?;

    let mut tx = owner.begin().await?;
    tx.execute("lock table meridian.node in exclusive mode").await?;
    let found: Option<(String, i16)> =
        sqlx::query_as("select region, ordinal from meridian.node").fetch_optional(&mut *tx).await?;
    match found {
        Some((region, ordinal)) if region == node.region && ordinal == node.ordinal as i16 => {}
        Some((region, ordinal)) => {
            return Err(Fault::Node {
                found: format!("{region} with ordinal {ordinal}"),
                expected: format!("{} with ordinal {}", node.region, node.ordinal),
            });
        }
        None => {
            sqlx::query("insert into meridian.node (region, ordinal) values ($1, $2)")
                .bind(&node.region)
                .bind(node.ordinal as i16)
                .execute(&mut *tx)
                .await?;
            run(
                &mut tx,
                format!(
                    "create or replace function meridian.region() returns smallint language sql immutable \
                     as 'select {}::smallint'",
                    node.ordinal
                ),
            )
            .await?;
        }
    }
    tx.commit().await?;
    owner.close().await?;
    Ok(())
}

pub(crate) fn options(url: &str) -> Result<PgConnectOptions, Fault> {
    let options = PgConnectOptions::from_str(url).map_err(|_| Fault::Configuration {
        what: "database URL",
        expected: "postgres://USER:PASSWORD@HOST:PORT/DATABASE",
    })?;
    Ok(options.application_name("meridian"))
}

/// A string as an SQL literal (with `standard_conforming_strings`, the default).
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), Fault> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
