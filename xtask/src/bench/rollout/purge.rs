//! From a row that changed in a region, or a purge, to the first answer of an edge that is not what was stored before.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::asking::{Asking, Change, Question, Reach};
use super::push::{Reached, table, verdict};
use super::{HOST, Rig, TENANT};
use crate::limits::{ROLLOUT_ASK_PAUSE, ROLLOUT_ASKERS, ROLLOUT_POLL, ROLLOUT_SEEN_MAX};
use crate::paths;
use crate::progress::say;
use crate::stack::http::{Answer, Request};
use crate::stack::tokens::Issuer;

const RECORDS: &str = "/v1/collections/orders/records";
/// The tag of lists of orders.
const TAG: &str = "orders";
/// The order that changes.
const NUMBER: &str = "ROLLOUT-1";
/// The collection of the demo, which the tenant has as well.
const COLLECTION: &str = "infra/demo/collections/orders.json";

/// The mark of an answer without the order, whatever it is.
const NO_ORDER: &str = "none fresh";

/// Everything of this part.
#[derive(Clone, Debug, Serialize)]
pub struct Purged {
    by_row: Vec<Reached>,
    by_call: Vec<Reached>,
}

/// The order, and what is needed to read and to change it.
struct Order<'a> {
    rig: &'a Rig,
    edges: BTreeMap<String, String>,
    authorization: String,
    id: String,
}

/// Measures.
///
/// # Errors
/// When a change is refused or not seen, or what is asked for is never stored.
pub fn measure(rig: &Rig, samples: u32) -> Result<Purged> {
    say("Purge → every edge");
    let order = Order::make(rig)?;
    let (mut by_row, mut by_call) = (Vec::new(), Vec::new());
    for region in rig.control.regions() {
        for edge in order.edges.keys() {
            by_row.push(order.by_row(&region, edge, samples)?);
        }
        say(&format!("  {samples} changes of a row at {region} for each edge"));
        by_call.extend(order.by_call(&region, samples)?);
        say(&format!("  {samples} purges at {region}"));
    }
    Ok(Purged { by_row, by_call })
}

impl<'a> Order<'a> {
    /// Makes the order through an edge.
    fn make(rig: &'a Rig) -> Result<Self> {
        let path = paths::root().join(COLLECTION);
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let collection = serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        rig.control.post(super::HOME, &format!("tenants/{TENANT}/collections"), &collection)?;
        let token = Issuer::acme(&rig.keys).token("rollout", "orders:read orders:write");
        let edges = rig.stack.up()?.edges;
        let mut order = Self { rig, edges, authorization: format!("Bearer {token}"), id: String::new() };
        let url = format!("{}{RECORDS}", order.edges.values().next().context("an edge")?);
        let body = json!({"number": NUMBER, "status": "new"});
        let made =
            order.send(Request::post(&url, &body).header("idempotency-key", "rollout"), super::HOME)?;
        let made: Value = serde_json::from_str(&made.body).context("the order is no JSON")?;
        order.id = made["id"].as_str().with_context(|| format!("an order without id: {made}"))?.to_owned();
        order.await_everywhere()?;
        Ok(order)
    }

    /// Waits until each region has the order.
    fn await_everywhere(&self) -> Result<()> {
        let url = format!("{}{RECORDS}/{}", self.edges.values().next().context("an edge")?, self.id);
        let body = json!({"status": "everywhere"});
        for region in self.rig.control.regions() {
            let started = Instant::now();
            while let Err(error) = self.send(Request::patch(&url, &body), &region) {
                self.rig.stop.check()?;
                ensure!(started.elapsed() < ROLLOUT_SEEN_MAX, "the order is not at {region}: {error:#}");
                std::thread::sleep(ROLLOUT_POLL);
            }
        }
        Ok(())
    }

    fn send(&self, request: Request<'_>, near: &str) -> Result<Answer> {
        let url = request.url;
        let request = request.header("host", HOST).header("authorization", &self.authorization);
        let answer = request.header("x-forwarded-for", self.rig.address_near(near)?).send()?;
        ensure!((200..300).contains(&answer.status), "{url} answered {}: {}", answer.status, answer.body);
        Ok(answer)
    }

    /// Some who ask an edge for a list that the order is in, from near the tenant's home.
    fn ask(&self, edge: &str, mark: fn(&Answer) -> String) -> Result<Asking> {
        let url = self.edges.get(edge).with_context(|| format!("no edge {edge}"))?;
        let question = Question {
            url: format!("{url}{RECORDS}?limit=1&number={NUMBER}"),
            headers: vec![
                ("host", HOST.to_owned()),
                ("authorization", self.authorization.clone()),
                ("x-forwarded-for", self.rig.address_near(super::HOME)?),
            ],
            mark,
        };
        Ok(Asking::start(&question, ROLLOUT_ASKERS, ROLLOUT_ASK_PAUSE))
    }

    /// Changes the row in a region, through the other edge: what an unsafe request makes stale at once is not measured.
    fn by_row(&self, region: &str, edge: &str, samples: u32) -> Result<Reached> {
        let other = self.edges.iter().find(|(name, _)| *name != edge).context("another edge")?.1;
        let url = format!("{other}{RECORDS}/{}", self.id);
        let asking = self.ask(edge, status_and_hit)?;
        let mut reach = Vec::new();
        for sample in 0..samples {
            asking.until_all(Instant::now(), is_hit, &self.rig.stop)?;
            self.rig.pause(sample)?;
            let status = format!("{region}-{edge}-{sample}");
            let body = json!({ "status": status });
            let sent = Instant::now();
            self.send(Request::patch(&url, &body), region)?;
            let change = Change { sent, accepted: Instant::now() };
            let is_new = |mark: &str| mark.split(' ').next() == Some(status.as_str());
            let seen = asking.until_all(change.accepted, is_new, &self.rig.stop)?;
            reach.push(Reach::of(&seen, change, is_new));
        }
        Ok(Reached { region: region.to_owned(), edge: edge.to_owned(), reach })
    }

    /// Purges the tag in a region; each edge is asked.
    fn by_call(&self, region: &str, samples: u32) -> Result<Vec<Reached>> {
        let mut asking = Vec::new();
        for edge in self.edges.keys() {
            asking.push((edge, self.ask(edge, status_and_hit)?, Vec::new()));
        }
        let purge = json!({"tenant": TENANT, "tags": [TAG]});
        let is_fresh = |mark: &str| mark.ends_with(" fresh") && mark != NO_ORDER;
        for sample in 0..samples {
            for (_, asking, _) in &asking {
                asking.until_all(Instant::now(), is_hit, &self.rig.stop)?;
            }
            self.rig.pause(sample)?;
            for (_, asking, _) in &asking {
                // What came before the purge says nothing of it.
                asking.take();
            }
            let sent = Instant::now();
            self.rig.control.post(region, "purges", &purge)?;
            let purged = Change { sent, accepted: Instant::now() };
            for (_, asking, reach) in &mut asking {
                let seen = asking.until_some(is_fresh, &self.rig.stop)?;
                // The stored answer comes back with the first fresh one: how long others still had the old one is not told.
                let first = Reach::of(&seen, purged, is_fresh);
                reach.push(Reach { last_ms: first.first_ms, ..first });
            }
        }
        let reached = asking.into_iter().map(|(edge, _, reach)| Reached {
            region: region.to_owned(),
            edge: edge.clone(),
            reach,
        });
        Ok(reached.collect())
    }
}

/// The order's status, and whether the answer was stored.
fn status_and_hit(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let status = body["records"][0]["status"].as_str().unwrap_or("none");
    let hit = answer.header("cache-status").is_some_and(|status| status.contains("hit"));
    format!("{status} {}", if hit { "hit" } else { "fresh" })
}

fn is_hit(mark: &str) -> bool {
    mark.ends_with(" hit")
}

/// As a part of the report.
pub fn report(purged: &Purged) -> String {
    let (by_row, worst_row) = table(&purged.by_row);
    let (by_call, worst_call) = table(&purged.by_call);
    format!(
        "\n## A row changes → every edge\n{ABOUT_ROWS}\n{by_row}{}\n\
         ## Purge by call → every edge\n{ABOUT_CALLS}\n{by_call}{}",
        verdict(worst_row, 1_000.0),
        verdict(worst_call, 1_000.0)
    )
}

const ABOUT_ROWS: &str = "
From the moment when a `PATCH` of a record in a region is sent, to the first answer of an edge with the change, and to its last
one without it. *Since accepted*: to the first one, from the answer to the `PATCH`. What is asked for is a list that the record is in: stored at the edge (nothing is measured before it is served from
there), and read near us-east-1 when it is not. No purge is called, and the `PATCH` goes through the other edge.
";

const ABOUT_CALLS: &str = "
From the moment when a purge is sent to the control API of a region, to the first answer of an edge that was fetched anew.
*Since accepted*: from the answer of that API, which has told the other regions by then. The tag is that of the collection. What others still got meanwhile can't be told apart from what was stored anew:
the last columns repeat the first.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_the_status_and_whether_it_was_stored() {
        let mut headers = ureq::http::HeaderMap::new();
        let answer = |headers: &ureq::http::HeaderMap, body: &str| {
            status_and_hit(&Answer { status: 200, headers: headers.clone(), body: body.to_owned() })
        };
        let body = r#"{"records": [{"status": "eu-west-1-spin-7"}]}"#;
        assert_eq!(answer(&headers, body), "eu-west-1-spin-7 fresh");
        assert_eq!(answer(&headers, "{}"), NO_ORDER);
        headers.insert("cache-status", ureq::http::HeaderValue::from_static("meridian; hit; ttl=3"));
        let mark = answer(&headers, body);
        assert!(is_hit(&mark) && !is_hit("") && !is_hit("eu-west-1-spin-7 fresh"), "{mark}");
    }
}
