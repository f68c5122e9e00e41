//! Connections in memory, and what drives whatever uses them: no socket, no task, no time.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

/// How often a future may ask to be polled again: one that asks for more goes on for ever.
const POLLS_MAX: usize = 1 << 20;

/// What both a connection and its test know.
pub(super) type Shared<T> = Arc<Mutex<T>>;

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the bytes of a peer come.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of one read.
    pub piece: usize,
    /// Whether the connection ends behind them, or stays open.
    pub ends: bool,
}

impl Pace {
    /// All at once, on a connection that stays open.
    pub(super) const WHOLE: Self = Self { piece: usize::MAX, ends: false };
}

/// One side's end of a connection, to a peer that sends what it was told to and keeps what it gets.
pub(super) struct Link {
    bytes: Vec<u8>,
    at: usize,
    pace: Pace,
    /// What the peer has to have got before it begins to send.
    awaits: fn(&[u8]) -> bool,
    begun: bool,
    /// A piece was taken: the next one is not there yet.
    paused: bool,
    written: Shared<Vec<u8>>,
}

impl Link {
    /// The connection, and what is written to it.
    pub(super) fn new(bytes: &[u8], pace: Pace, awaits: fn(&[u8]) -> bool) -> (Self, Shared<Vec<u8>>) {
        let written: Shared<Vec<u8>> = Arc::default();
        let link = Self {
            bytes: bytes.to_vec(),
            at: 0,
            pace,
            awaits,
            begun: false,
            paused: false,
            written: Arc::clone(&written),
        };
        (link, written)
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.begun = this.begun || (this.awaits)(&lock(&this.written));
        if !this.begun {
            // What is written next wakes whoever waits.
            return Poll::Pending;
        }
        let rest = &this.bytes[this.at..];
        if rest.is_empty() {
            return if this.pace.ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        if std::mem::take(&mut this.paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes = rest.len().min(this.pace.piece).min(buffer.remaining());
        buffer.put_slice(&rest[..bytes]);
        this.at += bytes;
        this.paused = true;
        Poll::Ready(Ok(()))
    }
}

impl Write for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.written).extend_from_slice(bytes);
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls a future until it is over, or until nothing moves any more: then there is no outcome.
pub(super) fn drive<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..POLLS_MAX {
        if !woken.0.swap(false, Ordering::Relaxed) {
            return None;
        }
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut cx) {
            return Some(outcome);
        }
    }
    panic!("it goes on for ever");
}
