//! What a region does with a change that arrives.
//!
//! Each row version carries its own stamp and the stamp of the version that it was based on. A change whose base
//! is at least what this region holds was made by somebody who had seen it: it is *newer*. A change below what
//! this region holds, and seen by it, is *stale*. Anything else is *concurrent*: it is resolved by the higher
//! stamp (and by joining the merging fields), and reported, because somebody's write gave way.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::crdt::{Field, InvalidState};
use crate::{Stamp, TooFarAhead};

/// The version of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When and where it was made.
    pub stamp: Stamp,
    /// The stamp of the version that it was made from; [`Stamp::ZERO`] for a first version.
    pub base: Stamp,
    /// Whether it is a tombstone.
    pub deleted: bool,
}

/// What to do with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Take the change's row whole.
    Apply,
    /// Write the row that [`merge`] returned: it differs from both.
    Merge,
    /// Leave the row as it is.
    KeepMine,
    /// Set the change aside and tell an operator.
    Park(TooFarAhead),
}

/// Which two kinds of change met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Two regions made the same row.
    InsertInsert,
    /// Two regions changed the same version.
    UpdateUpdate,
    /// One changed what the other deleted.
    UpdateDelete,
    /// Both deleted it.
    DeleteDelete,
}

impl Class {
    /// Every class, in the order in which counters list them.
    pub const ALL: [Class; 4] =
        [Class::InsertInsert, Class::UpdateUpdate, Class::UpdateDelete, Class::DeleteDelete];

    /// The name in the conflict table, in metrics and in the command line's output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::InsertInsert => "insert_insert",
            Class::UpdateUpdate => "update_update",
            Class::UpdateDelete => "update_delete",
            Class::DeleteDelete => "delete_delete",
        }
    }
}

/// The answer for one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub outcome: Outcome,
    /// The class of conflict when the change and the row held here were made without knowledge of each other.
    pub concurrent: Option<Class>,
}

/// Decides for a row without merging fields: the higher stamp wins whole.
///
/// `now_ms` is this region's wall clock, for the quarantine of stamps from the future.
#[must_use]
pub fn decide(mine: Option<&Version>, theirs: &Version, now_ms: u64) -> Verdict {
    if let Err(ahead) = theirs.stamp.check_ahead(now_ms) {
        return Verdict { outcome: Outcome::Park(ahead), concurrent: None };
    }
    let Some(mine) = mine else {
        return Verdict { outcome: Outcome::Apply, concurrent: None };
    };
    let (outcome, seen) = if theirs.stamp > mine.stamp {
        (Outcome::Apply, theirs.base >= mine.stamp)
    } else {
        (Outcome::KeepMine, mine.base >= theirs.stamp || mine.stamp == theirs.stamp)
    };
    Verdict { outcome, concurrent: if seen { None } else { Some(class(mine, theirs)) } }
}

fn class(mine: &Version, theirs: &Version) -> Class {
    match (mine.deleted, theirs.deleted) {
        (true, true) => Class::DeleteDelete,
        (true, false) | (false, true) => Class::UpdateDelete,
        (false, false) if mine.base == Stamp::ZERO && theirs.base == Stamp::ZERO => Class::InsertInsert,
        (false, false) => Class::UpdateUpdate,
    }
}

/// A record: its fields, and the states of those that merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The row's version.
    pub version: Version,
    /// What readers see, the values of merging fields among it.
    pub fields: Map<String, Value>,
    /// The states of merging fields, by field name.
    pub merges: BTreeMap<String, Field>,
}

impl Record {
    /// Reads the stored states of merging fields.
    ///
    /// # Errors
    /// [`InvalidState`] when one is not what [`Record::merges_to_json`] wrote.
    pub fn merges_from_json(states: &Value) -> Result<BTreeMap<String, Field>, InvalidState> {
        let Some(states) = states.as_object() else {
            return Err(InvalidState { found: states.to_string().chars().take(80).collect() });
        };
        states.iter().map(|(name, state)| Ok((name.clone(), Field::from_json(state)?))).collect()
    }

    /// The states of merging fields in their stored form.
    #[must_use]
    pub fn merges_to_json(merges: &BTreeMap<String, Field>) -> Value {
        Value::Object(merges.iter().map(|(name, field)| (name.clone(), field.to_json())).collect())
    }

    /// Writes the values of the merging fields into the fields.
    pub fn show_merges(&mut self) {
        for (name, field) in &self.merges {
            self.fields.insert(name.clone(), field.value());
        }
    }
}

/// What became of two versions of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The verdict; [`Outcome::Merge`] when the result differs from both sides.
    pub verdict: Verdict,
    /// Whether a value gave way: two concurrent versions whose plain fields differ. A concurrent change of
    /// merging fields alone loses nothing.
    pub lossy: bool,
    /// The record to keep.
    pub record: Record,
}

/// Decides for a record: the higher stamp wins the plain fields, the merging fields join, always.
///
/// Joining even when the change is newer or stale costs little and makes the result independent of the order of
/// arrival: a version may be newer than what this region holds and still not know of another region's addition.
#[must_use]
pub fn merge(mine: &Record, theirs: &Record, now_ms: u64) -> Merged {
    let mut verdict = decide(Some(&mine.version), &theirs.version, now_ms);
    let (winner, loser) = match verdict.outcome {
        Outcome::Park(_) | Outcome::KeepMine => (mine, theirs),
        Outcome::Apply | Outcome::Merge => (theirs, mine),
    };
    if matches!(verdict.outcome, Outcome::Park(_)) {
        return Merged { verdict, lossy: false, record: mine.clone() };
    }
    let lossy = verdict.concurrent.is_some() && plain_differ(winner, loser);
    let mut record = winner.clone();
    for (name, state) in &loser.merges {
        match record.merges.get_mut(name) {
            Some(field) => field.join(state),
            None => {
                record.merges.insert(name.clone(), state.clone());
            }
        }
    }
    if record.merges != winner.merges {
        record.show_merges();
        verdict.outcome = if record == *mine {
            Outcome::KeepMine
        } else if record == *theirs {
            Outcome::Apply
        } else {
            Outcome::Merge
        };
    }
    Merged { verdict, lossy, record }
}

fn plain_differ(a: &Record, b: &Record) -> bool {
    let merging = |name: &str| a.merges.contains_key(name) || b.merges.contains_key(name);
    a.version.deleted != b.version.deleted
        || a.fields.iter().any(|(name, value)| !merging(name) && b.fields.get(name) != Some(value))
        || b.fields.keys().any(|name| !merging(name) && !a.fields.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Region;

    fn version(stamp: (u64, u16), base: (u64, u16), deleted: bool) -> Version {
        let at = |(ms, region): (u64, u16)| Stamp::at(ms, 0, Region(region));
        Version { stamp: at(stamp), base: if base.0 == 0 { Stamp::ZERO } else { at(base) }, deleted }
    }

    fn check(mine: Version, theirs: Version, outcome: Outcome, concurrent: Option<Class>) {
        assert_eq!(decide(Some(&mine), &theirs, 1_000), Verdict { outcome, concurrent });
    }

    #[test]
    fn nothing_here_yet() {
        let theirs = version((10, 2), (9, 1), false);
        assert_eq!(decide(None, &theirs, 1_000).outcome, Outcome::Apply);
    }

    #[test]
    fn newer_stale_and_duplicate_are_no_conflicts() {
        check(version((10, 1), (0, 0), false), version((20, 2), (10, 1), false), Outcome::Apply, None);
        check(version((20, 2), (10, 1), false), version((10, 1), (0, 0), false), Outcome::KeepMine, None);
        check(version((20, 2), (10, 1), false), version((20, 2), (10, 1), false), Outcome::KeepMine, None);
    }

    #[test]
    fn concurrent_changes_by_class() {
        check(
            version((10, 1), (0, 0), false),
            version((11, 2), (0, 0), false),
            Outcome::Apply,
            Some(Class::InsertInsert),
        );
        check(
            version((21, 1), (10, 1), false),
            version((20, 2), (10, 1), false),
            Outcome::KeepMine,
            Some(Class::UpdateUpdate),
        );
        check(
            version((20, 1), (10, 1), true),
            version((21, 2), (10, 1), false),
            Outcome::Apply,
            Some(Class::UpdateDelete),
        );
        check(
            version((20, 1), (10, 1), true),
            version((20, 2), (10, 1), true),
            Outcome::Apply,
            Some(Class::DeleteDelete),
        );
    }

    #[test]
    fn the_far_future_is_parked() {
        let theirs = version((10_000_000, 2), (0, 0), false);
        assert!(matches!(decide(None, &theirs, 1_000).outcome, Outcome::Park(_)));
    }
}
