//! HAProxy, nginx with Lua, Envoy and Varnish, as `tests/bench/proxies/` configures them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::field::{Peer, get};
use super::tokens::{AUDIENCE, ISSUER, Tokens};
use super::upstream::Upstream;
use crate::setup::{debian, envoy};
use crate::stack::layout::write_private;
use crate::stack::supervise::{Service, Tier};
use crate::template::fill_in;
use crate::{paths, report};

/// What Debian brings: the servers, and what nginx needs for tokens.
const PACKAGES: [&str; 6] =
    ["haproxy", "nginx-light", "libnginx-mod-http-lua", "lua-cjson", "lua-luaossl", "varnish"];
/// Where Debian keeps nginx's modules.
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";

/// Verified tokens that a proxy remembers, all of its workers together: as many as one of our instances, and a quarter of
/// those that come in turn. HAProxy's threads share a table of as many.
const VERDICTS: usize = 10_000;

/// A proxy that can be started.
pub struct Proxy {
    /// Its name, which is that of its configuration without its end.
    name: &'static str,
    program: PathBuf,
    configuration: &'static str,
    /// Asks for its version.
    version: &'static str,
}

impl Proxy {
    /// Brings all of them.
    ///
    /// # Errors
    /// When one can't be installed.
    pub fn all() -> Result<[Self; 4]> {
        debian::need_servers(&PACKAGES)?;
        let proxy = |name, program, configuration, version| Self { name, program, configuration, version };
        Ok([
            proxy("haproxy", debian::program("haproxy", "haproxy")?, "haproxy.cfg", "-v"),
            proxy("nginx", debian::program("nginx", "nginx-light")?, "nginx.conf", "-v"),
            proxy("envoy", envoy::envoy()?, "envoy.yaml", "--version"),
            proxy("varnish", debian::program("varnishd", "varnish")?, "varnish.vcl", "-V"),
        ])
    }

    /// Its name and version.
    pub fn named_version(&self) -> String {
        let line = report::first_line(Command::new(&self.program).arg(self.version));
        format!("{} {}", self.name, version_in(&line).unwrap_or("of an unknown version"))
    }

    /// The proxy as a service on a port of 127.0.0.1; its files are in `folder`.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn peer(&self, folder: &Path, port: u16, tokens: &Tokens, upstream: &Upstream) -> Result<Peer> {
        let state = folder.join(self.name);
        fs::create_dir_all(&state).with_context(|| format!("could not create {}", state.display()))?;
        let here = paths::root().join("tests/bench/proxies");
        let template = here.join(format!("{}.in", self.configuration));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let values = [
            ("LISTEN", format!("127.0.0.1:{port}")),
            ("LISTEN_PORT", port.to_string()),
            ("UPSTREAM", format!("127.0.0.1:{}", upstream.port)),
            ("UPSTREAM_PORT", upstream.port.to_string()),
            ("ISSUER", ISSUER.to_owned()),
            ("AUDIENCE", AUDIENCE.to_owned()),
            ("JWKS", tokens.keys.to_string()),
            ("HS256_SECRET", tokens.hs256_secret()?),
            ("ES256_PEM", text(&tokens.es256_pem)),
            ("THREADS", threads().to_string()),
            ("VERDICTS", (VERDICTS / threads()).max(1).to_string()),
            ("MODULES", NGINX_MODULES.to_owned()),
            ("HERE", text(&here)),
            ("STATE", text(&state)),
        ];
        let content = fs::read_to_string(&template);
        let content = content.with_context(|| format!("could not read {}", template.display()))?;
        let content = fill_in(&content, &values).with_context(|| format!("in {}", template.display()))?;
        let configuration = state.join(self.configuration);
        write_private(&configuration, content.as_bytes())?;
        let url = format!("http://127.0.0.1:{port}");
        let asked = format!("{url}/open/items");
        let service = Service {
            name: self.name.to_owned(),
            tier: Tier::Edge,
            program: self.program.clone(),
            arguments: self.arguments(configuration, &state, port),
            environment: vec![],
            folder: state.clone(),
            run_as: None,
            log: folder.join(format!("{}.log", self.name)),
            watched_at: None,
            ready: Box::new(move || match get(&asked, None).send() {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("answers {}", answer.status)),
                Err(error) => Err(error.to_string()),
            }),
        };
        Ok(Peer { url, service })
    }

    /// In the foreground, with as many threads or workers as the Spin host has where the configuration does not say it.
    fn arguments(&self, configuration: PathBuf, state: &Path, port: u16) -> Vec<OsString> {
        let threads = threads();
        let (options, file) = match self.name {
            "haproxy" => ("-db".to_owned(), "-f"),
            "nginx" => ("-e stderr".to_owned(), "-c"),
            "envoy" => (format!("--concurrency {threads} --disable-hot-restart --log-level error"), "-c"),
            _ => {
                let pools = format!("-p thread_pools={threads} -s malloc,64m");
                (format!("-F -j none -T none {pools} -a 127.0.0.1:{port}"), "-f")
            }
        };
        let mut arguments: Vec<OsString> = options.split(' ').map(Into::into).collect();
        if self.name == "varnish" {
            arguments.extend(["-n".into(), state.join("work").into()]);
        }
        arguments.extend([file.into(), configuration.into()]);
        arguments
    }
}

/// As many threads as the Spin host takes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first thing in a line that looks like a version: two numbers with a point between, and what follows.
fn version_in(line: &str) -> Option<&str> {
    let starts = line.char_indices().filter(|(_, letter)| letter.is_ascii_digit()).map(|(at, _)| &line[at..]);
    let mut versions = starts.filter(|rest| {
        let after = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        after.strip_prefix('.').is_some_and(|minor| minor.starts_with(|letter: char| letter.is_ascii_digit()))
    });
    versions.next()?.split([' ', '/', ')']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_each_prints() {
        for (line, version) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/09/02 - https://haproxy.org/", Some("2.6.12-1+deb12u4")),
            ("nginx version: nginx/1.22.1", Some("1.22.1")),
            ("/x/envoy  version: 9e5580933739/1.40.0/Clean/RELEASE/BoringSSL", Some("1.40.0")),
            ("varnishd (varnish-7.1.1 revision 7cee1c581bead20e88d101ab3d72afb29f14d87a)", Some("7.1.1")),
            ("no version 12 here.", None),
        ] {
            assert_eq!(version_in(line), version, "{line}");
        }
    }

    #[test]
    fn no_configuration_asks_for_what_is_not_known() {
        let folder = std::env::temp_dir().join(format!("meridian-proxies-{}", std::process::id()));
        let secret = "0123456789abcdef0123456789abcdef";
        let tokens = Tokens::for_tests(&folder, secret);
        let upstream = Upstream::start(0).unwrap();
        for (name, configuration) in [
            ("haproxy", "haproxy.cfg"),
            ("nginx", "nginx.conf"),
            ("envoy", "envoy.yaml"),
            ("varnish", "varnish.vcl"),
        ] {
            let proxy = Proxy { name, program: PathBuf::from(name), configuration, version: "-v" };
            proxy.peer(&folder, 1, &tokens, &upstream).unwrap();
            let text = fs::read_to_string(folder.join(name).join(configuration)).unwrap();
            assert!(text.contains(&upstream.port.to_string()), "{name}");
            assert!(name == "varnish" || text.contains(ISSUER), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
