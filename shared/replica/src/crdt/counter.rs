//! Numbers that every region adds to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{InvalidOperation, join_max, shape};
use crate::Region;

/// Sums of what each region added and took away (a PN-counter). Whole numbers only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counter {
    pub(super) added: BTreeMap<u16, u64>,
    pub(super) taken: BTreeMap<u16, u64>,
}

impl Counter {
    /// The sum, held within the range of a 64-bit integer.
    #[must_use]
    pub fn value(&self) -> i64 {
        let sum = |side: &BTreeMap<u16, u64>| side.values().map(|n| i128::from(*n)).sum::<i128>();
        let value = sum(&self.added) - sum(&self.taken);
        i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
    }

    pub(super) fn join(&mut self, other: &Counter) {
        join_max(&mut self.added, &other.added);
        join_max(&mut self.taken, &other.taken);
    }

    pub(super) fn operate(&mut self, operation: &Value, region: Region) -> Result<(), InvalidOperation> {
        const EXPECTED: &str = "a whole number, or {\"$add\": whole number}";
        let delta = match (operation.as_i64(), operation.as_object()) {
            (Some(assigned), _) => i128::from(assigned) - i128::from(self.value()),
            (None, Some(object)) if object.len() == 1 => {
                let add = object.get("$add").and_then(Value::as_i64);
                i128::from(add.ok_or_else(|| shape(operation, EXPECTED))?)
            }
            _ => return Err(shape(operation, EXPECTED)),
        };
        let side = if delta < 0 { &mut self.taken } else { &mut self.added };
        if delta != 0 {
            let total = side.entry(region.0).or_default();
            *total = total.saturating_add(u64::try_from(delta.unsigned_abs()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
