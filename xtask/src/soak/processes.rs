//! What the kernel tells of processes and their children: memory, open files, connections.

use std::collections::{HashMap, HashSet};
use std::fs;

use serde::Serialize;

/// States of a socket in the kernel's tables that are no connection: one that listens, and one whose process is done
/// with it.
const NO_CONNECTION: [&str; 2] = ["0A", "06"];

/// Where workerd here keeps its Durable Objects: three files of each that was asked for in the last seconds, as many as there
/// are counters in use.
const OBJECTS: &str = "/workerd/objects/";

/// What one process and its children hold.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Look {
    /// Memory; of what several processes share, each one's part.
    pub mb: f64,
    /// What of it is no page of a file.
    pub anonymous_mb: f64,
    /// Open files, sockets among them.
    pub files: f64,
    /// TCP connections.
    pub connections: f64,
}

/// The machine's processes at one moment.
pub struct Processes {
    children: HashMap<u32, Vec<u32>>,
    /// Inodes of all sockets that are connections.
    connections: HashSet<u64>,
}

impl Processes {
    /// Those that there are now.
    pub fn now() -> Self {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(parent) = parent_of(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        Self { children, connections: tables.iter().flat_map(|table| connections(table)).collect() }
    }

    /// What this one and its children hold; none where it is gone.
    pub fn look(&self, pid: u32) -> Option<Look> {
        let mut look = self.look_at(pid)?;
        for child in self.children.get(&pid).into_iter().flatten() {
            // One that has ended meanwhile holds nothing.
            let of_child = self.look(*child).unwrap_or_default();
            look.mb += of_child.mb;
            look.anonymous_mb += of_child.anonymous_mb;
            look.files += of_child.files;
            look.connections += of_child.connections;
        }
        Some(look)
    }

    fn look_at(&self, pid: u32) -> Option<Look> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let (mb, anonymous_mb) = (memory_mb(&rollup, "Pss:")?, memory_mb(&rollup, "Pss_Anon:")?);
        let mut look = Look { mb, anonymous_mb, ..Look::default() };
        for file in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
            let target = fs::read_link(file.path()).ok();
            let target = target.as_ref().and_then(|target| target.to_str()).unwrap_or_default();
            if target.contains(OBJECTS) {
                continue;
            }
            look.files += 1.0;
            let socket =
                target.strip_prefix("socket:[").and_then(|socket| socket.strip_suffix(']')?.parse().ok());
            if socket.is_some_and(|inode: u64| self.connections.contains(&inode)) {
                look.connections += 1.0;
            }
        }
        Some(look)
    }
}

fn memory_mb(rollup: &str, field: &str) -> Option<f64> {
    let share = rollup.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: f64 = share.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes / 1_024.0)
}

/// The second field after the name, which is in parentheses and may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Inodes of the sockets in one of the kernel's tables that are connections.
fn connections(table: &str) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(3);
        let state = fields.next()?;
        let inode = fields.nth(5)?.parse().ok()?;
        (!NO_CONNECTION.contains(&state)).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn connections_and_files_are_counted() {
        let own = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let before = Processes::now().look(own).unwrap();
        let address = listener.local_addr().unwrap();
        let pairs: Vec<_> =
            (0..20).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap())).collect();
        let now = Processes::now().look(own).unwrap();
        // Other tests of this process open and close some.
        assert!(now.connections >= before.connections + 30.0, "{before:?} {now:?}");
        assert!(now.files >= before.files + 30.0, "{before:?} {now:?}");
        drop(pairs);
        let after = Processes::now().look(own).unwrap();
        assert!(after.connections <= now.connections - 30.0, "{now:?} {after:?}");
    }

    #[test]
    fn children_count() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let processes = Processes::now();
        let (own, of_child) =
            (processes.look(std::process::id()).unwrap(), processes.look(child.id()).unwrap());
        assert!(own.mb > of_child.mb && of_child.files >= 3.0, "{own:?} {of_child:?}");
        assert!(of_child.mb > of_child.anonymous_mb && of_child.anonymous_mb > 0.0, "{of_child:?}");
        assert!(processes.children[&std::process::id()].contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(processes.look(child.id()).is_none());
    }
}
