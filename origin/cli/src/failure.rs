//! Why a command did not do what it was asked, and the exit code that says so.

use std::io;
use std::path::{Path, PathBuf};

use meridian_wire::authored::Invalid;
use serde_json::{Value, json};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A check failed; what was wrong is printed already.
    #[error("{what}")]
    Failed {
        /// In a few words.
        what: String,
        /// The same for machines.
        json: Value,
    },
    /// The server refused.
    #[error("{what}")]
    Refused {
        /// In a few words.
        what: String,
        /// Status of its answer.
        status: u16,
        /// The problem as the server told it.
        problem: Value,
    },
    /// The command was not used rightly.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server is away or failed.
    #[error("{0}")]
    Server(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Refused { .. } => 1,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Server(_) => 3,
        }
    }

    /// The failure for machines.
    pub fn json(&self) -> Option<Value> {
        match self {
            Self::Failed { json, .. } => Some(json.clone()),
            Self::Refused { problem, .. } => Some(json!({ "error": self.to_string(), "problem": problem })),
            Self::Usage(_) | Self::File { .. } | Self::Server(_) => {
                Some(json!({ "error": self.to_string() }))
            }
        }
    }

    /// Documents are not right.
    pub fn invalid(text: String, invalid: &[Invalid]) -> Self {
        Self::Failed { what: text, json: json!({ "valid": false, "errors": invalid }) }
    }

    /// A file could not be read or written.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }

    /// Whether the server said that there is no such thing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
