//! A YAML or JSON file as a tree in which every value knows its line and column.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, Spanned};

use super::invalid::Invalid;
use crate::limits::{ALIASES_MAX, FILE_BYTES_MAX, FILE_DEPTH_MAX, FILE_DOCUMENTS_MAX, FILE_NODES_MAX};

/// A place in a file, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Located,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Located {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// Members in order, each name with its place.
    Map(Vec<(String, At, Node)>),
}

/// Reads the documents of a file.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Node>, Box<Invalid>> {
    let invalid = |at: At, found: String, expected: String| {
        Box::new(Invalid {
            file: file.to_owned(),
            line: at.line.max(1),
            column: at.column.max(1),
            path: String::new(),
            found,
            expected,
            suggestion: None,
        })
    };
    if text.len() > FILE_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Err(invalid(At::default(), found, format!("a file of at most {FILE_BYTES_MAX} bytes")));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: FILE_DEPTH_MAX,
            max_nodes: FILE_NODES_MAX,
            max_documents: FILE_DOCUMENTS_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: FILE_NODES_MAX,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let documents: Result<Vec<Spanned<Raw>>, _> = serde_saphyr::from_multiple_with_options(text, options);
    match documents {
        Ok(documents) => Ok(documents.into_iter().map(Node::from).collect()),
        Err(error) => {
            let at = error.location().map(|location| At {
                line: u32::try_from(location.line()).unwrap_or(u32::MAX),
                column: u32::try_from(location.column()).unwrap_or(u32::MAX),
            });
            let (found, expected) = in_words(&error.without_snippet().to_string());
            Err(invalid(at.unwrap_or_default(), found, expected))
        }
    }
}

/// What the parser says, without the place, which is said already, and without its own settings.
fn in_words(message: &str) -> (String, String) {
    let message = message.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set ").next().unwrap_or_default();
        return (format!("the key {key:?} again"), "every key once".to_owned());
    }
    if message.starts_with("alias replay limit exceeded") {
        let expected = format!("at most {FILE_NODES_MAX} values in a file (FILE_NODES_MAX)");
        return ("aliases that repeat more values than that".to_owned(), expected);
    }
    if message.contains("breached: Documents ") {
        let expected = format!("at most {FILE_DOCUMENTS_MAX} documents in a file (FILE_DOCUMENTS_MAX)");
        return ("more documents than that".to_owned(), expected);
    }
    if message.contains("breached: Nodes ") {
        let expected = format!("at most {FILE_NODES_MAX} values in a file (FILE_NODES_MAX)");
        return ("more values than that".to_owned(), expected);
    }
    (format!("an error: {message}"), "YAML 1.2 or JSON".to_owned())
}

impl Node {
    /// What is there, for an error: a short value as it is, a long one by its kind.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Located::Null => "nothing".to_owned(),
            Located::Bool(value) => value.to_string(),
            Located::Number(number) => number.to_string(),
            Located::Text(text) if text.chars().count() <= 60 => format!("{text:?}"),
            Located::Text(text) => format!("{:?}…", text.chars().take(60).collect::<String>()),
            Located::List(_) => "a list".to_owned(),
            Located::Map(_) => "an object".to_owned(),
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Located::Map(members) => members.iter().find(|(have, ..)| have == name).map(|(.., node)| node),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Located::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.value {
            Located::Null => Value::Null,
            Located::Bool(value) => Value::Bool(*value),
            Located::Number(number) => Value::Number(number.clone()),
            Located::Text(text) => Value::String(text.clone()),
            Located::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Located::Map(members) => {
                let member = |(name, _, node): &(String, At, Self)| (name.clone(), node.to_json());
                Value::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
        }
    }

    /// The place of a path such as `spec.keys[0].alg`, or of the nearest thing around it that is there.
    pub(super) fn locate(&self, path: &str) -> At {
        self.find(path).at
    }

    /// The node at a path, or the nearest around it that is there.
    pub(super) fn find(&self, path: &str) -> &Self {
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            rest = rest.trim_start_matches('.');
            let next = match (&node.value, rest.strip_prefix('[')) {
                (Located::List(items), Some(after)) => after
                    .split_once(']')
                    .and_then(|(index, after)| Some((items.get(index.parse::<usize>().ok()?)?, after))),
                // A name may hold dots: the longest that fits is meant.
                (Located::Map(members), _) => members
                    .iter()
                    .filter_map(|(name, _, node)| Some((node, rest.strip_prefix(name.as_str())?)))
                    .filter(|(_, after)| after.is_empty() || after.starts_with(['.', '[']))
                    .min_by_key(|(_, after)| after.len()),
                _ => None,
            };
            match next {
                Some((found, after)) => (node, rest) = (found, after),
                None => break,
            }
        }
        node
    }
}

/// A value before its place is attached.
enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl From<Spanned<Raw>> for Node {
    fn from(spanned: Spanned<Raw>) -> Self {
        let at = at(&spanned);
        let value = match spanned.value {
            Raw::Null => Located::Null,
            Raw::Bool(value) => Located::Bool(value),
            Raw::Number(number) => Located::Number(number),
            Raw::Text(text) => Located::Text(text),
            Raw::List(items) => Located::List(items.into_iter().map(Self::from).collect()),
            Raw::Map(members) => Located::Map(
                members
                    .into_iter()
                    .map(|(name, node)| {
                        let place = self::at(&name);
                        (name.value, place, Self::from(node))
                    })
                    .collect(),
            ),
        };
        Self { at, value }
    }
}

fn at<T>(spanned: &Spanned<T>) -> At {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    At { line: number(spanned.referenced.line()), column: number(spanned.referenced.column()) }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Number(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Number(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
                Number::from_f64(value)
                    .map(Raw::Number)
                    .ok_or_else(|| E::custom("a number that is not finite"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Raw::Map(members))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place() {
        let text = "kind: Route\nspec:\n  ttl:\n    200: 60s\n  list: [a, {b: 1.5}]\n---\n{\"kind\": null}\n";
        let documents = read("a.yaml", text).unwrap();
        assert_eq!(documents.len(), 2);
        let first = &documents[0];
        assert_eq!(first.locate("kind"), At { line: 1, column: 7 });
        assert_eq!(first.locate("spec.ttl.200"), At { line: 4, column: 10 });
        assert_eq!(first.locate("spec.list[1].b"), At { line: 5, column: 17 });
        assert_eq!(first.locate("spec.list[7].b"), first.locate("spec.list"), "the nearest that is there");
        assert_eq!(documents[1].locate("kind"), At { line: 7, column: 10 });
        assert_eq!(first.to_json()["spec"]["ttl"]["200"], "60s");
    }

    #[test]
    fn what_is_no_yaml_or_too_much_is_refused() {
        for wrong in ["a: [", "a: 1\na: 2\n", "a: *b\n", "- a\nb: c\n", "a: !x b\n", "<<: {a: 1}\n"] {
            let error = read("a.yaml", wrong).unwrap_err();
            assert!(error.line >= 1 && !error.found.is_empty(), "{wrong}: {error}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(read("a.yaml", &deep).is_err());
        let mut laughs = "a0: &a0 [lol]\n".to_owned();
        for turn in 1..10 {
            let previous = format!("*a{},", turn - 1).repeat(10);
            laughs += &format!("a{turn}: &a{turn} [{previous}]\n");
        }
        assert!(read("a.yaml", &laughs).is_err());
        assert!(read("a.yaml", &"#".repeat(FILE_BYTES_MAX + 1)).is_err());
        assert_eq!(
            read("a.yaml", &"---\na: 1\n".repeat(FILE_DOCUMENTS_MAX)).unwrap().len(),
            FILE_DOCUMENTS_MAX
        );
        let many = read("a.yaml", &"---\na: 1\n".repeat(FILE_DOCUMENTS_MAX + 1)).unwrap_err();
        assert!(many.expected.contains("at most 1000 documents in a file"), "{many}");
        let wide = read("a.yaml", &format!("a: [{}]", "1,".repeat(FILE_NODES_MAX))).unwrap_err();
        assert!(wide.expected.contains("at most 200000 values in a file"), "{wide}");
    }
}
