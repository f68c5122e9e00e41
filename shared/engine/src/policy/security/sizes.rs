//! How large a request may be, below what the platform takes of any.

use super::{Inputs, Refusal};
use crate::facts::{BodySize, Facts};
use crate::ruleset::Mode;

/// Limits on the size of a request; none is no limit beside the platform's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// What a hit does.
    pub mode: Mode,
    /// Bytes of the path, percent-encoded.
    pub path_bytes_max: Option<u64>,
    /// Bytes of the query, percent-encoded, without its `?`.
    pub query_bytes_max: Option<u64>,
    /// Header fields, without those that belong to the connection.
    pub headers_max: Option<u64>,
    /// Bytes of the names and values of these fields together.
    pub header_bytes_max: Option<u64>,
    /// Bytes of the body. A body whose length is not told beforehand can't be held to it, and is hit.
    pub body_bytes_max: Option<u64>,
}

const URI_TOO_LONG: Refusal =
    Refusal { status: 414, slug: "uri-too-long", title: "The URL is longer than is taken here" };
const HEADERS_TOO_LARGE: Refusal = Refusal {
    status: 431,
    slug: "headers-too-large",
    title: "The header fields are larger than is taken here",
};
const BODY_TOO_LARGE: Refusal =
    Refusal { status: 413, slug: "body-too-large", title: "The body is larger than is taken here" };
const LENGTH_REQUIRED: Refusal = Refusal {
    status: 411,
    slug: "length-required",
    title: "The length of the body has to be told beforehand",
};

impl Sizes {
    /// The first limit that a request is beyond (RFC 9110, sections 15.5.12, 15.5.14 and 15.5.15; RFC 6585, section 5).
    pub(super) fn exceeded(&self, facts: &Facts) -> Option<(&'static str, Inputs, Refusal)> {
        let bytes = |text: &str| Some(text.len() as u64);
        let fields = &facts.headers;
        let field_bytes = || fields.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
        let (body, of_body) = match facts.body {
            BodySize::Empty => (Some(0), BODY_TOO_LARGE),
            BodySize::Bytes(bytes) => (Some(bytes), BODY_TOO_LARGE),
            BodySize::Unknown => (None, LENGTH_REQUIRED),
        };
        let query = facts.query.as_deref().unwrap_or_default();
        let limits = [
            ("path too long", self.path_bytes_max, bytes(&facts.path), URI_TOO_LONG),
            ("query too long", self.query_bytes_max, bytes(query), URI_TOO_LONG),
            ("too many header fields", self.headers_max, Some(fields.len() as u64), HEADERS_TOO_LARGE),
            (
                "header fields too large",
                self.header_bytes_max,
                self.header_bytes_max.map(|_| field_bytes()),
                HEADERS_TOO_LARGE,
            ),
            ("body too large", self.body_bytes_max, body, of_body),
        ];
        limits.into_iter().find_map(|(what, max, found, refusal)| {
            let max = max?;
            let what = if found.is_none() { "body of unknown length" } else { what };
            let found_text = found.map_or_else(|| "unknown".to_owned(), |found| found.to_string());
            let is_beyond = found.is_none_or(|found| found > max);
            is_beyond.then(|| (what, vec![("size", found_text), ("max", max.to_string())], refusal))
        })
    }
}
