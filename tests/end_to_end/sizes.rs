//! Requests at a limit and one beyond it: the cases of `sizes.yaml`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};
use serde::Deserialize;

use crate::EdgeTest;
use crate::recorder::Recorder;
use crate::surface::ByEdge;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("takes_what_is_allowed_and_no_more", takes_what_is_allowed_and_no_more)];

/// A large body is passed within this time, on a machine that is busy as well.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Bytes that are sent at once.
const PART_BYTES: usize = 256 * 1024;

/// One case of `sizes.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default = "seen")]
    path: String,
    #[serde(default)]
    fields: usize,
    #[serde(default)]
    field_bytes: usize,
    #[serde(default)]
    head_bytes: usize,
    #[serde(default)]
    target_bytes: usize,
    #[serde(default)]
    body_bytes: usize,
    #[serde(default)]
    chunked: bool,
    #[serde(default)]
    told: bool,
    status: ByEdge<Vec<u16>>,
}

fn seen() -> String {
    "/seen/a".to_owned()
}

fn takes_what_is_allowed_and_no_more(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("sizes.yaml")).context("in sizes.yaml")?;
    let recorder = Recorder::start()?;
    let rules = format!(
        "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: recorder}}\n\
         spec: {{regions: {{us-east-1: \"{}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Security\nmetadata: {{name: small}}\n\
         spec: {{limits: {{pathBytes: 100, headers: 20, headerBytes: 2000, bodyBytes: 1000}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: small}}\n\
         spec: {{match: {{path: \"/small/**\"}}, auth: {{mode: anonymous}}, security: [small], upstream: recorder}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: seen}}\n\
         spec: {{match: {{path: \"/seen/**\"}}, auth: {{mode: anonymous}}, upstream: recorder}}\n",
        recorder.url
    );
    with_rules(stack, edge, &rules, |url| {
        eventually(SEEN_MAX, || {
            Client::new(url, "acme.localhost").get("/seen/ready")?.expect(200).map(drop)
        })?;
        let mut wrong = Vec::new();
        for case in &cases {
            let allowed = case.status.of(edge);
            if allowed.is_empty() {
                continue;
            }
            recorder.take();
            match case.status(url) {
                Ok(status) if !allowed.contains(&status) => {
                    wrong.push(format!("{}: {status}, expected {allowed:?}", case.about));
                }
                // What is refused is not forwarded whole.
                Ok(status) if recorder.take().is_empty() == (status == 200) => {
                    wrong.push(format!("{}: {status}, and the upstream saw something else", case.about));
                }
                Ok(_) => {}
                Err(error) => wrong.push(format!("{}: {error:#}", case.about)),
            }
        }
        ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        Ok(())
    })
}

impl Case {
    /// Sends the request; the status of what comes.
    fn status(&self, url: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        // An edge may have answered and gone before all is sent.
        let _sent = self.send(&mut stream);
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut part)?;
            ensure!(read > 0, "only {:?} came", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
        let text = String::from_utf8_lossy(&answer);
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(self.head().as_bytes())?;
        let mut left = if self.told { 0 } else { self.body_bytes };
        while left > 0 {
            let part = vec![b'.'; left.min(PART_BYTES)];
            if self.chunked {
                stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
            }
            stream.write_all(&part)?;
            if self.chunked {
                stream.write_all(b"\r\n")?;
            }
            left -= part.len();
        }
        if self.chunked { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    fn head(&self) -> String {
        let method = if self.body_bytes > 0 { "PUT" } else { "GET" };
        let target =
            format!("{}{}", self.path, "a".repeat(self.target_bytes.saturating_sub(self.path.len())));
        let mut fields = vec![
            ("Host".to_owned(), "acme.localhost".to_owned()),
            ("Connection".to_owned(), "close".to_owned()),
        ];
        match (self.body_bytes, self.chunked) {
            (0, _) => {}
            (_, true) => fields.push(("Transfer-Encoding".to_owned(), "chunked".to_owned())),
            (bytes, false) => fields.push(("Content-Length".to_owned(), bytes.to_string())),
        }
        for number in fields.len()..self.fields {
            fields.push((format!("X-{number}"), "a".to_owned()));
        }
        let line = format!("{method} {target} HTTP/1.1\r\n");
        let field_bytes = |fields: &[(String, String)]| -> usize {
            fields.iter().map(|(name, value)| name.len() + value.len()).sum()
        };
        // `X-Fill: `, its end of line, and that of the head.
        let head_bytes = line.len() + field_bytes(&fields) + 4 * fields.len() + 2;
        let missing = if self.head_bytes > 0 {
            self.head_bytes.saturating_sub(head_bytes + 4)
        } else {
            self.field_bytes.saturating_sub(field_bytes(&fields))
        };
        if let Some(value_bytes) = missing.checked_sub("X-Fill".len()) {
            fields.push(("X-Fill".to_owned(), "a".repeat(value_bytes)));
        }
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{line}{fields}\r\n")
    }
}
