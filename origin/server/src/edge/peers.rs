//! What this region knows of the others: each is asked once a second whether it is ready and how far it has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use meridian_wire::session::Positions;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Peer;
use crate::limits::{
    PEER_ANSWER_BYTES_MAX, PEER_ASK_TIMEOUT, PEER_CHECK_INTERVAL, PEER_CHECK_TIMEOUT, PEER_CONNECT_TIMEOUT,
};

/// What a region says of itself at `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The region.
    pub region: String,
    /// Its ordinal.
    pub ordinal: u16,
    /// Whether it can serve.
    pub ready: bool,
    /// What it has applied of every region.
    pub applied: Positions,
}

/// Why another region could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// No connection, or it broke.
    #[error("the region can't be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the region did not answer in time")]
    Timeout,
    /// The question can't be put as a URL.
    #[error("the region's URL makes no sense")]
    Url,
}

/// A client for `http` and `https` URLs.
pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts whom `tls` says.
pub(crate) fn client(tls: &ClientConfig) -> HttpsClient {
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(PEER_CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
    let connector = connector.https_or_http().enable_http1().wrap_connector(plain);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

/// The other regions, as they were when they were last asked.
#[derive(Clone)]
pub struct Peers {
    peers: Arc<[Peer]>,
    client: HttpsClient,
    known: Arc<Mutex<BTreeMap<u16, Readiness>>>,
}

impl Peers {
    /// Not yet asked. `tls` says whom to trust at `https` URLs.
    #[must_use]
    pub fn new(peers: &[Peer], tls: &ClientConfig) -> Self {
        Self { peers: peers.into(), client: client(tls), known: Arc::default() }
    }

    /// The other regions in the order of the configuration, each with what it last said of itself. A region that did
    /// not answer counts as not ready, with the positions that it had.
    #[must_use]
    pub fn known(&self) -> Vec<(Peer, Readiness)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let readiness = |peer: &Peer| known.get(&peer.ordinal).cloned().unwrap_or_default();
        self.peers.iter().map(|peer| (peer.clone(), readiness(peer))).collect()
    }

    /// Asks all of them, again and again, until `stop` says so.
    pub async fn watch(self, mut stop: watch::Receiver<bool>) {
        let mut clock = tokio::time::interval(PEER_CHECK_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            futures_util::future::join_all(self.peers.iter().map(|peer| self.check(peer))).await;
        }
    }

    async fn check(&self, peer: &Peer) {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static("/readyz");
        let answer = self.ask(peer, request, PEER_CHECK_TIMEOUT).await;
        let said = answer.ok().and_then(|answer| serde_json::from_slice::<Readiness>(answer.body()).ok());
        let said = said.filter(|said| said.ordinal == peer.ordinal && said.region == peer.region);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(peer.ordinal).or_default();
        let ready = said.as_ref().is_some_and(|said| said.ready);
        if ready != before.ready {
            tracing::info!(region = peer.region, ready, "another region's readiness changed");
        }
        match said {
            Some(said) => *before = said,
            None => before.ready = false,
        }
    }

    /// Asks one of them something: `path_and_query` of the request is taken, whatever authority it has.
    ///
    /// # Errors
    /// Where no answer comes within the timeout, or it is larger than an answer may be.
    pub async fn ask(
        &self,
        peer: &Peer,
        mut request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, AskFault> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{}{path}", peer.url.as_str()).parse().map_err(|_| AskFault::Url)?;
        *request.uri_mut() = uri;
        let exchange = async {
            let unreachable = |error: hyper_util::client::legacy::Error| AskFault::Unreachable(error.into());
            let response = self.client.request(request).await.map_err(unreachable)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, PEER_ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(AskFault::Unreachable)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(AskFault::Timeout))
    }

    /// Asks all of them at once, with the bearer token that this request came with.
    pub async fn ask_all(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Vec<(Peer, Result<Response<Bytes>, AskFault>)> {
        let ask = async |peer: &Peer| {
            let answer = match local(method.clone(), path, authorization, body.clone()) {
                Ok(request) => self.ask(peer, request, PEER_ASK_TIMEOUT).await,
                Err(fault) => Err(fault),
            };
            (peer.clone(), answer)
        };
        futures_util::future::join_all(self.peers.iter().map(ask)).await
    }
}

/// A request of the control API to another region. It names `local=true`, so that nobody asks on.
///
/// # Errors
/// Where the path can't be one.
pub fn local(
    method: Method,
    path: &str,
    authorization: Option<&HeaderValue>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, AskFault> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    let sign = if path.contains('?') { '&' } else { '?' };
    *request.uri_mut() = format!("{path}{sign}local=true").parse().map_err(|_| AskFault::Url)?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}
