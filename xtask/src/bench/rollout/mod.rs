//! `cargo xtask bench rollout`: what an edge takes to start and to hold, and how long it is until every edge does what
//! changed: cold start, bytes, memory by tenants and routes, swaps of large bundles, pushes and purges. All on a local stack
//! that is started for it.

mod asking;
mod control;
mod edges;
mod memory;
mod purge;
mod push;
mod start;
mod swap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::control::{Control, File};
use super::sizes::{self, Size};
use super::upstream::Upstream;
use crate::artefacts::HostProfile;
use crate::limits::ROLLOUT_PAUSE_MS_MAX;
use crate::progress::say;
use crate::scratch::{Ports, Stack, Stop};
use crate::setup::npm;
use crate::stack::keys::Keys;
use crate::stack::layout::REGIONS;
use crate::{paths, report};

/// Where the report goes.
const REPORT: &str = "tests/bench/rollout.md";
/// The tenant of pushes and purges.
const TENANT: &str = "rollout";
const HOST: &str = "rollout.localhost";
/// A path that is forwarded to the upstream.
const OPEN: &str = "/open/items";
/// The tenant of many routes.
const WIDE: &str = "wide";
const WIDE_HOST: &str = "wide.localhost";
/// Documents of one file of a push.
const FILE_DOCUMENTS: usize = 1_000;
/// Where tenants are made and their rules released.
const HOME: &str = REGIONS[0].id;

/// Arguments of `cargo xtask bench rollout`.
#[derive(Args, Clone, Debug)]
pub struct RolloutBench {
    /// Pushes and purges at each region, and changes of a row at each region for each edge.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Starts of each edge after the first.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    starts: u32,
    /// Tenants whose requests an edge serves when its memory is looked at.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    tenants: u32,
    /// Routes of the one tenant that has many.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    routes: u32,
    /// Bundles of all these routes that are swapped in.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    swaps: u32,
    /// Only this part; may be given again. No report is written.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Print everything measured as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// How the host of the Spin component is compiled: `release` as for production, which takes minutes longer to build.
    #[arg(long, value_enum, default_value_t = HostProfile::Release)]
    spin_host: HostProfile,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// The edges listen on this port and the next; the upstream and the edges of the measurement's own on the two after.
    #[arg(long, default_value_t = 18740)]
    port: u16,
    /// Origins of the measured stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Section {
    /// Cold start of both edges.
    Start,
    /// Bytes that are deployed.
    Size,
    /// Memory by tenants and routes.
    Memory,
    /// The pause while a large bundle is swapped in.
    Swap,
    /// From a push to every edge.
    Push,
    /// From a changed row, and from a purge, to every edge.
    Purge,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
struct Measured {
    start: Option<start::Started>,
    sizes: Option<Vec<Size>>,
    memory: Option<Vec<memory::Held>>,
    swap: Option<swap::Swaps>,
    push: Option<Vec<push::Reached>>,
    purge: Option<purge::Purged>,
}

/// What is measured, and by what.
struct Rig {
    stack: Stack,
    control: Control,
    keys: Keys,
    tools: npm::Tools,
    upstream: Upstream,
    folder: PathBuf,
    /// The rules of [`TENANT`] as they were pushed.
    rules: PathBuf,
    own_port: u16,
    spin_host: HostProfile,
    stop: Stop,
}

impl RolloutBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be built or started, or an edge does not do what it has to.
    pub fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        say("Setting up");
        let rig = self.rig(stop)?;
        let measured = self.measure(&rig)?;
        let programs = report::first_line(Command::new(&rig.tools.workerd).arg("--version"));
        drop(rig);
        let text = self.report(&measured, &programs)?;
        println!("{text}");
        if self.json {
            println!("{}", serde_json::to_string(&measured)?);
        }
        if self.only.is_empty() {
            say(&format!("Written to {}", report::write(REPORT, &text)?.display()));
        }
        Ok(())
    }

    fn rig(&self, stop: Stop) -> Result<Rig> {
        let folder = paths::target()?.join("bench/rollout");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let tools = npm::tools()?;
        let upstream = Upstream::start(self.port + 2)?;
        let ports = Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port };
        let stack = Stack::start(&folder.join("stack"), ports, self.spin_host, self.no_build, &stop)?;
        let (keys, up) = (Keys::load(&stack.folder().join("keys"))?, stack.up()?);
        let (control, rules) = (Control::new(&up), folder.join("rules"));
        forget(&rules)?;
        let issuer = keys.issuer_acme.public_x();
        let values = [("ISSUER_X", issuer.as_str()), ("UPSTREAM", upstream.url.as_str())];
        stack.push_tenant(TENANT, HOST, "tests/bench/rollout", &values, &rules)?;
        if self.wants(Section::Memory) || self.wants(Section::Swap) {
            control.tenant(HOME, WIDE, WIDE_HOST, &wide_files(&upstream.url, self.routes()))?;
        }
        for url in up.edges.values() {
            stack.await_host(url, HOST)?;
        }
        let (own_port, spin_host) = (self.port + 3, self.spin_host);
        Ok(Rig { stack, control, keys, tools, upstream, folder, rules, own_port, spin_host, stop })
    }

    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    fn routes(&self) -> usize {
        self.routes as usize
    }

    fn tenants(&self) -> usize {
        self.tenants as usize
    }

    /// What waits for nobody comes first; what fills databases and edges comes last.
    fn measure(&self, rig: &Rig) -> Result<Measured> {
        let mut measured = Measured::default();
        if self.wants(Section::Size) {
            measured.sizes = Some(sizes::of_edges()?);
        }
        if self.wants(Section::Start) {
            measured.start = Some(start::measure(rig, self.starts)?);
        }
        if self.wants(Section::Push) {
            measured.push = Some(push::measure(rig, self.samples)?);
        }
        if self.wants(Section::Purge) {
            measured.purge = Some(purge::measure(rig, self.samples)?);
        }
        if self.wants(Section::Swap) {
            measured.swap = Some(swap::measure(rig, self.routes(), self.swaps)?);
        }
        if self.wants(Section::Memory) {
            measured.memory = Some(memory::measure(rig, self.tenants(), self.routes())?);
        }
        Ok(measured)
    }

    fn report(&self, measured: &Measured, programs: &str) -> Result<String> {
        let Self { samples, starts, tenants, routes, swaps, .. } = self;
        let host = self.spin_host.name();
        let command = format!(
            "cargo xtask bench rollout --samples {samples} --starts {starts} --tenants {tenants} --routes {routes} \
             --swaps {swaps} --spin-host {host}"
        );
        let mut text = report::heading("What it takes to start, to hold and to roll out", &command, programs);
        text.push_str(ABOUT);
        if let Some(started) = &measured.start {
            text.push_str(&start::report(started)?);
        }
        if let Some(sizes) = &measured.sizes {
            text.push_str(&format!(
                "\n## Bytes that are deployed\n\n{}\n{}",
                sizes::table(sizes),
                sizes::verdict(sizes)
            ));
        }
        if let Some(held) = &measured.memory {
            text.push_str(&memory::report(held, self.tenants().max(self.routes())));
        }
        if let Some(swaps) = &measured.swap {
            text.push_str(&swap::report(swaps, self.routes()));
        }
        if let Some(reached) = &measured.push {
            text.push_str(&push::report(reached));
        }
        if let Some(purged) = &measured.purge {
            text.push_str(&purge::report(purged));
        }
        text.push_str(&format!("\n{}\n", report::load()));
        Ok(text)
    }
}

impl Rig {
    /// Where the edges of the measurement's own listen, one at a time.
    fn own_address(&self) -> String {
        format!("127.0.0.1:{}", self.own_port)
    }

    /// An empty folder for what an edge keeps.
    ///
    /// # Errors
    /// When it can't be made.
    fn state(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        forget(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        Ok(folder)
    }

    /// An address whose nearest region is this one.
    fn address_near(&self, region: &str) -> Result<String> {
        let places = self.stack.up()?.places;
        let near = places.into_iter().find(|(_, nearest)| nearest == region);
        Ok(near.with_context(|| format!("no address is near {region}"))?.0)
    }

    /// Waits for a while that is another for each sample and the same in every run.
    fn pause(&self, sample: u32) -> Result<()> {
        self.stop.check()?;
        std::thread::sleep(Duration::from_millis(u64::from(sample) * 617 % ROLLOUT_PAUSE_MS_MAX));
        Ok(())
    }
}

/// Removes a folder, if it is there.
fn forget(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))?;
    }
    Ok(())
}

/// A path of the tenant of many routes.
fn wide_path(number: usize) -> String {
    format!("/things-{number}/one")
}

/// The rules of the tenant of many routes.
fn wide_files(upstream: &str, routes: usize) -> Vec<File> {
    let upstreams = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: plain}}\n\
         spec: {{regions: {{{HOME}: \"{upstream}\"}}}}\n"
    );
    let mut files = vec![("upstream.yaml".to_owned(), upstreams)];
    let numbers: Vec<usize> = (0..routes).collect();
    for (part, numbers) in numbers.chunks(FILE_DOCUMENTS).enumerate() {
        let route = |number: &usize| {
            format!(
                "---\napiVersion: meridian/v1\nkind: Route\nmetadata: {{name: things-{number}}}\n\
                 spec: {{match: {{path: \"/things-{number}/{{id}}\", methods: [GET]}}, auth: {{mode: anonymous}}, \
                 upstream: plain}}\n"
            )
        };
        files.push((format!("routes-{part}.yaml"), numbers.iter().map(route).collect()));
    }
    files
}

const ABOUT: &str = "
On a local stack: three regions with an origin and a PostgreSQL each, both edges, everything on one machine. Times are of that
machine under all of this; ratios, and what stands beside one another here, say something elsewhere.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_routes_are_in_files_that_a_push_takes() {
        let files = wide_files("http://127.0.0.1:1", 2_500);
        let documents = |(_, content): &File| content.matches("kind: Route").count();
        assert_eq!(files.iter().map(documents).collect::<Vec<_>>(), [0, 1_000, 1_000, 500]);
        let (_, last) = &files[3];
        assert!(last.contains("name: things-2499") && last.contains("path: \"/things-2499/{id}\""), "{last}");
        for text in last.split("---\n").filter(|text| !text.is_empty()) {
            let _one: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        }
    }
}
