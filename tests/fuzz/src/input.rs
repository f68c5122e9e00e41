//! How bytes are read as what a target needs.

use std::borrow::Cow;

/// Text: what is no UTF-8 becomes replacement characters.
pub(crate) fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// The head of a request as the fuzzer writes it: a line of method, host and target, then lines `name: value` up to an empty
/// one, then the body. What stands between the line ends is taken as it is, odd as it may be.
pub(crate) struct Head<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub fields: Vec<(&'a str, &'a str)>,
    pub body: &'a str,
}

/// The head of a response and its body as the fuzzer writes them: a line of `HTTP` and a status, then as [`Head`].
pub(crate) struct Answered<'a> {
    pub status: u16,
    pub fields: Vec<(&'a str, &'a str)>,
    pub body: &'a str,
}

impl<'a> Answered<'a> {
    /// The response that an input begins with, where it does, and the rest of the input.
    pub(crate) fn before(text: &'a str) -> (Option<Self>, &'a str) {
        let (first, rest) = text.split_once("\n%%\n").unwrap_or((text, ""));
        let Some(response) = first.strip_prefix("HTTP ") else { return (None, text) };
        let (head, body) = response.split_once("\n\n").unwrap_or((response, ""));
        let mut lines = head.split('\n');
        let status = lines.next().and_then(|status| status.parse().ok()).unwrap_or(0);
        (Some(Self { status, fields: fields(lines), body }), rest)
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    lines.map(|line| line.split_once(": ").unwrap_or((line, ""))).collect()
}

impl<'a> Head<'a> {
    /// The head and what follows it: after a line of `%%` comes the next one.
    pub(crate) fn all(text: &'a str) -> impl Iterator<Item = Self> {
        text.split("\n%%\n").map(Self::of)
    }

    pub(crate) fn of(text: &'a str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.split('\n');
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        let (method, host) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let target = words.next().unwrap_or_default();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Self { method, host, path, query, fields: fields(lines), body }
    }
}
