//! `cargo xtask bench edge`: the worker on workerd, the component in the Spin host, and two hand-written workers on the same
//! workerd, one after the other on the same requests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use super::contest::{Cell, Contest, Results, Server, Token};
use super::field::{Field, Place};
use super::peer::{LEAN, PEER};
use super::sizes::{self, Size};
use super::{Extent, checks, peer};
use crate::paths;
use crate::progress::say;
use crate::report;
use crate::scratch::{Ports, Stop};
use crate::setup::{debian, npm};

/// Arguments of `cargo xtask bench edge`.
#[derive(Args, Clone, Debug)]
pub struct EdgeBench {
    #[command(flatten)]
    extent: Extent,
    /// The edges listen on this port and the next; the upstream and the two peers on the three after.
    #[arg(long, default_value_t = 18700)]
    port: u16,
    /// Origins of the measured stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

static CONTEST: Contest = Contest {
    servers: &[
        Server { name: PEER.name, title: "Hono + jose", ours: false },
        Server { name: LEAN.name, title: "the lean one", ours: false },
        Server { name: "cloudflare", title: "Meridian on workerd", ours: true },
        Server { name: "spin", title: "Meridian in the Spin host", ours: true },
    ],
    cells: &[
        Cell::new("answered here, no JWT", "/local/open", Token::None, 404, false),
        Cell::new("answered here, HS256", "/local/auth", Token::Hs256, 403, false),
        Cell::new("answered here, ES256 remembered", "/local/auth", Token::Es256Same, 403, false),
        Cell::new("answered here, ES256 always new", "/local/auth", Token::Es256New, 403, false),
        Cell::new("forwarded, no JWT", "/open/items", Token::None, 200, true),
        Cell::new("forwarded, HS256", "/auth/items", Token::Hs256, 200, true),
        Cell::new("forwarded, ES256 remembered", "/auth/items", Token::Es256Same, 200, true),
        Cell::new("forwarded, ES256 always new", "/auth/items", Token::Es256New, 200, true),
        Cell::new("full pipeline, ES256 remembered", "/full/items", Token::Es256Same, 200, true)
            .elsewhere(TOKEN_ALONE),
        Cell::new("full pipeline, ES256 always new", "/counted-here/items", Token::Es256New, 200, true)
            .elsewhere(TOKEN_ALONE),
        Cell::new("full pipeline, counted by the region", "/full/items", Token::Es256New, 200, true)
            .elsewhere(TOKEN_ALONE),
        Cell::new("cache hit, 1 KB", "/cached/kilobyte", Token::None, 200, false),
    ],
    warm_up: &[5, 8, 11],
};

/// Who has no pipeline beside the token and the forwarding, and is asked for those.
const TOKEN_ALONE: &[(&str, Option<&str>)] = &[(LEAN.name, Some("/auth/items"))];

impl EdgeBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be built or started, or answers were not those expected.
    pub fn run(&self) -> Result<()> {
        self.extent.check(&CONTEST)?;
        let stop = Stop::listen()?;
        say("Setting up");
        debian::need_debian(&["wrk"])?;
        let tools = npm::tools()?;
        let folder = paths::target()?.join("bench/edge");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let place = Place {
            folder: &folder,
            ports: Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port },
            upstream_port: self.port + 2,
            no_build: self.extent.no_build,
            perf_map: false,
        };
        let mut field = Field::start(&CONTEST, &place, &stop, |tokens, upstream| {
            [PEER, LEAN]
                .into_iter()
                .zip(self.port + 3..)
                .map(|(script, port)| peer::peer(script, &tools, &folder, port, tokens, &upstream.url))
                .collect()
        })?;
        say("Checking what each server does");
        checks::check(&field)?;
        say("Measuring (µs of the server's processor time for one request)");
        let results = field.measure(&self.extent, &stop)?;
        drop(field);
        self.extent.publish(&results, "tests/bench/edge.md", &self.report(&results, &tools, &folder)?)
    }

    fn report(&self, results: &Results, tools: &npm::Tools, folder: &Path) -> Result<String> {
        let workerd = report::first_line(Command::new(&tools.workerd).arg("--version"));
        let mut text = report::heading("CPU of the edge", &self.extent.command("edge"), &workerd);
        text.push_str(ABOUT);
        text.push_str("\n## Processor time of the server for one request\n\n");
        text.push_str(&self.extent.units());
        text.push_str(&results.cost_table());
        text.push_str("\n## Where we are behind\n\n");
        text.push_str(&results.behind());
        text.push_str(TARGET);
        text.push_str("\n## Beside it\n\nRequests a second, with the load generator and the upstream on the same cores:\n\n");
        text.push_str(&results.rate_table());
        text.push_str("\nBytes that are deployed:\n\n");
        text.push_str(&size_table(&PEER.bundle(folder))?);
        text.push_str(&format!("\n{}\n{}", results.surroundings(), results.wrong_answers()));
        Ok(text)
    }
}

const TARGET: &str = "
The target for the worker on workerd is at most 1.0× in every cell but the one that is counted by the region, beside the worker that
does the same for a request. Beside the lean one a ratio says what all that costs which the lean one leaves out.
";

const ABOUT: &str = "
Four servers get the same requests in turn, over 32 connections of one wrk: the worker as it is shipped, on workerd; the
component as it is shipped, in this project's Spin host (a new instance after 10,000 requests, where Spin takes one after 128);
and two workers written by hand with Hono and jose (WebCrypto), each on the same workerd (`peer/`). Rules (`rules/`) come to the
edges from a running origin as always, and the edges report every decision to it; all of that is in their numbers.

**Hono + jose** does for every request what the edges do and a worker in production does as well: it gives the decision an id,
continues the trace, says `Via`, `Forwarded` and `X-Forwarded-…` to the upstream, and sends an event of each in batches. In the
full pipeline it also wants a scope, counts, splits and changes headers. **The lean one** does the JWT, the forwarding and the
cache alone; of the full pipeline, too, it does the JWT and the forwarding. Both know one tenant and its keys from their
configuration, and have no rules that change, no explanation, no steering and no purge.

*Answered here*: without a JWT a 404, with one a 403 after it was verified. *Forwarded*: to a small server that always answers
the same. *Full pipeline*: forwarded after a scope, a limit of the subject, an even split by the subject and headers that are
changed. *Remembered*: one token all the time; the edges and Hono + jose verify a token once and know it again, the lean one
verifies it each time. *Always new*: 40,000 tokens of as many subjects in turn, four times what each remembers. In the full
pipeline each counts them for itself: by isolate on workerd, Hono + jose too, and by instance in Spin.

*Counted by the region*: here the edges alone share their count with others, those of their region, and Hono + jose
counts by its isolate as before: the ratios are of unlike things. For every request an edge asks the region's authority for a
part of what is left to the subject. On workerd that is a Durable Object of the same process, which stores the count before it
answers, and all of it is in the numbers; in Spin it is an origin, whose own processor time is not. The edges share their count of
the one remembered token as well, and ask once for many requests.
";

fn size_table(bundle: &Path) -> Result<String> {
    let mut sizes = sizes::of_edges()?;
    sizes.push(Size::of("Hono + jose, bundled", bundle)?);
    Ok(format!("{}\n{}", sizes::table(&sizes), sizes::verdict(&sizes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_warms_up_with_a_token_the_pipeline_and_the_cache() {
        let paths: Vec<&str> = CONTEST.warm_up.iter().map(|index| CONTEST.cells[*index].path).collect();
        assert_eq!(paths, ["/auth/items", "/full/items", "/cached/kilobyte"]);
    }
}
