//! Decisions as edges reported them. They stay in the region that they were reported to, for a bounded time.

use sqlx::Row as _;

use crate::{Fault, Scope};

/// One reported decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Id of the decision.
    pub decision: String,
    /// Tenant, where one was known.
    pub tenant: Option<String>,
    /// Name of the edge.
    pub edge: String,
    /// When it was decided.
    pub at_ms: i64,
    /// All of it, as reported.
    pub body: serde_json::Value,
}

/// Adds a batch in one statement; a decision that is there already is left as it is. Returns how many were new.
///
/// # Errors
/// A fault of the database.
pub async fn add(scope: &mut Scope, events: &[Event]) -> Result<u64, Fault> {
    let mut decisions = Vec::with_capacity(events.len());
    let mut tenants = Vec::with_capacity(events.len());
    let mut edges = Vec::with_capacity(events.len());
    let mut times = Vec::with_capacity(events.len());
    let mut bodies = Vec::with_capacity(events.len());
    for event in events {
        decisions.push(event.decision.as_str());
        tenants.push(event.tenant.as_deref());
        edges.push(event.edge.as_str());
        times.push(event.at_ms);
        bodies.push(&event.body);
    }
    let done = sqlx::query(
        "insert into meridian.event (decision, tenant, edge, at_ms, body)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::jsonb[])
         on conflict (decision) do nothing",
    )
    .bind(decisions)
    .bind(tenants)
    .bind(edges)
    .bind(times)
    .bind(bodies)
    .execute(scope.conn())
    .await?;
    Ok(done.rows_affected())
}

/// One decision.
///
/// # Errors
/// [`Fault::NotFound`] where it was not reported to this region or is past its time.
pub async fn get(scope: &mut Scope, decision: &str) -> Result<Event, Fault> {
    let row =
        sqlx::query("select decision, tenant, edge, at_ms, body from meridian.event where decision = $1")
            .bind(decision)
            .fetch_optional(scope.conn())
            .await?
            .ok_or(Fault::NotFound { what: "decision" })?;
    Ok(Event {
        decision: row.try_get(0)?,
        tenant: row.try_get(1)?,
        edge: row.try_get(2)?,
        at_ms: row.try_get(3)?,
        body: row.try_get(4)?,
    })
}

/// Forgets decisions older than this time, at most `limit` at once. Returns how many went.
///
/// # Errors
/// A fault of the database.
pub async fn trim(scope: &mut Scope, before_ms: i64, limit: i64) -> Result<u64, Fault> {
    let done = sqlx::query(
        "delete from meridian.event where decision in
             (select decision from meridian.event where at_ms < $1 order by at_ms limit $2)",
    )
    .bind(before_ms)
    .bind(limit)
    .execute(scope.conn())
    .await?;
    Ok(done.rows_affected())
}
