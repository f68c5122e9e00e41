//! What Caddy in front of an edge passes as it comes: events, the word that a body may follow, and bodies of many megabytes.

use std::io::{Read, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use meridian_tests::stack::Stack;
use tokio::time::timeout;

use crate::EdgeTest;
use crate::recorder;
use crate::requests::begin_over;
use crate::surface::large_body;
use crate::tls::{Front, with_front};

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("passes_events_behind_tls", passes_events_behind_tls),
    ("says_continue_before_the_body_behind_tls", says_continue_before_the_body_behind_tls),
    ("passes_large_uploads_behind_tls", passes_large_uploads_behind_tls),
];

/// How long all events, or a large upload, may take.
const PASSED_MAX: Duration = Duration::from_secs(60);

/// The upstream sends the second event once a client says that it has the first.
fn passes_events_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    with_front(stack, edge, |front, recorder| {
        events_over_http1(front).context("over HTTP/1.1")?;
        // What was said is said: the next ones wait for another word.
        recorder.take();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let events = runtime.block_on(async { timeout(PASSED_MAX, events_over_http2(front)).await });
        events.context("no event in time over HTTP/2")?.context("over HTTP/2")
    })
}

fn events_over_http1(front: &Front) -> Result<()> {
    let mut stream = front.stream(b"http/1.1")?;
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: acme.localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        )
    };
    stream.write_all(get("/tls/events").as_bytes())?;
    let mut text = String::new();
    read_until("data: 1", &mut stream, &mut text)?;
    ensure!(!text.contains("data: 2"), "{text}");
    let told = begin_over(&mut front.stream(b"http/1.1")?, get("/tls/go").as_bytes())?;
    ensure!(told.status == 200, "{told:?}");
    read_until("data: 2", &mut stream, &mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200 ") && text.contains("text/event-stream"), "{text}");
    Ok(())
}

/// Reads on until this word is there.
fn read_until(word: &str, stream: &mut impl Read, text: &mut String) -> Result<()> {
    let mut part = [0; 4096];
    while !text.contains(word) {
        let read =
            stream.read(&mut part).with_context(|| format!("{word:?} does not come behind {text:?}"))?;
        ensure!(read > 0, "{word:?} is missing from {text:?}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    Ok(())
}

async fn events_over_http2(front: &Front) -> Result<()> {
    let mut sender = front.over_http2().await?;
    let response = sender.send_request(front.request("/tls/events", Full::default())?).await?;
    ensure!(response.status() == 200, "{response:?}");
    let mut body = response.into_body();
    let mut text = String::new();
    let mut is_told = false;
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&data));
        if text.contains("data: 1") && !is_told {
            ensure!(!text.contains("data: 2"), "{text}");
            let told = sender.send_request(front.request("/tls/go", Full::default())?).await?;
            ensure!(told.status() == 200, "{told:?}");
            is_told = true;
        }
    }
    ensure!(is_told && text.contains("data: 2"), "{text}");
    Ok(())
}

/// RFC 9110, section 10.1.1. Servers on the way may each say it.
fn says_continue_before_the_body_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    with_front(stack, edge, |front, recorder| {
        let mut stream = front.stream(b"http/1.1")?;
        let head = "POST /tls/expect HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\
                    Expect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        let mut text = String::new();
        read_until("HTTP/1.1 100 ", &mut stream, &mut text)?;
        stream.write_all(b"abc")?;
        read_until("HTTP/1.1 200 ", &mut stream, &mut text)?;
        let seen = recorder.take();
        let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
        ensure!(lines == ["POST /tls/expect abc"], "{lines:?}");
        ensure!(!seen[0].head.contains("\r\nexpect:"), "{:?}", seen[0].head);
        Ok(())
    })
}

/// Over HTTP/2, byte for byte.
fn passes_large_uploads_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    with_front(stack, edge, |front, _| {
        let body = large_body();
        let digest = recorder::digest(&body);
        let mut request = front.request("/tls/upload", Full::new(Bytes::from(body)))?;
        *request.method_mut() = Method::PUT;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sent = runtime.block_on(async {
            let mut sender = front.over_http2().await?;
            let sent = timeout(PASSED_MAX, sender.send_request(request)).await;
            anyhow::Ok(sent.context("no answer in time")??)
        });
        let response = sent?;
        ensure!(response.status() == 200, "{response:?}");
        let came = response.headers().get("x-digest").context("a digest")?.to_str()?;
        ensure!(came == digest, "{came} came in the place of {digest}");
        Ok(())
    })
}
