//! The conditions of a document: which there are, when each is asked, and where they stand in the file.

use std::collections::{BTreeMap, BTreeSet};

use meridian_engine::expr::{Expr, Fact, Value};

use super::cel::{self, InvalidCel, Wanted};
use super::invalid::nearest;
use super::located::{At, Node};
use super::stages::{self, Stage};
use crate::document::{
    AuthMode, Body, ChangesSpec, Condition, CostSpec, Document, HeaderText, HtmlRuleSpec, LimitKeySpec, Tree,
};

/// Names that conditions may ask for, and what these ask for in their turn.
#[derive(Default)]
pub(super) struct Known {
    /// Of `Experiment` documents, each with those whose variants its conditions ask for.
    pub experiments: BTreeMap<String, BTreeSet<String>>,
    /// Of `Segment` documents, with their conditions. One that can't be read asks for nothing.
    pub segments: BTreeMap<String, Expr>,
}

impl Known {
    /// What documents that are not checked yet have.
    pub(super) fn of(documents: &[Document]) -> Self {
        let mut known = Self::default();
        for document in documents {
            if let Body::Segment(spec) = &document.body {
                let when = cel::parse(&spec.when.cel, Wanted::Bool).unwrap_or(Expr::Literal(Value::Null));
                known.segments.insert(document.metadata.name.clone(), when);
            }
        }
        for document in documents {
            let Body::Experiment(spec) = &document.body else { continue };
            let conditions = spec.audience.iter().chain(spec.force.iter().map(|force| &force.when));
            let exprs = conditions.filter_map(|it| cel::parse(&it.cel, Wanted::Bool).ok());
            let asked = exprs.flat_map(|expr| stages::variants_of(&expr, &known)).collect();
            known.experiments.insert(document.metadata.name.clone(), asked);
        }
        known
    }
}

/// Checks every condition of a document and gives it its tree. What is wrong comes back by its path.
pub(super) fn check(document: &mut Document, known: &Known) -> Vec<(String, InvalidCel)> {
    let Document { body, metadata, .. } = document;
    let (captures, is_segment) = (captures(body), matches!(body, Body::Segment(_)));
    let experiment = matches!(body, Body::Experiment(_)).then_some(metadata.name.as_str());
    let mut errors = order_of_experiments(body, known);
    for (path, condition, wanted, stage) in conditions(body) {
        let experiment = experiment.filter(|_| stage == Stage::Enrolment);
        let checked = cel::parse(&condition.cel, wanted).and_then(|expr| {
            names(&expr, captures.as_deref(), known, is_segment)?;
            stages::check(&expr, stage, experiment, known)?;
            Ok(expr)
        });
        match checked {
            Ok(expr) => condition.tree = Some(Tree::from(&expr)),
            Err(error) => {
                // Something that holds, so that the rest of the document can be checked as well.
                condition.tree = Some(Tree::from(&Expr::Literal(Value::Bool(true))));
                errors.push((path, error));
            }
        }
    }
    errors
}

/// What a document asks of the token, the first of it, as far as it is asked on the routes that name the document.
pub(super) fn asked_of_token(document: &Document, known: &Known) -> Option<String> {
    let claim = match &document.body {
        Body::RateLimit(spec) => spec.key.iter().find_map(|key| match key {
            LimitKeySpec::Word(word) => word.strip_prefix("claim:"),
            LimitKeySpec::Expr(_) => None,
        }),
        Body::CachePolicy(spec) => spec.key.claims.first().map(String::as_str),
        _ => None,
    };
    if let Some(name) = claim {
        return Some(format!("the claim {name:?}"));
    }
    let mut body = document.body.clone();
    let asked = conditions(&mut body).into_iter().filter(|(path, ..)| !path.starts_with("spec.goals"));
    let mut exprs = asked.filter_map(|(_, condition, ..)| condition.expr().ok());
    exprs.find_map(|expr| stages::check(&expr, Stage::BehindAnonymous, None, known).err()).map(|it| it.found)
}

/// A route gives variants in the order of its list: an experiment that asks for another's variant has to come after it.
fn order_of_experiments(body: &Body, known: &Known) -> Vec<(String, InvalidCel)> {
    let Body::Route(spec) = body else { return Vec::new() };
    let mut errors = Vec::new();
    for (at, name) in spec.experiments.iter().enumerate() {
        let is_before = |other: &str| spec.experiments.iter().take(at).any(|before| before == other);
        let asked = known.experiments.get(name).into_iter().flatten();
        for other in asked.filter(|other| *other != name && known.experiments.contains_key(*other)) {
            if !is_before(other) {
                errors.push((
                    format!("spec.experiments[{at}]"),
                    InvalidCel {
                        offset: 0,
                        found: format!("{name:?}, which asks for the variant of {other:?}"),
                        expected: format!("{other:?} before it"),
                        suggestion: None,
                    },
                ));
            }
        }
    }
    errors
}

/// The place of a character of a condition in its file, as far as it can be told.
pub(super) fn place(content: &str, node: &Node, offset: usize) -> At {
    let (Some(text), at) = (node.text(), node.at) else { return node.at };
    let line = |number: u32| content.lines().nth((number as usize).saturating_sub(1)).unwrap_or_default();
    let start: String = line(at.line).chars().skip((at.column as usize).saturating_sub(1)).collect();
    let moved = |at: At, by: usize| At { line: at.line, column: at.column + u32::try_from(by).unwrap_or(0) };
    if start.starts_with('|') {
        let before: String = text.chars().take(offset).collect();
        let row = u32::try_from(before.matches('\n').count()).unwrap_or(0);
        let indent = line(at.line + 1).chars().take_while(|letter| *letter == ' ').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        return moved(At { line: at.line + 1 + row, column: 1 }, indent + column);
    }
    let quoted = start.starts_with(['"', '\'']);
    let body: String = start.chars().skip(usize::from(quoted)).collect();
    if body.starts_with(text) { moved(at, offset + usize::from(quoted)) } else { at }
}

/// A condition with its path, what it must give, and when it is asked.
type Asked<'a> = (String, &'a mut Condition, Wanted, Stage);

fn conditions(body: &mut Body) -> Vec<Asked<'_>> {
    let truth = |path: &str, condition, stage| (path.to_owned(), condition, Wanted::Bool, stage);
    let mut all = Vec::new();
    match body {
        Body::Route(spec) => {
            let behind = match spec.auth.mode {
                AuthMode::Anonymous => Stage::BehindAnonymous,
                AuthMode::Optional | AuthMode::Required => Stage::Behind,
            };
            all.extend(spec.matcher.when.as_mut().map(|it| truth("spec.match.when", it, Stage::Match)));
            all.extend(spec.auth.when.as_mut().map(|it| truth("spec.auth.when", it, Stage::Auth)));
            let log = spec.log.as_mut().and_then(|log| log.when.as_mut());
            all.extend(log.map(|it| truth("spec.log.when", it, behind)));
        }
        Body::Experiment(spec) => {
            all.extend(spec.audience.as_mut().map(|it| truth("spec.audience", it, Stage::Enrolment)));
            let force = spec.force.as_mut().map(|force| &mut force.when);
            all.extend(force.map(|it| truth("spec.force.when", it, Stage::Enrolment)));
            let goals = spec.goals.iter_mut().enumerate();
            all.extend(
                goals.map(|(at, goal)| {
                    truth(&format!("spec.goals[{at}].when"), &mut goal.when, Stage::Behind)
                }),
            );
        }
        Body::Segment(spec) => all.push(truth("spec.when", &mut spec.when, Stage::Segment)),
        Body::CachePolicy(spec) => {
            let values = spec.key.values.iter_mut().enumerate();
            all.extend(
                values.map(|(at, it)| (format!("spec.key.values[{at}]"), it, Wanted::Text, Stage::Behind)),
            );
            all.extend(spec.bypass.as_mut().map(|it| truth("spec.bypass", it, Stage::Behind)));
        }
        Body::Transform(spec) => {
            let answers = spec.redirect.is_some() || spec.cors.is_some();
            let stage = if answers { Stage::Answer } else { Stage::Behind };
            all.extend(spec.when.as_mut().map(|it| truth("spec.when", it, stage)));
            header_texts(&mut spec.request, "spec.request", &mut all);
            header_texts(&mut spec.response, "spec.response", &mut all);
            for (at, rule) in spec.html.iter_mut().enumerate() {
                page_texts(rule, &format!("spec.html[{at}]"), &mut all);
            }
        }
        Body::RateLimit(spec) => {
            for (at, key) in spec.key.iter_mut().enumerate() {
                if let LimitKeySpec::Expr(condition) = key {
                    all.push((format!("spec.key[{at}].cel"), condition, Wanted::Text, Stage::Limit));
                }
            }
            if let CostSpec::Expr(condition) = &mut spec.cost {
                all.push(("spec.cost.cel".to_owned(), condition, Wanted::Number, Stage::Limit));
            }
        }
        Body::Region(_)
        | Body::Upstream(_)
        | Body::Tenant(_)
        | Body::Domain(_)
        | Body::Issuer(_)
        | Body::Function(_)
        | Body::Security(_) => {}
    }
    all
}

fn header_texts<'a>(spec: &'a mut ChangesSpec, path: &str, all: &mut Vec<Asked<'a>>) {
    for (list, texts) in [("set", &mut spec.set), ("append", &mut spec.append)] {
        for (name, text) in texts {
            if let HeaderText::Expr(condition) = text {
                all.push((format!("{path}.{list}.{name}.cel"), condition, Wanted::Text, Stage::Behind));
            }
        }
    }
}

fn page_texts<'a>(rule: &'a mut HtmlRuleSpec, path: &str, all: &mut Vec<Asked<'a>>) {
    let mut values: Vec<_> =
        rule.set_attribute.iter_mut().map(|it| ("setAttribute.value", &mut it.value)).collect();
    for (names, put) in [
        (["before.text", "before.html"], &mut rule.before),
        (["prepend.text", "prepend.html"], &mut rule.prepend),
        (["append.text", "append.html"], &mut rule.append),
        (["after.text", "after.html"], &mut rule.after),
        (["setInner.text", "setInner.html"], &mut rule.set_inner),
        (["replace.text", "replace.html"], &mut rule.replace),
    ] {
        let Some(put) = put else { continue };
        values.extend(put.text.iter_mut().map(|text| (names[0], text)));
        values.extend(put.html.iter_mut().map(|html| (names[1], html)));
    }
    for (name, value) in values {
        if let HeaderText::Expr(condition) = value {
            all.push((format!("{path}.{name}.cel"), condition, Wanted::Text, Stage::Behind));
        }
    }
}

/// Names of the captures of a route's path.
fn captures(body: &Body) -> Option<Vec<String>> {
    let Body::Route(spec) = body else { return None };
    let name = |part: &str| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).map(str::to_owned);
    Some(spec.matcher.path.split('/').filter_map(name).collect())
}

/// Checks that captures, experiments and segments that a condition names are there.
fn names(expr: &Expr, captures: Option<&[String]>, all: &Known, is_segment: bool) -> Result<(), InvalidCel> {
    let mut wrong = None;
    cel::facts(expr, &mut |fact| {
        let (what, name, known): (_, _, Vec<&String>) = match (fact, captures) {
            (Fact::Capture(name), Some(captures)) => {
                ("a capture of spec.match.path", name, captures.iter().collect())
            }
            (Fact::Variant(name), _) => {
                ("the name of an Experiment document", name, all.experiments.keys().collect())
            }
            (Fact::Segment(name), _) if is_segment => ("no segments in a Segment", name, Vec::new()),
            (Fact::Segment(name), _) => {
                ("the name of a Segment document", name, all.segments.keys().collect())
            }
            _ => return,
        };
        if !known.contains(&name) {
            wrong.get_or_insert_with(|| InvalidCel {
                offset: 0,
                found: format!("{name:?}"),
                expected: what.to_owned(),
                suggestion: nearest(name, known.iter().map(|name| name.as_str())),
            });
        }
    });
    wrong.map_or(Ok(()), Err)
}
