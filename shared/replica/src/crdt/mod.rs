//! Fields that merge: every region's changes count, whatever the order in which they arrive.
//!
//! State-based CRDTs (Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data
//! Types", 2011). [`Field::join`] is commutative, associative and idempotent, so a duplicate or a late state
//! does no harm. States are read from and written to JSON in one canonical form: equal states are equal bytes.

mod counter;
mod map;
mod set;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use self::counter::Counter;
pub use self::map::LwwMap;
pub use self::set::Set;
use crate::{Region, Stamp};

/// How a field of a collection merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Additions and subtractions of every region are summed.
    Counter,
    /// Elements; adding wins over a concurrent removal.
    Set,
    /// Keys with values; the later write of a key wins, key by key.
    Map,
}

impl Kind {
    /// The kind's name in declarations and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Set => "set",
            Kind::Map => "map",
        }
    }
}

/// The state of one merging field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// See [`Counter`].
    Counter(Counter),
    /// See [`Set`].
    Set(Set),
    /// See [`LwwMap`].
    Map(LwwMap),
}

/// An operation on a merging field that can't be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOperation {
    /// The value has another shape than the field's kind takes.
    #[error("found {found}, expected {expected}")]
    Shape {
        /// What was found, shortened.
        found: String,
        /// What a field of this kind takes.
        expected: &'static str,
    },
    /// The field would become too large.
    #[error("the field would hold {found} entries, at most {max} are allowed")]
    TooLarge {
        /// Entries that it would hold.
        found: usize,
        /// The limit.
        max: usize,
    },
}

/// A stored state that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid merge state of a field: {found}")]
pub struct InvalidState {
    /// What was found, shortened.
    pub found: String,
}

impl Field {
    /// The empty state of a kind.
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Field::Counter(Counter::default()),
            Kind::Set => Field::Set(Set::default()),
            Kind::Map => Field::Map(LwwMap::default()),
        }
    }

    /// The field's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Field::Counter(_) => Kind::Counter,
            Field::Set(_) => Kind::Set,
            Field::Map(_) => Kind::Map,
        }
    }

    /// Takes in another region's state. Where the kinds differ (a declaration that has not arrived everywhere),
    /// the higher kind stands, so that all regions still agree.
    pub fn join(&mut self, other: &Field) {
        match (&mut *self, other) {
            (Field::Counter(mine), Field::Counter(theirs)) => mine.join(theirs),
            (Field::Set(mine), Field::Set(theirs)) => mine.join(theirs),
            (Field::Map(mine), Field::Map(theirs)) => mine.join(theirs),
            (mine, theirs) => {
                if theirs.kind() > mine.kind() {
                    *mine = theirs.clone();
                }
            }
        }
    }

    /// Does what a client asked for: an operation (`{"$add": …}`, `{"$remove": …}`, `{"$set": …}`), or a plain
    /// value, which assigns. `now` is a stamp of the writing region above everything that the row has seen.
    ///
    /// # Errors
    /// [`InvalidOperation`], and the state is then unchanged or partly changed: throw it away.
    pub fn operate(&mut self, operation: &Value, now: Stamp) -> Result<(), InvalidOperation> {
        match self {
            Field::Counter(counter) => counter.operate(operation, now.region()),
            Field::Set(set) => set.operate(operation, now.region()),
            Field::Map(map) => map.operate(operation, now),
        }
    }

    /// What the field shows to readers: a number, a sorted array, an object.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Field::Counter(counter) => Value::from(counter.value()),
            Field::Set(set) => {
                Value::Array(set.elements.keys().filter_map(|text| serde_json::from_str(text).ok()).collect())
            }
            Field::Map(map) => Value::Object(
                map.entries
                    .iter()
                    .filter_map(|(key, (_, value))| value.clone().map(|value| (key.clone(), value)))
                    .collect(),
            ),
        }
    }

    /// The state as JSON, in its one canonical form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Field::Counter(c) => json!({"t": "c", "p": numbers(&c.added), "n": numbers(&c.taken)}),
            Field::Set(s) => {
                let elements: Map<String, Value> =
                    s.elements.iter().map(|(text, dots)| (text.clone(), numbers(dots))).collect();
                json!({"t": "s", "v": numbers(&s.seen), "e": elements})
            }
            Field::Map(m) => {
                let entries: Map<String, Value> = m
                    .entries
                    .iter()
                    .map(|(key, (stamp, value))| {
                        let mut entry = vec![Value::from(stamp.time()), Value::from(stamp.region().0)];
                        entry.extend(value.clone());
                        (key.clone(), Value::Array(entry))
                    })
                    .collect();
                json!({"t": "m", "k": entries})
            }
        }
    }

    /// Reads a state that [`Field::to_json`] wrote.
    ///
    /// # Errors
    /// [`InvalidState`] for anything else.
    pub fn from_json(state: &Value) -> Result<Self, InvalidState> {
        read(state).ok_or_else(|| InvalidState { found: shorten(state) })
    }
}

fn join_max(mine: &mut BTreeMap<u16, u64>, theirs: &BTreeMap<u16, u64>) {
    for (region, number) in theirs {
        let held = mine.entry(*region).or_default();
        *held = (*held).max(*number);
    }
}

fn numbers(side: &BTreeMap<u16, u64>) -> Value {
    Value::Object(side.iter().map(|(region, number)| (region.to_string(), Value::from(*number))).collect())
}

fn read_numbers(value: Option<&Value>) -> Option<BTreeMap<u16, u64>> {
    value?
        .as_object()?
        .iter()
        .map(|(region, number)| Some((region.parse().ok()?, number.as_u64()?)))
        .collect()
}

fn read(state: &Value) -> Option<Field> {
    let object = state.as_object()?;
    match object.get("t")?.as_str()? {
        "c" => Some(Field::Counter(Counter {
            added: read_numbers(object.get("p"))?,
            taken: read_numbers(object.get("n"))?,
        })),
        "s" => {
            let elements = object.get("e")?.as_object()?.iter();
            Some(Field::Set(Set {
                seen: read_numbers(object.get("v"))?,
                elements: elements
                    .map(|(text, dots)| Some((text.clone(), read_numbers(Some(dots))?)))
                    .collect::<Option<_>>()?,
            }))
        }
        "m" => {
            let mut entries = BTreeMap::new();
            for (key, entry) in object.get("k")?.as_object()? {
                let entry = entry.as_array()?;
                let region = u16::try_from(entry.get(1)?.as_u64()?).ok()?;
                let stamp = Stamp::new(entry.first()?.as_u64()?, Region(region));
                entries.insert(key.clone(), (stamp, entry.get(2).cloned()));
            }
            Some(Field::Map(LwwMap { entries }))
        }
        _ => None,
    }
}

fn shape(found: &Value, expected: &'static str) -> InvalidOperation {
    InvalidOperation::Shape { found: shorten(found), expected }
}

fn shorten(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

fn limit(found: usize, max: usize) -> Result<(), InvalidOperation> {
    if found > max { Err(InvalidOperation::TooLarge { found, max }) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on should stop")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(ms: u64, region: u16) -> Stamp {
        Stamp::at(ms, 0, Region(region))
    }

    #[test]
    fn counter_sums_every_region() {
        let mut here = Field::empty(Kind::Counter);
        here.operate(&json!(10), stamp(1, 1)).unwrap();
        let mut there = here.clone();
        here.operate(&json!({"$add": -3}), stamp(2, 1)).unwrap();
        there.operate(&json!({"$add": 5}), stamp(2, 2)).unwrap();
        here.join(&there);
        assert_eq!(here.value(), json!(12));
        here.operate(&json!(0), stamp(3, 1)).unwrap();
        assert_eq!(here.value(), json!(0));
        assert!(here.operate(&json!({"$add": 1.5}), stamp(4, 1)).is_err());
        assert!(here.operate(&json!("7"), stamp(4, 1)).is_err());
    }

    #[test]
    fn adding_wins_over_a_concurrent_removal_and_removal_over_what_it_saw() {
        let mut here = Field::empty(Kind::Set);
        here.operate(&json!(["a", "b"]), stamp(1, 1)).unwrap();
        let mut there = here.clone();
        here.operate(&json!({"$remove": ["a", "b"]}), stamp(2, 1)).unwrap();
        there.operate(&json!({"$add": ["a"]}), stamp(2, 2)).unwrap();
        here.join(&there);
        there.join(&here);
        assert_eq!(here.value(), json!(["a"]));
        assert_eq!(here, there);
    }

    #[test]
    fn map_keys_win_one_by_one_and_removals_stay() {
        let mut here = Field::empty(Kind::Map);
        here.operate(&json!({"a": 1, "b": 1}), stamp(1, 1)).unwrap();
        let mut there = here.clone();
        here.operate(&json!({"a": null}), stamp(3, 1)).unwrap();
        there.operate(&json!({"a": 2, "c": {"x": []}}), stamp(2, 2)).unwrap();
        here.join(&there);
        assert_eq!(here.value(), json!({"b": 1, "c": {"x": []}}));
        here.operate(&json!({"$set": {"b": 9}}), stamp(4, 1)).unwrap();
        assert_eq!(here.value(), json!({"b": 9}));
    }

    #[test]
    fn refuses_states_of_another_shape() {
        for bad in [
            json!(null),
            json!({"t": "x"}),
            json!({"t": "c", "p": {"x": 1}, "n": {}}),
            json!({"t": "m", "k": {"a": [1]}}),
        ] {
            assert!(Field::from_json(&bad).is_err(), "{bad}");
        }
    }

    /// One replica group of a field: three regions that operate and join at random.
    fn states(kind: Kind, script: &[(u8, u8, u8, i8)]) -> [Field; 3] {
        let mut fields = [Field::empty(kind), Field::empty(kind), Field::empty(kind)];
        for (index, (who, other, what, number)) in script.iter().enumerate() {
            let (who, other) = (usize::from(who % 3), usize::from(other % 3));
            let name = format!("k{}", number.rem_euclid(4));
            let operation = match (kind, what % 4) {
                (_, 0) => {
                    let theirs = fields[other].clone();
                    fields[who].join(&theirs);
                    continue;
                }
                (Kind::Counter, _) => json!({"$add": number}),
                (Kind::Set, 1) => json!({"$remove": [name]}),
                (Kind::Set, _) => json!({"$add": [name]}),
                (Kind::Map, 1) => json!({name: null}),
                (Kind::Map, _) => json!({name: number}),
            };
            fields[who].operate(&operation, stamp(index as u64, who as u16)).unwrap();
        }
        fields
    }

    fn joined(a: &Field, b: &Field) -> Field {
        let mut a = a.clone();
        a.join(b);
        a
    }

    proptest! {
        #[test]
        fn join_is_a_semilattice(
            kind in prop::sample::select(vec![Kind::Counter, Kind::Set, Kind::Map]),
            script in prop::collection::vec(any::<(u8, u8, u8, i8)>(), 0..40),
        ) {
            let [a, b, c] = states(kind, &script);
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert_eq!(joined(&joined(&a, &b), &b), joined(&a, &b));
            prop_assert_eq!(Field::from_json(&a.to_json()).unwrap(), a);
        }
    }
}
