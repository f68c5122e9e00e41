//! The spans of an edge, made from the event of a request.

use std::time::{Duration, SystemTime};

use meridian_wire::event::{Event, TracePart};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::limits::TRACE_WAITS_MAX;

/// The request's span and one for each thing that it waited for; none where the trace is not followed. Attributes name no
/// person: neither path nor address nor subject.
pub(super) fn spans(event: &Event, edge: &str) -> Vec<SpanData> {
    let Some(trace) = event.trace.as_ref().filter(|trace| trace.sampled) else { return Vec::new() };
    let Some((id, span, parent)) = numbers(trace) else { return Vec::new() };
    let began = SystemTime::UNIX_EPOCH + Duration::from_millis(event.at_ms);
    let after = |ms: u32| began + Duration::from_millis(ms.into());
    let one = |span, parent, name: String, (from, to): (u32, u32)| SpanData {
        span_context: SpanContext::new(id, span, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: after(from),
        end_time: after(to),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("meridian-edge").build(),
    };
    let name = match &event.route {
        Some(route) => format!("{} {route}", event.method),
        None => event.method.clone(),
    };
    let mut request = one(span, parent, name, (0, event.elapsed_ms));
    request.span_kind = SpanKind::Server;
    request.parent_span_is_remote = parent != SpanId::INVALID;
    request.attributes = attributes(event, edge);
    if event.status >= 500 || event.outcome == "failed" {
        request.status = Status::error(event.outcome.clone());
    }
    let waits = event.waits.iter().take(TRACE_WAITS_MAX).enumerate().map(|(number, wait)| {
        // The same however often the event is sent.
        let id =
            u64::from_be_bytes(span.to_bytes()) ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let until = wait.after_ms.saturating_add(wait.ms);
        one(SpanId::from_bytes(id.to_be_bytes()), span, wait.what.clone(), (wait.after_ms, until))
    });
    let mut spans: Vec<_> = waits.collect();
    spans.insert(0, request);
    spans
}

fn numbers(trace: &TracePart) -> Option<(TraceId, SpanId, SpanId)> {
    let id = TraceId::from_hex(&trace.id).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(&trace.span).ok().filter(|span| *span != SpanId::INVALID)?;
    let parent =
        trace.parent.as_ref().map_or(Some(SpanId::INVALID), |parent| SpanId::from_hex(parent).ok())?;
    Some((id, span, parent))
}

fn attributes(event: &Event, edge: &str) -> Vec<KeyValue> {
    let text = |name: &'static str, value: &Option<String>| Some(KeyValue::new(name, value.clone()?));
    let mut attributes = vec![
        KeyValue::new("http.request.method", event.method.clone()),
        KeyValue::new("http.response.status_code", i64::from(event.status)),
        KeyValue::new("server.address", event.host.clone()),
        KeyValue::new("meridian.edge", edge.to_owned()),
        KeyValue::new("meridian.decision", event.id.clone()),
        KeyValue::new("meridian.outcome", event.outcome.clone()),
    ];
    let named = [
        text("meridian.tenant", &event.tenant),
        text("http.route", &event.route),
        text("meridian.bundle", &event.bundle),
        text("meridian.region", &event.region),
        text("meridian.cache", &event.cache),
    ];
    attributes.extend(named.into_iter().flatten());
    attributes.extend(event.variants.iter().map(|(experiment, variant)| {
        KeyValue::new(format!("meridian.variant.{experiment}"), Value::from(variant.clone()))
    }));
    attributes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn event(trace: Json) -> Event {
        let event = json!({"id": "01A", "at_ms": 1_000, "tenant": "acme", "bundle": null, "route": "orders",
            "outcome": "failed", "status": 503, "region": null, "subject_hash": "5ab3", "cache": null, "method": "GET",
            "host": "acme.localhost", "path": "/v1/people/ada", "country": "DE", "elapsed_ms": 30, "trace": trace,
            "waits": [{"what": "take", "after_ms": 1, "ms": 4}, {"what": "forward", "after_ms": 5, "ms": 20}]});
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_followed_request_becomes_spans_that_name_nobody() {
        let trace = json!({"id": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "00f067aa0ba902b7",
            "parent": "00000000000000a1", "sampled": true});
        let made = spans(&event(trace.clone()), "edge-1");
        let shown: Vec<_> =
            made.iter().map(|span| (span.name.as_ref(), span.parent_span_id.to_string())).collect();
        let edge = "00f067aa0ba902b7".to_owned();
        assert_eq!(
            shown,
            [
                ("GET orders", "00000000000000a1".to_owned()),
                ("take", edge.clone()),
                ("forward", edge.clone())
            ]
        );
        assert_eq!(made[0].span_context.span_id().to_string(), edge);
        assert_eq!(made[2].end_time.duration_since(made[0].start_time).unwrap(), Duration::from_millis(25));
        assert!(matches!(made[0].status, Status::Error { .. }));
        assert_eq!(made, spans(&event(trace), "edge-1"), "the same when the event comes again");
        let text = format!("{:?}", made[0]);
        for personal in ["ada", "5ab3", "DE"] {
            assert!(!text.contains(personal), "{personal}: {text}");
        }
    }

    #[test]
    fn what_is_not_followed_or_odd_makes_none() {
        for trace in [
            json!(null),
            json!({"id": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "00f067aa0ba902b7", "sampled": false}),
            json!({"id": "x", "span": "00f067aa0ba902b7", "sampled": true}),
            json!({"id": "4bf92f3577b34da6a3ce929d0e0e4736", "span": "0", "sampled": true}),
        ] {
            assert!(spans(&event(trace.clone()), "e").is_empty(), "{trace}");
        }
    }
}
