//! A client's connection as the host sees it: whose turn it is, and what becomes of one that lets the host wait for too long.
//!
//! The server reads and writes through [`Watched`], which knows of the bytes; [`Exchanges`] knows of the requests. What is late is
//! seen where the server waits for more bytes, and to the server it then looks as if the client had gone.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use meridian_edge_http::hop;
use meridian_engine::problem::Problem;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::Error;

use crate::{limits, refusal::last_answer};

/// How long a client may let the host wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the rest of a head, from its first byte on: then it gets 408 (RFC 9110, section 15.5.9).
    pub head: Duration,
    /// For a request, where there is none on its connection: then that is closed without a word.
    pub idle: Duration,
    /// For taking something of a response: then that is cut off.
    pub response: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: limits::HEAD_TIMEOUT,
            idle: limits::IDLE_CLIENT_TIMEOUT,
            response: limits::RESPONSE_PAUSE_TIMEOUT,
        }
    }
}

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client of HTTP/2 is told that nothing is wrong, and that all its requests may have been seen (section 6.8).
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// A write of no more than so many bytes may be of frames that no response is in: settings, and answers to pings.
const CONTROL_BYTES_MAX: usize = 64;

/// The requests of one connection.
#[derive(Clone)]
pub struct Exchanges(Arc<Mutex<Seen>>);

/// What has been seen of a connection.
struct Seen {
    protocol: Protocol,
    /// Parts of exchanges that are not over: requests' bodies and responses.
    open: usize,
    /// Responses of which the server has something that it has not asked for more of since.
    untaken: usize,
    /// The beginning of a head has come.
    head: bool,
    /// When it came. Without one: when the last exchange was over, or something of a response was taken.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// So many bytes of [`PREFACE`] came, and nothing else.
    Unknown(usize),
    Http1,
    Http2,
}

/// What is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Head,
    Request,
    Taking,
}

impl Seen {
    /// Bytes came.
    fn read(&mut self, bytes: &[u8], now: Instant) {
        if let Protocol::Unknown(matched) = self.protocol {
            let rest = PREFACE.get(matched..).unwrap_or_default();
            self.protocol = match rest.strip_prefix(bytes) {
                Some([]) => Protocol::Http2,
                Some(_) => Protocol::Unknown(matched + bytes.len()),
                None if bytes.starts_with(rest) => Protocol::Http2,
                None => Protocol::Http1,
            };
        }
        if self.protocol == Protocol::Http2 {
            // Its frames have bounds of their own, and what counts are its requests.
            self.head = false;
            return;
        }
        // Line ends may come before a head (RFC 9112, section 2.2). What comes of a head together with the request before it
        // begins to count with the next bytes: until then it is a connection without a request.
        let begins = bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if self.open == 0 && !self.head && begins {
            self.head = true;
            self.since = now;
        }
    }

    fn begin(&mut self) {
        self.open += 1;
        self.head = false;
    }

    fn end(&mut self, now: Instant) {
        self.open = self.open.saturating_sub(1);
        self.since = now;
    }

    /// Until when the client is waited for and for what, or until when nothing needs to be looked at.
    fn awaited(&self, patience: &Patience, now: Instant) -> (Instant, Option<Late>) {
        if self.open > 0 {
            // In HTTP/1.1 a write that is not taken says so.
            return match self.untaken > 0 && self.protocol == Protocol::Http2 {
                true => (self.since + patience.response, Some(Late::Taking)),
                false => (now + patience.idle.min(patience.response), None),
            };
        }
        match self.head {
            true => (self.since + patience.head, Some(Late::Head)),
            false => (self.since + patience.idle, Some(Late::Request)),
        }
    }
}

impl Exchanges {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            protocol: Protocol::Unknown(0),
            open: 0,
            untaken: 0,
            head: false,
            since: Instant::now(),
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head has come: the body behind it and the response to it are open until they are dropped.
    pub fn begin<Q, R>(
        &self,
    ) -> (impl FnOnce(Q) -> Received<Q> + use<Q, R>, impl FnOnce(R) -> Sent<R> + use<Q, R>) {
        let is_http2 = self.seen().protocol == Protocol::Http2;
        let (request, response) = (Open::new(self), Open::new(self));
        (
            move |body| Received { body, is_http2, open: Some(request) },
            move |body| {
                let mut sent = Sent { body, untaken: false, open: response };
                // Its head: without room for anything, the server does not ask for the body at all.
                sent.set_untaken(true);
                sent
            },
        )
    }
}

/// A part of an exchange, for as long as it is not over.
struct Open(Exchanges);

impl Open {
    fn new(exchanges: &Exchanges) -> Self {
        exchanges.seen().begin();
        Self(exchanges.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.seen().end(Instant::now());
    }
}

/// The body of a request, which is whole or ends with an error.
pub struct Received<B> {
    body: B,
    is_http2: bool,
    /// Until its end has come: a component may keep what is left of it for as long as it likes.
    open: Option<Open>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B>
where
    Error: From<B::Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx).map_err(Error::from);
        let has_ended = self.body.is_end_stream();
        // A stream or a connection that ends without an error code would end the body as well. That is how a server says that it
        // needs no more of one (RFC 9113, section 8.1); from a client it is not the end of a request. Of HTTP/1.1 this does not
        // hold, nor does a body in chunks say there that it has ended.
        if self.is_http2 && !has_ended && matches!(frame, Poll::Ready(None)) {
            frame = Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        }
        if has_ended || matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.open = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response.
pub struct Sent<B> {
    body: B,
    /// The server has something of it that it has not asked for more of since.
    untaken: bool,
    open: Open,
}

impl<B> Sent<B> {
    fn set_untaken(&mut self, untaken: bool) {
        let mut seen = self.open.0.seen();
        seen.since = Instant::now();
        match (self.untaken, untaken) {
            (false, true) => seen.untaken += 1,
            (true, false) => seen.untaken = seen.untaken.saturating_sub(1),
            _ => {}
        }
        drop(seen);
        self.untaken = untaken;
    }
}

impl<B> Drop for Sent<B> {
    fn drop(&mut self) {
        if self.untaken {
            self.set_untaken(false);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Sent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = hop::poll_content(&mut self.body, cx);
        self.set_untaken(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that ends by itself where its client lets the host wait for too long.
pub struct Watched<S> {
    stream: S,
    exchanges: Exchanges,
    patience: Patience,
    /// For what the client sends.
    reading: Alarm,
    /// For what it takes.
    writing: Alarm,
    /// Since when it takes nothing, where something waits for it.
    blocked: Option<Instant>,
    is_http2: bool,
    /// To the server the client has gone.
    over: bool,
}

impl<S> Watched<S> {
    /// A connection that has just been opened, and the requests on it.
    pub fn new(stream: S, patience: Patience) -> (Self, Exchanges) {
        let exchanges = Exchanges::new();
        let watched = Self {
            stream,
            exchanges: exchanges.clone(),
            patience,
            reading: Alarm::default(),
            writing: Alarm::default(),
            blocked: None,
            is_http2: false,
            over: false,
        };
        (watched, exchanges)
    }

    /// Whether the client has taken nothing for too long.
    fn is_stuck(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.blocked.get_or_insert_with(Instant::now);
        self.writing.is_due(cx, since + self.patience.response)
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.wrote(bytes),
            Poll::Pending if self.is_stuck(cx) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => {}
        }
        written
    }

    fn wrote(&mut self, bytes: usize) {
        let waited = self.blocked.take().is_some();
        if waited || (self.is_http2 && bytes > CONTROL_BYTES_MAX) {
            let mut seen = self.exchanges.seen();
            if !seen.head {
                seen.since = Instant::now();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Waits for the client, and tells it where that was too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What waits for the client has a time of its own, and nothing is told behind it.
        if self.blocked.is_some() {
            return Poll::Pending;
        }
        loop {
            let (until, late) = self.exchanges.seen().awaited(&self.patience, Instant::now());
            if !self.reading.is_due(cx, until) {
                return Poll::Pending;
            }
            let Some(late) = late else { continue };
            tracing::debug!("a client was waited for too long: {late:?}");
            let words = match late {
                _ if self.is_http2 => GOAWAY.to_vec(),
                Late::Head => {
                    last_answer(&Problem::new(408, "head-too-slow", "The request's head came too slowly"))
                }
                Late::Request | Late::Taking => Vec::new(),
            };
            if !words.is_empty() {
                // There is room for it, since nothing else waits for the client.
                let _written = Pin::new(&mut self.stream).poll_write(cx, &words);
            }
            self.over = true;
            return Poll::Ready(());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                let bytes = buffer.filled().get(before..).unwrap_or_default();
                if !bytes.is_empty() {
                    let mut seen = this.exchanges.seen();
                    seen.read(bytes, Instant::now());
                    this.is_http2 = seen.protocol == Protocol::Http2;
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_late(cx).map(Ok),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A timer that is due too early is cheap; setting it again for every request is not.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether it is that late; wakes the task when it is.
    fn is_due(&mut self, cx: &mut Context<'_>, at: Instant) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                return true;
            }
            sleep.as_mut().reset(at);
        }
        false
    }
}

#[cfg(test)]
mod tests;
