//! A condition: its CEL text, and once it is checked its tree, which is what an edge evaluates.

use meridian_engine::expr::{Comparison, Expr, Fact, Function, Value};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{EXPR_BYTES_MAX, EXPR_DEPTH_MAX, EXPR_NODES_MAX};

/// A condition. Written as a CEL text; a bundle carries `{"cel": TEXT, "tree": TREE}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// As it was written.
    pub cel: String,
    /// As it was checked; only a bundle has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

/// The serialised shape of an [`Expr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Fact(FactTree),
    List(Vec<Tree>),
    Not(Box<Tree>),
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Eq(Box<[Tree; 2]>),
    Ne(Box<[Tree; 2]>),
    Lt(Box<[Tree; 2]>),
    Le(Box<[Tree; 2]>),
    Gt(Box<[Tree; 2]>),
    Ge(Box<[Tree; 2]>),
    In(Box<[Tree; 2]>),
    Choose(Box<[Tree; 3]>),
    StartsWith(Vec<Tree>),
    EndsWith(Vec<Tree>),
    Contains(Vec<Tree>),
    LowerAscii(Vec<Tree>),
    Size(Vec<Tree>),
    Has(Vec<Tree>),
    InNetwork(Vec<Tree>),
}

/// A fact as CEL writes it: `request.path`, or `request.headers` with the name of the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FactTree {
    /// A fact without a name of its own.
    Plain(String),
    /// An entry of a map.
    Entry(String, String),
}

/// A tree that is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTree {
    /// There is none.
    #[error("a condition in a bundle must carry its checked tree")]
    Absent,
    /// Too deep.
    #[error("the condition is nested more than {EXPR_DEPTH_MAX} levels deep")]
    Depth,
    /// Too large.
    #[error("the condition has more than {EXPR_NODES_MAX} terms")]
    Nodes,
    /// Too long.
    #[error("the condition is longer than {EXPR_BYTES_MAX} bytes")]
    Bytes,
    /// A fact that nobody knows.
    #[error("unknown fact {0:?}")]
    Fact(String),
    /// A function with the wrong number of arguments.
    #[error("{function} takes {expected} arguments, found {found}")]
    Arguments {
        /// The function.
        function: &'static str,
        /// How many it takes.
        expected: usize,
        /// How many there were.
        found: usize,
    },
}

impl Condition {
    /// A condition that is not checked yet.
    #[must_use]
    pub fn unchecked(cel: impl Into<String>) -> Self {
        Self { cel: cel.into(), tree: None }
    }

    /// The expression of its tree.
    ///
    /// # Errors
    /// Where there is no tree, or it is no expression within the limits.
    pub fn expr(&self) -> Result<Expr, InvalidTree> {
        if self.cel.len() > EXPR_BYTES_MAX {
            return Err(InvalidTree::Bytes);
        }
        self.tree.as_ref().ok_or(InvalidTree::Absent)?.expr(EXPR_DEPTH_MAX, &mut EXPR_NODES_MAX.clone())
    }
}

impl Tree {
    fn expr(&self, depth: usize, nodes: &mut usize) -> Result<Expr, InvalidTree> {
        let depth = depth.checked_sub(1).ok_or(InvalidTree::Depth)?;
        *nodes = nodes.checked_sub(1).ok_or(InvalidTree::Nodes)?;
        let mut list =
            |trees: &[Self]| trees.iter().map(|tree| tree.expr(depth, nodes)).collect::<Result<Vec<_>, _>>();
        Ok(match self {
            Self::Null => Expr::Literal(Value::Null),
            Self::Bool(value) => Expr::Literal(Value::Bool(*value)),
            Self::Int(value) => Expr::Literal(Value::Int(*value)),
            Self::Double(value) => Expr::Literal(Value::Double(*value)),
            Self::Text(value) => Expr::Literal(Value::Text(value.clone())),
            Self::Fact(fact) => Expr::Fact(fact.fact()?),
            Self::List(items) => Expr::List(list(items)?),
            Self::All(terms) => Expr::All(list(terms)?),
            Self::Any(terms) => Expr::Any(list(terms)?),
            Self::Not(term) => Expr::Not(Box::new(term.expr(depth, nodes)?)),
            Self::In(pair) => {
                let [item, of] = pair.as_ref();
                Expr::In(Box::new(item.expr(depth, nodes)?), Box::new(of.expr(depth, nodes)?))
            }
            Self::Choose(three) => {
                let [condition, yes, no] = three.as_ref();
                let (yes, no) = (yes.expr(depth, nodes)?, no.expr(depth, nodes)?);
                Expr::Choose(Box::new(condition.expr(depth, nodes)?), Box::new(yes), Box::new(no))
            }
            Self::Eq(pair) => compare(Comparison::Equal, pair, depth, nodes)?,
            Self::Ne(pair) => compare(Comparison::NotEqual, pair, depth, nodes)?,
            Self::Lt(pair) => compare(Comparison::Less, pair, depth, nodes)?,
            Self::Le(pair) => compare(Comparison::LessOrEqual, pair, depth, nodes)?,
            Self::Gt(pair) => compare(Comparison::Greater, pair, depth, nodes)?,
            Self::Ge(pair) => compare(Comparison::GreaterOrEqual, pair, depth, nodes)?,
            Self::StartsWith(arguments) => call(Function::StartsWith, "startsWith", 2, list(arguments)?)?,
            Self::EndsWith(arguments) => call(Function::EndsWith, "endsWith", 2, list(arguments)?)?,
            Self::Contains(arguments) => call(Function::Contains, "contains", 2, list(arguments)?)?,
            Self::LowerAscii(arguments) => call(Function::LowerAscii, "lowerAscii", 1, list(arguments)?)?,
            Self::Size(arguments) => call(Function::Size, "size", 1, list(arguments)?)?,
            Self::Has(arguments) => call(Function::Has, "has", 1, list(arguments)?)?,
            Self::InNetwork(arguments) => call(Function::InNetwork, "inNetwork", 2, list(arguments)?)?,
        })
    }
}

fn compare(
    comparison: Comparison,
    pair: &[Tree; 2],
    depth: usize,
    nodes: &mut usize,
) -> Result<Expr, InvalidTree> {
    let [left, right] = pair;
    Ok(Expr::Compare(comparison, Box::new(left.expr(depth, nodes)?), Box::new(right.expr(depth, nodes)?)))
}

fn call(
    function: Function,
    name: &'static str,
    expected: usize,
    arguments: Vec<Expr>,
) -> Result<Expr, InvalidTree> {
    if arguments.len() == expected {
        Ok(Expr::Call(function, arguments))
    } else {
        Err(InvalidTree::Arguments { function: name, expected, found: arguments.len() })
    }
}

impl From<&Expr> for Tree {
    fn from(expr: &Expr) -> Self {
        let list = |terms: &[Expr]| terms.iter().map(Self::from).collect::<Vec<_>>();
        let pair = |left: &Expr, right: &Expr| Box::new([Self::from(left), Self::from(right)]);
        match expr {
            Expr::Literal(value) => Self::from(value),
            Expr::Fact(fact) => Self::Fact(FactTree::from(fact)),
            Expr::List(items) => Self::List(list(items)),
            Expr::Not(term) => Self::Not(Box::new(Self::from(term.as_ref()))),
            Expr::All(terms) => Self::All(list(terms)),
            Expr::Any(terms) => Self::Any(list(terms)),
            Expr::In(item, of) => Self::In(pair(item, of)),
            Expr::Choose(condition, yes, no) => Self::Choose(Box::new([
                Self::from(condition.as_ref()),
                Self::from(yes.as_ref()),
                Self::from(no.as_ref()),
            ])),
            Expr::Compare(comparison, left, right) => match comparison {
                Comparison::Equal => Self::Eq(pair(left, right)),
                Comparison::NotEqual => Self::Ne(pair(left, right)),
                Comparison::Less => Self::Lt(pair(left, right)),
                Comparison::LessOrEqual => Self::Le(pair(left, right)),
                Comparison::Greater => Self::Gt(pair(left, right)),
                Comparison::GreaterOrEqual => Self::Ge(pair(left, right)),
            },
            Expr::Call(function, arguments) => match function {
                Function::StartsWith => Self::StartsWith(list(arguments)),
                Function::EndsWith => Self::EndsWith(list(arguments)),
                Function::Contains => Self::Contains(list(arguments)),
                Function::LowerAscii => Self::LowerAscii(list(arguments)),
                Function::Size => Self::Size(list(arguments)),
                Function::Has => Self::Has(list(arguments)),
                Function::InNetwork => Self::InNetwork(list(arguments)),
            },
        }
    }
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Double(value) => Self::Double(*value),
            Value::Text(value) => Self::Text(value.clone()),
            Value::List(items) => Self::List(items.iter().map(Self::from).collect()),
        }
    }
}

/// Facts without a name of their own, as CEL writes them.
pub(crate) const PLAIN_FACTS: [(&str, Fact); 19] = [
    ("request.method", Fact::Method),
    ("request.scheme", Fact::Scheme),
    ("request.host", Fact::Host),
    ("request.path", Fact::Path),
    ("request.query", Fact::QueryText),
    ("client.address", Fact::Client),
    ("client.device", Fact::Device),
    ("client.language", Fact::Language),
    ("place.country", Fact::Country),
    ("place.continent", Fact::Continent),
    ("place.subdivision", Fact::Subdivision),
    ("place.city", Fact::City),
    ("place.timezone", Fact::Timezone),
    ("place.asn", Fact::Asn),
    ("auth.subject", Fact::Subject),
    ("auth.scopes", Fact::Scopes),
    ("tenant.slug", Fact::Tenant),
    ("tenant.parent", Fact::Parent),
    ("now", Fact::Now),
];

/// Makes the fact of an entry.
pub(crate) type EntryFact = fn(String) -> Fact;

/// Maps of facts, as CEL writes them.
pub(crate) const ENTRY_FACTS: [(&str, EntryFact); 7] = [
    ("request.params", Fact::Param),
    ("request.headers", Fact::Header),
    ("request.cookies", Fact::Cookie),
    ("request.captures", Fact::Capture),
    ("auth.claims", Fact::Claim),
    ("variants", Fact::Variant),
    ("segments", Fact::Segment),
];

impl FactTree {
    fn fact(&self) -> Result<Fact, InvalidTree> {
        match self {
            Self::Plain(name) => {
                PLAIN_FACTS.iter().find(|(have, _)| have == name).map(|(_, fact)| fact.clone())
            }
            Self::Entry(map, name) => {
                ENTRY_FACTS.iter().find(|(have, _)| have == map).map(|(_, fact)| fact(name.clone()))
            }
        }
        .ok_or_else(|| InvalidTree::Fact(self.text()))
    }

    /// As CEL writes it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Plain(name) => name.clone(),
            Self::Entry(map, name) => format!("{map}[{name:?}]"),
        }
    }
}

impl From<&Fact> for FactTree {
    fn from(fact: &Fact) -> Self {
        let entry = |map: &str, name: &String| Self::Entry(map.to_owned(), name.clone());
        match fact {
            Fact::Param(name) => entry("request.params", name),
            Fact::Header(name) => entry("request.headers", name),
            Fact::Cookie(name) => entry("request.cookies", name),
            Fact::Capture(name) => entry("request.captures", name),
            Fact::Claim(name) => entry("auth.claims", name),
            Fact::Variant(name) => entry("variants", name),
            Fact::Segment(name) => entry("segments", name),
            plain => {
                let name = PLAIN_FACTS.iter().find(|(_, have)| have == plain).map_or("", |(name, _)| name);
                Self::Plain(name.to_owned())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Checked {
            cel: String,
            #[serde(default)]
            tree: Option<Tree>,
        }

        impl<'de> Visitor<'de> for Either {
            type Value = Condition;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a condition in CEL")
            }

            fn visit_str<E: de::Error>(self, cel: &str) -> Result<Condition, E> {
                Ok(Condition::unchecked(cel))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                let Checked { cel, tree } = Checked::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Condition { cel, tree })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for Condition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A condition in CEL, in the supported subset." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(fact: Fact) -> Box<Expr> {
        Box::new(Expr::Fact(fact))
    }

    #[test]
    fn a_tree_is_read_as_it_was_written() {
        let text = |text: &str| Expr::Literal(Value::Text(text.into()));
        let expr = Expr::Any(vec![
            Expr::Compare(Comparison::Equal, fact(Fact::Country), Box::new(text("DE"))),
            Expr::All(vec![
                Expr::In(Box::new(text("a")), fact(Fact::Scopes)),
                Expr::Not(Box::new(Expr::Call(Function::Has, vec![Expr::Fact(Fact::Header("x-a".into()))]))),
            ]),
            Expr::Choose(
                fact(Fact::Subject),
                Box::new(Expr::Literal(Value::Bool(true))),
                Box::new(Expr::List(vec![])),
            ),
        ]);
        let condition = Condition { cel: "…".into(), tree: Some(Tree::from(&expr)) };
        let json = serde_json::to_string(&condition).unwrap();
        let again: Condition = serde_json::from_str(&json).unwrap();
        assert_eq!(again.expr(), Ok(expr));
        assert!(json.contains(r#"{"has":[{"fact":["request.headers","x-a"]}]}"#), "{json}");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let read = |tree: &str| {
            serde_json::from_str::<Condition>(&format!(r#"{{"cel":"","tree":{tree}}}"#)).map(|it| it.expr())
        };
        assert_eq!(
            read(r#"{"fact":"request.body"}"#).unwrap(),
            Err(InvalidTree::Fact("request.body".into()))
        );
        assert!(matches!(read(r#"{"size":[]}"#).unwrap(), Err(InvalidTree::Arguments { .. })));
        assert!(read(r#"{"eval":[]}"#).is_err());
        let deep = format!("{}\"null\"{}", r#"{"not":"#.repeat(30), "}".repeat(30));
        assert_eq!(read(&deep).unwrap(), Err(InvalidTree::Depth));
        let wide = format!("{{\"list\":[{}\"null\"]}}", "\"null\",".repeat(600));
        assert_eq!(read(&wide).unwrap(), Err(InvalidTree::Nodes));
        assert_eq!(Condition::unchecked("true").expr(), Err(InvalidTree::Absent));
    }
}
