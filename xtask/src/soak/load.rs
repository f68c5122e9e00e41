//! The load: every kind of request to both edges, each in a thread of its own, with what came of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::limits::{REQUEST_TIMEOUT, SOAK_FAULTS_MAX, SOAK_REQUEST_PAUSE, SOAK_UPLOAD_PAUSE};
use crate::scratch::Stack;
use crate::stack::keys::Keys;
use crate::stack::layout::REGIONS;
use crate::stack::tokens::Issuer;

/// Subjects that share a load: each stays within its limit.
const SUBJECTS: usize = 16;
/// What was on its way at a kill may fail within this time.
const FORGIVEN: Duration = Duration::from_secs(1);
/// The tenant's hostname.
pub const HOST: &str = "acme.localhost";
const RECORDS: &str = "/v1/collections/orders/records";
/// Bytes of an upload: longer than what an edge keeps for another attempt.
const UPLOAD_BYTES: usize = 1_000_000;
/// Bytes of one whose client is gone then.
const GONE_BYTES: usize = UPLOAD_BYTES / 4;
/// Counted as the status of no answer.
pub const NO_ANSWER: u16 = 0;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A list of records, past the cache.
    Read,
    /// The same from the cache where it can be.
    Cached,
    /// A new record, with an `Idempotency-Key`.
    Write,
    /// A path that no route is for.
    Nowhere,
    /// A token that was valid yesterday.
    Expired,
    /// One subject, beyond its limit.
    Limited,
    /// Forwarded to an upstream.
    Forwarded,
    /// A small `POST` to an upstream, without an `Idempotency-Key`.
    Post,
    /// A megabyte to an upstream.
    Upload,
    /// Through a function of the tenant's own to an upstream.
    Function,
    /// A list of records, each time with a token that nobody has seen.
    Newcomer,
    /// An upload whose client is gone before it is whole.
    Gone,
}

impl Kind {
    /// Statuses that it explains.
    const fn explains(self, status: u16) -> bool {
        match self {
            Self::Read
            | Self::Cached
            | Self::Forwarded
            | Self::Post
            | Self::Upload
            | Self::Function
            | Self::Newcomer => status == 200,
            Self::Gone => status == NO_ANSWER,
            Self::Write => status == 201,
            Self::Nowhere => status == 404,
            Self::Expired => status == 401,
            Self::Limited => matches!(status, 200 | 429),
        }
    }

    /// Whether an origin answers it: where it was on its way at a kill, it may fail. No upstream is killed.
    const fn meets_kills(self) -> bool {
        matches!(self, Self::Read | Self::Cached | Self::Write | Self::Limited | Self::Newcomer)
    }

    fn path(self, number: usize) -> String {
        match self {
            Self::Read | Self::Limited | Self::Expired | Self::Newcomer => format!("{RECORDS}?limit=1"),
            Self::Cached => format!("{RECORDS}?limit={}", 1 + number % 20),
            Self::Write => RECORDS.to_owned(),
            Self::Nowhere => format!("/nowhere/{}", number % 1_000),
            Self::Forwarded | Self::Post | Self::Upload | Self::Gone => format!("/soak/{}", number % 1_000),
            Self::Function => format!("/soak/function/{}", number % 1_000),
        }
    }

    /// Bytes that are sent of an upload.
    const fn body_bytes(self) -> usize {
        match self {
            Self::Upload => UPLOAD_BYTES,
            Self::Gone => GONE_BYTES,
            _ => 0,
        }
    }

    const fn pause(self) -> Duration {
        if matches!(self, Self::Upload | Self::Gone) { SOAK_UPLOAD_PAUSE } else { SOAK_REQUEST_PAUSE }
    }
}

/// What came of the requests of one kind to one edge.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// How many there were.
    pub requests: u64,
    /// How many of each status, or [`NO_ANSWER`].
    pub statuses: BTreeMap<u16, u64>,
    /// Half of the answers took at most so long.
    pub p50_ms: u64,
    /// 99 of 100 answers took at most so long.
    pub p99_ms: u64,
}

/// A request that did not come to what its kind explains.
#[derive(Clone, Debug)]
pub struct Failed {
    edge: String,
    kind: Kind,
    started: Instant,
    ended: Instant,
    what: String,
}

/// The load of one thread, when it has ended.
struct Done {
    name: String,
    statuses: BTreeMap<u16, u64>,
    /// How many answers took so many milliseconds.
    took_ms: BTreeMap<u64, u64>,
    failed: Vec<Failed>,
}

/// A running load.
pub struct Loads {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    first_fault: Arc<Mutex<Option<String>>>,
    threads: Vec<JoinHandle<Done>>,
}

/// One thread's work.
struct Load {
    edge: String,
    url: String,
    kind: Kind,
    /// Who asks, in turn: a token, and an address whose nearest region is another for each.
    clients: Vec<(String, String)>,
    /// What tokens are signed with.
    keys: Arc<Keys>,
    /// What an upload consists of.
    body: Vec<u8>,
}

impl Loads {
    /// Starts requests of these kinds.
    ///
    /// # Errors
    /// When the stack has ended.
    pub fn start(stack: &Stack, kinds: &[Kind]) -> Result<Self> {
        let keys = Arc::new(Keys::load(&stack.folder().join("keys"))?);
        let issuer = Issuer::acme(&keys);
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let first_fault = Arc::default();
        let up = stack.up()?;
        let near = |region: &str| -> Result<String> {
            let address = up.places.iter().find(|(_, nearest)| *nearest == region);
            Ok(address.with_context(|| format!("no address is near {region}"))?.0.clone())
        };
        let addresses = REGIONS.iter().map(|region| near(region.id)).collect::<Result<Vec<String>>>()?;
        let mut threads = Vec::new();
        for (edge, url) in up.edges {
            for &kind in kinds {
                let subject = |number: usize| format!("soak-{edge}-{kind:?}-{number}").to_lowercase();
                let token = |number: usize| match kind {
                    Kind::Expired => issuer.expired(&subject(number), "orders:read"),
                    _ => issuer.token(&subject(number), "orders:read orders:write"),
                };
                let subjects = if kind == Kind::Limited { 1 } else { SUBJECTS };
                let client = |number: usize| (token(number), addresses[number % addresses.len()].clone());
                let clients = (0..subjects).map(client).collect();
                let body = vec![b'u'; kind.body_bytes()];
                let (edge, url, keys) = (edge.clone(), url.clone(), Arc::clone(&keys));
                let load = Load { edge, url, kind, clients, keys, body };
                let (stop, count, first) = (Arc::clone(&stop), Arc::clone(&count), Arc::clone(&first_fault));
                threads.push(std::thread::spawn(move || load.run(&stop, &count, &first)));
            }
        }
        Ok(Self { stop, count, first_fault, threads })
    }

    /// How many requests were made, and the first that failed.
    pub fn count(&self) -> String {
        let count = self.count.load(Ordering::Relaxed);
        match &*self.first_fault.lock().unwrap_or_else(PoisonError::into_inner) {
            None => count.to_string(),
            Some(what) => format!("{count} (first not explained by its kind: {what})"),
        }
    }

    /// Stops it; what came of it, and what failed.
    ///
    /// # Errors
    /// When a thread has panicked.
    pub fn stop(self) -> Result<(BTreeMap<String, Tally>, Vec<Failed>)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut tallies, mut failed) = (BTreeMap::new(), Vec::new());
        for thread in self.threads {
            let done = thread.join().ok().context("a thread of the load has panicked")?;
            let requests = done.statuses.values().sum();
            let (p50_ms, p99_ms) = (within(&done.took_ms, 0.5), within(&done.took_ms, 0.99));
            tallies.insert(done.name, Tally { requests, statuses: done.statuses, p50_ms, p99_ms });
            failed.extend(done.failed);
        }
        Ok((tallies, failed))
    }
}

/// The least number of milliseconds within which this share of the answers came.
fn within(took_ms: &BTreeMap<u64, u64>, share: f64) -> u64 {
    let all: u64 = took_ms.values().sum();
    let wanted = (all as f64 * share).ceil() as u64;
    let mut so_far = 0;
    let found = took_ms.iter().find(|(_, count)| {
        so_far += **count;
        so_far >= wanted
    });
    found.map_or(0, |(ms, _)| *ms)
}

/// What failed and was not on its way at one of these moments, in words.
pub fn unexplained(failed: &[Failed], kills: &[Instant]) -> Vec<String> {
    let forgiven = |one: &Failed| {
        let met = |kill: &Instant| one.started < *kill && one.ended > *kill && one.ended < *kill + FORGIVEN;
        one.kind.meets_kills() && kills.iter().any(met)
    };
    let found = failed.iter().filter(|one| !forgiven(one));
    let words = |one: &Failed| {
        let before = kills.iter().rfind(|kill| **kill < one.ended);
        let since = before.map_or("before any kill".to_owned(), |kill| {
            format!("{:.1} s after a kill", (one.ended - *kill).as_secs_f64())
        });
        let took = (one.ended - one.started).as_secs_f64();
        format!("{} {:?}: {} in {took:.3} s, {since}", one.edge, one.kind, one.what)
    };
    found.map(words).collect()
}

impl Load {
    fn run(self, stop: &AtomicBool, count: &AtomicU64, first_fault: &Mutex<Option<String>>) -> Done {
        let name = format!("{}, {}", self.edge, format!("{:?}", self.kind).to_lowercase());
        let mut done = Done { name, statuses: BTreeMap::new(), took_ms: BTreeMap::new(), failed: Vec::new() };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .build()
            .into();
        for number in 0_usize.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let started = Instant::now();
            let answer = self.ask(&agent, number);
            let ended = Instant::now();
            count.fetch_add(1, Ordering::Relaxed);
            *done.statuses.entry(answer.as_ref().map_or(NO_ANSWER, |(status, _)| *status)).or_default() += 1;
            let ms = u64::try_from((ended - started).as_millis()).unwrap_or(u64::MAX);
            *done.took_ms.entry(ms).or_default() += 1;
            let what = match answer {
                Ok((status, _)) if self.kind.explains(status) => None,
                Ok((status, body)) => Some(format!("{status} {body}")),
                Err(error) => Some(format!("{error:#}")),
            };
            if let Some(what) = what {
                let first = &mut *first_fault.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{} {:?} {what}", self.edge, self.kind));
                if done.failed.len() < SOAK_FAULTS_MAX {
                    let (edge, kind) = (self.edge.clone(), self.kind);
                    done.failed.push(Failed { edge, kind, started, ended, what });
                }
            }
            std::thread::sleep(self.kind.pause());
        }
        done
    }

    /// The status of the answer, and of one that should not be what it says.
    fn ask(&self, agent: &ureq::Agent, number: usize) -> Result<(u16, String)> {
        let url = format!("{}{}", self.url, self.kind.path(number));
        let sent = match self.kind {
            Kind::Write => {
                let record = json!({"customer": "soak", "item": "bricks", "total": number});
                let key = format!("{}-{number}", self.edge);
                self.by_client(agent.post(&url), number).header("idempotency-key", &key).send_json(record)
            }
            Kind::Post => self.by_client(agent.post(&url), number).send_json(json!({"number": number})),
            Kind::Upload => {
                let upload = self.by_client(agent.post(&url), number);
                upload.header("content-type", "application/octet-stream").send(self.body.as_slice())
            }
            Kind::Gone => return self.break_off(number),
            kind => {
                let past = if kind == Kind::Read { "no-cache" } else { "max-age=3600" };
                self.by_client(agent.get(&url), number).header("cache-control", past).call()
            }
        };
        let mut response = sent.context("no answer")?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string().context("half an answer")?;
        let shown = body.char_indices().nth(300).map_or(body.as_str(), |(end, _)| &body[..end]).to_owned();
        Ok((status, shown))
    }

    /// Sends a part of an upload and goes.
    fn break_off(&self, number: usize) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
        let path = self.kind.path(number);
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n")?;
        stream.write_all(&self.body)?;
        Ok((NO_ANSWER, String::new()))
    }

    /// A request of the client whose turn it is.
    fn by_client<B>(&self, request: ureq::RequestBuilder<B>, number: usize) -> ureq::RequestBuilder<B> {
        let (token, address) = &self.clients[number % self.clients.len()];
        let request = request.header("host", HOST).header("x-forwarded-for", address);
        if self.kind == Kind::Newcomer {
            let subject = format!("soak-{}-newcomer-{number}", self.edge);
            let token = Issuer::acme(&self.keys).token(&subject, "orders:read");
            return request.header("authorization", format!("Bearer {token}"));
        }
        request.header("authorization", format!("Bearer {token}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_answers_are_found() {
        let took = BTreeMap::from([(1, 50), (2, 49), (90, 1)]);
        assert_eq!((within(&took, 0.5), within(&took, 0.99), within(&took, 1.0)), (1, 2, 90));
        assert_eq!(within(&BTreeMap::new(), 0.5), 0);
    }

    #[test]
    fn only_what_was_on_its_way_at_a_kill_is_forgiven() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let failed_as = |kind, from, to| Failed {
            edge: "spin".to_owned(),
            kind,
            started: at(from),
            ended: at(to),
            what: "502".to_owned(),
        };
        let failed = |from, to| failed_as(Kind::Read, from, to);
        let all = [failed(900, 1_100), failed(900, 2_100), failed(1_001, 1_100), failed(100, 200)];
        assert_eq!(unexplained(&all, &[at(1_000)]).len(), 3);
        assert_eq!(unexplained(&all, &[]).len(), 4);
        let upstreams = [failed_as(Kind::Post, 900, 1_100)];
        assert_eq!(unexplained(&upstreams, &[at(1_000)]).len(), 1, "no upstream was killed");
    }
}
