//! What an edge makes of bytes that no client of good will sends, and of what HTTP has beside requests and answers: the cases of
//! `raw.yaml`, streams and large bodies.

use std::future::ready;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meridian_tests::client::Client;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};
use serde::Deserialize;

use crate::EdgeTest;
use crate::recorder::{self, Recorder, Seen};
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("reads_odd_bytes_in_one_way_or_refuses_them", reads_odd_bytes_in_one_way_or_refuses_them),
    ("ends_trailers_of_both_sides", ends_trailers_of_both_sides),
    ("passes_events_and_large_uploads", passes_events_and_large_uploads),
];

/// How long a connection may stay silent before it counts as waiting for more.
const SILENCE: Duration = Duration::from_secs(5);

/// Rules with routes that the edge answers by itself: 401, 413 (411 where no length is told), 301 and 429.
const ANSWERED_BY_THE_EDGE: &str = "---\n\
    apiVersion: meridian/v1\nkind: Security\nmetadata: {name: small}\nspec: {limits: {bodyBytes: 10}}\n---\n\
    apiVersion: meridian/v1\nkind: Transform\nmetadata: {name: moved}\n\
    spec: {redirect: {status: 301, location: \"/seen/moved\"}}\n---\n\
    apiVersion: meridian/v1\nkind: RateLimit\nmetadata: {name: never}\n\
    spec: {key: [tenant], quota: 1, window: 1h, scope: node, cost: {cel: 'size(request.method)'}}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: closed}\n\
    spec: {match: {path: \"/closed/**\"}, upstream: recorder}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: small}\n\
    spec: {match: {path: \"/small/**\"}, auth: {mode: anonymous}, security: [small], upstream: recorder}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: moved}\n\
    spec: {match: {path: \"/moved/**\"}, auth: {mode: anonymous}, transforms: [moved], upstream: recorder}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: busy}\n\
    spec: {match: {path: \"/busy/**\"}, auth: {mode: anonymous}, limits: [never], upstream: recorder}\n";

/// A request that stands where a body is: nobody may answer it.
const SMUGGLED: &str = "GET /seen/smuggled HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\r\n";
/// More than an edge reads of what is beside the content of a body.
const LONG_BYTES: usize = 20_000;

/// One case of `raw.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    send: String,
    /// What is sent when something of an answer has come.
    #[serde(default)]
    later: String,
    status: ByEdge<Vec<u16>>,
    /// One of `status` comes, in the place of all.
    #[serde(default)]
    any: bool,
    /// The connection may end before all is answered.
    #[serde(default)]
    fewer: bool,
    /// The connection stays open after the answer.
    #[serde(default)]
    open: bool,
    seen: ByEdge<Vec<String>>,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
}

/// What is so at both edges, or at each in its own way.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ByEdge<T> {
    Each { cloudflare: T, spin: T },
    Both(T),
}

impl<T> ByEdge<T> {
    pub fn of(&self, edge: &str) -> &T {
        match self {
            Self::Both(both) => both,
            Self::Each { cloudflare, .. } if edge == "cloudflare" => cloudflare,
            Self::Each { spin, .. } => spin,
        }
    }
}

/// Rules that send `/seen/**` and, through the cache, `/kept/**` to a recorder, for the time of the test.
pub fn with_recorder(
    stack: &Stack,
    edge: &str,
    test: impl FnOnce(&str, &Recorder) -> Result<()>,
) -> Result<()> {
    with_recorder_and(stack, edge, "", test)
}

/// The same with more rules, which may name the recorder and the policy `kept`.
pub fn with_recorder_and(
    stack: &Stack,
    edge: &str,
    more: &str,
    test: impl FnOnce(&str, &Recorder) -> Result<()>,
) -> Result<()> {
    let recorder = Recorder::start()?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: recorder}}\n\
         spec: {{regions: {{us-east-1: \"{}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {{name: kept}}\nspec: {{}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: seen}}\n\
         spec: {{match: {{path: \"/seen/**\"}}, auth: {{mode: anonymous}}, upstream: recorder}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: account}}\n\
         spec: {{match: {{path: \"/account/**\"}}, auth: {{mode: optional}}, cache: kept, upstream: recorder}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: kept}}\n\
         spec: {{match: {{path: \"/kept/**\"}}, auth: {{mode: anonymous}}, cache: kept, upstream: recorder}}\n{more}",
        recorder.url
    );
    with_rules(stack, edge, &rules, |url| {
        eventually(SEEN_MAX, || {
            Client::new(url, "acme.localhost").get("/seen/ready")?.expect(200).map(drop)
        })?;
        recorder.take();
        test(url, &recorder)
    })
}

fn reads_odd_bytes_in_one_way_or_refuses_them(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("raw.yaml")).context("in raw.yaml")?;
    ensure!(cases.len() > 50, "only {} cases", cases.len());
    with_recorder_and(stack, edge, ANSWERED_BY_THE_EDGE, |url, recorder| {
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let outcome = case.run(edge, url, recorder);
                outcome.err().map(|error| format!("{}: {error:#}", case.about))
            })
            .collect();
        ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        Ok(())
    })
}

impl Case {
    fn run(&self, edge: &str, url: &str, recorder: &Recorder) -> Result<()> {
        let (send, later) = (expand(&self.send), expand(&self.later));
        let (statuses, ended) = exchange_in_turn(url, send.as_bytes(), later.as_bytes())?;
        let seen = recorder.take();
        let expected = self.status.of(edge);
        let fits = if self.any {
            statuses.len() == 1 && statuses.iter().all(|status| expected.contains(status))
        } else if self.fewer {
            !statuses.is_empty() && expected.starts_with(&statuses)
        } else {
            statuses == *expected
        };
        ensure!(fits, "answered {statuses:?}, expected {expected:?}");
        ensure!(ended || self.open, "the connection waits for more");
        let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
        let expected: Vec<String> =
            self.seen.of(edge).iter().map(|line| expand(line).trim_end().to_owned()).collect();
        let fits = if self.fewer {
            lines.len() <= expected.len() && lines.iter().zip(&expected).all(|(line, other)| line == other)
        } else {
            lines == expected
        };
        ensure!(fits, "{lines:?} reached the upstream, expected {expected:?}");
        let heads: String = seen.iter().map(|request| request.head.as_str()).collect();
        for word in &self.with {
            ensure!(heads.contains(word), "{word:?} is missing from {heads:?}");
        }
        for word in &self.without {
            ensure!(!heads.contains(word), "{word:?} is in {heads:?}");
        }
        Ok(())
    }
}

/// What is written between braces in `raw.yaml`, written out.
fn expand(text: &str) -> String {
    text.replace("{H}", "Host: acme.localhost\r\n")
        .replace("{C}", "Connection: close\r\n")
        .replace("{S}", SMUGGLED)
        .replace("{N}", &SMUGGLED.len().to_string())
        .replace("{X}", &format!("{:x}", SMUGGLED.len()))
        .replace("{L}", &"a".repeat(LONG_BYTES))
}

/// Sends bytes, and reads the statuses of all answers up to the end of the connection or a long silence; says which it was.
pub fn exchange(url: &str, bytes: &[u8]) -> Result<(Vec<u16>, bool)> {
    exchange_in_turn(url, bytes, &[])
}

/// The same with more bytes, which are sent when something of an answer has come.
fn exchange_in_turn(url: &str, bytes: &[u8], mut later: &[u8]) -> Result<(Vec<u16>, bool)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    // An edge may have answered and gone before all is sent.
    let _sent = stream.write_all(bytes);
    let mut read = Vec::new();
    let mut part = [0; 4096];
    let ended = loop {
        match stream.read(&mut part) {
            Ok(0) => break true,
            Ok(bytes) => {
                read.extend_from_slice(&part[..bytes]);
                let _sent = stream.write_all(std::mem::take(&mut later));
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
            Err(_) => break false,
        }
    };
    let text = String::from_utf8_lossy(&read);
    let after = text.split("HTTP/1.1 ").skip(1);
    let statuses = after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect();
    Ok((statuses, ended))
}

/// Neither the upstream gets the client's trailers, nor the client the upstream's: over HTTP/2, which takes them without a field
/// that names them first, and over HTTP/1.1.
fn ends_trailers_of_both_sides(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, recorder| {
        let head = "POST /seen/trailers HTTP/1.1\r\nHost: acme.localhost\r\nTE: trailers\r\nTrailer: X-T\r\n\
                    Connection: close, TE\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "3\r\nabc\r\n0\r\nX-T: 1\r\nMeridian-Context: forged\r\n\r\n";
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200 ") && !text.to_lowercase().contains("x-sum"), "{text}");
        has_no_trailers(recorder)?;
        if edge == "cloudflare" {
            return Ok(());
        }
        // With a length a body goes through the component without being looked at, and without one it does not.
        for length in [None, Some("3")] {
            let answer = with_trailers(url, length).with_context(|| format!("over HTTP/2, {length:?}"))?;
            ensure!(answer.trailers().is_none(), "{:?} came over HTTP/2, {length:?}", answer.trailers());
            ensure!(answer.to_bytes() == "ok", "another body, {length:?}");
            has_no_trailers(recorder)?;
        }
        Ok(())
    })
}

fn has_no_trailers(recorder: &Recorder) -> Result<()> {
    let seen = recorder.take();
    let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
    ensure!(lines == ["POST /seen/trailers abc"], "{lines:?} reached the upstream");
    let has_any = |request: &Seen| ["x-t:", "forged"].iter().any(|word| request.head.contains(word));
    ensure!(!seen.iter().any(has_any), "{seen:?}");
    Ok(())
}

/// What comes of a request with trailers over cleartext HTTP/2.
fn with_trailers(url: &str, length: Option<&str>) -> Result<Collected<Bytes>> {
    let named = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let trailers: HeaderMap = [("x-t", "1"), ("meridian-context", "forged")].into_iter().map(named).collect();
    let body = Full::new(Bytes::from_static(b"abc")).with_trailers(ready(Some(Ok(trailers))));
    let mut request = Request::post("http://acme.localhost/seen/trailers").header("te", "trailers");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let request = request.body(body)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        ensure!(response.status() == 200, "{response:?}");
        Ok(response.into_body().collect().await?)
    })
}

/// Events come as they are sent; an upload of many megabytes passes whole.
fn passes_events_and_large_uploads(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, recorder| {
        let head = "GET /seen/events HTTP/1.1\r\nHost: acme.localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(SILENCE * 3))?;
        stream.write_all(head.as_bytes())?;
        let mut text = String::new();
        let mut part = [0; 4096];
        while !text.contains("data: 1") {
            let read = stream.read(&mut part)?;
            ensure!(read > 0, "no event: {text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        Client::new(url, "acme.localhost").get("/seen/go")?.expect(200)?;
        stream.read_to_string(&mut text)?;
        ensure!(text.contains("data: 2") && text.contains("text/event-stream"), "{text}");
        recorder.take();
        uploads(url)
    })
}

/// 32 MiB that are different everywhere.
pub fn large_body() -> Vec<u8> {
    (0..32 * 1024 * 1024_u32).map(|at| b'a' + (at.wrapping_mul(31) >> 7) as u8 % 26).collect()
}

/// A large body, byte for byte.
fn uploads(url: &str) -> Result<()> {
    let body = large_body();
    let digest = recorder::digest(&body);
    let client = Client::new(url, "acme.localhost");
    let response = client.request("PUT", "/seen/count", Some(body))?.expect(200)?;
    ensure!(response.header("x-digest") == digest, "{}", response.text());
    Ok(())
}
