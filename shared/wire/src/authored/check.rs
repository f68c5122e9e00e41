//! The first check of a document: its shape, against the JSON Schema of its kind. It goes on after an error, so that
//! whoever pushes sees all of them at once.

use serde_json::{Map, Value};

use super::invalid::{Invalid, nearest};
use super::located::{At, Located, Node};
use crate::document::{Patience, Share, Span};
use crate::limits::INVALID_MAX;

/// Checks a document against the schema of its kind.
pub(super) fn check(file: &str, document: &Node, schema: &Value) -> Vec<Invalid> {
    let mut checker = Checker { file, schema, invalid: Vec::new() };
    checker.node(document, schema, "");
    checker.invalid
}

struct Checker<'a> {
    file: &'a str,
    /// The whole schema, for its definitions.
    schema: &'a Value,
    invalid: Vec<Invalid>,
}

impl<'a> Checker<'a> {
    fn report(&mut self, at: At, path: &str, found: String, expected: String, suggestion: Option<String>) {
        if self.invalid.len() < INVALID_MAX {
            let (file, path) = (self.file.to_owned(), path.to_owned());
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
    }

    fn node(&mut self, node: &Node, schema: &'a Value, path: &str) {
        let Some(schema) = schema.as_object() else { return };
        if let Some(name) =
            schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"))
        {
            return self.named(node, name, path);
        }
        if let Some(branches) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
        {
            return self.branches(node, branches, path);
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, path);
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|name| is_type(node, name)) {
            let expected =
                types.iter().filter(|name| **name != "null").map(|name| type_text(name)).collect::<Vec<_>>();
            return self.report(node.at, path, node.describe(), expected.join(" or "), None);
        }
        match &node.value {
            Located::Map(members) => self.map(node.at, members, schema, path),
            Located::List(items) => {
                if let Some(schema) = schema.get("items") {
                    for (at, item) in items.iter().enumerate() {
                        self.node(item, schema, &format!("{path}[{at}]"));
                    }
                }
            }
            Located::Number(number) => {
                let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
                let (least, most) = (bound("minimum"), bound("maximum"));
                let value = number.as_f64().unwrap_or(f64::NAN);
                if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
                    let expected = match (least, most) {
                        (Some(least), Some(most)) => format!("a number from {least} to {most}"),
                        (Some(least), None) => format!("a number from {least}"),
                        _ => "a smaller number".to_owned(),
                    };
                    self.report(node.at, path, node.describe(), expected, None);
                }
            }
            _ => {}
        }
    }

    /// A definition by name. Quantities are checked by reading them, which says more than their pattern.
    fn named(&mut self, node: &Node, name: &str, path: &str) {
        let text = node.text().map(str::to_owned);
        let error = match name {
            "Span" => text.map(|text| text.parse::<Span>().err()),
            "Patience" => text.map(|text| text.parse::<Patience>().err()),
            "Share" => text.map(|text| text.parse::<Share>().err()),
            _ => None,
        };
        match error {
            Some(Some(error)) => self.report(node.at, path, node.describe(), error.expected.to_owned(), None),
            Some(None) => {}
            None if name == "Span" => {
                self.report(
                    node.at,
                    path,
                    node.describe(),
                    "a span of time with its unit, such as 30s".to_owned(),
                    None,
                );
            }
            None => {
                if let Some(schema) = self.schema.get("$defs").and_then(|definitions| definitions.get(name)) {
                    self.node(node, schema, path);
                }
            }
        }
    }

    fn branches(&mut self, node: &Node, branches: &'a [Value], path: &str) {
        let words: Option<Vec<String>> = branches
            .iter()
            .map(|branch| words(branch.as_object()?))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat());
        if let Some(words) = words {
            return self.word(node, &words, path);
        }
        let mut best: Option<Vec<Invalid>> = None;
        let mut kinds: Vec<String> = Vec::new();
        for branch in branches {
            let mut checker = Checker { file: self.file, schema: self.schema, invalid: Vec::new() };
            checker.node(node, branch, path);
            if checker.invalid.is_empty() {
                return;
            }
            // A branch that fails deeper down, or in a word, was meant; one that fails here as a whole was not.
            if checker.invalid.iter().all(|invalid| invalid.path != path || invalid.suggestion.is_some()) {
                best = Some(checker.invalid);
            } else {
                kinds.extend(checker.invalid.into_iter().map(|invalid| invalid.expected));
            }
        }
        match best {
            Some(best) => self.invalid.extend(best),
            None => {
                kinds.retain(|kind| !kind.is_empty() && kind != "nothing");
                kinds.dedup();
                self.report(node.at, path, node.describe(), kinds.join(", or "), None);
            }
        }
    }

    fn word(&mut self, node: &Node, words: &[String], path: &str) {
        if node.text().is_some_and(|text| words.iter().any(|word| word == text)) {
            return;
        }
        let suggestion = node.text().and_then(|text| nearest(text, words.iter().map(String::as_str)));
        let expected = match words {
            [word] => format!("{word:?}"),
            words => format!("one of {}", words.join(", ")),
        };
        self.report(node.at, path, node.describe(), expected, suggestion);
    }

    fn map(&mut self, at: At, members: &[(String, At, Node)], schema: &'a Map<String, Value>, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, place, node) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let property = properties.and_then(|properties| properties.get(name));
            match property.or(others) {
                Some(Value::Bool(false)) => {
                    let known = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    let suggestion = nearest(name, known.clone());
                    let expected = format!("one of the fields {}", known.collect::<Vec<_>>().join(", "));
                    self.report(*place, &path, format!("the unknown field {name:?}"), expected, suggestion);
                }
                Some(schema) => self.node(node, schema, &path),
                None => {}
            }
        }
        let required =
            schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            if !members.iter().any(|(have, ..)| have == name) {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.report(at, &path, "nothing".to_owned(), format!("the field {name:?}"), None);
            }
        }
    }
}

/// The words of an enumeration, if the schema is one.
fn words(schema: &Map<String, Value>) -> Option<Vec<String>> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    match (schema.get("const"), schema.get("enum"), schema.get("oneOf")) {
        (Some(value), ..) => Some(vec![word(value)?]),
        (_, Some(Value::Array(values)), _) => values.iter().map(word).collect(),
        (.., Some(Value::Array(branches))) => branches
            .iter()
            .map(|branch| words(branch.as_object()?))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat()),
        _ => None,
    }
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_type(node: &Node, name: &str) -> bool {
    match (&node.value, name) {
        (Located::Null, "null")
        | (Located::Bool(_), "boolean")
        | (Located::Text(_), "string")
        | (Located::List(_), "array")
        | (Located::Map(_), "object")
        | (Located::Number(_), "number") => true,
        (Located::Number(number), "integer") => number.is_u64() || number.is_i64(),
        _ => false,
    }
}

fn type_text(name: &str) -> &'static str {
    match name {
        "boolean" => "true or false",
        "string" => "a text",
        "array" => "a list",
        "object" => "an object",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "nothing",
    }
}
