//! Files on their way to documents, with everything that is found wrong on it.

use std::collections::{BTreeMap, BTreeSet};

use meridian_content::check_selector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::located::{self, At, Located, Node};
use super::networks::Missing;
use super::{File, FileKind, Invalid, KINDS, Test, TestSpec, Warning};
use super::{check, components, conditions, invalid, nearest, networks, schema};
use crate::bundle::{BLANK, Flaw};
use crate::document::{API_VERSION, Body, Document, Metadata, Source, TenantSpec};
use crate::limits::{
    COMPONENTS_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, INVALID_MAX, LISTS_BYTES_MAX, TESTS_MAX,
};

/// A set of files on its way to documents.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) documents: Vec<Document>,
    pub(super) tests: Vec<Test>,
    pub(super) invalid: Vec<Invalid>,
    /// Where each document was read, by file and line.
    nodes: BTreeMap<(String, u32), Node>,
    /// Kind and name of documents that were not accepted: what refers to them is not wrong for that.
    failed: BTreeSet<(String, String)>,
    schemas: BTreeMap<String, Value>,
}

impl Reading {
    pub(super) fn files(&mut self, files: &[File]) {
        let bytes = |kind: FileKind| -> usize {
            let of_kind = files.iter().filter(|file| file.kind() == kind);
            of_kind.map(|file| file.content.len()).sum()
        };
        let documents = bytes(FileKind::Documents);
        let lists = bytes(FileKind::Networks) + bytes(FileKind::Asns);
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
                    for node in nodes.into_iter().filter(|node| node.value != Located::Null) {
                        self.document(&file.path, node);
                    }
                }
            }
        }
    }

    /// Something that is wrong with the push as a whole.
    pub(super) fn whole(&mut self, files: &[File], found: String, expected: String) {
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
    pub(super) fn replace(&mut self, generated: &[Document], warnings: &mut Vec<Warning>) {
        let by_table = |document: &Document| matches!(document.body, Body::Tenant(_) | Body::Domain(_));
        for document in self.documents.iter().filter(|document| by_table(document)) {
            let same = |other: &&Document| {
                says_the_same(&other.body, &document.body) && other.metadata.name == document.metadata.name
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

    /// Reads the lists of networks and of autonomous systems, and gives them to the documents that name them.
    pub(super) fn lists(&mut self, files: &[File]) {
        let lists = networks::read(files, &mut self.invalid);
        let mut documents = std::mem::take(&mut self.documents);
        for document in &mut documents {
            let source = &document.source;
            for missing in networks::resolve(&mut document.body, &lists) {
                let Missing { path, found, expected, suggestion } = missing;
                let node = self.nodes.get(&(source.file.clone(), source.line));
                let at = node.map_or(At { line: source.line.max(1), column: 1 }, |node| node.locate(&path));
                self.report(&source.file, at, &path, found, expected.to_owned(), suggestion);
            }
        }
        self.documents = documents;
    }

    /// Checks the components, and tells the documents that name them which they are.
    pub(super) fn components(&mut self, files: &[File]) {
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
    pub(super) fn conditions(&mut self, files: &[File]) {
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
    pub(super) fn selectors(&mut self) {
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

    pub(super) fn flaw(&mut self, files: &[File], documents: &[Document], flaw: Flaw) {
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

    pub(super) fn finish(mut self) -> Vec<Invalid> {
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

/// Whether two documents say the same; regions are allowed in any order.
fn says_the_same(one: &Body, other: &Body) -> bool {
    let (Body::Tenant(one), Body::Tenant(other)) = (one, other) else { return one == other };
    let in_order = |tenant: &TenantSpec| {
        let mut tenant = tenant.clone();
        tenant.allowed_regions.sort();
        tenant
    };
    in_order(one) == in_order(other)
}
