//! Rule documents as people write them: files of YAML or JSON become a checked bundle, or everything that is wrong with
//! them is said at once.
//!
//! Native only. What comes out carries conditions as checked trees, so that an edge needs neither YAML nor CEL.
//!
//! # Conditions
//! A subset of CEL: the facts (`request.method`, `.scheme`, `.host`, `.path`, `.query`; entries of `request.params`, `.headers`,
//! `.cookies`, `.captures`; `client.address`, `client.device` (`mobile`, `tablet`, `desktop`, `bot`), `client.language`; `place.country`, `.continent`, `.subdivision`, `.city`, `.timezone`, `.asn`;
//! `auth.subject`, `auth.scopes`, entries of `auth.claims`; entries of `variants`; entries of `segments`; `tenant.slug`, `.parent`; `now`); literals of text, numbers,
//! `true`, `false`, `null` and lists; `!`, `&&`, `||`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `? :`; `has(…)`; `startsWith`, `endsWith`,
//! `contains`, `lowerAscii`, `size` and `inNetwork(address, network)`. `"NAME" in request.headers` is whether there is such an
//! entry. What is not there is `null`. Anything else is refused when it is read, with its name and place.
//!
//! The pipeline finds the route, answers preflights and redirects, checks the token, counts limits, then gives variants. A
//! condition may ask for what is known by then: `auth` not in a route's match, nor in a transform that redirects or shares
//! across origins; `variants` not there either, nor in what auth and limits ask. `segments` are judged by what their own
//! conditions ask for.

mod cel;
mod check;
mod components;
mod conditions;
mod diff;
mod invalid;
mod lint;
mod located;
mod nesting;
mod networks;
mod owners;
mod plan;
mod reading;
mod schema;
mod stages;
mod trial;

pub use components::component_bytes;
pub use diff::{Change, Diff, FieldChange, OwnerChange, diff};
pub use invalid::{Invalid, Warning, nearest};
pub use schema::{KINDS, schemas};
pub use trial::{
    Answered, Expectation, IdentitySpec, OriginAnswer, OriginWord, PlaceSpec, RequestSpec, TestFailure,
    TestReport, TestSpec, Trial, run_tests,
};

use std::string::FromUtf8Error;

use meridian_engine::ruleset::{Target, Version};

use self::located::Node;
use self::reading::Reading;
use crate::bundle::{Bundle, Rules, compile_push};
use crate::document::{Document, Source};
use crate::encoding::version;
use crate::limits::{BUNDLE_BYTES_MAX, WARNINGS_MAX};

/// What a file of a push holds, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Documents, in YAML or JSON.
    Documents,
    /// A list of networks (`.netset`, `.ipset`).
    Networks,
    /// A list of autonomous systems (`.asnset`).
    Asns,
    /// A component of a function (`.wasm`), in base64.
    Component,
}

/// What a file of this name holds.
#[must_use]
pub fn kind_of(path: &str) -> FileKind {
    if let Some(kind) = networks::list_kind(path) {
        kind
    } else if components::is_component(path) {
        FileKind::Component
    } else {
        FileKind::Documents
    }
}

/// A file of a push, by the name that errors and explanations call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path, relative to what is pushed.
    pub path: String,
    /// Content; of a component, base64.
    pub content: String,
}

impl File {
    /// A file with these bytes.
    ///
    /// # Errors
    /// Where they are to be text and are none.
    pub fn of(path: String, bytes: Vec<u8>) -> Result<Self, FromUtf8Error> {
        let content = match kind_of(&path) {
            FileKind::Component => components::content(&bytes),
            FileKind::Documents | FileKind::Networks | FileKind::Asns => String::from_utf8(bytes)?,
        };
        Ok(Self { path, content })
    }

    /// What it holds, by its name.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        kind_of(&self.path)
    }
}

/// A test that stands beside the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Name.
    pub name: String,
    /// Where it stands.
    pub source: Source,
    /// What it says.
    pub spec: TestSpec,
}

/// Files that hold together.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The documents of the bundle, in its order.
    pub documents: Vec<Document>,
    /// The bundle's bytes.
    pub bytes: Vec<u8>,
    /// The bundle's version.
    pub version: String,
    /// The rules as the engine takes them; their sequence is 0.
    pub rules: Rules,
    /// Tests, in the order of the files.
    pub tests: Vec<Test>,
    /// What is odd, up to [`WARNINGS_MAX`].
    pub warnings: Vec<Warning>,
}

impl Compiled {
    /// What of it is beyond the plan of the tenant. A release that was made before a plan was changed goes on serving: only
    /// what is pushed has to be within it.
    #[must_use]
    pub fn beyond_plan(&self) -> Vec<Invalid> {
        plan::beyond(&self.documents, self.bytes.len())
    }
}

/// Makes a bundle of files. `generated` are the `Tenant` and `Domain` documents that the control plane makes from its
/// tables; they stand in the place of those in the files. Without them, as offline, the files' own count, and what is beyond
/// their plan is wrong.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines, up to [`INVALID_MAX`](crate::limits::INVALID_MAX).
pub fn compile(
    target: &Target,
    files: &[File],
    generated: Option<&[Document]>,
) -> Result<Compiled, Vec<Invalid>> {
    let mut reading = Reading::default();
    reading.files(files);
    let mut warnings = Vec::new();
    if let Some(generated) = generated {
        reading.replace(generated, &mut warnings);
    }
    reading.lists(files);
    reading.components(files);
    reading.conditions(files);
    reading.selectors();
    let bundle = Bundle::new(target, std::mem::take(&mut reading.documents));
    let bytes = bundle.to_bytes();
    if bytes.len() > BUNDLE_BYTES_MAX {
        let found = format!("a bundle of {} bytes", bytes.len());
        reading.whole(files, found, format!("at most {BUNDLE_BYTES_MAX} bytes (BUNDLE_BYTES_MAX)"));
    }
    if generated.is_none() {
        reading.invalid.extend(plan::beyond(&bundle.documents, bytes.len()));
    }
    let release = Version { sequence: 0, hash: version(&bytes) };
    match compile_push(&bundle.documents, target, release) {
        Ok(rules) if reading.invalid.is_empty() => {
            warnings.extend(lint::lint(&bundle.documents, &rules));
            warnings.sort();
            invalid::limit(&mut warnings, WARNINGS_MAX, |warning| &mut warning.what);
            let (version, tests) = (version(&bytes), reading.tests);
            Ok(Compiled { documents: bundle.documents, bytes, version, rules, tests, warnings })
        }
        Ok(_) => Err(reading.finish()),
        Err(flaws) => {
            for flaw in flaws {
                reading.flaw(files, &bundle.documents, flaw);
            }
            Err(reading.finish())
        }
    }
}

/// The target that files are for, as far as their kinds tell: the `Tenant` among them, or the platform where there are
/// regions.
#[must_use]
pub fn target_of(files: &[File]) -> Option<Target> {
    let documents = files.iter().filter(|file| file.kind() == FileKind::Documents);
    let documents = documents.filter_map(|file| located::read(&file.path, &file.content).ok()).flatten();
    let target = |node: Node| match node.member("kind").and_then(Node::text) {
        Some("Tenant") => {
            let name = node.member("metadata")?.member("name").and_then(Node::text)?;
            Some(Target::Tenant(name.to_owned()))
        }
        Some("Region") => Some(Target::Platform),
        _ => None,
    };
    documents.filter_map(target).next()
}
