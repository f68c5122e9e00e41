//! An HTTP service of a tenant's own, as far as the tests need one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use meridian_tests::serve::serve;

/// Bytes of a request; those of these tests are far below.
const REQUEST_BYTES_MAX: usize = 512 * 1024;

/// Bytes of a body that is as large as any that is stored.
pub const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of [`coded`], beyond what workerd's edge stores of bodies in a content coding.
pub const CODED_BYTES: usize = 9 * 1024 * 1024;

/// How long a slow answer takes.
pub const WAITS: Duration = Duration::from_secs(2);

/// A large body; each number has its own.
pub fn large(number: usize) -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| (at.wrapping_mul(31) ^ (at >> 12) ^ (at >> 20) ^ number) as u8).collect()
}

/// The beginning of [`large`] in gzip, not compressed, so that it is longer than what is in it (RFC 1951, section 3.2.4).
pub fn coded() -> std::io::Result<Vec<u8>> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    coder.write_all(&large(0)[..CODED_BYTES])?;
    coder.finish()
}

/// [`page`] in gzip.
pub fn coded_page() -> std::io::Result<Vec<u8>> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    coder.write_all(page().as_bytes())?;
    coder.finish()
}

/// Starts the service and says its URL. It ends with the process, and answers
/// - `/kept/none` with a 204, `/kept/digits` with ten digits, `/kept/large/N` with [`large`] and `/kept/open/N` with the
///   same without a length ahead, `/kept/coded` with [`coded`], and `/kept/digested` with [`coded_page`], a strong entity
///   tag and a digest, all to be stored for a minute,
/// - `/…/page` with a page of HTML, to be stored for a minute, in no coding,
/// - `/…/loose` with a page that can be minified, and `/…/pieces` with the same in pieces of a few bytes,
/// - `/…/waits` with nothing but only after [`WAITS`],
/// - `/…/pauses` with the first line of a text whose rest never comes, `/…/breaks` with one that breaks off behind it,
///   and `/…/ambiguous` with HTML that can't be parsed as it streams,
/// - `/…/mirror` with the request's body, its length in `x-bytes` and what the head says of that in `x-length`,
/// - `/…/health` with a 204, or with a 503 where it is unwell,
/// - everything else with the request's body in the field `x-echo`.
pub fn start() -> Result<String> {
    Ok(start_with_health()?.0)
}

/// As [`start`], with what says that the service is unwell.
pub fn start_with_health() -> Result<(String, Arc<AtomicBool>)> {
    let is_unwell = Arc::new(AtomicBool::new(false));
    let said = Arc::clone(&is_unwell);
    Ok((serve(move |stream| answer(stream, &said))?, is_unwell))
}

fn answer(mut stream: TcpStream, is_unwell: &AtomicBool) -> std::io::Result<()> {
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
    let path = path.split('?').next().unwrap_or_default();
    match path {
        page if page.ends_with("/page") => answer_page(&mut stream, &request),
        loose if loose.ends_with("/loose") => answer_in_pieces(&mut stream, usize::MAX..=usize::MAX),
        loose if loose.ends_with("/pieces") => answer_in_pieces(&mut stream, 1..=11),
        unfinished if ["/pauses", "/breaks", "/ambiguous"].iter().any(|end| unfinished.ends_with(end)) => {
            let kind = if unfinished.ends_with("/pauses") { "text/plain" } else { "text/html" };
            let line = if unfinished.ends_with("/ambiguous") { AMBIGUOUS } else { "first line\n" };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{kept}content-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n",
                line.len()
            )?;
            match path.rsplit('/').next() {
                // Until the other side has had enough.
                Some("pauses") => stream.read(&mut part).map(drop),
                Some("ambiguous") => write!(stream, "0\r\n\r\n"),
                _ => Ok(()),
            }
        }
        health if health.ends_with("/health") => {
            let status = if is_unwell.load(Ordering::SeqCst) { "503 Odd" } else { "204 No Content" };
            write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n")
        }
        waits if waits.ends_with("/waits") => {
            std::thread::sleep(WAITS);
            write!(stream, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        }
        mirror if mirror.ends_with("/mirror") => {
            let head = request.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("none");
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nx-length: {length}\r\nx-bytes: {0}\r\ncontent-length: {0}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
        }
        "/kept/none" => write!(stream, "HTTP/1.1 204 No Content\r\n{kept}\r\n"),
        "/kept/digits" => {
            write!(stream, "HTTP/1.1 200 OK\r\n{kept}etag: \"d\"\r\ncontent-length: 10\r\n\r\n0123456789")
        }
        "/kept/coded" => {
            let body = coded()?;
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{kept}content-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
            )?;
            stream.write_all(&body)
        }
        "/kept/digested" => {
            let body = coded_page()?;
            let fields = "etag: \"c\"\r\nrepr-digest: sha-256=:AA==:\r\ncontent-encoding: gzip\r\n";
            write!(stream, "HTTP/1.1 200 OK\r\n{kept}{fields}content-length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
        large if large.starts_with("/kept/large/") || large.starts_with("/kept/open/") => {
            let number = large.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            let length = if large.starts_with("/kept/large/") {
                format!("content-length: {LARGE_BYTES}\r\n")
            } else {
                String::new()
            };
            write!(stream, "HTTP/1.1 200 OK\r\n{kept}{length}\r\n")?;
            stream.write_all(&self::large(number))
        }
        _ => write!(
            stream,
            "HTTP/1.1 200 OK\r\nx-echo: {body}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
    }
}

const AMBIGUOUS: &str = "<h1>a</h1><select><xmp><script>b</xmp></select>";

/// A page that can be changed and is worth coding.
pub fn page() -> String {
    let items = (0..2_000).map(|at| format!("<li id=item-{at}><a href=/items/{}>Item é</a></li>\n", at * 7));
    format!("<!doctype html><h1>Items</h1><ol>{}</ol>", items.collect::<String>())
}

/// The page, or that the client has it already (RFC 9110, section 13.1.2).
fn answer_page(stream: &mut TcpStream, request: &str) -> std::io::Result<()> {
    let fields = "cache-control: max-age=60\r\nconnection: close\r\ncontent-type: text/html; charset=utf-8\r\netag: \"p\"\r\n";
    let head = request.to_ascii_lowercase();
    if head.lines().any(|line| line.starts_with("if-none-match:") && line.contains("\"p\"")) {
        return write!(stream, "HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
    }
    let page = page();
    let body = if head.starts_with("head ") { "" } else { page.as_str() };
    write!(stream, "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", page.len())
}

/// A page that can be minified, and what becomes of it.
pub fn loose_page() -> (String, String) {
    let item = "<p  title='a  b'>\n  Ein  é &amp;\r\n<b> c </b> <!-- gone  é -->\n  1  <  2\t</p>\n\n\
                <pre>\n  kept  é <!-- kept -->\n</pre>\n  <!--[if IE]>  kept  <![endif]-->\n\
                <textarea>  kept  </textarea>\n<script>  // kept  </script>\n";
    let minified = "<p  title='a  b'> Ein é &amp; <b> c </b>  1 < 2 </p> \
                    <pre>\n  kept  é <!-- kept -->\n</pre> <!--[if IE]>  kept  <![endif]--> \
                    <textarea>  kept  </textarea> <script>  // kept  </script> ";
    (item.repeat(100), minified.repeat(100))
}

/// [`loose_page`] in chunks of these sizes by turns, each in a packet of its own as far as the network goes along.
fn answer_in_pieces(stream: &mut TcpStream, sizes: RangeInclusive<usize>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let (page, _) = loose_page();
    let mut page = page.as_bytes();
    for size in sizes.cycle() {
        let (piece, rest) = page.split_at(size.min(page.len()));
        stream.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
        if rest.is_empty() {
            break;
        }
        page = rest;
    }
    stream.write_all(b"0\r\n\r\n")
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
