//! Bodies that come slowly from a client, or not whole: that is nobody's fault but the client's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};

use crate::EdgeTest;
use crate::requests::raw;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("a_slow_upload_takes_none_of_the_upstreams_time", a_slow_upload_takes_none_of_the_upstreams_time),
    ("what_breaks_off_ejects_no_region", what_breaks_off_ejects_no_region),
    ("a_client_does_not_choose_the_time", a_client_does_not_choose_the_time),
];

/// How long a slow client pauses between two parts.
const PAUSE: Duration = Duration::from_millis(300);
/// Parts of a slow body, which takes longer than the route waits for the upstream.
const PARTS: usize = 5;

/// `/up/**` and, with two regions to choose from, `/twice/**` go to the upstream, which has a second for its answer.
const RULES: &str = "---\n\
    apiVersion: meridian/v1\nkind: Upstream\nmetadata: {name: twice}\n\
    spec: {regions: {us-east-1: \"{own}\", eu-west-1: \"{own}\"}}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: up}\n\
    spec: {match: {path: \"/up/**\"}, auth: {mode: anonymous}, upstream: own, steering: {timeout: 1s}}\n---\n\
    apiVersion: meridian/v1\nkind: Route\nmetadata: {name: twice}\n\
    spec: {match: {path: \"/twice/**\"}, auth: {mode: anonymous}, upstream: twice, steering: {timeout: 1s}}\n";

fn with_uploads(stack: &Stack, edge: &str, test: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    with_rules(stack, edge, RULES, |url| {
        eventually(SEEN_MAX, || {
            Client::new(url, "acme.localhost").get("/twice/ready")?.expect(200).map(drop)
        })?;
        test(url)
    })
}

fn a_slow_upload_takes_none_of_the_upstreams_time(stack: &Stack, edge: &str) -> Result<()> {
    with_uploads(stack, edge, |url| {
        let host = "Host: acme.localhost\r\nConnection: close\r\n";
        // Short enough to be kept for another attempt, and longer than that.
        for (method, part_bytes) in [("POST", 100), ("PUT", 100), ("POST", 20_000), ("PUT", 20_000)] {
            let part = "x".repeat(part_bytes);
            let bytes = PARTS * part_bytes;
            let head = format!("{method} /up/mirror HTTP/1.1\r\n{host}Content-Length: {bytes}\r\n\r\n");
            let chunk = format!("{part_bytes:x}\r\n{part}\r\n");
            let chunked = format!("{method} /up/mirror HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
            for (head, part, end) in [(head, part, ""), (chunked, chunk, "0\r\n\r\n")] {
                let answer = slowly(url, &head, &part, end)?;
                let fits = answer.starts_with("HTTP/1.1 200")
                    && answer.to_ascii_lowercase().contains(&format!("x-bytes: {bytes}\r\n"));
                ensure!(fits, "{method} of {bytes} bytes: {:?}", answer.lines().next());
            }
        }
        // The upstream itself has no more time than before.
        let body = format!("Content-Length: {0}\r\n\r\n{1}", 100_000, "x".repeat(100_000));
        raw(url, format!("POST /up/waits HTTP/1.1\r\n{host}{body}").as_bytes())?.expect(504)?;
        Ok(())
    })
}

/// The answer to a request whose body comes in parts with pauses between.
fn slowly(url: &str, head: &str, part: &str, end: &str) -> Result<String> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.write_all(head.as_bytes())?;
    for _ in 0..PARTS {
        std::thread::sleep(PAUSE);
        stream.write_all(part.as_bytes())?;
    }
    stream.write_all(end.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn what_breaks_off_ejects_no_region(stack: &Stack, edge: &str) -> Result<()> {
    with_uploads(stack, edge, |url| {
        let client = Client::new(url, "acme.localhost");
        let region = || {
            Ok::<_, anyhow::Error>(client.get("/twice/a")?.expect(200)?.header("meridian-region").to_owned())
        };
        let before = region()?;
        // The region that answers is one of the upstream's, and not the edge itself.
        ensure!(before.contains('-'), "{before}");
        for _ in 0..8 {
            let request = "PUT /twice/mirror HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\
                           Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nno size\r\n";
            raw(url, request.as_bytes())?.expect(400)?;
        }
        let after = region()?;
        ensure!(after == before, "requests went to {before}, and go to {after}");
        Ok(())
    })
}

/// A body of which the head does not say whether there is one may let the edge wait: what it decides by is the time after that.
fn a_client_does_not_choose_the_time(stack: &Stack, edge: &str) -> Result<()> {
    let url = &stack.up()?.edges[edge];
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    let head = "DELETE /v1/whoami HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    // Where the answer comes before the body, the time of the decision is that of the head, and nobody chose it.
    stream.set_read_timeout(Some(PAUSE * 2))?;
    let mut answer = vec![0; 16 * 1024];
    let early = stream.read(&mut answer).unwrap_or(0);
    let sent_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    if early == 0 {
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(b"1\r\na\r\n0\r\n\r\n")?;
    }
    let read = if early == 0 { stream.read(&mut answer)? } else { early };
    let text = String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase();
    let decision =
        text.lines().find_map(|line| line.strip_prefix("meridian-decision: ")).context("a decision")?;
    let decided_ms = decided_at_ms(decision.trim())?;
    ensure!(early > 0 || decided_ms >= sent_ms, "decided {} ms before the body", sent_ms - decided_ms);
    Ok(())
}

/// When a decision was made, as its id says: the first 48 of 128 bits, in Crockford's base 32.
fn decided_at_ms(decision: &str) -> Result<u64> {
    let mut bits: u128 = 0;
    for letter in decision.to_ascii_uppercase().chars() {
        let digit = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(letter).context("a digit of base 32")?;
        bits = bits << 5 | u128::try_from(digit)?;
    }
    Ok(u64::try_from(bits >> 80)?)
}
