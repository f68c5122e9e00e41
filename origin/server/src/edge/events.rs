//! `POST /edge/v1/events`

use std::sync::Arc;

use axum::extract::State;
use http::{StatusCode, header};
use meridian_engine::ruleset::SHARE_ALL;
use meridian_store::event::{Event as Row, is_kept};
use meridian_store::rollup::{Measure, OTHER};
use meridian_wire::event::{Event, EventBatch, Personal};
use meridian_wire::limits::EVENTS_MAX;
use serde_json::{Value, json};

use crate::config::Events;
use crate::context::{Signed, now_ms_i64};
use crate::limits::EVENTS_RETRY_AFTER_S;
use crate::problem::Problem;
use crate::request::Body;
use crate::state::Origin;

/// Takes a batch of decisions and faults of an edge.
///
/// They are written a moment later, many at once. Where too many wait already, the edge is told to come again. What is of
/// a day that is not kept is dropped and counted.
#[utoipa::path(
    post,
    path = "/edge/v1/events",
    tag = "edge",
    request_body(content = Object, description = "{edge, events: […], faults: […]}", content_type = "application/json"),
    responses(
        (status = 202, description = "Taken"),
        (status = 400, description = "Too many events, or the id of one is not right"),
        (status = 422, description = "The body is not of this shape"),
        (status = 503, description = "No room now; Retry-After says when"),
    ),
    security(("context" = []))
)]
pub(super) async fn events(
    State(origin): State<Arc<Origin>>,
    signed: Signed,
    Body(batch): Body<EventBatch>,
) -> Result<StatusCode, Problem> {
    let many = batch.events.len() + batch.faults.len();
    if many > EVENTS_MAX {
        return Err(Problem::bad_request(format!("{many} events, at most {EVENTS_MAX} in one batch")));
    }
    for fault in &batch.faults {
        tracing::warn!(
            edge = signed.edge,
            target = fault.target,
            version = fault.version,
            what = fault.what,
            "an edge refused a bundle and keeps the one before"
        );
        origin.metrics.edge_faults.inc();
    }
    let now_ms = now_ms_i64();
    let settings = &origin.config.events;
    let mut rows = Vec::with_capacity(batch.events.len());
    let mut followed = Vec::new();
    for event in batch.events {
        if event.trace.as_ref().is_some_and(|trace| trace.sampled) && origin.traces.is_on() {
            followed.push(event.clone());
        }
        let row = row(event, &signed.edge, settings)?;
        if is_kept(row.at_ms, now_ms, settings.keep_days) {
            rows.push(row);
        } else {
            origin.metrics.events.dropped.inc();
            tracing::warn!(
                edge = signed.edge,
                decision = row.decision,
                at_ms = row.at_ms,
                "an event of no kept day"
            );
        }
    }
    if origin.journal.offer(rows) {
        followed.iter().for_each(|event| origin.traces.report(event, &signed.edge));
        Ok(StatusCode::ACCEPTED)
    } else {
        origin.metrics.events_refused.inc();
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many events wait to be written")
            .header(header::RETRY_AFTER, &EVENTS_RETRY_AFTER_S.to_string()))
    }
}

fn row(mut event: Event, edge: &str, settings: &Events) -> Result<Row, Problem> {
    if event.id.is_empty() || event.id.len() > 64 {
        return Err(Problem::bad_request("an event's id must be 1 to 64 characters"));
    }
    let participation = if event.exposures.is_empty() && event.conversions.is_empty() {
        Value::Null
    } else {
        json!({"exposures": event.exposures, "conversions": event.conversions})
    };
    minimise(&mut event, settings.personal.into());
    Ok(Row {
        decision: event.id.clone(),
        tenant: event.tenant.clone(),
        edge: edge.to_owned(),
        at_ms: i64::try_from(event.at_ms).unwrap_or(i64::MAX),
        measure: measure(&event),
        participation,
        body: serde_json::to_value(event).map_err(|error| Problem::internal(&error))?,
    })
}

/// Takes away what is told of persons beyond what this region keeps, and beyond what the edge was to tell: it tells of who took
/// part in experiments in any case, as that is counted.
fn minimise(event: &mut Event, most: Personal) {
    let told = event.personal;
    event.personal = told.max(most);
    if event.personal == Personal::Keep {
        return;
    }
    if told == Personal::Keep {
        // Paths hold ids and names. One without a route's in its place is not told at all: only edges can hash it.
        event.path = event.pattern.take().unwrap_or_default();
        for stage in &mut event.explanation {
            stage.inputs.retain(|name, _| !matches!(name.as_str(), "path" | "client"));
        }
    }
    if event.personal == Personal::Drop {
        event.subject_hash = None;
        event.country = None;
        if event.path.starts_with('#') {
            event.path.clear();
        }
        event.exposures.clear();
        event.conversions.clear();
        event.explanation.iter_mut().for_each(|stage| stage.inputs.clear());
    }
}

/// What an event counts as. Words are taken from known ones alone, so that no edge adds to their number.
fn measure(event: &Event) -> Measure {
    const OUTCOMES: [&str; 6] = ["forwarded", "cached", "answered", "denied", "limited", "failed"];
    // The parameters of Cache-Status that say what came of it (RFC 9211, section 2).
    const CACHED: [&str; 7] = ["hit", "bypass", "method", "uri-miss", "vary-miss", "request", "stale"];
    let word = |known: &[&'static str], found: &str| known.iter().find(|word| **word == found).copied();
    let cached = |status: &String| {
        let first = status.split(';').map(str::trim).find(|part| *part == "hit" || part.starts_with("fwd="));
        first.and_then(|part| word(&CACHED, part.trim_start_matches("fwd="))).unwrap_or(OTHER)
    };
    Measure {
        route: event.route.clone().unwrap_or_default(),
        outcome: word(&OUTCOMES, &event.outcome).unwrap_or(OTHER),
        status: event.status,
        cache: event.cache.as_ref().map_or("", cached),
        region: event.region.clone().unwrap_or_default(),
        elapsed_ms: event.elapsed_ms,
        // What was not forwarded was not read either, whatever its head says.
        request_bytes: if event.outcome == "forwarded" { event.request_bytes } else { Some(0) },
        response_bytes: event.response_bytes,
        weight: event.weight.clamp(1, SHARE_ALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn event(members: Value) -> Event {
        let mut event = json!({"id": "01A", "at_ms": 1, "tenant": "acme", "bundle": null, "route": "orders",
            "outcome": "forwarded", "status": 200, "region": "us-east-1", "subject_hash": "5ab3", "cache": null,
            "method": "GET", "host": "acme.localhost", "path": "/v1/people/ada", "country": "DE", "elapsed_ms": 3,
            "explanation": [{"stage": "security", "rule": null, "outcome": "allowed",
                "inputs": {"client": "192.0.2.0/24", "path": "/v1/people/ada"}}]});
        event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    /// What is kept where the region keeps so much and an edge told so much.
    fn kept(most: config::Personal, members: Value) -> Value {
        let part = json!({
            "exposures": [{"experiment": "checkout", "version": "1", "unit": "0f3e", "variant": "a"}],
            "conversions": [{"experiment": "checkout", "version": "1", "unit": "0f3e", "goal": "bought"}],
        });
        let mut told = part.clone();
        told.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let row = row(event(told), "e", &Events { keep_days: 7, personal: most }).unwrap();
        assert_eq!(row.participation, part, "counted in any case");
        assert!(serde_json::from_value::<Event>(row.body.clone()).is_ok(), "it is an event still");
        row.body
    }

    #[test]
    fn of_what_the_region_keeps_and_the_route_tells_the_less_counts() {
        use config::Personal::{Drop, Hash, Keep};
        let pattern = json!({"pattern": "/v1/people/{name}"});
        let whole = kept(Keep, pattern.clone());
        assert_eq!((&whole["subject_hash"], &whole["path"]), (&json!("5ab3"), &json!("/v1/people/ada")));
        assert_eq!((&whole["country"], &whole["exposures"][0]["unit"]), (&json!("DE"), &json!("0f3e")));

        let hashed = kept(Hash, pattern.clone());
        assert_eq!((&hashed["personal"], &hashed["path"]), (&json!("hash"), &pattern["pattern"]));
        assert_eq!((&hashed["subject_hash"], &hashed["country"]), (&json!("5ab3"), &json!("DE")));
        assert_eq!(hashed["explanation"][0]["inputs"], json!({}));
        assert_eq!(kept(Hash, json!({}))["path"], "", "nothing to put in its place");

        let by_edge = json!({"personal": "hash", "path": "#12", "explanation": [{"stage": "security",
            "rule": null, "outcome": "allowed", "inputs": {"client": "#34", "score": "1"}}]});
        for most in [Keep, Hash] {
            let hashed = kept(most, by_edge.clone());
            assert_eq!(
                (&hashed["path"], &hashed["explanation"]),
                (&by_edge["path"], &by_edge["explanation"])
            );
        }
        let by_edge_dropped = json!({"personal": "drop", "path": "/v1/people/{name}"});
        for (most, members) in [(Drop, pattern), (Drop, by_edge), (Keep, by_edge_dropped)] {
            let body = kept(most, members);
            let text = body.to_string();
            for personal in ["5ab3", "ada", "192.0.2", "DE", "0f3e", "#12", "#34"] {
                assert!(!text.contains(personal), "{personal}: {text}");
            }
            let explained = &body["explanation"][0]["outcome"];
            assert_eq!((&body["route"], explained), (&json!("orders"), &json!("allowed")));
        }
    }

    #[test]
    fn words_of_an_edge_do_not_multiply() {
        let cached = |status: Value| measure(&event(json!({"cache": status}))).cache;
        for (status, expected) in [
            (json!(null), ""),
            (json!("hit; ttl=30"), "hit"),
            (json!("fwd=uri-miss; fwd-status=200; stored; ttl=59"), "uri-miss"),
            (json!("meridian; fwd=stale"), "stale"),
            (json!("fwd=x1"), OTHER),
            (json!(""), OTHER),
        ] {
            assert_eq!(cached(status.clone()), expected, "{status}");
        }
        assert_eq!(measure(&event(json!({"outcome": "x1"}))).outcome, OTHER);
        assert_eq!(measure(&event(json!({"outcome": "limited"}))).outcome, "limited");
    }

    #[test]
    fn bytes_count_that_went_on() {
        let bytes = |members| {
            let measure = measure(&event(members));
            (measure.request_bytes, measure.response_bytes)
        };
        let said =
            |outcome: &str| bytes(json!({"outcome": outcome, "request_bytes": 7, "response_bytes": 9}));
        assert_eq!((said("forwarded"), said("denied")), ((Some(7), Some(9)), (Some(0), Some(9))));
        assert_eq!(bytes(json!({})), (None, None), "an edge that does not say, or a body in chunks");
    }
}
