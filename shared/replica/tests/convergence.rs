//! Any order of delivery, duplicates and partitions: in the end all regions hold the same bytes.

use std::collections::BTreeMap;

use meridian_replica::conflict::{Outcome, Record, Version, merge};
use meridian_replica::crdt::{Field, Kind};
use meridian_replica::{Clock, Region, Stamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const REGIONS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A region writes a row: plain field, counter, set and map, or deletes it.
    Write { region: usize, key: u8, what: u8, number: i8 },
    /// A region receives one of the changes that another has made, any of them, again or not.
    Deliver { to: usize, change: prop::sample::Index },
    /// A region's wall clock steps.
    Shift { region: usize, by_ms: i32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..REGIONS, 0u8..3, any::<u8>(), any::<i8>())
            .prop_map(|(region, key, what, number)| Step::Write { region, key, what, number }),
        3 => (0..REGIONS, any::<prop::sample::Index>()).prop_map(|(to, change)| Step::Deliver { to, change }),
        1 => (0..REGIONS, -50i32..200).prop_map(|(region, by_ms)| Step::Shift { region, by_ms }),
    ]
}

struct Replica {
    clock: Clock,
    now_ms: u64,
    rows: BTreeMap<u8, Record>,
}

impl Replica {
    fn new(ordinal: u16) -> Self {
        Self { clock: Clock::new(Region(ordinal)), now_ms: 100_000, rows: BTreeMap::new() }
    }

    fn write(&mut self, key: u8, what: u8, number: i8) -> Record {
        let stamp = self.clock.tick(self.now_ms);
        let held = self.rows.get(&key).cloned();
        let base = held.as_ref().map_or(Stamp::ZERO, |row| row.version.stamp);
        let mut row = held.unwrap_or_else(|| Record {
            version: Version { stamp, base, deleted: false },
            fields: Map::new(),
            merges: BTreeMap::new(),
        });
        row.version = Version { stamp, base, deleted: what.is_multiple_of(7) };
        let name = format!("e{}", number.rem_euclid(3));
        let (field, kind, operation) = match what % 5 {
            0 => ("count", Kind::Counter, json!({"$add": number})),
            1 => ("tags", Kind::Set, json!({"$add": [name]})),
            2 => ("tags", Kind::Set, json!({"$remove": [name]})),
            3 => ("notes", Kind::Map, json!({name: number})),
            _ => {
                row.fields.insert("plain".into(), Value::from(number));
                self.rows.insert(key, row.clone());
                return row;
            }
        };
        let state = row.merges.entry(field.into()).or_insert_with(|| Field::empty(kind));
        state.operate(&operation, stamp).expect("the operation fits its kind");
        row.show_merges();
        self.rows.insert(key, row.clone());
        row
    }

    fn receive(&mut self, key: u8, theirs: &Record) {
        self.clock.observe(theirs.version.stamp, self.now_ms.max(200_000)).expect("no far future here");
        match self.rows.get(&key) {
            None => {
                self.rows.insert(key, theirs.clone());
            }
            Some(mine) => {
                let merged = merge(mine, theirs, self.now_ms.max(200_000));
                assert!(!matches!(merged.verdict.outcome, Outcome::Park(_)));
                if merged.verdict.outcome == Outcome::KeepMine {
                    assert_eq!(&merged.record, mine, "keeping mine must not change it");
                }
                self.rows.insert(key, merged.record);
            }
        }
    }

    fn bytes(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(key, row)| {
                json!([
                    key,
                    row.version.stamp.to_string(),
                    row.version.base.to_string(),
                    row.version.deleted,
                    row.fields,
                    Record::merges_to_json(&row.merges)
                ])
            })
            .collect();
        Value::Array(rows).to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replicas_converge(steps in prop::collection::vec(step(), 1..80), order in any::<prop::sample::Index>()) {
        let mut replicas: Vec<Replica> = (0..REGIONS).map(|n| Replica::new(n as u16 + 1)).collect();
        let mut log: Vec<(usize, u8, Record)> = Vec::new();
        for step in steps {
            match step {
                Step::Write { region, key, what, number } => {
                    let row = replicas[region].write(key, what, number);
                    log.push((region, key, row));
                }
                Step::Deliver { to, change } => {
                    if !log.is_empty() {
                        let (from, key, row) = &log[change.index(log.len())];
                        if *from != to {
                            replicas[to].receive(*key, row);
                        }
                    }
                }
                Step::Shift { region, by_ms } => {
                    let now = &mut replicas[region].now_ms;
                    *now = now.saturating_add_signed(i64::from(by_ms)).max(1);
                }
            }
        }
        // The partition heals: everything arrives everywhere, each region starting elsewhere in the log.
        for (index, replica) in replicas.iter_mut().enumerate() {
            let start = if log.is_empty() { 0 } else { (order.index(log.len()) * (index + 1)) % log.len() };
            for (from, key, row) in log[start..].iter().chain(&log[..start]) {
                if *from != index {
                    replica.receive(*key, row);
                }
            }
        }
        prop_assert_eq!(replicas[0].bytes(), replicas[1].bytes());
        prop_assert_eq!(replicas[1].bytes(), replicas[2].bytes());
    }
}
