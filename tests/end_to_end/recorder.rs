//! An HTTP service that writes down every request that reaches it, connection by connection, as RFC 9112 has it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use meridian_tests::serve::serve;
use meridian_wire::encoding::hex;

use crate::sockets;

/// Bytes of a line of a head, and of a body.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a response that is longer than what the systems between hold of it.
pub const LONG_BYTES: usize = 64 * 1024 * 1024;
/// Numbers the answers.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line, header fields and trailers, in lower case.
    pub head: String,
    /// `METHOD TARGET BODY`, the beginning of the body without its coding.
    pub line: String,
}

impl Seen {
    /// Path and query.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The service. It speaks WebSocket at `/…/socket`, and answers everything else with 200, or the status that `x-provoke` asks
/// for, and a text that is different each time and names what the request says of its host, method and path beside its head.
/// The digest of the request's body is in `x-digest`, and what is answered below `/kept` and `/account` may be kept for a minute.
pub struct Recorder {
    /// Where it is.
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    /// Starts it; it ends with the process.
    pub fn start() -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&seen);
        // What breaks off was no request.
        Ok(Self { url: serve(move |stream| record(&stream, &written))?, seen })
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn record(stream: &TcpStream, seen: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.by_ref().take(BYTES_MAX).read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let key = sockets::key(&head);
        let head = head.to_ascii_lowercase();
        let (body, trailers) = body(&mut reader, &head)?;
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let shown: String = body.chars().take(100).collect();
            let line = format!("{} {target} {shown}", method.to_ascii_uppercase());
            seen.push(Seen { head: format!("{head}{trailers}"), line: line.trim_end().to_owned() });
            NUMBER.fetch_add(1, Ordering::Relaxed)
        };
        if let Some(key) = key.filter(|_| target.ends_with("/socket")) {
            return sockets::echo(stream, &mut reader, &key);
        }
        answer(stream, &head, target, (number, body.as_str()), seen)?;
    }
}

/// The body of a request without its coding, and its trailers in lower case.
fn body(reader: &mut BufReader<&TcpStream>, head: &str) -> std::io::Result<(String, String)> {
    let mut body = Vec::new();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        loop {
            let mut size = String::new();
            reader.by_ref().take(BYTES_MAX).read_line(&mut size)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(std::io::Error::other)?;
            if size == 0 {
                return Ok((String::from_utf8_lossy(&body).into_owned(), trailers(reader)?));
            }
            let mut part = vec![0; usize::try_from(size.min(BYTES_MAX)).unwrap_or(0)];
            reader.read_exact(&mut part)?;
            body.extend(part);
            reader.read_line(&mut String::new())?;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: u64 = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length.min(BYTES_MAX)).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((String::from_utf8_lossy(&body).into_owned(), String::new()))
}

/// What stands between the last chunk and the empty line behind it (RFC 9112, section 7.1.2).
fn trailers(reader: &mut BufReader<&TcpStream>) -> std::io::Result<String> {
    let mut trailers = String::new();
    loop {
        let before = trailers.len();
        let read = reader.by_ref().take(BYTES_MAX).read_line(&mut trailers)?;
        if read == 0 || trailers.get(before..) == Some("\r\n") {
            trailers.truncate(before);
            return Ok(trailers.to_ascii_lowercase());
        }
    }
}

/// What tells whether a body came as it was sent.
pub fn digest(body: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref())
}

fn answer(
    mut stream: &TcpStream,
    head: &str,
    target: &str,
    (number, body): (u32, &str),
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    if target.ends_with("/events") {
        // The second event comes when the client of the first has asked for it.
        let event = |at: u32| format!("9\r\ndata: {at}\n\n\r\n");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
             transfer-encoding: chunked\r\n\r\n{}",
            event(1)
        )?;
        let is_told = || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter().any(|request| request.line.ends_with("/go"))
        };
        while !is_told() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        return write!(stream, "{}0\r\n\r\n", event(2));
    }
    if target.ends_with("/long") {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {LONG_BYTES}\r\n\r\n"
        )?;
        return stream.write_all(&vec![b'.'; LONG_BYTES]);
    }
    if target.ends_with("/trailers") {
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
        );
    }
    let told: Vec<&str> =
        head.lines().filter(|line| line.starts_with("x-") || line.contains("evil")).collect();
    let text = format!("{number}: body of {} bytes; {}", body.len(), told.join("; "));
    let status = head.lines().find_map(|line| line.strip_prefix("x-provoke: ")).unwrap_or("200");
    let is_kept = ["/kept/", "/account/"].iter().any(|path| target.starts_with(path));
    let kept = if is_kept { "cache-control: max-age=60\r\n" } else { "" };
    write!(
        stream,
        "HTTP/1.1 {status} Told\r\n{kept}content-type: text/plain\r\nx-digest: {}\r\ncontent-length: {}\r\n\r\n{text}",
        digest(body.as_bytes()),
        text.len()
    )
}
