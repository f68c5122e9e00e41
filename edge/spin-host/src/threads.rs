//! Connections are accepted in one place and served by threads that share nothing on the way of a request: each has its
//! own runtime, instances and outbound connections, so that no request waits for another thread to be woken.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    runtime,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use crate::{limits, server::Server};

/// A connection that was accepted.
pub struct Accepted {
    /// The connection.
    pub stream: std::net::TcpStream,
    /// Who is at its other end.
    pub client: SocketAddr,
    /// To be dropped when the connection is closed.
    pub open: Open,
}

/// Counts a connection for as long as it is open.
pub struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Threads that serve connections.
pub struct Threads(Vec<Thread>);

struct Thread {
    accepted: UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    handle: JoinHandle<()>,
}

impl Threads {
    /// One thread for each server. `stopping` is set when the instances are about to end with their threads.
    pub fn start(servers: Vec<Server>, stopping: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let start = |(index, server)| Thread::start(index, server, Arc::clone(stopping));
        servers.into_iter().enumerate().map(start).collect::<Result<_, _>>().map(Self)
    }

    /// Accepts connections until `stop` is done, and returns when all of them are closed.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let accepted = accepted.and_then(|(stream, client)| {
                stream.set_nodelay(true)?;
                Ok((stream.into_std()?, client))
            });
            match accepted {
                Ok((stream, client)) => self.hand_over(stream, client),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(limits::EPOCH_TICK).await;
                }
            }
        }
        drop(listener);
        tracing::info!(connections = self.open(), "stopping");
        for Thread { accepted, handle, .. } in self.0 {
            drop(accepted);
            if handle.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
    }

    /// Gives a connection to the thread that has the fewest.
    fn hand_over(&self, stream: std::net::TcpStream, client: SocketAddr) {
        if self.open() >= limits::CONNECTIONS_MAX {
            tracing::warn!(%client, "a connection was closed: {} are open", limits::CONNECTIONS_MAX);
            return;
        }
        if let Some(thread) = self.0.iter().min_by_key(|thread| thread.open.load(Ordering::Relaxed)) {
            let open = Open::new(&thread.open);
            if thread.accepted.send(Accepted { stream, client, open }).is_err() {
                tracing::error!(%client, "a connection was closed: the thread that should serve it is gone");
            }
        }
    }

    fn open(&self) -> usize {
        self.0.iter().map(|thread| thread.open.load(Ordering::Relaxed)).sum()
    }
}

impl Thread {
    fn start(index: usize, server: Server, stopping: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        // Not bounded here: every connection in it is counted as open.
        let (sender, accepted) = unbounded_channel();
        let handle = std::thread::Builder::new()
            .name(format!("serve-{index}"))
            .spawn(move || {
                runtime.block_on(async {
                    server.serve(accepted).await;
                    tokio::time::sleep(limits::AFTERWARDS_TIMEOUT).await;
                });
                stopping.store(true, Ordering::Relaxed);
                runtime.shutdown_background();
            })
            .context("a serving thread")?;
        Ok(Self { accepted: sender, open: Arc::default(), handle })
    }
}
