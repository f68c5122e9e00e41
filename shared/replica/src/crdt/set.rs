//! Elements that every region adds and removes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{InvalidOperation, join_max, limit, shape};
use crate::Region;
use crate::limits::SET_ELEMENTS_MAX;

/// An observed-remove set without tombstones: each element has the dots (region and sequence) that added it,
/// and the set knows the highest dot that it has seen of each region. Elements are JSON scalars.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) seen: BTreeMap<u16, u64>,
    pub(super) elements: BTreeMap<String, BTreeMap<u16, u64>>,
}

impl Set {
    pub(super) fn join(&mut self, other: &Set) {
        let mut joined: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
        let none = BTreeMap::new();
        for text in self.elements.keys().chain(other.elements.keys()) {
            if joined.contains_key(text) {
                continue;
            }
            let mine = self.elements.get(text).unwrap_or(&none);
            let theirs = other.elements.get(text).unwrap_or(&none);
            let mut dots = surviving(mine, theirs, &other.seen);
            join_max(&mut dots, &surviving(theirs, mine, &self.seen));
            if !dots.is_empty() {
                joined.insert(text.clone(), dots);
            }
        }
        self.elements = joined;
        join_max(&mut self.seen, &other.seen);
    }

    pub(super) fn operate(&mut self, operation: &Value, region: Region) -> Result<(), InvalidOperation> {
        const EXPECTED: &str =
            "an array of strings, numbers and booleans, or {\"$add\": array, \"$remove\": array}";
        match operation {
            Value::Array(wanted) => {
                let wanted = texts(wanted).ok_or_else(|| shape(operation, EXPECTED))?;
                self.elements.retain(|text, _| wanted.contains(text));
                for text in wanted {
                    if !self.elements.contains_key(&text) {
                        self.add(text, region);
                    }
                }
            }
            Value::Object(object)
                if !object.is_empty() && object.keys().all(|key| key == "$add" || key == "$remove") =>
            {
                let side = |name: &str| match object.get(name) {
                    None => Some(Vec::new()),
                    Some(Value::Array(elements)) => texts(elements),
                    Some(_) => None,
                };
                let removed = side("$remove").ok_or_else(|| shape(operation, EXPECTED))?;
                let added = side("$add").ok_or_else(|| shape(operation, EXPECTED))?;
                for text in removed {
                    self.elements.remove(&text);
                }
                for text in added {
                    self.add(text, region);
                }
            }
            _ => return Err(shape(operation, EXPECTED)),
        }
        limit(self.elements.len(), SET_ELEMENTS_MAX)
    }

    /// A new dot for an element takes the place of those that it had.
    fn add(&mut self, text: String, region: Region) {
        let seen = self.seen.entry(region.0).or_default();
        *seen = seen.saturating_add(1);
        self.elements.insert(text, BTreeMap::from([(region.0, *seen)]));
    }
}

/// Dots of one side that the other side has too, or has never seen: the rest were removed there.
fn surviving(
    dots: &BTreeMap<u16, u64>,
    other: &BTreeMap<u16, u64>,
    other_seen: &BTreeMap<u16, u64>,
) -> BTreeMap<u16, u64> {
    let seen = |region: &u16| other_seen.get(region).copied().unwrap_or(0);
    dots.iter()
        .filter(|(region, dot)| other.get(region) == Some(dot) || **dot > seen(region))
        .map(|(region, dot)| (*region, *dot))
        .collect()
}

fn texts(elements: &[Value]) -> Option<Vec<String>> {
    elements
        .iter()
        .map(|e| (!e.is_array() && !e.is_object() && !e.is_null()).then(|| e.to_string()))
        .collect()
}
