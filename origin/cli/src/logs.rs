//! `meridian logs`: decisions of the edges as they arrive.

use std::io::{self, Write as _};

use clap::Args;
use meridian_engine::ruleset::Target;
use serde_json::Value;

use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::limits::{FOLLOW_FAULTS_MAX, FOLLOW_INTERVAL};
use crate::print::{self, cell};
use crate::profile::Server;
use crate::rules::target;
use crate::top::tenant;

#[derive(Args)]
pub struct Logs {
    /// `tenant:SLUG`; all tenants where it is not given.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    /// Only decisions of this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only decisions with this outcome: forwarded, cached, answered, denied, limited or failed.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Only decisions with this status, `404`, or of this class, `5xx`.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// How many of the newest to begin with.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// Go on with what arrives, until interrupted.
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let client = server.client()?;
        let filter = self.filter();
        let mut page = client.get(&format!("/logs?limit={}{filter}", self.limit))?.body;
        if json && !self.follow {
            print::json(&page);
            return Ok(());
        }
        print::away(&page);
        // A reader that has gone away ends the following.
        while show(&page, json).is_ok() && self.follow {
            std::thread::sleep(FOLLOW_INTERVAL);
            let next = page.get("next").and_then(Value::as_str).unwrap_or_default();
            page = patiently(&client, &format!("/logs?limit=200&after={}{filter}", encode(next)))?;
        }
        Ok(())
    }

    fn filter(&self) -> String {
        let members = [
            ("tenant", &tenant(self.target.clone())),
            ("route", &self.route),
            ("outcome", &self.outcome),
            ("status", &self.status),
        ];
        let given = members.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
        given.fold(String::new(), |filter, (name, value)| format!("{filter}&{name}={}", encode(value)))
    }
}

/// Asks again while the server is away, for a bounded time: whoever follows should not have to begin anew.
fn patiently(client: &Client, path: &str) -> Result<Value, Failure> {
    let mut faults = 0;
    loop {
        match client.get(path) {
            Err(Failure::Server(_)) if faults < FOLLOW_FAULTS_MAX => faults += 1,
            answer => return answer.map(|answer| answer.body),
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

/// Prints each decision in a line, for machines as JSON.
fn show(page: &Value, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for one in page.get("logs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        if json {
            writeln!(out, "{one}")?;
        } else {
            writeln!(out, "{}", line(one))?;
        }
    }
    out.flush()
}

fn line(one: &Value) -> String {
    let event = one.get("event").unwrap_or(&Value::Null);
    let [status, outcome, method, host, path, route, region, asked, answered, elapsed, id] = [
        "status",
        "outcome",
        "method",
        "host",
        "path",
        "route",
        "region",
        "request_bytes",
        "response_bytes",
        "elapsed_ms",
        "id",
    ]
    .map(|member| printable(&cell(event, member)));
    let at = cell(one, "at");
    format!(
        "{at} {status} {outcome} {method} {host}{path} route={route} region={region} bytes={asked}/{answered} \
         {elapsed}ms {id}"
    )
}

/// What clients sent must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_a_line() {
        let one = json!({"at": "2026-01-02T03:04:05.678Z", "region": "us-east-1", "edge": "e", "event": {
            "id": "01A", "status": 403, "outcome": "denied", "method": "GET", "host": "acme.example",
            "path": "/a\u{1b}[2J", "route": "orders", "region": null, "response_bytes": 162,
            "elapsed_ms": 3}});
        assert_eq!(
            line(&one),
            "2026-01-02T03:04:05.678Z 403 denied GET acme.example/a\u{fffd}[2J route=orders region=- bytes=-/162 3ms 01A"
        );
    }
}
