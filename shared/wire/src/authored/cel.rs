//! CEL: the text of a condition is parsed, type-checked against the facts and turned into the engine's expression.
//!
//! The supported subset: the facts; literals of text, whole and decimal numbers, `true`, `false`, `null` and lists; `!`,
//! `&&`, `||`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `? :`; `has(…)`; `startsWith`, `endsWith`, `contains`, `lowerAscii`, `size`
//! and `inNetwork(address, network)`. `NAME in request.headers` (and any other map of facts) is whether it has an entry of
//! that name. What is outside the subset is an error here, and so never a surprise at the edge.

use cel::common::ast::{CallExpr, Expr as Ast, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;
use ipnet::IpNet;
use meridian_engine::expr::{Comparison, Expr, Fact, Function, Value};
use meridian_engine::limits::EXPR_COST_MAX;

use super::invalid::nearest;
use super::nesting::first_beyond;
use crate::document::{ENTRY_FACTS, PLAIN_FACTS};
use crate::limits::{EXPR_BYTES_MAX, EXPR_DEPTH_MAX, EXPR_NESTING_MAX, EXPR_NODES_MAX};

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Bool,
    Text,
    Number,
}

/// What is wrong with an expression, and at which character of its text, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidCel {
    pub(super) offset: usize,
    pub(super) found: String,
    pub(super) expected: String,
    pub(super) suggestion: Option<String>,
}

/// Parses and checks an expression.
pub(super) fn parse(text: &str, wanted: Wanted) -> Result<Expr, InvalidCel> {
    if text.trim().is_empty() {
        return Err(at(0, "a blank text", "a condition in CEL"));
    }
    if text.len() > EXPR_BYTES_MAX {
        return Err(at(0, format!("{} bytes", text.len()), format!("at most {EXPR_BYTES_MAX} bytes")));
    }
    if let Some(offset) = first_beyond(text, usize::from(EXPR_NESTING_MAX)) {
        let expected = format!("at most {EXPR_NESTING_MAX} levels of brackets (EXPR_NESTING_MAX)");
        return Err(at(offset, "brackets nested more deeply", expected));
    }
    let parser = Parser::new().max_recursion_depth(EXPR_NESTING_MAX);
    let (tree, source) =
        parser.parse_with_source_info(text).map_err(|errors| syntax(text, errors.errors.first()))?;
    let mut checker = Checker { source: &source, nodes: 0 };
    let (expr, kind) = checker.expr(&tree, 0)?;
    let right = match wanted {
        Wanted::Bool => matches!(kind, Kind::Bool | Kind::Any),
        Wanted::Text => matches!(kind, Kind::Text | Kind::Any),
        Wanted::Number => matches!(kind, Kind::Number | Kind::Any),
    };
    if !right {
        let expected = match wanted {
            Wanted::Bool => "true or false",
            Wanted::Text => "a text",
            Wanted::Number => "a number",
        };
        return Err(at(
            0,
            format!("an expression that gives {}", kind.text()),
            format!("one that gives {expected}"),
        ));
    }
    let cost = cost(&expr);
    if cost > EXPR_COST_MAX {
        return Err(at(
            0,
            format!("an expression that may cost {cost}"),
            format!("a cost of at most {EXPR_COST_MAX}"),
        ));
    }
    Ok(expr)
}

/// Names of the facts, as CEL writes them.
pub(super) fn fact_names() -> impl Iterator<Item = &'static str> {
    PLAIN_FACTS.iter().map(|(name, _)| *name).chain(ENTRY_FACTS.iter().map(|(name, _)| *name))
}

/// Calls `see` with every fact of an expression.
pub(super) fn facts<'a>(expr: &'a Expr, see: &mut impl FnMut(&'a Fact)) {
    match expr {
        Expr::Fact(fact) => see(fact),
        Expr::Literal(_) => {}
        Expr::Not(of) => facts(of, see),
        Expr::List(all) | Expr::All(all) | Expr::Any(all) | Expr::Call(_, all) => {
            for expr in all {
                facts(expr, see);
            }
        }
        Expr::Compare(_, left, right) | Expr::In(left, right) => {
            facts(left, see);
            facts(right, see);
        }
        Expr::Choose(condition, yes, no) => {
            facts(condition, see);
            facts(yes, see);
            facts(no, see);
        }
    }
}

/// Type of an expression. A fact may always be absent as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    /// Known only when it is evaluated: a claim.
    Any,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Any => "anything",
        }
    }
}

struct Checker<'a> {
    source: &'a SourceInfo,
    nodes: usize,
}

type Checked = Result<(Expr, Kind), InvalidCel>;

impl Checker<'_> {
    fn error(&self, tree: &IdedExpr, found: impl Into<String>, expected: impl Into<String>) -> InvalidCel {
        let offset = self.source.offset_for(first(tree)).map_or(0, |(start, _)| start as usize);
        at(offset, found, expected)
    }

    fn outside(&self, tree: &IdedExpr, construct: &str) -> InvalidCel {
        self.error(tree, construct, "the supported subset of CEL, which does not have it")
    }

    fn expr(&mut self, tree: &IdedExpr, depth: usize) -> Checked {
        self.nodes += 1;
        if depth >= EXPR_DEPTH_MAX {
            let expected = format!("at most {EXPR_DEPTH_MAX} levels");
            return Err(self.error(tree, "an expression nested more deeply", expected));
        }
        if self.nodes > EXPR_NODES_MAX {
            return Err(self.error(tree, "more terms", format!("at most {EXPR_NODES_MAX} terms")));
        }
        match &tree.expr {
            Ast::Literal(literal) => self.literal(tree, literal),
            Ast::Ident(_) | Ast::Select(_) => self.select(tree),
            Ast::List(list) => {
                let items = list.elements.iter().map(|item| self.expr(item, depth + 1).map(|(expr, _)| expr));
                Ok((Expr::List(items.collect::<Result<_, _>>()?), Kind::List))
            }
            Ast::Call(call) => self.call(tree, call, depth + 1),
            Ast::Comprehension(_) => {
                Err(self.outside(tree, "a macro over a list (all, exists, exists_one, map, filter)"))
            }
            Ast::Map(_) => Err(self.outside(tree, "a map literal")),
            Ast::Struct(_) => Err(self.outside(tree, "a message literal")),
            Ast::Unspecified => Err(self.outside(tree, "an empty expression")),
        }
    }

    fn literal(&self, tree: &IdedExpr, literal: &LiteralValue) -> Checked {
        let (value, kind) = match literal {
            LiteralValue::Null => (Value::Null, Kind::Null),
            LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Int(value) => (Value::Int(*value.inner()), Kind::Number),
            LiteralValue::Double(value) => (Value::Double(*value.inner()), Kind::Number),
            LiteralValue::String(value) => (Value::Text(value.inner().to_owned()), Kind::Text),
            LiteralValue::UInt(_) => return Err(self.outside(tree, "an unsigned number (write 5, not 5u)")),
            LiteralValue::Bytes(_) => return Err(self.outside(tree, "a literal of bytes")),
        };
        Ok((Expr::Literal(value), kind))
    }

    /// A fact by its dotted name, or `has(…)` of one.
    fn select(&self, tree: &IdedExpr) -> Checked {
        if let Ast::Select(SelectExpr { operand, field, test: true }) = &tree.expr {
            let name = dotted(operand).map(|name| format!("{name}.{field}"));
            let (fact, _) = self.fact(tree, name.as_deref())?;
            return Ok((Expr::Call(Function::Has, vec![Expr::Fact(fact)]), Kind::Bool));
        }
        let name = dotted(tree);
        self.fact(tree, name.as_deref()).map(|(fact, kind)| (Expr::Fact(fact), kind))
    }

    fn fact(&self, tree: &IdedExpr, name: Option<&str>) -> Result<(Fact, Kind), InvalidCel> {
        let Some(name) = name else { return Err(self.outside(tree, "a field of something that is no fact")) };
        if let Some((_, fact)) = PLAIN_FACTS.iter().find(|(have, _)| *have == name) {
            return Ok((fact.clone(), kind(fact)));
        }
        if ENTRY_FACTS.iter().any(|(map, _)| *map == name) {
            return Err(self.error(
                tree,
                format!("the map {name} as a whole"),
                format!("one entry of it, {name}[\"…\"]"),
            ));
        }
        if let Some((map, entry)) = name.rsplit_once('.')
            && let Some(found) = entry_of(map, entry)
        {
            return Ok(found);
        }
        let mut error = self.error(tree, format!("the unknown name {name}"), "a fact");
        error.suggestion = nearest(name, fact_names());
        Err(error)
    }

    fn call(&mut self, tree: &IdedExpr, call: &CallExpr, depth: usize) -> Checked {
        let arguments: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (call.func_name.as_str(), arguments.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => {
                let mut terms = Vec::new();
                self.terms(operators::LOGICAL_AND, left, depth, &mut terms)?;
                self.terms(operators::LOGICAL_AND, right, depth, &mut terms)?;
                Ok((Expr::All(terms), Kind::Bool))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                let mut terms = Vec::new();
                self.terms(operators::LOGICAL_OR, left, depth, &mut terms)?;
                self.terms(operators::LOGICAL_OR, right, depth, &mut terms)?;
                Ok((Expr::Any(terms), Kind::Bool))
            }
            (operators::LOGICAL_NOT, [of]) => {
                Ok((Expr::Not(Box::new(self.typed(of, Kind::Bool, depth)?)), Kind::Bool))
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let condition = self.typed(condition, Kind::Bool, depth)?;
                let ((yes, a), (no, b)) = (self.expr(yes, depth)?, self.expr(no, depth)?);
                let kind = if a == b { a } else { Kind::Any };
                Ok((Expr::Choose(Box::new(condition), Box::new(yes), Box::new(no)), kind))
            }
            (operators::INDEX, [map, key]) => self.index(tree, map, key),
            (operators::IN, [item, of]) => self.is_in(item, of, depth),
            (operators::NEGATE, [of]) => match self.expr(of, depth)? {
                (Expr::Literal(Value::Int(value)), _) => {
                    Ok((Expr::Literal(Value::Int(value.saturating_neg())), Kind::Number))
                }
                (Expr::Literal(Value::Double(value)), _) => {
                    Ok((Expr::Literal(Value::Double(-value)), Kind::Number))
                }
                _ => Err(self.outside(tree, "arithmetic")),
            },
            (name, arguments) => match (comparison(name), arguments) {
                (Some(comparison), [left, right]) => self.compare(tree, comparison, left, right, depth),
                _ => self.function(tree, name, arguments, depth),
            },
        }
    }

    /// The terms of `a && b && c`, whichever way they are nested.
    fn terms(
        &mut self,
        operator: &str,
        tree: &IdedExpr,
        depth: usize,
        into: &mut Vec<Expr>,
    ) -> Result<(), InvalidCel> {
        if let Ast::Call(call) = &tree.expr
            && call.func_name == operator
            && let [left, right] = call.args.as_slice()
        {
            self.terms(operator, left, depth, into)?;
            return self.terms(operator, right, depth, into);
        }
        into.push(self.typed(tree, Kind::Bool, depth)?);
        Ok(())
    }

    fn typed(&mut self, tree: &IdedExpr, wanted: Kind, depth: usize) -> Result<Expr, InvalidCel> {
        let (expr, kind) = self.expr(tree, depth)?;
        if kind == wanted || kind == Kind::Any {
            Ok(expr)
        } else {
            Err(self.error(tree, kind.text(), wanted.text()))
        }
    }

    fn compare(
        &mut self,
        tree: &IdedExpr,
        comparison: Comparison,
        left: &IdedExpr,
        right: &IdedExpr,
        depth: usize,
    ) -> Checked {
        let ((left, a), (right, b)) = (self.expr(left, depth)?, self.expr(right, depth)?);
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let ordered = |kind| matches!(kind, Kind::Number | Kind::Text | Kind::Bool | Kind::Any);
        let same =
            a == b || a == Kind::Any || b == Kind::Any || (equality && (a == Kind::Null || b == Kind::Null));
        if !same {
            return Err(self.error(
                tree,
                format!("{} compared with {}", a.text(), b.text()),
                "two values of one type",
            ));
        }
        if !(equality || ordered(a) && ordered(b)) {
            return Err(self.error(tree, format!("{} in an order", a.text()), "numbers or texts"));
        }
        Ok((Expr::Compare(comparison, Box::new(left), Box::new(right)), Kind::Bool))
    }

    fn index(&self, tree: &IdedExpr, map: &IdedExpr, key: &IdedExpr) -> Checked {
        let Some(name) = dotted(map) else {
            return Err(self.outside(tree, "an index into something that is no fact"));
        };
        let Ast::Literal(LiteralValue::String(key_text)) = &key.expr else {
            return Err(self.error(key, "a name that is not written out", format!("{name}[\"…\"]")));
        };
        match entry_of(&name, key_text.inner()) {
            Some((fact, kind)) => Ok((Expr::Fact(fact), kind)),
            None => {
                let mut error = self.error(map, format!("an index into {name}"), "a map of facts");
                error.suggestion = nearest(&name, ENTRY_FACTS.iter().map(|(name, _)| *name));
                Err(error)
            }
        }
    }

    fn is_in(&mut self, item: &IdedExpr, of: &IdedExpr, depth: usize) -> Checked {
        if let (Some(map), Ast::Literal(LiteralValue::String(name))) = (dotted(of), &item.expr)
            && let Some((fact, _)) = entry_of(&map, name.inner())
        {
            return Ok((Expr::Call(Function::Has, vec![Expr::Fact(fact)]), Kind::Bool));
        }
        let (item, _) = self.expr(item, depth)?;
        let list = self.typed(of, Kind::List, depth)?;
        Ok((Expr::In(Box::new(item), Box::new(list)), Kind::Bool))
    }

    fn function(&mut self, tree: &IdedExpr, name: &str, arguments: &[&IdedExpr], depth: usize) -> Checked {
        let (function, wanted, kind) = match name {
            "startsWith" => (Function::StartsWith, 2, Kind::Bool),
            "endsWith" => (Function::EndsWith, 2, Kind::Bool),
            "contains" => (Function::Contains, 2, Kind::Bool),
            "lowerAscii" => (Function::LowerAscii, 1, Kind::Text),
            "size" => (Function::Size, 1, Kind::Number),
            "inNetwork" => (Function::InNetwork, 2, Kind::Bool),
            "_+_" | "_-_" | "_*_" | "_/_" | "_%_" => return Err(self.outside(tree, "arithmetic")),
            "_?._" | "_[?_]" => return Err(self.outside(tree, "an optional value")),
            other => {
                let found = format!("the function {other}");
                let known = ["startsWith", "endsWith", "contains", "lowerAscii", "size", "inNetwork", "has"];
                let expected =
                    format!("the supported subset of CEL, with the functions {}", known.join(", "));
                let mut error = self.error(tree, found, expected);
                error.suggestion = nearest(other, known);
                return Err(error);
            }
        };
        if arguments.len() != wanted {
            let found = format!("{} arguments of {name}", arguments.len());
            return Err(self.error(
                tree,
                found,
                format!("{wanted}, the value that it is called on included"),
            ));
        }
        let mut exprs = Vec::with_capacity(wanted);
        for argument in arguments {
            exprs.push(match function {
                Function::Size => self.sized(argument, depth)?,
                _ => self.typed(argument, Kind::Text, depth)?,
            });
        }
        if let (Function::InNetwork, [_, Expr::Literal(Value::Text(network))], [_, place]) =
            (function, exprs.as_slice(), arguments)
            && network.parse::<IpNet>().is_err()
        {
            return Err(self.error(place, format!("{network:?}"), "a network such as 192.0.2.0/24"));
        }
        Ok((Expr::Call(function, exprs), kind))
    }

    fn sized(&mut self, tree: &IdedExpr, depth: usize) -> Result<Expr, InvalidCel> {
        let (expr, kind) = self.expr(tree, depth)?;
        match kind {
            Kind::Text | Kind::List | Kind::Any => Ok(expr),
            other => Err(self.error(tree, other.text(), "a text or a list")),
        }
    }
}

/// The fact of an entry of a map of facts.
fn entry_of(map: &str, entry: &str) -> Option<(Fact, Kind)> {
    let (_, make) = ENTRY_FACTS.iter().find(|(name, _)| *name == map)?;
    // Header fields are known by their lower-case name.
    let entry = if map == "request.headers" { entry.to_ascii_lowercase() } else { entry.to_owned() };
    let fact = make(entry);
    let kind = kind(&fact);
    Some((fact, kind))
}

fn kind(fact: &Fact) -> Kind {
    match fact {
        Fact::Claim(_) => Kind::Any,
        Fact::Scopes => Kind::List,
        Fact::Segment(_) => Kind::Bool,
        Fact::Asn | Fact::Now => Kind::Number,
        _ => Kind::Text,
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

/// `a.b.c`, where the tree is nothing else.
fn dotted(tree: &IdedExpr) -> Option<String> {
    match &tree.expr {
        Ast::Ident(name) => Some(name.clone()),
        Ast::Select(SelectExpr { operand, field, test: false }) => {
            Some(format!("{}.{field}", dotted(operand)?))
        }
        _ => None,
    }
}

/// The id of the leftmost part, where a reader would look.
fn first(tree: &IdedExpr) -> u64 {
    match &tree.expr {
        Ast::Select(select) if !select.test => first(&select.operand),
        Ast::Call(CallExpr { target: Some(target), .. }) => first(target),
        Ast::Call(CallExpr { func_name, args, .. })
            if func_name.starts_with('_') || func_name.starts_with('@') =>
        {
            args.first().map_or(tree.id, first)
        }
        _ => tree.id,
    }
}

/// The most that an evaluation may cost, without the length of texts, which the evaluation itself counts.
fn cost(expr: &Expr) -> u32 {
    let all = |exprs: &[Expr]| exprs.iter().map(cost).fold(1_u32, u32::saturating_add);
    match expr {
        Expr::Literal(_) => 1,
        Expr::Fact(_) => 1,
        Expr::Not(of) => cost(of).saturating_add(1),
        Expr::List(exprs) | Expr::All(exprs) | Expr::Any(exprs) => all(exprs),
        Expr::Compare(_, left, right) | Expr::In(left, right) => {
            cost(left).saturating_add(cost(right)).saturating_add(1)
        }
        Expr::Choose(condition, yes, no) => {
            cost(condition).saturating_add(cost(yes).max(cost(no))).saturating_add(1)
        }
        Expr::Call(_, exprs) => all(exprs).saturating_add(4),
    }
}

fn at(offset: usize, found: impl Into<String>, expected: impl Into<String>) -> InvalidCel {
    InvalidCel { offset, found: found.into(), expected: expected.into(), suggestion: None }
}

fn syntax(text: &str, error: Option<&cel::parser::ParseError>) -> InvalidCel {
    let (line, column) = error.map_or((1, 1), |error| error.pos);
    let before: usize = text
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0))
        .map(|line| line.chars().count())
        .sum();
    let message = error.map_or("no expression", |error| error.msg.as_str());
    let message: String = message.lines().next().unwrap_or_default().chars().take(160).collect();
    at(
        before + usize::try_from(column - 1).unwrap_or(0),
        format!("a syntax error: {message}"),
        "an expression in CEL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Expr {
        parse(text, Wanted::Bool).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn refused(text: &str) -> InvalidCel {
        parse(text, Wanted::Bool).expect_err(text)
    }

    #[test]
    fn the_subset_is_understood() {
        let text = |text: &str| Box::new(Expr::Literal(Value::Text(text.into())));
        let fact = |fact: Fact| Box::new(Expr::Fact(fact));
        assert_eq!(
            ok("place.country == \"DE\" || place.country == 'FR' || request.headers['X-A'] == null"),
            Expr::Any(vec![
                Expr::Compare(Comparison::Equal, fact(Fact::Country), text("DE")),
                Expr::Compare(Comparison::Equal, fact(Fact::Country), text("FR")),
                Expr::Compare(
                    Comparison::Equal,
                    fact(Fact::Header("x-a".into())),
                    Box::new(Expr::Literal(Value::Null))
                ),
            ])
        );
        assert_eq!(
            ok("has(auth.claims.plan)"),
            Expr::Call(Function::Has, vec![Expr::Fact(Fact::Claim("plan".into()))])
        );
        assert_eq!(
            ok("'x-a' in request.headers"),
            Expr::Call(Function::Has, vec![Expr::Fact(Fact::Header("x-a".into()))])
        );
        assert_eq!(ok("'orders:read' in auth.scopes"), Expr::In(text("orders:read"), fact(Fact::Scopes)));
        for right in [
            "request.path.startsWith('/v1/') && !request.path.endsWith('.php')",
            "request.method in ['GET', 'HEAD']",
            "inNetwork(client.address, '192.0.2.0/24')",
            "size(auth.scopes) > 2 && size(request.path) <= 100",
            "auth.claims['level'] >= 3",
            "auth.claims.beta == true ? variants.checkout == 'b' : false",
            "request.host.lowerAscii().contains('acme') && place.asn == 64500 && now > -1",
            "request.params[\"q\"] != null && request.cookies[\"s\"] == 'x' && request.captures['id'] == '1'",
            "auth.claims.beta",
        ] {
            ok(right);
        }
        assert!(parse("place.country == 'DE' ? 'de' : 'en'", Wanted::Text).is_ok());
    }

    #[test]
    fn what_is_outside_is_named_with_its_place() {
        let cases = [
            ("", 0, "a blank text"),
            ("place.country ==", 16, "a syntax error"),
            ("place.county == 'DE'", 0, "the unknown name place.county"),
            ("true && request.body == 'x'", 8, "the unknown name request.body"),
            ("request.path.matches('^/v')", 0, "the function matches"),
            ("[1, 2].exists(x, x == 1)", 13, "a macro over a list"),
            ("1 + 1 == 2", 0, "arithmetic"),
            ("place.country == 3", 0, "a text compared with a number"),
            ("auth.scopes < ['a']", 0, "a list in an order"),
            ("request.path", 0, "an expression that gives a text"),
            ("!place.country", 1, "a text"),
            ("request.headers == null", 0, "the map request.headers as a whole"),
            ("inNetwork(client.address, 'x')", 26, "\"x\""),
            ("request.headers[request.path] == 'a'", 16, "a name that is not written out"),
            ("{'a': 1} == null", 0, "a map literal"),
            ("now > 5u", 6, "an unsigned number"),
        ];
        for (text, offset, found) in cases {
            let error = refused(text);
            assert!(error.found.starts_with(found), "{text}: {error:?}");
            assert_eq!(error.offset, offset, "{text}: {error:?}");
        }
        assert_eq!(refused("place.county == 'DE'").suggestion.as_deref(), Some("place.country"));
        let deep = format!("{}true{}", "!(".repeat(60), ")".repeat(60));
        assert!(parse(&deep, Wanted::Bool).is_err());
        let wide = vec!["request.path == 'a'"; 200].join(" && ");
        assert!(parse(&wide, Wanted::Bool).is_err());
    }
}
