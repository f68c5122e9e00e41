//! Changes on the way in and out.

use super::{Compress, HtmlChange, HtmlRule, RuleRef};
use crate::expr::{Expr, Fault, Inputs};

/// Changes to headers on the way in and out.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Where it stands.
    pub rule: RuleRef,
    /// Requests that it is for.
    pub when: Option<Expr>,
    /// Answers with a redirect, and nothing goes further.
    pub redirect: Option<Redirect>,
    /// Another path or query for the target.
    pub rewrite: Option<Rewrite>,
    /// What pages of other origins may read.
    pub cors: Option<Cors>,
    /// Whether the reply gets the headers that make a browser careful.
    pub security_headers: bool,
    /// Changes to the forwarded request.
    pub request: Vec<HeaderChange>,
    /// Changes to the reply.
    pub response: Vec<HeaderChange>,
    /// Changes to the reply's HTML, in order.
    pub html: Vec<HtmlRule<HeaderValue>>,
    /// Whether pages of HTML are minified.
    pub minify: bool,
    /// Content codings that the reply may get.
    pub compress: Option<Compress>,
}

impl Transform {
    /// One that changes nothing.
    #[must_use]
    pub fn new(rule: RuleRef) -> Self {
        Self {
            rule,
            when: None,
            redirect: None,
            rewrite: None,
            cors: None,
            security_headers: false,
            request: Vec::new(),
            response: Vec::new(),
            html: Vec::new(),
            minify: false,
            compress: None,
        }
    }

    /// Whether it is for a request.
    ///
    /// # Errors
    /// Where its condition can't be evaluated.
    pub fn is_for(&self, inputs: &Inputs<'_>) -> Result<bool, Fault> {
        self.when.as_ref().map_or(Ok(true), |when| when.holds(inputs))
    }

    /// Whether it changes pages of HTML.
    #[must_use]
    pub fn changes_pages(&self) -> bool {
        !self.html.is_empty() || self.minify
    }

    /// Whether what it makes of a page is for some clients only: a condition or an expression decides it.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        let is_decided = |change: &HtmlChange<HeaderValue>| match change {
            HtmlChange::SetAttribute(_, value) | HtmlChange::Put(_, _, value) => {
                matches!(value, HeaderValue::Expr(_))
            }
            HtmlChange::RemoveAttribute(_) | HtmlChange::Remove => false,
        };
        self.when.is_some() || self.html.iter().any(|rule| is_decided(&rule.change))
    }

    /// Fields of the forwarded request whose values don't follow from the client's alone: those that a condition or an
    /// expression decides. A fixed change of every request makes the values of all clients alike.
    pub fn rewritten(&self) -> impl Iterator<Item = &str> {
        let is_conditional = self.when.is_some();
        self.request.iter().filter_map(move |change| match change {
            HeaderChange::Set(name, HeaderValue::Expr(_))
            | HeaderChange::Append(name, HeaderValue::Expr(_)) => Some(name.as_str()),
            HeaderChange::Set(name, _) | HeaderChange::Append(name, _) | HeaderChange::Remove(name) => {
                is_conditional.then_some(name.as_str())
            }
        })
    }
}

/// An answer that sends the client elsewhere (RFC 9110, section 15.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `Location`.
    pub location: Template,
}

/// Where a request goes at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Path; `None` leaves it.
    pub path: Option<Template>,
    /// Query without its mark; `None` leaves it, and an empty text takes it away.
    pub query: Option<Template>,
}

/// A text with parts of the request in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `{name}`: a capture of the route's path, encoded as it came.
    Capture(String),
    /// `{**}`: what follows the segments of an open path.
    Rest,
    /// `{scheme}`
    Scheme,
    /// `{host}`
    Host,
    /// `{path}`
    Path,
    /// `{query}`
    Query,
    /// `{?query}`: the query with its mark, or nothing.
    QueryWithMark,
}

/// Cross-origin resource sharing (Fetch standard, section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Vec<OriginPattern>,
    /// Methods beside GET, HEAD and POST; `*` is all.
    pub methods: Vec<String>,
    /// Request headers; `*` is all that are asked for.
    pub headers: Vec<String>,
    /// Response headers that pages may read.
    pub expose: Vec<String>,
    /// Whether requests may carry cookies and other credentials; not with [`OriginPattern::Any`].
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age_s: u32,
}

/// Origins (RFC 6454, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// All.
    Any,
    /// This one.
    Exact(String),
    /// All hosts below a domain.
    Below {
        /// `https` or `http`.
        scheme: String,
        /// The domain, with the port if there is one.
        domain: String,
    },
}

/// One change to header fields (names in lower case).
#[derive(Clone, Debug)]
pub enum HeaderChange {
    /// Set to one value.
    Set(String, HeaderValue),
    /// Add a value.
    Append(String, HeaderValue),
    /// Remove all.
    Remove(String),
}

impl HeaderChange {
    /// The field, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Set(name, _) | Self::Append(name, _) | Self::Remove(name)) = self;
        name
    }

    /// What is set or added.
    #[must_use]
    pub fn value(&self) -> Option<&HeaderValue> {
        match self {
            Self::Set(_, value) | Self::Append(_, value) => Some(value),
            Self::Remove(_) => None,
        }
    }
}

/// Value of a [`HeaderChange`].
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// As it stands.
    Text(String),
    /// What the expression says (a string; otherwise the change is left out and the explanation says so).
    Expr(Expr),
}
