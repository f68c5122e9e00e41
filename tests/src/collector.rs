//! A collector of traces: OTLP over HTTP with protobuf bodies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::serve::serve;

/// Bytes of one request.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A collector that keeps all spans it is sent. It ends with the process.
#[derive(Clone)]
pub struct Collector {
    /// Base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    pub url: String,
    spans: Arc<Mutex<Vec<Seen>>>,
}

/// A span, with the service that it is of.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `service.name` of its resource.
    pub service: String,
    /// The span.
    pub span: Span,
}

impl Seen {
    /// A textual attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }
}

impl Collector {
    /// Starts one on a free port of loopback.
    pub fn start() -> Result<Self> {
        let spans: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let kept = Arc::clone(&spans);
        Ok(Self { url: serve(move |stream| answer(stream, &kept))?, spans })
    }

    /// The spans of a trace so far.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Seen> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|seen| hexadecimal(&seen.span.trace_id) == id).cloned().collect()
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(stream: TcpStream, kept: &Mutex<Vec<Seen>>) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut length, mut is_protobuf) = (0, false);
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "the head ended early");
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_protobuf |= line == "content-type: application/x-protobuf";
        }
        ensure!(length <= REQUEST_BYTES_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if !first.starts_with("POST /v1/traces ") || !is_protobuf {
            writer.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let request = ExportTraceServiceRequest::decode(body.as_slice()).context("not what OTLP says")?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Seen { service: service.clone(), span }));
        }
        writer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
        )?;
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}
