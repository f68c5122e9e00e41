//! Whatever an edge finds when it starts, in its own memory and at the origins: it serves by good rules as soon as there are
//! any, by bad ones never, and says so meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::kept::Kept;
use meridian_tests::proxy::{Bundle, Change, Proxy};
use meridian_tests::stack::{Stack, eventually};
use meridian_wire::encoding::version;

use crate::EdgeTest;
use crate::bad_bundles::{OLDER, TARGET, bad_bundles, port, push_marker, roll_back, visitor};
use crate::rules::head;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("starts_with_good_rules_whatever_lies_about", starts_with_good_rules_whatever_lies_about)];

/// Good rules are in force this long after they are there.
const RECOVER: Duration = Duration::from_secs(10);
/// As many replies are looked at where nothing may change.
const CHECKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);

fn starts_with_good_rules_whatever_lies_about(stack: &Stack, name: &str) -> Result<()> {
    let before = head(stack)?;
    let cold = Cold::prepare(stack, name)?;
    for (bad, change) in bad_bundles(stack, cold.older.clone())? {
        if bad == OLDER {
            // Rightly signed, it is better than nothing: it only may not take the place of what is newer.
            cold.keeps(&cold.newest, &change, 0).context("older at every origin")?;
            continue;
        }
        cold.recovers(&change).with_context(|| format!("{bad} everywhere"))?;
        cold.keeps(&cold.older, &change, 1).with_context(|| format!("{bad} at every origin"))?;
        cold.goes_on(&change).with_context(|| format!("{bad} here and at one origin"))?;
    }
    roll_back(stack, &before)
}

/// An edge that is started again and again, with two origins that may lie.
struct Cold<'a> {
    stack: &'a Stack,
    name: &'a str,
    /// What the edge kept when it had served well; each start has a copy of it.
    state: PathBuf,
    proxies: [Proxy; 2],
    /// What was in force before [`Cold::newest`].
    older: Bundle,
    newest: Bundle,
}

impl<'a> Cold<'a> {
    /// Lets the edge serve well once, so that there is a memory to spoil.
    fn prepare(stack: &'a Stack, name: &'a str) -> Result<Self> {
        let up = stack.up()?;
        let proxies = [
            Proxy::start(&up.origins["us-east-1"].url, TARGET)?,
            Proxy::start(&up.origins["eu-west-1"].url, TARGET)?,
        ];
        let state = stack.data().join(format!("cold-{name}"));
        let edge = start(stack, name, &proxies, &state)?;
        let client = visitor(stack, &edge, "first")?;
        let keeps = |wanted: &str| {
            eventually(RECOVER, || {
                let serves = bundle(&client)?;
                ensure!(serves == wanted, "serves {serves}, not {wanted}");
                let keeps = version(&Kept::find(name, &state, TARGET)?.bundle()?.bytes);
                ensure!(keeps == wanted, "keeps {keeps}, not {wanted}");
                Ok(())
            })
        };
        keeps(&head(stack)?)?;
        let older = Kept::find(name, &state, TARGET)?.bundle()?;
        keeps(&push_marker(stack, &format!("{name}-cold"))?)?;
        edge.stop()?;
        let newest = Kept::find(name, &state, TARGET)?.bundle()?;
        Ok(Self { stack, name, state, proxies, older, newest })
    }

    /// There are no good rules anywhere: the edge says so, and serves once an origin has some.
    fn recovers(&self, change: &Change) -> Result<()> {
        let bad = change(self.newest.clone());
        let (edge, client) = self.start(&bad, [Some(change), Some(change)])?;
        self.watch(
            || self.proxies.iter().all(|proxy| proxy.changed() > 0),
            || {
                let reply = client.get("/v1/whoami")?.expect(503)?;
                ensure!(reply.header("content-type") == "application/problem+json", "{:?}", reply.headers);
                ensure!(!reply.header("meridian-decision").is_empty(), "{:?}", reply.headers);
                ensure!(reply.header("retry-after") == "1", "{:?}", reply.headers);
                let problem = reply.value()?;
                ensure!(problem["type"] == "https://meridian.example/problems/not-ready", "{problem}");
                Ok(())
            },
        )?;
        self.proxies[1].change(None);
        let newest = version(&self.newest.bytes);
        eventually(RECOVER, || {
            let serves = bundle(&client)?;
            ensure!(serves == newest, "serves {serves}, not {newest}");
            Ok(())
        })?;
        edge.stop()
    }

    /// The edge keeps good rules, and the origins' are bad: it serves by those that it has, and goes on keeping them.
    /// The first origin is asked for rules this many times at least.
    fn keeps(&self, good: &Bundle, change: &Change, asked: u64) -> Result<()> {
        let (edge, client) = self.start(good, [Some(change), Some(change)])?;
        let good = version(&good.bytes);
        self.watch(
            || self.proxies[0].changed() >= asked,
            || {
                let serves = bundle(&client)?;
                ensure!(serves == good, "serves {serves}, not {good}");
                Ok(())
            },
        )?;
        edge.stop()?;
        let kept = version(&Kept::find(self.name, &self.copy(), TARGET)?.bundle()?.bytes);
        ensure!(kept == good, "{kept} took the place of what was good");
        Ok(())
    }

    /// Only one origin has good rules, and not the one that is asked first: the very first reply is by those.
    fn goes_on(&self, change: &Change) -> Result<()> {
        let bad = change(self.newest.clone());
        let (edge, client) = self.start(&bad, [Some(change), None])?;
        let (serves, newest) = (bundle(&client)?, version(&self.newest.bytes));
        ensure!(serves == newest, "serves {serves}, not {newest}");
        edge.stop()
    }

    /// Checks again and again, until enough was seen and `done` says so.
    fn watch(&self, done: impl Fn() -> bool, check: impl Fn() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let mut checks = 0;
        while checks < CHECKS || !done() {
            check()?;
            ensure!(started.elapsed() < RECOVER, "not every origin was asked for rules");
            std::thread::sleep(PAUSE);
            checks += 1;
        }
        Ok(())
    }

    /// Starts the edge with this bundle in its memory and two origins that change bundles so.
    fn start(&self, kept: &Bundle, changes: [Option<&Change>; 2]) -> Result<(Edge, Client)> {
        let state = self.copy();
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        copy_folder(&self.state, &state)?;
        Kept::find(self.name, &state, TARGET)?.plant(kept)?;
        for (proxy, change) in self.proxies.iter().zip(changes) {
            proxy.change(change.cloned());
        }
        let edge = start(self.stack, self.name, &self.proxies, &state)?;
        let client = visitor(self.stack, &edge, "cold")?;
        Ok((edge, client))
    }

    fn copy(&self) -> PathBuf {
        self.state.with_extension("copy")
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &place)?;
        } else {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Version of the rules by which the edge serves.
fn bundle(client: &Client) -> Result<String> {
    Ok(client.get("/v1/whoami")?.expect(200)?.header("meridian-bundle").to_owned())
}

fn start(stack: &Stack, name: &str, proxies: &[Proxy; 2], state: &Path) -> Result<Edge> {
    let [first, second] = proxies;
    let origins = format!("us-east-1={},eu-west-1={}", first.url, second.url);
    Edge::start(name, Flavour::Plain, port(name)?, &origins, stack.data(), state)
}
