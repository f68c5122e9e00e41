//! `cargo xtask bench edge`: the worker on workerd, the component in the Spin host, and a hand-written worker on the same
//! workerd, one after the other on the same requests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::Extent;
use super::cpu::Cpu;
use super::load::{Load, Outcome};
use super::peer::{self, Tokens};
use super::upstream::Upstream;
use crate::artefacts::{Part, obtain};
use crate::limits::{PEER_START_TIMEOUT, RULES_TIMEOUT};
use crate::paths;
use crate::progress::say;
use crate::report::{self, Spread};
use crate::scratch::{Ports, Stack, Stop};
use crate::setup::{debian, npm};
use crate::stack::http::Request;
use crate::stack::supervise::Supervisor;

const HOST: &str = "bench.localhost";
const TENANT: &str = "bench";
/// Before the first round every server runs for this long, so that its code is compiled to the end.
const COMPILE_SECONDS: u32 = 3;
/// So many of the requests may come to the upstream or not, otherwise than meant, without being mentioned.
const DETOUR_SHARE_MAX: f64 = 0.02;

/// Arguments of `cargo xtask bench edge`.
#[derive(Args, Clone, Debug)]
pub struct EdgeBench {
    #[command(flatten)]
    extent: Extent,
    /// The edges listen on this port and the next; the peer and the upstream on the two after.
    #[arg(long, default_value_t = 18700)]
    port: u16,
    /// Origins of the measured stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

/// Which token a request carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    None,
    Hs256,
    Es256Same,
    Es256New,
}

/// One kind of request.
struct Cell {
    name: &'static str,
    path: &'static str,
    /// What the peer is asked instead.
    peer_path: &'static str,
    token: Token,
    status: u16,
    /// Whether the upstream answers.
    forwarded: bool,
}

const fn cell(name: &'static str, path: &'static str, token: Token, status: u16, forwarded: bool) -> Cell {
    Cell { name, path, peer_path: path, token, status, forwarded }
}

const CELLS: [Cell; 10] = [
    cell("answered here, no JWT", "/local/open", Token::None, 404, false),
    cell("answered here, HS256", "/local/auth", Token::Hs256, 403, false),
    cell("answered here, ES256 remembered", "/local/auth", Token::Es256Same, 403, false),
    cell("answered here, ES256 always new", "/local/auth", Token::Es256New, 403, false),
    cell("forwarded, no JWT", "/open/items", Token::None, 200, true),
    cell("forwarded, HS256", "/auth/items", Token::Hs256, 200, true),
    cell("forwarded, ES256 remembered", "/auth/items", Token::Es256Same, 200, true),
    cell("forwarded, ES256 always new", "/auth/items", Token::Es256New, 200, true),
    Cell {
        name: "forwarded, ES256 remembered, with limit, experiment and transform (peer: JWT alone)",
        path: "/full/items",
        peer_path: "/auth/items",
        token: Token::Es256Same,
        status: 200,
        forwarded: true,
    },
    cell("cache hit, 1 KB", "/cached/kilobyte", Token::None, 200, false),
];

/// The servers; the first is what the others are compared with.
const SERVERS: [Server; 3] = [
    Server { name: "peer", title: "Hono + jose on workerd" },
    Server { name: "cloudflare", title: "Meridian on workerd" },
    Server { name: "spin", title: "Meridian in the Spin host" },
];

#[derive(Clone, Copy)]
struct Server {
    name: &'static str,
    title: &'static str,
}

/// One cell of one server in one round.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    round: u32,
    server: &'static str,
    cell: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
    /// Requests that came to the upstream, as a share of those that were sent.
    forwarded: f64,
    /// Answers of a status that was not expected, and requests that got none.
    wrong: u64,
}

/// Everything that runs, in the order in which it ends.
struct Field {
    cpu: Cpu,
    peer: Supervisor,
    stack: Stack,
    upstream: Upstream,
    tokens: Tokens,
    peer_url: String,
    /// Tokens that each server was shown, of those that are always new.
    shown: [u64; SERVERS.len()],
}

impl EdgeBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be built or started, or answers were not those expected.
    pub fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        let cpu = Cpu::new()?;
        say("Setting up");
        debian::need_debian(&["wrk"])?;
        let tools = npm::tools()?;
        let folder = paths::target()?.join("bench/edge");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let bundle = peer::bundle(&tools, &folder)?;
        let mut field = self.start(cpu, &tools, &folder, &bundle, &stop)?;
        say("Measuring (µs of the server's processor time for one request)");
        let measured = field.measure(&self.extent, &stop)?;
        drop(field);
        let text = self.report(&measured, &tools, &bundle)?;
        println!("{text}");
        if self.extent.json {
            println!("{}", serde_json::to_string(&measured)?);
        }
        say(&format!("Written to {}", report::write("tests/bench/edge.md", &text)?.display()));
        match measured.iter().map(|one| one.wrong).sum::<u64>() {
            0 => Ok(()),
            wrong => bail!("{wrong} answers were not those expected"),
        }
    }

    fn start(
        &self,
        cpu: Cpu,
        tools: &npm::Tools,
        folder: &Path,
        bundle: &Path,
        stop: &Stop,
    ) -> Result<Field> {
        let upstream = Upstream::start(self.port + 3)?;
        let tokens = Tokens::mint(folder)?;
        let mut peer = Supervisor::new(folder.join("run.json"), stop.0.clone());
        let service = peer::service(tools, folder, bundle, self.port + 2, &tokens, &upstream.url)?;
        peer.start("start the JavaScript peer", vec![service], PEER_START_TIMEOUT)?;
        let ports = Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port };
        let stack = Stack::start(&folder.join("stack"), ports, self.extent.no_build, stop)?;
        push_rules(&stack, folder, &tokens, &upstream.url)?;
        let peer_url = format!("http://127.0.0.1:{}", self.port + 2);
        let field = Field { cpu, peer, stack, upstream, tokens, peer_url, shown: [0; SERVERS.len()] };
        field.await_rules()?;
        Ok(field)
    }

    fn report(&self, measured: &[Measurement], tools: &npm::Tools, bundle: &Path) -> Result<String> {
        let Extent { rounds, seconds, .. } = self.extent;
        let command = format!("cargo xtask bench edge --rounds {rounds} --seconds {seconds}");
        let workerd = report::first_line(Command::new(&tools.workerd).arg("--version"));
        let mut text = report::heading("CPU of the edge", &command, &workerd);
        text.push_str(ABOUT);
        text.push_str("\n## Processor time of the server for one request\n\n");
        text.push_str(&format!(
            "µs, median (least–greatest) of {rounds} rounds of {seconds} s; ratios are of the same round.\n\n"
        ));
        text.push_str(&cost_table(measured));
        text.push_str("\n## Where we are behind\n\n");
        text.push_str(&behind(measured));
        text.push_str("\n## Beside it\n\nRequests a second, with the load generator and the upstream on the same cores:\n\n");
        text.push_str(&rate_table(measured));
        text.push_str("\nBytes that are deployed:\n\n");
        text.push_str(&size_table(bundle)?);
        let others = Spread::of(measured.iter().map(|one| one.outcome.other_cores));
        let upstream = measured.iter().filter(|one| cell_named(one.cell).forwarded);
        let upstream = Spread::of(upstream.map(|one| one.outcome.upstream_us));
        text.push_str(&format!(
            "\nCores busy with anything else (origins, databases, other programs of this machine): {}. {} \
             The upstream's own processor time, not in the tables: {} µs a forwarded request.\n\n{}",
            others.map_or(String::new(), |spread| spread.text(2)),
            report::load(),
            upstream.map_or(String::new(), |spread| spread.text(1)),
            wrong_answers(measured),
        ));
        Ok(text)
    }
}

const ABOUT: &str = "
Three servers get the same requests in turn, over 32 connections of one wrk: the worker as it is shipped, on workerd; the
component as it is shipped, in this project's Spin host (a new instance after 10,000 requests, where Spin takes one after 128); and `peer/`, a
worker written by hand with Hono and jose (WebCrypto) on the same workerd. Rules (`rules/`) come to the edges from a running
origin as always, and the edges report every decision to it; all of that is in their numbers. The peer knows one tenant and
its keys from its configuration, and does the JWT, the forwarding and the cache alone: no rules that change, no limits, no
steering, no explanation, no purge.

*Answered here*: without a JWT a 404, with one a 403 after it was verified. *Forwarded*: to a small server that always
answers the same. *Remembered*: one token all the time; the edges verify a token once and know it again, jose verifies it each
time. *Always new*: 40,000 tokens in turn, four times what an edge remembers.
";

impl Field {
    fn url(&self, server: usize) -> Result<String> {
        match SERVERS[server].name {
            "peer" => Ok(self.peer_url.clone()),
            edge => self.stack.up()?.edges.get(edge).cloned().with_context(|| format!("no edge {edge}")),
        }
    }

    fn pid(&self, server: usize) -> Result<u32> {
        match SERVERS[server].name {
            "peer" => Ok(self.peer.pids().first().context("the peer has ended")?.1),
            edge => self.stack.edge_pid(edge),
        }
    }

    /// Waits until the edges have the rules, and checks that every server answers every cell as expected.
    fn await_rules(&self) -> Result<()> {
        for (index, server) in SERVERS.iter().enumerate() {
            let url = self.url(index)?;
            for cell in &CELLS {
                let started = Instant::now();
                loop {
                    let status = self.ask(&url, server, cell)?;
                    if status == cell.status {
                        break;
                    }
                    let path = cell.path;
                    ensure!(
                        started.elapsed() < RULES_TIMEOUT,
                        "{}: {path} answers {status}, expected {}",
                        server.title,
                        cell.status
                    );
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Ok(())
    }

    fn ask(&self, url: &str, server: &Server, cell: &Cell) -> Result<u16> {
        let url = format!("{url}{}", path_of(server, cell));
        let mut request = Request::get(&url).header("host", HOST);
        if let Some((file, _)) = self.tokens_of(cell) {
            request = request.header("authorization", format!("Bearer {}", Tokens::first(&file)?));
        }
        Ok(request.send()?.status)
    }

    fn tokens_of(&self, cell: &Cell) -> Option<(PathBuf, u64)> {
        match cell.token {
            Token::None => None,
            Token::Hs256 => Some((self.tokens.hs256.clone(), 1)),
            Token::Es256Same => Some((self.tokens.es256.clone(), 1)),
            Token::Es256New => Some((self.tokens.es256.clone(), peer::TOKENS)),
        }
    }

    fn measure(&mut self, extent: &Extent, stop: &Stop) -> Result<Vec<Measurement>> {
        for server in 0..SERVERS.len() {
            for cell in [&CELLS[5], &CELLS[9]] {
                stop.check()?;
                self.load(server, cell)?.measure(&self.cpu, COMPILE_SECONDS)?;
            }
        }
        let mut measured = Vec::new();
        for round in 1..=extent.rounds {
            say(&format!("round {round} of {}", extent.rounds));
            for cell in &CELLS {
                let mut line = format!("  {:40.40}", cell.name);
                let mut order: Vec<usize> = (0..SERVERS.len()).collect();
                if round % 2 == 0 {
                    order.reverse();
                }
                for server in order {
                    stop.check()?;
                    let one = self.measure_one(round, server, cell, extent.seconds)?;
                    line.push_str(&format!("  {} {:.1}", one.server, one.outcome.server_us));
                    measured.push(one);
                }
                say(&line);
            }
        }
        Ok(measured)
    }

    fn load(&self, server: usize, cell: &Cell) -> Result<Load> {
        Ok(Load {
            url: self.url(server)?,
            pid: self.pid(server)?,
            host: HOST,
            path: path_of(&SERVERS[server], cell),
            tokens: self.tokens_of(cell),
            first_token: if cell.token == Token::Es256New { self.shown[server] } else { 0 },
        })
    }

    fn measure_one(&mut self, round: u32, server: usize, cell: &Cell, seconds: u32) -> Result<Measurement> {
        let load = self.load(server, cell)?;
        let served = self.upstream.served();
        let outcome = load.measure(&self.cpu, seconds)?;
        let all = outcome.requests + outcome.warm_up_requests;
        if cell.token == Token::Es256New {
            self.shown[server] += all;
        }
        let forwarded = (self.upstream.served() - served) as f64 / all as f64;
        let right = if cell.status < 400 { outcome.requests - outcome.refused } else { outcome.refused };
        let wrong = outcome.requests.saturating_sub(right) + outcome.lost;
        Ok(Measurement { round, server: SERVERS[server].name, cell: cell.name, outcome, forwarded, wrong })
    }
}

fn path_of(server: &Server, cell: &Cell) -> &'static str {
    if server.name == "peer" { cell.peer_path } else { cell.path }
}

fn cell_named(name: &str) -> &'static Cell {
    CELLS.iter().find(|cell| cell.name == name).unwrap_or(&CELLS[0])
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

fn of<'a>(
    measured: &'a [Measurement],
    server: &'a str,
    cell: &'a str,
) -> impl Iterator<Item = &'a Measurement> {
    measured.iter().filter(move |one| one.server == server && one.cell == cell)
}

/// What a server costs beside the peer, round by round.
fn ratio(measured: &[Measurement], server: &str, cell: &str) -> Option<Spread> {
    Spread::of(of(measured, server, cell).filter_map(|one| {
        let peer = of(measured, SERVERS[0].name, cell).find(|peer| peer.round == one.round)?;
        Some(one.outcome.server_us / peer.outcome.server_us)
    }))
}

fn cost_table(measured: &[Measurement]) -> String {
    let mut head = vec!["request", SERVERS[0].title];
    for server in &SERVERS[1..] {
        head.extend([server.title, "ratio"]);
    }
    let text = |spread: Option<Spread>, digits| spread.map_or(String::new(), |spread| spread.text(digits));
    let cost = |server: &Server, cell: &Cell| {
        Spread::of(of(measured, server.name, cell.name).map(|one| one.outcome.server_us))
    };
    let rows = CELLS.iter().map(|cell| {
        let mut row = vec![cell.name.to_owned(), text(cost(&SERVERS[0], cell), 1)];
        for server in &SERVERS[1..] {
            row.push(text(cost(server, cell), 1));
            row.push(text(ratio(measured, server.name, cell.name), 2));
        }
        row
    });
    report::table(&head, &rows.collect::<Vec<_>>())
}

fn rate_table(measured: &[Measurement]) -> String {
    let head: Vec<&str> =
        std::iter::once("request").chain(SERVERS.iter().map(|server| server.title)).collect();
    let rows = CELLS.iter().map(|cell| {
        let rates = SERVERS.iter().map(|server| {
            let rates = of(measured, server.name, cell.name);
            let spread = Spread::of(rates.map(|one| one.outcome.requests as f64 / one.outcome.seconds));
            spread.map_or(String::new(), |spread| format!("{:.0}", spread.median))
        });
        std::iter::once(cell.name.to_owned()).chain(rates).collect()
    });
    report::table(&head, &rows.collect::<Vec<_>>())
}

fn size_table(bundle: &Path) -> Result<String> {
    let cloudflare = obtain(Part::Cloudflare, true)?;
    let files = [
        ("the worker's Wasm", cloudflare.join("index_bg.wasm")),
        ("the worker's JavaScript", cloudflare.join("index.js")),
        ("the Spin component", obtain(Part::Spin, true)?),
        ("the peer, bundled", bundle.to_path_buf()),
    ];
    let rows = files.iter().map(|(name, path)| {
        let (raw, gzip) = report::sizes(path)?;
        Ok(vec![(*name).to_owned(), raw.to_string(), gzip.to_string()])
    });
    Ok(report::table(&["what", "raw", "gzip"], &rows.collect::<Result<Vec<_>>>()?))
}

/// Every cell that costs us more than the peer, the worst first. Said by the numbers, not by us.
fn behind(measured: &[Measurement]) -> String {
    let mut text = String::new();
    for server in &SERVERS[1..] {
        let ratios = CELLS.iter().filter_map(|cell| Some((cell, ratio(measured, server.name, cell.name)?)));
        let (mut worse, better): (Vec<_>, Vec<_>) = ratios.partition(|(_, ratio)| ratio.median > 1.0);
        worse.sort_by(|(_, a), (_, b)| b.median.total_cmp(&a.median));
        let list: Vec<String> =
            worse.iter().map(|(cell, ratio)| format!("{} ({:.2}×)", cell.name, ratio.median)).collect();
        let sentence = match worse.len() {
            0 => format!("costs no more than the peer in any of the {} cells", better.len()),
            count => {
                format!("costs more than the peer in {count} of {} cells: {}", CELLS.len(), list.join("; "))
            }
        };
        text.push_str(&format!("- **{}** {sentence}.\n", server.title));
    }
    text.push_str(&detours(measured));
    text.push_str("- The target for the worker on workerd is at most 1.0× in every cell.\n");
    text
}

/// Where more or fewer requests came to the upstream than the cell is meant to send there.
fn detours(measured: &[Measurement]) -> String {
    let mut text = String::new();
    for server in &SERVERS {
        for cell in &CELLS {
            let expected = if cell.forwarded { 1.0 } else { 0.0 };
            let Some(share) = Spread::of(of(measured, server.name, cell.name).map(|one| one.forwarded))
            else {
                continue;
            };
            if (share.median - expected).abs() > DETOUR_SHARE_MAX {
                let (found, expected) = (share.median * 100.0, expected * 100.0);
                let (title, name) = (server.title, cell.name);
                text.push_str(&format!(
                    "- **{title}**, {name}: {found:.0} % of the requests came to the upstream, not {expected:.0} %.\n"
                ));
            }
        }
    }
    text
}

/// How many answers were not those expected, and whose.
fn wrong_answers(measured: &[Measurement]) -> String {
    let all: u64 = measured.iter().map(|one| one.outcome.requests).sum();
    let wrong: u64 = measured.iter().map(|one| one.wrong).sum();
    let mut text = format!("Wrong answers: {wrong} of {all}.\n");
    for one in measured.iter().filter(|one| one.wrong > 0) {
        let Measurement { round, server, cell, outcome, wrong, .. } = one;
        let (lost, status) = (outcome.lost, wrong - outcome.lost);
        text.push_str(&format!(
            "- round {round}, {server}, {cell}: {status} of another status, {lost} without an answer\n"
        ));
    }
    text
}
