//! Copies rows as they are: to a region that has nothing yet, to repair a gap, to admit a tenant.
//!
//! One consistent snapshot of all enrolled tables, in chunks, of the tenants that allow the region in that very snapshot: a
//! stream that is late may come upon an admission that has been taken back since. Nothing needs to line up with the log: every row
//! carries its stamp, so what the receiver has already, or will get again from the log, changes nothing.

use futures_util::TryStreamExt as _;
use meridian_store::apply::{Catalogue, session};
use meridian_store::sqlx::postgres::PgConnectOptions;
use meridian_store::sqlx::{
    self, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _,
};
use meridian_wire::change::{FRAME_ROWS_MAX, Frame, MESSAGE_BYTES_TARGET, Message, Relation, Row, Snapshot};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Fault;
use crate::source::residency;
use crate::transport::direct::ToReceiver;

/// Sends the rows of these tenants, as far as they allow `region`; with a `position` (where the log continues) also the platform's rows. Returns
/// how many there were.
pub(crate) async fn send<S>(
    options: PgConnectOptions,
    catalogue: &Catalogue,
    tenants: &[String],
    region: &str,
    position: u64,
    to: &mut ToReceiver<S>,
) -> Result<u64, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = session(options).connect().await?;
    connection.execute("begin isolation level repeatable read read only").await?;
    let residency = residency(&mut connection).await?;
    let allowed = tenants.iter().filter(|tenant| residency.allows(Some(tenant), region));
    let tenants: Vec<String> = allowed.cloned().collect();
    let mut tables: Vec<_> =
        catalogue.tables().filter(|t| position > 0 || t.tenant_column.is_some()).collect();
    // Tenants first, so that a region knows whose rows it gets.
    tables.sort_by_key(|table| (table.name != "tenant", table.name.clone()));
    let mut sent = 0;
    for (number, table) in tables.iter().enumerate() {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = table.columns.iter().map(|(c, _)| format!("{}::text", quote(c))).collect();
        let mut sql = format!("select {} from meridian.{}", columns.join(", "), quote(&table.name));
        if let Some(tenant) = &table.tenant_column {
            let platform =
                if position > 0 { format!(" or {} is null", quote(tenant)) } else { String::new() };
            sql.push_str(&format!(" where {} = any($1){platform}", quote(tenant)));
        }
        // Ids of the log are object ids; these count down from the top, where there are none.
        let id = u32::MAX - u32::try_from(number).unwrap_or(0);
        let mut message = Message::new();
        message.push(&Frame::Relation(Relation {
            id,
            table: &table.name,
            columns: table.columns.iter().map(|(column, _)| column.as_str()).collect(),
        }))?;
        to.send(message.take()).await?;
        let mut query = sqlx::query(AssertSqlSafe(sql));
        if table.tenant_column.is_some() {
            query = query.bind(&tenants);
        }
        let mut found = query.fetch(&mut connection);
        let (mut rows, mut bytes) = (Vec::<Vec<Option<String>>>::new(), 0);
        while let Some(row) = found.try_next().await? {
            let mut values = Vec::with_capacity(table.columns.len());
            for place in 0..table.columns.len() {
                let value: Option<String> = row.try_get(place)?;
                bytes += value.as_ref().map_or(1, |value| value.len() + 1);
                values.push(value);
            }
            rows.push(values);
            sent += 1;
            if rows.len() >= FRAME_ROWS_MAX || bytes >= MESSAGE_BYTES_TARGET {
                part(id, &mut rows, to).await?;
                bytes = 0;
            }
        }
        part(id, &mut rows, to).await?;
    }
    connection.close().await?;
    let mut message = Message::new();
    message.push(&Frame::Snapshot(Snapshot { position, rows: Vec::new(), more: false }))?;
    to.send(message.take()).await?;
    Ok(sent)
}

async fn part<S>(
    relation: u32,
    rows: &mut Vec<Vec<Option<String>>>,
    to: &mut ToReceiver<S>,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if rows.is_empty() {
        return Ok(());
    }
    let part =
        rows.iter().map(|values| Row { relation, values: values.iter().map(Option::as_deref).collect() });
    let mut message = Message::new();
    message.push(&Frame::Snapshot(Snapshot { position: 0, rows: part.collect(), more: true }))?;
    to.send(message.take()).await?;
    rows.clear();
    Ok(())
}
