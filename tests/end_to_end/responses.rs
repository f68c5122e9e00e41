//! What an edge makes of responses that no upstream of good will sends: the cases of `responses.yaml`. Each comes on a connection
//! that the edge may use again, so that what is left of it would be the next client's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::serve::serve;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};
use serde::Deserialize;

use crate::EdgeTest;
use crate::surface::ByEdge;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("passes_on_one_response_or_refuses_it", passes_on_one_response_or_refuses_it)];

/// Bytes of the head of a request.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// How long the edge may wait for an answer, by the rules of these tests, and how long it may take to say so.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two responses that are sent again and again.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests behind each case, on whichever connection each goes.
const NEXT: usize = 3;

/// One case of `responses.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    send: String,
    #[serde(default)]
    ends: bool,
    #[serde(default)]
    again: bool,
    came: ByEdge<Vec<Came>>,
    text: Option<String>,
}

/// What comes of a response.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Came {
    Whole,
    Refused,
    Broken,
}

impl Came {
    fn of(answer: &Result<Response>) -> Result<Self> {
        match answer {
            Err(_) => Ok(Self::Broken),
            Ok(response) if matches!(response.status, 502 | 504) => {
                ensure!(!response.header("meridian-decision").is_empty(), "{:?}", response.headers);
                Ok(Self::Refused)
            }
            Ok(response) => {
                ensure!(response.status < 500, "{} {}", response.status, response.text());
                Ok(Self::Whole)
            }
        }
    }
}

fn passes_on_one_response_or_refuses_it(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> =
        serde_saphyr::from_str(include_str!("responses.yaml")).context("in responses.yaml")?;
    ensure!(cases.len() > 40, "only {} cases", cases.len());
    let cases = Arc::new(cases);
    let sent = Arc::clone(&cases);
    let upstream = serve(move |stream| answer(&stream, &sent))?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: odd}}\n\
         spec: {{regions: {{us-east-1: \"{upstream}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: odd}}\n\
         spec: {{match: {{path: \"/odd/**\"}}, auth: {{mode: anonymous}}, upstream: odd, \
         steering: {{timeout: 1s, attempts: 1}}}}\n"
    );
    with_rules(stack, edge, &rules, |url| {
        let client = Client::new(url, "acme.localhost");
        eventually(SEEN_MAX, || client.get("/odd/next")?.expect(200).map(drop))?;
        let wrong: Vec<String> = cases
            .iter()
            .enumerate()
            .filter_map(|(number, case)| {
                let outcome = case.run(edge, &client, number);
                outcome.err().map(|error| format!("{}: {error:#}", case.about))
            })
            .collect();
        ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        Ok(())
    })
}

impl Case {
    fn run(&self, edge: &str, client: &Client, number: usize) -> Result<()> {
        let asked = Instant::now();
        let answer = client.get(&format!("/odd/{number}"));
        ensure!(asked.elapsed() < ANSWER_MAX, "it took {:?}: {answer:?}", asked.elapsed());
        let (came, expected) = (Came::of(&answer)?, self.came.of(edge));
        ensure!(expected.contains(&came), "{came:?}, expected {expected:?}: {answer:?}");
        if let Ok(response) = &answer {
            ensure!(!response.text().contains("evil"), "{}", response.text());
            let is_it = |text: &String| came != Came::Whole || response.text() == *text;
            ensure!(self.text.as_ref().is_none_or(is_it), "another text: {}", response.text());
        }
        (0..NEXT).try_for_each(|_| gets_its_own(client))
    }
}

/// The next request gets its own answer. The upstream may be going from the connection that it first goes by, which is no answer.
fn gets_its_own(client: &Client) -> Result<()> {
    let mut others = Vec::new();
    eventually(SEEN_MAX, || {
        let response = client.get("/odd/next")?;
        if response.status < 500 && (response.status != 200 || response.text() != "next") {
            others.push(format!("{} {}", response.status, response.text()));
        }
        response.expect(200).map(drop)
    })?;
    ensure!(others.is_empty(), "the next request got {others:?}");
    Ok(())
}

/// Answers each request of a connection: at `/…/NUMBER` with that case, elsewhere as it should be.
fn answer(mut stream: &TcpStream, cases: &[Case]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let number: Option<usize> = path.rsplit('/').next().and_then(|number| number.parse().ok());
        let Some(case) = number.and_then(|number| cases.get(number)) else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext")?;
            continue;
        };
        stream.write_all(case.send.as_bytes())?;
        // Until the edge hangs up.
        if case.again {
            loop {
                std::thread::sleep(PAUSE);
                stream.write_all(case.send.as_bytes())?;
            }
        }
        if case.ends {
            return Ok(());
        }
    }
}
