//! Keys that every region gives values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{InvalidOperation, limit, shape};
use crate::Stamp;
use crate::limits::MAP_KEYS_MAX;

/// A map whose keys are last-writer-wins registers; a removed key keeps its stamp.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LwwMap {
    pub(super) entries: BTreeMap<String, (Stamp, Option<Value>)>,
}

impl LwwMap {
    pub(super) fn join(&mut self, other: &LwwMap) {
        for (key, theirs) in &other.entries {
            match self.entries.get_mut(key) {
                None => {
                    self.entries.insert(key.clone(), theirs.clone());
                }
                Some(mine) if rank(theirs) > rank(mine) => *mine = theirs.clone(),
                Some(_) => {}
            }
        }
    }

    pub(super) fn operate(&mut self, operation: &Value, now: Stamp) -> Result<(), InvalidOperation> {
        const EXPECTED: &str = "an object, null for a key that goes, or {\"$set\": whole object}";
        let object = operation.as_object().ok_or_else(|| shape(operation, EXPECTED))?;
        let whole = if object.len() == 1 { object.get("$set") } else { None };
        let changes = match whole {
            Some(whole) => whole.as_object().ok_or_else(|| shape(operation, EXPECTED))?,
            None => object,
        };
        if whole.is_some() {
            for (key, entry) in &mut self.entries {
                if entry.1.is_some() && !changes.contains_key(key) {
                    *entry = (now, None);
                }
            }
        }
        for (key, value) in changes {
            let value = if value.is_null() { None } else { Some(value.clone()) };
            self.entries.insert(key.clone(), (now, value));
        }
        limit(self.entries.len(), MAP_KEYS_MAX)
    }
}

/// Order of two entries of one key: by stamp, and for equal stamps by content, so that joining commutes always.
fn rank(entry: &(Stamp, Option<Value>)) -> (Stamp, Option<String>) {
    (entry.0, entry.1.as_ref().map(Value::to_string))
}
