//! Rate limits: the generic cell rate algorithm with burst, or a sliding window; counted by the node itself (scope `node`)
//! or spent from leases that an [`Authority`] grants: one in every region (scope `region`) or one for all (scope `global`).
//!
//! All limits of a request are looked at before any is taken from, and all are taken from or none. What a limit counts by
//! is hashed; counters and leases are bounded in number. How much may pass at the most, [`passed_max`] says.

mod authority;
mod bound;
mod counter;
mod fields;
mod gcra;
mod key;
mod lease;
mod window;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use self::authority::Authority;
pub use self::bound::passed_max;
pub use self::counter::burst_max;
use self::counter::{Counters, KeyHash, Rate};
use self::lease::{Held, Question, Shape, Standing};
use crate::bounded::Keyed;
use crate::clock::Until;
use crate::expr::{Inputs, Seen};
use crate::fair::Fair;
use crate::limits::LIMIT_KEYS_MAX;
use crate::policy::jwt::Identity;
use crate::ruleset::{Cost, Fail, LimitAlgorithm, LimitScope, Mode, RateLimit, RegionId, Ruleset};
use crate::secret::Secret;
use crate::step::{Lease, Take};

/// What a node remembers of limits: its own counters and the leases that it holds. Bounded, and each tenant has its share.
#[derive(Debug)]
pub struct LimitMemory {
    counters: Counters,
    leases: Fair<KeyHash, Held>,
}

impl LimitMemory {
    /// An empty memory.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self { counters: Counters::new(LIMIT_KEYS_MAX, keyed), leases: Fair::new(LIMIT_KEYS_MAX, keyed) }
    }
}

/// The limits of one request: made once, polled until it says something other than [`LimitVerdict::NeedTake`].
#[derive(Debug, Default)]
pub struct LimitCheck {
    tenant: Arc<str>,
    items: Vec<Item>,
}

/// What the limits say.
#[derive(Debug)]
pub enum LimitVerdict {
    /// The request may pass and has been counted.
    Passed(LimitReport),
    /// It may not and has not been counted.
    Denied(LimitReport, Denial),
    /// Ask the authority for these, hand the answers to [`LimitCheck::taken`], poll again.
    NeedTake(Vec<Take>),
}

/// How each limit of a request stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitReport {
    /// Those of the plan, then those of the route in its order.
    pub limits: Vec<LimitState>,
}

/// How one limit stands after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// Index into [`Ruleset::limits`].
    pub index: usize,
    /// Name of the limit.
    pub name: Arc<str>,
    /// Units in a window.
    pub quota: u32,
    /// Window.
    pub window_ms: u64,
    /// Units left, as far as this node knows.
    pub remaining: u64,
    /// Until there are more units than that; `None` where all are there, or this node has never heard of them.
    pub more_ms: Option<u64>,
    /// Where it said no: until the request would pass.
    pub wait_ms: u64,
    /// Only counts and reports.
    pub shadow: bool,
    /// Whether it said, or would have said, no.
    pub exceeded: bool,
    /// The authority was away, and this decided.
    pub away: Option<Fail>,
}

/// What a client is told that may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// 429, or 503 where the authority is away and the limit fails closed.
    pub status: u16,
    /// `type` of the problem (draft-ietf-httpapi-ratelimit-headers-11, section 5).
    pub problem_type: &'static str,
    /// `title` of the problem.
    pub title: &'static str,
    /// `violated-policies` of the problem.
    pub violated: Vec<String>,
    /// `Retry-After` in seconds, at least 1.
    pub retry_after_s: u64,
}

/// One limit of a request.
#[derive(Debug)]
struct Item {
    index: usize,
    name: Arc<str>,
    algorithm: LimitAlgorithm,
    shape: Shape,
    cost: u32,
    scope: LimitScope,
    region: RegionId,
    fail: Fail,
    shadow: bool,
    key: KeyHash,
    asked: Asked,
}

/// How far the question to the authority is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    For(Question),
    /// It granted the cost, which is set aside for this request until it lapses.
    Granted(Until),
    Refused,
    Away,
}

/// What one limit says, nothing taken yet.
enum Look {
    Passes,
    Exceeded { wait_ms: u64 },
    Away,
    Ask { amount: u32 },
}

impl LimitCheck {
    /// The limits of the tenant's plan, then `own` of the route, by index, with whom each counts. `nearest` is the region whose
    /// authority counts limits of scope `region`.
    #[must_use]
    pub fn new<'a>(
        ruleset: &'a Ruleset,
        own: &[usize],
        inputs: &Inputs<'_>,
        identity: Option<&Identity>,
        nearest: impl Fn() -> &'a RegionId,
    ) -> Self {
        let tenant = &ruleset.tenant;
        let numbers = tenant.limits.iter().chain(own);
        let limits = numbers.filter_map(|index| Some((*index, ruleset.limits.get(*index)?)));
        let limits = limits.filter(|(_, limit)| limit.mode != Mode::Off);
        let items = limits.map(|(index, limit)| Item {
            index,
            name: limit.rule.name.clone(),
            algorithm: limit.algorithm,
            shape: Shape { quota: limit.quota, window_ms: limit.window_ms, burst: limit.burst },
            cost: cost(limit, inputs),
            scope: limit.scope,
            region: if limit.scope == LimitScope::Region { nearest() } else { &tenant.home_region }.clone(),
            fail: limit.fail,
            shadow: limit.mode == Mode::Log,
            key: key::hash(&tenant.slug, limit, inputs, identity),
            asked: Asked::No,
        });
        Self { items: items.collect(), tenant: tenant.slug.as_str().into() }
    }

    /// The same with those alone whose index this holds for.
    #[must_use]
    pub fn only(mut self, holds: impl Fn(usize) -> bool) -> Self {
        self.items.retain(|item| holds(item.index));
        self
    }

    /// Checks all limits, and takes from all of them or from none. Asks about each limit at most once, but says `NeedTake` anew
    /// where one had units enough and another request has spent them, or they have lapsed, when the answer about another
    /// limit is there: so at most as often as there are limits.
    /// `secret` hides whom a limit counts from the authority.
    pub fn poll(&mut self, memory: &mut LimitMemory, secret: &Secret, now_ms: u64) -> LimitVerdict {
        let looks: Vec<_> = self.items.iter().map(|item| item.look(&self.tenant, memory, now_ms)).collect();
        let denied = self.items.iter().zip(&looks).any(|(item, look)| item.denies(look));
        let takes: Vec<_> = self
            .items
            .iter_mut()
            .zip(&looks)
            .filter(|_| !denied)
            .filter_map(|(item, look)| item.ask(look, &self.tenant, secret, now_ms))
            .collect();
        if !takes.is_empty() {
            return LimitVerdict::NeedTake(takes);
        }
        let report = LimitReport {
            limits: self
                .items
                .iter_mut()
                .zip(&looks)
                .map(|(item, look)| item.settle(&self.tenant, look, denied, memory, now_ms))
                .collect(),
        };
        if denied {
            let denial = self.denial(&looks, &report);
            LimitVerdict::Denied(report, denial)
        } else {
            LimitVerdict::Passed(report)
        }
    }

    /// Takes the answers to [`LimitVerdict::NeedTake`], in the order asked. A missing answer counts as `None`.
    pub fn taken(&mut self, memory: &mut LimitMemory, answers: &[Option<Lease>], now_ms: u64) {
        let mut answers = answers.iter();
        for item in &mut self.items {
            let Asked::For(question) = item.asked else { continue };
            item.asked = match answers.next().copied().flatten() {
                None => Asked::Away,
                Some(lease) => {
                    let held = item.held(&self.tenant, memory, now_ms);
                    let until = held.granted(lease, question, item.cost, now_ms);
                    until.map_or(Asked::Refused, Asked::Granted)
                }
            };
        }
    }

    fn denial(&self, looks: &[Look], report: &LimitReport) -> Denial {
        let denying = || self.items.iter().zip(looks).filter(|(item, look)| item.denies(look));
        let waits_ms = || {
            denying().filter_map(|(item, look)| match look {
                Look::Exceeded { wait_ms } => Some((item, *wait_ms)),
                _ => None,
            })
        };
        // Nobody is sent away for less time than `RateLimit` says (section 6).
        let more_ms = report.told().and_then(|limit| limit.more_ms);
        match waits_ms().map(|(_, wait_ms)| wait_ms).max().map(|wait_ms| wait_ms.max(more_ms.unwrap_or(0))) {
            Some(wait_ms) => Denial {
                status: 429,
                problem_type: fields::QUOTA_EXCEEDED,
                title: "Request cannot be satisfied as the assigned quota has been exceeded",
                violated: waits_ms().map(|(item, _)| item.name.to_string()).collect(),
                retry_after_s: wait_ms.div_ceil(1_000).max(1),
            },
            None => Denial {
                status: 503,
                problem_type: fields::REDUCED_CAPACITY,
                title: "Request cannot be satisfied as the service can't count it at the moment",
                violated: denying().map(|(item, _)| item.name.to_string()).collect(),
                retry_after_s: 1,
            },
        }
    }
}

impl Item {
    fn rate(&self) -> Rate {
        Rate::new(self.algorithm, self.shape.quota, self.shape.window_ms, self.shape.burst)
    }

    fn held<'a>(&self, tenant: &Arc<str>, memory: &'a mut LimitMemory, now_ms: u64) -> &'a mut Held {
        if memory.leases.is_full_for(tenant, &self.key) {
            memory.leases.make_room(Held::worth, |_, _| {});
        }
        let held = memory.leases.get_or_insert_with(tenant, self.key, Held::default);
        held.settle(self.shape, now_ms);
        held
    }

    fn look(&self, tenant: &Arc<str>, memory: &mut LimitMemory, now_ms: u64) -> Look {
        let rate = self.rate();
        if !rate.bears(self.cost) {
            return Look::Exceeded { wait_ms: self.shape.window_ms };
        }
        if self.scope == LimitScope::Node {
            let counter = memory.counters.get(tenant, self.key, rate, now_ms);
            return match counter.wait_ms(self.cost, now_ms) {
                0 => Look::Passes,
                wait_ms => Look::Exceeded { wait_ms },
            };
        }
        match (self.asked, self.held(tenant, memory, now_ms).standing(self.cost, now_ms)) {
            (Asked::Granted(until), _) if until.is_ahead(now_ms) => Look::Passes,
            (_, Standing::Enough) => Look::Passes,
            (_, Standing::Refused { wait_ms }) => Look::Exceeded { wait_ms },
            (Asked::No, Standing::Ask { amount }) => Look::Ask { amount },
            (Asked::Refused, Standing::Ask { .. }) => Look::Exceeded { wait_ms: 1 },
            // A question that was never answered, or so late that what it brought has lapsed, counts as one to an authority
            // that is away.
            (Asked::Away | Asked::For(_) | Asked::Granted(_), Standing::Ask { .. }) => Look::Away,
        }
    }

    fn denies(&self, look: &Look) -> bool {
        !self.shadow
            && match look {
                Look::Exceeded { .. } => true,
                Look::Away => self.fail == Fail::Closed,
                Look::Passes | Look::Ask { .. } => false,
            }
    }

    fn ask(&mut self, look: &Look, tenant: &str, secret: &Secret, now_ms: u64) -> Option<Take> {
        let Look::Ask { amount } = *look else { return None };
        self.asked = Asked::For(Question { amount, asked_ms: now_ms });
        Some(Take {
            tenant: tenant.to_owned(),
            limit: self.name.to_string(),
            key: URL_SAFE_NO_PAD.encode(key::hidden(&self.key, secret)),
            amount,
            cost: self.cost,
            scope: self.scope,
            region: self.region.clone(),
            others: Vec::new(),
            algorithm: self.algorithm,
            quota: self.shape.quota,
            window_ms: self.shape.window_ms,
            burst: self.shape.burst,
        })
    }

    /// Takes from the limit, unless another one said no, and reports.
    fn settle(
        &mut self,
        tenant: &Arc<str>,
        look: &Look,
        denied: bool,
        memory: &mut LimitMemory,
        now_ms: u64,
    ) -> LimitState {
        let takes = !denied && matches!(look, Look::Passes);
        let rate = self.rate();
        let (remaining, more_ms) = match self.scope {
            LimitScope::Node => {
                let counter = memory.counters.get(tenant, self.key, rate, now_ms);
                if takes {
                    counter.spend(self.cost);
                }
                (counter.remaining(), counter.more_ms(now_ms))
            }
            LimitScope::Region | LimitScope::Global => {
                let granted = match std::mem::replace(&mut self.asked, Asked::No) {
                    Asked::Granted(until) if until.is_ahead(now_ms) => Some(until),
                    _ => None,
                };
                let (cost, held) = (self.cost, self.held(tenant, memory, now_ms));
                match (takes, granted) {
                    (true, None) => held.spend(cost),
                    (false, Some(until)) => held.give_back(cost, until),
                    _ => {}
                }
                (held.remaining(), held.more_ms(now_ms))
            }
        };
        LimitState {
            index: self.index,
            name: self.name.clone(),
            quota: self.shape.quota,
            window_ms: self.shape.window_ms,
            remaining: u64::from(remaining),
            more_ms,
            wait_ms: if let Look::Exceeded { wait_ms } = look { *wait_ms } else { 0 },
            shadow: self.shadow,
            exceeded: matches!(look, Look::Exceeded { .. }),
            away: matches!(look, Look::Away).then_some(self.fail),
        }
    }
}

/// Units that a request takes: at least 1, so that nobody passes uncounted.
fn cost(limit: &RateLimit, inputs: &Inputs<'_>) -> u32 {
    match &limit.cost {
        Cost::Units(units) => *units,
        Cost::Expr(expr) => match expr.evaluate(inputs) {
            Ok(Seen::Int(units)) => u32::try_from(units.max(1)).unwrap_or(u32::MAX),
            _ => 1,
        },
    }
}

#[cfg(test)]
mod tests;
