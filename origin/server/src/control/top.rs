//! `GET /control/v1/top`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, header};
use meridian_store::rollup::{self, By, MINUTE_MS, Total};
use meridian_store::{Access, Fault};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Operator, Scope};
use super::{ask_others, rows};
use crate::context::now_ms_i64;
use crate::limits::{TOP_COUNTED_MAX, TOP_WINDOW_S_DEFAULT, TOP_WINDOW_S_MAX};
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// Which decisions are counted, and how they are told apart.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only those of this tenant.
    tenant: Option<String>,
    /// Seconds to look back, 300 where it is not given, at most 86400; the minute in which that falls counts whole.
    window_s: Option<i64>,
    /// By what they are told apart; by route where a tenant is given, else by tenant.
    by: Option<Word>,
    /// How many kinds, 50 where it is not given, at most 200.
    limit: Option<i64>,
    /// Only in this region: no other is asked.
    #[serde(default)]
    local: bool,
}

/// By what decisions are told apart.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Tenant,
    Route,
    Status,
    Region,
    Outcome,
    Cache,
}

impl From<Word> for By {
    fn from(word: Word) -> Self {
        match word {
            Word::Tenant => Self::Tenant,
            Word::Route => Self::Route,
            Word::Status => Self::Status,
            Word::Region => Self::Region,
            Word::Outcome => Self::Outcome,
            Word::Cache => Self::Cache,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates and means are floating point")]
fn shown(total: &Total, window_ms: i64) -> Value {
    let hundredths = |number: f64| (number * 100.0).round() / 100.0;
    json!({
        "key": total.key,
        "requests": total.requests,
        "estimated": total.is_estimate(),
        "per_second": hundredths(total.requests as f64 * 1000.0 / window_ms.max(1) as f64),
        "failed": total.failed,
        "mean_ms": hundredths(total.elapsed_sum_ms as f64 / total.requests.max(1) as f64),
        "p50_ms": total.quantile_ms(50),
        "p99_ms": total.quantile_ms(99),
        "max_ms": total.elapsed_max_ms,
        "request_bytes": total.request_bytes,
        "response_bytes": total.response_bytes,
        "unmeasured": total.unmeasured,
    })
}

/// What was decided lately, the most frequent kinds first, counted in all regions.
///
/// Times are those to the reply's head; quantiles are upper ends of buckets. Counts are estimates where not all decisions were
/// written down. Bytes are of bodies, as far as their lengths were known when replies began: `unmeasured` requests had one of
/// unknown length, so that with any the sums are too low.
#[utoipa::path(
    get,
    path = "/control/v1/top",
    tag = "control",
    params(Wanted),
    responses(
        (status = 200, description = "{by, window_s, top: [{key, requests, estimated, per_second, failed, mean_ms, p50_ms, p99_ms, \
            max_ms, request_bytes, response_bytes, unmeasured}], away: [REGION]}; with `local`, `counted` with sums in the place of `top`", body = Object),
        (status = 400, description = "No such kind, or too long a window"),
    ),
    security(("token" = []))
)]
pub(super) async fn top(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let window_s = wanted.window_s.unwrap_or(TOP_WINDOW_S_DEFAULT);
    if !(1..=TOP_WINDOW_S_MAX).contains(&window_s) {
        return Err(Problem::bad_request(format!("window_s must be from 1 to {TOP_WINDOW_S_MAX}")));
    }
    let by = wanted.by.unwrap_or(if wanted.tenant.is_some() { Word::Route } else { Word::Tenant });
    let now_ms = now_ms_i64();
    let from_ms = (now_ms - window_s * 1000).div_euclid(MINUTE_MS) * MINUTE_MS;
    let here = counted(&origin, wanted.tenant.as_deref(), by.into(), from_ms, now_ms).await?;
    if wanted.local {
        return Ok(Json(json!({ "counted": here })));
    }
    let mut path =
        format!("/control/v1/top?window_s={window_s}&by={}", json!(by).as_str().unwrap_or_default());
    if let Some(tenant) = &wanted.tenant {
        path.push_str(&format!("&tenant={}", super::encoded(tenant)));
    }
    let mut away = Vec::new();
    let mut all: BTreeMap<String, Total> = BTreeMap::new();
    let mut count = |counted: Vec<Total>| {
        for one in counted {
            let key = one.key.clone();
            all.entry(key).or_insert_with_key(|key| Total { key: key.clone(), ..Total::default() }).add(&one);
        }
    };
    count(here);
    for (region, answer) in ask_others(&origin, &path, headers.get(header::AUTHORIZATION)).await {
        match answer.and_then(|mut answer| serde_json::from_value(answer["counted"].take()).ok()) {
            Some(counted) => count(counted),
            None => away.push(region),
        }
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|one, other| other.requests.cmp(&one.requests).then_with(|| one.key.cmp(&other.key)));
    all.truncate(usize::try_from(rows(wanted.limit)).unwrap_or_default());
    let top: Vec<_> = all.iter().map(|total| shown(total, now_ms - from_ms)).collect();
    Ok(Json(json!({ "by": by, "window_s": (now_ms - from_ms) / 1000, "top": top, "away": away })))
}

async fn counted(
    origin: &Origin,
    tenant: Option<&str>,
    by: By,
    from_ms: i64,
    now_ms: i64,
) -> Result<Vec<Total>, Fault> {
    let mut transaction = origin.store.begin(Access::Control).await?;
    // Clocks of edges may be a little ahead.
    let to_ms = now_ms + MINUTE_MS;
    rollup::totals(&mut transaction, tenant, by, from_ms, to_ms, TOP_COUNTED_MAX).await
}
