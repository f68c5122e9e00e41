//! `cargo xtask bench engine`: what a decision costs in the engine alone, natively, and what a node keeps in memory,
//! by how many tenants, hostnames and routes there are. The measuring itself is a program of the crate `meridian-tests`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::program;
use crate::progress::say;
use crate::report::{self, Spread};

/// Arguments of `cargo xtask bench engine`.
#[derive(Args, Clone, Debug)]
pub struct EngineBench {
    /// Rounds of 100,000 decisions for each setting.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print everything measured as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
}

/// Who there is, and how many hostnames are asked for in turn.
struct Setting {
    what: &'static str,
    tenants: u32,
    hosts: u32,
    routes: u32,
    by_host: bool,
    asked: u32,
}

const fn setting(what: &'static str, tenants: u32, hosts: u32, routes: u32, asked: u32) -> Setting {
    Setting { what, tenants, hosts, routes, by_host: false, asked }
}

const SETTINGS: [Setting; 10] = [
    setting("one tenant, 1 hostname, 1 route", 1, 1, 0, 1),
    setting("one tenant, 1,000 routes", 1, 1, 999, 1),
    setting("one tenant, 10,000 routes", 1, 1, 9_999, 1),
    setting("one tenant, 1,000 hostnames", 1, 1_000, 0, 1_000),
    Setting {
        by_host: true,
        ..setting("one tenant, 1,000 hostnames with a route each", 1, 1_000, 999, 1_000)
    },
    Setting {
        by_host: true,
        ..setting("one tenant, 1,000 hostnames, 10,000 routes for a hostname each", 1, 1_000, 9_999, 1_000)
    },
    setting("500 tenants", 500, 1, 9, 500),
    setting("500 tenants, 5,000 hostnames", 500, 10, 9, 5_000),
    setting("500 asked for of 1,000 tenants and 100,000 hostnames", 1_000, 100, 9, 500),
    setting(
        "all of 1,000 tenants and 100,000 hostnames in turn: each is loaded anew",
        1_000,
        100,
        9,
        100_000,
    ),
];

/// The target of a decision.
const DECISION_US_MAX: f64 = 5.0;
/// What many tenants may take beside one, for what counts as flat: more memory is touched.
const FLAT_MAX: f64 = 1.25;
/// Hostnames that a node remembers.
const REMEMBERED_MAX: u32 = 10_000;

#[derive(Deserialize, Serialize)]
struct Measured {
    nanoseconds: Vec<f64>,
    bytes: u64,
    /// How long a node is busy with a new bundle of one tenant.
    swap_ms: Vec<f64>,
    /// How long making that bundle of its files takes.
    push_ms: f64,
}

impl EngineBench {
    /// Measures, prints and writes the report.
    ///
    /// # Errors
    /// When the program can't be built or fails.
    pub fn run(&self) -> Result<()> {
        let binary = program("bench-engine", "bench-engine", "release", self.no_build)?;
        let mut measured = Vec::new();
        for setting in &SETTINGS {
            say(&format!("Measuring: {}", setting.what));
            measured.push(self.measure(&binary, setting)?);
        }
        let text = self.report(&measured)?;
        println!("{text}");
        if self.json {
            println!("{}", serde_json::to_string(&measured)?);
        }
        say(&format!("Written to {}", report::write("tests/bench/engine.md", &text)?.display()));
        Ok(())
    }

    fn measure(&self, binary: &std::path::Path, setting: &Setting) -> Result<Measured> {
        let Setting { tenants, hosts, routes, by_host, asked, .. } = *setting;
        let numbers = [tenants, hosts, routes, u32::from(by_host), asked, self.rounds];
        let mut command = Command::new(binary);
        command.args(numbers.map(|number| number.to_string())).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().with_context(|| format!("could not run {}", binary.display()))?;
        ensure!(output.status.success(), "{} ended with {}", binary.display(), output.status);
        serde_json::from_slice(&output.stdout).context("the program printed no JSON")
    }

    fn report(&self, measured: &[Measured]) -> Result<String> {
        let command = format!("cargo xtask bench engine --rounds {}", self.rounds);
        let mut text =
            report::heading("The engine alone", &command, "native, one thread, built for production");
        text.push_str(ABOUT);
        text.push_str(&format!(
            "\nMedian (least–greatest) of {} rounds of 100,000 decisions. {}\n\n",
            self.rounds,
            report::load()
        ));
        let of = |values: &[f64]| Spread::of(values.iter().copied()).context("no round");
        let first = of(&measured.first().context("no setting")?.nanoseconds)?.median;
        let mut rows = Vec::new();
        for (setting, measured) in SETTINGS.iter().zip(measured) {
            let spread = of(&measured.nanoseconds)?;
            let microseconds =
                Spread { median: spread.median / 1e3, min: spread.min / 1e3, max: spread.max / 1e3 };
            rows.push(vec![
                setting.what.to_owned(),
                microseconds.text(2),
                format!("{:.2}", spread.median / first),
                format!("{:.1}", measured.bytes as f64 / 1e6),
                of(&measured.swap_ms)?.text(2),
                format!("{:.0}", measured.push_ms),
            ]);
        }
        let head =
            ["there are", "µs a decision", "to the first", "memory, MB", "bundle swap, ms", "push, ms"];
        text.push_str(&report::table(&head, &rows));
        let medians = measured.iter().map(|measured| Ok(of(&measured.nanoseconds)?.median / 1e3));
        text.push_str(&verdict(&medians.collect::<Result<Vec<_>>>()?));
        Ok(text)
    }
}

/// Whether the targets are met, in sentences, by the medians of [`SETTINGS`] in microseconds.
fn verdict(microseconds: &[f64]) -> String {
    let greatest = |chosen: fn(&Setting) -> bool| {
        let chosen = SETTINGS.iter().zip(microseconds).filter(|(setting, _)| chosen(setting));
        chosen.map(|(_, microseconds)| *microseconds).max_by(f64::total_cmp)
    };
    let many_routes = greatest(|setting| setting.tenants == 1 && setting.routes >= 999);
    let many_tenants = greatest(|setting| setting.tenants > 1 && setting.asked <= REMEMBERED_MAX);
    let (Some(many_routes), Some(many_tenants), Some(first)) =
        (many_routes, many_tenants, microseconds.first())
    else {
        return String::new();
    };
    let met = |is_met| if is_met { "met" } else { "**missed**" };
    let ratio = many_tenants / first;
    format!(
        "\nTargets: below {DECISION_US_MAX} µs a decision with 1,000 routes of a tenant and more; {}, the greatest is \
         {many_routes:.2} µs. Flat in the number of tenants, at most {FLAT_MAX} times what the first takes where what is asked \
         for is remembered; {}, {ratio:.2} times.\n",
        met(many_routes < DECISION_US_MAX),
        met(ratio <= FLAT_MAX)
    )
}

const ABOUT: &str = "
Each decision is of a request with a token that the node remembers, a limit, an experiment, steering over three regions, a
transform, and a response that is forwarded: everything of the pipeline but the cache. Where each hostname has a route of its
own, that has no limit, no experiment and no transform. Steps are answered at once; making the request's facts is in the
numbers, the host's work is not. The program is built as the Spin host is for production, with its allocator. *Memory* is what
the process grew by until every hostname that is asked for had been asked for once: rules, hostnames and all that a node
remembers. A node keeps at most 1,000 tenants, 48 MiB of routes and 10,000 hostnames, those that it serves, however many there
are; in the last setting none is remembered when it is asked for again, so that each decision also loads the hostname and now
and then the tenant, whose rules are copied for it.

*Bundle swap*: how long a node is busy with a new bundle of one of these tenants, from its bytes to rules that are ready for
requests; verifying its signature and hash is not in it. *Push*: how long making that bundle of its files takes, once, with all
checks and warnings: what the origin does, beside the database.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_of_those_that_a_target_is_about_decides() {
        let mut microseconds = [4.0; SETTINGS.len()];
        // All are loaded anew: no target is about that.
        microseconds[9] = 40.0;
        let text = verdict(&microseconds);
        assert!(
            text.contains("; met, the greatest is 4.00 µs.") && text.contains("; met, 1.00 times."),
            "{text}"
        );
        microseconds[2] = 5.0;
        microseconds[7] = 5.2;
        let text = verdict(&microseconds);
        assert!(text.contains("**missed**, the greatest is 5.00 µs."), "{text}");
        assert!(text.contains("**missed**, 1.30 times."), "{text}");
        assert_eq!(verdict(&[]), "");
    }
}
