//! What the local stack consists of, and where each part listens and keeps its data.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::process::check_port;
use crate::paths;

/// The three regions and their ordinals.
pub const REGIONS: [Region; 3] = [
    Region { id: "us-east-1", ordinal: 1 },
    Region { id: "eu-west-1", ordinal: 2 },
    Region { id: "ap-southeast-1", ordinal: 3 },
];

/// What stacks make in their data folder, the log of who starts them there included.
pub const DATA: [&str; 11] = [
    "demo",
    "keys",
    "log",
    "pg",
    "places.mmdb",
    "run.json",
    "spin",
    "up.json",
    "up.lock",
    "up.log",
    "workerd",
];
/// The highest base port: what is counted from it has to be a port, too.
pub const BASE_PORT_MAX: u16 = u16::MAX - POSTGRES_ABOVE - REGIONS.len() as u16;
/// PostgreSQL's ports are so far above those of origins.
const POSTGRES_ABOVE: u16 = 100;

/// A region of the local stack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Region {
    /// Name, such as `us-east-1`.
    pub id: &'static str,
    /// Small number that stands for it in positions.
    pub ordinal: u16,
}

/// Ports of the local stack, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The edge on workerd.
    pub cloudflare: u16,
    /// The edge in the Spin host.
    pub spin: u16,
    /// Origins listen from one above it, PostgreSQL from 101 above it.
    pub base: u16,
}

/// The folder and the addresses of one local stack.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute path of the data folder, usually `.meridian`.
    pub data: PathBuf,
    /// Where everything listens.
    pub ports: Ports,
}

impl Layout {
    /// Makes the data folder.
    ///
    /// # Errors
    /// When it can't be made, or the ports would go beyond the last one.
    pub fn new(data: &Path, ports: Ports) -> Result<Self> {
        anyhow::ensure!(ports.base <= BASE_PORT_MAX, "--base-port {} is above {BASE_PORT_MAX}", ports.base);
        let data = paths::root().join(data);
        for (folder, mode) in [("", 0o755), ("log", 0o755), ("keys", 0o700)] {
            let folder = data.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        }
        Ok(Self { data, ports })
    }

    /// Port of a region's origin.
    pub fn origin_port(&self, region: Region) -> u16 {
        self.ports.base + region.ordinal
    }

    /// Port of a region's PostgreSQL.
    pub fn postgres_port(&self, region: Region) -> u16 {
        self.ports.base + POSTGRES_ABOVE + region.ordinal
    }

    /// URL of a region's origin.
    pub fn origin_url(&self, region: Region) -> String {
        format!("http://127.0.0.1:{}", self.origin_port(region))
    }

    /// URL of a region's PostgreSQL for one role.
    pub fn postgres_url(&self, region: Region, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.postgres_port(region))
    }

    /// URL of the edge on workerd.
    pub fn cloudflare_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.cloudflare)
    }

    /// URL of the edge in the Spin host.
    pub fn spin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.spin)
    }

    /// The value of `MERIDIAN_ORIGINS`.
    pub fn origins(&self) -> String {
        REGIONS.map(|region| format!("{}={}", region.id, self.origin_url(region))).join(",")
    }

    /// Log file of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.data.join("log").join(format!("{name}.log"))
    }

    /// The synthetic place database.
    pub fn places(&self) -> PathBuf {
        self.data.join("places.mmdb")
    }

    /// What others read to find the running stack.
    pub fn up_file(&self) -> PathBuf {
        self.data.join("up.json")
    }

    /// The processes that were started, for the next start to find.
    pub fn run_file(&self) -> PathBuf {
        self.data.join("run.json")
    }

    /// Checks that every port is free, and meant for one thing only.
    ///
    /// # Errors
    /// When one is not; the error names the flags that move it.
    pub fn check_ports(&self) -> Result<()> {
        let mut flags = BTreeMap::new();
        for (port, flag) in self.all_ports() {
            if let Some(other) = flags.insert(port, flag) {
                bail!("{other} and {flag} both come to port {port}; choose another with one of them");
            }
            check_port(port, flag)?;
        }
        Ok(())
    }

    /// Every port and the flag that moves it.
    pub fn all_ports(&self) -> Vec<(u16, &'static str)> {
        let mut ports = vec![(self.ports.cloudflare, "--cloudflare-port"), (self.ports.spin, "--spin-port")];
        for region in REGIONS {
            ports.push((self.origin_port(region), "--base-port"));
            ports.push((self.postgres_port(region), "--base-port"));
        }
        ports
    }
}

/// Writes a file that only its owner may read: whole or not at all.
///
/// # Errors
/// When it can't be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("could not write {}", path.display()))
}
