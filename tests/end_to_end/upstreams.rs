//! Requests through one edge to a tenant's own upstream: bodies, answers without one, parts of what is stored.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::decode::decoded;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};

use crate::EdgeTest;
use crate::bad_bundles::roll_back;
use crate::requests::{begin, raw};
use crate::rules::{demo_rules, head, push_for_all};
use crate::upstream::{self, LARGE_BYTES};

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("forwards_a_body_whatever_the_method", forwards_a_body_whatever_the_method),
    ("looks_into_a_body_and_forwards_it_whole", looks_into_a_body_and_forwards_it_whole),
    ("keeps_an_answer_without_a_body", keeps_an_answer_without_a_body),
    ("answers_a_part_of_what_is_kept", answers_a_part_of_what_is_kept),
    ("keeps_large_bodies_without_holding_them", keeps_large_bodies_without_holding_them),
    ("says_of_a_coded_body_whether_it_is_kept", says_of_a_coded_body_whether_it_is_kept),
    ("breaks_off_what_an_upstream_may_not_send", breaks_off_what_an_upstream_may_not_send),
    ("leaves_an_upstream_the_connections_that_it_takes", leaves_an_upstream_the_connections_that_it_takes),
];

/// A large body is passed, compared and written to disk within this time, on a machine that is busy as well.
const LARGE_KEPT_MAX: Duration = Duration::from_secs(30);

/// Instances that an edge may have: each counts its connections for itself.
const INSTANCES_MAX: usize = 16;

/// Pushes rules that send `/echo` and `/kept/**` to an upstream, the latter through the cache, and takes them back after
/// the test.
fn with_upstream(stack: &Stack, edge: &str, test: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let rules = "---\n\
        apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: own}\nspec: {}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: kept}\n\
        spec: {match: {path: \"/kept/**\"}, auth: {mode: anonymous}, cache: own, upstream: own}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: echo}\n\
        spec: {match: {path: /echo}, auth: {mode: anonymous}, upstream: own}\n";
    with_rules(stack, edge, rules, test)
}

/// Pushes these rules beside those of the demo and the upstream `own`, and takes them back after the test. `{own}` in them
/// is the upstream's URL.
pub fn with_rules(
    stack: &Stack,
    edge: &str,
    rules: &str,
    test: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, &format!("{edge}-upstream"))?;
    beside_upstream(&folder, rules)?;
    push_for_all(stack, &folder)?;
    let outcome = test(&stack.up()?.edges[edge]);
    roll_back(stack, &before)?;
    outcome
}

/// Writes these rules with the upstream `own` into a folder of rules. `{own}` in them is the upstream's URL.
pub fn beside_upstream(folder: &Path, rules: &str) -> Result<()> {
    let own = upstream::start()?;
    let upstream = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: own}}\n\
         spec: {{regions: {{us-east-1: \"{own}\"}}}}\n"
    );
    Ok(std::fs::write(folder.join("upstream.yaml"), upstream + &rules.replace("{own}", &own))?)
}

fn forwards_a_body_whatever_the_method(stack: &Stack, edge: &str) -> Result<()> {
    with_upstream(stack, edge, |url| {
        let echoed = |method: &str, rest: &str| -> Result<String> {
            let head =
                format!("{method} /echo HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n{rest}");
            let response = raw(url, head.as_bytes())?;
            Ok(response.expect(200)?.header("x-echo").to_owned())
        };
        // Cloudflare's fetch sends no body with GET.
        let methods: &[&str] =
            if edge == "cloudflare" { &["DELETE", "POST"] } else { &["DELETE", "POST", "GET"] };
        for method in methods {
            let chunked = "Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n4\r\nmore\r\n0\r\n\r\n";
            for (rest, body) in
                [(chunked, "fourmore"), ("Content-Length: 4\r\n\r\nfour", "four"), ("\r\n", "")]
            {
                eventually(SEEN_MAX, || {
                    let echo = echoed(method, rest)?;
                    ensure!(echo == body, "{method} with {rest:?}: {echo:?} came to the upstream");
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

fn looks_into_a_body_and_forwards_it_whole(stack: &Stack, edge: &str) -> Result<()> {
    let rules = "---\n\
        apiVersion: meridian/v1\nkind: Security\nmetadata: {name: bodies}\nspec: {injection: {bodyBytes: 16384}}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: peeked}\n\
        spec: {match: {path: \"/peeked/**\"}, auth: {mode: anonymous}, security: [bodies], upstream: own}\n";
    with_rules(stack, edge, rules, |url| {
        let client = Client::new(url, "acme.localhost").with("content-type", "application/json");
        let attack = r#"{"user":{"name":"x' or 1=1--"}}"#;
        eventually(SEEN_MAX, || {
            let refused = client.request("POST", "/peeked/mirror", Some(attack.into()))?.expect(403)?;
            ensure!(refused.value()?["type"].to_string().contains("request-refused"), "{}", refused.text());
            Ok(())
        })?;
        for (method, bytes) in
            [("POST", 2_000), ("PUT", 40_000), ("POST", 40_000), ("PUT", 200_000), ("POST", 200_000)]
        {
            let text: String = (0..bytes / 8).map(|at| format!("{at:7} ")).collect();
            let sent = serde_json::json!({ "text": text }).to_string();
            let response =
                client.request(method, "/peeked/mirror", Some(sent.clone().into()))?.expect(200)?;
            ensure!(
                response.body == sent.as_bytes(),
                "{method} of {} bytes came as {}",
                sent.len(),
                response.body.len()
            );
            ensure!(
                response.header("x-length") == sent.len().to_string(),
                "{method}: {:?}",
                response.headers
            );
            let head = format!(
                "{method} /peeked/mirror HTTP/1.1\r\nHost: acme.localhost\r\nContent-Type: application/json\r\n\
                 Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let (first, rest) = sent.split_at(sent.len() / 2);
            let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", first.len(), rest.len());
            let response = raw(url, (head + &chunks).as_bytes())?.expect(200)?;
            ensure!(response.header("x-bytes") == sent.len().to_string(), "{method}: {:?}", response.headers);
        }
        Ok(())
    })
}

/// Also with requests beside it, which must not feel it.
fn keeps_an_answer_without_a_body(stack: &Stack, edge: &str) -> Result<()> {
    with_upstream(stack, edge, |url| {
        let get = || Client::new(url, "acme.localhost").get("/kept/none")?.expect(204);
        eventually(SEEN_MAX, || {
            ensure!(get()?.header("cache-status").contains("hit"), "not from the cache");
            Ok(())
        })?;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..20).try_for_each(|_| get().map(drop)))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            })
        })
    })
}

fn answers_a_part_of_what_is_kept(stack: &Stack, edge: &str) -> Result<()> {
    with_upstream(stack, edge, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || {
            let whole = client.get("/kept/digits")?.expect(200)?;
            ensure!(whole.text() == "0123456789", "{}", whole.text());
            ensure!(whole.header("cache-status").contains("hit"), "not from the cache");
            Ok(())
        })?;
        for (range, part, content_range) in [
            ("bytes=2-4", "234", "bytes 2-4/10"),
            ("bytes=-3", "789", "bytes 7-9/10"),
            ("bytes=0-", "0123456789", "bytes 0-9/10"),
        ] {
            let response = client.with("range", range).get("/kept/digits")?.expect(206)?;
            ensure!(response.text() == part, "{range}: {}", response.text());
            ensure!(response.header("content-range") == content_range, "{range}: {:?}", response.headers);
        }
        let beyond = client.with("range", "bytes=10-").get("/kept/digits")?.expect(416)?;
        ensure!(beyond.header("content-range") == "bytes */10", "{:?}", beyond.headers);
        Ok(())
    })
}

/// What is kept comes back byte for byte, whole and in part, and the edge's memory does not grow with it.
fn keeps_large_bodies_without_holding_them(stack: &Stack, edge: &str) -> Result<()> {
    with_upstream(stack, edge, |url| {
        let client = Client::new(url, "acme.localhost");
        let keep = |path: &str, number: usize| -> Result<()> {
            let body = upstream::large(number);
            eventually(LARGE_KEPT_MAX, || {
                let whole = client.get(&format!("{path}/{number}"))?.expect(200)?;
                ensure!(whole.body == body, "{} other bytes", whole.body.len());
                ensure!(whole.header("cache-status").contains("hit"), "{}", whole.header("cache-status"));
                Ok(())
            })?;
            for first in [0, 1, 1_048_575, 30_000_000, LARGE_BYTES - 70_000] {
                let range = format!("bytes={first}-{}", first + 69_999);
                let part = client.with("range", &range).get(&format!("{path}/{number}"))?.expect(206)?;
                ensure!(part.body == body[first..first + 70_000], "{range}: {} other bytes", part.body.len());
                let content_range = format!("bytes {first}-{}/{LARGE_BYTES}", first + 69_999);
                ensure!(part.header("content-range") == content_range, "{range}: {:?}", part.headers);
                ensure!(part.header("cache-status").contains("hit"), "{range}: {:?}", part.headers);
            }
            Ok(())
        };
        // What the edge needs once, for its first large body, is none of what it would hold.
        keep("/kept/large", 0)?;
        keep("/kept/open", 1)?;
        let before = memory_bytes(stack, edge)?;
        for number in 2..6 {
            keep("/kept/large", number)?;
        }
        let grown = memory_bytes(stack, edge)?.saturating_sub(before);
        ensure!(grown < LARGE_BYTES as u64, "four bodies of {LARGE_BYTES} bytes, and {grown} more in memory");
        Ok(())
    })
}

/// What one edge keeps is too large for the other, which says so in time (RFC 9211, section 2.4).
fn says_of_a_coded_body_whether_it_is_kept(stack: &Stack, edge: &str) -> Result<()> {
    let first_status = match edge {
        "cloudflare" => "fwd=uri-miss; detail=too-large",
        _ => "fwd=uri-miss; ttl=60; stored",
    };
    let content = &upstream::large(0)[..upstream::CODED_BYTES];
    with_upstream(stack, edge, |url| {
        let client = Client::new(url, "acme.localhost").with("accept-encoding", "gzip");
        let ask = || -> Result<Response> {
            let whole = client.get("/kept/coded")?.expect(200)?;
            ensure!(whole.header("content-encoding") == "gzip", "{:?}", whole.headers);
            ensure!(decoded("gzip", &whole.body)? == content, "{} other bytes", whole.body.len());
            Ok(whole)
        };
        eventually(SEEN_MAX, || {
            let status = ask()?.header("cache-status").to_owned();
            ensure!(status.contains(first_status) || status.contains("hit"), "{status}");
            Ok(())
        })?;
        eventually(SEEN_MAX, || {
            let status = ask()?.header("cache-status").to_owned();
            let is_kept = edge != "cloudflare";
            ensure!(
                status.contains("hit") == is_kept && status.contains(first_status) != is_kept,
                "{status}"
            );
            Ok(())
        })?;
        Ok(())
    })
}

/// Resident memory of an edge's process.
fn memory_bytes(stack: &Stack, edge: &str) -> Result<u64> {
    let pid = *stack.up()?.pids.get(&format!("edge-{edge}")).context("the edge's process")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix(" kB")).context("VmRSS in kB")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

/// Too long by its head, too long as it comes, and with too long a pause; what is within the limits comes whole.
fn breaks_off_what_an_upstream_may_not_send(stack: &Stack, edge: &str) -> Result<()> {
    let rules = "---\n\
        apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: own}\nspec: {}\n---\n\
        apiVersion: meridian/v1\nkind: Upstream\nmetadata: {name: short}\n\
        spec: {regions: {us-east-1: \"{own}\"}, maxResponseBytes: 20, bodyTimeout: 300ms}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: kept}\n\
        spec: {match: {path: \"/kept/**\"}, auth: {mode: anonymous}, cache: own, upstream: short}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: short}\n\
        spec: {match: {path: \"/short/**\"}, auth: {mode: anonymous}, upstream: short}\n";
    with_rules(stack, edge, rules, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || {
            let declared = client.get("/short/page")?.expect(502)?;
            ensure!(declared.text().contains("response-too-large"), "{}", declared.text());
            Ok(())
        })?;
        ensure!(client.get("/kept/digits")?.expect(200)?.text() == "0123456789", "it is within its limits");
        for path in
            ["/short/ambiguous", "/kept/ambiguous", "/kept/ambiguous", "/short/pauses", "/kept/pauses"]
        {
            let answer = client.get(path);
            ensure!(answer.is_err(), "{path} came whole: {answer:?}");
        }
        Ok(())
    })
}

/// Requests under way hold their connections; whoever finds none is told so, until one is free again.
fn leaves_an_upstream_the_connections_that_it_takes(stack: &Stack, edge: &str) -> Result<()> {
    let rules = "---\n\
        apiVersion: meridian/v1\nkind: Upstream\nmetadata: {name: narrow}\n\
        spec: {regions: {us-east-1: \"{own}\"}, maxConnections: 1, bodyTimeout: 2s}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: narrow}\n\
        spec: {match: {path: \"/narrow/**\"}, auth: {mode: anonymous}, upstream: narrow}\n";
    with_rules(stack, edge, rules, |url| {
        let client = Client::new(url, "acme.localhost");
        let free = || eventually(SEEN_MAX, || client.get("/narrow/echo")?.expect(200).map(drop));
        free()?;
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let crowd: Vec<_> =
                (0..=INSTANCES_MAX).map(|_| scope.spawn(|| client.get("/narrow/waits"))).collect();
            crowd
                .into_iter()
                .map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?)
                .collect::<Result<_>>()
        })?;
        let busy: Vec<&Response> = answers.iter().filter(|answer| answer.status != 204).collect();
        ensure!((1..answers.len()).contains(&busy.len()), "{} of {} are refused", busy.len(), answers.len());
        for answer in busy {
            ensure!(answer.status == 503 && answer.text().contains("upstream-busy"), "{}", answer.text());
            ensure!(answer.header("retry-after") == "1", "{:?}", answer.headers);
        }
        free()?;
        if edge == "spin" {
            let mut open = Vec::new();
            while open.len() <= INSTANCES_MAX {
                let head = b"GET /narrow/pauses HTTP/1.1\r\nHost: acme.localhost\r\n\r\n";
                open.push(begin(url, head)?);
            }
            let coming = open.iter().filter(|(head, _)| head.status == 200).count();
            ensure!((1..open.len()).contains(&coming), "{coming} bodies come at once");
            drop(open);
            free()?;
        }
        Ok(())
    })
}
