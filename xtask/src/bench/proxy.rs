//! `cargo xtask bench proxy`: the component in the Spin host beside HAProxy, nginx with Lua, Envoy and Varnish, one after the
//! other on the same requests.

use anyhow::Result;
use clap::Args;

use super::contest::{Cell, Contest, Results, Server, Token};
use super::field::{Field, Place};
use super::proxies::Proxy;
use super::{Extent, checks};
use crate::artefacts::{Part, obtain};
use crate::paths;
use crate::progress::say;
use crate::report;
use crate::scratch::{Ports, Stop};
use crate::setup::debian;

/// Arguments of `cargo xtask bench proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyBench {
    #[command(flatten)]
    extent: Extent,
    /// The edges listen on this port and the next; the upstream and the four proxies on the five after.
    #[arg(long, default_value_t = 18720)]
    port: u16,
    /// Origins of the measured stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

static CONTEST: Contest = Contest {
    servers: &[
        Server { name: "spin", title: "Meridian in the Spin host", ours: true },
        Server { name: "haproxy", title: "HAProxy", ours: false },
        Server { name: "nginx", title: "nginx + Lua", ours: false },
        Server { name: TARGET, title: "Envoy", ours: false },
        Server { name: "varnish", title: "Varnish", ours: false },
    ],
    cells: &[
        Cell::new("pass-through", "/open/items", Token::None, 200, true),
        Cell::new("JWT, HS256 remembered", "/auth/items", Token::Hs256, 200, true).elsewhere(NO_TOKENS),
        Cell::new("JWT, ES256 remembered", "/auth/items", Token::Es256Same, 200, true).elsewhere(NO_TOKENS),
        Cell::new("JWT, ES256 always new", "/auth/items", Token::Es256New, 200, true).elsewhere(NO_TOKENS),
        Cell::new("full pipeline", "/full/items", Token::Es256Same, 200, true).elsewhere(NO_TOKENS),
        Cell::new("full pipeline, ES256 always new", "/full/items", Token::Es256New, 200, true)
            .elsewhere(COUNTED_ALONE),
        Cell::new("cache hit, 1 KB", "/cached/kilobyte", Token::None, 200, false),
        Cell::new("cache hit, 64 KB", "/cached/64-kilobytes", Token::None, 200, false),
    ],
    warm_up: &[4],
};

/// Whose cost we want to reach.
const TARGET: &str = "envoy";
/// Who can't verify tokens.
const NO_TOKENS: &[(&str, Option<&str>)] = &[("varnish", None)];
/// The same, where an edge counts alone, as the proxies do.
const COUNTED_ALONE: &[(&str, Option<&str>)] = &[("spin", Some("/counted-here/items")), ("varnish", None)];

const ABOUT: &str = "
Five servers get the same requests in turn, over 32 connections of one wrk; each has a thread or worker for each core (Varnish:
a pool of threads), keeps its connections to the upstream, writes no access log and speaks no TLS. The proxies are configured
as `proxies/` says, and remember verified tokens where they can. Before the measurement each has shown that it refuses
forged, expired and foreign tokens and one without the scope, that a subject's limit counts, that both variants of the split
occur and a subject keeps its own, and that hits don't reach the upstream.

| request | what is done for it |
|---|---|
| pass-through | forwarded, nothing looked at |
| JWT | issuer, audience, expiry and signature; forwarded with the subject in place of the token |
| remembered | one token all the time; so it is where nothing is said |
| always new | 40,000 tokens of as many subjects in turn, of which nobody knows one when its turn comes again |
| full pipeline | as JWT, then a scope, a limit of the subject, an even split by the subject with a header on the answer, a header on the forwarded request |
| cache hit | answered from memory or the page cache, without the upstream |

Whoever remembers tokens forgets the one that was used longest ago: an instance of Meridian remembers 10,000 and answers as many
requests, HAProxy's table holds 10,000, and so do nginx's and Envoy's workers together.

What they do beside that, and what not:

- **Meridian in the Spin host**: rules come from a running origin, signed, and change without a restart; every decision has an id
  and is reported to the origin; the limit is shared by the edges of a region, so that an origin is asked for parts of it, whose
  own processor time is not in the numbers, and each instance counts for itself where tokens are always new, as the proxies do;
  forwarded requests get `Forwarded`, `Via` and `traceparent`; cached answers can be purged by tag.
- **HAProxy**: verdicts in a stick table by the token's SHA-256, claims read from the token at every request; the limit is a
  sliding count in one process; one key an algorithm, no key set.
- **nginx + Lua**: verdicts with their claims in a table of each worker; the limit is a leaky bucket in shared memory; the cache is
  files, which the page cache holds.
- **Envoy**: key set and verdicts in the JWT filter of each worker; the limit is a token bucket for each subject in one process; the
  cache is the example in memory that the build brings.
- **Varnish**: no tokens, limits or splits without modules that Debian does not have; passes and caches alone.
- The proxies explain no decision and share no limit with another edge; their rules change by a reload, or by an API (Envoy).
";

impl ProxyBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be installed, built or started, or answers were not those expected.
    pub fn run(&self) -> Result<()> {
        self.extent.check(&CONTEST)?;
        let stop = Stop::listen()?;
        say("Setting up");
        debian::need_debian(&["wrk"])?;
        let proxies = Proxy::all()?;
        let folder = paths::target()?.join("bench/proxy");
        let place = Place {
            folder: &folder,
            ports: Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port },
            upstream_port: self.port + 2,
            no_build: self.extent.no_build,
            perf_map: false,
        };
        let mut field = Field::start(&CONTEST, &place, &stop, |tokens, upstream| {
            let ports = self.port + 3..;
            proxies
                .iter()
                .zip(ports)
                .map(|(proxy, port)| proxy.peer(&folder, port, tokens, upstream))
                .collect()
        })?;
        checks::check(&field)?;
        say("Measuring (µs of the server's processor time for one request)");
        let results = field.measure(&self.extent, &stop)?;
        drop(field);
        self.extent.publish(&results, "tests/bench/proxy.md", &self.report(&results, &proxies)?)
    }

    fn report(&self, results: &Results, proxies: &[Proxy]) -> Result<String> {
        let versions: Vec<String> = proxies.iter().map(Proxy::named_version).collect();
        let programs = versions.join(", ");
        let mut text =
            report::heading("CPU of the Spin host beside proxies", &self.extent.command("proxy"), &programs);
        text.push_str(ABOUT);
        text.push_str("\n## Processor time of the server for one request\n\n");
        text.push_str(&self.extent.units());
        text.push_str(
            "Ratios say what Meridian takes for each 1 of the other; – is what a server can't do.\n\n",
        );
        text.push_str(&results.cost_table());
        text.push_str("\n## The target: at most what Envoy takes\n\n");
        text.push_str(&target_table(results));
        text.push_str("\n## Where we are behind\n\n");
        text.push_str(&results.behind());
        text.push_str("\n## Beside it\n\nRequests a second, with the load generator and the upstream on the same cores:\n\n");
        text.push_str(&results.rate_table());
        let (_, component) = report::sizes(&obtain(Part::Spin, true)?)?;
        text.push_str(&format!("\nThe Spin component has {component} bytes (gzip).\n\n"));
        text.push_str(&format!("{}\n{}", results.surroundings(), results.wrong_answers()));
        Ok(text)
    }
}

/// For each cell, what we take beside the server whose cost is the target, and whether that is reached.
fn target_table(results: &Results) -> String {
    let servers = results.contest.servers;
    let ours = servers.iter().find(|server| server.ours);
    let target = servers.iter().find(|server| server.name == TARGET);
    let Some((ours, target)) = ours.zip(target) else { return String::new() };
    let rows = results.contest.cells.iter().filter_map(|cell| {
        let ratio = results.ratio(ours, target, cell)?;
        let reached = if ratio.median <= 1.0 { "yes" } else { "**no**" };
        Some(vec![cell.name.to_owned(), ratio.text(2), reached.to_owned()])
    });
    report::table(&["request", "ratio to Envoy", "target ≤ 1.00 reached"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contest::Measurement;
    use crate::bench::load::Outcome;

    #[test]
    fn the_target_is_reached_at_what_envoy_takes() {
        let measurement = |server, cell: &Cell, server_us| Measurement {
            round: 1,
            server,
            cell: cell.name,
            outcome: Outcome { server_us, ..Outcome::default() },
            forwarded: 1.0,
            wrong: 0,
        };
        let [pass, token, ..] = CONTEST.cells else { panic!("cells") };
        let measured = vec![
            measurement("spin", pass, 30.0),
            measurement(TARGET, pass, 30.0),
            measurement("spin", token, 33.0),
            measurement(TARGET, token, 30.0),
        ];
        let table = target_table(&Results { contest: &CONTEST, measured });
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| pass-through | 1.00 (1.00–1.00) | yes |",
                "| JWT, HS256 remembered | 1.10 (1.10–1.10) | **no** |"
            ]
        );
    }

    #[test]
    fn every_proxy_is_a_server_that_is_measured() {
        let names: Vec<&str> =
            CONTEST.servers.iter().filter(|server| !server.ours).map(|server| server.name).collect();
        assert_eq!(names, ["haproxy", "nginx", "envoy", "varnish"]);
    }
}
