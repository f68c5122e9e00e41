//! An edge whose code breaks: panics, runs out of stack or memory, computes for ever. What broke is replaced, and requests
//! beside it are answered as if nothing had happened.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::stack::{Stack, eventually};

use crate::EdgeTest;
use crate::requests::{PARENT, says_who_decided};

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("what_breaks_is_replaced_and_harms_nobody", what_breaks_is_replaced_and_harms_nobody),
    ("an_endless_loop_is_ended", an_endless_loop_is_ended),
];

const PORT: u16 = 27320;
/// How long an edge may take to have its rules, or to be back.
const RECOVER: Duration = Duration::from_secs(60);
/// What breaks at once, and what breaks after it has waited.
const FAULTS: [&str; 4] = ["/.fault/panic", "/.fault/panic-later", "/.fault/trap-later", "/.fault/memory"];
/// Clients that ask beside what breaks.
const BESIDE: usize = 8;
/// What they ask for: it takes the rules to know that no route leads there, and so no limit is for it.
const ELSEWHERE: &str = "/nowhere";
/// As many answers prove that they are asking.
const ANSWERED: usize = 20;

fn what_breaks_is_replaced_and_harms_nobody(stack: &Stack, edge: &str) -> Result<()> {
    let (_edge, client, _) = start(stack, edge)?;
    for path in FAULTS {
        let beside = Beside::start(&client)?;
        // It is not made again, as a safe one would be.
        is_a_problem(&client.send("POST", path)?).with_context(|| format!("POST {path}"))?;
        beside.end().with_context(|| format!("beside {path}"))?;
        is_a_problem(&client.get(path)?).with_context(|| format!("GET {path}"))?;
        for _ in 0..5 {
            client.get("/v1/whoami")?.expect(200).with_context(|| format!("after {path}"))?;
        }
    }
    Ok(())
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

/// Clients that ask again and again, each of which has to get what it asked for.
struct Beside {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Beside {
    fn start(client: &Client) -> Result<Self> {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (client, stop, answered) = (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.get(ELSEWHERE)?.expect(404)?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients = (0..BESIDE).map(|_| ask()).collect();
        let beside = Self { stop, answered, clients };
        beside.more_are_answered()?;
        Ok(beside)
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

    /// Lets them ask on for a while, and ends them.
    fn end(self) -> Result<()> {
        let more = self.more_are_answered();
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        more
    }
}
