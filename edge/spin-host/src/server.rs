//! The HTTP server: connections, limits, and which component answers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use meridian_edge_http::{
    head::{self, Refused},
    protocols,
};
use meridian_engine::problem::Problem;
use serde::Serialize;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc::UnboundedReceiver},
};
use wasmtime_wasi_http::{
    Error, WasiBody,
    handler::{InstantiationError, ProxyHandler, TrapOrPanicError},
    p3::bindings::http::types::ErrorCode,
};

use crate::{
    client::{Patience, Received, Watched},
    instance::{Begun, Blueprint, Instances, Turn, Turns},
    limits,
    pace::{self, Demand},
    refusal::refusal,
    routes::{RouteHeaders, RoutePattern, WELL_KNOWN},
    threads::Accepted,
    whole::Answering,
};

/// What answers the requests of one component.
struct Backend {
    id: Arc<str>,
    reused: ProxyHandler<Instances>,
    isolated: ProxyHandler<Instances>,
    turns: Turns,
    request_timeout: Duration,
    demand: Demand,
}

impl Backend {
    fn new(blueprint: Blueprint, demand: Demand) -> Self {
        let blueprint = Arc::new(blueprint);
        Self {
            id: Arc::clone(&blueprint.id),
            request_timeout: blueprint.limits.request_timeout,
            turns: Turns::new(),
            demand,
            reused: ProxyHandler::new(Instances::reused(Arc::clone(&blueprint))),
            isolated: ProxyHandler::new(Instances::isolated(blueprint)),
        }
    }

    /// Lets the component answer. A safe request without a body is made again when its instance ends: this request or
    /// another one of the same instance ended it, and in an instance of its own it cannot take others with it.
    async fn answer(&self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Failure> {
        let (parts, body) = request.into_parts();
        let again = (parts.method.is_safe() && body.is_end_stream()).then(|| parts.clone());
        let turn = self.turns.next().await;
        match (self.attempt(&self.reused, turn, Request::from_parts(parts, body)).await, again) {
            (Err(Failure::Ended), Some(parts)) => {
                self.attempt(&self.isolated, None, Request::from_parts(parts, empty())).await
            }
            (result, _) => result,
        }
    }

    async fn attempt(
        &self,
        instances: &ProxyHandler<Instances>,
        turn: Turn,
        request: Request<WasiBody>,
    ) -> Result<Response<WasiBody>, Failure> {
        let (request, mut pace) = pace::follow(request, self.demand);
        let answering = Answering::default();
        let begun = Begun { turn, pace: pace.clone(), answering: answering.clone() };
        match pace::within(&mut pace, self.request_timeout, instances.handle(begun, request)).await {
            Some(Ok(response)) => Ok(answering.whole(response)),
            Some(Err(error)) => Err(Failure::of(&self.id, &error)),
            None => {
                tracing::error!(component = %self.id, "a request got no answer in time");
                Err(Failure::TimedOut)
            }
        }
    }
}

/// A route and the component behind it.
struct Route {
    pattern: RoutePattern,
    headers: RouteHeaders,
    backend: Arc<Backend>,
}

/// What clients may send, and how slowly.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Bytes of a request's body.
    pub body_bytes_max: u64,
    /// How slowly it may come.
    pub demand: Demand,
    /// How long anything else may take.
    pub patience: Patience,
}

/// What an application says of itself, as Spin does.
#[derive(Serialize)]
pub struct Info<'a> {
    /// The application's name.
    pub name: &'a str,
    /// Its version; not said where it is empty.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version: &'a str,
}

impl Info<'_> {
    /// The same as JSON.
    pub fn text(&self) -> anyhow::Result<Bytes> {
        Ok(serde_json::to_vec(self)?.into())
    }
}

/// An application as one thread serves it.
pub struct Server {
    info: Bytes,
    routes: Vec<Route>,
    in_progress: Arc<Semaphore>,
    limits: ClientLimits,
}

impl Server {
    /// A server of these routes; each leads to one of the blueprints, by its id. `in_progress` bounds the requests of
    /// all servers that share it.
    pub fn new(
        routes: Vec<(RoutePattern, String)>,
        blueprints: Vec<Blueprint>,
        in_progress: Arc<Semaphore>,
        limits: ClientLimits,
    ) -> anyhow::Result<Self> {
        let backend = |blueprint| Arc::new(Backend::new(blueprint, limits.demand));
        let backends: Vec<Arc<Backend>> = blueprints.into_iter().map(backend).collect();
        let mut routes = routes
            .into_iter()
            .map(|(pattern, id)| {
                let headers = RouteHeaders::new(&pattern).ok_or_else(|| {
                    anyhow::anyhow!("the route \"{pattern}\" has characters that no header may have")
                })?;
                let backend = backends
                    .iter()
                    .find(|backend| *backend.id == *id)
                    .ok_or_else(|| anyhow::anyhow!("the route \"{pattern}\" leads to no component"))?;
                Ok(Route { pattern, headers, backend: Arc::clone(backend) })
            })
            .collect::<anyhow::Result<Vec<Route>>>()?;
        routes.sort_by(|a, b| a.pattern.by_specificity(&b.pattern));
        Ok(Self { info: Bytes::new(), routes, in_progress, limits })
    }

    /// The same with what it answers to who asks for the application's [`Info`].
    pub fn with_info(self, info: Bytes) -> Self {
        Self { info, ..self }
    }

    /// Serves the connections that come until there can be no more, then lets requests in progress finish for a while.
    pub async fn serve(self, mut accepted: UnboundedReceiver<Accepted>) {
        let server = Arc::new(self);
        let connections = GracefulShutdown::new();
        let protocols = protocols();
        while let Some(Accepted { stream, client, open }) = accepted.recv().await {
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%client, %error, "a connection was lost");
                    continue;
                }
            };
            let (stream, exchanges) = Watched::new(stream, server.limits.patience);
            let connection = protocols.serve_connection(TokioIo::new(stream), {
                let server = Arc::clone(&server);
                service_fn(move |request: Request<Incoming>| {
                    let server = Arc::clone(&server);
                    let (received, sent) = exchanges.begin();
                    let request = request.map(received);
                    async move { Ok::<_, Infallible>(server.answer(request, client).await.map(sent)) }
                })
            });
            let connection = connections.watch(connection.into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%client, %error, "a connection ended");
                }
                drop(open);
            });
        }
        if tokio::time::timeout(limits::SHUTDOWN_TIMEOUT, connections.shutdown()).await.is_err() {
            tracing::warn!("requests in progress were cut off after {:?}", limits::SHUTDOWN_TIMEOUT);
        }
    }

    async fn answer(&self, request: Request<Received<Incoming>>, client: SocketAddr) -> Response<WasiBody> {
        let (started, trace) = (Instant::now(), request.headers().get("traceparent").cloned());
        if let Some(name) = request.uri().path().strip_prefix(WELL_KNOWN) {
            return self.own(name).unwrap_or_else(|failure| failure.response(trace, started.elapsed()));
        }
        match self.dispatch(request, client).await {
            Ok(response) => response,
            Err(failure) => failure.response(trace, started.elapsed()),
        }
    }

    /// What Spin answers below its own path: no component is asked for any of it.
    fn own(&self, name: &str) -> Result<Response<WasiBody>, Failure> {
        match name {
            "health" => Ok(Response::new(full("OK"))),
            "info" => {
                let mut response = Response::new(full(self.info.clone()));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                Ok(response)
            }
            _ => Err(Failure::NoRoute),
        }
    }

    async fn dispatch(
        &self,
        request: Request<Received<Incoming>>,
        client: SocketAddr,
    ) -> Result<Response<WasiBody>, Failure> {
        let (request, exceeded) = self.check(request)?;
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        let Some((route, matched)) =
            self.routes.iter().find_map(|route| Some((route, route.pattern.matches(path)?)))
        else {
            return Err(Failure::NoRoute);
        };
        route.headers.set(&mut parts.headers, &parts.uri, &matched, client);
        let _permit = self.in_progress.try_acquire().map_err(|_| Failure::Overloaded)?;
        let answer = route.backend.answer(Request::from_parts(parts, body)).await;
        // To the component the body just broke off.
        if exceeded.is_some_and(|exceeded| exceeded.load(Ordering::Relaxed)) {
            return Err(Failure::BodyTooLarge);
        }
        answer
    }

    /// Checks the head, and bounds the body. Of a body whose length is not told, it says later whether it was too long.
    fn check(
        &self,
        request: Request<Received<Incoming>>,
    ) -> Result<(Request<WasiBody>, Option<Arc<AtomicBool>>), Failure> {
        let (mut parts, body) = request.into_parts();
        head::check(&mut parts).map_err(Failure::Head)?;
        let mut exceeded: Option<Arc<AtomicBool>> = None;
        let body = if body.is_end_stream() {
            // A component does not see how a body is framed: so it need not read one to know that there is none.
            parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
            empty()
        } else {
            match body.size_hint().exact() {
                Some(size) if size <= self.limits.body_bytes_max => body.boxed_unsync(),
                Some(_) => return Err(Failure::BodyTooLarge),
                None => {
                    let bytes_max = usize::try_from(self.limits.body_bytes_max).unwrap_or(usize::MAX);
                    let flag = Arc::clone(exceeded.insert(Arc::default()));
                    Limited::new(body, bytes_max)
                        .map_err(move |error| body_error(error, &flag))
                        .boxed_unsync()
                }
            }
        };
        Ok((Request::from_parts(parts, body), exceeded))
    }
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>, exceeded: &AtomicBool) -> Error {
    if error.is::<LengthLimitError>() {
        exceeded.store(true, Ordering::Relaxed);
        return Error::HttpRequestBodySize(None);
    }
    error.downcast::<Error>().map_or(Error::ConnectionTerminated, |error| *error)
}

fn empty() -> WasiBody {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(text: impl Into<Bytes>) -> WasiBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why the host itself answers, and not a component.
#[derive(Debug)]
enum Failure {
    Head(Refused),
    BodyTooLarge,
    NoRoute,
    Overloaded,
    Ended,
    TimedOut,
    Component,
}

impl Failure {
    fn of(component: &str, error: &wasmtime::Error) -> Self {
        if error.is::<TrapOrPanicError>() {
            Self::Ended
        } else if let Some(ErrorCode::HttpRequestBodySize(_)) = error.downcast_ref() {
            Self::BodyTooLarge
        } else if error.is::<InstantiationError<Begun>>() {
            tracing::error!(component, "no instance could be made: {error:#}");
            Self::Overloaded
        } else {
            tracing::error!(component, "a request failed: {error:#}");
            Self::Component
        }
    }

    fn problem(&self) -> Problem {
        let internal = |title| Problem::new(500, "internal", title);
        match self {
            Self::Head(refused) => refused.problem(),
            Self::BodyTooLarge => Problem::new(413, "body-too-large", "The request's body is too large"),
            Self::NoRoute => Problem::new(404, "no-route", "No route leads here"),
            Self::Overloaded => {
                let problem = Problem::new(503, "overloaded", "Too many requests are in progress");
                problem.header("retry-after", "1")
            }
            Self::Ended => internal("The component ended while it answered"),
            Self::TimedOut => Problem::new(504, "edge-timeout", "The component did not answer in time"),
            Self::Component => internal("The component failed"),
        }
    }

    /// The problem, with what every reply of an edge says; `trace` is the request's `traceparent`.
    fn response(&self, trace: Option<HeaderValue>, elapsed: Duration) -> Response<WasiBody> {
        let refusal = refusal(&self.problem(), trace.as_ref(), elapsed);
        tracing::info!(decision = refusal.decision, status = refusal.status, "the host answers: {self:?}");
        let mut response = Response::new(full(refusal.body));
        *response.status_mut() =
            StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in refusal.headers.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_below_spins_own_path_is_answered_as_by_spin() {
        let demand = Demand::of_component(limits::BODY_PAUSE_TIMEOUT);
        let clients = ClientLimits { body_bytes_max: 1, demand, patience: Patience::default() };
        let info = Info { name: "a \"shop\"", version: "" }.text().unwrap();
        let server = Server::new(Vec::new(), Vec::new(), Arc::new(Semaphore::new(1)), clients).unwrap();
        let server = server.with_info(info);
        let cases = [
            ("health", Some(("", "OK"))),
            ("info", Some(("application/json", r#"{"name":"a \"shop\""}"#))),
            ("", None),
            ("health/", None),
            ("metrics", None),
        ];
        for (name, expected) in cases {
            let Ok(response) = server.own(name) else {
                assert!(expected.is_none(), "{name}");
                continue;
            };
            let kind = response
                .headers()
                .get(header::CONTENT_TYPE)
                .map_or("", |kind| kind.to_str().unwrap())
                .to_owned();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(Some((kind.as_str(), std::str::from_utf8(&body).unwrap())), expected, "{name}");
        }
        let versioned = Info { name: "shop", version: "1.0.0" }.text().unwrap();
        assert_eq!(versioned, r#"{"name":"shop","version":"1.0.0"}"#);
    }

    #[test]
    fn what_the_host_answers_says_who_decided() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = HeaderValue::from_static(parent);
        let response = Failure::Overloaded.response(Some(trace), Duration::from_millis(3));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let has = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((has("meridian-decision").len(), has("meridian-region").as_str()), (26, "edge"));
        assert_eq!((has("meridian-bundle").as_str(), has("retry-after").as_str()), ("none", "1"));
        assert_eq!(has("server-timing"), "edge;dur=3.0, origin;dur=0.0");
        assert!(has("traceparent").starts_with(&parent[..35]) && has("traceparent") != parent);
        let other = Failure::Overloaded.response(None, Duration::ZERO);
        assert_ne!(other.headers()["meridian-decision"].to_str().unwrap(), has("meridian-decision"));
    }
}
