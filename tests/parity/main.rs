//! The decision corpus on both edges: workerd and the Spin host return, byte for byte, what the engine returns natively.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use meridian_tests::client::Client;
use meridian_tests::corpus::{self, Prepared, native};
use meridian_tests::edge::{Edge, Flavour};

/// Edges and the ports that the tests run them on.
const EDGES: [(&str, u16); 2] = [("cloudflare", 27287), ("spin", 27230)];
/// No case asks an origin: its world answers.
const NO_ORIGINS: &str = "us-east-1=http://127.0.0.1:9";

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let cases: Vec<Arc<Prepared>> = corpus::prepare()?.into_iter().map(Arc::new).collect();
    if arguments.list {
        libtest_mimic::run(&arguments, trials(&cases, &[])).exit();
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("parity-{}", std::process::id()));
    let edges = EDGES
        .iter()
        .map(|(name, port)| {
            Edge::start(name, Flavour::Corpus, *port, NO_ORIGINS, &folder.join("data"), &folder.join(name))
        })
        .collect::<Result<Vec<_>>>()?;
    let clients: Vec<(String, Client)> =
        edges.iter().map(|edge| (edge.name.clone(), Client::new(&edge.url, "corpus.test"))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials(&cases, &clients));
    drop(edges);
    if !conclusion.has_failed() {
        std::fs::remove_dir_all(&folder)?;
    }
    conclusion.exit()
}

fn trials(cases: &[Arc<Prepared>], clients: &[(String, Client)]) -> Vec<Trial> {
    cases
        .iter()
        .map(|case| {
            let (case, clients) = (Arc::clone(case), clients.to_vec());
            Trial::test(case.name.clone(), move || {
                same_everywhere(&case, &clients)
                    .map_err(|error| Failed::from(format!("{}: {error:#}", case.about)))
            })
        })
        .collect()
}

fn same_everywhere(case: &Prepared, clients: &[(String, Client)]) -> Result<()> {
    let native = native::decide(&case.input);
    ensure!(!native.is_empty(), "no native outcome");
    ensure!(clients.len() == EDGES.len(), "the edges were not started");
    for (edge, client) in clients {
        let outcome = client.request("POST", "/.corpus", Some(case.input.clone()))?.expect(200)?.body;
        ensure!(
            outcome == native,
            "{edge} differs from native:\n{}\nnative:\n{}",
            String::from_utf8_lossy(&outcome),
            String::from_utf8_lossy(&native)
        );
    }
    Ok(())
}
