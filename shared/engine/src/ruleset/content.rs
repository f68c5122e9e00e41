//! Changes to the content of replies: HTML, and content codings.

/// Content codings that the edge may apply (RFC 9110, section 8.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// Codings, the most wanted first.
    pub codings: Vec<Coding>,
    /// Content that is known to be shorter is left as it is.
    pub bytes_min: u64,
    /// Media types that it is for.
    pub types: Vec<MediaType>,
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard (RFC 8878; window as RFC 9659 has it).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them, in the order in which they are preferred where a rule has none.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in header fields.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Media types, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Exact(String),
    /// `text/*`: this top-level type, without the slash.
    Top(String),
    /// `*+json`: this structured syntax suffix (RFC 6838, section 4.2.8), without the plus sign.
    Suffix(String),
}

impl MediaType {
    /// Whether it is one of these; in lower case, without parameters.
    #[must_use]
    pub fn holds(&self, found: &str) -> bool {
        match self {
            Self::Exact(name) => found == name,
            Self::Top(top) => found.split_once('/').is_some_and(|(found, _)| found == top),
            Self::Suffix(suffix) => found.rsplit_once('+').is_some_and(|(_, found)| found == suffix),
        }
    }
}

/// One change to the elements of an HTML document that a selector names. `Value` is what a rule says, or the plain text
/// that came of it for one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtmlRule<Value> {
    /// CSS selector, in the subset that a streaming parser can match.
    pub select: String,
    /// What happens to each such element.
    pub change: HtmlChange<Value>,
}

/// What is put where for one reply.
pub type HtmlEdit = HtmlRule<String>;

/// What happens to one page of HTML, as it streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageChanges {
    /// Changes to elements, in order.
    pub edits: Vec<HtmlEdit>,
    /// Whether the page, as it came, is minified: comments are removed, and each run of white space in a text becomes one
    /// space. What `edits` put in stays as it is.
    pub minify: bool,
}

impl PageChanges {
    /// CSS selector of the elements that minification leaves as they are with all that is in them: white space counts
    /// there, or what looks like a text is none.
    pub const LEFT_ELEMENTS: &str =
        "pre, listing, plaintext, textarea, xmp, script, style, iframe, noembed, noframes, noscript, text";
    /// How comments begin, behind white space, that it keeps: conditional ones, includes, licences and processing
    /// instructions.
    pub const KEPT_COMMENTS: [&str; 7] = ["[if", "[endif", "<![endif", "#", "!", "?", "esi"];

    /// Whether the page stays as it came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && !self.minify
    }
}

/// What happens to an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HtmlChange<Value> {
    /// An attribute gets a value, whether it was there or not.
    SetAttribute(String, Value),
    /// An attribute is taken away.
    RemoveAttribute(String),
    /// Something is put in or around it.
    Put(Spot, Markup, Value),
    /// It is taken away with what is in it.
    Remove,
}

/// Where something is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Before the element.
    Before,
    /// As its first content.
    Prepend,
    /// As its last content.
    Append,
    /// After the element.
    After,
    /// In the place of its content.
    Inner,
    /// In the place of the element.
    Replace,
}

/// How something is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Markup {
    /// As text: `<`, `>` and `&` are escaped.
    Text,
    /// As HTML, as it stands.
    Html,
}
