//! What happens meanwhile: rules are pushed and rolled back, tags purged, origins and a PostgreSQL killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;
use serde::Serialize;

use super::load::HOST;
use crate::artefacts;
use crate::limits::{SOAK_BACK_MAX, SOAK_KILL_EVERY, SOAK_PURGE_EVERY, SOAK_PUSH_EVERY, SOAK_PUSH_SEEN_MAX};
use crate::report::Spread;
use crate::scratch::Stack;
use crate::stack::http::{Request, agent};
use crate::stack::layout::REGIONS;
use crate::stack::process::Identity;

/// Those that are killed, in turn.
const VICTIMS: [&str; 4] =
    ["origin-eu-west-1", "origin-us-east-1", "origin-ap-southeast-1", "postgres-eu-west-1"];
/// Where the tenant's rules are released: nothing is pushed or purged while it is away.
const HOME: &str = REGIONS[0].id;
const TARGET: &str = "tenant:acme";
/// Clients that ask at once whether an edge decides by the rules of the load, and how often each of them.
const CROWD: usize = 32;
const IN_A_ROW: usize = 20;

/// What the load asks for beside the demo's rules.
const RULES: &str = r#"apiVersion: meridian/v1
kind: Upstream
metadata: {name: soak}
spec: {regions: {us-east-1: "@UPSTREAM@", eu-west-1: "@UPSTREAM@", ap-southeast-1: "@UPSTREAM@"}}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: soak}
spec: {match: {path: "/soak/**"}, auth: {mode: anonymous}, upstream: soak}
---
apiVersion: meridian/v1
kind: Function
metadata: {name: probe}
spec: {component: probe.wasm, cpu: 500ms, timeout: 10s, maxMemoryBytes: 16777216}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: soak-function}
spec: {match: {path: "/soak/function/**"}, auth: {mode: anonymous}, upstream: soak, function: probe}
"#;

/// What has happened so far.
#[derive(Debug, Serialize)]
pub struct Events {
    /// The rules to push.
    #[serde(skip)]
    folder: PathBuf,
    /// Version of the rules in force.
    version: String,
    pushes: u32,
    rollbacks: u32,
    purges: u32,
    /// When something was killed.
    #[serde(skip)]
    pub kills: Vec<Instant>,
    /// What was killed last, until it is back.
    #[serde(skip)]
    away: Option<Away>,
    /// Milliseconds from a release to the first decision by it, by edge.
    seen_ms: BTreeMap<String, Vec<f64>>,
    /// Milliseconds from a kill until the region is ready, by what was killed.
    back_ms: BTreeMap<&'static str, Vec<f64>>,
    /// What did not happen as it should.
    wrong: Vec<String>,
}

/// What was killed.
#[derive(Clone, Copy, Debug)]
struct Away {
    victim: &'static str,
    pid: u32,
    since: Instant,
}

impl Events {
    /// Nothing yet but the rules of the load, whose upstream this is.
    ///
    /// # Errors
    /// When the demo's rules can't be copied, or those of the load are refused or not seen.
    pub fn new(stack: &Stack, upstream: &str) -> Result<Self> {
        let folder = stack.folder().join("soak-rules");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        for entry in fs::read_dir(stack.folder().join("demo/acme")).context("no rules of the demo")? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name())).context("could not copy a rule")?;
        }
        let rules = RULES.replace("@UPSTREAM@", upstream);
        fs::write(folder.join("soak-routes.yaml"), rules).context("could not write the load's rules")?;
        fs::copy(artefacts::function()?, folder.join("probe.wasm")).context("could not copy the function")?;
        let mut events = Self {
            folder,
            version: String::new(),
            pushes: 0,
            rollbacks: 0,
            purges: 0,
            kills: Vec::new(),
            away: None,
            seen_ms: BTreeMap::new(),
            back_ms: BTreeMap::new(),
            wrong: Vec::new(),
        };
        events.push(stack)?;
        for url in stack.up()?.edges.values() {
            settle(url, &events.version)?;
        }
        Ok(events)
    }

    /// Lets happen what is due after so long.
    ///
    /// # Errors
    /// When the stack has ended or refuses.
    pub fn next(&mut self, stack: &Stack, elapsed: Duration) -> Result<()> {
        let away = self.region_away(stack)?;
        // A purge tells every region, and fails where one is not there to be told.
        if away.is_none() && elapsed >= SOAK_PURGE_EVERY * (self.purges + 1) {
            self.purges += 1;
            stack.meridian(&["cache", "purge", "--tenant", "acme", "--tag", "orders"])?;
        }
        if away != Some(HOME) {
            // The first came before the load.
            if elapsed >= SOAK_PUSH_EVERY * self.pushes {
                let before = self.version.clone();
                self.push(stack)?;
                if self.pushes.is_multiple_of(2) {
                    self.rollbacks += 1;
                    self.release(stack, &["rules", "rollback", "--target", TARGET, "--to", &before])?;
                }
            }
        }
        let kills = u32::try_from(self.kills.len()).unwrap_or(u32::MAX);
        if away.is_none() && elapsed >= SOAK_KILL_EVERY * (kills + 1) {
            let victim = VICTIMS[self.kills.len() % VICTIMS.len()];
            let pid = *stack.up()?.pids.get(victim).with_context(|| format!("{victim} does not run"))?;
            if let Some(identity) = Identity::of(pid) {
                identity.signal(Signal::KILL);
                let since = Instant::now();
                self.kills.push(since);
                self.away = Some(Away { victim, pid, since });
            }
        }
        Ok(())
    }

    /// The region of what was killed, unless that is back: runs again, and the region's origin is ready.
    fn region_away(&mut self, stack: &Stack) -> Result<Option<&'static str>> {
        let Some(Away { victim, pid, since }) = self.away else { return Ok(None) };
        let region = victim.split_once('-').context("a victim is named by its region")?.1;
        let up = stack.up()?;
        let url = &up.origins.get(region).with_context(|| format!("no region {region}"))?.url;
        let ready = format!("{url}/readyz");
        let is_back = up.pids.get(victim).is_some_and(|now| *now != pid)
            && Request::get(&ready).send().is_ok_and(|answer| answer.status == 200);
        if is_back {
            self.back_ms.entry(victim).or_default().push(since.elapsed().as_secs_f64() * 1e3);
        } else if since.elapsed() < SOAK_BACK_MAX {
            return Ok(Some(region));
        } else {
            self.wrong.push(format!("{victim} was not back in {SOAK_BACK_MAX:?}"));
        }
        self.away = None;
        Ok(None)
    }

    /// Pushes rules that say how often they were pushed.
    fn push(&mut self, stack: &Stack) -> Result<()> {
        self.pushes += 1;
        let text = format!(
            "apiVersion: meridian/v1\nkind: RateLimit\nmetadata: {{name: soak, description: push {}}}\n\
             spec: {{key: [subject], quota: {}, window: 1m}}\n",
            self.pushes,
            1_000 + self.pushes
        );
        fs::write(self.folder.join("soak.yaml"), text).context("could not write a rule")?;
        let folder = self.folder.to_string_lossy().into_owned();
        self.release(stack, &["rules", "push", &folder, "--target", TARGET])
    }

    /// Releases by a command, and waits until both edges decide by it.
    fn release(&mut self, stack: &Stack, arguments: &[&str]) -> Result<()> {
        let answer = stack.meridian(arguments)?;
        let released = Instant::now();
        let version = answer["release"]["version"].as_str().context("a release names its version")?;
        for (edge, url) in stack.up()?.edges {
            let seen = loop {
                let answer = Request::get(&url).header("host", HOST).send();
                if answer.is_ok_and(|answer| answer.bundle() == Some(version)) {
                    break true;
                }
                if released.elapsed() > SOAK_PUSH_SEEN_MAX {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            if !seen {
                let what = arguments.get(1).copied().unwrap_or_default();
                let after = format!("push {} in {SOAK_PUSH_SEEN_MAX:?}", self.pushes);
                self.wrong.push(format!("{edge} did not see the {what} of {after}"));
            }
            self.seen_ms.entry(edge).or_default().push(released.elapsed().as_secs_f64() * 1e3);
        }
        version.clone_into(&mut self.version);
        Ok(())
    }

    /// Those that were killed.
    pub fn restarted(&self) -> Vec<&'static str> {
        VICTIMS.iter().take(self.kills.len()).copied().collect()
    }

    /// What did not happen as it should.
    pub fn faults(&self) -> Vec<String> {
        self.wrong.clone()
    }

    /// In a sentence.
    pub fn summary(&self) -> String {
        let words = |what: &str, name: &str, ms: &[f64]| {
            let spread = Spread::of(ms.iter().copied())?;
            Some(format!("{what} {name} after {} ms", spread.text(0)))
        };
        let seen = self.seen_ms.iter().filter_map(|(edge, ms)| words("seen by", edge, ms));
        let seen = seen.collect::<Vec<_>>().join(", ");
        let back = self.back_ms.iter().filter_map(|(victim, ms)| words("again with", victim, ms));
        let back = back.collect::<Vec<_>>().join(", ");
        let Self { pushes, rollbacks, purges, .. } = self;
        let kills = self.kills.len();
        format!("{pushes} pushes and {rollbacks} rollbacks ({seen}), {purges} purges, {kills} kills ({back})")
    }
}

/// Waits until a crowd meets nothing but this version at an edge: an instance that slept learns of it with its next request,
/// and those beside that are decided by what the instance had.
fn settle(url: &str, version: &str) -> Result<()> {
    let started = Instant::now();
    let ask = || -> Result<()> {
        let agent = agent();
        let mut in_a_row = 0;
        while in_a_row < IN_A_ROW {
            ensure!(started.elapsed() < SOAK_PUSH_SEEN_MAX, "{url} does not decide by {version}");
            let answer = Request::get(url).header("host", HOST).send_by(&agent)?;
            in_a_row = if answer.bundle() == Some(version) { in_a_row + 1 } else { 0 };
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(ask)).collect();
        crowd
            .into_iter()
            .try_for_each(|one| -> Result<()> { one.join().map_err(|_| anyhow!("a client has panicked"))? })
    })
}
