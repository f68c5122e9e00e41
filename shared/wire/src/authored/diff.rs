//! What differs in meaning between two sets of documents: documents and fields, and which requests changed hands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::owners::owners;
use crate::document::Document;
use crate::encoding::version;

/// What differs between two sets of documents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// Documents that were added, removed or changed, by kind and name.
    pub changes: Vec<Change>,
    /// Matches that another route answers now.
    pub owners: Vec<OwnerChange>,
}

/// A document that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// It is new.
    Added {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// It is gone.
    Removed {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// It says something else.
    Changed {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Fields that differ.
        fields: Vec<FieldChange>,
    },
}

/// A field that differs. Keys of issuers are named, not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Path, `spec.quota`.
    pub path: String,
    /// What it was; absent where it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A match that another route answers now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerChange {
    /// The match, in a few words: `GET acme.example /v1/orders/{id}`.
    pub requests: String,
    /// Route that answered; absent where none did.
    pub before: Option<String>,
    /// Route that answers; absent where none does.
    pub after: Option<String>,
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.owners.is_empty()
    }
}

/// What differs between the documents that were and those that are. Where a document stands does not count.
#[must_use]
pub fn diff(before: &[Document], after: &[Document]) -> Diff {
    let (old, new) = (by_name(before), by_name(after));
    let mut changes = Vec::new();
    for ((kind, name), document) in &old {
        match new.get(&(*kind, *name)) {
            None => changes.push(Change::Removed { kind: (*kind).to_owned(), name: (*name).to_owned() }),
            Some(other) => {
                let mut fields = Vec::new();
                compare("spec", spec(document).as_ref(), spec(other).as_ref(), &mut fields);
                if !fields.is_empty() {
                    changes.push(Change::Changed {
                        kind: (*kind).to_owned(),
                        name: (*name).to_owned(),
                        fields,
                    });
                }
            }
        }
    }
    let added = new.keys().filter(|key| !old.contains_key(key));
    changes.extend(
        added.map(|(kind, name)| Change::Added { kind: (*kind).to_owned(), name: (*name).to_owned() }),
    );
    changes.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    Diff { changes, owners: owners(before, after) }
}

type ByName<'a> = BTreeMap<(&'static str, &'a str), &'a Document>;

fn by_name(documents: &[Document]) -> ByName<'_> {
    documents
        .iter()
        .map(|document| ((document.body.kind(), document.metadata.name.as_str()), document))
        .collect()
}

fn key_of(change: &Change) -> (&str, &str) {
    match change {
        Change::Added { kind, name }
        | Change::Removed { kind, name }
        | Change::Changed { kind, name, .. } => (kind, name),
    }
}

/// The `spec` of a document, without what repeats its text in another form.
fn spec(document: &Document) -> Option<Value> {
    let mut value = serde_json::to_value(&document.body).ok()?.get_mut("spec")?.take();
    forget_trees(&mut value);
    Some(value)
}

fn forget_trees(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("cel") {
                members.remove("tree");
            }
            // Long, and unreadable: that they differ is enough.
            for list in ["networks", "asns"] {
                if let Some(Value::String(packed)) = members.get_mut(list) {
                    *packed = version(packed.as_bytes());
                }
            }
            members.values_mut().for_each(forget_trees);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_trees),
        _ => {}
    }
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, fields: &mut Vec<FieldChange>) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (name, value) in old {
                compare(&format!("{path}.{name}"), Some(value), new.get(name), fields);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare(&format!("{path}.{name}"), None, Some(value), fields);
            }
        }
        (before, after) if before == after => {}
        (before, after) => {
            // Keys are long and sometimes secret: that they differ is enough.
            let shown = |value: Option<&Value>| {
                if path == "spec.keys" { value.map(|_| Value::from("(keys)")) } else { value.cloned() }
            };
            fields.push(FieldChange { path: path.to_owned(), before: shown(before), after: shown(after) });
        }
    }
}
