//! Spans on their way to a collector: taken at once, sent many in one request, never more waiting than allowed. What
//! finds no room and what the collector does not take is counted and dropped: nobody waits for a collector.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use super::{Counts, Settings};
use crate::edge::peers::{self, HttpsClient};
use crate::limits::TRACE_ANSWER_BYTES_MAX;

/// Where spans are given in.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    queue: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl Spans {
    /// Takes a span, or drops it where there is no room.
    pub(super) fn offer(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

impl SpanProcessor for Spans {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.offer(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Where spans wait.
#[derive(Debug)]
pub(super) struct Queue {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    batch_spans: usize,
    delay: Duration,
    counts: Counts,
}

impl Queue {
    /// An empty queue, and where spans are given in.
    pub(super) fn new(exporter: SpanExporter, settings: &Settings, counts: &Counts) -> (Spans, Self) {
        let (queue, spans) = mpsc::channel(settings.queue_spans);
        let Settings { batch_spans, delay, .. } = *settings;
        let counts = counts.clone();
        (
            Spans { queue, dropped: counts.dropped.clone() },
            Self { exporter, spans, batch_spans, delay, counts },
        )
    }

    /// Sends what arrives until `stop` says so, and then once what is left.
    pub(super) async fn send(mut self, mut stop: watch::Receiver<bool>) {
        let mut stopping = false;
        while !stopping {
            let mut batch = Vec::new();
            tokio::select! {
                many = self.spans.recv_many(&mut batch, self.batch_spans) => stopping = many == 0,
                _ = stop.wait_for(|stop| *stop) => stopping = true,
            }
            if !stopping {
                stopping = self.gather(&mut batch, &mut stop).await;
            }
            while let Some(span) = self.spans.try_recv().ok().filter(|_| batch.len() < self.batch_spans) {
                batch.push(span);
            }
            if batch.is_empty() {
                continue;
            }
            let many = batch.len() as u64;
            match self.exporter.export(batch).await {
                Ok(()) => self.counts.exported.inc_by(many),
                Err(error) => {
                    tracing::warn!(%error, spans = many, "spans dropped: the collector does not take them");
                    self.counts.dropped.inc_by(many)
                }
            };
        }
    }

    /// Waits a little for more; whether it is time to stop.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, stop: &mut watch::Receiver<bool>) -> bool {
        let deadline = tokio::time::Instant::now() + self.delay;
        while batch.len() < self.batch_spans {
            let room = self.batch_spans - batch.len();
            tokio::select! {
                many = self.spans.recv_many(batch, room) => if many == 0 { return true },
                () = tokio::time::sleep_until(deadline) => return false,
                _ = stop.wait_for(|stop| *stop) => return true,
            }
        }
        false
    }
}

/// The client that the collector is spoken to with.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    client: HttpsClient,
    timeout: Duration,
}

impl Collector {
    /// A client that trusts the authorities of the operating system.
    pub(super) fn new(timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self { client: peers::client(&*meridian_cdc::tls::trust(None)?), timeout })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = async {
            let (head, body) = self.client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, TRACE_ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(self.timeout, answer).await?
    }
}
