//! What is seen of every request from outside its handler: a span, a count, a duration, and the decision's id in the
//! problem that it may have ended in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, StatusCode};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Instrument as _;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::problem::Problem;
use crate::state::Origin;

/// Name of the header field that says which region answered.
pub const REGION: HeaderName = HeaderName::from_static("meridian-region");

/// What is learnt of a request while it is handled. Travels in its extensions.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<OnceLock<String>>);

impl Note {
    /// The request belongs to this decision of an edge.
    pub fn decided(&self, decision: &str) {
        let _ = self.0.set(decision.to_owned());
        tracing::Span::current().record("decision", decision);
    }
}

/// The outermost layer.
pub async fn observe(State(origin): State<Arc<Origin>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _in_flight = origin.metrics.in_flight();
    let method = request.method().clone();
    // The template, never the path itself: the number of series is that of the routes.
    let route =
        request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str()).to_owned();
    let note = Note::default();
    request.extensions_mut().insert(note.clone());
    let span = tracing::info_span!(
        "request", %method, route, decision = Empty, status = Empty, otel.name = Empty, otel.kind = Empty
    );
    if origin.traces.is_on() {
        span.record("otel.name", format!("{method} {route}"));
        span.record("otel.kind", "server");
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
        // Fails where the process records no spans of its own, as in tests that share one.
        let _ = span.set_parent(parent);
    }
    let mut response = next.run(request).instrument(span.clone()).await;
    let decision = note.0.get().map(String::as_str);
    if let (Some(decision), Some(problem)) = (decision, response.extensions_mut().remove::<Problem>()) {
        response = problem.respond(Some(decision));
    }
    // An answer that another region gave says so already.
    if let Ok(region) = HeaderValue::from_str(&origin.config.identity.region) {
        response.headers_mut().entry(REGION).or_insert(region);
    }
    if origin.stopping.load(Ordering::Relaxed) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let elapsed = began.elapsed();
    origin.metrics.answered(&method, &route, response.status(), elapsed);
    span.record("status", response.status().as_u16());
    span.in_scope(|| tracing::debug!(elapsed_us = elapsed.as_micros(), "answered"));
    response
}
