//! One trace from the client over either edge to the origin.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::collector::{Collector, Seen, hexadecimal};
use meridian_tests::stack::{Stack, eventually};

use crate::EdgeTest;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("a_trace_goes_from_the_client_over_the_edge_to_the_origin", a_trace_goes_on),
    ("a_trace_that_is_not_followed_leaves_no_span", a_trace_that_is_not_followed),
];

/// How long spans may take to the collector.
const SEEN_MAX: Duration = Duration::from_secs(20);

static COLLECTOR: OnceLock<Collector> = OnceLock::new();

/// What the stack has to be told so that its spans come here.
pub fn environment() -> Result<Vec<(String, String)>> {
    let collector = Collector::start()?;
    let url = COLLECTOR.get_or_init(|| collector).url.clone();
    Ok(vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), url),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "100".to_owned()),
    ])
}

fn collector() -> Result<&'static Collector> {
    COLLECTOR.get().context("a collector")
}

/// A trace of the client's own, and its span.
fn parent(edge: &str, number: u8) -> (String, String) {
    let one =
        edge.bytes().fold(u64::from(number), |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    (format!("{:016x}{one:016x}", u64::from(std::process::id()) + 1), format!("{:016x}", one | 1))
}

fn a_trace_goes_on(stack: &Stack, edge: &str) -> Result<()> {
    let (trace, client) = parent(edge, 1);
    let up = stack.up()?;
    let acme = up.tenant("acme")?;
    let token = acme.tokens.get("reader").context("a reader")?;
    let reply =
        stack.edge(edge, "acme")?.bearer(token).with("traceparent", &format!("00-{trace}-{client}-01"));
    // A list that nobody has asked for is no cache's to answer, neither the edge's nor the origin's.
    let path = format!("/v1/collections/{}/records?limit={}", acme.collection, 11 + edge.len());
    let reply = reply.get(&path)?.expect(200)?;
    let decision = reply.header("meridian-decision").to_owned();
    let told = reply.header("traceparent").to_owned();
    eventually(SEEN_MAX, || {
        let spans = collector()?.trace(&trace);
        let of = |service: &str, name: &str| -> Result<Seen> {
            let found = spans.iter().find(|seen| seen.service == service && seen.span.name.starts_with(name));
            found.cloned().with_context(|| format!("no span {name} of {service} in {spans:#?}"))
        };
        let at_edge = of("meridian-edge", "GET ")?;
        ensure!(
            hexadecimal(&at_edge.span.parent_span_id) == client,
            "the client's span is the edge's parent"
        );
        ensure!(told == format!("00-{trace}-{}-01", hexadecimal(&at_edge.span.span_id)), "{told}");
        ensure!(at_edge.attribute("meridian.decision").as_deref() == Some(&*decision), "{at_edge:?}");
        ensure!(at_edge.attribute("meridian.tenant").as_deref() == Some("acme"), "{at_edge:?}");
        ensure!(at_edge.attribute("http.response.status_code").as_deref() == Some("200"), "{at_edge:?}");
        let at_origin = of("meridian-origin", "GET /v1/collections/")?;
        ensure!(
            at_origin.span.parent_span_id == at_edge.span.span_id,
            "the edge's span is the origin's parent"
        );
        ensure!(at_origin.attribute("decision").as_deref() == Some(&*decision), "{at_origin:?}");
        let transaction = of("meridian-origin", "transaction")?;
        ensure!(transaction.span.parent_span_id == at_origin.span.span_id, "and that is the transaction's");
        Ok(())
    })?;
    Ok(())
}

fn a_trace_that_is_not_followed(stack: &Stack, edge: &str) -> Result<()> {
    let ((off, client), (on, _)) = (parent(edge, 2), parent(edge, 3));
    let client_of = |trace: &str, flags: &str| -> Result<_> {
        Ok(stack.edge(edge, "acme")?.with("traceparent", &format!("00-{trace}-{client}-{flags}")))
    };
    client_of(&off, "00")?.get("/v1/whoami")?.expect(401)?;
    client_of(&on, "01")?.get("/v1/whoami")?.expect(401)?;
    // Both are of the same edge, one after the other: once the second is seen the first would have been.
    eventually(SEEN_MAX, || {
        ensure!(!collector()?.trace(&on).is_empty(), "not there yet");
        Ok(())
    })?;
    let spans = collector()?.trace(&off);
    ensure!(spans.is_empty(), "{spans:#?}");
    Ok(())
}
