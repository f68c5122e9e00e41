//! `cargo xtask soak`: mixed load on the whole stack for a long time, while rules are pushed and rolled back, caches purged,
//! origins and a PostgreSQL killed. Nothing may fail that the rules don't explain, and no process may grow.

mod events;
mod load;
pub mod processes;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum as _};
use serde::Serialize;

use self::events::Events;
use self::load::{Kind, Loads, NO_ANSWER, Tally};
use self::processes::Processes;
use self::watch::{Series, Watch};
use crate::artefacts::HostProfile;
use crate::bench::upstream::Upstream;
use crate::limits::{POLL, SOAK_EVENT_PAUSE, SOAK_PARTS_MAX, SOAK_REST_CONNECTIONS_MAX, SOAK_REST_TIMEOUT};
use crate::paths;
use crate::progress::say;
use crate::report;
use crate::scratch::{Ports, Stack, Stop};

/// Where the report goes.
const REPORT: &str = "tests/bench/soak.md";

/// Arguments of `cargo xtask soak`.
#[derive(Args, Clone, Debug)]
pub struct Soak {
    /// How long the load lasts.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=7 * 24 * 60))]
    minutes: u64,
    /// Print everything that was counted as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Only requests of this kind, without pushes, purges and kills, to see what makes a process grow; may be given
    /// again. No report is written.
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// The edges listen on this port and the next, the upstream on the one after.
    #[arg(long, default_value_t = 18900)]
    port: u16,
    /// Origins of the stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 19000)]
    base_port: u16,
}

/// Everything that was counted.
#[derive(Debug, Serialize)]
struct Outcome {
    /// By edge and kind of request.
    load: BTreeMap<String, Tally>,
    events: Events,
    processes: BTreeMap<String, Series>,
    /// What must not be.
    faults: Vec<String>,
}

impl Soak {
    /// Runs the load, then writes and prints the report.
    ///
    /// # Errors
    /// When the stack does not start, something failed that the rules don't explain, or a process grew.
    pub fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        say("Setting up");
        let folder = paths::target()?.join("soak");
        let ports = Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port };
        let upstream = Upstream::start(self.port + 2)?;
        let stack = Stack::start(&folder, ports, HostProfile::default(), self.no_build, &stop)?;
        let events = Events::new(&stack, &upstream.url)?;
        say(&format!("Mixed load for {} minutes", self.minutes));
        let outcome = self.soak(&stack, events, &stop)?;
        drop(stack);
        let text = self.report(&outcome);
        println!("{text}");
        if self.json {
            println!("{}", serde_json::to_string(&outcome)?);
        }
        if self.only.is_empty() {
            say(&format!("Written to {}", report::write(REPORT, &text)?.display()));
        }
        ensure!(outcome.faults.is_empty(), "{} faults", outcome.faults.len());
        Ok(())
    }

    fn soak(&self, stack: &Stack, mut events: Events, stop: &Stop) -> Result<Outcome> {
        let (started, lasts) = (Instant::now(), Duration::from_secs(self.minutes * 60));
        let mut watch = Watch::new(started, lasts);
        let kinds = if self.only.is_empty() { Kind::value_variants() } else { &self.only };
        let loads = Loads::start(stack, kinds)?;
        let mut said = started;
        while started.elapsed() < lasts {
            stop.check()?;
            if self.only.is_empty() {
                events.next(stack, started.elapsed())?;
            }
            watch.look(&stack.up()?.pids);
            if said.elapsed() >= Duration::from_secs(60) {
                said = Instant::now();
                let minutes = started.elapsed().as_secs() / 60;
                say(&format!("  {minutes} min: {} requests, {}", loads.count(), events.summary()));
            }
            std::thread::sleep(SOAK_EVENT_PAUSE);
        }
        let (load, sent) = loads.stop()?;
        let mut faults = load::unexplained(&sent, &events.kills);
        faults.extend(watch.faults(&events.restarted()));
        faults.extend(events.faults());
        faults.extend(at_rest(stack, stop)?);
        Ok(Outcome { load, events, processes: watch.into_series(), faults })
    }

    fn report(&self, outcome: &Outcome) -> String {
        let command = format!("cargo xtask soak --minutes {}", self.minutes);
        let mut text = report::heading("Soak", &command, "the whole stack as `cargo xtask up` starts it");
        text.push_str(ABOUT);
        text.push_str("\n## Requests\n\n");
        let rows = outcome.load.iter().map(|(name, tally)| {
            let statuses = tally.statuses.iter().map(|(status, count)| match *status {
                NO_ANSWER => format!("{count} × none"),
                status => format!("{count} × {status}"),
            });
            vec![
                name.clone(),
                tally.requests.to_string(),
                statuses.collect::<Vec<_>>().join(", "),
                tally.p50_ms.to_string(),
                tally.p99_ms.to_string(),
            ]
        });
        text.push_str(&report::table(
            &["edge and kind", "requests", "answers", "p50 ms", "p99 ms"],
            &rows.collect::<Vec<_>>(),
        ));
        text.push_str(&format!("\n{}\n", outcome.events.summary()));
        text.push_str(PROCESSES);
        let rows = outcome.processes.iter().map(|(name, series)| series.row(name));
        let head = [
            "process",
            "MB then",
            "MB halfway",
            "MB at the end",
            "files then, at the end",
            "connections then, at the end",
            "restarts",
        ];
        text.push_str(&report::table(&head, &rows.collect::<Vec<_>>()));
        let parts = self.minutes.min(SOAK_PARTS_MAX);
        text.push_str(&format!("\nMemory in each of {parts} equal parts of the time, in MB:\n\n"));
        let rows = outcome.processes.iter().map(|(name, series)| vec![name.clone(), series.course(parts)]);
        text.push_str(&report::table(&["process", "MB"], &rows.collect::<Vec<_>>()));
        text.push_str("\n## Faults\n\n");
        if outcome.faults.is_empty() {
            text.push_str("None.\n");
        }
        for fault in &outcome.faults {
            text.push_str(&format!("- {fault}\n"));
        }
        text.push_str(&format!("\n{}\n", report::load()));
        text
    }
}

/// Edges that keep connections although the load is over, in words.
fn at_rest(stack: &Stack, stop: &Stop) -> Result<Vec<String>> {
    let since = Instant::now();
    loop {
        stop.check()?;
        let processes = Processes::now();
        let held = stack.up()?.pids.into_iter().filter(|(name, _)| name.starts_with("edge-"));
        let held = held.filter_map(|(name, pid)| Some((name, processes.look(pid)?.connections)));
        let too_many: Vec<_> = held.filter(|(_, held)| *held > SOAK_REST_CONNECTIONS_MAX).collect();
        if too_many.is_empty() || since.elapsed() > SOAK_REST_TIMEOUT {
            let words =
                |(name, held)| format!("{name} has {held} connections {SOAK_REST_TIMEOUT:?} after the load");
            return Ok(too_many.into_iter().map(words).collect());
        }
        std::thread::sleep(POLL);
    }
}

const ABOUT: &str = "
Both edges get reads, by tokens that are known and each time by a new one, cached reads, keyed writes, requests without a route,
with an expired token and beyond a limit, and to an upstream of the tenant's requests, small `POST`s, uploads of a megabyte, uploads
whose client is gone after a quarter, and requests through a function (in Spin a component, on workerd the service that stands for
one), all at once, over HTTP/1.1, from near each of the three regions; no WebSocket, no HTTP/2 and no TLS are among them. Meanwhile
rules are pushed and every other time rolled back, tags are purged, and the origins of all regions, the tenant's home among them,
and the PostgreSQL of eu-west-1 are killed in turn. Not killed are the other two PostgreSQL servers, the edges and the upstream.

A fault is an answer that the request's kind does not explain, other than of a request to an origin that was on its way at a
kill and failed within a second: reads, keyed writes and requests at a limit find another region, and the limit fails open where
whoever counts it is away. What goes to the upstream is explained by 200 alone, whatever is killed. Rules are released at home:
while that is away, pushes wait for it; purges tell every region, and wait for whichever is away. A fault is, too, memory, open files or connections of a process that grow, but
for PostgreSQL's memory and files, which go by what lies in its tables and by its own workers, and are shown alone; connections
that an edge still has a while after the load; a region that is not ready half a minute after a kill; or a push or rollback that an
edge does not see in time.
";

const PROCESSES: &str = "
## Processes

Each with its children; memory that several processes share counts in part; in parentheses what is no page of a file. Medians
of the second tenth, of the tenth in the middle and of the last tenth of the time; of what was killed, what the first, the middle
and the last held of those that began after the first tenth and lived from one kill to another, right before the latter. Files of
Durable Objects are left out: workerd has three of each open that counted something in the last seconds.

";
