//! Conditions on the facts: a checked tree of the Common Expression Language (CEL), evaluated straight on the facts.
//!
//! `wire` parses and type-checks the text when rules are pushed; here is only the tree, its [evaluation](evaluate) and
//! its cost.

pub mod evaluate;
mod seen;

pub use evaluate::{Fault, Inputs};
pub use seen::Seen;

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Value),
    /// A fact.
    Fact(Fact),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `!a`
    Not(Box<Expr>),
    /// `a && b && …`: false as soon as one is, even where another is an error (CEL, "Logical operators").
    All(Vec<Expr>),
    /// `a || b || …`: true as soon as one is, even where another is an error.
    Any(Vec<Expr>),
    /// `a == b`, `a < b` …
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// `a in b` for a list, or a key of a map.
    In(Box<Expr>, Box<Expr>),
    /// `c ? a : b`
    Choose(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A function of the supported subset.
    Call(Function, Vec<Expr>),
}

impl Expr {
    /// Nodes of the tree.
    #[must_use]
    pub fn nodes(&self) -> usize {
        1 + match self {
            Self::Literal(_) | Self::Fact(_) => 0,
            Self::Not(inner) => inner.nodes(),
            Self::List(parts) | Self::All(parts) | Self::Any(parts) | Self::Call(_, parts) => {
                parts.iter().map(Self::nodes).sum()
            }
            Self::Compare(_, left, right) | Self::In(left, right) => left.nodes() + right.nodes(),
            Self::Choose(condition, yes, no) => condition.nodes() + yes.nodes() + no.nodes(),
        }
    }
}

/// A value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Absent: a header, claim or attribute that is not there.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// 64-bit integer.
    Int(i64),
    /// 64-bit floating point.
    Double(f64),
    /// Text.
    Text(String),
    /// List.
    List(Vec<Value>),
}

/// A fact by name, as written in CEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `request.method`
    Method,
    /// `request.scheme`
    Scheme,
    /// `request.host`
    Host,
    /// `request.path`
    Path,
    /// `request.query` (the text after `?`)
    QueryText,
    /// `request.params["name"]`: a query parameter, decoded
    Param(String),
    /// `request.headers["name"]`
    Header(String),
    /// `request.cookies["name"]`
    Cookie(String),
    /// `request.captures["name"]`: a capture of the route's path
    Capture(String),
    /// `client.address`
    Client,
    /// `client.device`: `mobile`, `tablet`, `desktop` or `bot`
    Device,
    /// `client.language`, two or three letters in lower case
    Language,
    /// `place.country`, an upper-case code
    Country,
    /// `place.continent`
    Continent,
    /// `place.subdivision`
    Subdivision,
    /// `place.city`
    City,
    /// `place.timezone`
    Timezone,
    /// `place.asn`
    Asn,
    /// `auth.subject`
    Subject,
    /// `auth.scopes`: a list
    Scopes,
    /// `auth.claims["name"]`
    Claim(String),
    /// `variants["experiment"]`
    Variant(String),
    /// `segments["name"]`: whether its condition holds
    Segment(String),
    /// `tenant.slug`
    Tenant,
    /// `tenant.parent`: slug of the tenant above it
    Parent,
    /// `now`: seconds since the Unix epoch
    Now,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Functions of the supported subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `text.startsWith(text)`
    StartsWith,
    /// `text.endsWith(text)`
    EndsWith,
    /// `text.contains(text)`
    Contains,
    /// `text.lowerAscii()`
    LowerAscii,
    /// `size(text | list)`, in characters or elements
    Size,
    /// `has(field)`: whether it is there
    Has,
    /// `cidr(network).contains(address)`, written `inNetwork(address, network)`
    InNetwork,
}
