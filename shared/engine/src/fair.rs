//! A map that many owners share, of which none can take the place of the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::bounded::Keyed;

/// A map of at most `capacity` entries of all owners together; nobody who chooses keys makes it slow. Where it is full, an eighth of the places is made free: who has
/// more than an even share gives up of its own, and who has no more loses nothing.
#[derive(Debug)]
pub struct Fair<K, V> {
    owners: HashMap<Arc<str>, BTreeMap<K, V>, Keyed>,
    capacity: usize,
    entries: usize,
}

impl<K: Ord + Copy, V> Fair<K, V> {
    /// An empty map of at most `capacity` entries (at least one).
    #[must_use]
    pub fn new(capacity: usize, keyed: Keyed) -> Self {
        Self { owners: HashMap::with_hasher(keyed), capacity: capacity.max(1), entries: 0 }
    }

    /// The value of an owner's key.
    pub fn get(&self, owner: &str, key: &K) -> Option<&V> {
        self.owners.get(owner)?.get(key)
    }

    /// Whether room has to be made for an owner's key.
    pub fn is_full_for(&self, owner: &str, key: &K) -> bool {
        self.entries >= self.capacity && self.get(owner, key).is_none()
    }

    /// The value of an owner's key, made first where there is none. Make room for it before, or one beyond the capacity is
    /// there.
    pub fn get_or_insert_with(&mut self, owner: &Arc<str>, key: K, make: impl FnOnce() -> V) -> &mut V {
        let own = self.owners.entry(Arc::clone(owner)).or_default();
        let entries = &mut self.entries;
        own.entry(key).or_insert_with(|| {
            *entries += 1;
            make()
        })
    }

    /// Keeps the entries for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.owners.values_mut().for_each(|own| own.retain(|_, value| keep(value)));
        self.owners.retain(|_, own| !own.is_empty());
        self.entries = self.owners.values().map(BTreeMap::len).sum();
    }

    /// Makes an eighth of the places free. What is worth the least goes first, to `given_up` with its owner.
    pub fn make_room(&mut self, worth: impl Fn(&V) -> u64, mut given_up: impl FnMut(&Arc<str>, V)) {
        let keep = self.capacity - self.capacity.div_ceil(8);
        let share = share_of_each(self.owners.values().map(BTreeMap::len).collect(), keep);
        for (owner, own) in &mut self.owners {
            let surplus = own.len().saturating_sub(share);
            let mut all: Vec<(u64, K)> = own.iter().map(|(key, value)| (worth(value), *key)).collect();
            for key in least(&mut all, surplus) {
                self.entries -= 1;
                own.remove(&key).into_iter().for_each(|value| given_up(owner, value));
            }
        }
        // More owners than there are places for: then what is worth the least of all goes.
        let surplus = self.entries.saturating_sub(keep);
        let worth = |own: &BTreeMap<K, V>| own.values().map(&worth).max().unwrap_or_default();
        let owners = self.owners.iter().filter(|_| surplus > 0);
        let mut all: Vec<(u64, Arc<str>)> =
            owners.map(|(owner, own)| (worth(own), Arc::clone(owner))).collect();
        for owner in least(&mut all, surplus) {
            let own = self.owners.remove(&owner).unwrap_or_default();
            self.entries -= own.len();
            own.into_values().for_each(|value| given_up(&owner, value));
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many owners have any.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.owners.len()
    }
}

/// The most that each owner may keep, at least one, so that no more than `keep` are kept of these numbers where that can be.
fn share_of_each(mut sizes: Vec<usize>, keep: usize) -> usize {
    sizes.sort_unstable();
    let mut left = keep;
    for (at, size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - at);
        if *size > share {
            return share.max(1);
        }
        left -= size;
    }
    usize::MAX
}

/// So many of those that are worth the least.
fn least<K: Ord + Clone>(all: &mut [(u64, K)], count: usize) -> Vec<K> {
    let Some(last) = count.min(all.len()).checked_sub(1) else { return Vec::new() };
    all.select_nth_unstable(last);
    all.iter().take(last + 1).map(|(_, key)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Puts a value that is worth its key, and says what was given up for it.
    fn put(map: &mut Fair<u64, u64>, owner: &str, key: u64) -> Vec<(String, u64)> {
        let mut gone = Vec::new();
        if map.is_full_for(owner, &key) {
            map.make_room(|value| *value, |owner, value| gone.push((owner.to_string(), value)));
        }
        map.get_or_insert_with(&owner.into(), key, || key);
        gone.sort();
        gone
    }

    #[test]
    fn who_has_more_than_an_even_share_gives_up_what_is_worth_the_least() {
        let mut map = Fair::new(8, Keyed::default());
        for (owner, keys) in [("small", 0..2), ("large", 10..16)] {
            for key in keys {
                assert_eq!(put(&mut map, owner, key), []);
            }
        }
        assert_eq!(put(&mut map, "large", 10), [], "there already");
        assert_eq!(put(&mut map, "other", 7), [("large".to_owned(), 10)]);
        assert_eq!((map.len(), map.owners()), (8, 3));
        for key in 100..200 {
            put(&mut map, "large", key);
        }
        assert_eq!(
            (map.get("small", &0), map.get("small", &1), map.get("other", &7)),
            (Some(&0), Some(&1), Some(&7))
        );
    }

    #[test]
    fn of_more_owners_than_places_the_newest_stay() {
        let mut map = Fair::new(8, Keyed::default());
        for key in 0..100 {
            put(&mut map, &key.to_string(), key);
            assert!(map.len() <= 8);
        }
        assert_eq!(map.get("99", &99), Some(&99));
        map.retain(|value| *value != 99);
        assert_eq!((map.get("99", &99), map.owners()), (None, map.len()));
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_capacity_and_an_even_share_is_safe(
            capacity in 1usize..40,
            puts in proptest::collection::vec((0u8..4, 0u64..60), 0..300),
        ) {
            let mut map = Fair::new(capacity, Keyed::new(&[7; 32]));
            for (owner, key) in puts {
                let owner = owner.to_string();
                let had: HashMap<String, usize> =
                    map.owners.iter().map(|(owner, own)| (owner.to_string(), own.len())).collect();
                let gone = put(&mut map, &owner, key);
                prop_assert_eq!(map.get(&owner, &key), Some(&key));
                prop_assert!(map.len() <= capacity);
                prop_assert_eq!(map.len(), map.owners.values().map(BTreeMap::len).sum::<usize>());
                let even = (capacity - capacity.div_ceil(8)) / had.len().max(1);
                for (loser, _) in gone {
                    prop_assert!(had[&loser] > even, "{loser} had {} of {capacity}", had[&loser]);
                }
            }
        }
    }
}
