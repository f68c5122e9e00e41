//! Processes by identity: a number alone may by now belong to somebody else.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::limits::POLL;

/// A process and when it started; together they name it for good.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Identity {
    /// Process number.
    pub pid: u32,
    /// When it started, in the system's own words.
    started: String,
}

impl Identity {
    /// The identity of a running process; none if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        start_time(pid).map(|started| Self { pid, started })
    }

    /// Whether this very process still runs.
    pub fn alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.alive()
            && let Some(pid) = pid(self.pid)
        {
            // It may end between the check and the signal; then there is nothing left to do.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; false if it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let started = Instant::now();
        while self.alive() {
            if started.elapsed() > limit {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

/// Lets this process and those that it starts have as many files open as is allowed: workerd, which holds one for each
/// connection, goes by what it is given.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where that fails, as many connections are held as before.
        let _raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Asks a process to end, and makes it end after `limit`.
pub fn end(identity: &Identity, signal: Signal, limit: Duration) {
    identity.signal(signal);
    if !identity.wait(limit) {
        identity.signal(Signal::KILL);
        identity.wait(limit);
    }
}

/// The process that listens on a port of this machine, as far as the system tells: its number and name.
pub fn listener(port: u16) -> Option<(u32, String)> {
    let inode = listening_inode(port)?;
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let sockets = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = sockets
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()));
        holds.then(|| {
            (pid, fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned())
        })
    })
}

fn listening_inode(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (address.ends_with(&port) && *state == LISTEN).then(|| (*inode).to_owned())
        })
    })
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

fn start_time(number: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, started) = (fields.first()?, fields.get(19)?);
        return (*state != "Z").then(|| (*started).to_owned());
    }
    let output =
        std::process::Command::new("ps").args(["-o", "lstart=", "-p", &number.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Checks that `port` of 127.0.0.1 is free.
///
/// # Errors
/// When something listens there, or we may not; the error names the flag that moves the port, and who holds it if that can be known.
pub fn check_port(port: u16, flag: &str) -> Result<()> {
    let Err(error) = std::net::TcpListener::bind(("127.0.0.1", port)) else { return Ok(()) };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        bail!("port {port} can't be used ({error}); choose another with {flag}");
    }
    let holder = listener(port).map_or(String::new(), |(pid, name)| format!(" by {name} (process {pid})"));
    bail!("port {port} is taken{holder}; choose another with {flag}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_until_it_ends() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.alive());
        identity.signal(Signal::TERM);
        assert!(identity.wait(Duration::from_secs(5)));
        child.wait().unwrap();
        assert!(!identity.alive());
    }

    #[test]
    fn another_process_of_the_same_number_is_not_ours() {
        let me = Identity { pid: std::process::id(), started: "0".into() };
        assert!(!me.alive());
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder_and_flag() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_port(port, "--spin-port").unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--spin-port"), "{error}");
        if cfg!(target_os = "linux") {
            assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        }
        drop(taken);
        // A process that another test is just starting has it for a moment still.
        let is_free = || check_port(port, "--spin-port").is_ok();
        assert!((0..500).any(|_| is_free() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
    }
}
