//! `GET /control/v1/logs`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, header};
use meridian_store::event::{self, Filter, Page};
use meridian_store::record::rfc3339;
use meridian_store::{Access, Fault};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::auth::{Operator, Scope};
use super::{ask_others, encoded, invalid, rows};
use crate::limits::LOGS_BYTES_MAX;
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only those of this tenant.
    tenant: Option<String>,
    /// Only those of the route with this name.
    route: Option<String>,
    /// Only those with this outcome.
    outcome: Option<String>,
    /// Only those with this status, `404`, or of this class, `5xx`.
    status: Option<String>,
    /// The `next` of the answer before: what has arrived since then, the oldest first. Without it, the newest.
    after: Option<String>,
    /// How many of each region, 50 where it is not given, at most 200.
    limit: Option<i64>,
    /// Only in this region: no other is asked.
    #[serde(default)]
    local: bool,
}

/// One decision.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    at: String,
    /// Region that it was reported to.
    region: String,
    edge: String,
    event: Value,
}

impl Line {
    fn at_ms(&self) -> i64 {
        self.event["at_ms"].as_i64().unwrap_or_default()
    }
}

/// Where each region's next page begins, `REGION=PLACE` with commas between.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cursor(BTreeMap<String, i64>);

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let place = |part: &str| {
            let (region, place) = part.split_once('=')?;
            Some((region.to_owned(), place.parse().ok().filter(|place| *place >= 0)?))
        };
        text.split(',').filter(|part| !part.is_empty()).map(place).collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        self.0.iter().map(|(region, place)| format!("{region}={place}")).collect::<Vec<_>>().join(",")
    }
}

/// Decisions without their explanations, in the order of their times: the newest, or those that arrived since.
///
/// All regions are asked. One that is away keeps its place in `next`, so that nothing of it is missed. Filters look at the
/// last 5,000 decisions of the tenant, or at the next 5,000 for each answer.
#[utoipa::path(
    get,
    path = "/control/v1/logs",
    tag = "control",
    params(Wanted),
    responses(
        (status = 200, description = "{logs: [{at, region, edge, event}], next, away: [REGION]}", body = Object),
        (status = 422, description = "A status or a place that is none"),
    ),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let after = wanted.after.as_deref().unwrap_or_default();
    let mut next =
        Cursor::read(after).ok_or_else(|| invalid("after", after, "the next of an answer before"))?;
    let status = wanted.status.as_deref().map(|text| {
        statuses(text).ok_or_else(|| invalid("status", text, "a status, 404, or a class of them, 5xx"))
    });
    let filter = Filter {
        tenant: wanted.tenant.clone(),
        route: wanted.route.clone(),
        outcome: wanted.outcome.clone(),
        status: status.transpose()?,
    };
    let limit = rows(wanted.limit);
    let region = &origin.config.identity.region;
    let page = page(&origin, &filter, next.0.get(region).copied(), limit).await?;
    next.0.insert(region.clone(), page.next);
    let line = |kept: event::Kept| {
        let at = rfc3339(kept.body["at_ms"].as_i64().unwrap_or_default());
        Line { at, region: region.clone(), edge: kept.edge, event: kept.body }
    };
    let mut lines: Vec<_> = page.events.into_iter().map(line).collect();
    let mut away = Vec::new();
    if !wanted.local {
        let path = format!("/control/v1/logs?{}", query(&wanted, limit));
        for (region, answer) in ask_others(&origin, &path, headers.get(header::AUTHORIZATION)).await {
            match answer.and_then(|answer| there(answer, &region)) {
                Some((more, place)) => {
                    lines.extend(more);
                    next.0.insert(region, place);
                }
                None => away.push(region),
            }
        }
    }
    lines.sort_by_key(Line::at_ms);
    if wanted.after.is_none() {
        let beyond = lines.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        lines.drain(..beyond);
    }
    Ok(Json(json!({ "logs": lines, "next": next.text(), "away": away })))
}

async fn page(origin: &Origin, filter: &Filter, after: Option<i64>, limit: i64) -> Result<Page, Fault> {
    let mut transaction = origin.store.begin(Access::Control).await?;
    let mut page = match after {
        Some(place) => event::after(&mut transaction, filter, place, limit).await?,
        None => event::newest(&mut transaction, filter, limit).await?,
    };
    // The newest count first where not all have room.
    if after.is_none() {
        page.events.reverse();
    }
    let mut bytes = 0;
    let mut fits = |kept: &event::Kept| {
        bytes += kept.body.to_string().len() + kept.edge.len();
        bytes <= LOGS_BYTES_MAX
    };
    let many = page.events.iter().take_while(|kept| fits(kept)).count().max(1);
    if many < page.events.len() {
        page.events.truncate(many);
        if let Some(last) = page.events.last().filter(|_| after.is_some()) {
            page.next = last.seq;
        }
    }
    if after.is_none() {
        page.events.reverse();
    }
    Ok(page)
}

/// The same question for another region.
fn query(wanted: &Wanted, limit: i64) -> String {
    let members = [
        ("tenant", &wanted.tenant),
        ("route", &wanted.route),
        ("outcome", &wanted.outcome),
        ("status", &wanted.status),
        ("after", &wanted.after),
    ];
    let given = members.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    given.fold(format!("limit={limit}"), |query, (name, value)| format!("{query}&{name}={}", encoded(value)))
}

/// What another region answered.
fn there(mut answer: Value, region: &str) -> Option<(Vec<Line>, i64)> {
    let lines = serde_json::from_value(answer["logs"].take()).ok()?;
    let place = Cursor::read(answer["next"].as_str()?)?.0.remove(region)?;
    Some((lines, place))
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    let class = text.strip_suffix("xx").filter(|class| class.len() == 1);
    let status =
        class.map_or_else(|| text.parse(), |class| class.parse::<u16>().map(|class| class * 100)).ok()?;
    (100..600).contains(&status).then(|| (status, if class.is_some() { status + 99 } else { status }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_statuses_are_read() {
        let cursor = Cursor::read("us-east-1=12,eu-west-1=0").unwrap();
        assert_eq!((cursor.0["us-east-1"], cursor.text().as_str()), (12, "eu-west-1=0,us-east-1=12"));
        assert_eq!(Cursor::read(""), Some(Cursor::default()));
        for wrong in ["us-east-1", "us-east-1=", "us-east-1=-1", "a=1,b"] {
            assert_eq!(Cursor::read(wrong), None, "{wrong}");
        }
        for (text, expected) in [
            ("404", Some((404, 404))),
            ("5xx", Some((500, 599))),
            ("6xx", None),
            ("xx", None),
            ("99", None),
            ("40", None),
            ("5XX", None),
        ] {
            assert_eq!(statuses(text), expected, "{text}");
        }
    }
}
