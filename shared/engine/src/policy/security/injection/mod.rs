//! Signs of an injection in what a request carries in its path, query, cookies and a few header fields.
//!
//! Each text is looked at decoded once and, where that differs, twice, folded to one spelling (`fold`), in one pass for
//! all rules (`search`). Every rule that hits adds its score, once for each place; the sum decides. Bodies are not looked
//! at. A rule knows a shape, not an intent: begin with `mode: log`, read what hits, exclude what is right.

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

use super::Inputs;
use crate::facts::{Facts, percent_decode};
use crate::limits::{INJECTION_HITS_MAX, INJECTION_NAME_CHARS_MAX};
use crate::ruleset::Mode;

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
    /// Rules, by their ids, that are not applied in a place.
    pub exclude: Vec<(&'static str, Spot<'static>)>,
}

/// Header fields that are always looked at.
pub const HEADERS: [&str; 5] =
    ["referer", "user-agent", "x-forwarded-host", "x-original-url", "x-rewrite-url"];

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
}

impl Spot<'static> {
    /// `path`, `query:NAME`, `header:NAME` or `cookie:NAME`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name) {
            ("path", "") if text == "path" => Some(Self::Path),
            ("query" | "header" | "cookie", "") => None,
            ("query", name) => Some(Self::Query(name.to_owned().into())),
            ("header", name) => Some(Self::Header(name.to_ascii_lowercase().into())),
            ("cookie", name) => Some(Self::Cookie(name.to_owned().into())),
            _ => None,
        }
    }
}

impl fmt::Display for Spot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Path => return f.write_str("path"),
            Self::QueryName => return f.write_str("a name in the query"),
            Self::Query(name) => ("query", name),
            Self::Header(name) => ("header", name),
            Self::Cookie(name) => ("cookie", name),
        };
        write!(f, "{kind}:")?;
        name.chars().take(INJECTION_NAME_CHARS_MAX).try_for_each(|letter| write!(f, "{letter}"))
    }
}

impl Injection {
    /// The score of a request, and by what it was judged: each rule with its class and where it hit.
    pub(super) fn judge(&self, facts: &Facts) -> (u32, Inputs) {
        let (mut score, mut hits) = (0u32, Vec::new());
        self.texts(facts, |spot, text, plus| {
            for rule in search::hits(text, plus, self.paranoia) {
                if !self.exclude.iter().any(|(id, place)| *id == rule.id && *place == spot) {
                    score = score.saturating_add(rule.score);
                    if hits.len() < INJECTION_HITS_MAX {
                        hits.push((rule.id, format!("{} in {spot}", rule.class.as_str())));
                    }
                }
            }
        });
        if score == 0 {
            return (0, hits);
        }
        hits.insert(0, ("score", format!("{score} of {}", self.threshold)));
        (score, hits)
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
