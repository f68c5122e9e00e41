//! From documents to the engine's rules: names become indices, what dangles or makes no sense is a [`Flaw`].

mod content;
mod experiments;
mod functions;
mod health;
mod platform;
mod policies;
mod routes;
mod security;
mod segments;
mod tenant;
mod transforms;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use meridian_engine::ruleset::{RuleRef, Target, Version};

#[cfg(feature = "documents")]
pub(crate) use self::security::network;
use super::Rules;
use crate::document::{Body, Document};
use crate::limits::{
    DOMAINS_MAX, ENTRIES_MAX, FUNCTIONS_MAX, KIND_MAX, NAME_CHARS_MAX, NETWORKS_MAX, REGIONS_MAX, ROUTES_MAX,
};
use crate::sync::is_slug;

#[cfg(test)]
pub(super) use routes::path_template;

/// Something that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Index of the document.
    pub document: usize,
    /// Path in it, `spec.match.path`.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// Names that would have been right, where a name was expected.
    pub names: Vec<String>,
}

impl Flaw {
    pub(super) fn unknown() -> Self {
        Self {
            document: 0,
            path: String::new(),
            found: String::new(),
            expected: "documents that hold together".to_owned(),
            names: Vec::new(),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.path, self.found, self.expected)
    }
}

/// Makes rules of the documents of a release.
///
/// # Errors
/// Everything that is wrong with them, in the order of the documents.
pub fn compile(documents: &[Document], target: &Target, version: Version) -> Result<Rules, Vec<Flaw>> {
    Compiler::default().rules(documents, target, version)
}

/// Makes rules of documents that are pushed. More is asked of them than of a release: what an edge can go on serving as it
/// did, it does not refuse because it would be refused today.
///
/// # Errors
/// Everything that is wrong with them, in the order of the documents.
#[cfg(feature = "documents")]
pub(crate) fn compile_push(
    documents: &[Document],
    target: &Target,
    version: Version,
) -> Result<Rules, Vec<Flaw>> {
    Compiler { is_push: true, ..Compiler::default() }.rules(documents, target, version)
}

/// What is found where a text has nothing in it.
pub(crate) const BLANK: &str = "a blank text";

/// What is known while documents are turned into rules.
#[derive(Default)]
struct Compiler {
    /// Whether the documents are pushed, and no release yet.
    is_push: bool,
    /// Index in the document list.
    document: usize,
    flaws: Vec<Flaw>,
    /// Index among the rules of the same kind, by kind and name.
    index: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Compiler {
    fn rules(
        mut self,
        documents: &[Document],
        target: &Target,
        version: Version,
    ) -> Result<Rules, Vec<Flaw>> {
        self.names(documents, target);
        let rules = match target {
            Target::Platform => self.platform(documents, version).map(Rules::Platform),
            Target::Tenant(slug) => {
                self.tenant(documents, slug, version).map(|ruleset| Rules::Tenant(Box::new(ruleset)))
            }
        };
        match rules {
            Some(rules) if self.flaws.is_empty() => Ok(rules),
            _ => {
                if self.flaws.is_empty() {
                    self.flaws.push(Flaw::unknown());
                }
                self.flaws.sort_by_key(|flaw| flaw.document);
                Err(self.flaws)
            }
        }
    }

    fn flaw(&mut self, path: impl Into<String>, found: impl fmt::Display, expected: impl Into<String>) {
        self.flaws.push(Flaw {
            document: self.document,
            path: path.into(),
            found: found.to_string(),
            expected: expected.into(),
            names: Vec::new(),
        });
    }

    /// Checks names, counts and blank texts of all documents, and notes which index each name will have.
    fn names(&mut self, documents: &[Document], target: &Target) {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut first: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
        for (at, document) in documents.iter().enumerate() {
            self.document = at;
            let kind = document.body.kind();
            let name = document.metadata.name.as_str();
            self.kind_fits(kind, target);
            self.name(kind, name);
            self.texts(document);
            if let Some(earlier) = first.insert((kind, name), at) {
                let source = documents.get(earlier).map(|document| &document.source);
                let (file, line) = source.map_or(("", 0), |source| (source.file.as_str(), source.line));
                self.flaw(
                    "metadata.name",
                    format_args!("{name:?}"),
                    format!("a name that no other {kind} has; {file}:{line} has it too"),
                );
            }
            let count = counts.entry(kind).or_default();
            self.index.entry(kind).or_default().insert(name.to_owned(), *count);
            *count += 1;
            if *count == limit(kind) + 1 {
                self.flaw(
                    "kind",
                    format_args!("more than {} documents of kind {kind}", limit(kind)),
                    "fewer of them",
                );
            }
        }
    }

    fn kind_fits(&mut self, kind: &'static str, target: &Target) {
        match target {
            Target::Platform if !matches!(kind, "Region" | "Upstream") => {
                let expected =
                    "Region or Upstream: a tenant's documents belong to its own target, tenant:SLUG";
                self.flaw("kind", kind, expected);
            }
            Target::Tenant(_) if kind == "Region" => {
                self.flaw("kind", kind, "a tenant's document: regions belong to the target platform");
            }
            _ => {}
        }
    }

    fn name(&mut self, kind: &'static str, name: &str) {
        let (right, expected) = match kind {
            "Region" | "Tenant" => (is_slug(name), "1 to 63 lower-case letters, digits and inner hyphens"),
            "Domain" => (is_host(name), "a hostname in lower case, exact or with a leading \"*.\""),
            _ => {
                (is_name(name), "1 to 253 letters, digits, '-', '_' or '.', beginning with a letter or digit")
            }
        };
        if !right {
            self.flaw("metadata.name", format_args!("{:?}", short(name)), expected);
        }
    }

    /// Refuses blank texts and overlong lists anywhere in a document.
    fn texts(&mut self, document: &Document) {
        let Ok(value) = serde_json::to_value(&document.body) else { return };
        if let Some(spec) = value.get("spec") {
            let entries_max = if let Body::Security(_) = document.body { NETWORKS_MAX } else { ENTRIES_MAX };
            // Paths are made where there is something to say of them: of ten thousand documents nearly none.
            if !is_filled(spec, entries_max) {
                self.blank(spec, "spec", entries_max);
            }
        }
    }

    fn blank(&mut self, value: &serde_json::Value, path: &str, entries_max: usize) {
        use serde_json::Value;
        match value {
            Value::String(text) if text.trim().is_empty() => {
                self.flaw(path, BLANK, "a text with something in it");
            }
            Value::Array(items) => {
                if items.len() > entries_max {
                    self.flaw(
                        path,
                        format_args!("{} entries", items.len()),
                        format!("at most {entries_max}"),
                    );
                }
                for (index, item) in items.iter().enumerate().take(entries_max) {
                    self.blank(item, &format!("{path}[{index}]"), entries_max);
                }
            }
            Value::Object(members) => {
                if members.len() > entries_max {
                    self.flaw(
                        path,
                        format_args!("{} entries", members.len()),
                        format!("at most {entries_max}"),
                    );
                }
                for (name, member) in members.iter().take(entries_max) {
                    if name.trim().is_empty() {
                        self.flaw(path, "a blank name", "a name with something in it");
                    }
                    // A checked condition may well compare with the empty text.
                    if name != "tree" {
                        self.blank(member, &format!("{path}.{name}"), entries_max);
                    }
                }
            }
            _ => {}
        }
    }

    /// Index of the rule of this kind with this name.
    fn find(&mut self, kind: &'static str, name: &str, path: &str) -> Option<usize> {
        let known = self.index.get(kind);
        if let Some(index) = known.and_then(|known| known.get(name)) {
            return Some(*index);
        }
        let names = known.map(|known| known.keys().cloned().collect()).unwrap_or_default();
        self.flaws.push(Flaw {
            document: self.document,
            path: path.to_owned(),
            found: format!("{:?}", short(name)),
            expected: format!("the name of a document of kind {kind}"),
            names,
        });
        None
    }

    /// Indices of rules of this kind, none of them twice.
    fn find_all(&mut self, kind: &'static str, names: &[String], path: &str) -> Vec<usize> {
        self.unique(names, path);
        let find = |(at, name): (usize, &String)| self.find(kind, name, &format!("{path}[{at}]"));
        names.iter().enumerate().filter_map(find).collect()
    }

    fn unique(&mut self, names: &[String], path: &str) {
        let mut seen = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            if !seen.insert(name) {
                self.flaw(
                    format!("{path}[{at}]"),
                    format_args!("{:?} again", short(name)),
                    "every entry once",
                );
            }
        }
    }

    fn condition(
        &mut self,
        condition: Option<&crate::document::Condition>,
        path: &str,
    ) -> Option<meridian_engine::expr::Expr> {
        match condition?.expr() {
            Ok(expr) => Some(expr),
            Err(error) => {
                self.flaw(
                    path,
                    error,
                    "a condition in the supported subset of CEL, checked when it was pushed",
                );
                None
            }
        }
    }

    /// A base URL without its trailing slash.
    fn base_url(&mut self, url: &str, path: &str) -> String {
        if !is_url(url) || url.contains(['?', '#']) {
            // What stands before the host may be a password.
            let shown =
                url.rsplit_once('@').map_or_else(|| short(url), |(_, rest)| short(&format!("…@{rest}")));
            let expected = "an absolute http or https URL without user, password, query and fragment, of no host \
                            below spin.internal, where an edge's own components are";
            self.flaw(path, format_args!("{shown:?}"), expected);
        }
        url.trim_end_matches('/').to_owned()
    }
}

/// Whether [`Compiler::blank`] has nothing to say.
fn is_filled(value: &serde_json::Value, entries_max: usize) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => {
            items.len() <= entries_max && items.iter().all(|item| is_filled(item, entries_max))
        }
        Value::Object(members) => {
            let holds = |(name, member): (&String, &Value)| {
                !name.trim().is_empty() && (name == "tree" || is_filled(member, entries_max))
            };
            members.len() <= entries_max && members.iter().all(holds)
        }
        _ => true,
    }
}

fn rule(document: &Document) -> RuleRef {
    RuleRef {
        kind: document.body.kind(),
        name: document.metadata.name.as_str().into(),
        file: document.source.file.as_str().into(),
        line: document.source.line,
    }
}

fn limit(kind: &str) -> usize {
    match kind {
        "Region" => REGIONS_MAX,
        "Domain" => DOMAINS_MAX,
        "Route" => ROUTES_MAX,
        "Tenant" => 1,
        "Function" => FUNCTIONS_MAX,
        _ => KIND_MAX,
    }
}

/// The beginning of a text, for an error.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a text is a hostname in lower case (RFC 1123, section 2.1), exact or with a leading `*.`.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| is_slug(label) || label.strip_prefix('_').is_some_and(is_slug);
    name.len() <= NAME_CHARS_MAX && name.split('.').all(label)
}

/// Whether it is a host that rules may name. Below `spin.internal` are an edge's own components.
fn is_outside(host: &str) -> bool {
    is_host(host) && host != "spin.internal" && !host.ends_with(".spin.internal")
}

/// Whether a text is an absolute http or https URL (RFC 9110, section 4.2) without user information.
fn is_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    // An IPv6 address stands in brackets, with colons of its own.
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (
            address.parse::<std::net::Ipv6Addr>().is_ok(),
            port.strip_prefix(':').or(Some(port).filter(|port| port.is_empty())),
        ),
        None => match authority.split_once(':') {
            Some((host, port)) => (is_outside(host), Some(port)),
            None => (is_outside(authority), Some("")),
        },
    };
    let port = port.is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0));
    host && port
        && url.len() <= 2_048
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

/// Documents of one kind with their index in the list.
macro_rules! of_kind {
    ($documents:expr, $kind:ident) => {
        $documents.iter().enumerate().filter_map(|(at, document)| match &document.body {
            Body::$kind(spec) => Some((at, document, spec)),
            _ => None,
        })
    };
}
use of_kind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_absolute_and_plain() {
        for url in [
            "http://127.0.0.1:17101",
            "https://a.example/path/",
            "http://[::1]:80/x",
            "https://a_b.example".replace("a_b", "ab").as_str(),
        ] {
            assert!(is_url(url), "{url}");
        }
        for url in [
            "",
            "a.example",
            "ftp://a.example",
            "http://",
            "http://u@h.example",
            "http://h:0",
            "http://h:x",
            "http://h /",
            "http://[::g]",
        ] {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn hosts_are_lower_case_labels() {
        for host in ["acme.localhost", "*.acme.example", "a", "_acme.example"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "*", "*.", "A.example", "a..b", "-a.example", "a.*.b", "a.example."] {
            assert!(!is_host(host), "{host}");
        }
    }
}
