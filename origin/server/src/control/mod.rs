//! The control API: tenants, hostnames, collections, releases of rules, operations. For people and machines with a
//! control token; every change leaves a line in the audit log.

pub mod auth;

mod audit;
mod collections;
mod compile;
mod conflicts;
mod decisions;
mod domains;
mod home;
pub(crate) mod lineage;
mod logs;
mod publish;
mod purges;
mod releases;
mod replication;
mod results;
mod tenants;
mod tokens;
mod top;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, PUSH_BYTES_MAX, TEXT_BYTES_MAX};
use crate::problem::Problem;
use crate::state::Origin;

/// The routes of the control API.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new()
        .routes(routes!(auth::whoami))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::get, tenants::change))
        .routes(routes!(collections::list, collections::declare))
        .routes(routes!(domains::list, domains::create))
        .routes(routes!(domains::change))
        .routes(routes!(releases::head))
        .routes(routes!(releases::list, releases::push))
        .routes(routes!(releases::get))
        .routes(routes!(releases::rollback))
        .routes(routes!(decisions::get))
        .routes(routes!(results::get))
        .routes(routes!(top::top))
        .routes(routes!(logs::list))
        .routes(routes!(replication::status))
        .routes(routes!(conflicts::list))
        .routes(routes!(purges::purge))
        .routes(routes!(audit::list))
        .layer(DefaultBodyLimit::max(PUSH_BYTES_MAX))
}

/// Where to do it.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// Only in this region: no other is asked.
    #[serde(default)]
    local: bool,
}

/// Which part of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, 50 where it is not given, at most 200.
    limit: Option<i64>,
}

impl Page {
    fn limit(&self) -> i64 {
        rows(self.limit)
    }
}

/// What the other regions answer to the same question, each by its name; none where a region is away or does not know.
async fn ask_others(
    origin: &Origin,
    path: &str,
    authorization: Option<&HeaderValue>,
) -> Vec<(String, Option<Value>)> {
    let answers = origin.peers.ask_all(Method::GET, path, authorization, Bytes::new()).await;
    let read = |answer: Response<Bytes>| {
        (answer.status() == StatusCode::OK).then(|| serde_json::from_slice(answer.body()).ok()).flatten()
    };
    answers.into_iter().map(|(peer, answer)| (peer.region, answer.ok().and_then(read))).collect()
}

/// A text as the value of a query's parameter.
fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// How many rows, within what is allowed.
fn rows(limit: Option<i64>) -> i64 {
    limit.unwrap_or(PAGE_ROWS_DEFAULT).clamp(1, PAGE_ROWS_MAX)
}

/// Where the next page begins, if this one was full.
fn next<T>(rows: &[T], limit: i64, key: impl Fn(&T) -> String) -> Option<String> {
    let full = i64::try_from(rows.len()).is_ok_and(|many| many >= limit);
    rows.last().filter(|_| full).map(key)
}

/// What is wrong with a member of a request.
fn invalid(path: &str, found: &str, expected: &str) -> Problem {
    let found: String = found.chars().take(80).collect();
    Problem::invalid(vec![serde_json::json!({"path": path, "found": found, "expected": expected})])
        .detail(format!("{path}: found {found:?}, expected {expected}"))
}

/// One of the words that a member may be.
fn one_of(path: &str, found: String, words: &[&str]) -> Result<String, Problem> {
    if words.contains(&found.as_str()) { Ok(found) } else { Err(invalid(path, &found, &words.join(" or "))) }
}

/// A free text within its limit.
fn text(path: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(path, text, &format!("1 to {TEXT_BYTES_MAX} bytes of printable text")));
    }
    Ok(())
}
