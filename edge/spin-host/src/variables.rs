//! Variables: where the operator's values come from, the templates that use them, and `spin:variables`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use wasmtime::{
    Result,
    component::{ComponentType, Lift, Linker, Lower},
};

use crate::{instance::Guest, manifest::Variable};

/// A string with `{{ name }}` in it, to be replaced by variables' values.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Name(String),
}

/// A template or variable that can't be honoured.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum InvalidVariable {
    /// A template whose braces don't close.
    #[error("found \"{{{{\" without \"}}}}\" after it")]
    Unclosed,
    /// A name that no variable can have.
    #[error(
        "found the variable name \"{0}\", expected lower-case letters, digits and single underscores, a letter first \
         and no underscore last"
    )]
    Name(String),
    /// A value for a variable that the manifest doesn't declare.
    #[error("a value was given for \"{0}\", which [variables] of the manifest doesn't declare")]
    Unknown(String),
    /// Required variables without a value.
    #[error(
        "no value was given for the required variables {0}; give one by --variable NAME=VALUE, by the environment \
         (SPIN_VARIABLE_NAME) or in the --variables-file"
    )]
    Missing(String),
    /// A variables file that can't be used.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Template {
    /// Parses the text of a template.
    pub fn parse(text: &str) -> Result<Self, InvalidVariable> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(InvalidVariable::Unclosed)?;
            let name = name.trim();
            if !is_name(name) {
                return Err(InvalidVariable::Name(name.to_owned()));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The variables that the template uses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with the variables' values in it; a variable without a value leaves nothing.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Name(name) => values.get(name).map_or("", String::as_str),
            })
            .collect()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__")
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The values of the application's variables: command line, else environment, else file, else default.
pub fn resolve(
    declared: &BTreeMap<String, Variable>,
    given: &[(String, String)],
    environment: impl Fn(&str) -> Option<String>,
    file: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, InvalidVariable> {
    if let Some(name) = declared.keys().find(|name| !is_name(name)) {
        return Err(InvalidVariable::Name(name.clone()));
    }
    let names = given.iter().map(|(name, _)| name).chain(file.keys());
    if let Some(unknown) = names.into_iter().find(|name| !declared.contains_key(*name)) {
        return Err(InvalidVariable::Unknown(unknown.clone()));
    }
    let mut values = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, variable) in declared {
        let value = given
            .iter()
            .rev()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.clone())
            .or_else(|| environment(&format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase())))
            .or_else(|| file.get(name).cloned());
        match value.or_else(|| variable.default.clone()) {
            Some(value) => drop(values.insert(name.clone(), value)),
            None => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() { Ok(values) } else { Err(InvalidVariable::Missing(missing.join(", "))) }
}

/// Reads a TOML file of `name = "value"` lines.
pub fn read_file(path: &Path) -> Result<BTreeMap<String, String>, InvalidVariable> {
    let invalid = |problem: String| InvalidVariable::File { file: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("can't be read: {e}")))?;
    // The parser's message would quote the line, which may hold a secret.
    toml::from_str(&text).map_err(|e: toml::de::Error| {
        let line =
            e.span().map_or(0, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
        invalid(format!("line {line}: expected NAME = \"VALUE\""))
    })
}

#[derive(Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

fn get(variables: &HashMap<String, String>, name: &str) -> Result<String, Error> {
    if !is_name(name) {
        return Err(Error::InvalidName(name.to_owned()));
    }
    variables.get(name).cloned().ok_or_else(|| Error::Undefined(name.to_owned()))
}

/// Gives the component `spin:variables/variables@3.0.0`.
pub fn link(linker: &mut Linker<Guest>) -> Result<()> {
    let mut instance = linker.instance("spin:variables/variables@3.0.0")?;
    instance.func_wrap_concurrent("get", |accessor, (name,): (String,)| {
        let variables = accessor.with(|mut store| Arc::clone(&store.get().variables));
        Box::pin(async move { Ok((get(&variables, &name),)) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn templates_are_filled() {
        let known = values(&[("host", "a.example"), ("port", "81")]);
        let cases = [
            ("plain", "plain"),
            ("{{ host }}", "a.example"),
            ("http://{{host}}:{{ port }}", "http://a.example:81"),
            ("{{ none }}x", "x"),
            ("", ""),
            ("a } b { c", "a } b { c"),
        ];
        for (text, expected) in cases {
            assert_eq!(Template::parse(text).unwrap().fill(&known), expected, "{text}");
        }
        assert_eq!(Template::parse("{{ host"), Err(InvalidVariable::Unclosed));
        assert_eq!(Template::parse("{{ Host }}"), Err(InvalidVariable::Name("Host".to_owned())));
    }

    #[test]
    fn values_come_from_the_nearest_source() {
        let declare = |default: Option<&str>, names: &[&str]| -> BTreeMap<String, Variable> {
            let variable = || Variable { default: default.map(str::to_owned), secret: false };
            names.iter().map(|name| ((*name).to_owned(), variable())).collect()
        };
        let declared = declare(Some("default"), &["a", "b", "c", "d"]);
        let given = [("a".to_owned(), "first".to_owned()), ("a".to_owned(), "line".to_owned())];
        let environment =
            |name: &str| matches!(name, "SPIN_VARIABLE_A" | "SPIN_VARIABLE_B").then(|| "env".to_owned());
        let file = values(&[("a", "file"), ("b", "file"), ("c", "file")]);
        assert_eq!(
            resolve(&declared, &given, environment, &file).unwrap(),
            values(&[("a", "line"), ("b", "env"), ("c", "file"), ("d", "default")])
        );
        let unknown = [("z".to_owned(), String::new())];
        assert_eq!(
            resolve(&declared, &unknown, |_| None, &BTreeMap::new()),
            Err(InvalidVariable::Unknown("z".to_owned()))
        );
        assert_eq!(
            resolve(&declare(None, &["a", "b"]), &[], |_| None, &BTreeMap::new()),
            Err(InvalidVariable::Missing("a, b".to_owned()))
        );
        for name in ["A", "1a", "a-b", "a__b", "a_", "_a", ""] {
            assert_eq!(
                resolve(&declare(Some(""), &[name]), &[], |_| None, &BTreeMap::new()),
                Err(InvalidVariable::Name(name.to_owned()))
            );
        }
    }
}
