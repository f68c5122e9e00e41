//! A bundle: the documents of one target as an edge gets them, content-addressed by the SHA-256 of its bytes.
//!
//! Its bytes are JSON, `{"format": 1, "target": …, "documents": […]}`, documents ordered by kind and name, so that the same
//! documents from the same places are the same bytes. Reading one is total and bounded: whatever is wrong with it is an
//! [`InvalidBundle`], and the edge keeps what it has.

mod compile;
mod key;
pub(crate) mod networks;
mod order;

#[cfg(feature = "documents")]
pub(crate) use compile::BLANK;
#[cfg(feature = "documents")]
pub(crate) use compile::compile_push;
#[cfg(feature = "documents")]
pub(crate) use compile::network;
pub use compile::{Flaw, compile};

use meridian_engine::ruleset::{Platform, Ruleset, Target, Version};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::encoding::version;
use crate::limits::{BUNDLE_BYTES_MAX, DOCUMENTS_MAX};

/// The one format of bundles.
pub const FORMAT: u32 = 1;

/// The documents of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The target, as [`Target`] prints itself.
    pub target: String,
    /// Documents.
    pub documents: Vec<Document>,
}

/// What a bundle turns out to be.
#[derive(Clone, Debug)]
pub enum Rules {
    /// Regions that all tenants share.
    Platform(Platform),
    /// One tenant's rules.
    Tenant(Box<Ruleset>),
}

/// Why the bytes are no bundle that may be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// Too many bytes.
    #[error("the bundle has {found} bytes, {BUNDLE_BYTES_MAX} are the limit (BUNDLE_BYTES_MAX)")]
    TooLarge {
        /// How many there are.
        found: usize,
    },
    /// Not JSON of a bundle's shape.
    #[error("the bundle is not readable: {0}")]
    Unreadable(String),
    /// Another format.
    #[error("the bundle has format {found}, expected {FORMAT}")]
    Format {
        /// The format.
        found: u32,
    },
    /// Of another target.
    #[error("the bundle is for {found:?}, expected {expected:?}")]
    Target {
        /// The target.
        found: String,
        /// The target that was asked for.
        expected: String,
    },
    /// Too many documents.
    #[error("the bundle has {found} documents, {DOCUMENTS_MAX} are the limit (DOCUMENTS_MAX)")]
    TooManyDocuments {
        /// How many there are.
        found: usize,
    },
    /// Documents that don't hold together.
    #[error("{} of {:?} at {}:{}: {}", .0.kind, .0.name, .0.file, .0.line, .0.flaw)]
    Flawed(Box<FlawedDocument>),
    /// The ticket is not written as one.
    #[error("the ticket of the bundle is malformed")]
    Ticket,
    /// Signed by a key that is not trusted.
    #[error("the ticket of the bundle is signed by the unknown key {0:?}")]
    UnknownKey(String),
    /// The signature is wrong.
    #[error("the signature of the bundle's ticket is wrong")]
    BadSignature,
    /// The bytes are not those that were signed.
    #[error("the bundle's bytes are not those that its ticket is for")]
    Hash,
    /// Older than what is in force.
    #[error("the bundle has sequence {found}, older than {have} which is in force")]
    Older {
        /// Sequence of the bundle.
        found: u64,
        /// Sequence in force.
        have: u64,
    },
    /// Another content under a sequence that is in force.
    #[error("the bundle has other content than the one in force with the same sequence {sequence}")]
    SameSequence {
        /// The sequence.
        sequence: u64,
    },
}

/// The first document of a bundle that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlawedDocument {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
    /// What is wrong.
    pub flaw: Flaw,
}

impl Bundle {
    /// A bundle of these documents, in the order of a bundle.
    #[must_use]
    pub fn new(target: &Target, mut documents: Vec<Document>) -> Self {
        documents.sort_by(|a, b| {
            (a.body.kind(), &a.metadata.name, &a.source.file, a.source.line).cmp(&(
                b.body.kind(),
                &b.metadata.name,
                &b.source.file,
                b.source.line,
            ))
        });
        Self { format: FORMAT, target: target.to_string(), documents }
    }

    /// The bytes of the bundle.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in a document can fail to be JSON: its maps have text as keys.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the documents of a bundle, within the limits, and no more.
    ///
    /// # Errors
    /// Where the bytes are too many or of another shape, format or target.
    pub fn read(bytes: &[u8], target: &Target) -> Result<Self, InvalidBundle> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(InvalidBundle::TooLarge { found: bytes.len() });
        }
        let bundle: Self =
            serde_json::from_slice(bytes).map_err(|error| InvalidBundle::Unreadable(error.to_string()))?;
        if bundle.format != FORMAT {
            return Err(InvalidBundle::Format { found: bundle.format });
        }
        if bundle.target != target.to_string() {
            return Err(InvalidBundle::Target { found: bundle.target, expected: target.to_string() });
        }
        if bundle.documents.len() > DOCUMENTS_MAX {
            return Err(InvalidBundle::TooManyDocuments { found: bundle.documents.len() });
        }
        Ok(bundle)
    }

    /// Reads a bundle and makes rules of it. The version's hash must be that of the bytes.
    ///
    /// # Errors
    /// Where anything about it is wrong: it must not be put in force then.
    pub fn parse(bytes: &[u8], target: &Target, sequence: u64) -> Result<Rules, InvalidBundle> {
        let bundle = Self::read(bytes, target)?;
        let release = Version { sequence, hash: version(bytes) };
        compile(&bundle.documents, target, release).map_err(|flaws| bundle.flawed(flaws))
    }

    fn flawed(&self, flaws: Vec<Flaw>) -> InvalidBundle {
        let first = flaws.into_iter().next().unwrap_or_else(Flaw::unknown);
        let document = self.documents.get(first.document);
        InvalidBundle::Flawed(Box::new(FlawedDocument {
            kind: document.map_or("Bundle", |document| document.body.kind()),
            name: document.map_or_else(|| self.target.clone(), |document| document.metadata.name.clone()),
            file: document.map(|document| document.source.file.clone()).unwrap_or_default(),
            line: document.map_or(0, |document| document.source.line),
            flaw: first,
        }))
    }
}

impl Rules {
    /// Release that they come from.
    #[must_use]
    pub fn version(&self) -> &Version {
        match self {
            Self::Platform(platform) => &platform.version,
            Self::Tenant(ruleset) => &ruleset.version,
        }
    }
}
