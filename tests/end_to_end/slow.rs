//! Clients that send slowly, or take slowly: each is waited for as long as is named, and told so where the host can.
//!
//! On workerd the runtime reads heads and writes responses: it closes a connection without a word 15 s after it was opened or
//! the request before was answered, and waits for ever for who takes nothing of a response.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use meridian_tests::stack::Stack;

use crate::EdgeTest;
use crate::frames;
use crate::surface::with_recorder;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("slow_clients_are_not_waited_for_for_ever", slow_clients_are_not_waited_for_for_ever)];
/// What plain workerd does not see to.
pub const SPIN_TESTS: &[(&str, EdgeTest)] = &[("who_takes_nothing_is_let_go", who_takes_nothing_is_let_go)];

/// Beyond every time limit of either edge.
const LONG: Duration = Duration::from_secs(100);
/// How much later than it should an end may be seen, on a busy machine.
const LATER: Duration = Duration::from_secs(6);
/// How long the Spin host waits for who takes nothing of a response.
const TAKEN_MAX: Duration = Duration::from_secs(60);

const SECOND: Duration = Duration::from_secs(1);
const WHOLE: &str = "GET /seen/a HTTP/1.1\r\nHost: acme.localhost\r\n\r\n";

/// What becomes of a client by edge: the statuses that it gets, and between which seconds its connection ends.
struct Ends {
    statuses: &'static [u16],
    after_s: u64,
}

/// A slow client: what it sends at once, then a byte a second of something.
struct Slow {
    about: &'static str,
    at_once: String,
    /// Seconds until it goes on.
    pause_s: u64,
    trickled: String,
    cloudflare: Ends,
    spin: Ends,
}

fn slow_clients() -> Vec<Slow> {
    let ends = |statuses, after_s| Ends { statuses, after_s };
    let letters = format!("GET /seen/a HTTP/1.1\r\nHost: acme.localhost\r\nX-A: {}", "a".repeat(60));
    let upload = |length: usize| {
        format!("POST /seen/a HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: {length}\r\n\r\n")
    };
    let chunked =
        "POST /seen/a HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    vec![
        Slow {
            about: "half a head",
            at_once: "GET /seen/a HTTP/1.1\r\nHost: acme".to_owned(),
            pause_s: 0,
            trickled: String::new(),
            cloudflare: ends(&[], 15),
            spin: ends(&[408], 10),
        },
        Slow {
            about: "a head by its letters",
            at_once: String::new(),
            pause_s: 0,
            trickled: letters.clone(),
            cloudflare: ends(&[], 15),
            spin: ends(&[408], 10),
        },
        Slow {
            about: "a second head by its letters",
            at_once: WHOLE.to_owned(),
            pause_s: 3,
            trickled: letters,
            cloudflare: ends(&[200], 15),
            spin: ends(&[200, 408], 13),
        },
        Slow {
            about: "nothing",
            at_once: String::new(),
            pause_s: 0,
            trickled: String::new(),
            cloudflare: ends(&[], 15),
            spin: ends(&[], 75),
        },
        Slow {
            about: "nothing after a request",
            at_once: WHOLE.to_owned(),
            pause_s: 0,
            trickled: String::new(),
            cloudflare: ends(&[200], 15),
            spin: ends(&[200], 75),
        },
        Slow {
            about: "a body that stops",
            at_once: upload(100_000) + "begun",
            pause_s: 0,
            trickled: String::new(),
            cloudflare: ends(&[408], 25),
            spin: ends(&[408], 25),
        },
        Slow {
            about: "a body by its letters",
            at_once: upload(100_000),
            pause_s: 0,
            trickled: "a".repeat(90),
            cloudflare: ends(&[408], 30),
            spin: ends(&[408], 30),
        },
        Slow {
            about: "a body in chunks that are not whole, by its letters",
            at_once: chunked + "ffff\r\n",
            pause_s: 0,
            trickled: "a".repeat(90),
            cloudflare: ends(&[408], 30),
            spin: ends(&[408], 30),
        },
    ]
}

fn slow_clients_are_not_waited_for_for_ever(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, recorder| {
        let clients: Vec<_> = slow_clients()
            .into_iter()
            .map(|client| {
                let address = url.trim_start_matches("http://").to_owned();
                std::thread::spawn(move || (client.talk(&address), client))
            })
            .collect();
        let mut wrong = Vec::new();
        for client in clients {
            let (told, client) = client.join().map_err(|_| anyhow!("a client panicked"))?;
            let expected = if edge == "spin" { &client.spin } else { &client.cloudflare };
            match told {
                Ok((statuses, after_s)) => {
                    println!("{edge}: {}: {statuses:?} after {after_s} s", client.about);
                    let in_time = (expected.after_s..=expected.after_s + LATER.as_secs()).contains(&after_s);
                    if statuses != expected.statuses || !in_time {
                        wrong.push(format!(
                            "{}: {statuses:?} after {after_s} s, expected {:?} after {} s",
                            client.about, expected.statuses, expected.after_s
                        ));
                    }
                }
                Err(error) => wrong.push(format!("{}: {error:#}", client.about)),
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        // What was not whole did not reach the upstream as a request; what was did.
        let lines: Vec<String> = recorder.take().into_iter().map(|request| request.line).collect();
        ensure!(lines == ["GET /seen/a", "GET /seen/a"], "{lines:?}");
        Ok(())
    })
}

impl Slow {
    /// The statuses that come, and after how many seconds the connection ends.
    fn talk(&self, address: &str) -> Result<(Vec<u16>, u64)> {
        // No later than the edge begins to count.
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(self.at_once.as_bytes())?;
        stream.set_read_timeout(Some(LONG))?;
        let mut sending = stream.try_clone()?;
        let (pause, trickled) = (Duration::from_secs(self.pause_s), self.trickled.clone());
        // Ends with the connection.
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            for byte in trickled.bytes() {
                if sending.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(SECOND);
            }
        });
        let mut answers = Vec::new();
        let mut part = [0; 4096];
        loop {
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(bytes) => answers.extend_from_slice(&part[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error).context("the connection does not end"),
            }
        }
        let text = String::from_utf8_lossy(&answers);
        let after = text.split("HTTP/1.1 ").skip(1);
        let statuses = after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect();
        Ok((statuses, begun.elapsed().as_secs()))
    }
}

/// A response that is longer than what the systems between hold, of which the client reads the beginning alone.
fn who_takes_nothing_is_let_go(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, _| {
        let address = url.to_owned();
        let over_http2 = std::thread::spawn(move || {
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "acme.localhost"),
                (":path", "/seen/long"),
            ];
            frames::take_nothing(&address, &fields, LONG)
        });
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        let request = "GET /seen/long HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut part = vec![0; 64 * 1024];
        ensure!(stream.read(&mut part)? > 0, "no response");
        let port = stream.local_addr()?.port();
        ensure!(is_open_to(port)?, "the response is on its way");
        let begun = Instant::now();
        while is_open_to(port)? {
            ensure!(begun.elapsed() < TAKEN_MAX + LATER, "still open after {:?}", begun.elapsed());
            std::thread::sleep(SECOND);
        }
        ensure!(begun.elapsed() + SECOND > TAKEN_MAX, "closed after {:?}", begun.elapsed());
        // What is on its way may still come.
        stream.set_read_timeout(Some(LONG))?;
        let mut read = 0;
        while let Ok(bytes @ 1..) = stream.read(&mut part) {
            read += bytes;
        }
        ensure!(read < crate::recorder::LONG_BYTES, "all of it came");
        // Where it leaves no room for a response, nothing waits to be written.
        let ended = over_http2.join().map_err(|_| anyhow!("a client panicked"))??;
        ensure!((TAKEN_MAX..TAKEN_MAX + LATER).contains(&ended), "HTTP/2: ended after {ended:?}");
        Ok(())
    })
}

/// Whether the server's end of the connection from this port is open, as the system says.
fn is_open_to(port: u16) -> Result<bool> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let peer = format!(":{port:04X}");
    Ok(table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|remote| remote.ends_with(&peer)) && columns.next() == Some(ESTABLISHED)
    }))
}
