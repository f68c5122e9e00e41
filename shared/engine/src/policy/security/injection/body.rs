//! What a body carries, value by value, as far as it is at hand: forms, JSON and plain text.

mod json;
mod multipart;

use std::borrow::Cow;

use super::Spot;
use crate::facts::{BodySize, Facts, percent_decode};
use crate::limits::INJECTION_BODY_VALUES_MAX;

/// How a body is read, by what the header fields say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `application/x-www-form-urlencoded` (URL standard, section 5).
    Form,
    /// `application/json` and every type of its suffix (RFC 8259; RFC 6839, section 3.1).
    Json,
    /// `multipart/form-data` (RFC 7578) with this boundary.
    Multipart(String),
    /// `text/plain`.
    Text,
    /// Nobody can say: one server may read it in another way than the next.
    Ambiguous,
    /// Not at all, and why not.
    Unread(&'static str),
}

/// Why the reading of a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is not what its type says.
    Malformed,
    /// There are more values than are looked at.
    Full,
}

/// Takes the values of a body.
pub(super) struct Values<'l> {
    look: &'l mut dyn FnMut(&Spot<'_>, &str, bool),
    left: usize,
}

impl Kind {
    /// How the body of a request is read; `None` where there is no body.
    pub fn of(facts: &Facts) -> Option<Self> {
        (facts.body != BodySize::Empty).then(|| Self::by_fields(facts))
    }

    /// Whether something of the body has to be at hand.
    pub fn is_read(&self) -> bool {
        !matches!(self, Self::Ambiguous | Self::Unread(_))
    }

    fn by_fields(facts: &Facts) -> Self {
        let is_plain = |coding: &str| coding.trim().eq_ignore_ascii_case("identity");
        if !facts.headers.get_all("content-encoding").all(is_plain) {
            return Self::Unread("in a content coding: not looked at");
        }
        let Some(field) = facts.headers.joined("content-type") else {
            return Self::Unread("of no type: not looked at");
        };
        let (essence, rest) =
            field.split_at_checked(field.find(';').unwrap_or(field.len())).unwrap_or_default();
        if essence.contains(',') {
            return Self::Ambiguous;
        }
        let kind = match essence.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            "text/plain" => Self::Text,
            "multipart/form-data" => Self::Multipart(String::new()),
            json if json == "application/json" || json.ends_with("+json") => Self::Json,
            _ => return Self::Unread("of another type: not looked at"),
        };
        let Some(parameters) = parameters(rest) else { return Self::Ambiguous };
        let known = ["utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252"];
        let charset = one(&parameters, "charset");
        if !charset
            .is_none_or(|charset| charset.is_some_and(|name| known.contains(&&*name.to_ascii_lowercase())))
        {
            return Self::Ambiguous;
        }
        match (kind, one(&parameters, "boundary")) {
            (Self::Multipart(_), Some(Some(boundary))) if !boundary.is_empty() => {
                Self::Multipart(boundary.to_owned())
            }
            (Self::Multipart(_), _) => Self::Ambiguous,
            (kind, _) => kind,
        }
    }

    /// Reads the values of a body in order. Of one that is not here whole, what its end cuts in two is no error.
    pub fn read(&self, bytes: &[u8], whole: bool, mut values: Values<'_>) -> Result<(), End> {
        let text = || String::from_utf8_lossy(bytes);
        match self {
            Self::Form => form(&text(), whole, &mut values),
            Self::Json => json::read(bytes, whole, &mut values),
            Self::Multipart(boundary) => multipart::read(&text(), boundary, whole, &mut values),
            Self::Text => values.value("", &text(), false),
            Self::Ambiguous => Err(End::Malformed),
            Self::Unread(_) => Ok(()),
        }
    }
}

impl<'l> Values<'l> {
    pub fn new(look: &'l mut dyn FnMut(&Spot<'_>, &str, bool)) -> Self {
        Self { look, left: INJECTION_BODY_VALUES_MAX }
    }

    /// A name; with `plus`, a `+` in it is a space.
    fn name(&mut self, name: &str, plus: bool) -> Result<(), End> {
        self.look(&Spot::BodyName, name, plus)
    }

    /// The value of this name.
    fn value(&mut self, name: &str, value: &str, plus: bool) -> Result<(), End> {
        self.look(&Spot::Body(Cow::Borrowed(name)), value, plus)
    }

    fn look(&mut self, spot: &Spot<'_>, text: &str, plus: bool) -> Result<(), End> {
        self.left = self.left.checked_sub(1).ok_or(End::Full)?;
        (self.look)(spot, text, plus);
        Ok(())
    }
}

fn form(text: &str, whole: bool, values: &mut Values<'_>) -> Result<(), End> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        values.name(name, true)?;
        values.value(&percent_decode(name, true), value, true)?;
    }
    if is_encoded(text, whole) { Ok(()) } else { Err(End::Malformed) }
}

/// Whether every `%` of a form has its two digits, and no control character stands in it but those of a line's end.
fn is_encoded(text: &str, whole: bool) -> bool {
    let is_digits = |code: &str| {
        let digits = code.get(..2).unwrap_or(code);
        let is_cut = digits.len() < 2 && !whole;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()) && (digits.len() == 2 || is_cut)
    };
    let is_text = |letter: char| !letter.is_control() || matches!(letter, '\r' | '\n' | '\t');
    // Only the last code can be cut: another one is followed by what begins the next.
    text.chars().all(is_text)
        && text.match_indices('%').all(|(at, _)| text.get(at + 1..).is_some_and(is_digits))
}

/// The parameters of a field's value (RFC 9110, section 5.6.6), names in lower case; `None` where they can't be read.
fn parameters(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    while let Some(rest) = text.trim_start().strip_prefix(';') {
        text = rest.trim_start();
        if text.is_empty() || text.starts_with(';') {
            continue;
        }
        let (name, rest) = text.split_once('=')?;
        let (value, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, behind) = rest.split_at_checked(rest.find(';').unwrap_or(rest.len()))?;
                (value.trim().to_owned(), behind)
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        text = behind;
    }
    text.trim().is_empty().then_some(found)
}

/// A quoted text up to its closing quote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' if text.get(at + 1..).is_some_and(|rest| rest.starts_with(['"', '\\'])) => {
                value.extend(letters.next().map(|(_, letter)| letter));
            }
            _ => value.push(letter),
        }
    }
    None
}

/// The parameter of a name: `Some(None)` where it occurs more than once.
fn one<'a>(parameters: &'a [(String, String)], name: &str) -> Option<Option<&'a str>> {
    let mut found = parameters.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let first = found.next()?;
    Some(Some(first).filter(|_| found.next().is_none()))
}

#[cfg(test)]
mod tests;
