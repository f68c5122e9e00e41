//! Transforms: header fields, redirects, rewrites, cross-origin sharing, content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::content::{CompressSpec, HtmlRuleSpec};
use super::unit::Span;

spec! {
/// Changes on the way in and out.
#[derive(Default)]
pub struct TransformSpec {
    /// Requests that it is for; a preflight is judged as the request that it asks for. Beside `redirect` and `cors`, which answer
    /// before the token is checked and a variant is given, `auth` and `variants` can't be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Answers with a redirect, before auth, and nothing goes further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectSpec>,
    /// Another path or query for the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RewriteSpec>,
    /// What pages of other origins may read (Fetch standard, section 3.3), in the place of what the target says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsSpec>,
    /// Sets the headers of the OWASP Secure Headers Project where the response has none, and removes those that tell what
    /// software answered. `response` can change them again.
    #[serde(default)]
    pub security_headers: bool,
    /// Changes to the forwarded request.
    #[serde(default)]
    pub request: ChangesSpec,
    /// Changes to the reply.
    #[serde(default)]
    pub response: ChangesSpec,
    /// Changes to the HTML of whole pages (`text/html` in UTF-8, successes and errors), in this order, as they stream. At
    /// most 64. The target is asked for pages whole and in no coding, on all that goes by the route: give pages a route of
    /// their own. A changed page has no validators and no parts. A page that can't be parsed as it streams breaks off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub html: Vec<HtmlRuleSpec>,
    /// Whether pages are minified as they stream: the same pages as with `html`, asked for and served in the same way.
    /// Comments are removed, and each run of white space between two tags or comments of the page as it came becomes one
    /// space. Left as they are: what `html` of any transform puts in; tags with their attributes; character references; all
    /// that is in `pre`, `listing`, `plaintext`, `textarea`, `xmp`, `script`, `style`, `iframe`, `noembed`, `noframes`,
    /// `noscript` and the `text` of SVG; and comments that begin with `[if`, `[endif`, `<![endif` (conditional ones), `#`,
    /// `esi` (includes), `!` (licences) or `?`, or that stand behind `<` or an unfinished character reference. Style sheets
    /// are not read: what is `white-space: pre` by them loses white space. Not for pages whose scripts look for comments.
    /// Bytes of a text that are no UTF-8 become U+FFFD.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub minify: bool,
    /// Content codings for the reply; of several transforms of a route the first counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<CompressSpec>,
}
}

spec! {
/// Changes to header fields: first `remove`, then `set`, then `append`.
#[derive(Default)]
pub struct ChangesSpec {
    /// Fields to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Fields to set to one value.
    #[serde(default)]
    pub set: BTreeMap<String, HeaderText>,
    /// Fields to add a value to.
    #[serde(default)]
    pub append: BTreeMap<String, HeaderText>,
}
}

/// Value of a header field: a text as it stands, or `{cel: EXPRESSION}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderText {
    /// As it stands.
    Text(String),
    /// What the expression says; it must be a text.
    Expr(Condition),
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for HeaderText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HeaderText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A text as it stands, or an expression in CEL that gives one.",
            "anyOf": [
                { "type": "string" },
                { "type": "object", "properties": { "cel": { "type": "string" } }, "required": ["cel"], "additionalProperties": false }
            ]
        })
    }
}

spec! {
/// An answer that sends the client elsewhere (RFC 9110, section 15.4).
#[derive(Eq)]
pub struct RedirectSpec {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "redirect_status")]
    pub status: u16,
    /// Where to: a path or an https or http URL. `{name}` is a capture of the route's path, `{**}` what follows an open one,
    /// and `{scheme}`, `{host}`, `{path}`, `{query}` and `{?query}` (with its mark, or nothing) are the request's.
    pub location: String,
}
}

spec! {
/// Where a request goes at its target; placeholders as in a redirect's location.
#[derive(Eq)]
pub struct RewriteSpec {
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Query without its mark; an empty text takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}
}

spec! {
/// What pages of other origins may read.
#[derive(Eq)]
pub struct CorsSpec {
    /// Origins: `https://app.example`, `https://*.app.example`, or `*` alone. The port of the scheme may be left out.
    pub origins: Vec<String>,
    /// Methods beside GET, HEAD and POST; `*` is all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Request headers; `*` is all but `Authorization`, which has to be named.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Response headers that pages may read; `*` is all, but not with credentials (Fetch standard, section 3.3.3).
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether requests may carry cookies and other credentials. Not with `*`.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    #[serde(default = "cors_max_age")]
    pub max_age: Span,
}
}

fn redirect_status() -> u16 {
    308
}

fn cors_max_age() -> Span {
    Span::from_secs(600)
}
