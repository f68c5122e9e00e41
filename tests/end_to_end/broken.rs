//! An edge whose code breaks: panics, runs out of stack or memory, computes for ever. What broke is replaced, and requests
//! beside it are answered as if nothing had happened, but for unsafe ones that the very instance owed an answer: each of those
//! gets a problem, once and whole.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::stack::{Stack, eventually};

use crate::EdgeTest;
use crate::requests::{PARENT, says_who_decided};
use crate::surface::with_recorder;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("what_breaks_is_replaced_and_harms_nobody", what_breaks_is_replaced_and_harms_nobody),
    ("what_waits_in_what_breaks_is_answered", what_waits_in_what_breaks_is_answered),
    ("an_endless_loop_is_ended", an_endless_loop_is_ended),
];
/// On workerd bodies pass beside the instance, and don't end with it.
pub const SPIN_TESTS: &[(&str, EdgeTest)] =
    &[("a_body_in_what_breaks_is_not_whole", a_body_in_what_breaks_is_not_whole)];

const PORT: u16 = 27320;
/// How long an edge may take to have its rules, or to be back.
const RECOVER: Duration = Duration::from_secs(60);
/// What breaks at once, and what breaks after it has waited.
const FAULTS: [&str; 4] = ["/.fault/panic", "/.fault/panic-later", "/.fault/trap-later", "/.fault/memory"];
/// Clients that ask beside what breaks: so many with a safe request, and so many with an unsafe one.
const BESIDE: usize = 8;
/// What they ask for: it takes the rules to know that no route leads there, and so no limit is for it.
const ELSEWHERE: &str = "/nowhere";
/// What has waited for two seconds before it gets to know the same.
const WAITS: &str = "/.fault/wait";
/// As many answers to each kind of request prove that they are asking.
const ANSWERED: usize = 20;
/// No request is made again that has a body, as this one, or another method than `GET`, `HEAD` and `OPTIONS`.
const BODY: &[u8] = b"{}";

fn what_breaks_is_replaced_and_harms_nobody(stack: &Stack, edge: &str) -> Result<()> {
    let (_edge, client, _) = start(stack, edge)?;
    for path in FAULTS {
        let beside = Beside::start(&client)?;
        // It is not made again, as a safe one would be.
        is_a_problem(&client.request("POST", path, Some(BODY.to_vec()))?)
            .with_context(|| format!("POST {path}"))?;
        beside.end().with_context(|| format!("beside {path}"))?;
        is_a_problem(&client.get(path)?).with_context(|| format!("GET {path}"))?;
        for _ in 0..5 {
            client.get("/v1/whoami")?.expect(200).with_context(|| format!("after {path}"))?;
        }
    }
    Ok(())
}

/// An instance that breaks owes answers to what waits in it, and none of them stays away.
fn what_waits_in_what_breaks_is_answered(stack: &Stack, edge: &str) -> Result<()> {
    let (_edge, client, _) = start(stack, edge)?;
    let (safe, unsafe_ones) = std::thread::scope(|scope| {
        let client = &client;
        let get = || scope.spawn(move || client.get(WAITS));
        let post = |path| scope.spawn(move || client.request("POST", path, Some(BODY.to_vec())));
        let asked_safely: Vec<_> = (0..BESIDE).map(|_| get()).collect();
        let mut asked: Vec<_> = (0..BESIDE).map(|_| post(WAITS)).collect();
        asked.push(post("/.fault/panic-later"));
        let answered = |all: Vec<ScopedJoinHandle<Result<Response>>>| {
            let answered = |one: ScopedJoinHandle<Result<Response>>| {
                one.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
            };
            all.into_iter().map(answered).collect::<Result<Vec<Response>>>()
        };
        Ok::<_, anyhow::Error>((answered(asked_safely)?, answered(asked)?))
    })?;
    // Made again, and what the broken instance still waits for does not come between.
    for answer in &safe {
        ensure!(answer.status == 404, "a safe request: {} {}", answer.status, answer.text());
        says_who_decided(answer)?;
    }
    let broken = unsafe_ones.iter().filter(|answer| answer.status == 500).count();
    for answer in &unsafe_ones {
        is_elsewhere_or_a_problem(answer)?;
    }
    // What waits elsewhere, or came after that, is unharmed.
    ensure!(broken >= 1, "nothing broke: {unsafe_ones:?}");
    client.get("/v1/whoami")?.expect(200).map(drop)
}

/// In the Spin host it harms nobody. workerd leaves it to the platform to end a worker that computes: locally that is the
/// stack, which starts the whole process again.
fn an_endless_loop_is_ended(stack: &Stack, edge: &str) -> Result<()> {
    let (_edge, client, state) = start(stack, edge)?;
    if edge == "spin" {
        let beside = Beside::start(&client)?;
        is_a_problem(&client.send("POST", "/.fault/loop")?)?;
        beside.end()?;
        return client.get("/v1/whoami")?.expect(200).map(drop);
    }
    ensure!(client.send("POST", "/.fault/loop").is_err(), "the endless loop was answered");
    eventually(RECOVER, || client.get("/v1/whoami")?.expect(200).map(drop))?;
    let log = std::fs::read_to_string(state.join("start.log"))?;
    ensure!(
        log.contains("has not answered for"),
        "it was not the silence that ended it:
{log}"
    );
    Ok(())
}

/// What passes through an instance when it breaks ends without an end: nobody takes half of it for all.
fn a_body_in_what_breaks_is_not_whole(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |_, _| {
        let (edge, client, _) = start(stack, edge)?;
        eventually(RECOVER, || client.get("/seen/ready")?.expect(200).map(drop))?;
        let mut stream = TcpStream::connect(edge.url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.write_all(b"GET /seen/events HTTP/1.1\r\nHost: acme.localhost\r\n\r\n")?;
        let mut read = Vec::new();
        let (mut part, begun) = ([0; 4096], Instant::now());
        loop {
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(bytes) => read.extend_from_slice(&part[..bytes]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                // Each thread of the host has instances of its own: one of them answers this.
                Err(_) if String::from_utf8_lossy(&read).contains("data: 1") => {
                    is_a_problem(&client.request("POST", "/.fault/panic", Some(BODY.to_vec()))?)?;
                }
                Err(_) => {}
            }
            ensure!(begun.elapsed() < RECOVER, "it goes on: {}", String::from_utf8_lossy(&read));
        }
        client.get("/seen/go")?.expect(200)?;
        let text = String::from_utf8_lossy(&read);
        ensure!(text.contains("data: 1") && !text.ends_with("0\r\n\r\n"), "it looks whole: {text}");
        Ok(())
    })
}

/// An edge that breaks where it is asked to, a client that may read from it, and where its log is.
fn start(stack: &Stack, name: &str) -> Result<(Edge, Client, PathBuf)> {
    let up = stack.up()?;
    let origins: Vec<String> =
        up.origins.iter().map(|(region, origin)| format!("{region}={}", origin.url)).collect();
    let state = stack.data().join(format!("broken-on-purpose-{name}"));
    let edge = Edge::start(name, Flavour::Fault, PORT, &origins.join(","), stack.data(), &state)?;
    let token = stack.token("acme", "unharmed", "orders:read")?;
    let client = Client::new(&edge.url, "acme.localhost").bearer(&token).with("traceparent", PARENT);
    eventually(RECOVER, || client.get("/v1/whoami")?.expect(200).map(drop))?;
    Ok((edge, client, state))
}

fn is_a_problem(response: &Response) -> Result<()> {
    ensure!(response.status == 500, "{} {}", response.status, response.text());
    ensure!(response.header("content-type") == "application/problem+json", "{:?}", response.headers);
    says_who_decided(response)?;
    ensure!(response.value()?["decision"] == response.header("meridian-decision"), "{}", response.text());
    Ok(())
}

/// What an unsafe request beside may come to.
fn is_elsewhere_or_a_problem(response: &Response) -> Result<()> {
    if response.status == 404 { says_who_decided(response) } else { is_a_problem(response) }
}

/// Clients that ask again and again, each of which has to get what it asked for.
struct Beside {
    stop: Arc<AtomicBool>,
    gets: Asking,
    posts: Asking,
    /// Problems in the place of answers to unsafe requests.
    harmed: Arc<AtomicUsize>,
}

/// Clients of one kind.
struct Asking {
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Beside {
    fn start(client: &Client) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let gets = Asking::start(&stop, {
            let client = client.clone();
            move || client.get(ELSEWHERE)?.expect(404).map(drop)
        });
        let harmed = Arc::new(AtomicUsize::new(0));
        let posts = Asking::start(&stop, {
            let (client, harmed) = (client.clone(), Arc::clone(&harmed));
            move || {
                let response = client.request("POST", ELSEWHERE, Some(BODY.to_vec()))?;
                harmed.fetch_add(usize::from(response.status != 404), Ordering::Relaxed);
                is_elsewhere_or_a_problem(&response)
            }
        });
        let beside = Self { stop, gets, posts, harmed };
        beside.more_are_answered()?;
        Ok(beside)
    }

    fn more_are_answered(&self) -> Result<()> {
        self.gets.more_are_answered()?;
        self.posts.more_are_answered()
    }

    /// Lets them ask on for a while, and ends them. One instance has broken, and each client had one request under way.
    fn end(self) -> Result<()> {
        let more = self.more_are_answered();
        self.stop.store(true, Ordering::Relaxed);
        self.gets.end()?;
        self.posts.end()?;
        let harmed = self.harmed.load(Ordering::Relaxed);
        ensure!(harmed <= BESIDE, "{harmed} problems for what one instance owed {BESIDE} clients");
        more
    }
}

impl Asking {
    fn start(stop: &Arc<AtomicBool>, ask: impl Fn() -> Result<()> + Clone + Send + 'static) -> Self {
        let answered = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (stop, answered, ask) = (Arc::clone(stop), Arc::clone(&answered), ask.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    ask()?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients = (0..BESIDE).map(client).collect();
        Self { answered, clients }
    }

    fn more_are_answered(&self) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(RECOVER, || {
            let answered = self.answered.load(Ordering::Relaxed) - before;
            ensure!(
                answered >= ANSWERED || self.clients.iter().any(JoinHandle::is_finished),
                "{answered} answers"
            );
            Ok(())
        })
        .map(drop)
    }

    fn end(self) -> Result<()> {
        for client in self.clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}
