//! The conditions of a document: which there are, and where they stand in the file.

use meridian_engine::expr::{Expr, Fact, Value};

use super::cel::{self, InvalidCel, Wanted};
use super::invalid::nearest;
use super::located::{At, Node};
use crate::document::{Body, ChangesSpec, Condition, CostSpec, HeaderText, HtmlRuleSpec, LimitKeySpec, Tree};

/// Names that conditions may ask for.
pub(super) struct Known {
    /// Of `Experiment` documents.
    pub experiments: Vec<String>,
    /// Of `Segment` documents.
    pub segments: Vec<String>,
}

/// Checks every condition of a document and gives it its tree. What is wrong comes back by its path.
pub(super) fn check(body: &mut Body, known: &Known) -> Vec<(String, InvalidCel)> {
    let (captures, is_segment) = (captures(body), matches!(body, Body::Segment(_)));
    let mut errors = Vec::new();
    for (path, condition, wanted) in conditions(body) {
        let checked = cel::parse(&condition.cel, wanted)
            .and_then(|expr| names(&expr, captures.as_deref(), known, is_segment).map(|()| expr));
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

fn conditions(body: &mut Body) -> Vec<(String, &mut Condition, Wanted)> {
    let mut all = Vec::new();
    match body {
        Body::Route(spec) => {
            all.extend(spec.matcher.when.as_mut().map(|it| ("spec.match.when".to_owned(), it, Wanted::Bool)));
            all.extend(spec.auth.when.as_mut().map(|it| ("spec.auth.when".to_owned(), it, Wanted::Bool)));
            let log = spec.log.as_mut().and_then(|log| log.when.as_mut());
            all.extend(log.map(|it| ("spec.log.when".to_owned(), it, Wanted::Bool)));
        }
        Body::Experiment(spec) => {
            all.extend(spec.audience.as_mut().map(|it| ("spec.audience".to_owned(), it, Wanted::Bool)));
            let force = spec.force.as_mut().map(|force| &mut force.when);
            all.extend(force.map(|it| ("spec.force.when".to_owned(), it, Wanted::Bool)));
            let goals = spec.goals.iter_mut().enumerate();
            all.extend(
                goals.map(|(at, goal)| (format!("spec.goals[{at}].when"), &mut goal.when, Wanted::Bool)),
            );
        }
        Body::Segment(spec) => all.push(("spec.when".to_owned(), &mut spec.when, Wanted::Bool)),
        Body::CachePolicy(spec) => {
            let values = spec.key.values.iter_mut().enumerate();
            all.extend(values.map(|(at, value)| (format!("spec.key.values[{at}]"), value, Wanted::Text)));
            all.extend(spec.bypass.as_mut().map(|it| ("spec.bypass".to_owned(), it, Wanted::Bool)));
        }
        Body::Transform(spec) => {
            all.extend(spec.when.as_mut().map(|it| ("spec.when".to_owned(), it, Wanted::Bool)));
            header_texts(&mut spec.request, "spec.request", &mut all);
            header_texts(&mut spec.response, "spec.response", &mut all);
            for (at, rule) in spec.html.iter_mut().enumerate() {
                page_texts(rule, &format!("spec.html[{at}]"), &mut all);
            }
        }
        Body::RateLimit(spec) => {
            for (at, key) in spec.key.iter_mut().enumerate() {
                if let LimitKeySpec::Expr(condition) = key {
                    all.push((format!("spec.key[{at}].cel"), condition, Wanted::Text));
                }
            }
            if let CostSpec::Expr(condition) = &mut spec.cost {
                all.push(("spec.cost.cel".to_owned(), condition, Wanted::Number));
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

fn header_texts<'a>(
    spec: &'a mut ChangesSpec,
    path: &str,
    all: &mut Vec<(String, &'a mut Condition, Wanted)>,
) {
    for (list, texts) in [("set", &mut spec.set), ("append", &mut spec.append)] {
        for (name, text) in texts {
            if let HeaderText::Expr(condition) = text {
                all.push((format!("{path}.{list}.{name}.cel"), condition, Wanted::Text));
            }
        }
    }
}

fn page_texts<'a>(
    rule: &'a mut HtmlRuleSpec,
    path: &str,
    all: &mut Vec<(String, &'a mut Condition, Wanted)>,
) {
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
            all.push((format!("{path}.{name}.cel"), condition, Wanted::Text));
        }
    }
}

/// Names of the captures of a route's path.
fn captures(body: &Body) -> Option<Vec<String>> {
    let Body::Route(spec) = body else { return None };
    let name = |part: &str| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).map(str::to_owned);
    Some(spec.matcher.path.split('/').filter_map(name).collect())
}

/// Checks that captures and experiments that a condition names are there.
fn names(expr: &Expr, captures: Option<&[String]>, all: &Known, is_segment: bool) -> Result<(), InvalidCel> {
    let mut wrong = None;
    cel::facts(expr, &mut |fact| {
        let (what, name, known) = match (fact, captures) {
            (Fact::Capture(name), Some(captures)) => ("a capture of spec.match.path", name, captures),
            (Fact::Variant(name), _) => {
                ("the name of an Experiment document", name, all.experiments.as_slice())
            }
            (Fact::Segment(name), _) if is_segment => ("no segments in a Segment", name, &[][..]),
            (Fact::Segment(name), _) => ("the name of a Segment document", name, all.segments.as_slice()),
            _ => return,
        };
        if !known.contains(name) {
            wrong.get_or_insert_with(|| InvalidCel {
                offset: 0,
                found: format!("{name:?}"),
                expected: what.to_owned(),
                suggestion: nearest(name, known.iter().map(String::as_str)),
            });
        }
    });
    wrong.map_or(Ok(()), Err)
}
