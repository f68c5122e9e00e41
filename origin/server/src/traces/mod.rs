//! Traces by OTLP over HTTP: the spans of this origin, and those of the edges whose events it takes, so that one trace
//! shows a request from client to edge to origin. Set by the standard variables of OpenTelemetry; without an endpoint,
//! nothing is recorded.

mod edge;
mod export;

use std::time::Duration;

use anyhow::Context as _;
use meridian_wire::event::Event;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::export::{Collector, Queue, Spans};
use crate::limits::{TRACE_BATCH_SPANS, TRACE_DELAY, TRACE_EXPORT_TIMEOUT, TRACE_QUEUE_SPANS};

/// What is told where, and how much of it may wait.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL of the collector's `/v1/traces`; without it, as the standard variables say.
    pub endpoint: Option<String>,
    /// Spans that may wait, of the origin and of edges each (`OTEL_BSP_MAX_QUEUE_SIZE`).
    pub queue_spans: usize,
    /// Spans of one request to the collector (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub batch_spans: usize,
    /// How long the first of them waits for others (`OTEL_BSP_SCHEDULE_DELAY`).
    pub delay: Duration,
    /// How long the collector may take (`OTEL_EXPORTER_OTLP_TIMEOUT`).
    pub timeout: Duration,
}

impl Settings {
    /// What the environment says: `None` where there is no endpoint, or the SDK is disabled.
    #[must_use]
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name: &str, word: &str| {
            variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
        };
        let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let told = endpoint.iter().any(|name| variable(name).is_some());
        if !told || is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        let number = |name: &str| variable(name)?.trim().parse::<u64>().ok().filter(|number| *number > 0);
        let spans = |name, or| number(name).and_then(|many| usize::try_from(many).ok()).unwrap_or(or);
        let span = |name, or| number(name).map_or(or, Duration::from_millis);
        let queue_spans = spans("OTEL_BSP_MAX_QUEUE_SIZE", TRACE_QUEUE_SPANS);
        let timeout = span("OTEL_EXPORTER_OTLP_TIMEOUT", TRACE_EXPORT_TIMEOUT);
        Some(Self {
            endpoint: None,
            queue_spans,
            batch_spans: spans("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", TRACE_BATCH_SPANS).min(queue_spans),
            delay: span("OTEL_BSP_SCHEDULE_DELAY", TRACE_DELAY),
            timeout: span("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", timeout),
        })
    }
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Taken by the collector.
    pub exported: Counter,
    /// Dropped: too many waited, or the collector did not take them.
    pub dropped: Counter,
}

/// The spans of this process on their way to a collector.
#[derive(Debug, Default)]
pub struct Traces {
    /// What became of them.
    pub counts: Counts,
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    provider: SdkTracerProvider,
    edges: Spans,
    queues: Vec<Queue>,
}

impl Traces {
    /// Spans to a collector, or none without settings. `region` is that of the origin.
    ///
    /// # Errors
    /// Where a variable can't be understood, or the authorities that are trusted can't be read.
    pub fn new(settings: Option<&Settings>, region: &str) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let Some(settings) = settings else { return Ok(Self::default()) };
        let collector = Collector::new(settings.timeout)?;
        let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.trim().is_empty());
        let own = Resource::builder().with_attribute(KeyValue::new("meridian.region", region.to_owned()));
        let own = if named { own } else { own.with_service_name("meridian-origin") };
        let own = own.build();
        let edge = Resource::builder().with_service_name("meridian-edge").build();
        let open = |resource: &Resource| {
            let builder = SpanExporter::builder().with_http().with_http_client(collector.clone());
            let builder = builder.with_timeout(settings.timeout);
            let mut exporter = match &settings.endpoint {
                Some(endpoint) => builder.with_endpoint(endpoint).build(),
                None => builder.build(),
            }
            .context("the variables of OpenTelemetry make no sense")?;
            exporter.set_resource(resource);
            anyhow::Ok(Queue::new(exporter, settings, &counts))
        };
        let (spans, queue) = open(&own)?;
        let (edges, edge_queue) = open(&edge)?;
        let provider = SdkTracerProvider::builder().with_resource(own).with_span_processor(spans).build();
        Ok(Self { counts, on: Some(On { provider, edges, queues: vec![queue, edge_queue] }) })
    }

    /// Records the spans of this process.
    #[must_use]
    pub fn tracer(&self) -> Option<SdkTracer> {
        Some(self.on.as_ref()?.provider.tracer("meridian-origin"))
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Begins to send, until `stop` says so and then once what is left.
    pub fn send(&mut self, background: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        for queue in self.on.iter_mut().flat_map(|on| on.queues.drain(..)) {
            background.spawn(queue.send(stop.clone()));
        }
    }

    /// Takes the spans of a request that an edge reports, where its trace is followed. They hold nothing of persons.
    pub fn report(&self, event: &Event, edge: &str) {
        if let Some(on) = &self.on {
            edge::spans(event, edge).into_iter().for_each(|span| on.edges.offer(span));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_standard_variables() {
        let of = |variables: &[(&str, &str)]| {
            let value = |name: &str| {
                variables.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned())
            };
            Settings::of(value)
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(of(&[]).is_none() && of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).is_none());
        assert!(of(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]).is_none());
        assert!(of(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).is_none());
        let plain = of(&[endpoint]).unwrap();
        assert_eq!((plain.queue_spans, plain.delay), (TRACE_QUEUE_SPANS, TRACE_DELAY));
        let told = of(&[
            endpoint,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ])
        .unwrap();
        assert_eq!((told.queue_spans, told.batch_spans, told.delay), (10, 10, Duration::from_millis(20)));
        assert_eq!(told.timeout, TRACE_EXPORT_TIMEOUT);
    }
}
