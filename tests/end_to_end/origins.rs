//! What reaches a region's origin of bytes that two servers could read in two ways, through either edge or straight: the cases of
//! `origins.yaml`. How many requests an origin has answered it says itself, in its metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;
use meridian_wire::context::{Context, HEADER};
use meridian_wire::encoding::{base64url, from_base64url};
use meridian_wire::keyring::MacKeyring;
use meridian_wire::limits::{CONTEXT_AGE_MS_MAX, CONTEXT_AHEAD_MS_MAX};
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
    let signed = |number: u32, issued_ms: u64, method: &str| {
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
        context.sign(&keys, method, &here, PATH)
    };
    let request = |context: &str, more: &str| {
        format!("GET {PATH} HTTP/1.1\r\nHost: {here}\r\nMeridian-Context: {context}\r\n{more}\r\n")
    };
    let last = "Connection: close\r\n";
    let once = signed(0, now_ms, "GET");
    for (about, bytes, expected) in [
        ("twice on one connection", request(&once, "") + &request(&once, last), &[200, 409][..]),
        ("two of them", request(&once, &format!("Meridian-Context: {once}\r\n{last}")), &[401]),
    ] {
        let (statuses, _) = exchange(&here, bytes.as_bytes())?;
        ensure!(statuses == expected, "{about}: {statuses:?}, expected {expected:?}");
    }
    let fresh = |number| signed(number, now_ms, "GET");
    let bad = Err("bad-signature");
    let (late_ms, early_ms) = (now_ms - 2 * CONTEXT_AGE_MS_MAX, now_ms + 10 * CONTEXT_AHEAD_MS_MAX);
    for (about, at, path, context, expected) in [
        ("again on another connection", &here, PATH, once.clone(), Err("replayed")),
        ("at another region", &there, PATH, fresh(1), bad),
        ("for another path", &here, "/v1/whoami", fresh(2), bad),
        ("for another query", &here, "/v1/collections/orders/records", fresh(3), bad),
        ("for another method", &here, PATH, signed(4, now_ms, "POST"), bad),
        ("too late", &here, PATH, signed(5, late_ms, "GET"), Err("expired")),
        ("from far ahead", &here, PATH, signed(6, early_ms, "GET"), Err("not-yet")),
        ("by a clock that is a little ahead", &here, PATH, signed(7, now_ms + 2_000, "GET"), Ok(())),
        ("of no key", &here, PATH, fresh(8).replacen("v1.", "v1.x", 1), Err("unknown-key")),
        ("with another bit in its signature", &here, PATH, with_another_bit(&fresh(9))?, bad),
        ("with half a signature", &here, PATH, with_half_a_signature(&fresh(10))?, Err("malformed")),
        ("for another tenant", &here, PATH, saying(&fresh(11), "acme", "globex")?, bad),
        ("for more", &here, PATH, saying(&fresh(12), "orders:read", "orders:write")?, bad),
        ("as it was signed", &here, PATH, fresh(13), Ok(())),
    ] {
        let client = Client::new(&format!("http://{at}"), at).with(HEADER, &context);
        let answer = client.get(path)?;
        let Err(why) = expected else {
            answer.expect(200).context(about)?;
            continue;
        };
        let status = if why == "replayed" { 409 } else { 401 };
        let kind = answer.expect(status).context(about)?.value()?["type"].to_string();
        ensure!(kind.contains(&format!("context-{why}")), "{about}: {kind}");
    }
    Ok(())
}

/// The same context, but for one bit of its signature.
fn with_another_bit(context: &str) -> Result<String> {
    let (signed, signature) = context.rsplit_once('.').context("a signature")?;
    let mut signature = from_base64url(signature).context("a signature in base64url")?;
    *signature.first_mut().context("a signature of some bytes")? ^= 1;
    Ok(format!("{signed}.{}", base64url(&signature)))
}

/// The same context with the first half of its signature, which is right as far as it goes.
fn with_half_a_signature(context: &str) -> Result<String> {
    let (signed, signature) = context.rsplit_once('.').context("a signature")?;
    let signature = from_base64url(signature).context("a signature in base64url")?;
    Ok(format!("{signed}.{}", base64url(&signature[..signature.len() / 2])))
}

/// A context that says something else under the signature of this one.
fn saying(context: &str, word: &str, other: &str) -> Result<String> {
    let parts: Vec<&str> = context.split('.').collect();
    let [version, key, json, signature] = parts[..] else { bail!("{context} is no context") };
    let json = String::from_utf8(from_base64url(json).context("claims in base64url")?)?;
    ensure!(json.contains(word), "{word} is not in {json}");
    let json = base64url(json.replace(word, other).as_bytes());
    Ok([version, key, &json, signature].join("."))
}
