//! What a component writes to its standard output and error, line by line, under the component's name.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::limits;

/// A stream that becomes log lines.
#[derive(Clone)]
pub struct LogStream {
    component: Arc<str>,
    line: Vec<u8>,
    quiet: bool,
}

impl LogStream {
    /// A stream of the component with this name.
    pub fn new(component: Arc<str>) -> Self {
        Self { component, line: Vec::new(), quiet: false }
    }

    /// The same for those who look closer.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Another one of the same component.
    fn beside(&self) -> Self {
        Self { component: Arc::clone(&self.component), line: Vec::new(), quiet: self.quiet }
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            while self.line.len() > limits::LOG_LINE_BYTES_MAX {
                let rest = self.line.split_off(limits::LOG_LINE_BYTES_MAX);
                self.emit();
                self.line = rest;
            }
            if part.ends_with(b"\n") {
                self.emit();
            }
        }
    }

    fn emit(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() && self.quiet {
            tracing::debug!(target: "component", "[{}] {line}", self.component);
        } else if !line.is_empty() {
            tracing::info!(target: "component", "[{}] {line}", self.component);
        }
        self.line.clear();
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.emit();
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.beside())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.beside())
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Pollable for LogStream {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}
