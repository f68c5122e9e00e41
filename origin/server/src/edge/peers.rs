//! What this region knows of the others: each is asked whether it is ready, how far it has come and which upstreams there are
//! unhealthy, once a second where the platform's rules say nothing else. Where it is not ready at the URL by which this origin knows
//! it, it is asked at those that the rules name: ready at one of them is ready.
//!
//! A region that does not answer says nothing new of its upstreams: its last word counts until it is due to be asked again and for
//! [`PEER_WORD_KEEP`] after that, and then they count as healthy again, as everything does that nobody checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use meridian_cdc::{Purpose, prove};
use meridian_wire::document::RegionCheckSpec;
use meridian_wire::keyring::MacKeyring;
use meridian_wire::session::Positions;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::unhealthy::Unhealthy;
use crate::checks::verdict::{Thresholds, Verdict};
use crate::config::Peer;
use crate::context::now_ms;
use crate::limits::{
    CHECKS_MAX, PEER_ANSWER_BYTES_MAX, PEER_ASK_TIMEOUT, PEER_CONNECT_TIMEOUT, PEER_PAUSE_MAX, PEER_WORD_KEEP,
};
use crate::replication::PEER;

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
    /// Tenants' upstreams there whose health check fails, as `tenant/name`; at most [`CHECKS_MAX`], and told to regions alone that
    /// prove to be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<String>,
}

/// How a region is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
}

impl From<&RegionCheckSpec> for Check {
    fn from(spec: &RegionCheckSpec) -> Self {
        Self {
            interval: Duration::from_millis(spec.interval.ms),
            timeout: Duration::from_millis(spec.timeout.ms),
            thresholds: Thresholds { failures: spec.failures, successes: spec.successes },
        }
    }
}

/// How a region is asked, and at which base URLs beside the one that is configured.
pub type Asked = (Check, Arc<[String]>);

impl Default for Check {
    fn default() -> Self {
        Self::from(&RegionCheckSpec::default())
    }
}

/// Why another region could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// No connection: nothing was received.
    #[error("the region can't be reached")]
    NoConnection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke, and what was asked may have been received.
    #[error("the connection to the region broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    /// Id of this region, and the keys by which it proves to be it.
    region: String,
    keys: MacKeyring,
    client: HttpsClient,
    known: Arc<Mutex<BTreeMap<u16, Known>>>,
    /// How each is asked, by its id; those that are not there, as usual.
    checks: Arc<Mutex<BTreeMap<String, Asked>>>,
}

/// What is known of a region.
struct Known {
    /// What it said last, but for the upstreams.
    said: Readiness,
    /// Which upstreams were unhealthy there.
    unhealthy: Unhealthy,
    /// When that was.
    heard: Instant,
    /// Whether it is ready, by the checks so far.
    verdict: Verdict,
}

impl Known {
    /// The first check decides: an origin that has just started must not take regions for unhealthy for as long as theirs have
    /// to be healthy in a row.
    fn of(first: bool) -> Self {
        let (said, unhealthy) = (Readiness::default(), Unhealthy::default());
        Self { said, unhealthy, heard: Instant::now(), verdict: Verdict::new(first) }
    }

    /// What counts of it now, where it is asked that often: the upstreams for themselves.
    fn readiness(&self, interval: Duration) -> (Readiness, Unhealthy) {
        let readiness = Readiness { ready: self.verdict.is_healthy(), ..self.said.clone() };
        let is_of_now = self.heard.elapsed() <= interval + PEER_WORD_KEEP;
        (readiness, if is_of_now { self.unhealthy.clone() } else { Unhealthy::default() })
    }
}

impl Peers {
    /// Not yet asked. `region` proves to be itself by `keys`; `tls` says whom to trust at `https` URLs.
    #[must_use]
    pub fn new(region: &str, peers: &[Peer], keys: MacKeyring, tls: &ClientConfig) -> Self {
        Self {
            peers: peers.into(),
            region: region.to_owned(),
            keys,
            client: client(tls),
            known: Arc::default(),
            checks: Arc::default(),
        }
    }

    /// The other regions in the order of the configuration, each with what it last said of itself. A region whose checks
    /// fail counts as not ready, with the positions that it had. Of upstreams only those of these tenants are told.
    #[must_use]
    pub fn known(&self, tenants: &BTreeSet<&str>) -> Vec<(Peer, Readiness)> {
        let known = |peer: &Peer| {
            let interval = self.asked(peer).0.interval;
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&peer.ordinal).map(|known| known.readiness(interval)).unwrap_or_default()
        };
        let told = |peer: &Peer| {
            let (readiness, unhealthy) = known(peer);
            (peer.clone(), Readiness { unhealthy: unhealthy.of_tenants(tenants), ..readiness })
        };
        self.peers.iter().map(told).collect()
    }

    /// From now on asks the regions like this, by their ids, and those that are not named as usual.
    pub fn obey(&self, checks: BTreeMap<String, Asked>) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = checks;
    }

    /// Asks all of them, again and again, until `stop` says so.
    pub async fn watch(self, mut stop: watch::Receiver<bool>) {
        let asking = futures_util::future::join_all(self.peers.iter().map(|peer| self.keep_asking(peer)));
        tokio::select! {
            _ = asking => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn keep_asking(&self, peer: &Peer) {
        loop {
            let begun = Instant::now();
            self.check(peer).await;
            // Rules that change meanwhile count at once.
            loop {
                let left = self.asked(peer).0.interval.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(PEER_PAUSE_MAX)).await;
            }
        }
    }

    fn asked(&self, peer: &Peer) -> Asked {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.get(&peer.region).cloned().unwrap_or_default()
    }

    async fn check(&self, peer: &Peer) {
        let (check, others) = self.asked(peer);
        let mut said = self.readiness(peer, peer.url.as_str(), check.timeout).await;
        if said.as_ref().is_none_or(|said| !said.ready) {
            let asking = beside(peer, &others).map(|url| self.readiness(peer, url, check.timeout));
            let answers = futures_util::future::join_all(asking).await;
            // One that is ready, or else the first that says anything.
            let mut answers: Vec<Readiness> = std::iter::once(said).chain(answers).flatten().collect();
            answers.sort_by_key(|said| !said.ready);
            said = answers.into_iter().next();
        }
        let unhealthy = said.as_mut().map(|said| std::mem::take(&mut said.unhealthy)).unwrap_or_default();
        let unhealthy = Unhealthy::of(unhealthy.into_iter().take(CHECKS_MAX).collect());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = said.as_ref().is_some_and(|said| said.ready);
        let is_first = !known.contains_key(&peer.ordinal);
        let known = known.entry(peer.ordinal).or_insert_with(|| Known::of(passed));
        if known.verdict.take(passed, check.thresholds) || is_first {
            tracing::info!(region = peer.region, ready = passed, "another region's readiness changed");
        }
        if let Some(said) = said {
            (known.said, known.unhealthy, known.heard) = (said, unhealthy, Instant::now());
        }
    }

    /// What a region says of itself at this base URL.
    async fn readiness(&self, peer: &Peer, base: &str, timeout: Duration) -> Option<Readiness> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static("/readyz");
        let proof = prove(&self.keys, Purpose::Readiness, &self.region, &peer.region, now_ms());
        if let Ok(proof) = HeaderValue::try_from(proof) {
            request.headers_mut().insert(PEER, proof);
        }
        let asking = self.ask_at(base, request);
        let answer = tokio::time::timeout(timeout, asking).await.ok()?.ok()?;
        let said: Readiness = serde_json::from_slice(answer.body()).ok()?;
        (said.ordinal == peer.ordinal && said.region == peer.region).then_some(said)
    }

    /// Asks one of them something: `path_and_query` of the request is taken, whatever authority it has. Where there is no
    /// connection to the URL that is configured, it is asked at those that the rules name, one after the other; a request that may
    /// have been received is not sent again. What is meant for `https` goes to no other URL without it: operators' tokens are in it.
    ///
    /// # Errors
    /// Where no answer comes within the timeout, which is for all URLs together, or it is larger than an answer may be.
    pub async fn ask(
        &self,
        peer: &Peer,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, AskFault> {
        let (_, others) = self.asked(peer);
        let may_be_plain = peer.url.as_str().starts_with("http://");
        let others = beside(peer, &others).filter(|url| may_be_plain || url.starts_with("https://"));
        let others: Vec<&str> = others.collect();
        let asking = async {
            let mut answer = self.ask_at(peer.url.as_str(), request.clone()).await;
            for url in others {
                if !matches!(answer, Err(AskFault::NoConnection(_))) {
                    break;
                }
                answer = self.ask_at(url, request.clone()).await;
            }
            answer
        };
        tokio::time::timeout(timeout, asking).await.unwrap_or(Err(AskFault::Timeout))
    }

    async fn ask_at(
        &self,
        base: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, AskFault> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{base}{path}").parse().map_err(|_| AskFault::Url)?;
        *request.uri_mut() = uri;
        let fault = |error: hyper_util::client::legacy::Error| {
            if error.is_connect() {
                AskFault::NoConnection(error.into())
            } else {
                AskFault::Broken(error.into())
            }
        };
        let response = self.client.request(request).await.map_err(fault)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, PEER_ANSWER_BYTES_MAX).collect().await.map_err(AskFault::Broken)?;
        Ok(Response::from_parts(head, body.to_bytes()))
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

/// The base URLs of a region that its rules name beside the one that is configured.
fn beside<'a>(peer: &'a Peer, named: &'a [String]) -> impl Iterator<Item = &'a str> {
    named.iter().map(|url| url.trim_end_matches('/')).filter(|url| *url != peer.url.as_str())
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A region that says of itself at every connection whether it is ready. Its base URL.
    async fn region(ready: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let body = format!(r#"{{"region":"eu","ordinal":2,"ready":{ready},"applied":{{"1":7}}}}"#);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    /// A base URL at which nobody listens.
    async fn closed() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// A region that takes every request and hangs up. Its base URL.
    async fn breaking() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
            }
        });
        url
    }

    /// Peers that know the region `eu` by this URL, and by what the rules say by these others.
    fn peers(configured: &str, others: &[&String]) -> (Peers, Peer) {
        let peer: Peer = format!("eu:2={configured}").parse().unwrap();
        let keys = MacKeyring::parse("k:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap();
        let tls = meridian_cdc::tls::trust(None).unwrap();
        let peers = Peers::new("us", std::slice::from_ref(&peer), keys, &tls);
        let others = others.iter().map(|url| (*url).clone()).collect();
        peers.obey(BTreeMap::from([("eu".to_owned(), (Check::default(), others))]));
        (peers, peer)
    }

    #[tokio::test]
    async fn what_was_not_received_is_asked_at_another_address() {
        let (ready, breaking, closed) = (region(true).await, breaking().await, closed().await);
        for (configured, others, expect) in [
            (&ready, vec![&closed], "answered"),
            (&closed, vec![&closed, &ready], "answered"),
            (&closed, vec![&closed], "no connection"),
            // It may have been received there.
            (&breaking, vec![&ready], "broken"),
            (&closed, vec![&breaking, &ready], "broken"),
        ] {
            let (peers, peer) = peers(configured, &others);
            let request = local(Method::GET, "/control/v1/head", None, Bytes::new()).unwrap();
            let answer = match peers.ask(&peer, request, PEER_ASK_TIMEOUT).await {
                Ok(_) => "answered",
                Err(AskFault::NoConnection(_)) => "no connection",
                Err(AskFault::Broken(_)) => "broken",
                Err(AskFault::Timeout | AskFault::Url) => "else",
            };
            assert_eq!(answer, expect, "{configured}, {others:?}");
        }
    }

    #[tokio::test]
    async fn what_is_meant_for_https_goes_nowhere_without() {
        let (ready, closed) = (region(true).await, closed().await);
        let (peers, peer) = peers(&closed.replace("http://", "https://"), &[&ready]);
        let request = local(Method::GET, "/control/v1/head", None, Bytes::new()).unwrap();
        let answer = peers.ask(&peer, request, PEER_ASK_TIMEOUT).await;
        assert!(matches!(answer, Err(AskFault::NoConnection(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_region_is_ready_where_it_is_so_at_one_of_its_addresses() {
        let (ready, unready, closed) = (region(true).await, region(false).await, closed().await);
        for (configured, others, expect) in [
            (&closed, vec![], (false, 0)),
            (&closed, vec![&closed, &unready], (false, 7)),
            (&closed, vec![&unready, &ready], (true, 7)),
            (&unready, vec![&closed, &ready], (true, 7)),
            (&ready, vec![&closed], (true, 7)),
        ] {
            let (peers, peer) = peers(configured, &others);
            peers.check(&peer).await;
            let (_, said) = peers.known(&BTreeSet::new()).remove(0);
            let applied = said.applied.get(&1).copied().unwrap_or_default();
            assert_eq!((said.ready, applied), expect, "{configured}");
        }
    }

    #[test]
    fn the_last_word_on_upstreams_counts_for_a_while() {
        let said = Readiness { ready: true, ..Readiness::default() };
        let unhealthy = Unhealthy::of(vec!["acme/own".to_owned()]);
        let interval = Duration::from_secs(10);
        let after = |age: Duration| {
            let heard = Instant::now().checked_sub(age).expect("the machine is up for longer");
            let (said, unhealthy) = (said.clone(), unhealthy.clone());
            let known = Known { said, unhealthy, heard, verdict: Verdict::new(false) };
            let (said, unhealthy) = known.readiness(interval);
            (said.ready, unhealthy.of_tenants(&BTreeSet::from(["acme"])))
        };
        // Whether it is ready, the checks say.
        assert_eq!(after(Duration::ZERO), (false, vec!["acme/own".to_owned()]));
        // Until the next check nobody can have said anything else.
        assert_eq!(after(PEER_WORD_KEEP + interval / 2).1, ["acme/own"]);
        assert!(after(PEER_WORD_KEEP + 2 * interval).1.is_empty());
    }

    #[test]
    fn an_older_origin_says_nothing_of_upstreams() {
        let said: Readiness =
            serde_json::from_str(r#"{"region":"us-east-1","ordinal":1,"ready":true,"applied":{}}"#).unwrap();
        assert!(said.unhealthy.is_empty());
        assert!(!serde_json::to_string(&said).unwrap().contains("unhealthy"));
    }
}
