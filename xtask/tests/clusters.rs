//! Real PostgreSQL clusters under the supervisor: made, started, killed, started again, stopped, found as orphans.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use xtask::stack::keys::Keys;
use xtask::stack::layout::{Layout, Ports};
use xtask::stack::postgres::Clusters;
use xtask::stack::process::{self, Identity};
use xtask::stack::supervise::{RunFile, Supervisor};

#[test]
fn clusters_are_restarted_stopped_and_found_again_after_a_crash() {
    let folder = Folder::new();
    let layout = Layout::new(&folder.0, free_ports()).unwrap();
    let keys = Keys::load(&layout.data.join("keys")).unwrap();
    let programs = xtask::setup::postgres::programs().unwrap();
    let clusters = Clusters::new(&layout, &keys, &programs).unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut supervisor = Supervisor::new(layout.run_file(), Arc::clone(&stop));
    clusters.start(&layout, &keys, &mut supervisor).unwrap();
    let pids = supervisor.pids();
    let names: Vec<&str> = pids.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["postgres-us-east-1", "postgres-eu-west-1", "postgres-ap-southeast-1"]);
    for (port, flag) in layout.all_ports().into_iter().filter(|(port, _)| *port > layout.ports.base + 100) {
        process::check_port(port, flag).unwrap_err();
    }

    // Killed, it comes back as another process.
    Identity::of(pids[1].1).unwrap().signal(Signal::KILL);
    supervisor
        .watch(|now| {
            assert_ne!(now.pids()[1].1, pids[1].1);
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    let processes: Vec<Identity> =
        supervisor.pids().iter().filter_map(|(_, pid)| Identity::of(*pid)).collect();
    assert_eq!(processes.len(), 3);
    supervisor.stop();
    assert!(processes.iter().all(|process| !process.alive()));
    assert!(!layout.run_file().exists());

    // A supervisor that is gone leaves orphans; the next start ends them, and then the data is still there.
    let mut crashed = Supervisor::new(layout.run_file(), Arc::new(AtomicBool::new(false)));
    clusters.start(&layout, &keys, &mut crashed).unwrap();
    let orphans: Vec<Identity> = crashed.pids().iter().filter_map(|(_, pid)| Identity::of(*pid)).collect();
    std::mem::forget(crashed);
    RunFile::read(&layout.run_file()).end_orphans();
    assert!(orphans.iter().all(|orphan| !orphan.alive()));
    let mut next = Supervisor::new(layout.run_file(), Arc::new(AtomicBool::new(false)));
    clusters.start(&layout, &keys, &mut next).unwrap();
}

/// A folder that an unprivileged user can reach, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("meridian-clusters-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_to_the_system = fs::remove_dir_all(&self.0);
    }
}

fn free_ports() -> Ports {
    (0..50)
        .map(|step| 20_000 + (std::process::id() as u16 % 50 + step) * 200)
        .map(|base| Ports { cloudflare: base + 1, spin: base + 2, base: base + 10 })
        .find(|ports| (0..120).all(|port| process::check_port(ports.base + port, "").is_ok()))
        .expect("a machine has free ports")
}
