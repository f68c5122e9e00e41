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

/// One case of `raw.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    send: String,
    status: ByEdge<Vec<u16>>,
    /// One of `status` comes, in the place of all.
    #[serde(default)]
    any: bool,
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
    with_recorder(stack, edge, |url, recorder| {
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
        let bytes =
            self.send.replace("{H}", "Host: acme.localhost\r\n").replace("{C}", "Connection: close\r\n");
        let (statuses, ended) = exchange(url, bytes.as_bytes())?;
        let seen = recorder.take();
        let expected = self.status.of(edge);
        let fits = if self.any {
            statuses.len() == 1 && statuses.iter().all(|status| expected.contains(status))
        } else {
            statuses == *expected
        };
        ensure!(fits, "answered {statuses:?}, expected {expected:?}");
        ensure!(ended || self.open, "the connection waits for more");
        let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
        ensure!(lines == *self.seen.of(edge), "{lines:?} reached the upstream");
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

/// Sends bytes, and reads the statuses of all answers up to the end of the connection or a long silence; says which it was.
pub fn exchange(url: &str, bytes: &[u8]) -> Result<(Vec<u16>, bool)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    // An edge may have answered and gone before all is sent.
    let _sent = stream.write_all(bytes);
    let mut read = Vec::new();
    let mut part = [0; 4096];
    let ended = loop {
        match stream.read(&mut part) {
            Ok(0) => break true,
            Ok(bytes) => read.extend_from_slice(&part[..bytes]),
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
