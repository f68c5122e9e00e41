//! What becomes of bodies on their way out: content codings and changed pages, from the target and from the cache, as
//! they stream and as they break.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::decode::{begun, decoded};
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};
use serde_json::json;

use crate::EdgeTest;
use crate::upstream::{coded_page, loose_page, page};
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("codes_what_it_forwards_and_what_it_keeps", codes_what_it_forwards_and_what_it_keeps),
    ("changes_a_page_and_then_codes_it", changes_a_page_and_then_codes_it),
    ("minifies_a_page_however_it_is_cut", minifies_a_page_however_it_is_cut),
    ("holds_nothing_back_while_a_body_pauses", holds_nothing_back_while_a_body_pauses),
    ("breaks_off_what_it_can_not_finish", breaks_off_what_it_can_not_finish),
    ("says_of_coded_content_what_is_true_of_its_bytes", says_of_coded_content_what_is_true_of_its_bytes),
    ("changes_a_record_by_the_tag_that_it_came_with", changes_a_record_by_the_tag_that_it_came_with),
];

const RECORDS: &str = "/v1/collections/orders/records";

/// What a browser asks for, with each coding as the only one that is left.
const ASKED: [(&str, &str); 4] = [
    ("gzip", "gzip, deflate"),
    ("br", "gzip;q=0.5, deflate, br"),
    ("zstd", "gzip, deflate, br, zstd"),
    ("", "identity"),
];
const RULES: &str = r#"---
apiVersion: meridian/v1
kind: CachePolicy
metadata: {name: own}
spec: {}
---
apiVersion: meridian/v1
kind: Transform
metadata: {name: own-codings}
spec: {compress: {bytesMin: 1}}
---
apiVersion: meridian/v1
kind: Transform
metadata: {name: own-pages}
spec:
  html:
    - {select: h1, setInner: {text: {cel: 'request.params["name"]'}}}
    - {select: "li:nth-child(2)", remove: true}
    - {select: a, setAttribute: {name: rel, value: nofollow}}
---
apiVersion: meridian/v1
kind: Transform
metadata: {name: own-minified}
spec: {minify: true}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: minified}
spec: {match: {path: "/minified/**"}, auth: {mode: anonymous}, upstream: own, transforms: [own-minified, own-codings]}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: coded}
spec: {match: {path: "/coded/**"}, auth: {mode: anonymous}, upstream: own, transforms: [own-codings]}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: kept}
spec: {match: {path: "/kept/**"}, auth: {mode: anonymous}, upstream: own, cache: own, transforms: [own-codings]}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: changed}
spec: {match: {path: "/changed/**"}, auth: {mode: anonymous}, upstream: own, transforms: [own-pages, own-codings]}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: changed-and-kept}
spec: {match: {path: "/changed-kept/**"}, auth: {mode: anonymous}, upstream: own, cache: own, transforms: [own-pages, own-codings]}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: coded-records}
spec: {match: {path: "/v1/collections/{name}/records/{id}"}, auth: {scopes: ["orders:read"]}, cache: own, transforms: [own-codings]}
"#;

/// A client of one edge with these rules, once every instance of it has had the time to hear of them.
fn with_edge(stack: &Stack, edge: &str, test: impl FnOnce(&Client, &str) -> Result<()>) -> Result<()> {
    with_rules(stack, edge, RULES, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || {
            let head = client.with("accept-encoding", "gzip").get("/coded/page")?.expect(200)?;
            ensure!(head.header("content-encoding") == "gzip", "{:?}", head.headers);
            Ok(())
        })?;
        test(&client, url)
    })
}

/// The content of an answer, checked for what its head says of the coding.
fn content(response: &Response, coding: &str) -> Result<Vec<u8>> {
    ensure!(response.header("content-encoding") == coding, "{coding}: {:?}", response.headers);
    let varies =
        response.headers.iter().any(|(name, value)| name == "vary" && value.contains("Accept-Encoding"));
    ensure!(varies, "{coding}: {:?}", response.headers);
    decoded(coding, &response.body).with_context(|| format!("{coding} of {} bytes", response.body.len()))
}

fn codes_what_it_forwards_and_what_it_keeps(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |client, _| {
        let page = page();
        for path in ["/coded/page", "/kept/page", "/kept/page"] {
            for (coding, asked) in ASKED {
                let client = client.with("accept-encoding", asked);
                let response = client.get(path)?.expect(200)?;
                ensure!(
                    content(&response, coding)? == page.as_bytes(),
                    "{path} in {coding:?} is another page"
                );
                let shorter = coding.is_empty() || response.body.len() * 4 < page.len();
                ensure!(shorter, "{path} in {coding:?}: {} of {} bytes", response.body.len(), page.len());
                let etag = if coding.is_empty() { "\"p\"" } else { "W/\"p\"" };
                ensure!(response.header("etag") == etag, "{path} in {coding:?}: {:?}", response.headers);
                let again = client.with("if-none-match", etag).get(path)?.expect(304)?;
                ensure!(again.header("etag") == etag, "{path} in {coding:?}: {:?}", again.headers);
            }
        }
        let kept = client.with("accept-encoding", "br").get("/kept/page")?;
        ensure!(kept.header("cache-status").contains("hit"), "{:?}", kept.headers);
        let part = client
            .with("accept-encoding", "br")
            .with("range", "bytes=0-14")
            .get("/kept/page")?
            .expect(206)?;
        ensure!(part.body == page.as_bytes()[..15] && part.header("content-encoding").is_empty(), "{part:?}");
        let head = client.with("accept-encoding", "br").send("HEAD", "/coded/page")?.expect(200)?;
        ensure!(head.header("content-encoding") == "br" && head.body.is_empty(), "{head:?}");
        Ok(())
    })
}

fn changes_a_page_and_then_codes_it(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |client, _| {
        for path in ["/changed/page", "/changed-kept/page", "/changed-kept/page"] {
            for ((coding, asked), name) in ASKED.into_iter().zip(["a", "b", "c", "%3Cd%3E"]) {
                let client = client.with("accept-encoding", asked).with("range", "bytes=0-9");
                let response = client.get(&format!("{path}?name={name}"))?.expect(200)?;
                let changed = String::from_utf8(content(&response, coding)?)?;
                let shown = if name == "%3Cd%3E" { "&lt;d&gt;" } else { name };
                let expected = page()
                    .replace("<h1>Items</h1>", &format!("<h1>{shown}</h1>"))
                    .replace("<li id=item-1><a href=/items/7>Item é</a></li>", "")
                    .replace(">Item é</a>", " rel=\"nofollow\">Item é</a>");
                ensure!(changed == expected, "{path} in {coding:?} begins with {}", &changed[..200]);
                ensure!(response.header("etag").is_empty(), "{:?}", response.headers);
            }
        }
        Ok(())
    })
}

fn minifies_a_page_however_it_is_cut(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |client, _| {
        let (_, minified) = loose_page();
        for path in ["/minified/loose", "/minified/pieces"] {
            for (coding, asked) in ASKED {
                let response = client.with("accept-encoding", asked).get(path)?.expect(200)?;
                let page = String::from_utf8(content(&response, coding)?)?;
                ensure!(page == minified, "{path} in {coding:?} begins with {:?}", page.get(..400));
            }
        }
        Ok(())
    })
}

fn holds_nothing_back_while_a_body_pauses(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |_, url| {
        for (coding, asked) in ASKED {
            let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
            stream.set_read_timeout(Some(SEEN_MAX))?;
            write!(
                stream,
                "GET /coded/pauses HTTP/1.1\r\nHost: acme.localhost\r\nAccept-Encoding: {asked}\r\n\r\n"
            )?;
            let (mut came, mut part) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut part).with_context(|| format!("{coding:?}: {came:?}"))?;
                ensure!(read > 0, "{coding:?}: the body ended");
                came.extend_from_slice(&part[..read]);
                if begun(coding, &unchunked(&came))? == b"first line\n" {
                    break;
                }
            }
        }
        Ok(())
    })
}

/// The content of chunks (RFC 9112, section 7.1), as far as they came.
fn unchunked(message: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = end.map_or(&[][..], |end| &message[end + 4..]);
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size =
            std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { break };
        let chunk = &rest[line + 2..];
        content.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    content
}

fn breaks_off_what_it_can_not_finish(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |client, _| {
        for path in ["/coded/breaks", "/kept/breaks", "/changed/breaks", "/changed/ambiguous"] {
            for asked in ["identity", "gzip", "br", "zstd"] {
                let answer = client.with("accept-encoding", asked).get(path);
                ensure!(answer.is_err(), "{path} in {asked} came whole: {answer:?}");
            }
        }
        Ok(())
    })
}

fn says_of_coded_content_what_is_true_of_its_bytes(stack: &Stack, edge: &str) -> Result<()> {
    with_edge(stack, edge, |client, _| {
        let client = client.with("accept-encoding", "gzip");
        // The runtime of workerd codes it anew; Spin keeps what came.
        let keeps_bytes = edge != "cloudflare";
        let check = |response: &Response| -> Result<()> {
            ensure!(decoded("gzip", &response.body)? == page().as_bytes(), "another page");
            let says = (response.header("etag").starts_with('"'), !response.header("repr-digest").is_empty());
            ensure!(says == (keeps_bytes, keeps_bytes), "RFC 9110, section 8.8.1: {:?}", response.headers);
            ensure!(!keeps_bytes || response.body == coded_page()?, "the bytes are others");
            Ok(())
        };
        let forwarded = client.get("/kept/digested")?.expect(200)?;
        check(&forwarded)?;
        eventually(SEEN_MAX, || {
            let stored = client.get("/kept/digested")?.expect(200)?;
            ensure!(stored.header("cache-status").contains("hit"), "{:?}", stored.headers);
            check(&stored)
        })?;
        let etag = forwarded.header("etag");
        let same = client.with("if-none-match", etag).get("/kept/digested")?.expect(304)?;
        ensure!(same.header("etag") == etag, "RFC 9110, section 15.4.5: {:?}", same.headers);
        Ok(())
    })
}

fn changes_a_record_by_the_tag_that_it_came_with(stack: &Stack, edge: &str) -> Result<()> {
    let token = stack.token("acme", "coded-records", "orders:read orders:write")?;
    with_edge(stack, edge, |client, _| {
        let client = client.bearer(&token).with("accept-encoding", "gzip");
        let created = client.json("POST", RECORDS, &json!({"total": 1}))?.expect(201)?;
        let id = created.value()?["id"].as_str().context("a record has an id")?.to_owned();
        let client = client.with("meridian-session", created.header("meridian-session"));
        let missing = client.get(&format!("{RECORDS}/01890000-0000-7000-8000-000000000000"))?.expect(404)?;
        ensure!(missing.header("content-encoding") == "gzip", "the rule is for it: {:?}", missing.headers);

        let path = format!("{RECORDS}/{id}");
        let read = client.get(&path)?.expect(200)?;
        let etag = read.header("etag").to_owned();
        ensure!(etag.starts_with('"') && read.header("content-encoding").is_empty(), "{:?}", read.headers);
        // Stored or not.
        for _ in 0..2 {
            let same = client.with("if-none-match", &etag).get(&path)?.expect(304)?;
            ensure!(same.header("etag") == etag, "{:?}", same.headers);
        }
        // RFC 9110, section 13.1.1: by a strong comparison, which a weak tag never stands.
        let weak = client.with("if-match", &format!("W/{etag}"));
        weak.json("PATCH", &path, &json!({"total": 2}))?.expect(412)?;
        let changed =
            client.with("if-match", &etag).json("PATCH", &path, &json!({"total": 2}))?.expect(200)?;
        let again = client.with("if-match", changed.header("etag"));
        again.json("PATCH", &path, &json!({"total": 3}))?.expect(200)?;
        Ok(())
    })
}
