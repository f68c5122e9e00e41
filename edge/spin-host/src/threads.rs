//! Connections are accepted in one place and served by threads that share nothing on the way of a request: each has its
//! own runtime, instances and outbound connections, so that no request waits for another thread to be woken.

use std::{
    io::{self, Write as _},
    net::{Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use anyhow::Context as _;
use meridian_engine::problem::Problem;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::{
        Semaphore,
        mpsc::{UnboundedSender, unbounded_channel},
    },
};

use crate::{limits, refusal::last_answer, seldom::Seldom, server::Server};

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
pub struct Threads {
    threads: Vec<Thread>,
    connections_max: usize,
    /// Connections beyond those that are told so.
    turned_away: Arc<Semaphore>,
    refused: Seldom,
    not_accepted: Seldom,
}

struct Thread {
    accepted: UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    handle: JoinHandle<()>,
}

impl Threads {
    /// One thread for each server, with no more connections than that together. `stopping` is set when the instances are about
    /// to end with their threads.
    pub fn start(
        servers: Vec<Server>,
        connections_max: usize,
        stopping: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let start = |(index, server)| Thread::start(index, server, Arc::clone(stopping));
        Ok(Self {
            threads: servers.into_iter().enumerate().map(start).collect::<Result<_, _>>()?,
            connections_max,
            turned_away: Arc::new(Semaphore::new(limits::REFUSALS_AT_ONCE_MAX)),
            refused: Seldom::default(),
            not_accepted: Seldom::default(),
        })
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
                Ok((stream, client)) if self.open() < self.connections_max => self.hand_over(stream, client),
                Ok((stream, _)) => self.turn_away(stream),
                Err(error) => {
                    if let Some(connections) = self.not_accepted.count(Instant::now()) {
                        tracing::warn!(connections, %error, "connections were not accepted");
                    }
                    tokio::time::sleep(limits::EPOCH_TICK).await;
                }
            }
        }
        drop(listener);
        tracing::info!(connections = self.open(), "stopping");
        for Thread { accepted, handle, .. } in self.threads {
            drop(accepted);
            if handle.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
    }

    /// Gives a connection to the thread that has the fewest.
    fn hand_over(&self, stream: std::net::TcpStream, client: SocketAddr) {
        if let Some(thread) = self.threads.iter().min_by_key(|thread| thread.open.load(Ordering::Relaxed)) {
            let open = Open::new(&thread.open);
            if thread.accepted.send(Accepted { stream, client, open }).is_err() {
                tracing::error!(%client, "a connection was closed: the thread that should serve it is gone");
            }
        }
    }

    /// Tells a client that there is no room for its connection. Where there are many of them, some are closed without a word.
    fn turn_away(&self, stream: std::net::TcpStream) {
        if let Some(connections) = self.refused.count(Instant::now()) {
            tracing::warn!(connections, "connections were refused: {} are open", self.connections_max);
        }
        let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _gone = tokio::time::timeout(limits::REFUSAL_TIMEOUT, refuse(stream)).await;
            drop(permit);
        });
    }

    fn open(&self) -> usize {
        self.threads.iter().map(|thread| thread.open.load(Ordering::Relaxed)).sum()
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

/// Says that there is no room, and waits for the client to go: closed at once, what it has sent by then would take the answer with
/// it (RFC 9112, section 9.6).
async fn refuse(stream: std::net::TcpStream) -> io::Result<()> {
    let problem = Problem::new(503, "overloaded", "Too many connections are open").header("retry-after", "1");
    (&stream).write_all(&last_answer(&problem))?;
    stream.shutdown(Shutdown::Write)?;
    let stream = TcpStream::from_std(stream)?;
    let mut rest = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut rest) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, time::Duration};

    use super::*;
    use crate::{client::Patience, pace::Demand, server::ClientLimits};

    /// How long a test waits for what has to come.
    const WAIT_MAX: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn connections_beyond_the_limit_are_refused_until_others_end() {
        let demand = Demand::of_component(limits::BODY_PAUSE_TIMEOUT);
        let clients = ClientLimits { body_bytes_max: 1, demand, patience: Patience::default() };
        let server = Server::new(Vec::new(), Vec::new(), Arc::new(Semaphore::new(1)), clients).unwrap();
        let threads = Threads::start(vec![server], 2, &Arc::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let clients = std::thread::spawn(move || {
            // The host has no route, and says so.
            let ask = || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).unwrap();
                (stream, String::from_utf8_lossy(&answer).into_owned())
            };
            let (first, second, third) = (ask(), ask(), ask());
            assert_eq!([&*first.1, &*second.1, &*third.1], ["HTTP/1.1 404", "HTTP/1.1 404", "HTTP/1.1 503"]);
            drop(first);
            let deadline = Instant::now() + WAIT_MAX;
            while ask().1 != "HTTP/1.1 404" {
                assert!(Instant::now() < deadline, "the end of a connection makes no room for another");
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(stop);
        });
        threads
            .serve(listener, async move {
                let _stop = stopped.await;
            })
            .await;
        clients.join().unwrap();
    }

    #[tokio::test]
    async fn who_is_too_many_is_told_when_to_come_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        refuse(stream).await.unwrap();
        let answer = client.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
}
