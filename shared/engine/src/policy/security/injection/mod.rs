//! Signs of an injection in what a request carries in its path, query, cookies and a few header fields, and in the
//! beginning of its body where that is asked for (`body`).
//!
//! Each text is looked at decoded once and, where that differs, twice, folded (`fold`) as a database, a browser and a shell read
//! it, in one pass of all rules over each spelling (`search`). The rules are a table of our own: the only port of libinjection to
//! Rust that Wasm can hold is at its first release, and others bind C. Every rule that hits adds its score, once for each place;
//! the sum decides. A rule knows a shape, not an intent: begin with `mode: log`, read what hits, exclude what is right.

mod body;
mod command;
mod fold;
mod protocol;
mod rules;
mod search;
mod sql;
mod traversal;
mod xss;

use std::borrow::Cow;
use std::fmt;

use self::body::{End, Kind, Values};
use super::{Inputs, Sample};
use crate::facts::{Facts, percent_decode};
use crate::limits::{INJECTION_HITS_MAX, INJECTION_NAME_CHARS_MAX};
use crate::ruleset::{Fail, Mode};

pub use rules::{Class, RULES, Rule};

/// Injection rules and how they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What a hit does.
    pub mode: Mode,
    /// Rules up to this level, 1 to 4, are applied; a higher one finds more, wrongly too.
    pub paranoia: u8,
    /// Sum of scores from which on it is a hit.
    pub threshold: u32,
    /// Header fields, in lower case, that are looked at beside [`HEADERS`].
    pub headers: Vec<String>,
    /// How many of the first bytes of a body are looked at; `None` is no look at bodies.
    pub body_bytes_max: Option<u32>,
    /// What becomes of a request whose body should be looked at and is not at hand.
    pub fail: Fail,
    /// Rules, by their ids, that are not applied in a place.
    pub exclude: Vec<(&'static str, Spot<'static>)>,
}

/// Header fields that are always looked at.
pub const HEADERS: [&str; 4] = ["referer", "user-agent", "x-original-url", "x-rewrite-url"];

/// A place in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot<'a> {
    /// The path.
    Path,
    /// The name of a query parameter. It is not repeated: what hit is in it.
    QueryName,
    /// The value of the query parameter of this name.
    Query(Cow<'a, str>),
    /// The value of the header field of this name, in lower case.
    Header(Cow<'a, str>),
    /// The value of the cookie of this name.
    Cookie(Cow<'a, str>),
    /// The name of a value in the body. It is not repeated either.
    BodyName,
    /// The value of this name in the body: of a field of a form, or of members of JSON objects with dots between. Without a
    /// name, the body as such.
    Body(Cow<'a, str>),
}

impl Spot<'static> {
    /// `path`, `query:NAME`, `header:NAME`, `cookie:NAME`, `body:NAME` or `body`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name) {
            ("path", "") if text == "path" => Some(Self::Path),
            ("body", "") if text == "body" => Some(Self::Body(Cow::Borrowed(""))),
            ("query" | "header" | "cookie" | "body", "") => None,
            ("query", name) => Some(Self::Query(name.to_owned().into())),
            ("header", name) => Some(Self::Header(name.to_ascii_lowercase().into())),
            ("cookie", name) => Some(Self::Cookie(name.to_owned().into())),
            ("body", name) => Some(Self::Body(name.to_owned().into())),
            _ => None,
        }
    }
}

impl fmt::Display for Spot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Path => return f.write_str("path"),
            Self::QueryName => return f.write_str("a name in the query"),
            Self::BodyName => return f.write_str("a name in the body"),
            Self::Body(name) if name.is_empty() => return f.write_str("body"),
            Self::Body(name) => ("body", name),
            Self::Query(name) => ("query", name),
            Self::Header(name) => ("header", name),
            Self::Cookie(name) => ("cookie", name),
        };
        write!(f, "{kind}:")?;
        name.chars().take(INJECTION_NAME_CHARS_MAX).try_for_each(|letter| write!(f, "{letter}"))
    }
}

/// What hit so far.
struct Tally<'a> {
    injection: &'a Injection,
    score: u32,
    hits: Inputs,
}

impl Tally<'_> {
    fn look(&mut self, spot: &Spot<'_>, text: &str, plus: bool) {
        for rule in search::hits(text, plus, self.injection.paranoia) {
            self.hit(rule, spot);
        }
    }

    fn hit(&mut self, rule: &Rule, spot: &Spot<'_>) {
        if self.injection.exclude.iter().any(|(id, place)| *id == rule.id && place == spot) {
            return;
        }
        self.score = self.score.saturating_add(rule.score);
        if self.hits.len() < INJECTION_HITS_MAX {
            self.hits.push((rule.id, format!("{} in {spot}", rule.class.as_str())));
        }
    }
}

impl Injection {
    /// Whether the body can't be looked at, and no request passes that way.
    pub(super) fn fails(&self, facts: &Facts, sample: &Sample) -> bool {
        self.fail == Fail::Closed && *sample == Sample::Missing && self.needs_body(facts)
    }

    /// Whether the beginning of the request's body has to be at hand.
    pub(super) fn needs_body(&self, facts: &Facts) -> bool {
        self.body_bytes_max.is_some() && Kind::of(facts).is_some_and(|kind| kind.is_read())
    }

    /// The score of a request, and by what it was judged: each rule with its class and where it hit, and what of the body
    /// was not looked at.
    pub(super) fn judge(&self, facts: &Facts, sample: &Sample) -> (u32, Inputs) {
        let mut tally = Tally { injection: self, score: 0, hits: Vec::new() };
        self.texts(facts, |spot, text, plus| tally.look(&spot, text, plus));
        let left_out = self.body(facts, sample, &mut tally);
        let Tally { score, mut hits, .. } = tally;
        if score > 0 {
            hits.insert(0, ("score", format!("{score} of {}", self.threshold)));
        }
        hits.extend(left_out.map(|what| ("body", what.to_owned())));
        (score, hits)
    }

    /// Looks into the body, and says what of it was left out.
    fn body(&self, facts: &Facts, sample: &Sample, tally: &mut Tally<'_>) -> Option<&'static str> {
        let (bytes_max, kind) = self.body_bytes_max.zip(Kind::of(facts))?;
        let (bytes, whole) = match (&kind, sample) {
            (Kind::Unread(why), _) => return Some(why),
            (Kind::Ambiguous, _) => (&[][..], true),
            (_, Sample::Unread | Sample::Missing) => return Some("not at hand"),
            (_, Sample::Begun(peeked)) => {
                let looked_at = peeked.bytes.get(..usize::try_from(bytes_max).unwrap_or(usize::MAX));
                (
                    looked_at.unwrap_or(&peeked.bytes),
                    peeked.whole && looked_at.is_none_or(|first| first.len() == peeked.bytes.len()),
                )
            }
        };
        let mut look = |spot: &Spot<'_>, text: &str, plus: bool| tally.look(spot, text, plus);
        let read = kind.read(bytes, whole, Values::new(&mut look));
        if read == Err(End::Malformed) {
            tally.hit(&protocol::BODY_MALFORMED, &Spot::Body(Cow::Borrowed("")));
        }
        (!whole || read == Err(End::Full)).then_some("cut")
    }

    /// Every text that is looked at, with its place and whether a `+` in it is a space.
    fn texts<'a>(&self, facts: &'a Facts, mut look: impl FnMut(Spot<'a>, &'a str, bool)) {
        look(Spot::Path, &facts.path, false);
        for pair in facts.query.iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            look(Spot::QueryName, name, true);
            look(Spot::Query(percent_decode(name, true)), value, true);
        }
        for (name, value) in facts.headers.iter() {
            if name == "cookie" {
                for pair in value.split(';') {
                    let (name, value) = pair.split_once('=').unwrap_or(("", pair));
                    look(Spot::Cookie(Cow::Borrowed(name.trim())), value, false);
                }
            } else if HEADERS.contains(&name) || self.headers.iter().any(|header| header == name) {
                look(Spot::Header(Cow::Borrowed(name)), value, false);
            }
        }
    }
}
