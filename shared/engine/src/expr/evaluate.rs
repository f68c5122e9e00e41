//! Evaluation of an [`Expr`]. It always ends and never panics: an error is a [`Fault`], a value like any other.
//!
//! The semantics are CEL's: `&&` and `||` absorb an error where the other side decides, values of different types are
//! not equal, and only numbers, texts and truth values have an order. An absent field is [`Seen::Null`], which equals
//! nothing but itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value as Json;

use crate::expr::seen::{Seen, compare, equal};
use crate::expr::{Expr, Fact, Function, Value};
use crate::facts::{Facts, Scheme, cookie, percent_decode, query_parameter};
use crate::limits::{EXPR_COST_MAX, EXPR_DEPTH_MAX};
use crate::policy::personal;
use crate::ruleset::{PathTemplate, UserSegment};

/// Everything that an expression may look at.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The request.
    pub facts: &'a Facts,
    /// Slug of the tenant.
    pub tenant: &'a str,
    /// Slug of the tenant above it.
    pub parent: Option<&'a str>,
    /// Path of the route that matched, for its captures.
    pub path: Option<&'a PathTemplate>,
    /// Verified subject.
    pub subject: Option<&'a str>,
    /// Scopes of the verified token.
    pub scopes: &'a [String],
    /// Claims of the verified token.
    pub claims: Option<&'a BTreeMap<String, Json>>,
    /// Variants assigned so far, by experiment.
    pub variants: &'a [(Arc<str>, Arc<str>)],
    /// Segments of the tenant's users; none where the condition of one of them is evaluated.
    pub segments: &'a [UserSegment],
}

impl<'a> Inputs<'a> {
    /// The request alone, before it is known who sent it.
    #[must_use]
    pub fn anonymous(facts: &'a Facts, tenant: &'a str) -> Self {
        Self {
            facts,
            tenant,
            parent: None,
            path: None,
            subject: None,
            scopes: &[],
            claims: None,
            variants: &[],
            segments: &[],
        }
    }

    fn capture(&self, name: &str) -> Option<Cow<'a, str>> {
        self.path?.capture(&self.facts.path, name).map(|raw| percent_decode(raw, false))
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value of another type than the operation takes.
    #[error("found {found}, expected {expected}")]
    Type {
        /// What was there.
        found: &'static str,
        /// What the operation takes.
        expected: &'static str,
    },
    /// Neither an address nor a network.
    #[error("found a text that is no {0}")]
    NoAddress(&'static str),
    /// More work than [`EXPR_COST_MAX`] or nested more deeply than [`EXPR_DEPTH_MAX`].
    #[error("the expression costs more than allowed")]
    TooCostly,
}

type Evaluated<'a> = Result<Seen<'a>, Fault>;

impl Expr {
    /// The value of the expression.
    ///
    /// # Errors
    /// What the operations do not take, and more work than allowed.
    pub fn evaluate<'a>(&'a self, inputs: &Inputs<'a>) -> Evaluated<'a> {
        Evaluation { inputs: *inputs, cost: 0 }.value(self, 0)
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// As [`Expr::evaluate`], and for a value that is no truth value.
    pub fn holds(&self, inputs: &Inputs<'_>) -> Result<bool, Fault> {
        Evaluation { inputs: *inputs, cost: 0 }.truth(self, 0)
    }
}

struct Evaluation<'a> {
    inputs: Inputs<'a>,
    cost: u32,
}

impl<'a> Evaluation<'a> {
    fn value(&mut self, expr: &'a Expr, depth: u32) -> Evaluated<'a> {
        self.charge(1)?;
        if depth > EXPR_DEPTH_MAX {
            return Err(Fault::TooCostly);
        }
        let depth = depth + 1;
        match expr {
            Expr::Literal(value) => self.literal(value, depth),
            Expr::Fact(fact) => self.fact(fact),
            Expr::List(items) => {
                items.iter().map(|item| self.value(item, depth)).collect::<Result<_, _>>().map(Seen::List)
            }
            Expr::Not(of) => self.truth(of, depth).map(|truth| Seen::Bool(!truth)),
            Expr::All(terms) => self.until(terms, false, depth),
            Expr::Any(terms) => self.until(terms, true, depth),
            Expr::Compare(how, left, right) => {
                let (left, right) = (self.value(left, depth)?, self.value(right, depth)?);
                self.charge_text(&left)?;
                compare(*how, &left, &right).map(Seen::Bool)
            }
            Expr::In(item, list) => self.contains(item, list, depth).map(Seen::Bool),
            Expr::Choose(condition, then, otherwise) => {
                let chosen = if self.truth(condition, depth)? { then } else { otherwise };
                self.value(chosen, depth)
            }
            Expr::Call(function, arguments) => self.call(*function, arguments, depth),
        }
    }

    fn truth(&mut self, expr: &'a Expr, depth: u32) -> Result<bool, Fault> {
        match self.value(expr, depth)? {
            Seen::Bool(truth) => Ok(truth),
            other => Err(Fault::Type { found: other.kind(), expected: "a truth value" }),
        }
    }

    /// The first term that is `decides` decides, whatever errors came before it.
    fn until(&mut self, terms: &'a [Expr], decides: bool, depth: u32) -> Evaluated<'a> {
        let mut fault = None;
        for term in terms {
            match self.truth(term, depth) {
                Ok(truth) if truth == decides => return Ok(Seen::Bool(decides)),
                Ok(_) => {}
                Err(Fault::TooCostly) => return Err(Fault::TooCostly),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Seen::Bool(!decides)), Err)
    }

    fn literal(&mut self, value: &'a Value, depth: u32) -> Evaluated<'a> {
        Ok(match value {
            Value::Null => Seen::Null,
            Value::Bool(truth) => Seen::Bool(*truth),
            Value::Int(number) => Seen::Int(*number),
            Value::Double(number) => Seen::Double(*number),
            Value::Text(text) => Seen::Text(Cow::Borrowed(text)),
            Value::List(items) => {
                self.charge(items.len())?;
                if depth > EXPR_DEPTH_MAX {
                    return Err(Fault::TooCostly);
                }
                let items = items.iter().map(|item| self.literal(item, depth + 1));
                Seen::List(items.collect::<Result<_, _>>()?)
            }
        })
    }

    fn fact(&mut self, fact: &'a Fact) -> Evaluated<'a> {
        let inputs = self.inputs;
        let Facts { place, .. } = inputs.facts;
        let borrowed =
            |text: Option<&'a str>| text.map_or(Seen::Null, |text| Seen::Text(Cow::Borrowed(text)));
        let cow = |text: Option<Cow<'a, str>>| text.map_or(Seen::Null, Seen::Text);
        Ok(match fact {
            Fact::Method => borrowed(Some(&inputs.facts.method)),
            Fact::Scheme => borrowed(Some(match inputs.facts.scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            })),
            Fact::Host => borrowed(Some(&inputs.facts.host)),
            Fact::Path => borrowed(Some(&inputs.facts.path)),
            Fact::QueryText => borrowed(Some(inputs.facts.query.as_deref().unwrap_or_default())),
            Fact::Param(name) => {
                self.charge(inputs.facts.query.as_ref().map_or(0, String::len) / 64)?;
                cow(query_parameter(inputs.facts.query.as_deref(), name))
            }
            Fact::Header(name) => {
                self.charge(inputs.facts.headers.len() / 8)?;
                cow(inputs.facts.headers.value(name))
            }
            Fact::Cookie(name) => {
                self.charge(inputs.facts.headers.len() / 8)?;
                borrowed(cookie(&inputs.facts.headers, name))
            }
            Fact::Capture(name) => cow(inputs.capture(name)),
            Fact::Client => Seen::Text(Cow::Owned(inputs.facts.client.to_string())),
            Fact::Device => borrowed(Some(personal::device(&inputs.facts.headers))),
            Fact::Language => cow(personal::language(&inputs.facts.headers).map(Cow::Owned)),
            Fact::Country => borrowed(place.country.as_deref()),
            Fact::Continent => borrowed(place.continent.as_deref()),
            Fact::Subdivision => borrowed(place.subdivision.as_deref()),
            Fact::City => borrowed(place.city.as_deref()),
            Fact::Timezone => borrowed(place.timezone.as_deref()),
            Fact::Asn => place.asn.map_or(Seen::Null, |asn| Seen::Int(asn.into())),
            Fact::Subject => borrowed(inputs.subject),
            Fact::Scopes => {
                self.charge(inputs.scopes.len())?;
                Seen::List(inputs.scopes.iter().map(|scope| Seen::Text(Cow::Borrowed(scope))).collect())
            }
            Fact::Claim(name) => self.json(inputs.claims.and_then(|claims| claims.get(name)), 0)?,
            Fact::Variant(experiment) => {
                let variant = inputs.variants.iter().find(|(name, _)| **name == **experiment);
                borrowed(variant.map(|(_, variant)| &**variant))
            }
            Fact::Segment(name) => {
                let Some(segment) = inputs.segments.iter().find(|segment| *segment.rule.name == **name)
                else {
                    return Ok(Seen::Null);
                };
                self.inputs.segments = &[];
                let holds = self.truth(&segment.when, 0);
                self.inputs.segments = inputs.segments;
                Seen::Bool(holds?)
            }
            Fact::Tenant => borrowed(Some(inputs.tenant)),
            Fact::Parent => borrowed(inputs.parent),
            Fact::Now => Seen::Int(i64::try_from(inputs.facts.now_ms / 1000).unwrap_or(i64::MAX)),
        })
    }

    fn json(&mut self, value: Option<&'a Json>, depth: u32) -> Evaluated<'a> {
        self.charge(1)?;
        Ok(match value {
            None | Some(Json::Null) => Seen::Null,
            Some(Json::Bool(truth)) => Seen::Bool(*truth),
            Some(Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Seen::Int(whole),
                (None, number) => number.map_or(Seen::Null, Seen::Double),
            },
            Some(Json::String(text)) => Seen::Text(Cow::Borrowed(text)),
            Some(Json::Array(items)) if depth < EXPR_DEPTH_MAX => {
                let items = items.iter().map(|item| self.json(Some(item), depth + 1));
                Seen::List(items.collect::<Result<_, _>>()?)
            }
            Some(Json::Array(_)) => return Err(Fault::TooCostly),
            Some(Json::Object(_)) => {
                return Err(Fault::Type { found: "an object", expected: "a plain value or a list" });
            }
        })
    }

    fn contains(&mut self, item: &'a Expr, list: &'a Expr, depth: u32) -> Result<bool, Fault> {
        let item = self.value(item, depth)?;
        self.charge_text(&item)?;
        // The common lists are searched where they stand.
        match list {
            Expr::Literal(Value::List(values)) => {
                self.charge(values.len())?;
                Ok(values.iter().any(|value| item.is(value)))
            }
            Expr::Fact(Fact::Scopes) => {
                self.charge(self.inputs.scopes.len())?;
                Ok(self.inputs.scopes.iter().any(|scope| matches!(&item, Seen::Text(text) if text == scope)))
            }
            _ => match self.value(list, depth)? {
                Seen::List(values) => {
                    self.charge(values.len())?;
                    Ok(values.iter().any(|value| equal(&item, value)))
                }
                Seen::Null => Ok(false),
                other => Err(Fault::Type { found: other.kind(), expected: "a list" }),
            },
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Expr], depth: u32) -> Evaluated<'a> {
        let (first, second) = match arguments {
            [first] => (first, None),
            [first, second] => (first, Some(second)),
            _ => return Err(Fault::Type { found: "a wrong number of arguments", expected: "one or two" }),
        };
        if let (Function::InNetwork, Some(network)) = (function, second) {
            return self.in_network(first, network, depth).map(Seen::Bool);
        }
        let value = match (function, self.value(first, depth)) {
            (Function::Has, Ok(value)) => return Ok(Seen::Bool(value != Seen::Null)),
            (Function::Has, Err(Fault::Type { .. })) => return Ok(Seen::Bool(true)),
            (_, value) => value?,
        };
        self.charge_text(&value)?;
        match (function, second) {
            (Function::Size, None) => match value {
                Seen::Text(text) => Ok(Seen::Int(text.chars().count() as i64)),
                Seen::List(items) => Ok(Seen::Int(items.len() as i64)),
                other => Err(Fault::Type { found: other.kind(), expected: "a text or a list" }),
            },
            (Function::LowerAscii, None) => {
                let text = text(value)?;
                let folded = text.bytes().any(|byte| byte.is_ascii_uppercase());
                Ok(Seen::Text(if folded { Cow::Owned(text.to_ascii_lowercase()) } else { text }))
            }
            (Function::StartsWith | Function::EndsWith | Function::Contains, Some(second)) => {
                let (text, part) = (text(value)?, text(self.value(second, depth)?)?);
                Ok(Seen::Bool(match function {
                    Function::StartsWith => text.starts_with(&*part),
                    Function::EndsWith => text.ends_with(&*part),
                    _ => text.contains(&*part),
                }))
            }
            _ => Err(Fault::Type { found: "a wrong number of arguments", expected: "as many as it takes" }),
        }
    }

    fn in_network(&mut self, address: &'a Expr, network: &'a Expr, depth: u32) -> Result<bool, Fault> {
        let address = match address {
            Expr::Fact(Fact::Client) => self.inputs.facts.client,
            other => text(self.value(other, depth)?)?.parse().map_err(|_| Fault::NoAddress("address"))?,
        };
        let network = text(self.value(network, depth)?)?;
        let network: IpNet = network.parse().map_err(|_| Fault::NoAddress("network"))?;
        Ok(network.contains(&address))
    }

    fn charge(&mut self, cost: usize) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        if self.cost > EXPR_COST_MAX { Err(Fault::TooCostly) } else { Ok(()) }
    }

    fn charge_text(&mut self, value: &Seen<'_>) -> Result<(), Fault> {
        match value {
            Seen::Text(text) => self.charge(text.len() / 64),
            Seen::List(items) => self.charge(items.len()),
            _ => Ok(()),
        }
    }
}

fn text(value: Seen<'_>) -> Result<Cow<'_, str>, Fault> {
    match value {
        Seen::Text(text) => Ok(text),
        other => Err(Fault::Type { found: other.kind(), expected: "a text" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Comparison;
    use crate::fixtures::request;
    use crate::headers::Headers;
    use crate::ruleset::Segment;

    fn boxed(expr: Expr) -> Box<Expr> {
        Box::new(expr)
    }

    fn text(text: &str) -> Expr {
        Expr::Literal(Value::Text(text.to_owned()))
    }

    fn header(name: &str) -> Expr {
        Expr::Fact(Fact::Header(name.to_owned()))
    }

    fn check(expr: Expr, expect: Result<Seen<'_>, &str>) {
        let mut facts = request("GET", "acme.example", "/v1/orders/caf%C3%A9");
        facts.query = Some("plan=gold+plus".to_owned());
        facts.headers = Headers::from_iter([("x-kind", "Alpha"), ("cookie", "seen=1")]);
        facts.place.country = Some("DE".to_owned());
        let claims = serde_json::from_value(
            serde_json::json!({"age": 41, "score": 0.5, "groups": ["a", "b"], "nested": {}}),
        )
        .unwrap();
        let path = PathTemplate {
            segments: vec![
                Segment::Literal("v1".to_owned()),
                Segment::Literal("orders".to_owned()),
                Segment::Capture("id".to_owned()),
            ],
            open: false,
        };
        let inputs = Inputs {
            path: Some(&path),
            subject: Some("ada"),
            scopes: &["orders:read".to_owned()],
            claims: Some(&claims),
            variants: &[("checkout".into(), "b".into())],
            ..Inputs::anonymous(&facts, "acme")
        };
        let got = expr.evaluate(&inputs).map_err(|fault| fault.to_string());
        assert_eq!(got, expect.map_err(str::to_owned), "{expr:?}");
    }

    #[test]
    fn facts_are_read_by_name() {
        let some = |value: &'static str| Ok(Seen::Text(value.into()));
        check(Expr::Fact(Fact::Capture("id".to_owned())), some("café"));
        check(Expr::Fact(Fact::Capture("other".to_owned())), Ok(Seen::Null));
        check(Expr::Fact(Fact::Param("plan".to_owned())), some("gold plus"));
        check(Expr::Fact(Fact::Cookie("seen".to_owned())), some("1"));
        check(Expr::Fact(Fact::Country), some("DE"));
        check(Expr::Fact(Fact::City), Ok(Seen::Null));
        check(Expr::Fact(Fact::Claim("age".to_owned())), Ok(Seen::Int(41)));
        check(Expr::Fact(Fact::Claim("none".to_owned())), Ok(Seen::Null));
        check(Expr::Fact(Fact::Variant("checkout".to_owned())), some("b"));
        check(header("x-kind"), some("Alpha"));
        check(header("x-none"), Ok(Seen::Null));
    }

    #[test]
    fn logic_absorbs_errors_where_the_other_side_decides() {
        let fault = || Expr::Compare(Comparison::Less, boxed(header("x-none")), boxed(text("a")));
        let truth = |truth| Expr::Literal(Value::Bool(truth));
        let says = "found a text, expected an absent value";
        check(Expr::All(vec![fault(), truth(false)]), Ok(Seen::Bool(false)));
        check(Expr::All(vec![fault(), truth(true)]), Err(says));
        check(Expr::Any(vec![fault(), truth(true)]), Ok(Seen::Bool(true)));
        check(Expr::Any(vec![truth(false), fault()]), Err(says));
        check(Expr::Not(boxed(truth(false))), Ok(Seen::Bool(true)));
        check(Expr::Not(boxed(text("a"))), Err("found a text, expected a truth value"));
        check(
            Expr::Choose(boxed(truth(false)), boxed(fault()), boxed(text("b"))),
            Ok(Seen::Text("b".into())),
        );
    }

    #[test]
    fn comparisons_follow_cel() {
        let number = |number| boxed(Expr::Literal(Value::Double(number)));
        let age = || boxed(Expr::Fact(Fact::Claim("age".to_owned())));
        let holds = |how, left, right, expect| check(Expr::Compare(how, left, right), Ok(Seen::Bool(expect)));
        holds(Comparison::Equal, age(), number(41.0), true);
        holds(Comparison::Greater, age(), number(40.5), true);
        holds(Comparison::Less, number(f64::NAN), age(), false);
        holds(Comparison::Equal, age(), boxed(text("41")), false);
        holds(Comparison::NotEqual, boxed(header("x-none")), boxed(text("a")), true);
        holds(Comparison::Less, boxed(text("a")), boxed(text("b")), true);
    }

    #[test]
    fn lists_and_functions_of_the_subset() {
        let call = |function, arguments: &[Expr]| Expr::Call(function, arguments.to_vec());
        let groups = || boxed(Expr::Fact(Fact::Claim("groups".to_owned())));
        let values = Value::List(vec![Value::Text("DE".to_owned()), Value::Int(1)]);
        check(Expr::In(boxed(Expr::Fact(Fact::Country)), boxed(Expr::Literal(values))), Ok(Seen::Bool(true)));
        check(Expr::In(boxed(text("b")), groups()), Ok(Seen::Bool(true)));
        check(Expr::In(boxed(text("orders:read")), boxed(Expr::Fact(Fact::Scopes))), Ok(Seen::Bool(true)));
        check(Expr::In(boxed(text("a")), boxed(text("abc"))), Err("found a text, expected a list"));
        let kind = header("x-kind");
        check(call(Function::StartsWith, &[kind.clone(), text("Al")]), Ok(Seen::Bool(true)));
        check(call(Function::EndsWith, &[kind.clone(), text("x")]), Ok(Seen::Bool(false)));
        check(call(Function::Contains, &[kind.clone(), text("pha")]), Ok(Seen::Bool(true)));
        check(call(Function::LowerAscii, std::slice::from_ref(&kind)), Ok(Seen::Text("alpha".into())));
        check(call(Function::Size, &[text("café")]), Ok(Seen::Int(4)));
        check(call(Function::Has, &[header("x-none")]), Ok(Seen::Bool(false)));
        check(call(Function::Has, &[Expr::Fact(Fact::Claim("nested".to_owned()))]), Ok(Seen::Bool(true)));
        let client = Expr::Fact(Fact::Client);
        check(call(Function::InNetwork, &[client.clone(), text("192.0.2.0/24")]), Ok(Seen::Bool(true)));
        check(call(Function::InNetwork, &[client, text("x")]), Err("found a text that is no network"));
        check(call(Function::Size, &[]), Err("found a wrong number of arguments, expected one or two"));
    }

    #[test]
    fn work_and_nesting_are_bounded() {
        let says = "the expression costs more than allowed";
        check(Expr::All(vec![Expr::Literal(Value::Bool(true)); EXPR_COST_MAX as usize]), Err(says));
        let deep =
            (0..=EXPR_DEPTH_MAX).fold(Expr::Literal(Value::Bool(true)), |expr, _| Expr::Not(boxed(expr)));
        check(Expr::Any(vec![deep]), Err(says));
    }
}
