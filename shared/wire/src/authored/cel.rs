//! CEL: the text of a condition is parsed, type-checked against the facts and turned into the engine's expression.
//!
//! The supported subset: the facts; literals of text, whole and decimal numbers, `true`, `false`, `null` and lists; `!`,
//! `&&`, `||`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `? :`; `has(…)`; `startsWith`, `endsWith`, `contains`, `lowerAscii`, `size`
//! and `inNetwork(address, network)`. `NAME in request.headers` (and any other map of facts) is whether it has an entry of
//! that name. What is outside the subset is an error here, and so never a surprise at the edge.

mod checker;

use cel::parser::Parser;
use meridian_engine::expr::{Expr, Fact};
use meridian_engine::limits::EXPR_COST_MAX;

use self::checker::{Checker, Kind};
use super::nesting::first_beyond;
use crate::document::{ENTRY_FACTS, PLAIN_FACTS};
use crate::limits::{EXPR_BYTES_MAX, EXPR_NESTING_MAX};

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
    let mut checker = Checker::new(&source);
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
    use meridian_engine::expr::{Comparison, Function, Value};

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
