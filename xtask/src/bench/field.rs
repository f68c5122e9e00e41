//! Everything that runs while requests are measured: a local stack, the other servers, and the upstream behind them all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Extent;
use super::contest::{Cell, Contest, Measurement, Results, Server, Token};
use super::cpu::Cpu;
use super::load::{Load, Outcome};
use super::tokens::{TOKENS, Tokens};
use super::upstream::Upstream;
use crate::artefacts::HostProfile;
use crate::limits::{PEER_START_TIMEOUT, POLL, RULES_TIMEOUT};
use crate::progress::say;
use crate::scratch::{Ports, Stack, Stop};
use crate::stack::http::Request;
use crate::stack::supervise::{Service, Supervisor};

/// The name that every server is asked by.
pub const HOST: &str = "bench.localhost";
const TENANT: &str = "bench";
/// Before the first round every server runs for this long, so that its code is compiled to the end.
const COMPILE_SECONDS: u32 = 8;

/// What runs, in the order in which it ends.
pub struct Field {
    /// Who is measured, and by what.
    pub contest: &'static Contest,
    cpu: Cpu,
    peers: Supervisor,
    stack: Stack,
    /// The server behind all.
    pub upstream: Upstream,
    /// What requests carry.
    pub tokens: Tokens,
    peer_urls: BTreeMap<String, String>,
    /// Tokens that each server was shown, of those that are always new.
    shown: BTreeMap<&'static str, u64>,
}

/// Where the field is.
pub struct Place<'a> {
    /// Its files.
    pub folder: &'a Path,
    /// Ports of the stack.
    pub ports: Ports,
    /// Port of the upstream.
    pub upstream_port: u16,
    /// Take what an earlier build left.
    pub no_build: bool,
    /// Let the edges tell Linux perf of the functions that they compile.
    pub perf_map: bool,
}

/// A server that is not ours.
pub struct Peer {
    /// Where it listens.
    pub url: String,
    /// Its process, by the name of the server.
    pub service: Service,
}

impl Field {
    /// Starts everything, and waits until every server answers every cell as expected.
    ///
    /// # Errors
    /// When something does not start, or answers otherwise.
    pub fn start(
        contest: &'static Contest,
        place: &Place<'_>,
        stop: &Stop,
        peers: impl FnOnce(&Tokens, &Upstream) -> Result<Vec<Peer>>,
    ) -> Result<Self> {
        let cpu = Cpu::new()?;
        let folder = place.folder;
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        let upstream = Upstream::start(place.upstream_port)?;
        let tokens = Tokens::mint(folder)?;
        let (mut peer_urls, mut services) = (BTreeMap::new(), Vec::new());
        for Peer { url, service } in peers(&tokens, &upstream)? {
            peer_urls.insert(service.name.clone(), url);
            services.push(service);
        }
        let mut peers = Supervisor::new(folder.join("run.json"), stop.0.clone());
        peers.start("start the other servers", services, PEER_START_TIMEOUT)?;
        let options: &[&str] = if place.perf_map { &["--perf-map"] } else { &[] };
        let (host, no_build) = (HostProfile::Release, place.no_build);
        let stack = Stack::start_with(&folder.join("stack"), place.ports, host, no_build, stop, options)?;
        push_rules(&stack, folder, &tokens, &upstream.url)?;
        let field = Self { contest, cpu, peers, stack, upstream, tokens, peer_urls, shown: BTreeMap::new() };
        field.await_rules()?;
        Ok(field)
    }

    /// Where a server listens.
    ///
    /// # Errors
    /// When the stack has ended.
    pub fn url(&self, server: &Server) -> Result<String> {
        if let Some(url) = self.peer_urls.get(server.name) {
            return Ok(url.clone());
        }
        let url = self.stack.up()?.edges.get(server.name).cloned();
        url.with_context(|| format!("no server {}", server.name))
    }

    fn pid(&self, server: &Server) -> Result<u32> {
        if !self.peer_urls.contains_key(server.name) {
            return self.stack.edge_pid(server.name);
        }
        let running = self.peers.pids().into_iter().find(|(name, _)| name == server.name);
        Ok(running.with_context(|| format!("{} has ended", server.title))?.1)
    }

    /// Waits until the edges have the rules, and checks that every server answers every cell as expected.
    fn await_rules(&self) -> Result<()> {
        for server in self.contest.servers {
            let url = self.url(server)?;
            for cell in self.contest.cells {
                let Some(path) = cell.path_on(server) else { continue };
                let token = self.tokens_of(cell).map(|(file, _)| Tokens::first(&file)).transpose()?;
                let started = Instant::now();
                loop {
                    let status = get(&format!("{url}{path}"), token.as_deref()).send()?.status;
                    if status == cell.status {
                        break;
                    }
                    ensure!(
                        started.elapsed() < RULES_TIMEOUT,
                        "{}: {path} answers {status}, expected {}",
                        server.title,
                        cell.status
                    );
                    std::thread::sleep(POLL);
                }
            }
        }
        Ok(())
    }

    fn tokens_of(&self, cell: &Cell) -> Option<(PathBuf, u64)> {
        match cell.token {
            Token::None => None,
            Token::Hs256 => Some((self.tokens.hs256.clone(), 1)),
            Token::Es256Same => Some((self.tokens.es256.clone(), 1)),
            Token::Es256New => Some((self.tokens.es256.clone(), TOKENS)),
        }
    }

    /// Measures every cell of every server in each round, each round in the opposite order of the one before.
    ///
    /// # Errors
    /// When a server has ended or answers nothing, or somebody wants an end.
    pub fn measure(&mut self, extent: &Extent, stop: &Stop) -> Result<Results> {
        let contest = self.contest;
        for server in contest.servers {
            for cell in contest.warm_up.iter().filter_map(|index| contest.cells.get(*index)) {
                stop.check()?;
                if let Some(load) = self.load(server, cell)? {
                    load.measure(&self.cpu, COMPILE_SECONDS)?;
                }
            }
        }
        let mut measured = Vec::new();
        for round in 1..=extent.rounds {
            say(&format!("round {round} of {}", extent.rounds));
            for cell in contest.cells.iter().filter(|cell| extent.wants(cell.name)) {
                let mut line = format!("  {:40.40}", cell.name);
                let mut order: Vec<&Server> = contest.servers.iter().collect();
                if round % 2 == 0 {
                    order.reverse();
                }
                for server in order {
                    stop.check()?;
                    let Some(one) = self.measure_one(round, server, cell, extent.seconds)? else { continue };
                    line.push_str(&format!("  {} {:.1}", one.server, one.outcome.server_us));
                    measured.push(one);
                }
                say(&line);
            }
        }
        Ok(Results { contest, measured })
    }

    /// Warms a server up with a cell, and does something to its process while it goes on to answer that.
    ///
    /// # Errors
    /// When the server has ended or can't do the cell, the load fails, or what is done.
    pub fn under_load(
        &self,
        server: &Server,
        cell: &Cell,
        seconds: u32,
        work: impl FnOnce(u32) -> Result<()>,
    ) -> Result<Outcome> {
        let load = self.load(server, cell)?.with_context(|| format!("{} is not asked", server.title))?;
        let cpu = &self.cpu;
        load.measure(cpu, COMPILE_SECONDS)?;
        std::thread::scope(|scope| {
            let loaded = scope.spawn(|| load.measure(cpu, seconds));
            work(load.pid)?;
            loaded.join().map_err(|_| anyhow!("the load has panicked"))?
        })
    }

    fn load(&self, server: &Server, cell: &Cell) -> Result<Option<Load>> {
        let Some(path) = cell.path_on(server) else { return Ok(None) };
        let shown = self.shown.get(server.name).copied().unwrap_or_default();
        Ok(Some(Load {
            url: self.url(server)?,
            pid: self.pid(server)?,
            host: HOST,
            path,
            tokens: self.tokens_of(cell),
            first_token: if cell.token == Token::Es256New { shown } else { 0 },
        }))
    }

    fn measure_one(
        &mut self,
        round: u32,
        server: &Server,
        cell: &Cell,
        seconds: u32,
    ) -> Result<Option<Measurement>> {
        let Some(load) = self.load(server, cell)? else { return Ok(None) };
        let served = self.upstream.served();
        let outcome = load.measure(&self.cpu, seconds)?;
        let all = outcome.requests + outcome.warm_up_requests;
        if cell.token == Token::Es256New {
            *self.shown.entry(server.name).or_default() += all;
        }
        let forwarded = (self.upstream.served() - served) as f64 / all as f64;
        let right = if cell.status < 400 { outcome.requests - outcome.refused } else { outcome.refused };
        let wrong = outcome.requests.saturating_sub(right) + outcome.lost;
        Ok(Some(Measurement { round, server: server.name, cell: cell.name, outcome, forwarded, wrong }))
    }
}

/// A request to a server, under the benchmark's name.
pub fn get<'a>(url: &'a str, token: Option<&str>) -> Request<'a> {
    let request = Request::get(url).header("host", HOST);
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// Makes the tenant and pushes its rules, through the command line like anybody.
fn push_rules(stack: &Stack, folder: &Path, tokens: &Tokens, upstream: &str) -> Result<()> {
    let values = [
        ("HS256_K", tokens.key("hs", "k")?),
        ("ES256_X", tokens.key("es", "x")?),
        ("ES256_Y", tokens.key("es", "y")?),
        ("UPSTREAM", upstream),
    ];
    stack.push_tenant(TENANT, HOST, "tests/bench/rules", &values, &folder.join("rules"))
}
