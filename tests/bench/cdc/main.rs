//! What `cargo xtask bench cdc` runs: two real regions, and between them, in turn, this project's change path and
//! PostgreSQL's own logical subscription. Progress goes to standard error, the measurements as JSON to standard output.
//!
//! Only one of the two runs at a time, on the same clusters. What is written is the same: a record of the collection
//! `orders` here, a row of a plain table with the same key and columns there.

mod pair;
mod path;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use pair::Pair;
use path::Path;

/// Commits per second while time to visible is measured.
const RATE: u32 = 100;
/// Rows of a transaction when throughput is measured.
const ROWS_PER_TRANSACTION: [u32; 2] = [1, 100];
/// Rows in larger transactions are this many times as many, so that a drain does not end at once.
const LARGE_FACTOR: u32 = 4;
/// Longest wait for a change to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(120);

/// Everything measured.
#[derive(Serialize)]
struct Measured {
    postgres: String,
    rate: u32,
    visible: Vec<Visible>,
    drains: Vec<Drain>,
}

/// How long commits took to be visible in the other region.
#[derive(Serialize)]
struct Visible {
    round: u32,
    path: Path,
    /// From the answer to the commit here until a query there shows it, in milliseconds.
    after_commit_ms: Vec<f64>,
}

/// How fast a backlog was applied.
#[derive(Serialize)]
struct Drain {
    round: u32,
    path: Path,
    rows_per_transaction: u32,
    rows: u64,
    /// For writing the rows at the source.
    fill_seconds: f64,
    /// From the moment that the path was started until the last row was visible.
    seconds: f64,
    /// Between the first look that showed rows and the last row.
    rows_per_second: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<u32> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[rounds, seconds, rows] = arguments.as_slice() else { bail!("arguments: ROUNDS SECONDS ROWS") };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(rounds, seconds, rows))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

async fn measure(rounds: u32, seconds: u32, rows: u32) -> Result<Measured> {
    eprintln!("starting two regions");
    let mut pair = Pair::start().await?;
    let mut measured =
        Measured { postgres: pair.version().await?, rate: RATE, visible: Vec::new(), drains: Vec::new() };
    for path in Path::ALL {
        pair.switch(path).await?;
        pair.visible(path, RATE, 1).await?;
    }
    for round in 1..=rounds {
        let mut order = Path::ALL;
        if round % 2 == 0 {
            order.reverse();
        }
        for path in order {
            let after_commit_ms = pair.visible_after_switch(path, seconds).await?;
            let mut sorted = after_commit_ms.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
            eprintln!("round {round} {path}: visible after {:.2} ms p50, {:.2} ms p99", at(0.5), at(0.99));
            measured.visible.push(Visible { round, path, after_commit_ms });
        }
        for rows_per_transaction in ROWS_PER_TRANSACTION {
            for path in order {
                let factor = if rows_per_transaction == 1 { 1 } else { LARGE_FACTOR };
                let transactions = (rows * factor / rows_per_transaction).max(1);
                let drain = pair.drain(round, path, transactions, rows_per_transaction).await?;
                eprintln!(
                    "round {round} {path}: {} rows in transactions of {rows_per_transaction}: {:.0} rows/s",
                    drain.rows, drain.rows_per_second
                );
                measured.drains.push(drain);
            }
        }
    }
    pair.stop().await?;
    Ok(measured)
}

impl Pair {
    async fn visible_after_switch(&mut self, path: Path, seconds: u32) -> Result<Vec<f64>> {
        self.switch(path).await?;
        self.visible(path, RATE, seconds).await
    }

    /// Commits rows at an even rate and waits for each to be visible in the other region.
    async fn visible(&mut self, path: Path, rate: u32, seconds: u32) -> Result<Vec<f64>> {
        let count = rate * seconds;
        let started = Instant::now();
        let mut waits = Vec::with_capacity(count as usize);
        for index in 0..count {
            let due = Duration::from_secs(1) * index / rate;
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
            let row = self.write_one(path).await?;
            let committed = Instant::now();
            while !self.arrived(path, row).await? {
                if committed.elapsed() > ARRIVAL_MAX {
                    bail!("a row did not arrive by {path}");
                }
            }
            waits.push(committed.elapsed().as_secs_f64() * 1e3);
        }
        Ok(waits)
    }

    /// Writes a backlog while nothing applies it, then starts the path and waits for the last row.
    async fn drain(
        &mut self,
        round: u32,
        path: Path,
        transactions: u32,
        rows_per_transaction: u32,
    ) -> Result<Drain> {
        self.hold(path).await?;
        let filling = Instant::now();
        let (first, last) = self.fill(path, transactions, rows_per_transaction).await?;
        let fill_seconds = filling.elapsed().as_secs_f64();
        self.settle_source(path).await?;
        let started = Instant::now();
        self.release(path).await?;
        let arrived = async |row: u64, pause: Duration| -> Result<()> {
            while !self.arrived(path, row).await? {
                if started.elapsed() > ARRIVAL_MAX {
                    bail!("the backlog did not arrive by {path}");
                }
                tokio::time::sleep(pause).await;
            }
            Ok(())
        };
        arrived(first, Duration::from_millis(1)).await?;
        let seen = self.count_between(path, first, last).await?;
        let first_look = Instant::now();
        arrived(last, Duration::from_millis(2)).await?;
        let rows = last - first + 1;
        let rest = rows
            .checked_sub(seen)
            .filter(|rest| *rest > 0)
            .context("the backlog was too small to measure")?;
        Ok(Drain {
            round,
            path,
            rows_per_transaction,
            rows,
            fill_seconds,
            seconds: started.elapsed().as_secs_f64(),
            rows_per_second: rest as f64 / first_look.elapsed().as_secs_f64(),
        })
    }
}
