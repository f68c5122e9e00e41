//! Requests that a component sends: only to the hosts that the manifest allows, over connections that are kept.

use std::{
    error::Error as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderName;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use meridian_edge_http::{hop, limits::HEAD_BYTES_MAX};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::{
    functions::{self, Functions},
    hosts::HostPattern,
    limits,
    pace::{self, Awaited, Demand, Pace},
    seldom::Seldom,
};

/// Connections to the hosts that components send requests to.
pub type Client = legacy::Client<HttpsConnector<HttpConnector>, WasiBody>;

/// A client with an empty pool. Certificates are checked against the roots of the operating system.
pub fn client() -> Client {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
    // Named, since other crates of one build may bring another one too.
    let provider = rustls::crypto::ring::default_provider;
    let roots = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider()).unwrap_or_else(|error| {
        tracing::warn!(%error, "no root certificates are installed: no https host can be verified, so none is reached");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions that rustls takes to be safe")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        HttpsConnectorBuilder::new().with_tls_config(config)
    });
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(limits::IDLE_CONNECTION_TIMEOUT)
        .pool_max_idle_per_host(limits::IDLE_CONNECTIONS_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .set_host(false)
        .build(roots.https_or_http().enable_http1().wrap_connector(http))
}

/// Fields that belong to a connection, which components neither see nor set.
static FORBIDDEN: [HeaderName; 9] = DEFAULT_FORBIDDEN_HEADERS;

/// What one component may send, and how.
#[derive(Clone)]
pub struct Outbound {
    component: Arc<str>,
    allowed: Arc<[HostPattern]>,
    client: Client,
    functions: Option<Arc<Functions>>,
    body_pause_max: Duration,
    refusals: Arc<Seldom>,
}

/// The answer to a request, and what becomes of its body.
pub type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);
/// A request on its way.
pub type Answering = Box<dyn Future<Output = Result<Sent, Error>> + Send>;

impl Outbound {
    /// The requests of `component`, to hosts that one of `allowed` fits, with bodies that pause for no longer than that.
    pub fn new(
        component: Arc<str>,
        allowed: Vec<HostPattern>,
        client: Client,
        body_pause_max: Duration,
    ) -> Self {
        let refusals = Arc::default();
        Self { component, allowed: allowed.into(), client, functions: None, body_pause_max, refusals }
    }

    /// The same over other connections.
    pub fn over(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// The same with functions that requests may go through.
    pub fn with(self, functions: Functions) -> Self {
        Self { functions: Some(Arc::new(functions)), ..self }
    }

    /// Whether a request may be sent there.
    pub fn allows(&self, uri: &http::Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return false };
        self.allowed.iter().any(|pattern| pattern.allows(scheme, host, uri.port_u16()))
    }

    /// Tells the operator of a request that was not sent, of many at once with those before it.
    pub fn refused(&self, uri: &http::Uri) {
        if let Some(requests) = self.refusals.count(std::time::Instant::now()) {
            tracing::warn!(
                component = %self.component,
                requests,
                last = %without_query(uri),
                "requests to hosts that allowed_outbound_hosts doesn't list were refused"
            );
        }
    }
}

impl WasiHttpHooks for Outbound {
    // Asked for every field of every message: the default makes its list anew each time.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        FORBIDDEN.contains(name)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Answering {
        if !self.allows(request.uri()) {
            self.refused(request.uri());
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        if let Some(functions) = self.functions.as_ref().filter(|_| functions::is_for(request.uri())) {
            return functions.run(request, options, self.clone());
        }
        let options = options.unwrap_or_default();
        let first_byte = options.first_byte_timeout.unwrap_or(limits::FIRST_BYTE_TIMEOUT);
        let connect = options.connect_timeout.unwrap_or(limits::CONNECT_TIMEOUT);
        let between_bytes = options.between_bytes_timeout.unwrap_or(limits::BETWEEN_BYTES_TIMEOUT);
        let (mut request, mut pace) = pace::follow(request, Demand::of_component(self.body_pause_max));
        let mut connection = capture_connection(&mut request);
        let answer = self.client.request(request);
        Box::new(async move {
            let connected = async {
                let connected = tokio::time::timeout(connect, connection.wait_for_connection_metadata());
                if connected.await.is_ok() {
                    // From now on it is the answer that is waited for.
                    std::future::pending::<()>().await;
                }
            };
            let answer = async {
                tokio::select! {
                    // First: a connection that was kept is there with the first poll, and needs no timer.
                    biased;
                    answer = pace::within(&mut pace, first_byte, answer) => Some(answer),
                    () = connected => None,
                }
            };
            let Some(answer) = answer.await else { return Err(Error::ConnectionTimeout) };
            let response = match answer {
                Some(Ok(mut response)) => {
                    // What can be read in two ways counts as no answer.
                    if let Err(malformed) = hop::check_response(response.headers_mut()) {
                        tracing::debug!(%malformed, "an answer was refused");
                        return Err(Error::HttpProtocolError);
                    }
                    response
                }
                Some(Err(error)) => return Err(fault(pace.as_ref(), &error)),
                None => return Err(Error::HttpResponseTimeout),
            };
            let response =
                response.map(|body| TimedBody { body, pause_max: between_bytes, pause: None }.boxed_unsync());
            Ok((response, Box::new(std::future::ready(Ok(()))) as Box<dyn Future<Output = _> + Send>))
        })
    }
}

fn without_query(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

/// What a component is told about a request that got no answer: whoever sent its body may have broken it off.
fn fault(pace: Option<&Pace>, error: &legacy::Error) -> Error {
    match pace.map(Pace::awaited) {
        Some(Awaited::Nobody(fault)) => fault.error(),
        _ => cause(error),
    }
}

/// What failed of a connection.
fn cause(error: &legacy::Error) -> Error {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                io::ErrorKind::TimedOut => Error::ConnectionTimeout,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    Error::DestinationUnavailable
                }
                io::ErrorKind::InvalidData if error_is_tls(error) => Error::TlsCertificateError,
                _ if error.to_string().contains("failed to lookup address") => {
                    Error::DnsError { rcode: None, info_code: None }
                }
                _ => Error::ConnectionTerminated,
            };
        }
        if let Some(error) = inner.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return Error::HttpResponseTimeout;
            }
            if error.is_parse() {
                return Error::HttpProtocolError;
            }
        }
        source = inner.source();
    }
    if error.is_connect() { Error::ConnectionRefused } else { Error::ConnectionTerminated }
}

fn error_is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// A body whose pauses are limited.
struct TimedBody {
    body: Incoming,
    pause_max: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.pause = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                let deadline = Instant::now() + this.pause_max;
                let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                ready!(pause.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
