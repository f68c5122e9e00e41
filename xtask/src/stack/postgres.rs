//! A private PostgreSQL cluster for each region.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::keys::Keys;
use super::layout::{Layout, REGIONS, Region, write_private};
use super::supervise::{Service, Supervisor, Tier};
use super::user::{RunAs, reachable_folder};
use crate::limits::POSTGRES_START_TIMEOUT;
use crate::progress::say;
use crate::run::run;
use crate::setup::postgres::Programs;

/// The cluster's first user.
pub const SUPERUSER: &str = "postgres";
/// The database of an origin.
pub const DATABASE: &str = "meridian";

/// Settings that differ from PostgreSQL's own. The slots' limit keeps a dead peer from filling the disk.
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "password_encryption=scram-sha-256",
    "wal_level=logical",
    "max_replication_slots=16",
    "max_wal_senders=16",
    "max_slot_wal_keep_size=2GB",
    "wal_writer_delay=10ms",
    "max_connections=120",
    "shared_buffers=64MB",
    "timezone=UTC",
];

/// The clusters of one local stack.
pub struct Clusters {
    programs: PathBuf,
    folder: PathBuf,
    run_as: Option<RunAs>,
}

impl Clusters {
    /// Decides where the data goes and as whom PostgreSQL runs.
    ///
    /// # Errors
    /// When there is no folder that its user can reach.
    pub fn new(layout: &Layout, keys: &Keys, programs: &Programs) -> Result<Self> {
        let run_as = RunAs::unprivileged()?;
        let wanted = layout.data.join("pg");
        let folder = reachable_folder(run_as, &wanted, &keys.id)?;
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        if folder != wanted {
            say(&format!(
                "  · PostgreSQL can't run as root, and user nobody can't reach {}: its data is in {}",
                wanted.display(),
                folder.display()
            ));
        }
        let programs = reachable_programs(run_as, &programs.folder, &folder)?;
        Ok(Self { programs, folder, run_as })
    }

    /// Makes the clusters that are missing and starts all.
    ///
    /// # Errors
    /// When `initdb` fails or a cluster does not start.
    pub fn start(&self, layout: &Layout, keys: &Keys, supervisor: &mut Supervisor) -> Result<()> {
        for region in REGIONS {
            self.init(region, &keys.postgres_superuser)?;
        }
        let services = REGIONS.map(|region| self.service(layout, region)).into_iter().collect();
        supervisor.start("PostgreSQL in three regions", services, POSTGRES_START_TIMEOUT)
    }

    /// Makes a cluster under another name and renames it: an interrupted `initdb` leaves nothing behind.
    fn init(&self, region: Region, password: &str) -> Result<()> {
        let data = self.folder.join(region.id);
        if data.join("PG_VERSION").is_file() {
            return Ok(());
        }
        let part = self.folder.join(format!("{}.part", region.id));
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("could not remove {}", part.display()))?;
        }
        fs::create_dir(&part).with_context(|| format!("could not create {}", part.display()))?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o700))?;
        let password_file = self.folder.join(format!("{}.password", region.id));
        write_private(&password_file, password.as_bytes())?;
        for path in [&part, &password_file] {
            self.run_as.map_or(Ok(()), |user| user.own(path))?;
        }
        let mut initdb = Command::new(self.programs.join("initdb"));
        initdb.args([
            "--username",
            SUPERUSER,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]);
        initdb.arg("--pwfile").arg(&password_file).arg("--pgdata").arg(&part).current_dir(&part);
        self.run_as.inspect(|user| user.apply(&mut initdb));
        let made = run(&format!("initdb for {}", region.id), &mut initdb);
        fs::remove_file(&password_file)?;
        made?;
        fs::rename(&part, &data).with_context(|| format!("could not rename {}", part.display()))
    }

    fn service(&self, layout: &Layout, region: Region) -> Service {
        let data = self.folder.join(region.id);
        let mut arguments = vec!["-D".into(), data.clone().into(), "-p".into()];
        arguments.push(layout.postgres_port(region).to_string().into());
        for setting in SETTINGS {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let name = format!("postgres-{}", region.id);
        let status = data.join("postmaster.pid");
        Service {
            log: layout.log(&name),
            name,
            tier: Tier::Database,
            program: self.programs.join("postgres"),
            arguments,
            environment: vec![],
            folder: data,
            run_as: self.run_as,
            ready: Box::new(move || ready(&status)),
            watched_at: None,
        }
    }
}

/// The eighth line of `postmaster.pid` says what the server is doing.
fn ready(status: &Path) -> Result<(), String> {
    let text = fs::read_to_string(status).unwrap_or_default();
    match text.lines().nth(7).map(str::trim) {
        Some("ready") => Ok(()),
        Some(other) => Err(other.to_owned()),
        None => Err("starting".to_owned()),
    }
}

/// The programs themselves, or a copy of them where their user can reach it (the cache may be in root's home).
fn reachable_programs(run_as: Option<RunAs>, programs: &Path, folder: &Path) -> Result<PathBuf> {
    let programs = fs::canonicalize(programs.join("postgres")).context("PostgreSQL's programs are gone")?;
    let programs = programs.parent().context("a program has a folder")?.to_path_buf();
    if run_as.is_none_or(|user| user.reaches(&programs.join("postgres"))) {
        return Ok(programs);
    }
    let installation = programs.parent().context("a bin folder has a parent")?;
    let copy = folder.join("programs");
    if !copy.join("bin/postgres").is_file() {
        run("copy PostgreSQL's programs", Command::new("cp").arg("-a").arg(installation).arg(&copy))?;
    }
    Ok(copy.join("bin"))
}
