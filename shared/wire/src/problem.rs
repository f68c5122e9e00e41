//! Problem details (RFC 9457): what every part says when something went wrong.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Media type of problem details.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// What the types of Meridian's own problems begin with.
pub const TYPE_BASE: &str = "https://meridian.example/problems/";

/// Problem details.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// URI that names the kind of problem.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The kind in a few words.
    #[serde(default)]
    pub title: String,
    /// Status code.
    #[serde(default)]
    pub status: u16,
    /// What is the matter this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Id of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Members that only this kind of problem has.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Problem {
    /// A problem whose type is [`TYPE_BASE`] and the slug.
    #[must_use]
    pub fn new(slug: &str, title: &str, status: u16) -> Self {
        Self {
            kind: format!("{TYPE_BASE}{slug}"),
            title: title.to_owned(),
            status,
            detail: None,
            decision: None,
            more: Map::new(),
        }
    }

    /// With what is the matter this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the type is [`TYPE_BASE`] and this slug.
    #[must_use]
    pub fn is(&self, slug: &str) -> bool {
        self.kind.strip_prefix(TYPE_BASE) == Some(slug)
    }
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_written() {
        let problem =
            Problem::new("behind", "The region is behind", 503).detail("wait").with("region", "eu-west-1");
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"https://meridian.example/problems/behind""#), "{text}");
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
        assert!(problem.is("behind"));
        assert_eq!(serde_json::from_str::<Problem>("{}").unwrap().kind, "about:blank");
    }
}
