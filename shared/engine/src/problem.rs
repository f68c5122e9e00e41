//! What a client is told when something went wrong: problem details (RFC 9457).

use std::borrow::Cow;

use serde::Serialize;

use crate::headers::Headers;

/// Media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";
const BASE: &str = "https://meridian.example/problems/";

/// A problem as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status code.
    pub status: u16,
    /// `type`: a URI.
    pub kind: Cow<'static, str>,
    /// `title`: the same for every problem of its type.
    pub title: &'static str,
    /// `detail`: what is special about this one.
    pub detail: Option<String>,
    /// `violated-policies` of a rate limit's problem (draft-ietf-httpapi-ratelimit-headers-11).
    pub violated: Vec<String>,
    /// Header fields beside `Content-Type` and `Cache-Control`.
    pub headers: Headers,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "<[String]>::is_empty")]
    violated: &'a [String],
    decision: &'a str,
}

impl Problem {
    /// A problem of one of the platform's own types, by the last part of its URI.
    #[must_use]
    pub fn new(status: u16, slug: &str, title: &'static str) -> Self {
        Self {
            status,
            kind: Cow::Owned(format!("{BASE}{slug}")),
            title,
            detail: None,
            violated: Vec::new(),
            headers: Headers::default(),
        }
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with one more header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The body, with the id of the decision.
    #[must_use]
    pub fn body(&self, decision: &str) -> Vec<u8> {
        let body = Body {
            r#type: &self.kind,
            title: self.title,
            status: self.status,
            detail: self.detail.as_deref(),
            violated: &self.violated,
            decision,
        };
        // Texts and a number always have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_the_standard_and_the_decision() {
        let problem = Problem::new(404, "no-route", "No route").detail("a \"path\"");
        let expect = "{\"type\":\"https://meridian.example/problems/no-route\",\"title\":\"No route\",\
                      \"status\":404,\"detail\":\"a \\\"path\\\"\",\"decision\":\"ID\"}";
        assert_eq!(String::from_utf8(problem.body("ID")).unwrap(), expect);
    }
}
