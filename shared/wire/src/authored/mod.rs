//! Rule documents as people write them: files of YAML or JSON become a checked bundle, or everything that is wrong with
//! them is said at once.
//!
//! Native only. What comes out carries conditions as checked trees, so that an edge needs neither YAML nor CEL.
//!
//! # Conditions
//! A subset of CEL: the facts (`request.method`, `.scheme`, `.host`, `.path`, `.query`; entries of `request.params`, `.headers`,
//! `.cookies`, `.captures`; `client.address`, `client.device` (`mobile`, `tablet`, `desktop`, `bot`), `client.language`; `place.country`, `.continent`, `.subdivision`, `.city`, `.timezone`, `.asn`;
//! `auth.subject`, `auth.scopes`, entries of `auth.claims`; entries of `variants`; entries of `segments`; `tenant.slug`; `now`); literals of text, numbers,
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

use std::collections::{BTreeMap, BTreeSet};
use std::string::FromUtf8Error;

use meridian_content::check_selector;
use meridian_engine::ruleset::{Target, Version};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::located::{At, Node};
use crate::bundle::{BLANK, Bundle, Flaw, Rules, compile_push};
use crate::document::{API_VERSION, Body, Document, Metadata, Source};
use crate::encoding::version;
use crate::limits::{
    BUNDLE_BYTES_MAX, COMPONENTS_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, INVALID_MAX, LISTS_BYTES_MAX,
    TESTS_MAX, WARNINGS_MAX,
};

/// What a file of a push holds, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Documents, in YAML or JSON.
    Documents,
    /// A list of networks (`.netset`, `.ipset`).
    Networks,
    /// A component of a function (`.wasm`), in base64.
    Component,
}

/// What a file of this name holds.
#[must_use]
pub fn kind_of(path: &str) -> FileKind {
    if networks::is_list(path) {
        FileKind::Networks
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
            FileKind::Documents | FileKind::Networks => String::from_utf8(bytes)?,
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

/// Makes a bundle of files. `generated` are the `Tenant` and `Domain` documents that the control plane makes from its
/// tables; they stand in the place of those in the files. Without them, as offline, the files' own count.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines, up to [`INVALID_MAX`].
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

/// A set of files on its way to documents.
#[derive(Default)]
struct Reading {
    documents: Vec<Document>,
    tests: Vec<Test>,
    invalid: Vec<Invalid>,
    /// Where each document was read, by file and line.
    nodes: BTreeMap<(String, u32), Node>,
    /// Kind and name of documents that were not accepted: what refers to them is not wrong for that.
    failed: BTreeSet<(String, String)>,
    schemas: BTreeMap<String, Value>,
}

impl Reading {
    fn files(&mut self, files: &[File]) {
        let bytes = |kind: FileKind| -> usize {
            let of_kind = files.iter().filter(|file| file.kind() == kind);
            of_kind.map(|file| file.content.len()).sum()
        };
        let (documents, lists) = (bytes(FileKind::Documents), bytes(FileKind::Networks));
        // Three bytes are four letters.
        let components = bytes(FileKind::Component) / 4 * 3;
        let too_many = documents > FILES_BYTES_MAX || lists > LISTS_BYTES_MAX || files.len() > FILES_MAX;
        if too_many || components > COMPONENTS_BYTES_MAX {
            let found = format!(
                "{} files with {documents} bytes of documents, {lists} of lists and {components} of components",
                files.len()
            );
            let expected = format!(
                "at most {FILES_MAX} files, {FILES_BYTES_MAX}, {LISTS_BYTES_MAX} and {COMPONENTS_BYTES_MAX} bytes"
            );
            self.whole(files, found, expected);
            return;
        }
        for file in files.iter().filter(|file| file.kind() == FileKind::Documents) {
            match located::read(&file.path, &file.content) {
                Err(invalid) => self.invalid.push(*invalid),
                Ok(nodes) => {
                    for node in nodes.into_iter().filter(|node| node.value != located::Located::Null) {
                        self.document(&file.path, node);
                    }
                }
            }
        }
    }

    /// Something that is wrong with the push as a whole.
    fn whole(&mut self, files: &[File], found: String, expected: String) {
        let file = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let (path, suggestion) = (String::new(), None);
        self.invalid.push(Invalid { file, line: 1, column: 1, path, found, expected, suggestion });
    }

    fn report(
        &mut self,
        file: &str,
        at: At,
        path: &str,
        found: String,
        expected: String,
        suggestion: Option<String>,
    ) {
        let (file, path) = (file.to_owned(), path.to_owned());
        self.invalid.push(Invalid {
            file,
            line: at.line,
            column: at.column,
            path,
            found,
            expected,
            suggestion,
        });
    }

    fn document(&mut self, file: &str, node: Node) {
        let source = Source { file: file.to_owned(), line: node.at.line };
        let text =
            |path: &str| node.member("metadata").and_then(|node| node.member(path)).and_then(Node::text);
        let name = text("name").unwrap_or_default().to_owned();
        let Some(kind) = self.kind(file, &node) else { return };
        let errors = match self.schema(&kind) {
            Some(schema) => check::check(file, &node, schema),
            None => Vec::new(),
        };
        if !errors.is_empty() {
            self.failed.insert((kind, name));
            self.invalid.extend(errors);
            return;
        }
        let parts = node.to_json();
        let part = |name: &str| parts.get(name).cloned().unwrap_or(Value::Null);
        let Some(metadata) = self.typed::<Metadata>(file, &node, "metadata", part("metadata")) else {
            return;
        };
        if kind == "RuleTest" {
            if let Some(spec) = self.typed::<TestSpec>(file, &node, "spec", part("spec")) {
                self.test(file, &node, Test { name: metadata.name, source, spec });
            }
            return;
        }
        let body = json!({ "kind": kind, "spec": part("spec") });
        match self.typed::<Body>(file, &node, "", body) {
            Some(body) => {
                self.nodes.insert((source.file.clone(), source.line), node);
                self.documents.push(Document { body, metadata, source });
            }
            None => _ = self.failed.insert((kind, name)),
        }
    }

    fn kind(&mut self, file: &str, node: &Node) -> Option<String> {
        let Some(kind) = node.member("kind") else {
            let expected = format!("a document with apiVersion: {API_VERSION}, kind, metadata and spec");
            self.report(file, node.at, "", format!("{} without kind", node.describe()), expected, None);
            return None;
        };
        let found = kind.text().unwrap_or_default();
        if KINDS.contains(&found) {
            return Some(found.to_owned());
        }
        let (at, text, suggestion) = (kind.at, kind.describe(), nearest(found, KINDS));
        self.report(file, at, "kind", text, format!("one of {}", KINDS.join(", ")), suggestion);
        None
    }

    fn schema(&mut self, kind: &str) -> Option<&Value> {
        if !self.schemas.contains_key(kind) {
            self.schemas.insert(kind.to_owned(), schema::schema(kind)?);
        }
        self.schemas.get(kind)
    }

    /// Reads what the schema let pass; what still does not fit is said by its path.
    fn typed<T: DeserializeOwned>(&mut self, file: &str, node: &Node, base: &str, value: Value) -> Option<T> {
        match serde_path_to_error::deserialize(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let inner = error.path().to_string();
                let path = [base, inner.trim_start_matches('.')].join(".").trim_matches('.').to_owned();
                let found = node.find(&path);
                let (at, text) = (found.at, found.describe());
                self.report(file, at, &path, text, error.inner().to_string(), None);
                None
            }
        }
    }

    fn test(&mut self, file: &str, node: &Node, test: Test) {
        if let Some(other) = self.tests.iter().find(|other| other.name == test.name) {
            let expected =
                format!("a name of its own; {}:{} has it too", other.source.file, other.source.line);
            let found = format!("{:?}", test.name);
            self.report(file, node.locate("metadata.name"), "metadata.name", found, expected, None);
        }
        if self.tests.len() == TESTS_MAX {
            let found = format!("more than {TESTS_MAX} RuleTest documents");
            self.report(file, node.at, "", found, "fewer of them".to_owned(), None);
        }
        self.tests.push(test);
    }

    /// Puts generated documents in the place of the files' own.
    fn replace(&mut self, generated: &[Document], warnings: &mut Vec<Warning>) {
        let by_table = |document: &Document| matches!(document.body, Body::Tenant(_) | Body::Domain(_));
        for document in self.documents.iter().filter(|document| by_table(document)) {
            let same = |other: &&Document| {
                other.body == document.body && other.metadata.name == document.metadata.name
            };
            if !generated.iter().any(|other| same(&other)) {
                let (kind, name) = (document.body.kind(), &document.metadata.name);
                warnings.push(Warning {
                    file: document.source.file.clone(),
                    line: document.source.line,
                    what: format!(
                        "{kind} {name:?} is not what the control plane has; the control plane's counts"
                    ),
                });
            }
        }
        self.documents.retain(|document| !by_table(document));
        self.documents.extend(generated.iter().cloned());
    }

    /// Reads the lists of networks, and gives them to the documents that name them.
    fn lists(&mut self, files: &[File]) {
        let lists = files.iter().filter(|file| file.kind() == FileKind::Networks);
        let lists = networks::read(lists, &mut self.invalid);
        let mut documents = std::mem::take(&mut self.documents);
        for document in &mut documents {
            let source = &document.source;
            for (path, found, suggestion) in networks::resolve(&mut document.body, &lists) {
                let node = self.nodes.get(&(source.file.clone(), source.line));
                let at = node.map_or(At { line: source.line.max(1), column: 1 }, |node| node.locate(&path));
                let expected = "the path of a file of the push that ends with .netset or .ipset".to_owned();
                self.report(&source.file, at, &path, found, expected, suggestion);
            }
        }
        self.documents = documents;
    }

    /// Checks the components, and tells the documents that name them which they are.
    fn components(&mut self, files: &[File]) {
        let components = files.iter().filter(|file| file.kind() == FileKind::Component);
        let components = components::read(components, &mut self.invalid);
        let mut documents = std::mem::take(&mut self.documents);
        for document in &mut documents {
            let source = &document.source;
            if let Some((path, found, suggestion)) = components::resolve(&mut document.body, &components) {
                let node = self.nodes.get(&(source.file.clone(), source.line));
                let at = node.map_or(At { line: source.line.max(1), column: 1 }, |node| node.locate(&path));
                let expected = "the path of a file of the push that ends with .wasm".to_owned();
                self.report(&source.file, at, &path, found, expected, suggestion);
            }
        }
        self.documents = documents;
    }

    /// Checks every condition, and keeps its tree.
    fn conditions(&mut self, files: &[File]) {
        let mut documents = std::mem::take(&mut self.documents);
        let known = conditions::Known::of(&documents);
        for document in &mut documents {
            let errors = conditions::check(document, &known);
            let source = &document.source;
            let Some(node) = self.nodes.get(&(source.file.clone(), source.line)) else { continue };
            let content =
                files.iter().find(|file| file.path == source.file).map_or("", |file| file.content.as_str());
            for (path, error) in errors {
                let at = conditions::place(content, node.find(&path), error.offset);
                self.invalid.push(Invalid {
                    file: source.file.clone(),
                    line: at.line,
                    column: at.column,
                    path,
                    found: error.found,
                    expected: error.expected,
                    suggestion: error.suggestion,
                });
            }
        }
        self.documents = documents;
    }

    /// Checks every CSS selector: edges match them as pages stream, and take no other.
    fn selectors(&mut self) {
        let documents = std::mem::take(&mut self.documents);
        for document in &documents {
            let (Body::Transform(spec), Source { file, line }) = (&document.body, &document.source) else {
                continue;
            };
            let Some(node) = self.nodes.get(&(file.clone(), *line)) else { continue };
            let wrong: Vec<_> = (spec.html.iter().enumerate())
                .filter_map(|(at, rule)| Some((at, &rule.select, check_selector(&rule.select).err()?)))
                .map(|(at, select, error)| {
                    let path = format!("spec.html[{at}].select");
                    (node.locate(&path), path, format!("{select:?}: {error}"))
                })
                .collect();
            for (at, path, found) in wrong {
                self.report(
                    file,
                    at,
                    &path,
                    found,
                    "a CSS selector that matches as a page streams".to_owned(),
                    None,
                );
            }
        }
        self.documents = documents;
    }

    fn flaw(&mut self, files: &[File], documents: &[Document], flaw: Flaw) {
        let missing = flaw.found.trim_matches('"');
        let named = flaw.expected.strip_prefix("the name of a document of kind ");
        let of_name = named.is_some_and(|kind| self.failed.contains(&(kind.to_owned(), missing.to_owned())));
        let absent = flaw.found.strip_prefix("no ").filter(|_| flaw.path == "documents");
        let of_kind = absent.is_some_and(|absent| self.failed.iter().any(|(kind, _)| kind == absent));
        if of_name || of_kind {
            return;
        }
        let document = documents.get(flaw.document).filter(|_| flaw.path != "documents");
        let Some(source) = document.map(|document| &document.source) else {
            return self.whole(files, flaw.found, flaw.expected);
        };
        let node = self.nodes.get(&(source.file.clone(), source.line));
        let at = node.map_or(At { line: source.line.max(1), column: 1 }, |node| node.locate(&flaw.path));
        let suggestion = nearest(missing, flaw.names.iter().map(String::as_str));
        self.report(&source.file, at, &flaw.path, flaw.found, flaw.expected, suggestion);
    }

    fn finish(mut self) -> Vec<Invalid> {
        self.invalid.sort();
        self.invalid.dedup();
        // A blank text is usually wrong in another, more telling way as well.
        let place = |invalid: &Invalid| (invalid.file.clone(), invalid.line, invalid.column);
        let telling: BTreeSet<_> =
            self.invalid.iter().filter(|invalid| invalid.found != BLANK).map(place).collect();
        self.invalid.retain(|invalid| invalid.found != BLANK || !telling.contains(&place(invalid)));
        invalid::limit(&mut self.invalid, INVALID_MAX, |invalid| &mut invalid.expected);
        self.invalid
    }
}
