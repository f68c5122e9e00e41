//! `spin.toml`, manifest version 2: what this host understands of it, parsed and checked once.
//!
//! Format: <https://spinframework.dev/manifest-reference>, as Spin 4 has it. A key that Spin doesn't have, or that asks for
//! what this host lacks, is an error with the file, the line and the key; what changes less is such a warning.

mod keys;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use crate::{
    limits,
    routes::{InvalidRoute, RoutePattern},
    variables::Template,
};

/// An application: its components and which routes lead to them.
#[derive(Debug)]
pub struct Manifest {
    /// The application's name.
    pub name: String,
    /// The application's version; empty where none is given.
    pub version: String,
    /// The application's variables by name.
    pub variables: BTreeMap<String, Variable>,
    /// Public routes with the component that each leads to.
    pub routes: Vec<(RoutePattern, String)>,
    /// The components that routes lead to.
    pub components: Vec<Component>,
    /// What is not as it would be on Spin, in words for the operator.
    pub warnings: Vec<String>,
}

/// A variable of the application.
#[derive(Debug, Deserialize)]
pub struct Variable {
    /// The value where the operator gives none; without it the operator must give one.
    pub default: Option<String>,
    /// Whether the value must not be shown.
    #[serde(default)]
    pub secret: bool,
}

/// A component: its code and what it may use.
#[derive(Debug)]
pub struct Component {
    /// The component's name in the manifest.
    pub id: String,
    /// The Wasm component file.
    pub source: PathBuf,
    /// Files that the component sees, read-only.
    pub files: Vec<Mount>,
    /// Hosts that the component may send requests to; templates of host patterns.
    pub allowed_outbound_hosts: Vec<Template>,
    /// Labels of the key-value stores that the component may open.
    pub key_value_stores: BTreeSet<String>,
    /// The component's variables: templates over the application's.
    pub variables: BTreeMap<String, Template>,
    /// The component's environment.
    pub environment: BTreeMap<String, String>,
}

/// Files that a component sees.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Mount {
    /// The file of that name, or every file that matches, at the path that it has beside the manifest.
    Glob(String),
    /// A file or folder at another path.
    Place {
        /// Path beside the manifest.
        source: PathBuf,
        /// Absolute path inside of the component.
        destination: String,
    },
}

/// A manifest that can't be honoured.
#[derive(Debug, thiserror::Error)]
pub struct InvalidManifest {
    file: PathBuf,
    line: Option<usize>,
    key: String,
    problem: String,
}

impl fmt::Display for InvalidManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl Manifest {
    /// Reads and checks the manifest file.
    pub fn read(path: &Path) -> Result<Self, InvalidManifest> {
        let invalid = |problem: String| InvalidManifest {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            problem,
        };
        let size = std::fs::metadata(path).map_err(|e| invalid(format!("can't be read: {e}")))?.len();
        if size > limits::MANIFEST_BYTES_MAX {
            return Err(invalid(format!(
                "has {size} bytes; at most {} are read",
                limits::MANIFEST_BYTES_MAX
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("can't be read: {e}")))?;
        Self::parse(path, &text)
    }

    /// Checks the text of a manifest; relative paths in it are beside `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, InvalidManifest> {
        let source = Source { path, text };
        let RawVersion { spin_manifest_version: version } = source.read()?;
        if version.get_ref().as_integer() != Some(2) {
            let problem = format!("found {}, expected 2", version.get_ref());
            return Err(source.at(&version, "spin_manifest_version", problem));
        }
        let warnings = keys::check(&source)?.iter().map(ToString::to_string).collect();
        let raw: RawManifest = source.read()?;
        let routes = source.routes(&raw)?;
        let used: BTreeSet<&str> = routes.iter().map(|(_, id)| id.as_str()).collect();
        let mut components = Vec::new();
        for (id, component) in &raw.component {
            if used.contains(id.as_str()) {
                components.push(source.component(id, component, &raw.variables)?);
            }
        }
        if components.len() > limits::COMPONENTS_MAX {
            return Err(source.invalid(
                "component",
                format!("{} components, at most {} are run", components.len(), limits::COMPONENTS_MAX),
            ));
        }
        let RawApplication { name, version } = raw.application;
        Ok(Self { name, version, variables: raw.variables, routes, components, warnings })
    }
}

/// Read first: of another version all else has another meaning.
#[derive(Deserialize)]
struct RawVersion {
    spin_manifest_version: Spanned<toml::Value>,
}

#[derive(Deserialize)]
struct RawManifest {
    application: RawApplication,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    #[serde(default)]
    trigger: RawTriggers,
    #[serde(default)]
    component: BTreeMap<String, RawComponent>,
}

#[derive(Deserialize)]
struct RawApplication {
    name: String,
    #[serde(default)]
    version: String,
}

#[derive(Default, Deserialize)]
struct RawTriggers {
    #[serde(default)]
    http: Vec<RawTrigger>,
}

#[derive(Deserialize)]
struct RawTrigger {
    route: Spanned<RawRoute>,
    component: Spanned<String>,
    executor: Option<Spanned<RawExecutor>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawRoute {
    Public(String),
    Private { private: bool },
}

#[derive(Deserialize)]
struct RawExecutor {
    r#type: String,
}

#[derive(Deserialize)]
struct RawComponent {
    source: Spanned<toml::Value>,
    #[serde(default)]
    files: Vec<Spanned<Mount>>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<Spanned<String>>,
    #[serde(default)]
    key_value_stores: BTreeSet<String>,
    #[serde(default)]
    variables: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

/// The text that errors point into.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, InvalidManifest> {
        let document = toml::Deserializer::parse(self.text).map_err(|e| self.syntax(String::new(), &e))?;
        serde_path_to_error::deserialize(document).map_err(|e| self.syntax(path_of(&e), e.inner()))
    }

    fn invalid(&self, key: &str, problem: String) -> InvalidManifest {
        InvalidManifest { file: self.path.to_owned(), line: None, key: key.to_owned(), problem }
    }

    fn at<T>(&self, value: &Spanned<T>, key: &str, problem: String) -> InvalidManifest {
        InvalidManifest { line: Some(self.line(value.span().start)), ..self.invalid(key, problem) }
    }

    fn syntax(&self, key: String, error: &toml::de::Error) -> InvalidManifest {
        let line = error.span().map(|span| self.line(span.start));
        InvalidManifest { line, ..self.invalid(&key, error.message().to_owned()) }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn routes(&self, raw: &RawManifest) -> Result<Vec<(RoutePattern, String)>, InvalidManifest> {
        let mut routes: Vec<(RoutePattern, String)> = Vec::new();
        for (index, trigger) in raw.trigger.http.iter().enumerate() {
            let key = |name: &str| format!("trigger.http[{index}].{name}");
            if let Some(executor) = &trigger.executor
                && !matches!(executor.get_ref().r#type.as_str(), "http" | "spin")
            {
                return Err(self.at(
                    executor,
                    &key("executor"),
                    format!("found type \"{}\", expected \"http\"", executor.get_ref().r#type),
                ));
            }
            let id = trigger.component.get_ref();
            if !raw.component.contains_key(id) {
                let known: Vec<&str> = raw.component.keys().map(String::as_str).collect();
                return Err(self.at(
                    &trigger.component,
                    &key("component"),
                    format!("found \"{id}\", expected one of the components: {}", known.join(", ")),
                ));
            }
            let pattern = match trigger.route.get_ref() {
                RawRoute::Public(route) => RoutePattern::parse(route)
                    .map_err(|InvalidRoute(why)| self.at(&trigger.route, &key("route"), why))?,
                RawRoute::Private { private: true } => continue,
                RawRoute::Private { private: false } => {
                    return Err(self.at(
                        &trigger.route,
                        &key("route"),
                        "expected a path or { private = true }".to_owned(),
                    ));
                }
            };
            if let Some((_, other)) = routes.iter().find(|(known, _)| known.is_same(&pattern)) {
                return Err(self.at(
                    &trigger.route,
                    &key("route"),
                    format!("\"{pattern}\" already leads to component \"{other}\""),
                ));
            }
            routes.push((pattern, id.clone()));
        }
        if routes.is_empty() {
            return Err(
                self.invalid("trigger.http", "no public HTTP route, so there is nothing to serve".to_owned())
            );
        }
        Ok(routes)
    }

    fn component(
        &self,
        id: &str,
        raw: &RawComponent,
        variables: &BTreeMap<String, Variable>,
    ) -> Result<Component, InvalidManifest> {
        let key = |name: &str| format!("component.{id}.{name}");
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let Some(source) = raw.source.get_ref().as_str() else {
            let problem = "expected the path of a local file; other sources are fetched by the Spin CLI only"
                .to_owned();
            return Err(self.at(&raw.source, &key("source"), problem));
        };
        let template = |value: &Spanned<String>, key: String| {
            let template =
                Template::parse(value.get_ref()).map_err(|e| self.at(value, &key, e.to_string()))?;
            let unknown = template.names().find(|name| !variables.contains_key(*name)).map(str::to_owned);
            match unknown {
                Some(name) => Err(self.at(
                    value,
                    &key,
                    format!("uses variable \"{name}\", which [variables] doesn't declare"),
                )),
                None => Ok(template),
            }
        };
        for mount in &raw.files {
            if let Mount::Place { destination, .. } = mount.get_ref()
                && !destination.starts_with('/')
            {
                return Err(self.at(
                    mount,
                    &key("files"),
                    format!("found destination \"{destination}\", expected an absolute path"),
                ));
            }
        }
        Ok(Component {
            id: id.to_owned(),
            source: folder.join(source),
            files: raw.files.iter().map(|mount| mount.get_ref().clone()).collect(),
            allowed_outbound_hosts: raw
                .allowed_outbound_hosts
                .iter()
                .map(|value| template(value, key("allowed_outbound_hosts")))
                .collect::<Result<_, _>>()?,
            key_value_stores: raw.key_value_stores.clone(),
            variables: raw
                .variables
                .iter()
                .map(|(name, value)| Ok((name.clone(), template(value, key(&format!("variables.{name}")))?)))
                .collect::<Result<_, _>>()?,
            environment: raw.environment.clone(),
        })
    }
}

/// The path of a deserialisation error, without the names that spans add to it.
fn path_of(error: &serde_path_to_error::Error<toml::de::Error>) -> String {
    let path = error.path().to_string();
    let parts: Vec<&str> = path.split('.').filter(|part| !part.starts_with("$__") && *part != ".").collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
spin_manifest_version = 2
[application]
name = "shop"
version = "1.0.0"
[variables]
origin = { default = "http://127.0.0.1:8080" }
token = { required = true, secret = true }
[[trigger.http]]
route = "/..."
component = "edge"
[component.edge]
source = "edge.wasm"
files = ["assets/**/*", { source = "places.mmdb", destination = "/places.mmdb" }]
allowed_outbound_hosts = ["{{ origin }}"]
key_value_stores = ["default"]
environment = { MODE = "test" }
[component.edge.variables]
origin = "{{ origin }}"
both = "{{ origin }} and {{ token }}"
[component.edge.build]
command = "cargo build"
watch = ["src/**"]
"#;

    fn parse(text: &str) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(Path::new("app/spin.toml"), text)
    }

    #[test]
    fn a_manifest_is_read_whole() {
        let manifest = parse(GOOD).unwrap();
        assert_eq!(manifest.name, "shop");
        assert_eq!(manifest.version, "1.0.0");
        assert!(manifest.variables["token"].default.is_none() && manifest.variables["token"].secret);
        assert_eq!(manifest.routes[0].1, "edge");
        let edge = &manifest.components[0];
        assert_eq!(edge.source, Path::new("app/edge.wasm"));
        assert_eq!(edge.files.len(), 2);
        assert_eq!(edge.environment["MODE"], "test");
        assert!(edge.key_value_stores.contains("default"));
        assert_eq!(manifest.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_edges_own_manifest_is_taken_without_a_warning() {
        let manifest = parse(include_str!("../../../spin.toml")).unwrap();
        assert_eq!(manifest.warnings, Vec::<String>::new());
    }

    #[test]
    fn errors_name_file_line_and_key() {
        #[rustfmt::skip]
        let cases = [
            ("spin_manifest_version = 2", "spin_manifest_version = 1",
             "app/spin.toml:2: spin_manifest_version: found 1, expected 2"),
            ("spin_manifest_version = 2", "spin_manifest_version = \"1\"\nname = \"shop\"",
             "app/spin.toml:2: spin_manifest_version: found \"1\", expected 2"),
            ("route =", "executor = { type = \"wagi\", argv = \"a\" }\nroute =",
             "app/spin.toml:10: trigger.http[0].executor: found type \"wagi\", expected \"http\""),
            ("component = \"edge\"", "component = \"egde\"",
             "app/spin.toml:11: trigger.http[0].component: found \"egde\", expected one of the components: edge"),
            ("route = \"/...\"", "route = \"...\"",
             "app/spin.toml:10: trigger.http[0].route: found \"...\", expected a path that starts with \"/\""),
            ("source = \"edge.wasm\"", "source = { url = \"https://example.com/a.wasm\" }",
             "app/spin.toml:13: component.edge.source: expected the path of a local file; other sources are fetched by the Spin CLI only"),
            ("[\"{{ origin }}\"]", "[\"{{ orgin }}\"]",
             "app/spin.toml:15: component.edge.allowed_outbound_hosts: uses variable \"orgin\", which [variables] doesn't declare"),
            ("destination = \"/places", "destination = \"places",
             "app/spin.toml:14: component.edge.files: found destination \"places.mmdb\", expected an absolute path"),
            ("[application]\nname = \"shop\"", "[application]\nname = 5",
             "app/spin.toml:4: application.name: invalid type: integer `5`, expected a string"),
            ("key_value_stores = [\"default\"]", "key_value_stores = \"default\"",
             "app/spin.toml:16: component.edge.key_value_stores: invalid type: string \"default\", expected a sequence"),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(parse(&GOOD.replace(from, to)).unwrap_err().to_string(), expected);
        }
        let syntax = parse("spin_manifest_version = ").unwrap_err().to_string();
        assert!(syntax.starts_with("app/spin.toml:1: "), "{syntax}");
        let missing = parse("spin_manifest_version = 2").unwrap_err().to_string();
        assert!(missing.contains("missing field `application`"), "{missing}");
    }

    #[test]
    fn both_names_of_the_executor_are_taken() {
        for name in ["http", "spin"] {
            let text = GOOD.replace("route =", &format!("executor = {{ type = \"{name}\" }}\nroute ="));
            assert_eq!(parse(&text).unwrap().warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn two_triggers_cannot_share_a_route() {
        for route in ["/...", "/*"] {
            let twice = format!("{GOOD}\n[[trigger.http]]\nroute = \"{route}\"\ncomponent = \"edge\"\n");
            let error = parse(&twice).unwrap_err().to_string();
            assert!(error.contains("already leads to component \"edge\""), "{error}");
        }
    }
}
