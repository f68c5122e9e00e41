//! An HTTP service of a tenant's own, as far as the tests need one.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;

/// Bytes of a request; those of these tests are far below.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Starts the service and says its URL. It ends with the process, and answers
/// - `/kept/none` with a 204 and `/kept/digits` with ten digits, both to be stored for a minute,
/// - everything else with the request's body in the field `x-echo`.
pub fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the edge's to open anew.
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = String::new();
    let mut part = [0; 4096];
    let body = loop {
        if let Some(body) = body_of(&request) {
            break body;
        }
        let read = stream.read(&mut part)?;
        if read == 0 || request.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
        request.push_str(&String::from_utf8_lossy(&part[..read]));
    };
    let path = request.split(' ').nth(1).unwrap_or_default();
    let kept = "cache-control: max-age=60\r\nconnection: close\r\n";
    match path {
        "/kept/none" => write!(stream, "HTTP/1.1 204 No Content\r\n{kept}\r\n"),
        "/kept/digits" => {
            write!(stream, "HTTP/1.1 200 OK\r\n{kept}etag: \"d\"\r\ncontent-length: 10\r\n\r\n0123456789")
        }
        _ => write!(
            stream,
            "HTTP/1.1 200 OK\r\nx-echo: {body}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
    }
}

/// The body of a request, once all of it is there (RFC 9112, section 6).
fn body_of(request: &str) -> Option<String> {
    let (head, rest) = request.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked") {
        let lines: Vec<&str> = rest.split("\r\n").collect();
        let data = lines.chunks(2).take_while(|chunk| chunk[0] != "0").map(|chunk| chunk.get(1).copied());
        return rest.ends_with("0\r\n\r\n").then(|| data.flatten().collect());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    rest.get(..length.map_or(Some(0), |length| length.parse().ok())?).map(str::to_owned)
}
