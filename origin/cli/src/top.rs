//! `meridian top`: what the edges decided lately, the most frequent kinds first.

use clap::{Args, ValueEnum};
use meridian_engine::ruleset::Target;
use meridian_wire::document::Span;
use serde_json::Value;

use crate::client::encode;
use crate::failure::Failure;
use crate::limits::WINDOW_MS_MAX;
use crate::print::{self, cell};
use crate::profile::Server;
use crate::rules::target;

#[derive(Args)]
pub struct Top {
    /// `tenant:SLUG`; all tenants where it is not given.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    /// How far to look back, 24h at the most; the minute in which that falls counts whole.
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    window: Span,
    /// By what to tell decisions apart; by route for a tenant, by tenant otherwise.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// How many kinds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

/// By what decisions are told apart.
#[derive(Clone, Copy, ValueEnum)]
enum By {
    Tenant,
    Route,
    Status,
    Region,
    Outcome,
    Cache,
}

impl Top {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        if !(1_000..=WINDOW_MS_MAX).contains(&self.window.ms) {
            return Err(Failure::Usage("--window: expected 1s to 24h".to_owned()));
        }
        let mut path = format!("/top?window_s={}&limit={}", self.window.ms / 1000, self.limit);
        if let Some(slug) = tenant(self.target) {
            path.push_str(&format!("&tenant={}", encode(&slug)));
        }
        if let Some(by) = self.by.and_then(|by| by.to_possible_value()) {
            path.push_str(&format!("&by={}", by.get_name()));
        }
        let answer = server.client()?.get(&path)?.body;
        if json {
            print::json(&answer);
        } else {
            print::away(&answer);
            let (head, rows) = table(&answer);
            print::table(&head.each_ref().map(String::as_str), &rows);
        }
        Ok(())
    }
}

/// The tenant of a target; none for the platform, whose decisions are those of all tenants.
pub fn tenant(target: Option<Target>) -> Option<String> {
    match target {
        Some(Target::Tenant(slug)) => Some(slug),
        Some(Target::Platform) | None => None,
    }
}

fn table(answer: &Value) -> ([String; 10], Vec<Vec<String>>) {
    let columns = [
        "key",
        "requests",
        "per_second",
        "failed",
        "mean_ms",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "request_bytes",
        "response_bytes",
    ];
    let by = cell(answer, "by").to_uppercase();
    let head = columns.map(|column| match column {
        "key" => by.clone(),
        "per_second" => "PER SECOND".to_owned(),
        other => other.to_uppercase().replace('_', " "),
    });
    let top = answer.get("top").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |one: &Value, column: &str| match cell(one, column) {
        none if none.is_empty() => "-".to_owned(),
        text => text,
    };
    // Where a length was not known, there were more bytes.
    let more = |one: &Value| match one.get("unmeasured").and_then(Value::as_i64) {
        Some(1..) => "+",
        _ => "",
    };
    // What was not counted one by one says so.
    let estimated = |one: &Value| one.get("estimated").and_then(Value::as_bool).unwrap_or(false);
    let shown = |one: &Value, column: &str| match column {
        "request_bytes" | "response_bytes" if estimated(one) => {
            format!("~{}{}", text(one, column), more(one))
        }
        "request_bytes" | "response_bytes" => format!("{}{}", text(one, column), more(one)),
        "requests" | "failed" if estimated(one) => format!("~{}", text(one, column)),
        _ => text(one, column),
    };
    (head, top.iter().map(|one| columns.iter().map(|column| shown(one, column)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_shown_under_what_they_are_told_apart_by() {
        let answer = json!({"by": "region", "window_s": 310, "away": [], "top": [
            {"key": "us-east-1", "requests": 12, "per_second": 0.4, "failed": 1, "mean_ms": 3.5, "p50_ms": 2, "p99_ms": 10,
                "max_ms": 9, "request_bytes": 5, "response_bytes": 1234, "unmeasured": 1},
            {"key": "", "requests": 40, "estimated": true, "per_second": 0.0, "failed": 0, "mean_ms": 1.0, "p50_ms": 1, "p99_ms": 1, "max_ms": 1,
                "request_bytes": 0, "response_bytes": 80, "unmeasured": 0}]});
        let (head, rows) = table(&answer);
        assert_eq!(
            head.join("|"),
            "REGION|REQUESTS|PER SECOND|FAILED|MEAN MS|P50 MS|P99 MS|MAX MS|REQUEST BYTES|RESPONSE BYTES"
        );
        assert_eq!(rows[0].join("|"), "us-east-1|12|0.4|1|3.5|2|10|9|5+|1234+", "more than so many");
        assert_eq!(rows[1][9], "~80");
        assert_eq!(rows[1][0], "-", "the edge itself answered");
        assert_eq!(rows[1][1], "~40", "an estimate says so");
    }
}
