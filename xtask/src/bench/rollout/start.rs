//! Cold start: from the start of a process to its first answer.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::edges::{Kind, OwnEdge, Start, empty_worker};
use super::{HOST, OPEN, Rig, forget};
use crate::bench::cpu::run_seconds;
use crate::progress::say;
use crate::report::{self, Spread};
use crate::stack::http::{Request, agent};
use crate::stack::supervise::Service;

/// Requests whose processor time is that of one instance each, or of one kept.
const REQUESTS: u32 = 200;

/// The starts of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Starts {
    what: &'static str,
    /// With nothing that an earlier one left.
    first: Start,
    /// With what the first one left.
    others: Vec<Start>,
}

/// A request in the Spin host.
#[derive(Clone, Debug, Serialize)]
pub struct Instances {
    /// Processor time of a request in an instance that was there, in milliseconds.
    kept_ms: f64,
    /// And in one that is made for it.
    fresh_ms: f64,
}

/// Everything of this part.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    starts: Vec<Starts>,
    instances: Instances,
}

/// Measures.
///
/// # Errors
/// When one does not start.
pub fn measure(rig: &Rig, count: u32) -> Result<Started> {
    say("Cold start");
    let mut starts = Vec::new();
    for kind in Kind::ALL {
        starts.push(several(rig, kind.title(), count, |state| kind.service(rig, state))?);
    }
    starts.push(several(rig, "a worker that only answers, on workerd", count, |state| {
        empty_worker(rig, state)
    })?);
    let state = rig.state("start")?;
    let kept_ms = a_request(rig, Kind::Spin.service(rig, &state)?)?;
    let mut service = Kind::Spin.service(rig, &state)?;
    service.arguments.extend(["--instance-requests-max", "1"].map(OsString::from));
    let fresh_ms = a_request(rig, service)?;
    forget(&state)?;
    Ok(Started { starts, instances: Instances { kept_ms, fresh_ms } })
}

fn several(
    rig: &Rig,
    what: &'static str,
    count: u32,
    service: impl Fn(&Path) -> Result<Service>,
) -> Result<Starts> {
    let state = rig.state("start")?;
    let start = || -> Result<Start> { Ok(OwnEdge::start(rig, service(&state)?, HOST, OPEN)?.start) };
    let first = start()?;
    let others = (0..count).map(|_| start()).collect::<Result<Vec<_>>>()?;
    forget(&state)?;
    if let Some(cpu) = Spread::of(others.iter().map(|start| start.cpu_ms)) {
        say(&format!("  {what}: {} ms of processor time", cpu.text(1)));
    }
    Ok(Starts { what, first, others })
}

/// Processor time of one request after the other, each of them.
fn a_request(rig: &Rig, service: Service) -> Result<f64> {
    let edge = OwnEdge::start(rig, service, HOST, OPEN)?;
    let (agent, url) = (agent(), format!("{}{OPEN}", edge.url));
    let ask = || -> Result<()> {
        for _ in 0..REQUESTS {
            rig.stop.check()?;
            Request::get(&url).header("host", HOST).send_by(&agent)?;
        }
        Ok(())
    };
    // So that no code is compiled while it is measured.
    ask()?;
    let before = run_seconds(edge.pid())?;
    ask()?;
    Ok((run_seconds(edge.pid())? - before) * 1e3 / f64::from(REQUESTS))
}

/// As a part of the report.
///
/// # Errors
/// When nothing was measured.
pub fn report(started: &Started) -> Result<String> {
    let mut rows = Vec::new();
    for Starts { what, first, others } in &started.starts {
        let of = |value: fn(&Start) -> f64| Spread::of(others.iter().map(value)).context("no start");
        rows.push(vec![
            (*what).to_owned(),
            of(|start| start.listening_ms)?.text(0),
            of(|start| start.answered_ms)?.text(0),
            of(|start| start.cpu_ms)?.text(1),
            format!("{:.0}", first.answered_ms),
            format!("{:.1}", first.cpu_ms),
        ]);
    }
    let head = [
        "what",
        "listens after, ms",
        "first answer after, ms",
        "processor time until then, ms",
        "the very first: answer, ms",
        "processor time, ms",
    ];
    let Instances { kept_ms, fresh_ms } = started.instances;
    Ok(format!(
        "\n## Cold start\n{ABOUT}\n{}\nIn the Spin host a request takes {kept_ms:.2} ms of processor time in an instance that \
         was there and {fresh_ms:.2} ms in one of its own: {:.1} times as much ({REQUESTS} requests one after the other, \
         `--instance-requests-max 1`).\n",
        report::table(&head, &rows),
        fresh_ms / kept_ms
    ))
}

const ABOUT: &str = "
From the start of a process to its first answer: a request that a route forwards to a server on this machine. The edge reads
its configuration and has to ask an origin whose the hostname is and for the rules. *The very first* start finds nothing on
disk, and the Spin host compiles the component then; the others find what it left. What of workerd's start is not ours is what
a worker takes that only answers. The target, below 20 ms of processor time, is about a worker's own start-up, which is less
than what is above that. An isolate of workerd can't be told apart from its process. Median (least–greatest).
";
