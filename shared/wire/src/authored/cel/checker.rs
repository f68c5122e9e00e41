//! From the parser's tree to the engine's expression, with the type of each part.

use cel::common::ast::{CallExpr, Expr as Ast, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use ipnet::IpNet;
use meridian_engine::expr::{Comparison, Expr, Fact, Function, Value};

use super::super::invalid::nearest;
use super::{InvalidCel, at, fact_names};
use crate::document::{ENTRY_FACTS, PLAIN_FACTS};
use crate::limits::{EXPR_DEPTH_MAX, EXPR_NODES_MAX};

/// Type of an expression. A fact may always be absent as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    /// Known only when it is evaluated: a claim.
    Any,
}

impl Kind {
    pub(super) fn text(self) -> &'static str {
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

/// Goes through a tree once.
pub(super) struct Checker<'a> {
    source: &'a SourceInfo,
    nodes: usize,
}

type Checked = Result<(Expr, Kind), InvalidCel>;

impl<'a> Checker<'a> {
    pub(super) fn new(source: &'a SourceInfo) -> Self {
        Self { source, nodes: 0 }
    }

    fn error(&self, tree: &IdedExpr, found: impl Into<String>, expected: impl Into<String>) -> InvalidCel {
        let offset = self.source.offset_for(first(tree)).map_or(0, |(start, _)| start as usize);
        at(offset, found, expected)
    }

    fn outside(&self, tree: &IdedExpr, construct: &str) -> InvalidCel {
        self.error(tree, construct, "the supported subset of CEL, which does not have it")
    }

    /// The expression that a tree stands for, and its type.
    pub(super) fn expr(&mut self, tree: &IdedExpr, depth: usize) -> Checked {
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
