//! WebSockets (RFC 6455): an upstream that speaks them, as far as these tests need, and what passes an edge.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meridian_tests::client::Response;
use meridian_tests::stack::Stack;

use crate::EdgeTest;
use crate::recorder::Recorder;
use crate::requests::{begin, begin_over};
use crate::surface::with_recorder;
use crate::tls::with_front;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("a_websocket_passes_where_the_host_can", a_websocket_passes_where_the_host_can),
    ("a_websocket_passes_behind_tls", a_websocket_passes_behind_tls),
];

/// Bytes of a frame; those of these tests are below.
const FRAME_BYTES_MAX: u64 = 1 << 20;
/// The key of the standard's example (section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = *b"mask";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// One frame that is a message of its own.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn new(kind: u8, payload: &[u8]) -> Self {
        Self { kind, payload: payload.to_owned() }
    }

    /// The next frame, whether it is masked or not (section 5.2).
    fn read(from: &mut impl Read) -> std::io::Result<Self> {
        let mut head = [0; 2];
        from.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                from.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                from.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        if head[0] & 0x80 == 0 || length > FRAME_BYTES_MAX {
            return Err(std::io::Error::other("a frame that is no whole message, or too long"));
        }
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            from.read_exact(&mut mask)?;
        }
        let mut payload = Vec::new();
        from.take(length).read_to_end(&mut payload)?;
        if (payload.len() as u64) < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { kind: head[0] & 0x0f, payload: masked(&payload, mask) })
    }

    /// Its bytes: clients mask, servers do not (section 5.3).
    fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let flag = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | self.kind];
        match self.payload.len() {
            short @ ..126 => bytes.push(flag | short as u8),
            middle @ 126..0x1_0000 => {
                bytes.push(flag | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(flag | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        bytes.extend(masked(&self.payload, mask.unwrap_or_default()));
        bytes
    }
}

fn masked(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// What the answer to a handshake says of its key (section 4.2.2).
fn accepts(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// The key of a handshake, where a head is one.
pub fn key(head: &str) -> Option<String> {
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (have, value) = line.split_once(':')?;
            have.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    field("upgrade").filter(|protocol| protocol.eq_ignore_ascii_case("websocket"))?;
    field("sec-websocket-key")
}

/// Answers a handshake and sends every message back, up to the one that ends it.
pub fn echo(mut stream: &TcpStream, reader: &mut impl Read, key: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nX-Echo: 1\r\n\r\n",
        accepts(key)
    )?;
    loop {
        let frame = Frame::read(reader)?;
        stream.write_all(&frame.bytes(None))?;
        if frame.kind == CLOSE {
            return Ok(());
        }
    }
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: acme.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nMeridian-Context: forged\r\n\r\n"
    )
}

/// Every message comes back, and so does the one that ends it.
fn echoes(stream: &mut (impl Read + Write)) -> Result<()> {
    let large = vec![7; 70_000];
    for sent in [Frame::new(TEXT, b"one"), Frame::new(BINARY, &large), Frame::new(TEXT, &[b'.'; 300])] {
        stream.write_all(&sent.bytes(Some(MASK)))?;
        let got = Frame::read(stream).context("a message comes back")?;
        ensure!(got == sent, "{} bytes came back of {}", got.payload.len(), sent.payload.len());
    }
    stream.write_all(&Frame::new(CLOSE, &1000_u16.to_be_bytes()).bytes(Some(MASK)))?;
    let ended = Frame::read(stream).context("the end is answered")?;
    ensure!(ended.kind == CLOSE, "{ended:?}");
    Ok(())
}

/// A clear word, and nothing for the upstream.
fn is_refused(answer: &Response, recorder: &Recorder) -> Result<()> {
    ensure!(answer.status == 501, "{answer:?}");
    ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
    ensure!(recorder.take().is_empty(), "the handshake reached the upstream");
    Ok(())
}

/// On workerd to an upstream and back, behind auth and with a handshake of the edge's own; in Spin a clear word.
fn a_websocket_passes_where_the_host_can(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, recorder| {
        if edge == "spin" {
            let refused = begin(url, handshake("/seen/socket").as_bytes())?.0;
            return is_refused(&refused, recorder);
        }
        let (answer, mut stream) = begin(url, handshake("/seen/socket").as_bytes())?;
        ensure!(answer.status == 101, "{answer:?}");
        ensure!(answer.header("sec-websocket-accept") == accepts(KEY), "{answer:?}");
        ensure!(
            answer.header("x-echo") == "1" && answer.header("meridian-decision").len() == 26,
            "{answer:?}"
        );
        echoes(&mut stream)?;
        let seen = recorder.take();
        let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
        ensure!(lines == ["GET /seen/socket"], "{lines:?}");
        ensure!(!seen[0].head.contains("forged") && seen[0].head.contains("\r\nvia: "), "{:?}", seen[0].head);
        // Its key is the edge's own.
        ensure!(!seen[0].head.contains(&KEY.to_ascii_lowercase()), "{:?}", seen[0].head);
        // An upstream that takes none says so itself, and a cache neither answers nor keeps any of it.
        for path in ["/seen/plain", "/kept/plain", "/kept/plain"] {
            let answer = begin(url, handshake(path).as_bytes())?.0;
            ensure!(answer.status == 200 && answer.header("cache-status").contains("bypass"), "{answer:?}");
        }
        ensure!(recorder.take().len() == 3, "each handshake is the upstream's to answer");
        // Behind auth, and no region's origin gets one.
        let stranger = begin(url, handshake("/v1/whoami").as_bytes())?.0;
        ensure!(stranger.status == 401, "{stranger:?}");
        let token = stack.token("acme", "socket", "orders:read")?;
        let known =
            handshake("/v1/whoami").replacen("\r\n", &format!("\r\nAuthorization: Bearer {token}\r\n"), 1);
        let refused = begin(url, known.as_bytes())?.0;
        ensure!(refused.status == 501, "{refused:?}");
        ensure!(refused.header("content-type") == "application/problem+json", "{refused:?}");
        Ok(())
    })
}

/// The same through Caddy, over HTTP/1.1 inside of TLS.
fn a_websocket_passes_behind_tls(stack: &Stack, edge: &str) -> Result<()> {
    with_front(stack, edge, |front, recorder| {
        let mut stream = front.stream(b"http/1.1")?;
        let answer = begin_over(&mut stream, handshake("/tls/socket").as_bytes())?;
        if edge == "spin" {
            return is_refused(&answer, recorder);
        }
        ensure!(answer.status == 101, "{answer:?}");
        ensure!(answer.header("sec-websocket-accept") == accepts(KEY), "{answer:?}");
        echoes(&mut stream)?;
        let seen = recorder.take();
        let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
        ensure!(lines == ["GET /tls/socket"], "{lines:?}");
        ensure!(seen[0].head.contains("\r\nx-forwarded-proto: https\r\n"), "{:?}", seen[0].head);
        Ok(())
    })
}
