//! What was decided, counted by the minute. A decision is counted in the transaction that writes it, and so once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};

use crate::event::Event;
use crate::limits::{ROLLUP_NAME_BYTES_MAX, ROLLUP_SERIES_MAX};
use crate::{Fault, Scope};

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Stands for names that are too long, and for those beyond the number of series.
pub const OTHER: &str = "(other)";
/// Upper ends of the buckets of the time to the reply's head, in milliseconds; a last bucket holds what took longer.
/// Stored counts go by these places: they never change.
pub const BUCKETS_MS: [u32; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000];

/// Counts by [`BUCKETS_MS`].
pub type Buckets = [i64; BUCKETS_MS.len() + 1];

/// What a decision counts as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Name of the route; empty where none was found.
    pub route: String,
    /// Outcome, one of a known few.
    pub outcome: &'static str,
    /// Status that the client got.
    pub status: u16,
    /// What the cache did, one of a known few; empty where it was not asked.
    pub cache: &'static str,
    /// Region that answered; empty where the edge did.
    pub region: String,
    /// Milliseconds to the head of the reply.
    pub elapsed_ms: u32,
    /// Bytes of the request's body that may have gone on to a target; none where that is not known.
    pub request_bytes: Option<u64>,
    /// Bytes of the reply's body; none where that is not known.
    pub response_bytes: Option<u64>,
    /// How many decisions it stands for, at least 1.
    pub weight: u32,
}

/// By what decisions are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Slug of the tenant.
    Tenant,
    /// Name of the route.
    Route,
    /// Class of the status: `2xx`.
    Status,
    /// Region that answered.
    Region,
    /// Outcome.
    Outcome,
    /// What the cache did.
    Cache,
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Route => "route",
            Self::Status => "status_class || 'xx'",
            Self::Region => "region",
            Self::Outcome => "outcome",
            Self::Cache => "cache",
        }
    }
}

/// The decisions of one kind within a time: what regions tell one another, and what can be added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Which ones.
    pub key: String,
    /// How many: an estimate where not all of them were written down.
    pub requests: i64,
    /// How many of them were not written down: others stand for them.
    #[serde(default)]
    pub unwritten: i64,
    /// How many of them with a status of 500 or above.
    pub failed: i64,
    /// Sum of the times to the reply's head.
    pub elapsed_sum_ms: i64,
    /// The longest of them.
    pub elapsed_max_ms: i64,
    /// Bytes of requests' bodies that may have gone on to a target.
    #[serde(default)]
    pub request_bytes: i64,
    /// Bytes of replies' bodies.
    #[serde(default)]
    pub response_bytes: i64,
    /// How many of the requests had a body of unknown length: with any, the sums of bytes are too low.
    #[serde(default)]
    pub unmeasured: i64,
    /// How many of them took how long.
    pub buckets: Buckets,
}

impl Total {
    /// Adds what another region counted.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.unwritten += other.unwritten;
        self.failed += other.failed;
        self.elapsed_sum_ms += other.elapsed_sum_ms;
        self.elapsed_max_ms = self.elapsed_max_ms.max(other.elapsed_max_ms);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.unmeasured += other.unmeasured;
        add_buckets(&mut self.buckets, &other.buckets);
    }

    /// Whether the counts are estimates, because edges did not write all decisions down.
    #[must_use]
    pub fn is_estimate(&self) -> bool {
        self.unwritten > 0
    }

    /// The upper end of the bucket in which this part of the decisions is reached, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, percent: i64) -> i64 {
        let wanted = (self.requests * percent + 99) / 100;
        let mut passed = 0;
        let reached = self.buckets.iter().position(|many| {
            passed += many;
            passed >= wanted
        });
        let end = reached.and_then(|place| BUCKETS_MS.get(place));
        end.map_or(self.elapsed_max_ms, |end| self.elapsed_max_ms.min((*end).into()))
    }
}

fn add_buckets(buckets: &mut Buckets, others: &Buckets) {
    for (bucket, many) in buckets.iter_mut().zip(others) {
        *bucket += many;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    tenant: String,
    minute_ms: i64,
    route: String,
    outcome: &'static str,
    status_class: i16,
    cache: &'static str,
    region: String,
}

impl Series {
    fn of(event: &Event) -> Self {
        let measure = &event.measure;
        let name =
            |name: &String| if name.len() > ROLLUP_NAME_BYTES_MAX { OTHER.to_owned() } else { name.clone() };
        Self {
            tenant: event.tenant.clone().unwrap_or_default(),
            minute_ms: event.at_ms - event.at_ms.rem_euclid(MINUTE_MS),
            route: name(&measure.route),
            outcome: measure.outcome,
            status_class: i16::try_from((measure.status / 100).min(9)).unwrap_or_default(),
            cache: measure.cache,
            region: name(&measure.region),
        }
    }

    /// The series of what has no room for one of its own.
    fn other(self) -> Self {
        Self { route: OTHER.to_owned(), cache: OTHER, region: OTHER.to_owned(), ..self }
    }
}

#[derive(Clone, Debug, Default)]
struct Sums {
    requests: i64,
    unwritten: i64,
    elapsed_sum_ms: i64,
    elapsed_max_ms: i64,
    request_bytes: i64,
    response_bytes: i64,
    unmeasured: i64,
    buckets: Buckets,
}

impl Sums {
    fn count(&mut self, measure: &Measure) {
        let (elapsed_ms, weight) = (measure.elapsed_ms, i64::from(measure.weight.max(1)));
        self.requests += weight;
        self.unwritten += weight - 1;
        self.elapsed_sum_ms += i64::from(elapsed_ms) * weight;
        self.elapsed_max_ms = self.elapsed_max_ms.max(elapsed_ms.into());
        // A length is what somebody says: any number has to fit.
        let bytes =
            |said: Option<u64>| i64::try_from(said.unwrap_or(0)).unwrap_or(i64::MAX).saturating_mul(weight);
        self.request_bytes = self.request_bytes.saturating_add(bytes(measure.request_bytes));
        self.response_bytes = self.response_bytes.saturating_add(bytes(measure.response_bytes));
        if measure.request_bytes.is_none() || measure.response_bytes.is_none() {
            self.unmeasured += weight;
        }
        let bucket = BUCKETS_MS.iter().position(|end| elapsed_ms <= *end).unwrap_or(BUCKETS_MS.len());
        self.buckets[bucket] += weight;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.unwritten += other.unwritten;
        self.elapsed_sum_ms += other.elapsed_sum_ms;
        self.elapsed_max_ms = self.elapsed_max_ms.max(other.elapsed_max_ms);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.unmeasured += other.unmeasured;
        add_buckets(&mut self.buckets, &other.buckets);
    }
}

/// Counts new decisions. Whoever calls holds the lock of their writers, so that nobody else begins series meanwhile.
pub(crate) async fn add<'a>(scope: &mut Scope, events: impl Iterator<Item = &'a Event>) -> Result<(), Fault> {
    let mut counted: BTreeMap<Series, Sums> = BTreeMap::new();
    for event in events {
        counted.entry(Series::of(event)).or_default().count(&event.measure);
    }
    if counted.is_empty() {
        return Ok(());
    }
    let counted = bounded(scope, counted).await?;
    let sums = |number: fn(&Sums) -> i64| counted.values().map(number).collect::<Vec<_>>();
    // An array of arrays would have to be rectangular to its end: the inner ones travel as text.
    let buckets =
        counted.values().map(|sums| format!("{:?}", sums.buckets).replace('[', "{").replace(']', "}"));
    let query = sqlx::query(
        "insert into meridian.rollup as r (tenant, minute_ms, route, outcome, status_class, cache, region,
                                           requests, unwritten, elapsed_sum_ms, elapsed_max_ms, elapsed_buckets,
                                           request_bytes, response_bytes, unmeasured)
         select tenant, minute_ms, route, outcome, status_class, cache, region, requests, unwritten, sum_ms, max_ms, buckets::bigint[],
                request_bytes, response_bytes, unmeasured
           from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::text[],
                       $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[],
                       $13::bigint[], $14::bigint[], $15::bigint[])
             as n (tenant, minute_ms, route, outcome, status_class, cache, region, requests, unwritten, sum_ms, max_ms, buckets,
                   request_bytes, response_bytes, unmeasured)
         on conflict (tenant, minute_ms, route, outcome, status_class, cache, region) do update
         set requests = r.requests + excluded.requests, unwritten = r.unwritten + excluded.unwritten,
             elapsed_sum_ms = r.elapsed_sum_ms + excluded.elapsed_sum_ms,
             elapsed_max_ms = greatest(r.elapsed_max_ms, excluded.elapsed_max_ms),
             request_bytes = least(r.request_bytes::numeric + excluded.request_bytes, 9223372036854775807)::bigint,
             response_bytes = least(r.response_bytes::numeric + excluded.response_bytes, 9223372036854775807)::bigint,
             unmeasured = r.unmeasured + excluded.unmeasured,
             elapsed_buckets = array(select a + b from unnest(r.elapsed_buckets, excluded.elapsed_buckets)
                                         with ordinality as x (a, b, place) order by place)",
    );
    bind_series(query, &counted)
        .bind(sums(|sums| sums.requests))
        .bind(sums(|sums| sums.unwritten))
        .bind(sums(|sums| sums.elapsed_sum_ms))
        .bind(sums(|sums| sums.elapsed_max_ms))
        .bind(buckets.collect::<Vec<_>>())
        .bind(sums(|sums| sums.request_bytes))
        .bind(sums(|sums| sums.response_bytes))
        .bind(sums(|sums| sums.unmeasured))
        .execute(scope.conn())
        .await?;
    Ok(())
}

/// Binds the columns of the series, a list each: tenant, minute, route, outcome, class of the status, cache, region.
fn bind_series<'q>(
    query: Query<'q, Postgres, PgArguments>,
    counted: &'q BTreeMap<Series, Sums>,
) -> Query<'q, Postgres, PgArguments> {
    let column = |text: fn(&Series) -> &str| counted.keys().map(text).collect::<Vec<_>>();
    query
        .bind(column(|series| &series.tenant))
        .bind(counted.keys().map(|series| series.minute_ms).collect::<Vec<_>>())
        .bind(column(|series| &series.route))
        .bind(column(|series| series.outcome))
        .bind(counted.keys().map(|series| series.status_class).collect::<Vec<_>>())
        .bind(column(|series| series.cache))
        .bind(column(|series| &series.region))
}

/// The same counts within the number of series that a tenant may have in a minute.
async fn bounded(
    scope: &mut Scope,
    counted: BTreeMap<Series, Sums>,
) -> Result<BTreeMap<Series, Sums>, Fault> {
    let query = sqlx::query(
        "select exists (select from meridian.rollup r
                         where (r.tenant, r.minute_ms, r.route, r.outcome, r.status_class, r.cache, r.region)
                             = (n.tenant, n.minute_ms, n.route, n.outcome, n.status_class, n.cache, n.region)),
                (select count(*) from meridian.rollup r where (r.tenant, r.minute_ms) = (n.tenant, n.minute_ms))
           from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::text[])
                with ordinality
             as n (tenant, minute_ms, route, outcome, status_class, cache, region, place) order by place",
    );
    let known = bind_series(query, &counted).fetch_all(scope.conn()).await?;
    let mut begun: BTreeMap<(String, i64), i64> = BTreeMap::new();
    let mut within: BTreeMap<Series, Sums> = BTreeMap::new();
    for ((series, sums), row) in counted.into_iter().zip(known) {
        let (exists, many): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
        let begun = begun.entry((series.tenant.clone(), series.minute_ms)).or_default();
        let series = if exists {
            series
        } else if many + *begun < ROLLUP_SERIES_MAX {
            *begun += 1;
            series
        } else {
            series.other()
        };
        within.entry(series).or_default().add(&sums);
    }
    Ok(within)
}

/// What was decided from one time to before another, the most frequent kinds first, at most `limit`. Times count as the
/// beginning of their minute.
///
/// # Errors
/// A fault of the database.
pub async fn totals(
    scope: &mut Scope,
    tenant: Option<&str>,
    by: By,
    from_ms: i64,
    to_ms: i64,
    limit: i64,
) -> Result<Vec<Total>, Fault> {
    let text = format!(
        "with picked as (
             select {} as key, status_class, requests, unwritten, elapsed_sum_ms, elapsed_max_ms, elapsed_buckets,
                    request_bytes, response_bytes, unmeasured
               from meridian.rollup
              where minute_ms >= $1 and minute_ms < $2 and ($3::text is null or tenant = $3)),
         total as (
             select key, sum(requests)::bigint as requests,
                    sum(unwritten)::bigint as unwritten,
                    coalesce(sum(requests) filter (where status_class >= 5), 0)::bigint as failed,
                    sum(elapsed_sum_ms)::bigint as sum_ms, max(elapsed_max_ms) as max_ms,
                    least(sum(request_bytes), 9223372036854775807)::bigint as request_bytes,
                    least(sum(response_bytes), 9223372036854775807)::bigint as response_bytes,
                    sum(unmeasured)::bigint as unmeasured
               from picked group by key order by requests desc, key limit $4),
         bucket as (
             select key, place, sum(many)::bigint as many
               from picked join total using (key), unnest(elapsed_buckets) with ordinality as x (many, place)
              group by key, place)
         select key, requests, failed, sum_ms, max_ms, unwritten,
                array(select many from bucket where bucket.key = total.key order by place),
                request_bytes, response_bytes, unmeasured
           from total order by requests desc, key",
        by.column()
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(from_ms - from_ms.rem_euclid(MINUTE_MS))
        .bind(to_ms)
        .bind(tenant)
        .bind(limit)
        .fetch_all(scope.conn())
        .await?;
    let totals = rows.iter().map(|row| {
        let counts: Vec<i64> = row.try_get(6)?;
        let mut buckets = Buckets::default();
        buckets.iter_mut().zip(counts).for_each(|(bucket, many)| *bucket = many);
        Ok(Total {
            key: row.try_get(0)?,
            requests: row.try_get(1)?,
            failed: row.try_get(2)?,
            elapsed_sum_ms: row.try_get(3)?,
            elapsed_max_ms: row.try_get(4)?,
            unwritten: row.try_get(5)?,
            request_bytes: row.try_get(7)?,
            response_bytes: row.try_get(8)?,
            unmeasured: row.try_get(9)?,
            buckets,
        })
    });
    Ok(totals.collect::<Result<_, sqlx::Error>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_ends_that_nothing_exceeds() {
        let mut counted = Total { requests: 100, elapsed_max_ms: 7_000, ..Total::default() };
        (counted.buckets[2], counted.buckets[3], counted.buckets[12]) = (50, 48, 2);
        assert_eq!(
            (counted.quantile_ms(50), counted.quantile_ms(51), counted.quantile_ms(99)),
            (5, 10, 7_000)
        );
        let mut one = Total { requests: 1, elapsed_max_ms: 3, ..Total::default() };
        one.buckets[2] = 1;
        assert_eq!((one.quantile_ms(50), one.quantile_ms(99)), (3, 3));
        assert_eq!(Total::default().quantile_ms(99), 0);
    }
}
