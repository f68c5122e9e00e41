//! A steady load of idempotent requests on one edge, every one of them written down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::stack::{Stack, eventually};
use serde_json::json;

use crate::regions::{RECORDS, query, writer};

/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(25);
/// Requests of one subject, fewer than its rate limit of a minute.
const REQUESTS_EACH: usize = 250;
/// Subjects that share the load, and so its length.
const SUBJECTS: usize = 12;
/// Failures are forgiven within this time of a kill, and only those of requests that were on their way.
const FORGIVEN: Duration = Duration::from_secs(1);

/// What a load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A list of records, past the cache.
    Read,
    /// New records, each with an `Idempotency-Key` of its own.
    Write,
}

/// One request of a load.
struct Sent {
    started: Instant,
    /// When its response had come, or the connection had failed.
    ended: Instant,
    /// The response's status and region, or why there is none.
    answer: Result<(u16, String), String>,
}

/// A load that goes on until it is stopped.
pub struct Load {
    /// Edge and work, for people.
    name: String,
    work: Work,
    clients: Vec<Client>,
    sent: Arc<Mutex<Vec<Sent>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A load that was stopped.
pub struct Done {
    name: String,
    sent: Vec<Sent>,
    work: Work,
    clients: Vec<Client>,
}

impl Load {
    /// Starts to ask an edge from near one region.
    pub fn start(stack: &Stack, edge: &str, region: &str, work: Work) -> Result<Self> {
        let name = format!("{edge} {work:?}").to_lowercase();
        let clients = (0..SUBJECTS)
            .map(|number| writer(stack, edge, &format!("load-{name}-{number}"), region))
            .collect::<Result<Vec<_>>>()?;
        let (sent, stop) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (name, clients, sent, stop) =
                (name.clone(), clients.clone(), Arc::clone(&sent), Arc::clone(&stop));
            move || {
                for number in 0..SUBJECTS * REQUESTS_EACH {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let started = Instant::now();
                    let answer = ask(&clients, work, &name, number)
                        .map(|response| (response.status, response.header("meridian-region").to_owned()))
                        .map_err(|error| format!("{error:#}"));
                    lock(&sent).push(Sent { started, ended: Instant::now(), answer });
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Ok(Self { name, work, clients, sent, stop, thread })
    }

    /// Fails unless a region served this many requests that were sent after `since`.
    pub fn was_served(&self, wanted: usize, region: &str, since: Instant) -> Result<()> {
        let sent = lock(&self.sent);
        let new = sent.iter().filter(|sent| sent.started > since);
        let served =
            new.filter(|sent| sent.served() && sent.answer.as_ref().is_ok_and(|(_, by)| by == region));
        let served = served.count();
        ensure!(served >= wanted, "{region} served {served} requests of {}", self.name);
        Ok(())
    }

    /// Stops it. Fails where it had stopped by itself.
    pub fn stop(self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load {} panicked", self.name))?;
        let sent = std::mem::take(&mut *lock(&self.sent));
        ensure!(sent.len() < SUBJECTS * REQUESTS_EACH, "the load {} ended before it was stopped", self.name);
        Ok(Done { name: self.name, sent, work: self.work, clients: self.clients })
    }
}

impl Sent {
    fn served(&self) -> bool {
        matches!(self.answer, Ok((200 | 201, _)))
    }

    /// Whether it was on its way at a kill, and its client knew soon after that it had failed.
    fn forgiven(&self, killed: Instant) -> bool {
        self.started < killed && self.ended > killed && self.ended < killed + FORGIVEN
    }

    /// Seconds from the last of these moments that it lived to see the start of, or else the first.
    fn after(&self, kills: &[Instant]) -> f64 {
        let Some(kill) = kills.iter().rfind(|kill| **kill < self.ended).or(kills.first()) else { return 0.0 };
        let before = kill.saturating_duration_since(self.started).as_secs_f64();
        self.started.saturating_duration_since(*kill).as_secs_f64() - before
    }
}

impl Done {
    /// How many requests there were, and how many failed in which second after the kill before them.
    pub fn summary(&self, kills: &[Instant]) -> String {
        let mut seconds: BTreeMap<i64, usize> = BTreeMap::new();
        for sent in self.failed() {
            *seconds.entry(sent.after(kills).floor() as i64).or_default() += 1;
        }
        let failed: Vec<_> =
            seconds.iter().map(|(second, count)| format!(", {count} in second {second}")).collect();
        let (name, all, count) = (&self.name, self.sent.len(), self.failed().count());
        format!("{name}: {all} requests, {count} failed{}", failed.concat())
    }

    /// Failures of requests that were not on their way at a kill, or that took longer than a second to fail.
    pub fn unforgiven(&self, kills: &[Instant]) -> Vec<String> {
        let failed = self.failed().filter(|sent| !kills.iter().any(|kill| sent.forgiven(*kill)));
        let words = |sent: &Sent| {
            let (at, took) = (sent.after(kills), (sent.ended - sent.started).as_secs_f64());
            format!("{}: {:?} in {took:.3} s to what was sent {at:.3} s after a kill", self.name, sent.answer)
        };
        failed.map(words).collect()
    }

    fn failed(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.served())
    }

    /// Asks again, with the same key, for what failed to be written; then every region has one record of each request.
    pub fn is_written_once(&self, stack: &Stack, limit: Duration) -> Result<()> {
        if self.work == Work::Read {
            return Ok(());
        }
        for number in (0..self.sent.len()).filter(|number| !self.sent[*number].served()) {
            ask(&self.clients, self.work, &self.name, number)?.expect(201)?;
        }
        let (name, expected) = (&self.name, i64::try_from(self.sent.len())?);
        let sql = format!(
            "select count(*) from meridian.record where tenant = 'acme' and fields ->> 'customer' = '{name}'"
        );
        for (region, origin) in &stack.up()?.origins {
            eventually(limit, || {
                let found = query(&origin.postgres, &sql)?;
                ensure!(found == expected, "{name}: {region} has {found} records of {expected} requests");
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn ask(clients: &[Client], work: Work, name: &str, number: usize) -> Result<Response> {
    let client = clients.get(number / REQUESTS_EACH).context("a subject for each part of the load")?;
    match work {
        Work::Read => client.get(&format!("{RECORDS}?limit=1")),
        Work::Write => client.with("idempotency-key", &format!("{name} {number}")).json(
            "POST",
            RECORDS,
            &json!({"customer": name, "total": number}),
        ),
    }
}

fn lock(sent: &Mutex<Vec<Sent>>) -> MutexGuard<'_, Vec<Sent>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}
