//! What reaches a region's origin of bytes that two servers could read in two ways, through either edge or straight: the cases of
//! `origins.yaml`. How many requests an origin has answered it says itself, in its metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;
use meridian_wire::context::Context;
use meridian_wire::keyring::MacKeyring;
use serde::Deserialize;

use crate::stack::metrics;
use crate::surface::exchange;
use crate::{EdgeTest, StackTest};

pub const TESTS: &[(&str, EdgeTest)] =
    &[("sends_origins_what_was_decided_and_no_more", sends_origins_what_was_decided_and_no_more)];

pub const OF_STACK: &[(&str, StackTest)] = &[("origins_take_a_context_once", origins_take_a_context_once)];

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
        sum += metrics(&origin.url)?
            .lines()
            .filter_map(|line| line.strip_prefix("meridian_http_requests_total{route=\""))
            .filter(|line| line.starts_with("/v1/") || line.starts_with("unmatched\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

/// A context that was signed by an edge's key is good at one origin, for one request, once and for a while.
fn origins_take_a_context_once(stack: &Stack) -> Result<()> {
    const PATH: &str = "/v1/collections/orders/records?limit=1";
    let keys = std::fs::read_to_string(stack.data().join("keys").join("context-keys"))?;
    let keys = MacKeyring::parse(keys.trim()).context("the key of contexts")?;
    let up = stack.up()?;
    let authority = |region: &str| up.origins[region].url.trim_start_matches("http://").to_owned();
    let (here, there) = (authority("us-east-1"), authority("eu-west-1"));
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let signed = |number: u32, issued_ms: u64, path: &str| {
        let context = Context {
            tenant: Some("acme".to_owned()),
            scopes: vec!["orders:read".to_owned()],
            client: "192.0.2.1".to_owned(),
            decision: format!("end-to-end-{now_ms}-{number}"),
            consistency: "eventual".to_owned(),
            edge: "spin-1".to_owned(),
            issued_ms,
            ..Context::default()
        };
        context.sign(&keys, "GET", &here, path)
    };
    let request = |context: &str, path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {here}\r\nMeridian-Context: {context}\r\n{more}\r\n")
    };
    let last = "Connection: close\r\n";
    let once = signed(0, now_ms, PATH);
    let twice = request(&once, PATH, "") + &request(&once, PATH, last);
    let forged = once.replacen("v1.", "v1.x", 1);
    for (about, at, bytes, expected) in [
        ("twice on one connection", &here, twice, &[200, 409][..]),
        ("again on another", &here, request(&once, PATH, last), &[409]),
        (
            "at another region",
            &there,
            request(&signed(1, now_ms, PATH), PATH, last).replace(&here, &there),
            &[401],
        ),
        ("for another path", &here, request(&signed(2, now_ms, PATH), "/v1/whoami", last), &[401]),
        ("too late", &here, request(&signed(3, now_ms - 60_000, PATH), PATH, last), &[401]),
        ("of no key", &here, request(&forged, PATH, last), &[401]),
        ("two of them", &here, request(&once, PATH, &format!("Meridian-Context: {once}\r\n{last}")), &[401]),
    ] {
        let (statuses, _) = exchange(at, bytes.as_bytes())?;
        ensure!(statuses == expected, "{about}: {statuses:?}, expected {expected:?}");
    }
    Ok(())
}
