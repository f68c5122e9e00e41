//! What experiments count: units that were given a variant, and the goals that they reached after it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::event::Event;
use crate::limits::PARTICIPATION_AGE_MAX;
use crate::{Fault, Scope};

/// Units with one variant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there are.
    pub units: u64,
    /// How many of them reached each goal, by its name.
    pub goals: BTreeMap<String, u64>,
}

/// Counts what a batch of decisions says of experiments. Counting it again, or counting a unit again, changes nothing, nor
/// does the order in which decisions come.
///
/// # Errors
/// A fault of the database.
pub async fn add(scope: &mut Scope, events: &[Event]) -> Result<(), Fault> {
    // The earliest exposure is kept, and a conversion that is not before it: while none is known, the latest one.
    for (member, sql) in [
        (
            "exposures",
            "insert into meridian.exposure as x (tenant, experiment, version, unit, variant, at_ms)
             select distinct on (e.tenant, x.experiment, x.version, x.unit)
                    e.tenant, x.experiment, x.version, x.unit, x.variant, e.at_ms
               from unnest($1::text[], $2::bigint[], $3::jsonb[]) as e (tenant, at_ms, told)
              cross join lateral jsonb_to_recordset(e.told)
                         as x (experiment text, version text, unit text, variant text)
              order by e.tenant, x.experiment, x.version, x.unit, e.at_ms, x.variant
             on conflict (tenant, experiment, version, unit, region)
             do update set variant = excluded.variant, at_ms = excluded.at_ms
              where (excluded.at_ms, excluded.variant) < (x.at_ms, x.variant)",
        ),
        (
            "conversions",
            "insert into meridian.conversion as c (tenant, experiment, version, goal, unit, at_ms)
             select e.tenant, x.experiment, x.version, x.goal, x.unit, max(e.at_ms)
               from unnest($1::text[], $2::bigint[], $3::jsonb[]) as e (tenant, at_ms, told)
              cross join lateral jsonb_to_recordset(e.told)
                         as x (experiment text, version text, goal text, unit text)
              group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
             on conflict (tenant, experiment, version, goal, unit, region) do update set at_ms = excluded.at_ms
              where c.at_ms < least(excluded.at_ms,
                                    (select min(x.at_ms) from meridian.exposure x
                                      where x.tenant = c.tenant and x.experiment = c.experiment
                                        and x.version = c.version and x.unit = c.unit))",
        ),
    ] {
        let told: Vec<(&str, i64, &Value)> = events
            .iter()
            .filter_map(|event| Some((event.tenant.as_deref()?, event.at_ms, event.participation.get(member)?)))
            .filter(|(.., told)| told.is_array())
            .collect();
        if told.is_empty() {
            continue;
        }
        sqlx::query(sql)
            .bind(told.iter().map(|(tenant, ..)| *tenant).collect::<Vec<_>>())
            .bind(told.iter().map(|(_, at_ms, _)| *at_ms).collect::<Vec<_>>())
            .bind(told.iter().map(|(.., told)| *told).collect::<Vec<_>>())
            .execute(scope.conn())
            .await?;
    }
    Ok(())
}

/// The units of a version of a tenant's experiment, by variant, as far as this region has heard of them: each once,
/// whatever regions saw it. A goal counts that was reached with the exposure or after it.
///
/// # Errors
/// A fault of the database.
pub async fn tallies(
    scope: &mut Scope,
    tenant: &str,
    experiment: &str,
    version: &str,
) -> Result<BTreeMap<String, Tally>, Fault> {
    let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(
        "with exposed as (
             select unit, (array_agg(variant order by at_ms, region))[1] as variant, min(at_ms) as at_ms
               from meridian.exposure where tenant = $1 and experiment = $2 and version = $3 group by unit)
         select variant, null, count(*) from exposed group by variant
         union all
         select e.variant, c.goal, count(distinct c.unit)
           from exposed e join meridian.conversion c
             on c.tenant = $1 and c.experiment = $2 and c.version = $3 and c.unit = e.unit and c.at_ms >= e.at_ms
          group by e.variant, c.goal",
    )
    .bind(tenant)
    .bind(experiment)
    .bind(version)
    .fetch_all(scope.conn())
    .await?;
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for (variant, goal, units) in rows {
        let tally = tallies.entry(variant).or_default();
        match goal {
            None => tally.units = units.unsigned_abs(),
            Some(goal) => _ = tally.goals.insert(goal, units.unsigned_abs()),
        }
    }
    Ok(tallies)
}

/// Forgets what was reported to this region and is older than [`PARTICIPATION_AGE_MAX`], at most `limit` rows of each
/// kind at once; other regions hear of it. Returns how many went.
///
/// # Errors
/// A fault of the database.
pub async fn trim(scope: &mut Scope, now_ms: i64, limit: i64) -> Result<u64, Fault> {
    let before_ms = now_ms - i64::try_from(PARTICIPATION_AGE_MAX.as_millis()).unwrap_or(i64::MAX);
    // A deleted row becomes a tombstone and is no row that the statement counts.
    let gone: i64 = sqlx::query_scalar(
        "with exposures as (select ctid from meridian.exposure where at_ms < $1 and region = meridian.region() limit $2),
              conversions as (select ctid from meridian.conversion where at_ms < $1 and region = meridian.region() limit $2),
              first as (delete from meridian.exposure where ctid in (select ctid from exposures)),
              second as (delete from meridian.conversion where ctid in (select ctid from conversions))
         select greatest((select count(*) from exposures), (select count(*) from conversions))",
    )
    .bind(before_ms)
    .bind(limit)
    .fetch_one(scope.conn())
    .await?;
    Ok(gone.unsigned_abs())
}
