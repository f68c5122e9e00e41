//! One request through one edge: what each policy does, as a client sees it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::stack::{Stack, eventually};
use serde_json::json;

use crate::EdgeTest;
use crate::bad_bundles::port;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("lists_records", lists_records),
    ("every_reply_says_who_decided", every_reply_says_who_decided),
    ("an_edge_without_a_configuration_says_so", an_edge_without_a_configuration_says_so),
    ("pages_through_records", pages_through_records),
    ("keeps_a_record", keeps_a_record),
    ("refuses_a_stale_condition", refuses_a_stale_condition),
    ("repeats_an_idempotent_request", repeats_an_idempotent_request),
    ("applies_a_batch_whole_or_not_at_all", applies_a_batch_whole_or_not_at_all),
    ("refuses_wrong_tokens", refuses_wrong_tokens),
    ("refuses_a_missing_scope", refuses_a_missing_scope),
    ("refuses_an_unknown_host", refuses_an_unknown_host),
    ("limits_each_subject", limits_each_subject),
    ("goes_to_the_nearest_region", goes_to_the_nearest_region),
    ("caches_and_forgets_what_changed", caches_and_forgets_what_changed),
    ("answers_conditional_requests", answers_conditional_requests),
    ("splits_subjects_for_good", splits_subjects_for_good),
    ("strips_internal_headers", strips_internal_headers),
    ("continues_a_trace", continues_a_trace),
    ("refuses_ambiguous_requests", refuses_ambiguous_requests),
];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const RECORDS: &str = "/v1/collections/orders/records";

fn acme(stack: &Stack, edge: &str, subject: &str) -> Result<Client> {
    let token = stack.token("acme", &unique(subject), "orders:read orders:write")?;
    Ok(stack.edge(edge, "acme")?.bearer(&token))
}

/// A subject of its own for each use, so that no limit is shared.
fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{name}-{}", now.as_nanos())
}

fn problem(response: &Response, status: u16) -> Result<()> {
    ensure!(response.status == status, "expected {status}, got {} {}", response.status, response.text());
    ensure!(response.header("content-type") == "application/problem+json", "{:?}", response.headers);
    let body = response.value()?;
    ensure!(body["status"] == status, "{body}");
    ensure!(body["decision"] == response.header("meridian-decision"), "{body}");
    ensure!(!response.header("meridian-decision").is_empty());
    Ok(())
}

fn lists_records(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let acme = up.tenant("acme")?;
    let response = stack.edge(edge, "acme")?.bearer(&acme.tokens["reader"]).get(RECORDS)?.expect(200)?;
    let body = response.value()?;
    let records = body["records"].as_array().context("records is a list")?;
    ensure!(records.len() == 50, "{} records on the first page", records.len());
    for key in ["id", "created_at", "updated_at"] {
        ensure!(records.iter().all(|record| record[key].is_string()), "every record has {key}");
    }
    ensure!(body["next"].is_string(), "hundreds of records have a next page: {}", body["next"]);
    Ok(())
}

/// Whoever makes a reply, it says who decided, when and by what; the trace that the request was part of goes on.
pub fn says_who_decided(response: &Response) -> Result<()> {
    let headers = &response.headers;
    for name in ["meridian-region", "meridian-bundle", "server-timing"] {
        ensure!(!response.header(name).is_empty(), "{name} is missing from {headers:?}");
    }
    let id = response.header("meridian-decision");
    let digit =
        |letter: char| letter.is_ascii_digit() || (letter.is_ascii_uppercase() && !"ILOU".contains(letter));
    ensure!(id.len() == 26 && id.chars().all(digit), "{id:?} is no id of a decision: {headers:?}");
    ensure!(response.header("traceparent").contains(TRACE), "not the trace of the request: {headers:?}");
    Ok(())
}

fn every_reply_says_who_decided(stack: &Stack, edge: &str) -> Result<()> {
    let traced = |client: Client| client.with("traceparent", PARENT);
    let client = traced(acme(stack, edge, "headers")?);
    let url = stack.up()?.edges[edge].clone();
    for response in [
        client.get(RECORDS)?.expect(200)?,
        traced(stack.edge(edge, "acme")?).get(RECORDS)?.expect(401)?,
        client.get("/nowhere")?.expect(404)?,
        client.get("/v1/%00")?.expect(400)?,
        client.get(&format!("/{}", "a".repeat(20_000)))?.expect(414)?,
        traced(Client::new(&url, "nobody.example")).get("/")?.expect(421)?,
    ] {
        says_who_decided(&response)?;
    }
    // What the client of these tests would not send. A latin letter is no text to Spin.
    let requests: [(&[u8], _); 4] = [
        (b"GET / HTTP/1.1\r\nHost: no host\r\n", 400..401),
        (b"GET / HTTP/1.1\r\nHost: acme.localhost\r\nX-Odd: \xe4\r\n", 400..405),
        (b"TRACE / HTTP/1.1\r\nHost: acme.localhost\r\n", 501..502),
        (b"DELETE / HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\n", 400..405),
    ];
    for (request, statuses) in requests {
        let shown = String::from_utf8_lossy(request);
        let rest = format!("traceparent: {PARENT}\r\nConnection: close\r\n\r\n0\r\n\r\n");
        let response = raw(&url, &[request, rest.as_bytes()].concat())?;
        ensure!(statuses.contains(&response.status), "{shown}: {response:?}");
        says_who_decided(&response).with_context(|| shown.into_owned())?;
    }
    ensure!(client.get(RECORDS)?.header("cache-status").starts_with("meridian;"));
    Ok(())
}

/// Sends these very bytes, and reads the head of what comes back.
pub fn raw(url: &str, request: &[u8]) -> Result<Response> {
    Ok(begin(url, request)?.0)
}

/// The same, and the connection on which the rest of the answer comes.
pub fn begin(url: &str, request: &[u8]) -> Result<(Response, TcpStream)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok((begin_over(&mut stream, request)?, stream))
}

/// The same on a connection that is there already.
pub fn begin_over(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Response> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "only {:?} came", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&part[..read]);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
    let field = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok(Response { status, headers: lines.map_while(field).collect(), body: Vec::new() })
}

fn an_edge_without_a_configuration_says_so(stack: &Stack, name: &str) -> Result<()> {
    let state = stack.data().join(format!("unconfigured-{name}"));
    let edge = Edge::start(name, Flavour::Plain, port(name)?, "no origins", stack.data(), &state)?;
    let response = Client::new(&edge.url, "acme.localhost").with("traceparent", PARENT).get("/v1/whoami")?;
    problem(&response, 500)?;
    says_who_decided(&response)?;
    ensure!(response.header("meridian-region") == "edge" && response.header("meridian-bundle") == "none");
    ensure!(response.value()?["title"] == "The edge is not configured", "{}", response.text());
    Ok(())
}

fn pages_through_records(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "pages")?;
    let mut seen = BTreeSet::new();
    let mut cursor = String::new();
    for _ in 0..40 {
        let page =
            client.get(&format!("{RECORDS}?limit=100&order=-created_at{cursor}"))?.expect(200)?.value()?;
        for record in page["records"].as_array().context("records is a list")? {
            ensure!(seen.insert(record["id"].to_string()), "{} came twice", record["id"]);
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    ensure!(seen.len() >= 200, "a few hundred records, not {}", seen.len());
    problem(&client.get(&format!("{RECORDS}?cursor=nonsense"))?, 400).or_else(|_| {
        let response = client.get(&format!("{RECORDS}?cursor=nonsense"))?.expect(400)?;
        ensure!(response.header("content-type") == "application/problem+json", "{:?}", response.headers);
        Ok(())
    })
}

fn keeps_a_record(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "keeper")?;
    let created = client.json("POST", RECORDS, &json!({"customer": "Ada", "total": 12.5}))?.expect(201)?;
    let record = created.value()?;
    ensure!(record["customer"] == "Ada" && record["total"] == 12.5, "{record}");
    let path = format!("{RECORDS}/{}", record["id"].as_str().context("a record has an id")?);
    ensure!(created.header("location").ends_with(&path), "{:?}", created.headers);
    let client = client.with("meridian-session", created.header("meridian-session"));

    ensure!(client.get(&path)?.expect(200)?.value()? == record);
    let patched = client.json("PATCH", &path, &json!({"total": 20}))?.expect(200)?;
    ensure!(patched.value()?["total"] == 20 && patched.value()?["customer"] == "Ada");
    let client = client.with("meridian-session", patched.header("meridian-session"));
    ensure!(client.get(&path)?.expect(200)?.value()?["total"] == 20, "a write is read by its writer");

    let deleted = client.send("DELETE", &path)?.expect(204)?;
    let client = client.with("meridian-session", deleted.header("meridian-session"));
    client.get(&path)?.expect(404)?;
    Ok(())
}

fn refuses_a_stale_condition(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "conditions")?;
    let created = client.json("POST", RECORDS, &json!({"total": 1}))?.expect(201)?;
    let id = created.value()?["id"].as_str().context("id")?.to_owned();
    let path = format!("{RECORDS}/{id}");
    let client = client.with("meridian-session", created.header("meridian-session"));
    let first = created.header("etag").to_owned();
    client.with("if-match", &first).json("PATCH", &path, &json!({"total": 2}))?.expect(200)?;
    client.with("if-match", &first).json("PATCH", &path, &json!({"total": 3}))?.expect(412)?;
    Ok(())
}

fn repeats_an_idempotent_request(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "idempotent")?.with("idempotency-key", &unique("key"));
    let first = client.json("POST", RECORDS, &json!({"total": 7}))?.expect(201)?.value()?;
    let again = client.json("POST", RECORDS, &json!({"total": 7}))?.expect(201)?.value()?;
    ensure!(first == again, "the same key gave {first} and {again}");
    client.json("POST", RECORDS, &json!({"total": 8}))?.expect(422)?;
    Ok(())
}

fn applies_a_batch_whole_or_not_at_all(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "batch")?;
    let marker = unique("batch");
    let good = json!({"op": "create", "record": {"customer": marker}});
    let bad = json!({"op": "delete", "id": "01890000-0000-7000-8000-000000000000"});
    let path = "/v1/collections/orders/batch";
    let refused = client.json("POST", path, &json!({"operations": [good, bad]}))?;
    ensure!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
    let list = format!("{RECORDS}?customer={marker}");
    ensure!(
        client.with("cache-control", "no-cache").get(&list)?.expect(200)?.value()?["records"] == json!([])
    );

    let done = client.json("POST", path, &json!({"operations": [good, good]}))?;
    ensure!(done.status == 200, "{} {}", done.status, done.text());
    let client =
        client.with("meridian-session", done.header("meridian-session")).with("cache-control", "no-cache");
    let found = client.get(&list)?.expect(200)?.value()?;
    ensure!(found["records"].as_array().is_some_and(|records| records.len() == 2), "{found}");
    Ok(())
}

fn refuses_wrong_tokens(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let tokens = &up.tenant("acme")?.tokens;
    let client = stack.edge(edge, "acme")?;
    let reader = &tokens["reader"];
    let (signed, _) = reader.rsplit_once('.').context("a token has three parts")?;
    let other_signature = tokens["writer"].rsplit('.').next().context("a token has three parts")?;
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJldmUifQ.";
    let wrong = [
        tokens["expired"].clone(),
        tokens["other_tenant"].clone(),
        format!("{signed}.{other_signature}"),
        none.to_owned(),
        "nonsense".to_owned(),
        "a.".repeat(10_000),
    ];
    for token in &wrong {
        let response = client.bearer(token).get(RECORDS)?;
        problem(&response, 401)?;
        ensure!(response.header("www-authenticate").starts_with("Bearer"), "{:?}", response.headers);
    }
    let response = client.get(RECORDS)?;
    problem(&response, 401)?;
    ensure!(
        !response.header("www-authenticate").contains("error="),
        "no token, no error code (RFC 6750, 3.1)"
    );
    Ok(())
}

fn refuses_a_missing_scope(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let client = stack.edge(edge, "acme")?.bearer(&up.tenant("acme")?.tokens["reader"]);
    let response = client.json("POST", RECORDS, &json!({"total": 1}))?;
    problem(&response, 403)?;
    ensure!(response.header("www-authenticate").contains("insufficient_scope"), "{:?}", response.headers);
    Ok(())
}

fn refuses_an_unknown_host(stack: &Stack, edge: &str) -> Result<()> {
    let url = stack.up()?.edges[edge].clone();
    problem(&Client::new(&url, "nobody.example").get("/")?, 421)
}

fn limits_each_subject(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "greedy")?;
    let started = Instant::now();
    let (mut passed, mut limited) = (0, None);
    for _ in 0..400 {
        let response = client.get("/v1/whoami")?;
        match response.status {
            200 => passed += 1,
            429 => {
                limited = Some(response);
                break;
            }
            other => anyhow::bail!("{other}: {}", response.text()),
        }
    }
    // 300 a minute: the bucket refills while it is drained; an instance that is replaced takes what is left of its
    // lease with it.
    let refilled = u32::try_from(started.elapsed().as_millis() / 200)?;
    ensure!((290..=300 + refilled + 1).contains(&passed), "{passed} passed, {refilled} refilled meanwhile");
    let limited = limited.context("the limit was never reached")?;
    problem(&limited, 429)?;
    ensure!(
        !limited.header("retry-after").is_empty() && limited.header("ratelimit").contains("r=0"),
        "{limited:?}"
    );
    ensure!(limited.header("ratelimit-policy").contains("q=300;w=60"), "{:?}", limited.headers);
    acme(stack, edge, "modest")?.get("/v1/whoami")?.expect(200)?;
    Ok(())
}

fn goes_to_the_nearest_region(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let client = acme(stack, edge, "traveller")?;
    let mut reached = BTreeSet::new();
    for (address, region) in &up.places {
        let response = client.from(address).get("/v1/whoami")?.expect(200)?;
        ensure!(
            response.header("meridian-region") == region,
            "{address} went to {}",
            response.header("meridian-region")
        );
        reached.insert(region.clone());
    }
    ensure!(reached.len() == 3, "the places reach {reached:?}");
    Ok(())
}

fn caches_and_forgets_what_changed(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let client = acme(stack, edge, "cacher")?;
    let us = client.from(up.address_near("us-east-1")?);
    let asia = client.from(up.address_near("ap-southeast-1")?);
    let created = us.json("POST", RECORDS, &json!({"customer": "Grace", "total": 1}))?.expect(201)?;
    let path = format!("{RECORDS}/{}", created.value()?["id"].as_str().context("id")?);
    eventually(Duration::from_secs(5), || asia.get(&path)?.expect(200).map(drop))?;
    eventually(Duration::from_secs(5), || {
        let response = asia.get(&path)?.expect(200)?;
        ensure!(response.header("cache-status").contains("hit"), "{}", response.header("cache-status"));
        ensure!(!response.header("age").is_empty(), "a stored response has an age");
        Ok(())
    })?;
    us.json("PATCH", &path, &json!({"total": 2}))?.expect(200)?;
    let took = eventually(Duration::from_secs(3), || {
        let total = asia.get(&path)?.expect(200)?.value()?["total"].clone();
        ensure!(total == 2, "still {total}");
        Ok(())
    })?;
    println!("{edge}: a change in us-east-1 was seen through the cache near ap-southeast-1 after {took:?}");
    Ok(())
}

fn answers_conditional_requests(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "validator")?;
    let created = client.json("POST", RECORDS, &json!({"total": 1}))?.expect(201)?;
    let client = client.with("meridian-session", created.header("meridian-session"));
    let path = format!("{RECORDS}/{}", created.value()?["id"].as_str().context("id")?);
    let etag = client.get(&path)?.expect(200)?.header("etag").to_owned();
    ensure!(!etag.is_empty());
    let not_modified = client.with("if-none-match", &etag).get(&path)?.expect(304)?;
    ensure!(not_modified.body.is_empty() && not_modified.header("etag") == etag);
    Ok(())
}

fn splits_subjects_for_good(stack: &Stack, edge: &str) -> Result<()> {
    let mut variants = BTreeSet::new();
    for number in 0..24 {
        let token = stack.token("acme", &format!("subject-{number}"), "orders:read")?;
        let here = stack.edge(edge, "acme")?.bearer(&token);
        let first = here.get("/v1/whoami")?.expect(200)?.header("meridian-variant").to_owned();
        ensure!(!first.is_empty(), "every subject has a variant");
        for other in crate::EDGES {
            let again = stack.edge(other, "acme")?.bearer(&token).get("/v1/whoami")?.expect(200)?;
            ensure!(
                again.header("meridian-variant") == first,
                "subject {number} changed its variant on {other}"
            );
        }
        variants.insert(first);
    }
    ensure!(variants.len() == 2, "24 subjects, two variants: {variants:?}");
    Ok(())
}

fn strips_internal_headers(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "forger")?;
    let mine = client.get("/v1/whoami")?.expect(200)?.value()?;
    let forged = client
        .with("meridian-context", "v1.k1.e30.AAAA")
        .with("meridian-region", "mars-1")
        .with("meridian-seen", "1=99")
        .get("/v1/whoami")?
        .expect(200)?;
    ensure!(forged.value()?["subject"] == mine["subject"]);
    ensure!(forged.header("meridian-region") != "mars-1");
    ensure!(forged.header("meridian-seen").is_empty(), "positions stay inside");
    Ok(())
}

fn continues_a_trace(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "tracer")?.with("traceparent", PARENT);
    let response = client.get("/v1/whoami")?.expect(200)?;
    ensure!(response.header("traceparent").contains(TRACE), "{}", response.header("traceparent"));
    Ok(())
}

fn refuses_ambiguous_requests(stack: &Stack, edge: &str) -> Result<()> {
    let client = acme(stack, edge, "smuggler")?;
    for path in ["/v1/collections/../control", "/v1/collections%2f..%2f/records", "/v1/%00"] {
        let response = client.get(path)?;
        ensure!((400..500).contains(&response.status), "{path}: {} {}", response.status, response.text());
    }
    Ok(())
}
