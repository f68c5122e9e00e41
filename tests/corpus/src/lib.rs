//! Runs one case of the decision corpus through the engine.
//!
//! A case is a small world (rules, what each origin answers, key sets, news) and requests in order; the outcome is what
//! the engine asked, replied and explained, as JSON. The same code runs natively, in the Cloudflare worker and in the
//! Spin component (both built with their feature `corpus`), and the three outcomes have to be equal byte for byte.
//! Signatures are checked by the host's own cryptography; everything else that an exchange asks for is answered by the
//! case's world.
//!
//! What breaks an edge on purpose stands here too ([`fault`]): no edge that is shipped has either.

pub mod case;
pub mod fault;
pub mod outcome;
mod world;

use meridian_engine::exchange::Exchange;
use meridian_engine::node::{Fetched, Node};
use meridian_engine::ruleset::PageChanges;
use meridian_engine::secret::Secrets;
use meridian_engine::step::{After, Answer, Step, Verify};

use case::Input;
use outcome::{Outcome, Replied};
use world::World;

/// Steps that one request may take here: the engine's own limit must be reached first.
const STEPS_MAX: u32 = 2 * meridian_engine::limits::STEPS_MAX;
/// Bytes of one case, bundles included.
pub const CASE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Runs a case given as JSON and returns its outcome as JSON. What is wrong with the input is an error in the outcome.
/// `verify` checks one signature at a time in milliseconds since the Unix epoch, and `rewrite` changes the HTML of a page,
/// as the host does both for real requests; there is no page where its parser gives up.
pub async fn run(
    input: &[u8],
    verify: impl AsyncFn(&Verify, u64) -> bool,
    rewrite: impl AsyncFn(PageChanges, Vec<u8>) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let outcome = match parse(input) {
        Ok(input) => drive(input, verify, rewrite).await,
        Err(error) => Outcome { error: Some(error), requests: Vec::new() },
    };
    let mut bytes = serde_json::to_vec_pretty(&outcome).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn parse(input: &[u8]) -> Result<Input, String> {
    if input.len() > CASE_BYTES_MAX {
        return Err(format!("a case of {} bytes, at most {CASE_BYTES_MAX} are taken", input.len()));
    }
    serde_json::from_slice(input).map_err(|error| format!("not a case: {error}"))
}

async fn drive(
    input: Input,
    verify: impl AsyncFn(&Verify, u64) -> bool,
    rewrite: impl AsyncFn(PageChanges, Vec<u8>) -> Option<Vec<u8>>,
) -> Outcome {
    let mut node = Node::new("corpus", Secrets::new(&[7; 32], &[7; 32]).with_older([[6; 32]]));
    if let Some(status) = input.case.unknown_host_status {
        node = node.with_unknown_host_status(status);
    }
    let mut world = World::new(&input);
    let mut requests = Vec::new();
    for (index, request) in input.case.requests.iter().enumerate() {
        world.turn_to(request);
        let facts = match case::facts(request, index) {
            Ok(facts) => facts,
            Err(error) => return Outcome { error: Some(format!("request {index}: {error}")), requests },
        };
        let now_ms = facts.now_ms;
        let (exchange, step) = Exchange::begin(&mut node, facts);
        let mut replied = exchange_to_its_end(&mut node, &mut world, exchange, step, now_ms, &verify).await;
        if !replied.html.is_empty() {
            let page =
                rewrite(std::mem::take(&mut replied.html), std::mem::take(&mut replied.body).into_bytes())
                    .await;
            replied.body = page.map_or_else(
                || "(the page broke off)".to_owned(),
                |page| String::from_utf8_lossy(&page).into_owned(),
            );
        }
        for (exchange, step) in std::mem::take(&mut replied.background) {
            let later = exchange_to_its_end(&mut node, &mut world, exchange, step, now_ms, &verify).await;
            replied.steps.extend(later.steps.into_iter().map(|line| format!("afterwards: {line}")));
        }
        requests.push(replied);
    }
    Outcome { error: None, requests }
}

async fn exchange_to_its_end(
    node: &mut Node,
    world: &mut World,
    mut exchange: Exchange,
    mut step: Step,
    mut now_ms: u64,
    verify: &impl AsyncFn(&Verify, u64) -> bool,
) -> Replied {
    let mut steps = Vec::new();
    for _ in 0..STEPS_MAX {
        steps.push(outcome::describe(&step));
        let answer = match step {
            Step::Reply(reply) => {
                let of = reply.decision.id.clone();
                let (reply, after) = outcome::replied(*reply, steps, world);
                return settle(node, world, &of, reply, after, now_ms);
            }
            Step::Verify(asked) => Answer::Verified(verify(&asked, now_ms).await),
            Step::Pause { ms } => {
                now_ms = now_ms.saturating_add(ms.into());
                Answer::Paused
            }
            other => {
                let (answer, elapsed_ms) = world.answer(other, now_ms);
                now_ms = now_ms.saturating_add(elapsed_ms);
                answer
            }
        };
        step = exchange.resume(node, answer, now_ms);
    }
    Replied::endless(steps)
}

fn settle(
    node: &mut Node,
    world: &mut World,
    of: &str,
    mut reply: Replied,
    after: Vec<After>,
    now_ms: u64,
) -> Replied {
    for item in after {
        match item {
            After::Store { key, entry, refresh, .. } => {
                node.fetched(&key, of, Fetched::Stored, now_ms);
                world.store(key, entry, refresh);
            }
            After::Forget(keys) => world.forget(&keys),
            After::Run(exchange, step) => reply.background.push((*exchange, *step)),
            After::Sync(ask) => node.synced(world.news(&ask, now_ms), now_ms),
            After::FetchKeys(asked) => {
                let answer = world.keys(&asked.url);
                node.keys_fetched(&asked, answer, now_ms);
            }
            After::Log => {}
        }
    }
    reply
}
