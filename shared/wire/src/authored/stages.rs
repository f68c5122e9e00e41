//! What is known when a condition is asked. The pipeline finds the route before it checks the token, and gives variants
//! after it has counted the limits; a condition on what comes later would never hold, or always. It is an error.

use meridian_engine::expr::{Expr, Fact};

use super::cel::{InvalidCel, facts};
use super::conditions::Known;
use crate::document::FactTree;

/// When a condition is asked, in the order of the pipeline (`exchange` of the engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The route is looked for: `exchange/decide`, `find_route`.
    Match,
    /// Preflights are answered, and redirects: `exchange/answer`, before `authenticate`.
    Answer,
    /// The token was verified: `exchange/decide`, `judged`.
    Auth,
    /// Limits are counted: `exchange/decide`, `check_limits`.
    Limit,
    /// Variants are given, one experiment after the other: `exchange/experiment`, `enroll`.
    Enrolment,
    /// Variants are given: goals, cache, transforms of requests and replies, the log.
    Behind,
    /// The same, on a route that does not look at tokens.
    BehindAnonymous,
    /// A segment's own condition: it is asked wherever somebody asks for the segment, and judged there.
    Segment,
}

/// Facts that come to be known together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Of the verified token.
    Token,
    /// Of the experiments.
    Variants,
}

/// What is not known yet at which stage, and what is expected instead. All else always is.
const UNKNOWN: [(Stage, Group, &str); 7] = [
    (Stage::Match, Group::Token, "a fact that is known when the route is found: tokens are checked later"),
    (Stage::Match, Group::Variants, "a fact that is known when the route is found: variants are given later"),
    (
        Stage::Answer,
        Group::Token,
        "a fact that is known when preflights and redirects are answered: tokens are checked later",
    ),
    (
        Stage::Answer,
        Group::Variants,
        "a fact that is known when preflights and redirects are answered: variants are given later",
    ),
    (
        Stage::Auth,
        Group::Variants,
        "a fact that is known when the token is checked: variants are given later",
    ),
    (Stage::Limit, Group::Variants, "a fact that is known when limits are counted: variants are given later"),
    (
        Stage::BehindAnonymous,
        Group::Token,
        "a fact that is known with auth.mode: anonymous: no token is looked at",
    ),
];

/// Checks that a condition asks for nothing that is not known yet, through segments too. `experiment` is the name of the
/// experiment whose condition it is.
pub(super) fn check(
    expr: &Expr,
    stage: Stage,
    experiment: Option<&str>,
    known: &Known,
) -> Result<(), InvalidCel> {
    let mut wrong = None;
    each_fact(expr, known, &mut |fact, segment| {
        let own = matches!(fact, Fact::Variant(name) if Some(name.as_str()) == experiment);
        let expected = match missing(fact, stage) {
            Some(expected) => expected,
            None if own => "another experiment's variant: its own is given later",
            None => return,
        };
        wrong.get_or_insert_with(|| {
            let asked = FactTree::from(fact).text();
            let found = match segment {
                Some(name) => format!("segments[{name:?}], which asks for {asked}"),
                None => asked,
            };
            InvalidCel { offset: 0, found, expected: expected.to_owned(), suggestion: None }
        });
    });
    wrong.map_or(Ok(()), Err)
}

/// Names of the experiments whose variants a condition asks for, through segments too.
pub(super) fn variants_of(expr: &Expr, known: &Known) -> Vec<String> {
    let mut names = Vec::new();
    each_fact(expr, known, &mut |fact, _| {
        if let Fact::Variant(name) = fact {
            names.push(name.clone());
        }
    });
    names
}

/// What is expected in the place of a fact that is not known yet.
fn missing(fact: &Fact, stage: Stage) -> Option<&'static str> {
    let group = match fact {
        Fact::Subject | Fact::Scopes | Fact::Claim(_) => Group::Token,
        Fact::Variant(_) => Group::Variants,
        Fact::Method
        | Fact::Scheme
        | Fact::Host
        | Fact::Path
        | Fact::QueryText
        | Fact::Param(_)
        | Fact::Header(_)
        | Fact::Cookie(_)
        | Fact::Capture(_)
        | Fact::Client
        | Fact::Device
        | Fact::Language
        | Fact::Country
        | Fact::Continent
        | Fact::Subdivision
        | Fact::City
        | Fact::Timezone
        | Fact::Asn
        | Fact::Segment(_)
        | Fact::Tenant
        | Fact::Parent
        | Fact::Now => return None,
    };
    let row = UNKNOWN.iter().find(|(at, missing, _)| (*at, *missing) == (stage, group));
    row.map(|(_, _, expected)| *expected)
}

/// Calls `see` with every fact of a condition, and with those of the segments that it asks for, with their names.
fn each_fact<'a>(expr: &'a Expr, known: &'a Known, see: &mut impl FnMut(&'a Fact, Option<&'a str>)) {
    facts(expr, &mut |fact| {
        see(fact, None);
        if let Fact::Segment(name) = fact
            && let Some(when) = known.segments.get(name)
        {
            facts(when, &mut |fact| see(fact, Some(name.as_str())));
        }
    });
}
