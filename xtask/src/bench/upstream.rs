//! The server behind all edges: answers at once, always the same. Its processor time is this program's own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

/// Bytes of a request's head; the benchmark's are far below.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Length of the body that is cached.
const CACHED_BYTES: usize = 1024;

/// The running server.
pub struct Upstream {
    /// Its base URL.
    pub url: String,
    served: Arc<AtomicU64>,
}

impl Upstream {
    /// Listens on a port of 127.0.0.1 until this program ends.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("port {port} is taken; choose another with --port"))?;
        let served = Arc::new(AtomicU64::new(0));
        let upstream = Self { url: format!("http://127.0.0.1:{port}"), served: Arc::clone(&served) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A connection that breaks is opened anew by whoever needs it.
                std::thread::spawn(move || serve(stream, &served));
            }
        });
        Ok(upstream)
    }

    /// Requests that were answered so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Answers the requests of one connection, one after the other; none has a body.
fn serve(mut stream: TcpStream, served: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let plain = response(
        "application/json",
        "no-store",
        br#"{"records":[{"id":"0199f0a2-6c1e-7e51-9d5c-3a1f0e5b7c42","item":"tea"}],"next":null}"#,
    );
    let cached = response("application/octet-stream", "public, max-age=3600", &[b'x'; CACHED_BYTES]);
    let mut buffer = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = head_end(&buffer[..filled]) {
            let wants_cached = buffer.starts_with(b"GET /cached/");
            served.fetch_add(1, Ordering::Relaxed);
            stream.write_all(if wants_cached { &cached } else { &plain })?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

fn response(content_type: &str, cache_control: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: {cache_control}\r\ncontent-length: {}\r\n\r\n",
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
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let upstream = Upstream::start(port).unwrap();
        let url = &upstream.url;
        assert_eq!(Request::get(&format!("{url}/cached/a")).send().unwrap().body.len(), CACHED_BYTES);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /open/a HTTP/1.1\r\n\r\nGET /open/b HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
        assert_eq!(upstream.served(), 3);
    }
}
