//! Processor time of process trees, as the kernel accounts it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Reads processor times. Linux only.
pub struct Cpu {
    ticks_per_second: f64,
}

/// Processor seconds of everything on this machine at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The watched process with all its children.
    pub server: f64,
    /// This program: the upstream runs in it.
    pub own: f64,
    /// Children of this program that have ended: the load generator.
    pub ended_children: f64,
    /// All that is not idle, of all cores together.
    pub busy: f64,
}

impl Cpu {
    /// Learns the kernel's unit.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn new() -> Result<Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "processor time per process is read from /proc: run this on Linux"
        );
        let output = Command::new("getconf").arg("CLK_TCK").output().context("could not run getconf")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let ticks_per_second = text.parse().with_context(|| format!("getconf CLK_TCK says {text:?}"))?;
        Ok(Self { ticks_per_second })
    }

    /// Times of now, of the tree under `server` and the rest.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn moment(&self, server: u32) -> Result<Moment> {
        let own = times(std::process::id()).context("/proc does not know this program")?;
        let tree = tree(server)?;
        let server = tree.into_iter().filter_map(times).map(|times| times.own).sum::<u64>();
        let stat = fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
        let fields: Vec<u64> =
            stat.lines().next().unwrap_or_default().split(' ').filter_map(|f| f.parse().ok()).collect();
        // user, nice, system, (idle, iowait), irq, softirq, steal
        let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum::<u64>();
        let seconds = |ticks: u64| ticks as f64 / self.ticks_per_second;
        Ok(Moment {
            server: seconds(server),
            own: seconds(own.own),
            ended_children: seconds(own.ended_children),
            busy: seconds(busy),
        })
    }
}

/// Processor seconds of a process' threads that run, to the nanosecond: for what takes less than the kernel's ticks.
///
/// # Errors
/// When the process is gone, or the kernel does not tell.
pub fn run_seconds(pid: u32) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("could not read {folder}"))?.flatten() {
        // One that has ended meanwhile is not counted.
        let Ok(stat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let run = stat.split(' ').next().and_then(|run| run.parse::<u64>().ok());
        nanoseconds += run.with_context(|| format!("{folder}: schedstat says {stat:?}"))?;
    }
    ensure!(nanoseconds > 0, "{folder}: the kernel keeps no schedstat");
    Ok(nanoseconds as f64 / 1e9)
}

#[derive(Clone, Copy)]
struct Times {
    parent: u32,
    own: u64,
    ended_children: u64,
}

fn times(pid: u32) -> Option<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Times {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        ended_children: number(13)? + number(14)?,
    })
}

/// A process and all that it started.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("could not read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(times) = times(pid) {
            children.entry(times.parent).or_default().push(pid);
        }
    }
    ensure!(times(root).is_some(), "process {root} has ended");
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(pid) = tree.get(next) {
        tree.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn work_of_this_process_is_seen_and_a_child_is_in_its_tree() {
        let cpu = Cpu::new().unwrap();
        let before = cpu.moment(std::process::id()).unwrap();
        let started = Instant::now();
        // A busy machine gives it its share only.
        while started.elapsed() < Duration::from_secs(60) && run_seconds(std::process::id()).unwrap() < 0.1 {
            std::hint::black_box(started.elapsed());
        }
        let after = cpu.moment(std::process::id()).unwrap();
        assert!(after.own > before.own && after.busy > before.busy && after.server > before.server);
        let run = run_seconds(std::process::id()).unwrap();
        assert!(run >= 0.1, "{run}");
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        assert!(tree(std::process::id()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(cpu.moment(child.id()).is_err());
    }
}
