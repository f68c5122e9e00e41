//! Decisions as edges reported them. They stay in the region that they were reported to, in partitions by the day, for
//! as many days as the region is told.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::limits::{EVENTS_SCANNED_MAX, ROLLUP_KEEP_DAYS};
use crate::rollup::{self, Measure};
use crate::{Fault, Scope};

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One decision to be written.
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
    /// What it counts as in the roll-ups.
    pub measure: Measure,
    /// What it counts as in experiments: its lists `exposures` and `conversions`, or null.
    pub participation: serde_json::Value,
    /// All of it, as it is kept.
    pub body: serde_json::Value,
}

/// One decision as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its place in the order of arrival.
    pub seq: i64,
    /// Name of the edge.
    pub edge: String,
    /// All of it; without its explanation in a [`Page`].
    pub body: serde_json::Value,
}

/// Which decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Only those of the route with this name.
    pub route: Option<String>,
    /// Only those with this outcome.
    pub outcome: Option<String>,
    /// Only those with a status from the first to the second.
    pub status: Option<(u16, u16)>,
}

/// Decisions in the order of their arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The decisions.
    pub events: Vec<Kept>,
    /// Where the next page begins.
    pub next: i64,
}

/// Whether a decision of this time has a partition, where decisions of so many days are kept.
#[must_use]
pub fn is_kept(at_ms: i64, now_ms: i64, keep_days: u16) -> bool {
    let today = now_ms.div_euclid(DAY_MS);
    (today - i64::from(keep_days)..=today + 1).contains(&at_ms.div_euclid(DAY_MS))
}

/// Makes the partitions of the days to come, and drops those of decisions and roll-ups past their time. Returns how many
/// were dropped.
///
/// # Errors
/// A fault of the database: among them, that a lock was not to be had soon.
pub async fn keep(scope: &mut Scope, now_ms: i64, keep_days: u16) -> Result<u32, Fault> {
    let mut dropped = 0;
    for (table, days) in [("meridian.event", keep_days), ("meridian.rollup", ROLLUP_KEEP_DAYS)] {
        let many: i32 = sqlx::query_scalar("select meridian.keep_days($1::text::regclass, $2, $3)")
            .bind(table)
            .bind(now_ms)
            .bind(i32::from(days))
            .fetch_one(scope.conn())
            .await?;
        dropped += many.unsigned_abs();
    }
    Ok(dropped)
}

/// Writes a batch and counts it in the roll-ups; a decision that is there already is left as it is and not counted again.
/// Returns the places of those that were new.
///
/// # Errors
/// A fault of the database: among them, that a decision is of a day without a partition.
pub async fn add(scope: &mut Scope, events: &[Event]) -> Result<Vec<usize>, Fault> {
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
    sqlx::query("select pg_advisory_xact_lock(7220472)").execute(scope.conn()).await?;
    let rows = sqlx::query(
        "insert into meridian.event (decision, tenant, edge, at_ms, body)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::jsonb[])
         on conflict (decision, at_ms) do nothing returning decision, at_ms",
    )
    .bind(decisions)
    .bind(tenants)
    .bind(edges)
    .bind(times)
    .bind(bodies)
    .fetch_all(scope.conn())
    .await?;
    let written = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let mut written = written.collect::<Result<HashSet<(String, i64)>, sqlx::Error>>()?;
    let is_new = |place: &usize| {
        let event = events.get(*place);
        event.is_some_and(|event| written.remove(&(event.decision.clone(), event.at_ms)))
    };
    let new: Vec<usize> = (0..events.len()).filter(is_new).collect();
    rollup::add(scope, new.iter().filter_map(|place| events.get(*place))).await?;
    Ok(new)
}

/// One decision, with its explanation.
///
/// # Errors
/// [`Fault::NotFound`] where it was not reported to this region or is past its time.
pub async fn get(scope: &mut Scope, decision: &str) -> Result<Kept, Fault> {
    let row = sqlx::query(
        "select seq, edge, body from meridian.event where decision = $1 order by at_ms desc limit 1",
    )
    .bind(decision)
    .fetch_optional(scope.conn())
    .await?
    .ok_or(Fault::NotFound { what: "decision" })?;
    Ok(kept(&row)?)
}

/// The newest decisions, at most `limit`, of the last [`EVENTS_SCANNED_MAX`] that the tenant has, in the order of their
/// arrival.
///
/// # Errors
/// A fault of the database.
pub async fn newest(scope: &mut Scope, filter: &Filter, limit: i64) -> Result<Page, Fault> {
    let mut page = page(scope, filter, None, limit).await?;
    page.events.reverse();
    Ok(page)
}

/// The decisions that arrived after this place, at most `limit`, of the next [`EVENTS_SCANNED_MAX`] that the tenant has.
///
/// # Errors
/// A fault of the database.
pub async fn after(scope: &mut Scope, filter: &Filter, seq: i64, limit: i64) -> Result<Page, Fault> {
    let mut page = page(scope, filter, Some(seq), limit).await?;
    let full = i64::try_from(page.events.len()).is_ok_and(|many| many >= limit);
    if let Some(last) = page.events.last().filter(|_| full) {
        page.next = last.seq;
    }
    Ok(page)
}

async fn page(scope: &mut Scope, filter: &Filter, after: Option<i64>, limit: i64) -> Result<Page, Fault> {
    // Two texts for each, so that each has a plan of its own.
    let order = if after.is_some() { "asc" } else { "desc" };
    let tenant = if filter.tenant.is_some() { "tenant = $2" } else { "$2::text is null" };
    let text = format!(
        "with scanned as (
             select seq, edge,
                    case when ($3::text is null or body->>'route' = $3)
                          and ($4::text is null or body->>'outcome' = $4)
                          and ($5::int is null or (body->>'status')::int between $5 and $6)
                         then body - 'explanation' end as body
               from meridian.event where seq > $1 and {tenant} order by seq {order} limit {EVENTS_SCANNED_MAX}),
         picked as (select * from scanned where body is not null order by seq {order} limit $7)
         select picked.seq, picked.edge, picked.body, (select max(seq) from scanned)
           from (select) one left join picked on true order by picked.seq {order}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(after.unwrap_or(0))
        .bind(&filter.tenant)
        .bind(&filter.route)
        .bind(&filter.outcome)
        .bind(filter.status.map(|(from, _)| i32::from(from)))
        .bind(filter.status.map(|(_, to)| i32::from(to)))
        .bind(limit)
        .fetch_all(scope.conn())
        .await?;
    let scanned = rows.first().map(|row| row.try_get::<Option<i64>, _>(3)).transpose()?.flatten();
    let picked = rows.iter().filter(|row| !matches!(row.try_get::<Option<i64>, _>(0), Ok(None)));
    let events = picked.map(kept).collect::<Result<_, _>>()?;
    Ok(Page { events, next: scanned.unwrap_or(after.unwrap_or(0)) })
}

fn kept(row: &PgRow) -> Result<Kept, sqlx::Error> {
    Ok(Kept { seq: row.try_get(0)?, edge: row.try_get(1)?, body: row.try_get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_are_kept_and_tomorrow_may_come() {
        let noon = 20_000 * DAY_MS + DAY_MS / 2;
        for (at_ms, kept) in [
            (noon, true),
            (19_993 * DAY_MS, true),
            (19_993 * DAY_MS - 1, false),
            (20_002 * DAY_MS - 1, true),
            (20_002 * DAY_MS, false),
            (i64::MAX, false),
            (-1, false),
        ] {
            assert_eq!(is_kept(at_ms, noon, 7), kept, "{at_ms}");
        }
    }
}
