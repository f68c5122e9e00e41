//! Ten thousand connections on which nothing happens, beside which requests are answered as ever.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::stack::Stack;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::EdgeTest;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("holds_ten_thousand_idle_connections", holds_ten_thousand_idle_connections)];

const IDLE: usize = 10_000;
/// Every so many of them had a request before.
const WITH_REQUEST: usize = 10;
/// Files that processes need for that, and others: workerd holds two for each connection.
const FILES: u64 = 21_000;
/// Files that an edge has open beside them.
const OTHER_FILES: u64 = 1_000;
/// Requests beside them, each within this time.
const BESIDE: usize = 50;
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The whole test, on a machine that is busy as well.
const TEST_MAX: Duration = Duration::from_secs(60);
/// Bytes of the Spin host's memory for each of them; about a third of it is the read buffer of those that had a request.
const SPIN_BYTES_MAX: u64 = 48 * 1024;
const REQUEST: &str = "GET /v1/whoami HTTP/1.1\r\nHost: acme.localhost\r\n\r\n";

/// Lets this process and what it starts have as many files open as that takes.
pub fn raise_open_files() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let hard = maximum.unwrap_or(u64::MAX);
    if current == maximum && hard >= FILES {
        return Ok(());
    }
    // Beyond what is allowed only root may go; up to there everybody may.
    let wanted = maximum.map(|hard| hard.max(FILES));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted });
    raised.or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }))?;
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    ensure!(allowed >= FILES, "{FILES} open files are wanted, and {allowed} are allowed");
    Ok(())
}

/// workerd closes what is idle 15 s after it was opened or answered; those connections are looked at that are younger.
fn holds_ten_thousand_idle_connections(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let address = up.edges[edge].trim_start_matches("http://");
    let pid = *up.pids.get(&format!("edge-{edge}")).context("the edge's process")?;
    let client = stack.edge(edge, "acme")?.bearer(&stack.token("acme", "beside-idle", "orders:read")?);
    client.get("/v1/whoami")?.expect(200)?;
    let (begun, before) = (Instant::now(), resident_bytes(pid)?);
    let many = idle_max(edge, pid)?;
    let mut idle = Vec::with_capacity(many);
    for number in 0..many {
        let mut stream = TcpStream::connect(address).with_context(|| format!("connection {number}"))?;
        if number % WITH_REQUEST == 0 {
            ask(&mut stream).with_context(|| format!("connection {number}"))?;
        }
        idle.push((stream, Instant::now()));
    }
    let opened = begun.elapsed();
    let mut slowest = Duration::ZERO;
    for _ in 0..BESIDE {
        let asked = Instant::now();
        client.get("/v1/whoami")?.expect(200)?;
        slowest = slowest.max(asked.elapsed());
    }
    let each = resident_bytes(pid)?.saturating_sub(before) / many as u64;
    println!(
        "{edge}: {many} connections within {opened:?}, {each} bytes each, requests beside within {slowest:?}"
    );
    ensure!(slowest < ANSWER_MAX, "a request beside took {slowest:?}");
    let kept = Duration::from_secs(if edge == "spin" { 60 } else { 10 });
    let mut asked = 0;
    for (stream, since) in idle.iter_mut().rev().step_by(97) {
        if since.elapsed() < kept {
            ask(stream).context("an idle connection")?;
            asked += 1;
        }
    }
    ensure!(asked > 0, "all of them are too old: they were opened within {opened:?}");
    ensure!(edge != "spin" || each <= SPIN_BYTES_MAX, "{each} bytes for each, at most {SPIN_BYTES_MAX}");
    ensure!(begun.elapsed() < TEST_MAX, "it took {:?}", begun.elapsed());
    Ok(())
}

/// Ten thousand, or as many as the edge and this process may have files for: who runs this may not be allowed to raise that, and
/// hears of it.
fn idle_max(edge: &str, pid: i32) -> Result<usize> {
    let own = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let of_edge = files_max(pid)?;
    let each = if edge == "cloudflare" { 2 } else { 1 };
    let room = own.saturating_sub(OTHER_FILES).min(of_edge.saturating_sub(OTHER_FILES) / each);
    let many = IDLE.min(usize::try_from(room).unwrap_or(usize::MAX));
    if many < IDLE {
        println!(
            "{edge}: {many} connections and not {IDLE}: {of_edge} files may be open there, {each} for each \
             connection, and {own} here"
        );
    }
    ensure!(many >= IDLE / 2, "{room} connections are too few for {edge}: raise the limit of open files");
    Ok(many)
}

/// How many files a process may have open, as Linux tells it.
fn files_max(pid: i32) -> Result<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("open files")?;
    let soft = line.split_whitespace().next().context("a limit")?;
    if soft == "unlimited" { Ok(u64::MAX) } else { Ok(soft.parse()?) }
}

/// Asks for something that takes a token, and is told so.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(ANSWER_MAX * 5))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    // The body is JSON, whose end is that of the answer.
    while !answer.ends_with(b"}") {
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 401 "), "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Memory of a process, as Linux counts it.
fn resident_bytes(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
