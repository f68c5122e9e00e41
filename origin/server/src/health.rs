//! `/healthz`, `/readyz`, `/metrics`: whether the process is up, whether it can serve, how it does.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use meridian_cdc::{PeerStatus, Purpose};
use subtle::ConstantTimeEq as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Secret;
use crate::consistency::applied;
use crate::control::auth::bearer;
use crate::edge::peers::Readiness;
use crate::metrics::{Kind, Sample};
use crate::problem::Problem;
use crate::replication::proof;
use crate::state::{Origin, ready};

/// The routes of health and metrics.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// The process is up.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "Up", body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the origin can serve, and how far it has come. Which upstreams of tenants fail is told to the other regions alone.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    params(("Meridian-Peer" = Option<String>, Header, description = "v1.KID.REGION.TIMESTAMP_MS.MAC of another region")),
    responses(
        (status = 200, description = "Ready: {region, ordinal, ready, applied}, and to a peer {unhealthy}", body = Object),
        (status = 503, description = "Not ready", body = Object),
    )
)]
async fn readyz(State(origin): State<Arc<Origin>>, headers: HeaderMap) -> Response {
    let ready = match ready(&origin).await {
        Ok(()) => true,
        Err(fault) => {
            tracing::warn!(%fault, "not ready");
            false
        }
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_of_a_peer = origin.replication.check(Purpose::Readiness, proof(&headers)).is_ok();
    let readiness = Readiness {
        region: origin.config.identity.region.clone(),
        ordinal: origin.config.identity.region_ordinal,
        ready,
        applied: applied(&origin),
        unhealthy: if is_of_a_peer { origin.checks.unhealthy() } else { Vec::new() },
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(readiness)).into_response()
}

/// Numbers for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "OpenMetrics text", body = String),
        (status = 401, description = "The token of MERIDIAN_METRICS_TOKEN is needed; without one nobody may"),
    ),
    security(("metrics" = []))
)]
async fn metrics(State(origin): State<Arc<Origin>>, headers: HeaderMap) -> Result<Response, Problem> {
    let needed = origin.config.metrics_token.as_ref().map(Secret::expose);
    let is_right = |needed: &str, shown: &str| bool::from(needed.as_bytes().ct_eq(shown.as_bytes()));
    if !needed.zip(bearer(&headers)).is_some_and(|(needed, shown)| is_right(needed, shown)) {
        let title = "The token for metrics is needed";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", title)
            .header(WWW_AUTHENTICATE, "Bearer realm=\"meridian-metrics\""));
    }
    let text = origin.metrics.render(&samples(&origin));
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn samples(origin: &Origin) -> Vec<Sample> {
    let (entries, bytes) = origin.answers.size();
    let (events, event_bytes) = origin.journal.waiting();
    let (connections, idle) = origin.store.connections();
    let counters = origin.replication.counters();
    let (checked, unhealthy) = origin.checks.counts();
    let gauge = |name, value| Sample { name, kind: Kind::Gauge, labels: Vec::new(), value };
    let mut samples = vec![
        gauge("cache_entries", entries as f64),
        gauge("cache_bytes", bytes as f64),
        gauge("events_waiting", events as f64),
        gauge("events_waiting_bytes", event_bytes as f64),
        gauge("database_connections", f64::from(connections)),
        gauge("database_connections_idle", idle as f64),
        gauge("upstreams_checked", checked as f64),
        gauge("upstreams_unhealthy", unhealthy as f64),
        gauge("replication_journalled_position_bytes", counters.journalled_position as f64),
    ];
    let counts = &origin.traces.counts;
    for (name, counter) in [
        ("name_lookups", &origin.names.counts.lookups),
        ("name_lookups_refused", &origin.names.counts.refused),
        ("spans_exported", &counts.exported),
        ("spans_dropped", &counts.dropped),
    ] {
        let value = counter.get() as f64;
        samples.push(Sample { name, kind: Kind::Counter, labels: Vec::new(), value });
    }
    for (name, kind, value) in PEER_NUMBERS {
        samples.extend(counters.peers.iter().map(|peer| {
            let labels = vec![("peer", peer.region.clone())];
            Sample { name, kind: *kind, labels, value: value(peer) }
        }));
    }
    for peer in &counters.peers {
        samples.extend(peer.conflicts.iter().map(|(class, many)| Sample {
            name: "replication_conflicts",
            kind: Kind::Counter,
            labels: vec![("peer", peer.region.clone()), ("class", (*class).to_owned())],
            value: *many as f64,
        }));
    }
    samples
}

type PeerNumber = (&'static str, Kind, fn(&PeerStatus) -> f64);

/// What is told of each of the other regions.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const PEER_NUMBERS: &[PeerNumber] = &[
    ("replication_streaming", Kind::Gauge, |peer| f64::from(u8::from(peer.state == "streaming"))),
    ("replication_lag_seconds", Kind::Gauge, |peer| peer.lag_ms as f64 / 1000.0),
    ("replication_lag_bytes", Kind::Gauge, |peer| peer.lag_bytes as f64),
    ("replication_applied_rows", Kind::Counter, |peer| peer.changes as f64),
    ("replication_applied_transactions", Kind::Counter, |peer| peer.transactions as f64),
    ("replication_received_bytes", Kind::Counter, |peer| peer.bytes as f64),
    ("replication_merged_rows", Kind::Counter, |peer| peer.merged as f64),
    ("replication_parked_rows", Kind::Counter, |peer| peer.parked as f64),
    ("replication_connects", Kind::Counter, |peer| peer.connects as f64),
    ("replication_sent_rows", Kind::Counter, |peer| peer.sent_changes as f64),
    ("replication_sent_bytes", Kind::Counter, |peer| peer.sent_bytes as f64),
    ("replication_withheld_rows", Kind::Counter, |peer| peer.withheld as f64),
];
