//! Caddy in front of an edge, as `infra/caddy/Caddyfile` has it: TLS 1.3 alone, HTTP/1.1, HTTP/2 and HTTP/3; and TLS to upstreams.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meridian_tests::client::Client;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually, tool};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
};
use serde::Deserialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::EdgeTest;
use crate::bad_bundles::port;
use crate::frames::{self, Answer};
use crate::recorder::{Recorder, Seen};
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("is_reached_by_every_http_behind_tls", is_reached_by_every_http_behind_tls),
    ("gets_one_request_for_one_behind_tls", gets_one_request_for_one_behind_tls),
    (
        "sends_nothing_to_an_upstream_that_nobody_vouches_for",
        sends_nothing_to_an_upstream_that_nobody_vouches_for,
    ),
];

/// How long Caddy may take to make its authority and to serve.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// From where the clients come.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const FORGED: &str = "203.0.113.10";
const HOST: &str = "acme.localhost";

/// A Caddy that the test started; ended when dropped.
pub struct Front {
    child: Child,
    address: SocketAddr,
    roots: Arc<RootCertStore>,
}

impl Drop for Front {
    fn drop(&mut self) {
        // It keeps nothing that has to be written first.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Front {
    fn start(edge: &str, origin: &str, port: u16, data: &Path) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let log = std::fs::File::create(data.join("caddy.log"))?;
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/caddy/Caddyfile");
        let child = Command::new(tool("MERIDIAN_CADDY")?)
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(config)
            .env("XDG_DATA_HOME", data)
            .env("XDG_CONFIG_HOME", data)
            .env("MERIDIAN_SITES", format!("https://*.localhost:{port}"))
            .env("MERIDIAN_EDGE", edge.trim_start_matches("http://"))
            .env("MERIDIAN_TLS_ASK", format!("{origin}/edge/v1/tls/ask"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start Caddy")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut front = Self { child, address, roots: Arc::new(RootCertStore::empty()) };
        let root = data.join("caddy/pki/authorities/local/root.crt");
        eventually(READY_MAX, || {
            std::net::TcpStream::connect(address)?;
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&root)?)?;
            front.roots = Arc::new(roots);
            Ok(())
        })
        .with_context(|| std::fs::read_to_string(data.join("caddy.log")).unwrap_or_default())?;
        Ok(front)
    }

    /// What a client offers: one version of TLS, one protocol in it.
    fn offer(&self, version: &'static SupportedProtocolVersion, protocol: &[u8]) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version])?;
        let mut config = config.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    async fn connect(&self, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
        self.connect_as(HOST, config).await
    }

    async fn connect_as(&self, host: &'static str, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((CLIENT, 0).into())?;
        let stream = socket.connect(self.address).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?)
    }

    /// The host that it serves, with its port.
    pub fn authority(&self) -> String {
        format!("{HOST}:{}", self.address.port())
    }

    /// A `GET` that says of the client what is not so.
    pub fn request<B>(&self, path: &str, body: B) -> Result<Request<B>> {
        let url = format!("https://{}{path}", self.authority());
        let request = Request::get(url).header("x-forwarded-for", FORGED).header("x-forwarded-proto", "http");
        Ok(request.header("forwarded", format!("for={FORGED}")).body(body)?)
    }

    async fn http1(&self) -> Result<Response<Bytes>> {
        let stream = self.connect(self.offer(&rustls::version::TLS13, b"http/1.1")?).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = self.request("/tls/1", Empty::<Bytes>::new())?;
        // A target without its authority, and the host in a field (RFC 9112, section 3.2.1).
        request.headers_mut().insert("host", self.authority().parse()?);
        *request.uri_mut() = "/tls/1".parse()?;
        whole(sender.send_request(request).await?).await
    }

    async fn http2(&self) -> Result<Response<Bytes>> {
        let mut sender = self.over_http2().await?;
        whole(sender.send_request(self.request("/tls/2", Full::default())?).await?).await
    }

    /// What sends requests on a connection of its own, within the runtime that this is asked in.
    pub async fn over_http2(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = self.connect(self.offer(&rustls::version::TLS13, b"h2")?).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn http3(&self) -> Result<Response<Bytes>> {
        self.over_http3(self.request("/tls/3", ())?, Bytes::new()).await
    }

    async fn over_http3(&self, request: Request<()>, content: Bytes) -> Result<Response<Bytes>> {
        let config = QuicClientConfig::try_from(self.offer(&rustls::version::TLS13, b"h3")?)?;
        let mut endpoint = quinn::Endpoint::client((CLIENT, 0).into())?;
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        let connection = endpoint.connect(self.address, HOST)?.await?;
        let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        let driven = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        let mut stream = sender.send_request(request).await?;
        if !content.is_empty() {
            stream.send_data(content).await?;
        }
        stream.finish().await?;
        let response = stream.recv_response().await?;
        let mut body = Vec::new();
        while let Some(mut part) = stream.recv_data().await? {
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        driven.abort();
        Ok(response.map(|()| Bytes::from(body)))
    }

    /// A connection on which nothing of this protocol is said yet.
    pub fn stream(&self, protocol: &[u8]) -> Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
        let config = self.offer(&rustls::version::TLS13, protocol)?;
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST)?)?;
        let stream = std::net::TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(StreamOwned::new(connection, stream))
    }
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>> {
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
}

/// Caddy in front of an edge that forwards `/tls/**` to a recorder, for the time of the test.
pub fn with_front(
    stack: &Stack,
    edge: &str,
    test: impl FnOnce(&Front, &Recorder) -> Result<()>,
) -> Result<()> {
    let recorder = Recorder::start()?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: recorder}}\n\
         spec: {{regions: {{us-east-1: \"{}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: tls}}\n\
         spec: {{match: {{path: \"/tls/**\"}}, auth: {{mode: anonymous}}, upstream: recorder}}\n",
        recorder.url
    );
    with_rules(stack, edge, &rules, |url| {
        let origin = stack.up()?.control.url;
        let front =
            Front::start(url, &origin, port(edge)? + 10, &stack.data().join(format!("caddy-{edge}")))?;
        test(&front, &recorder)
    })
}

fn is_reached_by_every_http_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    with_front(stack, edge, |front, recorder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let responses = [
                front.http1().await.context("HTTP/1.1")?,
                front.http2().await.context("HTTP/2")?,
                front.http3().await.context("HTTP/3")?,
            ];
            let seen = recorder.take();
            let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
            ensure!(lines == ["GET /tls/1", "GET /tls/2", "GET /tls/3"], "{lines:?}");
            for (response, request) in responses.iter().zip(&seen) {
                ensure!(response.status() == 200, "{}: {response:?}", request.line);
                is_told_who_asks(response.headers(), &request.head).context(request.line.clone())?;
            }
            // Whoever comes otherwise hears that HTTP/3 is there (RFC 7838).
            let offered = responses.iter().take(2).filter_map(|response| response.headers().get("alt-svc"));
            ensure!(offered.filter(|it| it.as_bytes().starts_with(b"h3=")).count() == 2, "{responses:?}");
            let old = front.offer(&rustls::version::TLS12, b"http/1.1")?;
            match front.connect(old).await {
                Err(error) if error.to_string().contains("ProtocolVersion") => {}
                other => bail!("TLS 1.2 came to {other:?}"),
            }
            // Nobody has a certificate for a name that is nobody's.
            let nobody = front.offer(&rustls::version::TLS13, b"http/1.1")?;
            match front.connect_as("nobody.localhost", nobody).await {
                Err(error) if error.to_string().contains("InternalError") => Ok(()),
                other => bail!("a name that is nobody's came to {other:?}"),
            }
        })
    })
}

/// The edge knows the client by its own address, whatever it says of that, and that it came by TLS.
fn is_told_who_asks(headers: &HeaderMap, head: &str) -> Result<()> {
    ensure!(headers.contains_key("meridian-decision"), "{headers:?}");
    for line in [
        format!("\r\nx-forwarded-for: {CLIENT}\r\n"),
        "\r\nx-forwarded-proto: https\r\n".to_owned(),
        format!("\r\nforwarded: for={CLIENT};host=\"{HOST}\";proto=https\r\n"),
    ] {
        ensure!(head.contains(&line), "{line:?} is missing from {head:?}");
    }
    ensure!(!head.contains(FORGED), "the forged address went on: {head:?}");
    Ok(())
}

/// One case of `tls.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default)]
    first: Vec<(String, String)>,
    #[serde(default)]
    instead: Vec<(String, String)>,
    #[serde(default)]
    with: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    reaches: Reaches,
    /// No word of its head, beside `evil`.
    without: Option<String>,
}

/// Whether a request reaches the upstream.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Reaches {
    Never,
    May,
    Once,
}

/// What reached the upstream is looked at behind all cases: a request that Caddy has given up may still be on its way.
fn gets_one_request_for_one_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("tls.yaml")).context("in tls.yaml")?;
    ensure!(cases.len() > 40, "only {} cases", cases.len());
    with_front(stack, edge, |front, recorder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let over_http2 = case.over_http2(front, number).context("over HTTP/2");
            // The same path would count twice.
            let over_http3 = match case.as_request(front, cases.len() + number) {
                Some(request) => {
                    let answer = front.over_http3(request, Bytes::from(case.body.clone()));
                    let status = runtime.block_on(answer).ok().map(|answer| answer.status().as_u16());
                    case.fits(status == Some(200)).context("over HTTP/3")
                }
                None => Ok(()),
            };
            let errors = [over_http2.err(), over_http3.err()].into_iter().flatten();
            wrong.extend(errors.map(|error| format!("{}: {error:#}", case.about)));
        }
        let first = cases.first().context("a case that is right")?;
        first.over_http2(front, 2 * cases.len()).context("behind all of them")?;
        let seen = recorder.take();
        for (number, case) in cases.iter().enumerate() {
            for number in [number, cases.len() + number] {
                let error = case.reached(number, &seen).err();
                wrong.extend(error.map(|error| format!("{}: {error:#}", case.about)));
            }
        }
        let smuggled = seen.iter().filter(|request| request.target().contains("smuggled")).count();
        ensure!(smuggled == 0, "{smuggled} requests were smuggled: {seen:?}");
        ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        Ok(())
    })
}

impl Case {
    fn over_http2(&self, front: &Front, number: usize) -> Result<()> {
        let authority = front.authority();
        let filled = |text: &str| text.replace("{N}", &number.to_string()).replace("{A}", &authority);
        let pseudo =
            [(":method", "POST"), (":scheme", "https"), (":authority", "{A}"), (":path", "/tls/{N}")];
        let pseudo = pseudo.map(|(name, value)| {
            let other = self.instead.iter().find(|(replaced, _)| replaced == name);
            (name.to_owned(), filled(other.map_or(value, |(_, other)| other.as_str())))
        });
        let fields: Vec<(String, String)> =
            self.first.iter().chain(&pseudo).chain(&self.with).cloned().collect();
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = frames::send_over(&mut front.stream(b"h2")?, &fields, self.body.as_bytes())?;
        self.fits(answer == Answer::Success).with_context(|| format!("{answer:?}"))
    }

    /// The same request as HTTP's types have it, where they can.
    fn as_request(&self, front: &Front, number: usize) -> Option<Request<()>> {
        if !(self.first.is_empty() && self.instead.is_empty()) {
            return None;
        }
        let url = format!("https://{}/tls/{number}", front.authority());
        let begun = Request::post(url);
        let fields = self.with.iter();
        fields
            .fold(begun, |request, (name, value)| request.header(name.as_str(), value.as_str()))
            .body(())
            .ok()
    }

    fn fits(&self, succeeds: bool) -> Result<()> {
        match self.reaches {
            Reaches::Never => ensure!(!succeeds, "it was answered with 200"),
            Reaches::Once => ensure!(succeeds, "it was not answered with 200"),
            Reaches::May => {}
        }
        Ok(())
    }

    /// How often, and as what, the request of this number reached the upstream.
    fn reached(&self, number: usize, seen: &[Seen]) -> Result<()> {
        let path = format!("/tls/{number}");
        let is_it = |request: &&Seen| {
            let behind = request.target().strip_prefix(path.as_str());
            behind.is_some_and(|behind| !behind.starts_with(|next: char| next.is_ascii_digit()))
        };
        let reached: Vec<&Seen> = seen.iter().filter(is_it).collect();
        let times_max = usize::from(self.reaches != Reaches::Never);
        ensure!(reached.len() <= times_max, "it reached the upstream {} times", reached.len());
        for request in reached {
            let mut words = ["evil"].into_iter().chain(self.without.as_deref());
            ensure!(!words.any(|word| request.head.contains(word)), "{:?}", request.head);
        }
        Ok(())
    }
}

/// What came of each handshake: nothing was wrong, or what the client said of it.
type Handshakes = Arc<Mutex<Vec<Result<(), rustls::Error>>>>;

/// A server whose certificate is signed by itself; says its port and what comes of each handshake. It ends with the process.
fn self_signed() -> Result<(u16, Handshakes)> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (port, handshakes) = (listener.local_addr()?.port(), Handshakes::default());
    let seen = Arc::clone(&handshakes);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let outcome = handshake(&config, stream);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
    });
    Ok((port, handshakes))
}

fn handshake(config: &Arc<ServerConfig>, mut stream: std::net::TcpStream) -> Result<(), rustls::Error> {
    let mut connection = ServerConnection::new(Arc::clone(config))?;
    let said = |error: std::io::Error| match error.get_ref().and_then(|said| said.downcast_ref()) {
        Some(said) => rustls::Error::clone(said),
        None => rustls::Error::General(error.to_string()),
    };
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(said)?;
    }
    // In TLS 1.3 the client judges the certificate after that, and says so with what it sends next.
    connection.complete_io(&mut stream).map(drop).map_err(said)
}

fn sends_nothing_to_an_upstream_that_nobody_vouches_for(stack: &Stack, edge: &str) -> Result<()> {
    let (port, handshakes) = self_signed()?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: unknown}}\n\
         spec: {{regions: {{us-east-1: \"https://localhost:{port}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: unknown}}\n\
         spec: {{match: {{path: /unknown}}, auth: {{mode: anonymous}}, upstream: unknown}}\n"
    );
    with_rules(stack, edge, &rules, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || client.get("/unknown")?.expect(502).map(drop))?;
        // The client may have its answer before the server has noted how the handshake went.
        let noted = || handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        eventually(SEEN_MAX, || {
            ensure!(!noted().is_empty(), "no handshake is noted");
            Ok(())
        })?;
        let handshakes = noted();
        // One edge says why, the other just leaves.
        let left = if edge == "cloudflare" { Some("unexpected end of file") } else { None };
        let refuses = |outcome: &Result<(), rustls::Error>| match outcome {
            Err(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => true,
            Err(rustls::Error::General(why)) => Some(why.as_str()) == left,
            _ => false,
        };
        ensure!(handshakes.iter().all(refuses), "{handshakes:?}");
        Ok(())
    })
}
