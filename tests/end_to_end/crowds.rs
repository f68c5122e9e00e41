//! A target that is slow: equal requests that wait for one answer, and requests that ask elsewhere as well.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::serve::serve;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};

use crate::EdgeTest;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("fetches_once_what_many_ask_for", fetches_once_what_many_ask_for),
    ("asks_elsewhere_beside_a_slow_region", asks_elsewhere_beside_a_slow_region),
];

/// Clients that ask at the same time.
const CLIENTS: usize = 50;
/// Crowds that may come before one meets few enough instances.
const CROWDS: u32 = 3;
/// After so long without a request an instance in the Spin host is gone.
const IDLE: Duration = Duration::from_secs(32);
/// Requests that an instance in the Spin host answers at the same time.
const SPIN_AT_ONCE: usize = 16;
/// How long the slow target takes for what is to be kept: longer than the clients take to ask.
const SLOW: Duration = Duration::from_secs(2);
/// How long the target that does not answer may be waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

fn fetches_once_what_many_ask_for(stack: &Stack, edge: &str) -> Result<()> {
    let target = Target::start()?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: slow}}\n\
         spec: {{regions: {{us-east-1: \"{}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {{name: own}}\nspec: {{}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: crowd}}\n\
         spec: {{match: {{path: \"/crowd/**\"}}, auth: {{mode: anonymous}}, cache: own, upstream: slow}}\n",
        target.url
    );
    with_rules(stack, edge, &rules, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || client.get("/crowd/first")?.expect(200).map(drop))?;
        let instances = instances_max(edge)?;
        fetches_at_most(&target, &client, "/crowd/second", instances)?;
        // Who has it already: the first of an instance asks with its condition, the second for all others.
        fetches_at_most(&target, &client.with("if-none-match", "\"s\""), "/crowd/third", 2 * instances)
    })
}

/// Asks for a path many times at once, and looks at how often the target is asked. Every instance that is there takes some of a
/// crowd and fetches for itself: where those before have left more of them, another crowd comes once they are gone.
fn fetches_at_most(target: &Target, client: &Client, path: &str, fetches_max: u32) -> Result<()> {
    let mut last = Ok(());
    for number in 0..CROWDS {
        if number > 0 {
            std::thread::sleep(IDLE);
            client.get(&format!("{path}/{number}/first"))?;
        }
        last = crowd(target, client, &format!("{path}/{number}"), fetches_max);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn crowd(target: &Target, client: &Client, path: &str, fetches_max: u32) -> Result<()> {
    let before = target.requests();
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, path) = (client.clone(), path.to_owned());
            std::thread::spawn(move || client.get(&path))
        })
        .collect();
    let mut collapsed = 0;
    for one in crowd {
        let response = one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        let expect = if response.status == 304 { "" } else { "slowly" };
        ensure!(matches!(response.status, 200 | 304), "{} {}", response.status, response.text());
        ensure!(response.text() == expect, "{:?}", response.text());
        collapsed += u32::from(response.header("cache-status").contains("collapsed"));
    }
    let fetches = target.requests() - before;
    println!("{path}: {fetches} fetches for {CLIENTS} requests, at most {fetches_max} expected");
    ensure!((1..=fetches_max).contains(&fetches), "{fetches} fetches for {CLIENTS} requests");
    ensure!(collapsed > 0, "nobody says that it has waited");
    Ok(())
}

/// Instances that the crowd may meet, each of which fetches once: one isolate, or in each of the Spin host's threads as
/// many as its share of the crowd fills, and another one for a share that is not even.
fn instances_max(edge: &str) -> Result<u32> {
    if edge == "cloudflare" {
        return Ok(1);
    }
    let threads = std::thread::available_parallelism()?.get();
    let in_a_thread = CLIENTS.div_ceil(threads).div_ceil(SPIN_AT_ONCE) + 1;
    Ok(u32::try_from(threads * in_a_thread)?)
}

fn asks_elsewhere_beside_a_slow_region(stack: &Stack, edge: &str) -> Result<()> {
    let (slow, quick) = (Target::start()?, Target::start()?);
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: uneven}}\n\
         spec: {{regions: {{us-east-1: \"{}/never\", eu-west-1: \"{}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: hedged}}\n\
         spec:\n  match: {{path: /hedged}}\n  auth: {{mode: anonymous}}\n  upstream: uneven\n  \
         steering: {{strategy: priority, regions: [us-east-1, eu-west-1], timeout: {}s, hedge: {{after: 100ms}}}}\n",
        slow.url,
        quick.url,
        TIMEOUT.as_secs()
    );
    with_rules(stack, edge, &rules, |url| {
        let client = Client::new(url, "acme.localhost");
        let mut answered = Duration::ZERO;
        eventually(SEEN_MAX, || {
            let started = Instant::now();
            let response = client.get("/hedged")?.expect(200)?;
            answered = started.elapsed();
            ensure!(response.header("meridian-region") == "eu-west-1", "{:?}", response.headers);
            Ok(())
        })?;
        ensure!(answered < TIMEOUT / 2, "the slow region was waited for: {answered:?}");
        ensure!(slow.requests() > 0 && quick.requests() > 0, "one of the regions was not asked");
        eventually(TIMEOUT / 2, || {
            ensure!(slow.given_up() == slow.requests(), "the slow region still works for nobody");
            Ok(())
        })?;
        Ok(())
    })
}

/// Answers `/never/…` never, `/hedged` at once, and everything else after a while, to be kept for a minute.
struct Target {
    url: String,
    requests: Arc<AtomicU32>,
    given_up: Arc<AtomicU32>,
}

impl Target {
    fn start() -> Result<Self> {
        let mut target = Self { url: String::new(), requests: Arc::default(), given_up: Arc::default() };
        let (requests, given_up) = (Arc::clone(&target.requests), Arc::clone(&target.given_up));
        target.url = serve(move |stream| answer(stream, &requests, &given_up))?;
        Ok(target)
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that are not answered and that nobody waits for any more.
    fn given_up(&self) -> u32 {
        self.given_up.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, requests: &AtomicU32, given_up: &AtomicU32) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    }
    requests.fetch_add(1, Ordering::Relaxed);
    let line = String::from_utf8_lossy(&request);
    let path = line.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/never/") {
        // Until the other side closes.
        let _closed = stream.read(&mut part);
        given_up.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    if path != "/hedged" {
        std::thread::sleep(SLOW);
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\netag: \"s\"\r\ncontent-length: 6\r\nconnection: close\r\n\r\nslowly"
    )
}
