//! What a request is checked for before anybody asks who sent it. The checks of a policy go from cheap to dear, and the
//! first that blocks ends it: sizes, addresses, countries, autonomous systems, signs of a bot, signs of an injection.
//! A check that only logs never keeps a later one from being made. Only injection rules look into a body, where a policy
//! says so: then its beginning has to be at hand.

mod addresses;
mod bots;
mod injection;
mod names;
mod places;
mod sizes;

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::Facts;
use crate::ruleset::{Mode, RuleRef};
use crate::step::Peeked;

pub use addresses::AddressSet;
pub(crate) use bots::program_words;
pub use bots::{Bots, CRAWLERS, Crawler, Unverified};
pub use injection::{Class, HEADERS, Injection, RULES, Rule, Spot};
pub use names::{Name, Names};
pub use places::{Country, Listing};
pub use sizes::Sizes;

/// What a request is checked for.
#[derive(Clone, Debug)]
pub struct Security {
    /// Where it stands.
    pub rule: RuleRef,
    /// What a hit in the lists of addresses does.
    pub mode: Mode,
    /// Addresses that alone may come; empty is all.
    pub allow: AddressSet,
    /// Addresses that may not; wins over `allow`.
    pub deny: AddressSet,
    /// Countries of clients.
    pub countries: Option<Listing<Country>>,
    /// Autonomous systems of clients (RFC 4893).
    pub asns: Option<Listing<u32>>,
    /// How large a request may be.
    pub sizes: Option<Sizes>,
    /// What is thought of bots.
    pub bots: Option<Bots>,
    /// Injection rules.
    pub injection: Option<Injection>,
}

/// What a policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// What it hit, in order; only the last can block.
    pub hits: Vec<Hit>,
    /// What it was judged by where nothing was hit.
    pub inputs: Inputs,
    /// It is of a verified crawler that no limit is for.
    pub is_unlimited: bool,
    /// Nothing is said yet: the beginning of the body has to be at hand first.
    pub needs_body: bool,
}

/// What is at hand of a request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sample {
    /// Nobody asked for it.
    #[default]
    Unread,
    /// It could not be had.
    Missing,
    /// Its beginning.
    Begun(Peeked),
}

/// What is looked at.
struct Asked<'a> {
    facts: &'a Facts,
    sample: &'a Sample,
    names: &'a mut Names,
    now_ms: u64,
}

/// Names and values for an explanation.
type Inputs = Vec<(&'static str, String)>;

/// One check that a request hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Whether it refuses the request.
    pub blocks: bool,
    /// What was hit, in a few words.
    pub what: Cow<'static, str>,
    /// What it was judged by; never a value that came with the request.
    pub inputs: Inputs,
    /// How a refusal is put to the client.
    pub refusal: Refusal,
}

/// How a refusal is put to a client, who is not told what gave it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code.
    pub status: u16,
    /// Last part of the problem's type.
    pub slug: &'static str,
    /// Title of the problem.
    pub title: &'static str,
}

const ADDRESS_REFUSED: Refusal =
    Refusal { status: 403, slug: "address-refused", title: "This address may not come here" };
const PLACE_REFUSED: Refusal =
    Refusal { status: 403, slug: "place-refused", title: "Requests from this place are not taken here" };
const BOT_REFUSED: Refusal =
    Refusal { status: 403, slug: "bot-refused", title: "Automated requests are not taken here" };
const REQUEST_REFUSED: Refusal =
    Refusal { status: 403, slug: "request-refused", title: "This request was refused" };

impl Security {
    /// A policy that checks nothing yet.
    #[must_use]
    pub fn new(rule: RuleRef, mode: Mode) -> Self {
        Self {
            rule,
            mode,
            allow: AddressSet::default(),
            deny: AddressSet::default(),
            countries: None,
            asns: None,
            sizes: None,
            bots: None,
            injection: None,
        }
    }

    /// Whether every one of its checks is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        let sections = [
            self.countries.as_ref().map(|countries| countries.mode),
            self.asns.as_ref().map(|asns| asns.mode),
            self.sizes.as_ref().map(|sizes| sizes.mode),
            self.bots.as_ref().map(|bots| bots.mode),
            self.injection.as_ref().map(|injection| injection.mode),
        ];
        let lists = !self.allow.is_empty() || !self.deny.is_empty();
        (self.mode == Mode::Off || !lists) && sections.iter().flatten().all(|mode| *mode == Mode::Off)
    }

    /// Bytes that its lists of addresses and of autonomous systems take in memory.
    #[must_use]
    pub fn list_bytes(&self) -> usize {
        self.allow.bytes() + self.deny.bytes() + self.asns.as_ref().map_or(0, Listing::bytes)
    }

    /// How many of the first bytes of a body it looks at.
    #[must_use]
    pub fn body_bytes_max(&self) -> Option<u32> {
        self.injection.as_ref().filter(|injection| injection.mode != Mode::Off)?.body_bytes_max
    }

    /// Makes the checks on a request, until one blocks. A crawler's claim is verified by what is known of `names`. Where
    /// the body has to be at hand first, ask again with it: the checks before cost little.
    #[must_use]
    pub fn inspect(&self, facts: &Facts, sample: &Sample, names: &mut Names, now_ms: u64) -> Inspection {
        let mut inspection = Inspection::default();
        let mut asked = Asked { facts, sample, names, now_ms };
        let checks = [Self::sizes, Self::addresses, Self::countries, Self::asns, Self::bots, Self::injection];
        for check in checks {
            check(self, &mut asked, &mut inspection);
            if inspection.hits.last().is_some_and(|hit| hit.blocks) {
                break;
            }
        }
        inspection
    }

    fn sizes(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let facts = asked.facts;
        let Some(sizes) = self.sizes.as_ref().filter(|sizes| sizes.mode != Mode::Off) else { return };
        if let Some((what, inputs, refusal)) = sizes.exceeded(facts) {
            inspection.hit(sizes.mode, what, inputs, refusal);
        }
    }

    fn addresses(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let facts = asked.facts;
        if self.mode == Mode::Off || (self.allow.is_empty() && self.deny.is_empty()) {
            return;
        }
        let inputs = vec![("client", neighbourhood(facts.client))];
        if self.deny.contains(facts.client) {
            inspection.hit(self.mode, "in the deny list", inputs, ADDRESS_REFUSED);
        } else if !self.allow.is_empty() && !self.allow.contains(facts.client) {
            inspection.hit(self.mode, "not in the allow list", inputs, ADDRESS_REFUSED);
        } else {
            inspection.inputs.extend(inputs);
        }
    }

    fn countries(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let facts = asked.facts;
        let country = facts.place.country.as_deref().and_then(Country::known);
        listed(self.countries.as_ref(), country, "country", inspection);
    }

    fn asns(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let facts = asked.facts;
        listed(self.asns.as_ref(), facts.place.asn, "asn", inspection);
    }

    fn bots(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let Some(bots) = self.bots.as_ref().filter(|bots| bots.mode != Mode::Off) else { return };
        let judged = bots.judge(asked);
        inspection.is_unlimited |= judged.is_unlimited;
        if judged.hits.is_empty() {
            inspection.inputs.extend(judged.inputs);
            return;
        }
        for (mode, what) in judged.hits {
            inspection.hit(mode, what, judged.inputs.clone(), BOT_REFUSED);
            if mode == Mode::Block {
                break;
            }
        }
    }

    fn injection(&self, asked: &mut Asked<'_>, inspection: &mut Inspection) {
        let facts = asked.facts;
        let Some(injection) = self.injection.as_ref().filter(|injection| injection.mode != Mode::Off) else {
            return;
        };
        if *asked.sample == Sample::Unread && injection.needs_body(facts) {
            inspection.needs_body = true;
            return;
        }
        let (score, inputs) = injection.judge(facts, asked.sample);
        if score >= injection.threshold {
            inspection.hit(injection.mode, "looks like an injection", inputs, REQUEST_REFUSED);
        } else if injection.fails(facts, asked.sample) {
            inspection.hit(injection.mode, "the body is not at hand", inputs, REQUEST_REFUSED);
        } else {
            inspection.inputs.extend(inputs);
        }
    }
}

fn listed<T: Ord + ToString>(
    listing: Option<&Listing<T>>,
    value: Option<T>,
    name: &'static str,
    inspection: &mut Inspection,
) {
    let Some(listing) = listing.filter(|listing| listing.mode != Mode::Off) else { return };
    let what = listing.hit(value.as_ref());
    let inputs = vec![(name, value.map_or_else(|| "unknown".to_owned(), |value| value.to_string()))];
    match what {
        Some(what) => inspection.hit(listing.mode, format!("{name} {what}"), inputs, PLACE_REFUSED),
        None => inspection.inputs.extend(inputs),
    }
}

impl Inspection {
    fn hit(&mut self, mode: Mode, what: impl Into<Cow<'static, str>>, inputs: Inputs, refusal: Refusal) {
        self.hits.push(Hit { blocks: mode == Mode::Block, what: what.into(), inputs, refusal });
    }
}

/// The network that an address is in: enough to explain a list, too little to name a person.
fn neighbourhood(client: IpAddr) -> String {
    let bits = if client.is_ipv4() { 24 } else { 48 };
    IpNet::new(client, bits).map_or_else(|_| String::new(), |net| net.trunc().to_string())
}

#[cfg(test)]
mod tests;
