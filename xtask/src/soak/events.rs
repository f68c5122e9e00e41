//! What happens meanwhile: rules are pushed and rolled back, tags purged, origins killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde::Serialize;

use crate::limits::{SOAK_KILL_EVERY, SOAK_PURGE_EVERY, SOAK_PUSH_EVERY, SOAK_PUSH_SEEN_MAX};
use crate::report::Spread;
use crate::scratch::Stack;
use crate::stack::http::Request;
use crate::stack::process::Identity;

/// Those that are killed, in turn.
const VICTIMS: [&str; 2] = ["origin-eu-west-1", "origin-ap-southeast-1"];
const TARGET: &str = "tenant:acme";

/// What has happened so far.
#[derive(Debug, Serialize)]
pub struct Events {
    /// The rules to push.
    #[serde(skip)]
    folder: PathBuf,
    pushes: u32,
    purges: u32,
    /// When origins were killed.
    #[serde(skip)]
    pub kills: Vec<Instant>,
    /// Milliseconds from a push to the first decision by it, by edge.
    seen_ms: BTreeMap<String, Vec<f64>>,
    /// What did not happen as it should.
    wrong: Vec<String>,
}

impl Events {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the demo's rules can't be copied.
    pub fn new(stack: &Stack) -> Result<Self> {
        let folder = stack.folder().join("soak-rules");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        for entry in fs::read_dir(stack.folder().join("demo/acme")).context("no rules of the demo")? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name())).context("could not copy a rule")?;
        }
        Ok(Self {
            folder,
            pushes: 0,
            purges: 0,
            kills: Vec::new(),
            seen_ms: BTreeMap::new(),
            wrong: Vec::new(),
        })
    }

    /// Lets happen what is due after so long.
    ///
    /// # Errors
    /// When the stack has ended or refuses.
    pub fn next(&mut self, stack: &Stack, elapsed: Duration) -> Result<()> {
        if elapsed >= SOAK_PURGE_EVERY * (self.purges + 1) {
            self.purges += 1;
            stack.meridian(&["cache", "purge", "--tenant", "acme", "--tag", "orders"])?;
        }
        if elapsed >= SOAK_PUSH_EVERY * (self.pushes + 1) {
            self.pushes += 1;
            self.push(stack)?;
        }
        let kills = u32::try_from(self.kills.len()).unwrap_or(u32::MAX);
        if elapsed >= SOAK_KILL_EVERY * (kills + 1) {
            let victim = VICTIMS[self.kills.len() % VICTIMS.len()];
            // It may be on its way back from the last time.
            if let Some(identity) = stack.up()?.pids.get(victim).and_then(|pid| Identity::of(*pid)) {
                identity.signal(Signal::KILL);
                self.kills.push(Instant::now());
            }
        }
        Ok(())
    }

    /// Pushes rules that say how often they were pushed, and waits until both edges decide by them.
    fn push(&mut self, stack: &Stack) -> Result<()> {
        let text = format!(
            "apiVersion: meridian/v1\nkind: RateLimit\nmetadata: {{name: soak, description: push {}}}\n\
             spec: {{key: [subject], quota: {}, window: 1m}}\n",
            self.pushes,
            1_000 + self.pushes
        );
        fs::write(self.folder.join("soak.yaml"), text).context("could not write a rule")?;
        let folder = self.folder.to_string_lossy().into_owned();
        let answer = stack.meridian(&["rules", "push", &folder, "--target", TARGET])?;
        let pushed = Instant::now();
        let version = answer["release"]["version"].as_str().context("a push names its version")?;
        for (edge, url) in stack.up()?.edges {
            let seen = loop {
                let answer = Request::get(&url).header("host", "acme.localhost").send();
                if answer.is_ok_and(|answer| answer.bundle() == Some(version)) {
                    break true;
                }
                if pushed.elapsed() > SOAK_PUSH_SEEN_MAX {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            if !seen {
                self.wrong.push(format!("{edge} did not see push {} in {SOAK_PUSH_SEEN_MAX:?}", self.pushes));
            }
            self.seen_ms.entry(edge).or_default().push(pushed.elapsed().as_secs_f64() * 1e3);
        }
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
        let seen: Vec<String> = self
            .seen_ms
            .iter()
            .filter_map(|(edge, ms)| Some((edge, Spread::of(ms.iter().copied())?)))
            .map(|(edge, spread)| format!("seen by {edge} after {} ms", spread.text(0)))
            .collect();
        format!(
            "{} pushes ({}), {} purges, {} kills of an origin",
            self.pushes,
            seen.join(", "),
            self.purges,
            self.kills.len()
        )
    }
}
