//! A proxy between an edge and an origin that passes everything on but what a test changes in bundles.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::serve::serve;

/// Longest head and body that pass through.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A tenant's bundle with its ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The ticket.
    pub ticket: String,
    /// The bundle.
    pub bytes: Vec<u8>,
}

/// What is made of a bundle on its way.
pub type Change = Arc<dyn Fn(Bundle) -> Bundle + Send + Sync>;

/// A running proxy. It ends with the process.
pub struct Proxy {
    /// Its base URL.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    origin: String,
    /// Only bundles of this target are changed.
    target: String,
    change: Mutex<Option<Change>>,
    changed: Mutex<u64>,
}

impl Proxy {
    /// A proxy to the origin at this base URL that may change the bundles of one target.
    pub fn start(origin: &str, target: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            origin: origin.trim_start_matches("http://").to_owned(),
            target: target.to_owned(),
            change: Mutex::new(None),
            changed: Mutex::new(0),
        });
        let serving = Arc::clone(&shared);
        Ok(Self { url: serve(move |stream| serving.serve(&stream))?, shared })
    }

    /// Changes bundles so from now on; `None` passes them on as they are.
    pub fn change(&self, change: Option<Change>) {
        *self.shared.change.lock().unwrap_or_else(PoisonError::into_inner) = change;
        *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// How many bundles were changed since the last [`Proxy::change`].
    #[must_use]
    pub fn changed(&self) -> u64 {
        *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> Result<()> {
        client.set_read_timeout(Some(TIMEOUT))?;
        let mut reader = BufReader::new(client);
        while let Some(mut request) = Message::read(&mut reader, true)? {
            let target = request.start.split(' ').nth(1).unwrap_or_default().to_owned();
            let bundles = format!("/edge/v1/bundles/{}", self.target);
            let tampers =
                target.replace("%3A", ":").replace("%3a", ":") == bundles && self.change().is_some();
            if tampers {
                // What the edge has already shall be offered to it, too.
                request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-none-match"));
            }
            let mut origin = TcpStream::connect(&self.origin).context("the origin is away")?;
            origin.set_read_timeout(Some(TIMEOUT))?;
            request.write(&mut origin)?;
            let mut response = Message::read(&mut BufReader::new(&origin), false)?.context("no response")?;
            if tampers {
                self.tamper(&mut response);
            }
            response.write(&mut &*client)?;
        }
        Ok(())
    }

    fn change(&self) -> Option<Change> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tamper(&self, response: &mut Message) {
        let ticket =
            response.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("meridian-ticket"));
        if let (Some(change), Some((_, ticket))) = (self.change(), ticket)
            && response.start.contains(" 200 ")
        {
            let bundle = change(Bundle { ticket: ticket.clone(), bytes: std::mem::take(&mut response.body) });
            ticket.clone_from(&bundle.ticket);
            response.body = bundle.bytes;
            *self.changed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }
}

/// One HTTP/1.1 message, read whole.
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn read(reader: &mut impl std::io::BufRead, request: bool) -> Result<Option<Self>> {
        let mut start = String::new();
        if reader.take(MESSAGE_BYTES_MAX).read_line(&mut start)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.take(MESSAGE_BYTES_MAX).read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let field = |name: &str| {
            headers
                .iter()
                .find(|(have, _): &&(String, String)| have.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let mut body = Vec::new();
        if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let mut size = String::new();
                reader.take(MESSAGE_BYTES_MAX).read_line(&mut size)?;
                let size = u64::from_str_radix(size.trim(), 16).context("a chunk's size")?;
                reader.take(size.min(MESSAGE_BYTES_MAX)).read_to_end(&mut body)?;
                let mut end = String::new();
                reader.take(MESSAGE_BYTES_MAX).read_line(&mut end)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = field("content-length") {
            let length: u64 = length.parse()?;
            reader.take(length.min(MESSAGE_BYTES_MAX)).read_to_end(&mut body)?;
        } else if !request && !start.contains(" 204") && !start.contains(" 304") {
            reader.take(MESSAGE_BYTES_MAX).read_to_end(&mut body)?;
        }
        Ok(Some(Self { start: start.trim_end().to_owned(), headers, body }))
    }

    fn write(&self, stream: &mut impl std::io::Write) -> Result<()> {
        let mut bytes = format!("{}\r\n", self.start).into_bytes();
        let framing = ["content-length", "transfer-encoding", "connection"];
        for (name, value) in &self.headers {
            if !framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        stream.write_all(&bytes)?;
        Ok(())
    }
}
