//! `cargo xtask bench edge`: the worker on workerd, the component in the Spin host, and a hand-written worker on the same
//! workerd, one after the other on the same requests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use super::contest::{Cell, Contest, Results, Server, Token};
use super::field::{Field, Peer, Place};
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
    /// The edges listen on this port and the next; the peer and the upstream on the two after.
    #[arg(long, default_value_t = 18700)]
    port: u16,
    /// Origins of the measured stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

static CONTEST: Contest = Contest {
    servers: &[
        Server { name: "peer", title: "Hono + jose on workerd", ours: false },
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
        Cell::new(
            "forwarded, ES256 remembered, with limit, experiment and transform",
            "/full/items",
            Token::Es256Same,
            200,
            true,
        ),
        Cell::new("cache hit, 1 KB", "/cached/kilobyte", Token::None, 200, false),
    ],
    warm_up: &[5, 9],
};

impl EdgeBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be built or started, or answers were not those expected.
    pub fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        say("Setting up");
        debian::need_debian(&["wrk"])?;
        let tools = npm::tools()?;
        let folder = paths::target()?.join("bench/edge");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let bundle = peer::bundle(&tools, &folder)?;
        let place = Place {
            folder: &folder,
            ports: Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port },
            upstream_port: self.port + 3,
            no_build: self.extent.no_build,
        };
        let mut field = Field::start(&CONTEST, &place, &stop, |tokens, upstream| {
            let port = self.port + 2;
            let service = peer::service(&tools, &folder, &bundle, port, tokens, &upstream.url)?;
            Ok(vec![Peer { url: format!("http://127.0.0.1:{port}"), service }])
        })?;
        say("Checking what each server does");
        checks::check(&field)?;
        say("Measuring (µs of the server's processor time for one request)");
        let results = field.measure(&self.extent, &stop)?;
        drop(field);
        self.extent.publish(&results, "tests/bench/edge.md", &self.report(&results, &tools, &bundle)?)
    }

    fn report(&self, results: &Results, tools: &npm::Tools, bundle: &Path) -> Result<String> {
        let workerd = report::first_line(Command::new(&tools.workerd).arg("--version"));
        let mut text = report::heading("CPU of the edge", &self.extent.command("edge"), &workerd);
        text.push_str(ABOUT);
        text.push_str("\n## Processor time of the server for one request\n\n");
        text.push_str(&self.extent.units());
        text.push_str(&results.cost_table());
        text.push_str("\n## Where we are behind\n\n");
        text.push_str(&results.behind());
        text.push_str("- The target for the worker on workerd is at most 1.0× in every cell.\n");
        text.push_str("\n## Beside it\n\nRequests a second, with the load generator and the upstream on the same cores:\n\n");
        text.push_str(&results.rate_table());
        text.push_str("\nBytes that are deployed:\n\n");
        text.push_str(&size_table(bundle)?);
        text.push_str(&format!("\n{}\n{}", results.surroundings(), results.wrong_answers()));
        Ok(text)
    }
}

const ABOUT: &str = "
Three servers get the same requests in turn, over 32 connections of one wrk: the worker as it is shipped, on workerd; the
component as it is shipped, in this project's Spin host (a new instance after 10,000 requests, where Spin takes one after 128); and `peer/`, a
worker written by hand with Hono and jose (WebCrypto) on the same workerd. Rules (`rules/`) come to the edges from a running
origin as always, and the edges report every decision to it; all of that is in their numbers. The peer knows one tenant and
its keys from its configuration. With limit, experiment and transform it does what the edges do, but for the explanation: it
counts, splits, changes headers, gives the decision an id, continues the trace and sends an event of every request in batches.
In all other rows it does the JWT, the forwarding and the cache alone, where the edges give an id, a trace, an event and an
explanation to every request. It has no rules that change, no steering and no purge anywhere.

*Answered here*: without a JWT a 404, with one a 403 after it was verified. *Forwarded*: to a small server that always
answers the same. *Remembered*: one token all the time; the edges verify a token once and know it again, jose verifies it each
time. *Always new*: 40,000 tokens in turn, four times what an edge remembers.
";

fn size_table(bundle: &Path) -> Result<String> {
    let mut sizes = sizes::of_edges()?;
    sizes.push(Size::of("the peer, bundled", bundle)?);
    Ok(sizes::table(&sizes))
}
