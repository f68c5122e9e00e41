//! What came of a case, in a shape that a person can read and two hosts can be compared by.

use meridian_engine::decision::{Conversion, Exposure, Participation};
use meridian_engine::exchange::Exchange;
use meridian_engine::ruleset::{Coding, PageChanges};
use meridian_engine::step::{After, Forward, LoadKey, Reply, ReplyBody, Step, SyncAsk};
use serde::Serialize;

use crate::world::World;

/// What came of a case.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Why the case could not be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came of each request, in order.
    pub requests: Vec<Replied>,
}

/// What came of one request.
#[derive(Debug, Default, Serialize)]
pub struct Replied {
    /// What the engine asked, in order, a line each.
    pub steps: Vec<String>,
    /// Status.
    pub status: u16,
    /// Header fields, in order, a line each.
    pub headers: Vec<String>,
    /// Body, its HTML changed, in no content coding.
    pub body: String,
    /// Content coding that the host is to apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding: Option<&'static str>,
    /// `forwarded`, `cached`, `denied`, `limited` or `failed`.
    pub outcome: &'static str,
    /// Tenant, route, region, subject and variants of the decision.
    pub tenant: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// Region that answered.
    pub region: Option<String>,
    /// Verified subject.
    pub subject: Option<String>,
    /// Variant by experiment.
    pub variants: Vec<(String, String)>,
    /// What experiments are to count, a line each.
    pub counted: Vec<String>,
    /// Why, stage by stage.
    pub explanation: Vec<String>,
    /// What is to be done after the reply, a line each.
    pub after: Vec<String>,
    /// Changes that the host is to make to the body's HTML.
    #[serde(skip)]
    pub html: PageChanges,
    /// Exchanges that go on after the reply.
    #[serde(skip)]
    pub background: Vec<(Exchange, Step)>,
}

impl Replied {
    /// The engine went on asking beyond every limit.
    pub(crate) fn endless(steps: Vec<String>) -> Self {
        Self { steps, outcome: "endless", ..Self::default() }
    }
}

fn sync(ask: &SyncAsk) -> String {
    ask.addresses.iter().fold("sync".to_owned(), |line, address| format!("{line}, name of {address}"))
}

/// One line about a step.
pub(crate) fn describe(step: &Step) -> String {
    match step {
        Step::Sync(ask) => sync(ask),
        Step::Load(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|key| match key {
                    LoadKey::Host(host) => format!("host {host}"),
                    LoadKey::StoredHost(host) => format!("stored host {host}"),
                    LoadKey::Target(target) => target.to_string(),
                })
                .collect();
            format!("load {}", keys.join(", "))
        }
        Step::FetchKeys(asked) => format!("fetch keys {}", asked.url),
        Step::Verify(asked) => format!("verify {:?}", asked.algorithm),
        Step::Take(takes) => {
            let takes: Vec<String> = takes
                .iter()
                .map(|take| {
                    let regions = [&[take.region.clone()][..], &take.others].concat().join(" or ");
                    format!("{} ×{} of {regions}", take.limit, take.amount)
                })
                .collect();
            format!("take {}", takes.join(", "))
        }
        Step::Await => "await".to_owned(),
        Step::Peek { bytes_max } => format!("peek {bytes_max} bytes"),
        Step::Pause { ms } => format!("pause {ms} ms"),
        Step::LookUp(key) => format!("look up {}", key.0),
        Step::Forward(forward) => {
            let mut line = format!("forward #{} {} {}", forward.attempt, forward.method, forward.url);
            if forward.connect_timeout_ms != forward.timeout_ms || forward.body_timeout_ms.is_some() {
                let Forward { timeout_ms, connect_timeout_ms, .. } = **forward;
                line += &format!(" | within {timeout_ms} ms | connected within {connect_timeout_ms} ms");
            }
            if let Some(pause_ms) = forward.body_timeout_ms {
                line += &format!(" | pauses of at most {pause_ms} ms");
            }
            if let Some(patience_ms) = forward.patience_ms {
                line += &format!(" | patience: {patience_ms} ms");
            }
            if let Some(bytes_max) = forward.response_bytes_max {
                line += &format!(" | at most {bytes_max} bytes");
            }
            if let Some(function) = &forward.function {
                line += &format!(" | through {}", function.field());
            }
            for (name, value) in forward.headers.iter() {
                line += &format!(" | {name}: {value}");
            }
            if let Some(claims) = &forward.sign {
                let subject = claims.identity.as_ref().and_then(|identity| identity.subject.as_deref());
                line += &format!(
                    " | context: subject={:?} variants={:?} attributes={:?} attempt={} consistency={}",
                    subject, claims.variants, claims.attributes, claims.attempt, claims.consistency
                );
            }
            line
        }
        Step::Reply(_) => "reply".to_owned(),
    }
}

pub(crate) fn replied(reply: Reply, steps: Vec<String>, world: &World) -> (Replied, Vec<After>) {
    let decision = &reply.decision;
    let body = match &reply.body {
        ReplyBody::Empty => String::new(),
        ReplyBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ReplyBody::Forwarded => world.forwarded.clone(),
        ReplyBody::Cached => world.found.clone(),
        ReplyBody::CachedPart { first, bytes } => {
            let part = world.found.bytes().skip(*first as usize).take(*bytes as usize).collect();
            String::from_utf8(part).unwrap_or_default()
        }
    };
    let replied = Replied {
        steps,
        status: reply.status,
        headers: reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        body,
        coding: reply.coding.map(Coding::token),
        html: reply.html.clone(),
        outcome: decision.outcome.as_str(),
        tenant: decision.tenant.as_deref().map(str::to_owned),
        route: decision.route.as_deref().map(str::to_owned),
        region: decision.region.as_deref().map(str::to_owned),
        subject: decision.subject.as_deref().map(str::to_owned),
        variants: decision.variants.iter().map(|(of, is)| (of.to_string(), is.to_string())).collect(),
        counted: counted(&decision.participation),
        explanation: explanation(&reply),
        after: reply.after.iter().map(|after| afterwards(after, decision.weight)).collect(),
        background: Vec::new(),
    };
    (replied, reply.after)
}

fn counted(participation: &Participation) -> Vec<String> {
    let exposures = participation.exposures.iter().map(|exposure| {
        let Exposure { experiment, version, unit, variant } = exposure;
        format!("exposure {experiment} {version}: {unit} has {variant}")
    });
    let conversions = participation.conversions.iter().map(|conversion| {
        let Conversion { experiment, version, unit, goal } = conversion;
        format!("conversion {experiment} {version}: {unit} reached {goal}")
    });
    exposures.chain(conversions).collect()
}

fn explanation(reply: &Reply) -> Vec<String> {
    let stages = reply.decision.explanation.stages();
    stages
        .map(|stage| {
            let rule = stage.rule.as_ref().map_or_else(String::new, |rule| {
                format!(" [{} {} {}:{}]", rule.kind, rule.name, rule.file, rule.line)
            });
            let inputs: String = stage.inputs().map(|(name, value)| format!(" {name}={value}")).collect();
            format!("{}{rule}: {}{inputs}", stage.stage, stage.outcome)
        })
        .collect()
}

fn afterwards(after: &After, weight: u32) -> String {
    match after {
        After::Store { key, entry, keep_ms, refresh } => {
            let verb = if *refresh { "refresh" } else { "store" };
            format!("{verb} {} for {keep_ms} ms: {} {}", key.0, entry.status, entry.meta)
        }
        After::Forget(keys) => {
            let keys: Vec<&str> = keys.iter().map(|key| key.0.as_str()).collect();
            format!("forget {}", keys.join(", "))
        }
        After::Run(_, step) => format!("run {}", describe(step)),
        After::Sync(ask) => sync(ask),
        After::FetchKeys(asked) => format!("fetch keys {}", asked.url),
        After::Log if weight == 1 => "log".to_owned(),
        After::Log => format!("log for {weight}"),
    }
}
