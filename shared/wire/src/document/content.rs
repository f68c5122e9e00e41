//! What a reply's content becomes on its way out: HTML, and content codings.

use serde::{Deserialize, Serialize};

use super::transform::HeaderText;

spec! {
/// Content codings for the reply (RFC 9110, section 8.4.1), by what the client accepts. The reply then varies by
/// `Accept-Encoding`, its entity tag is weak, and it has no parts. What is stored stays as it came. Left as they are:
/// parts, what is coded already, and what says `no-transform`.
#[derive(Eq)]
pub struct CompressSpec {
    /// `zstd`, `br` and `gzip`: of those that the client likes best, the first is taken.
    #[serde(default = "codings")]
    pub codings: Vec<String>,
    /// Bytes: content that is known to be shorter is left as it is. At most 1 MiB.
    #[serde(default = "coded_bytes_min")]
    pub bytes_min: u32,
    /// Media types: `text/html`, `text/*`, `*+json`. Events (`text/event-stream`) are always left as they are, so that
    /// none waits for the next.
    #[serde(default = "coded_types")]
    pub types: Vec<String>,
}
}

spec! {
/// A change to the elements of an HTML page that a selector names: one of the fields beside `select`.
pub struct HtmlRuleSpec {
    /// CSS selector: types, classes, ids, attributes, `:not`, `:nth-child`, `:nth-of-type`, `:first-child`,
    /// `:first-of-type`, and elements inside (`a b`) or directly inside (`a > b`) others.
    pub select: String,
    /// Sets an attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_attribute: Option<AttributeSpec>,
    /// Takes an attribute away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_attribute: Option<String>,
    /// Puts something before the element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MarkupSpec>,
    /// Puts something at the beginning of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepend: Option<MarkupSpec>,
    /// Puts something at the end of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<MarkupSpec>,
    /// Puts something after the element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<MarkupSpec>,
    /// Puts something in the place of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_inner: Option<MarkupSpec>,
    /// Puts something in the place of the element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<MarkupSpec>,
    /// Takes the element away with what is in it.
    #[serde(default)]
    pub remove: bool,
}
}

spec! {
/// An attribute and its value.
pub struct AttributeSpec {
    /// Name.
    pub name: String,
    /// Value: quotes in it are escaped. At most 16 KiB, as all that is put into a page.
    pub value: HeaderText,
}
}

spec! {
/// What is put into a page: one of both.
pub struct MarkupSpec {
    /// Text, in which `<`, `>` and `&` are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<HeaderText>,
    /// HTML as it stands. An expression that repeats what a client sends hands the page to that client: use `text` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<HeaderText>,
}
}

fn codings() -> Vec<String> {
    ["zstd", "br", "gzip"].map(str::to_owned).into()
}

fn coded_bytes_min() -> u32 {
    1_024
}

fn coded_types() -> Vec<String> {
    let types = [
        "text/*",
        "*+json",
        "*+xml",
        "application/javascript",
        "application/json",
        "application/wasm",
        "application/xml",
        "font/otf",
        "font/ttf",
        "image/bmp",
    ];
    types.map(str::to_owned).into()
}
