//! Where in the key-value store the cache keeps things: a fixed number of places of three sizes, so that the cache never
//! grows beyond them, and who gives way where all are taken.
//!
//! An entry whose head and body are small lies in one place, one of the two that its key's hash gives. A larger body lies
//! in a place of its own, in chunks, and the entry says where. Each body has a random number that its place's record and
//! all of its chunks begin with, so that nobody takes the body of another for it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use meridian_engine::step::CacheKey;
use serde::{Deserialize, Serialize};

use crate::limits::{
    CACHE_CHUNK_BYTES, CACHE_ENTRY_PLACES, CACHE_LARGE_PLACES, CACHE_MEDIUM_PLACES, CACHE_USE_MS,
    CACHE_USES_MAX,
};

/// Bytes of the number in front of a chunk.
pub const NUMBER_BYTES: usize = 8;
/// Bytes of a place's record.
const RECORD_BYTES: usize = 24;
/// Places of a size that are looked at for a body.
const BODY_CHOICES: usize = 4;

/// What fits into a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Size {
    /// An entry with a small body.
    Entry,
    /// A body of one chunk.
    Medium,
    /// A body of many.
    Large,
}

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// What fits.
    pub size: Size,
    /// Which one of its size.
    pub number: u32,
}

/// A body in a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelved {
    /// Where.
    pub place: Place,
    /// Which body: what the place's record and chunks begin with as long as it is there.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
}

/// Who is in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// From when on it is of no use, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// When it was last noted that somebody used it, or when it was stored.
    pub used_ms: u64,
}

impl Place {
    /// The key of the place's entry or record.
    #[must_use]
    pub fn key(self) -> String {
        let Self { size, number } = self;
        match size {
            Size::Entry => format!("cache/{number}"),
            Size::Medium => format!("cache/medium/{number}"),
            Size::Large => format!("cache/large/{number}"),
        }
    }

    /// The key of the note of the place's last use.
    #[must_use]
    pub fn used_key(self) -> String {
        format!("{}/used", self.key())
    }

    /// The key of a chunk.
    #[must_use]
    pub fn chunk_key(self, index: u64) -> String {
        format!("{}/{index}", self.key())
    }

    /// The two places that an entry may have.
    #[must_use]
    pub fn of_entry(key: &CacheKey) -> [Self; 2] {
        // The hash only spreads keys: the key itself is in the entry and compared.
        let mut hasher = DefaultHasher::new();
        key.0.hash(&mut hasher);
        let hash = hasher.finish();
        let places = u64::from(CACHE_ENTRY_PLACES);
        let first = hash % places;
        // Never the first again.
        let second = (first + 1 + (hash >> 32) % (places - 1)) % places;
        [first, second].map(|number| Self { size: Size::Entry, number: number as u32 })
    }

    /// Places of a size for a body, drawn by random bits.
    #[must_use]
    pub fn of_body(size: Size, random: [u8; 16]) -> [Self; BODY_CHOICES] {
        let places = if size == Size::Large { CACHE_LARGE_PLACES } else { CACHE_MEDIUM_PLACES };
        let (draws, _) = random.as_chunks::<4>();
        let mut drawn = [Self { size, number: 0 }; BODY_CHOICES];
        for (place, draw) in drawn.iter_mut().zip(draws) {
            place.number = u32::from_le_bytes(*draw) % places;
        }
        drawn
    }
}

/// The places whose use was noted lately.
#[derive(Debug, Default)]
pub struct Uses(HashMap<Place, u64>);

impl Uses {
    /// Whether a use at this time is to be noted; it counts as noted from then on.
    pub fn is_due(&mut self, place: Place, now_ms: u64) -> bool {
        if self.0.get(&place).is_some_and(|noted_ms| now_ms.saturating_sub(*noted_ms) < CACHE_USE_MS) {
            return false;
        }
        if self.0.len() >= CACHE_USES_MAX {
            self.0.clear();
        }
        self.0.insert(place, now_ms);
        true
    }
}

/// Which of these places is taken: one that nobody has any use of, or that which was used longest ago.
#[must_use]
pub fn gives_way(occupants: &[Option<Occupant>], now_ms: u64) -> usize {
    let last_use = |occupant: &Option<Occupant>| {
        occupant.filter(|occupant| occupant.until_ms > now_ms).map_or(0, |occupant| occupant.used_ms.max(1))
    };
    let ranked = occupants.iter().map(last_use).enumerate();
    ranked.min_by_key(|(_, used_ms)| *used_ms).map_or(0, |(index, _)| index)
}

/// The record of a body's place: number, until when, since when.
#[must_use]
pub fn record(number: u64, occupant: Occupant) -> Vec<u8> {
    [number, occupant.until_ms, occupant.used_ms].iter().flat_map(|part| part.to_le_bytes()).collect()
}

/// A record as it was written.
#[must_use]
pub fn read_record(bytes: &[u8]) -> Option<(u64, Occupant)> {
    let ([number, until_ms, used_ms], []) = bytes.as_chunks::<8>() else { return None };
    let [number, until_ms, used_ms] = [number, until_ms, used_ms].map(|part| u64::from_le_bytes(*part));
    (bytes.len() == RECORD_BYTES).then_some((number, Occupant { until_ms, used_ms }))
}

/// The bytes of a body in a chunk, behind which the body's number stands: so none of them is moved. `None` where the chunk is another body's.
#[must_use]
pub fn open_chunk(mut bytes: Vec<u8>, number: u64) -> Option<Vec<u8>> {
    let (body, of) = bytes.split_last_chunk::<NUMBER_BYTES>()?;
    let length = (*of == number.to_le_bytes()).then_some(body.len())?;
    bytes.truncate(length);
    Some(bytes)
}

/// The chunks that hold a part of a body, and the bytes of each that belong to it.
pub fn chunks_of(first: u64, bytes: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let chunk_bytes = CACHE_CHUNK_BYTES as u64;
    let end = first.saturating_add(bytes);
    (first / chunk_bytes..end.div_ceil(chunk_bytes)).map(move |index| {
        let begin = index * chunk_bytes;
        let inside = |at: u64| at.saturating_sub(begin).min(chunk_bytes) as usize;
        (index, inside(first)..inside(end))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_entry_has_two_places_that_stay() {
        for key in 0..10_000 {
            let key = CacheKey(format!("k{key}"));
            let [first, second] = Place::of_entry(&key);
            assert_eq!(Place::of_entry(&key), [first, second]);
            assert_ne!(first, second);
            assert!(first.number < CACHE_ENTRY_PLACES && second.number < CACHE_ENTRY_PLACES);
        }
    }

    #[test]
    fn keys_of_places_differ() {
        let sizes = [(Size::Entry, 50), (Size::Medium, 50), (Size::Large, CACHE_LARGE_PLACES)];
        let mut keys = HashSet::new();
        for (size, places) in sizes {
            for number in 0..places {
                let place = Place { size, number };
                assert!(keys.insert(place.key()) && keys.insert(place.used_key()));
                let chunks = if size == Size::Entry { 0 } else { 3 };
                assert!((0..chunks).all(|index| keys.insert(place.chunk_key(index))));
            }
        }
    }

    #[test]
    fn who_was_used_longest_ago_gives_way() {
        let live = |used_ms| Some(Occupant { until_ms: 100, used_ms });
        let lapsed = Some(Occupant { until_ms: 50, used_ms: 49 });
        assert_eq!(gives_way(&[live(5), live(4)], 50), 1);
        assert_eq!(gives_way(&[live(4), live(5)], 50), 0);
        assert_eq!(gives_way(&[live(1), None], 50), 1);
        assert_eq!(gives_way(&[live(1), lapsed], 50), 1);
        assert_eq!(gives_way(&[live(0), None], 50), 1);
        assert_eq!(gives_way(&[live(9), live(7), live(8)], 99), 1);
    }

    /// A store of the places alone: what is stored under a key is in one of its places, or gave way.
    #[test]
    fn places_fill_evenly_and_what_is_used_stays() {
        let mut places: HashMap<u32, (u64, Occupant)> = HashMap::new();
        let store = |places: &mut HashMap<u32, (u64, Occupant)>, key: u64, now_ms: u64| {
            let choices = Place::of_entry(&CacheKey(key.to_string()));
            let occupants = choices.map(|place| places.get(&place.number).map(|(_, occupant)| *occupant));
            let chosen = choices[gives_way(&occupants, now_ms)].number;
            places.insert(chosen, (key, Occupant { until_ms: u64::MAX, used_ms: now_ms }));
        };
        let found = |places: &HashMap<u32, (u64, Occupant)>, key: u64| {
            Place::of_entry(&CacheKey(key.to_string()))
                .into_iter()
                .map(|place| place.number)
                .find(|number| places.get(number).is_some_and(|(of, _)| *of == key))
        };
        // Half as many entries as places: two choices lose next to none, where one would lose a fifth.
        let half = u64::from(CACHE_ENTRY_PLACES) / 2;
        (0..half).for_each(|key| store(&mut places, key, key + 1));
        let lost = (0..half).filter(|key| found(&places, *key).is_none()).count() as u64;
        assert!(lost < half / 12, "{lost} of {half} are lost");
        // Ten times as many as places pass by; what is used again and again stays.
        let used: Vec<u64> = (0..half).filter(|key| found(&places, *key).is_some()).take(200).collect();
        for (at_ms, key) in (half..half * 20).enumerate() {
            let now_ms = half + 1 + at_ms as u64;
            if at_ms % 100 == 0 {
                let there: Vec<u32> = used.iter().filter_map(|key| found(&places, *key)).collect();
                for number in there {
                    places.entry(number).and_modify(|(_, occupant)| occupant.used_ms = now_ms);
                }
            }
            store(&mut places, key, now_ms);
        }
        let stayed = used.iter().filter(|key| found(&places, **key).is_some()).count();
        assert!(stayed > 150, "{stayed} of 200 stayed");
        assert!(places.len() <= CACHE_ENTRY_PLACES as usize);
    }

    #[test]
    fn a_use_is_noted_once_in_a_while() {
        let mut uses = Uses::default();
        let place = |number| Place { size: Size::Entry, number };
        assert!(uses.is_due(place(1), 1_000) && uses.is_due(place(2), 1_000));
        assert!(!uses.is_due(place(1), 1_000 + CACHE_USE_MS - 1) && !uses.is_due(place(1), 500));
        assert!(uses.is_due(place(1), 1_000 + CACHE_USE_MS));
        for number in 0..5_000 {
            uses.is_due(place(number), 0);
            assert!(uses.0.len() <= CACHE_USES_MAX);
        }
    }

    #[test]
    fn a_part_lies_in_the_chunks_that_hold_it() {
        let whole = CACHE_CHUNK_BYTES;
        let check = |first: u64, bytes: u64, expect: &[(u64, std::ops::Range<usize>)]| {
            assert_eq!(chunks_of(first, bytes).collect::<Vec<_>>(), expect, "{first} {bytes}");
        };
        check(0, 5, &[(0, 0..5)]);
        check(whole as u64 - 1, 2, &[(0, whole - 1..whole), (1, 0..1)]);
        check(whole as u64, 1, &[(1, 0..1)]);
        check(3, 2 * whole as u64, &[(0, 3..whole), (1, 0..whole), (2, 0..3)]);
        check(7, 0, &[(0, 7..7)]);
    }

    #[test]
    fn records_and_chunks_tell_bodies_apart() {
        let occupant = Occupant { until_ms: 5, used_ms: 3 };
        assert_eq!(read_record(&record(9, occupant)), Some((9, occupant)));
        for garbage in [&b""[..], &[0; 23], &[0; 25], &[0; 32]] {
            assert_eq!(read_record(garbage), None);
        }
        let chunk = [b"body", &9u64.to_le_bytes()[..]].concat();
        assert_eq!(open_chunk(chunk.clone(), 9).as_deref(), Some(&b"body"[..]));
        assert_eq!(open_chunk(chunk, 8), None);
        assert_eq!(open_chunk(b"short".to_vec(), 9), None);
    }
}
