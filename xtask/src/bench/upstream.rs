//! The server behind all edges: answers at once, always the same. Its processor time is this program's own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use crate::report;

/// Bytes of a request's head; the benchmark's are far below.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Lengths of the bodies that are cached: of `/cached/64-kilobytes`, and of all else below `/cached/`.
pub const CACHED_LARGE_BYTES: usize = 64 * 1024;
/// See [`CACHED_LARGE_BYTES`].
pub const CACHED_BYTES: usize = 1024;

/// The running server.
pub struct Upstream {
    /// Its base URL.
    pub url: String,
    /// Its port.
    pub port: u16,
    served: Arc<AtomicU64>,
}

impl Upstream {
    /// Listens on a port of 127.0.0.1 (0: any that is free) until this program ends.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("port {port} is taken; choose another with --port"))?;
        let port = listener.local_addr()?.port();
        let served = Arc::new(AtomicU64::new(0));
        let upstream = Self { url: format!("http://127.0.0.1:{port}"), port, served: Arc::clone(&served) };
        // When it started: caches want a date, and none of the benchmark's answers gets stale.
        let date =
            report::first_line(Command::new("date").args(["-u", "+%a, %d %b %Y %T GMT"]).env("LC_ALL", "C"));
        let date: Arc<str> = date.into();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, date) = (Arc::clone(&served), Arc::clone(&date));
                // A connection that breaks is opened anew by whoever needs it.
                std::thread::spawn(move || serve(stream, &date, &served));
            }
        });
        Ok(upstream)
    }

    /// Requests that were answered so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// What the events of a peer are answered with.
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Answers the requests of one connection, one after the other. None has a body but a `POST`: the events of a peer, which are
/// not counted as requests, and what is uploaded. What is asked for as `…/head` is the head of the request itself.
fn serve(mut stream: TcpStream, date: &str, served: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let response =
        |content_type, cache_control, body: &[u8]| response(date, content_type, cache_control, body);
    let plain = response(
        "application/json",
        "no-store",
        br#"{"records":[{"id":"0199f0a2-6c1e-7e51-9d5c-3a1f0e5b7c42","item":"tea"}],"next":null}"#,
    );
    let cacheable = |bytes| response("application/octet-stream", "public, max-age=3600", &vec![b'x'; bytes]);
    let (cached, cached_large) = (cacheable(CACHED_BYTES), cacheable(CACHED_LARGE_BYTES));
    let mut buffer = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = head_end(&buffer[..filled]) {
            if buffer.starts_with(b"POST ") {
                let head = &buffer[..end];
                drain(head, &buffer[end..filled], &stream)?;
                let is_events = path(head) == b"/events";
                served.fetch_add(u64::from(!is_events), Ordering::Relaxed);
                stream.write_all(if is_events { NO_CONTENT } else { &plain })?;
                filled = 0;
                continue;
            }
            served.fetch_add(1, Ordering::Relaxed);
            match path(&buffer[..end]) {
                path if path.starts_with(b"/cached/64-") => stream.write_all(&cached_large)?,
                path if path.starts_with(b"/cached/") => stream.write_all(&cached)?,
                path if path.ends_with(b"/head") => {
                    stream.write_all(&response("text/plain", "no-store", &buffer[..end]))?;
                }
                _ => stream.write_all(&plain)?,
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// Reads a body to its end: of so many bytes, or in chunks (RFC 9112, section 7.1). The next request comes after the answer.
fn drain(head: &[u8], begun: &[u8], stream: &TcpStream) -> std::io::Result<()> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut body = BufReader::new(begun.chain(stream));
    if field("transfer-encoding:").is_none() {
        let length: u64 = field("content-length:").and_then(|value| value.parse().ok()).unwrap_or_default();
        std::io::copy(&mut body.take(length), &mut std::io::sink())?;
        return Ok(());
    }
    loop {
        let mut line = String::new();
        body.read_line(&mut line)?;
        let bytes = line.split(';').next().unwrap_or_default().trim();
        let bytes = u64::from_str_radix(bytes, 16).map_err(std::io::Error::other)?;
        // With the end of its line.
        std::io::copy(&mut body.by_ref().take(bytes.saturating_add(2)), &mut std::io::sink())?;
        if bytes == 0 {
            return Ok(());
        }
    }
}

/// The path of a request, with its query.
fn path(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

fn response(date: &str, content_type: &str, cache_control: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-type: {content_type}\r\ncache-control: {cache_control}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::http::Request;

    #[test]
    fn requests_in_one_write_are_answered_one_by_one() {
        let upstream = Upstream::start(0).unwrap();
        let url = &upstream.url;
        assert_eq!(Request::get(&format!("{url}/cached/a")).send().unwrap().body.len(), CACHED_BYTES);
        let large = Request::get(&format!("{url}/cached/64-kilobytes")).send().unwrap();
        assert_eq!(large.body.len(), CACHED_LARGE_BYTES);
        let head = Request::get(&format!("{url}/full/head")).header("x-edge", "bench").send().unwrap();
        assert!(head.body.starts_with("GET /full/head HTTP/1.1\r\n") && head.body.contains("x-edge: bench"));
        let events = serde_json::Value::String("e".repeat(3 * HEAD_BYTES_MAX));
        assert_eq!(Request::post(&format!("{url}/events"), &events).send().unwrap().status, 204);
        let mut stream = TcpStream::connect(("127.0.0.1", upstream.port)).unwrap();
        let chunks = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n";
        stream.write_all(chunks.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"GET /open/a HTTP/1.1\r\n\r\nGET /open/b HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("/1.1 200 OK").count(), 3);
        assert_eq!(upstream.served(), 6);
    }
}
