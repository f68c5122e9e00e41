//! The whole platform as a user sees it: three regions, both edges, one stack that is started once and stopped at the
//! end. Trials run one after another, since some of them kill what others use.

mod analytics;
mod bad_bundles;
mod broken;
mod cold_edges;
mod content;
mod crawlers;
mod crowds;
mod failures;
mod frames;
mod front;
mod functions;
mod health;
mod http2;
mod idle;
mod issuers;
mod limits;
mod load;
mod origins;
mod parties;
mod poison;
mod recorder;
mod regions;
mod requests;
mod responses;
mod rules;
mod sizes;
mod slow;
mod sockets;
mod stack;
mod surface;
mod tls;
mod traces;
mod uploads;
mod upstream;
mod upstreams;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use meridian_tests::stack::Stack;

/// Both edges, by their names in `up.json`.
const EDGES: [&str; 2] = ["cloudflare", "spin"];

type EdgeTest = fn(&Stack, &str) -> Result<()>;
type StackTest = fn(&Stack) -> Result<()>;

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        libtest_mimic::run(&arguments, trials(None)).exit();
    }
    // The processes of the stack inherit it; what needs it fails by itself.
    if let Err(error) = idle::raise_open_files() {
        eprintln!("{error:#}");
    }
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("end-to-end-{}", std::process::id()));
    let environment = [traces::environment()?, crawlers::environment()?, stack::environment()].concat();
    let stack = Arc::new(Stack::start(&data, environment)?);
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&stack)));
    let stopped = stack.stop();
    if !conclusion.has_failed() {
        std::fs::remove_dir_all(&data)?;
    }
    crawlers::stop()?;
    stopped?;
    conclusion.exit()
}

fn trials(stack: Option<&Arc<Stack>>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, test) in stack::TESTS
        .iter()
        .chain(origins::OF_STACK)
        .chain(regions::TESTS)
        .chain(rules::TESTS)
        .chain(analytics::TESTS)
        .chain(health::TESTS)
        .chain(parties::TESTS)
    {
        trials.push(trial((*name).to_owned(), stack, *test));
    }
    for (name, test) in requests::TESTS
        .iter()
        .chain(upstreams::TESTS)
        .chain(uploads::TESTS)
        .chain(content::TESTS)
        .chain(parties::EDGE_TESTS)
        .chain(crowds::TESTS)
        .chain(limits::TESTS)
        .chain(crawlers::TESTS)
        .chain(traces::TESTS)
        .chain(issuers::TESTS)
        .chain(bad_bundles::TESTS)
        .chain(cold_edges::TESTS)
        .chain(broken::TESTS)
        .chain(functions::TESTS)
        .chain(surface::TESTS)
        .chain(http2::TESTS)
        .chain(poison::TESTS)
        .chain(responses::TESTS)
        .chain(origins::TESTS)
        .chain(sockets::TESTS)
        .chain(sizes::TESTS)
        .chain(slow::TESTS)
        .chain(idle::TESTS)
        .chain(tls::TESTS)
        .chain(front::TESTS)
    {
        for edge in EDGES {
            let test = *test;
            trials.push(trial(format!("{edge}::{name}"), stack, move |stack: &Stack| test(stack, edge)));
        }
    }
    for (name, test) in functions::SPIN_TESTS
        .iter()
        .chain(slow::SPIN_TESTS)
        .chain(http2::SPIN_TESTS)
        .chain(broken::SPIN_TESTS)
    {
        trials.push(trial(format!("spin::{name}"), stack, |stack: &Stack| test(stack, "spin")));
    }
    // What kills processes comes last.
    for (name, test) in failures::TESTS {
        trials.push(trial((*name).to_owned(), stack, *test));
    }
    trials
}

fn trial(
    name: String,
    stack: Option<&Arc<Stack>>,
    test: impl Fn(&Stack) -> Result<()> + Send + 'static,
) -> Trial {
    let stack = stack.cloned();
    Trial::test(name, move || match &stack {
        Some(stack) => test(stack).map_err(|error| Failed::from(format!("{error:#}"))),
        None => Err(Failed::from("the stack was not started")),
    })
}
