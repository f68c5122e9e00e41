//! A reverse proxy that caches as the crate `http-cache-semantics` says, for `cargo xtask conformance cache --peer`.
//!
//! Beside forwarding it does what that crate leaves to its users and a cache can't be without: it keeps responses and forgets
//! them after unsafe requests ([`shelf`]), and leaves out what is for one connection (RFC 9110, section 7.6.1). It never decides
//! for itself what may be stored, served or revalidated.
//!
//! ```text
//! meridian-test-semantics LISTEN UPSTREAM     two addresses with their ports
//! ```

mod shelf;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version, request};
use http_body_util::{BodyExt as _, Full, Limited};
use http_cache_semantics::{AfterResponse, CacheOptions, CachePolicy};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shelf::{Found, Shelf};
use tokio::net::TcpListener;

/// Longest body of a request or a response; the suite's have some dozen bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = arguments.as_slice() else {
        bail!("found {} arguments, expected LISTEN and UPSTREAM", arguments.len());
    };
    let listen: SocketAddr =
        listen.parse().with_context(|| format!("{listen:?} is no address with a port"))?;
    let upstream: Authority = upstream.parse().with_context(|| format!("{upstream:?} is no authority"))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, upstream))
}

/// Serves until the process is ended.
async fn serve(listen: SocketAddr, upstream: Authority) -> Result<()> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("{listen} can't be listened on"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let proxy = Arc::new(Proxy { upstream, client, shelf: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await.context("no connection is accepted any more")?;
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let proxy = Arc::clone(&proxy);
                async move { Ok::<_, Infallible>(proxy.answer(request).await.map(Full::new)) }
            });
            // When a client breaks off, there is nobody left to be told.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Proxy {
    upstream: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
    shelf: Mutex<Shelf>,
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Response<Bytes> {
        self.exchange(request).await.unwrap_or_else(|error| {
            let mut response = Response::new(Bytes::from(format!("{error:#}\n")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }

    /// From what is stored, from the upstream, or from both where it confirms what is stored.
    async fn exchange(&self, request: Request<Incoming>) -> Result<Response<Bytes>> {
        let (mut head, body) = request.into_parts();
        forget_connection(&mut head.headers);
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed);
        let body = body.context("the request's body can't be had")?.to_bytes();
        let found = self.shelf().look_up(&head, SystemTime::now());
        match found {
            Found::Fresh(response) => Ok(response),
            Found::Stale { stored, request } => {
                let response = self.forward((*request).clone(), body).await?;
                let now = SystemTime::now();
                let (policy, response) = match stored.policy.after_response(&*request, &response, now) {
                    AfterResponse::NotModified(policy, confirmed) => {
                        (policy, Response::from_parts(confirmed, stored.body))
                    }
                    // The head beside it is one of a stored response, with an age and another date.
                    AfterResponse::Modified(policy, _) => (policy, response),
                };
                self.shelf().keep(&head, policy, &response, now);
                Ok(response)
            }
            Found::Nothing => {
                let response = self.forward(head.clone(), body).await?;
                let now = SystemTime::now();
                let options = CacheOptions { shared: true, ..CacheOptions::default() };
                let policy = CachePolicy::new_options(&head, &response, now, options);
                self.shelf().keep(&head, policy, &response, now);
                Ok(response)
            }
        }
    }

    async fn forward(&self, mut head: request::Parts, body: Bytes) -> Result<Response<Bytes>> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let upstream = Uri::builder().scheme("http").authority(self.upstream.clone());
        head.uri = upstream.path_and_query(target).build().context("the target is none of a URL")?;
        head.version = Version::HTTP_11;
        let sent = self.client.request(Request::from_parts(head, Full::new(body))).await;
        let (mut head, body) = sent.context("the upstream does not answer")?.into_parts();
        forget_connection(&mut head.headers);
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed);
        let body = body.context("the response's body can't be had")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the fields that are for one connection, those that `Connection` names among them (RFC 9110, section 7.6.1).
fn forget_connection(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    let always = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let other = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    for name in named.into_iter().chain(always).chain(other) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_for_one_connection_goes_no_further() {
        let fields =
            [("connection", "X-Own, close"), ("x-own", "1"), ("keep-alive", "timeout=5"), ("etag", "\"a\"")];
        let fields =
            fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = fields.into_iter().collect();
        forget_connection(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }
}
