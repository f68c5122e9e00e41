//! A client of HTTP/2 that sends what it is told (RFC 9113), with every field as a literal (RFC 7541, section 6.2.2).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What a client says first (RFC 9113, section 3.4), without its settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` of the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Success,
    /// Another answer.
    Other,
    /// The stream or the connection was ended with this error code.
    Ended(u32),
    /// The connection was closed without a word.
    Closed,
}

/// Sends one request with these fields, pseudo fields included, and this body on a connection of its own.
pub fn send(url: &str, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).context("a short text")?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    frame(&mut bytes, HEADERS, END_HEADERS | if body.is_empty() { END_STREAM } else { 0 }, 1, &block);
    if !body.is_empty() {
        frame(&mut bytes, DATA, END_STREAM, 1, body);
    }
    stream.write_all(&bytes)?;
    answer(&mut stream)
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn answer(stream: &mut TcpStream) -> Result<Answer> {
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Answer::Closed),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Answer::Closed),
            Err(error) => return Err(error.into()),
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        let code =
            |at: usize| payload.get(at..at + 4).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
        match head[3] {
            HEADERS => {
                // The size of the table may be updated first (RFC 7541, section 6.3).
                let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20).context("a field")?;
                return Ok(if *first == STATUS_200 { Answer::Success } else { Answer::Other });
            }
            RST_STREAM => return Ok(Answer::Ended(code(0).context("an error code")?)),
            GOAWAY => return Ok(Answer::Ended(code(4).context("an error code")?)),
            _ => ensure!(length <= 1 << 14, "a frame of {length} bytes"),
        }
    }
}
