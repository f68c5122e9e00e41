//! A map that never holds more than it was made for, and forgets what was not used lately.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, Hash, Hasher};

/// Makes keyed SipHash hashers, so that nobody without the key can choose colliding entries. The key is an argument:
/// this crate reads no random source.
#[derive(Clone, Copy, Default)]
pub struct Keyed(u64);

impl Keyed {
    /// Hashers keyed by the first eight bytes of `secret`.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(secret.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)))
    }
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyed(…)")
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A map of at most `capacity` entries. Entries live in two generations of half the capacity each: an entry that is
/// used moves to the younger one, and when that is full the older one is forgotten as a whole. Every operation takes
/// constant time, and whatever was among the last `capacity / 2` entries used is still there.
#[derive(Debug)]
pub struct Bounded<K, V> {
    young: HashMap<K, V, Keyed>,
    old: HashMap<K, V, Keyed>,
    half: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty map of at most `capacity` entries (at least two).
    #[must_use]
    pub fn new(capacity: usize, keyed: Keyed) -> Self {
        Self {
            young: HashMap::with_hasher(keyed),
            old: HashMap::with_hasher(keyed),
            half: (capacity / 2).max(1),
        }
    }

    /// The value of `key`, which counts as used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The value of `key`, without counting as a use.
    pub fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The value of `key`, made first where there is none; it counts as used.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let old = self.old.remove(&key);
        self.make_room(&key);
        self.young.entry(key).or_insert_with(|| old.unwrap_or_else(make))
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: K, value: V) {
        self.make_room(&key);
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn make_room(&mut self, key: &K) {
        if self.young.len() >= self.half && !self.young.contains_key(key) {
            let keyed = *self.young.hasher();
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(keyed));
        }
    }

    /// Forgets `key`.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let young = self.young.remove(key);
        self.old.remove(key).or(young)
    }

    /// Keeps the entries for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.young.retain(|key, value| keep(key, value));
        self.old.retain(|key, value| keep(key, value));
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(self.old.iter())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_recently_used_half_survives() {
        let mut map = Bounded::new(4, Keyed::default());
        for key in 0..4 {
            map.insert(key, key * 10);
        }
        assert_eq!(map.get(&0).copied(), Some(0), "used: moves to the young generation");
        map.insert(4, 40);
        map.insert(5, 50);
        assert_eq!(map.peek(&4), Some(&40));
        assert_eq!(map.peek(&5), Some(&50));
        assert_eq!(map.peek(&1), None);
    }

    #[test]
    fn a_removed_entry_is_gone_from_both_generations() {
        let mut map = Bounded::new(2, Keyed::default());
        map.insert("a", 1);
        map.insert("b", 2);
        assert_eq!(map.remove("a"), Some(1));
        assert_eq!(map.peek("a"), None);
        assert_eq!(map.len(), 1);
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_capacity_and_never_lies(
            capacity in 2usize..20,
            operations in proptest::collection::vec((0u8..30, 0u8..3), 0..200),
        ) {
            let mut map = Bounded::new(capacity, Keyed::new(&[7; 32]));
            let mut truth = HashMap::new();
            for (time, (key, operation)) in operations.into_iter().enumerate() {
                match operation {
                    0 => { map.insert(key, time); truth.insert(key, time); }
                    1 => { map.remove(&key); truth.remove(&key); }
                    _ => if let Some(value) = map.get(&key) { prop_assert_eq!(Some(&*value), truth.get(&key)); }
                }
                prop_assert!(map.len() <= capacity);
            }
        }
    }
}
