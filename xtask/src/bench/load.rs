//! Load: wrk with a script of ours, and what it reports.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::cpu::Cpu;
use crate::paths;

/// Connections that are open at once.
const CONNECTIONS: &str = "32";
/// wrk ends at the latest this long after its time.
const TIMEOUT: &str = "5s";
/// A server warms up for this long before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Base URL of the server.
    pub url: String,
    /// The server's process.
    pub pid: u32,
    /// The `Host` that it is asked by.
    pub host: &'static str,
    /// Path.
    pub path: &'static str,
    /// File of tokens, one a line, and how many of its lines are used.
    pub tokens: Option<(PathBuf, u64)>,
    /// Line of the first token that is used.
    pub first_token: u64,
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Requests that were answered.
    pub requests: u64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Answers with a status of 400 or above.
    pub refused: u64,
    /// Connections and requests that failed.
    pub lost: u64,
    /// Half of the answers took at most this many microseconds.
    pub p50_us: u64,
    /// 99 of 100 answers took at most this many microseconds.
    pub p99_us: u64,
    /// Processor time of the server for one request, in microseconds.
    pub server_us: f64,
    /// Processor time of the upstream for one request, in microseconds.
    pub upstream_us: f64,
    /// Cores that were busy with something else.
    pub other_cores: f64,
    /// Requests before those that were measured.
    pub warm_up_requests: u64,
}

impl Load {
    /// Warms the server up, then measures it for so many seconds.
    ///
    /// # Errors
    /// When wrk fails or the server is gone.
    pub fn measure(&self, cpu: &Cpu, seconds: u32) -> Result<Outcome> {
        let warm = self.run(WARM_UP.as_secs(), self.first_token)?;
        let before = cpu.moment(self.pid)?;
        let ran = self.run(u64::from(seconds), self.first_token + warm.requests)?;
        let after = cpu.moment(self.pid)?;
        ensure!(ran.requests > 0, "{} answered nothing", self.url);
        let requests = ran.requests as f64;
        let (server, upstream) = (after.server - before.server, after.own - before.own);
        let load = after.ended_children - before.ended_children;
        let others = (after.busy - before.busy - server - upstream - load).max(0.0);
        Ok(Outcome {
            server_us: server * 1e6 / requests,
            upstream_us: upstream * 1e6 / requests,
            other_cores: others / ran.seconds,
            warm_up_requests: warm.requests,
            ..ran
        })
    }

    fn run(&self, seconds: u64, first_token: u64) -> Result<Outcome> {
        let script = paths::root().join("tests/bench/load.lua");
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", CONNECTIONS, "--timeout", TIMEOUT]);
        wrk.arg("--duration").arg(format!("{seconds}s")).arg("--script").arg(script).arg(&self.url);
        wrk.args(["--", self.host, self.path]);
        if let Some((file, count)) = &self.tokens {
            wrk.arg(file).arg(first_token.to_string()).arg(count.to_string());
        }
        let output = wrk.output().context("could not run wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        parse(&text).with_context(|| format!("wrk ended with {}:\n{text}{errors}", output.status))
    }
}

fn parse(text: &str) -> Option<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "))?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[requests, duration_us, refused, lost, p50_us, p99_us] = numbers.as_slice() else { return None };
    Some(Outcome {
        requests,
        seconds: duration_us as f64 / 1e6,
        refused,
        lost,
        p50_us,
        p99_us,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_found_among_what_wrk_prints() {
        let text = "Running 1s test\n  100 requests in 1.00s\nRESULT 100 1000250 3 1 250 990\n";
        let outcome = parse(text).unwrap();
        assert_eq!((outcome.requests, outcome.refused, outcome.lost), (100, 3, 1));
        assert_eq!((outcome.p50_us, outcome.p99_us), (250, 990));
        assert!((outcome.seconds - 1.00025).abs() < 1e-9);
        assert!(parse("RESULT 1 2").is_none() && parse("").is_none());
    }
}
