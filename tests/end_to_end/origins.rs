//! What reaches a region's origin of bytes that two servers could read in two ways, through either edge or straight: the cases of
//! `origins.yaml`. How many requests an origin has answered it says itself, in its metrics.

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;
use serde::Deserialize;

use crate::EdgeTest;
use crate::surface::exchange;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("sends_origins_what_was_decided_and_no_more", sends_origins_what_was_decided_and_no_more)];

/// A record as the cases send it.
const RECORD: &str = "{\"total\":1}";

/// One case of `origins.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    send: String,
    status: ByWay<Vec<String>>,
    reached: ByWay<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByWay<T> {
    cloudflare: T,
    spin: T,
    origin: Option<T>,
}

fn sends_origins_what_was_decided_and_no_more(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("origins.yaml")).context("in origins.yaml")?;
    ensure!(cases.len() > 20, "only {} cases", cases.len());
    let token = stack.token("acme", &format!("origins-{edge}"), "orders:read orders:write")?;
    let up = stack.up()?;
    let origin = &up.origins.values().next().context("an origin")?.url;
    // A client of the edge once, so that nothing else is fetched meanwhile that counts.
    Client::new(&up.edges[edge], "acme.localhost").bearer(&token).get("/v1/whoami")?.expect(200)?;
    let mut wrong = Vec::new();
    for case in &cases {
        let (status, reached) = match edge {
            "cloudflare" => (&case.status.cloudflare, case.reached.cloudflare),
            _ => (&case.status.spin, case.reached.spin),
        };
        let mut ways = vec![(&up.edges[edge], status, reached)];
        if let (Some(status), Some(reached)) = (&case.status.origin, case.reached.origin) {
            ways.push((origin, status, reached));
        }
        for (url, status, reached) in ways {
            if let Err(error) = case.run(stack, (url, &token), status, reached) {
                wrong.push(format!("{} at {url}: {error:#}", case.about));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

impl Case {
    fn run(&self, stack: &Stack, (url, token): (&str, &str), status: &[String], reached: u64) -> Result<()> {
        let bytes = self
            .send
            .replace("{A}", &format!("Host: acme.localhost\r\nAuthorization: Bearer {token}\r\n"))
            .replace("{H}", "Host: acme.localhost\r\n")
            .replace("{C}", "Connection: close\r\n")
            .replace("{J}", RECORD);
        let before = answered(stack)?;
        let (statuses, ended) = exchange(url, bytes.as_bytes())?;
        let counted = answered(stack)? - before;
        let fits = statuses.len() == status.len()
            && statuses.iter().zip(status).all(|(found, expected)| match expected.as_str() {
                "4xx" => (400..500).contains(found),
                expected => found.to_string() == expected,
            });
        ensure!(fits, "answered {statuses:?}, expected {status:?}");
        ensure!(ended, "the connection waits for more");
        ensure!(counted == reached, "{counted} requests reached an origin, expected {reached}");
        Ok(())
    }
}

/// Requests for tenants' data that all origins have answered, whatever they answered.
fn answered(stack: &Stack) -> Result<u64> {
    let mut sum = 0;
    for origin in stack.up()?.origins.values() {
        let metrics = Client::new(&origin.url, "origin").get("/metrics")?.expect(200)?.text();
        sum += metrics
            .lines()
            .filter_map(|line| line.strip_prefix("meridian_http_requests_total{route=\""))
            .filter(|line| line.starts_with("/v1/") || line.starts_with("unmatched\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}
