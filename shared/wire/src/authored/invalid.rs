//! What is wrong with authored documents, for people: where, what was found, what was expected, what was perhaps meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong with the files of a push.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Invalid {
    /// File, as it was pushed.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Path in the document, `spec.match.path`; empty for the document as a whole.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// The nearest name that would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Something odd that does not keep the documents from working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// File, as it was pushed.
    pub file: String,
    /// Line at which the document begins, from 1.
    pub line: u32,
    /// What is odd.
    pub what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, path, found, expected, suggestion } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "found {found}, expected {expected}")?;
        match suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion:?}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        write!(f, "{file}:{line}: {what}")
    }
}

/// Keeps no more than so much of what is told; the last one says how many more there are.
pub(super) fn limit<T>(told: &mut Vec<T>, told_max: usize, text: impl Fn(&mut T) -> &mut String) {
    let more = told.len().saturating_sub(told_max);
    told.truncate(told_max);
    if let Some(last) = told.last_mut().filter(|_| more > 0) {
        text(last).push_str(&format!(" ({more} more are not shown)"));
    }
}

/// The name that is nearest to what was found, if one is near enough to have been meant.
#[must_use]
pub fn nearest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = |name: &'a str| {
        let distance = strsim::osa_distance(&found.to_lowercase(), &name.to_lowercase());
        let longest = found.chars().count().max(name.chars().count());
        (distance * 3 <= longest.max(3)).then_some((distance, name))
    };
    names.into_iter().take(1_000).filter_map(near).min().map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_proposed() {
        let names = ["methods", "path", "hosts", "when"];
        assert_eq!(nearest("method", names).as_deref(), Some("methods"));
        assert_eq!(nearest("Paht", names).as_deref(), Some("path"));
        assert_eq!(nearest("upstream", names), None);
    }
}
