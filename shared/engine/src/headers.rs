//! Header fields of a request or response, in the order in which they arrived.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Header fields in order. Names are lower-case; a name may occur more than once (RFC 9110, section 5.2).
///
/// Names and values stand in one text, so that copying all of them takes two allocations.
#[derive(Clone, Default)]
pub struct Headers {
    text: String,
    fields: Vec<Field>,
}

/// Where a field stands in the text: its name, and right after it its value.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    name_bytes: usize,
    value_bytes: usize,
}

impl Headers {
    /// No header fields, with room for `capacity` of them.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { text: String::with_capacity(capacity * 32), fields: Vec::with_capacity(capacity) }
    }

    /// Makes room for `fields` more fields of `bytes` together.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.fields.reserve(fields);
        self.text.reserve(bytes);
    }

    /// Bytes of all names and values that were ever appended.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Appends a field, keeping those that are there. The name is folded to lower case.
    pub fn append(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let (start, name, value) = (self.text.len(), name.as_ref(), value.as_ref());
        self.text.reserve(name.len() + value.len());
        self.text.push_str(name);
        if let Some(name) = self.text.get_mut(start..) {
            name.make_ascii_lowercase();
        }
        self.text.push_str(value);
        self.fields.push(Field { start, name_bytes: name.len(), value_bytes: value.len() });
    }

    /// Appends a field whose value is written without a text of its own.
    pub fn append_display(&mut self, name: &str, value: impl fmt::Display) {
        self.append(name, "");
        let start = self.text.len();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{value}");
        let value_bytes = self.text.len() - start;
        if let Some(field) = self.fields.last_mut() {
            field.value_bytes = value_bytes;
        }
    }

    /// Sets a field to one value, in the place of all that had its name.
    pub fn set(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let text = &self.text;
        self.fields.retain(|field| !field.name(text).eq_ignore_ascii_case(name.as_ref()));
        self.append(name, value);
    }

    /// Sets a field to a value that is written without a text of its own.
    pub fn set_display(&mut self, name: &str, value: impl fmt::Display) {
        self.remove(name);
        self.append_display(name, value);
    }

    /// Removes every field of this name (given in lower case).
    pub fn remove(&mut self, name: &str) {
        self.retain(|have, _| have != name);
    }

    /// The first value of a field (name in lower case).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// Every value of a field, in order (name in lower case).
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |field| field.name_bytes == name.len() && field.name(&self.text) == name)
            .map(|field| field.value(&self.text))
    }

    /// The value of a field, which on several lines is theirs joined by `", "` (RFC 9110, section 5.2), as some hosts hand it
    /// over; `None` where the field is absent. Borrowed where there is one line.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut lines = self.get_all(name);
        let first = lines.next()?;
        Some(lines.fold(Cow::Borrowed(first), |all, line| all + ", " + line))
    }

    /// All values of a list-based field joined by `", "` (RFC 9110, section 5.3), or `None` where the field is absent.
    #[must_use]
    pub fn joined(&self, name: &str) -> Option<String> {
        self.value(name).map(Cow::into_owned)
    }

    /// Every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| (field.name(&self.text), field.value(&self.text)))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let text = &self.text;
        self.fields.retain(|field| keep(field.name(text), field.value(text)));
    }
}

impl Field {
    fn name(self, text: &str) -> &str {
        text.get(self.start..self.start + self.name_bytes).unwrap_or_default()
    }

    fn value(self, text: &str) -> &str {
        let start = self.start + self.name_bytes;
        text.get(start..start + self.value_bytes).unwrap_or_default()
    }
}

/// The same fields in the same order.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let fields = fields.into_iter();
        let mut headers = Self::with_capacity(fields.size_hint().0);
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }
}

/// Fields that belong to one connection, whatever `Connection` says (RFC 9110, section 7.6.1), and those that belong
/// to a proxy (section 11.7).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
];

impl Headers {
    /// Removes what belongs to one connection only: `Connection`, the fields that it names, and the known others.
    pub fn strip_hop_by_hop(&mut self) {
        let named: Vec<String> = self
            .get_all("connection")
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !HOP_BY_HOP.contains(&name.as_str()))
            .collect();
        self.retain(|name, _| !HOP_BY_HOP.contains(&name) && !named.iter().any(|named| named == name));
    }
}

/// Members of a list, as a list-based field has them (RFC 9110, section 5.6.1).
pub(crate) fn joined<T>(
    members: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        members.iter().enumerate().try_for_each(|(at, member)| {
            f.write_str(if at == 0 { "" } else { ", " })?;
            write(f, member)
        })
    })
}

/// Whether a name can be a header field's: a token in lower case (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| is_token(byte) && !byte.is_ascii_uppercase())
}

/// Whether two names, in lower case, are one to targets that read fields as variables, whose names have `_` for `-` (RFC 3875,
/// section 4.1.18) and, in PHP, for `.` as well.
#[must_use]
pub(crate) fn is_one_variable(name: &str, other: &str) -> bool {
    let folded = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte };
    name.len() == other.len() && name.bytes().map(folded).eq(other.bytes().map(folded))
}

/// A name as it is spelled in fields that have another name to nobody: with `-` for what [`is_one_variable`] takes for it.
#[must_use]
pub(crate) fn hyphened(name: &str) -> Cow<'_, str> {
    if name.contains(['_', '.']) { Cow::Owned(name.replace(['_', '.'], "-")) } else { Cow::Borrowed(name) }
}

/// Whether a character can be part of a token (RFC 9110, section 5.6.2).
#[must_use]
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether a value can be a header field's: no control characters but tabs (RFC 9110, section 5.5).
#[must_use]
pub fn is_field_value(value: &str) -> bool {
    // Without an early end, so that it goes by many bytes at once.
    !value.bytes().fold(false, |odd, byte| odd | ((byte < b' ' && byte != b'\t') | (byte == 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_order_is_kept() {
        let mut headers = Headers::from_iter([("Accept", "a"), ("X-One", "1"), ("accept", "b")]);
        assert_eq!(headers.joined("accept").as_deref(), Some("a, b"));
        headers.set("ACCEPT", "c");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("x-one", "1"), ("accept", "c")]);
    }

    #[test]
    fn what_belongs_to_one_connection_is_stripped() {
        let mut headers = Headers::from_iter([
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        headers.strip_hop_by_hop();
        assert_eq!(headers, Headers::from_iter([("accept", "*/*")]));
    }

    #[test]
    fn some_names_are_one_variable() {
        assert!(is_one_variable("x-a_b.c", "x_a-b_c") && is_one_variable("accept", "accept"));
        assert!(!is_one_variable("x-a", "x-a-") && !is_one_variable("x-a", "x-b"));
        assert_eq!((&*hyphened("x_a.b"), &*hyphened("accept")), ("x-a-b", "accept"));
    }

    #[test]
    fn names_and_values_of_fields() {
        assert!(is_field_name("x-a.b_c"));
        for odd in ["", "X-Upper", "a b", "a:", "ä", "a\n"] {
            assert!(!is_field_name(odd), "{odd:?}");
        }
        assert!(is_field_value("a\tb é"));
        for odd in ["a\r", "a\nb", "a\0", "\u{7f}"] {
            assert!(!is_field_value(odd), "{odd:?}");
        }
    }
}
