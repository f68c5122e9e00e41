//! The table of rules.

use super::{command, protocol, sql, traversal, xss};
use crate::limits::INJECTION_WINDOW_BYTES;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// SQL.
    Sqli,
    /// Script in a page.
    Xss,
    /// Files outside of what is served.
    Traversal,
    /// Programs, templates and expression languages of the server.
    Command,
    /// Header fields of a response or of a request further on.
    Header,
    /// Encodings and bodies that no honest client makes.
    Protocol,
}

impl Class {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqli => "sqli",
            Self::Xss => "xss",
            Self::Traversal => "traversal",
            Self::Command => "command",
            Self::Header => "header",
            Self::Protocol => "protocol",
        }
    }
}

/// In which of its forms a text is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// As it came, in lower case.
    Raw,
    /// Decoded, in lower case.
    Decoded,
    /// Decoded and folded to one spelling, with comments of SQL and without.
    Folded,
    /// The same, and as browsers read it as a URL.
    Url,
}

/// Where in a text a trigger was found, with at most [`INJECTION_WINDOW_BYTES`] of what stands on either side.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    /// The trigger.
    pub found: &'static str,
    /// What stands before it.
    pub before: &'a str,
    /// What stands behind it.
    pub after: &'a str,
}

impl<'a> At<'a> {
    /// The trigger `found` at byte `start` of a text, if it is there.
    pub(super) fn new(text: &'a str, start: usize, found: &'static str) -> Option<Self> {
        let (before, rest) = text.split_at_checked(start)?;
        let after = rest.strip_prefix(found)?;
        let first = before.ceil_char_boundary(before.len().saturating_sub(INJECTION_WINDOW_BYTES));
        let end = after.floor_char_boundary(INJECTION_WINDOW_BYTES);
        let (before, after) = (before.get(first..)?, after.get(..end)?);
        Some(Self { found, before, after })
    }
}

/// One injection rule.
#[derive(Debug)]
pub struct Rule {
    /// Id, as explanations and exclusions name it.
    pub id: &'static str,
    /// What it is about.
    pub class: Class,
    /// From which level of paranoia on it is applied, 1 to 4.
    pub paranoia: u8,
    /// What a hit adds: 5 is enough by itself by default.
    pub score: u32,
    /// The form of a text that it is searched in.
    pub(super) view: View,
    /// Texts of which one has to be there.
    pub(super) triggers: &'static [&'static str],
    /// Whether what stands around a trigger makes it a hit.
    pub(super) is_hit: fn(At<'_>) -> bool,
}

#[cfg(test)]
impl Rule {
    /// Whether its triggers can be found in its view: in lower case, none of them empty, none cut by folding.
    pub(crate) fn is_well_formed(&self) -> bool {
        let is_folded = matches!(self.view, View::Folded | View::Url);
        let folds = |text: &str| !is_folded || super::fold::fold(text).text == text;
        self.triggers.iter().all(|text| !text.is_empty() && *text == text.to_ascii_lowercase() && folds(text))
    }
}

/// A row of the table.
pub(super) const fn row(
    id: &'static str,
    class: Class,
    (paranoia, score): (u8, u32),
    view: View,
    triggers: &'static [&'static str],
    is_hit: fn(At<'_>) -> bool,
) -> Rule {
    Rule { id, class, paranoia, score, view, triggers, is_hit }
}

/// All injection rules.
pub const RULES: [&[Rule]; 5] =
    [&sql::RULES, &xss::RULES, &traversal::RULES, &command::RULES, &protocol::RULES];

/// A trigger that is enough wherever it stands.
pub(super) fn anywhere(_: At<'_>) -> bool {
    true
}

/// A trigger that is a word of its own.
pub(super) fn word(at: At<'_>) -> bool {
    begins_word(at) && !at.after.starts_with(is_of_word)
}

/// A trigger that does not go on from the word before it.
pub(super) fn begins_word(at: At<'_>) -> bool {
    !at.before.ends_with(is_of_word)
}

/// A trigger that is the name of a function being called.
pub(super) fn call(at: At<'_>) -> bool {
    begins_word(at) && at.after.trim_start().starts_with('(')
}

/// Whether a letter can be part of a name.
pub(super) fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The first `chars` letters of a text: no check reads on for ever.
pub(super) fn near(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// The first word of a text, and what follows it.
pub(super) fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|letter| !is_of_word(letter)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}
