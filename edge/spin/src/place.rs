//! Where in the key-value store the cache keeps things: a fixed number of places of three sizes, so that the cache never
//! grows beyond them, and who gives way where all are taken.
//!
//! An entry whose head and body are small lies in one place, one of the two that its key's hash gives. A larger body lies
//! in a place of its own, in chunks, and the entry says where. Each body has a random number that its place's record and
//! all of its chunks begin with, so that nobody takes the body of another for it.
//!
//! Clients choose keys. So that none can choose whom its entries displace, hashes are keyed by a secret that all instances
//! have; and so that no tenant displaces those of all others, its entries and bodies lie in its share of the places alone: a few
//! of the parts that the places are divided into, drawn for it. Where the secret changes, nothing is found any more, and what
//! lies there gives way to what is stored from then on.

use std::collections::HashMap;

use meridian_engine::step::CacheKey;
use meridian_wire::keyring::HashKey;
use serde::{Deserialize, Serialize};

use crate::limits::{
    CACHE_CHUNK_BYTES, CACHE_ENTRY_PLACES, CACHE_LARGE_PLACES, CACHE_MEDIUM_PLACES, CACHE_PARTS,
    CACHE_SHARE_PARTS, CACHE_USE_MS, CACHE_USES_MAX,
};

/// Domains of the hash of a key, and of that which draws a tenant's share.
const ENTRY: &str = "meridian-cache-entry-v1\n";
const SHARE: &str = "meridian-cache-share-v1\n";

/// Bytes of the number in front of a chunk.
pub const NUMBER_BYTES: usize = 8;
/// Bytes of a place's record.
const RECORD_BYTES: usize = 24;

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

/// The parts of the places that a tenant may use: the same of each size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share([u32; CACHE_SHARE_PARTS]);

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

impl Size {
    /// Places of this size.
    fn places(self) -> u32 {
        match self {
            Self::Entry => CACHE_ENTRY_PLACES,
            Self::Medium => CACHE_MEDIUM_PLACES,
            Self::Large => CACHE_LARGE_PLACES,
        }
    }
}

impl Share {
    /// That of the tenant whose key this is.
    fn of(hash_key: &HashKey, key: &CacheKey) -> Self {
        let mut left: Vec<u32> = (0..CACHE_PARTS).collect();
        let draws = draws(hash_key.hash(SHARE, key.tenant().as_bytes()));
        let mut share = [0; CACHE_SHARE_PARTS];
        for (part, draw) in share.iter_mut().zip(draws) {
            *part = left.swap_remove(draw as usize % left.len());
        }
        Self(share)
    }
}

/// Independent draws from a hash.
fn draws(hash: [u8; 32]) -> [u32; 8] {
    let mut draws = [0; 8];
    for (draw, bytes) in draws.iter_mut().zip(hash.as_chunks::<4>().0) {
        *draw = u32::from_le_bytes(*bytes);
    }
    draws
}

impl Place {
    /// One of the places of a part.
    fn within(size: Size, part: u32, draw: u32) -> Self {
        let places = size.places() / CACHE_PARTS;
        Self { size, number: part * places + draw % places }
    }

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

    /// The two places that an entry may have, in two parts of its tenant's share. The hash only spreads keys: the key itself is
    /// in the entry and compared.
    #[must_use]
    pub fn of_entry(hash_key: &HashKey, key: &CacheKey) -> [Self; 2] {
        let Share(mut parts) = Share::of(hash_key, key);
        let [turn, other, draws @ ..] = draws(hash_key.hash(ENTRY, key.0.as_bytes()));
        parts.rotate_left(turn as usize % CACHE_SHARE_PARTS);
        let [first, others @ ..] = parts;
        let second = others[other as usize % others.len()];
        [Self::within(Size::Entry, first, draws[0]), Self::within(Size::Entry, second, draws[1])]
    }

    /// Places of a size for the body of a key, one in each part of its tenant's share, drawn by random bits.
    #[must_use]
    pub fn of_body(
        hash_key: &HashKey,
        key: &CacheKey,
        size: Size,
        random: [u8; 16],
    ) -> [Self; CACHE_SHARE_PARTS] {
        let mut draws = random.as_chunks::<4>().0.iter().map(|draw| u32::from_le_bytes(*draw));
        let Share(parts) = Share::of(hash_key, key);
        parts.map(|part| Self::within(size, part, draws.next().unwrap_or_default()))
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

    /// A secret of 32 equal bytes.
    fn hash_key(bytes: &str, rest: &str) -> HashKey {
        HashKey::parse(&format!("{}{rest}", bytes.repeat(10))).unwrap()
    }

    fn ours() -> HashKey {
        hash_key("AQEB", "AQE")
    }

    fn key(tenant: &str, number: u64) -> CacheKey {
        CacheKey(format!("2|{tenant}|{number}"))
    }

    fn parts(tenant: &str) -> HashSet<u32> {
        Share::of(&ours(), &key(tenant, 0)).0.into()
    }

    fn part_of(place: Place) -> u32 {
        place.number / (place.size.places() / CACHE_PARTS)
    }

    #[test]
    fn an_entry_has_two_places_that_stay_in_parts_of_its_tenants_share() {
        let (ours, parts) = (ours(), parts("acme"));
        assert_eq!(parts.len(), CACHE_SHARE_PARTS);
        let mut taken = HashSet::new();
        for number in 0..1_000 {
            let key = key("acme", number);
            let [first, second] = Place::of_entry(&ours, &key);
            assert_eq!(Place::of_entry(&ours, &key), [first, second]);
            assert_ne!(part_of(first), part_of(second));
            assert!(parts.contains(&part_of(first)) && parts.contains(&part_of(second)));
            taken.extend([first.number, second.number]);
        }
        assert!(taken.len() > 1_500 && taken.iter().all(|number| *number < CACHE_ENTRY_PLACES));
    }

    #[test]
    fn a_body_has_a_place_in_each_part_of_its_tenants_share() {
        for size in [Size::Medium, Size::Large] {
            assert_eq!(size.places() % CACHE_PARTS, 0);
            for byte in 0..=255 {
                let places = Place::of_body(&ours(), &key("acme", 1), size, [byte; 16]);
                assert!(places.iter().all(|place| place.size == size && place.number < size.places()));
                assert_eq!(places.map(part_of).into_iter().collect::<HashSet<_>>(), parts("acme"));
            }
        }
    }

    #[test]
    fn without_the_secret_nobody_knows_who_displaces_whom() {
        let (ours, others) = (ours(), hash_key("AgIC", "AgI"));
        let places = |secret: &HashKey, number| Place::of_entry(secret, &key("acme", number));
        let same = (0..1_000).filter(|number| places(&ours, *number) == places(&others, *number)).count();
        assert_eq!(same, 0);
    }

    #[test]
    fn few_tenants_have_one_share() {
        let shares: Vec<_> = (0..300).map(|number| parts(&format!("t{number}"))).collect();
        let mut pairs: Vec<(&HashSet<u32>, &HashSet<u32>)> = Vec::new();
        for (at, a) in shares.iter().enumerate() {
            pairs.extend(shares.iter().take(at).map(|b| (a, b)));
        }
        let (same, all) = (pairs.iter().filter(|(a, b)| a == b).count(), pairs.len());
        let common: usize = pairs.iter().map(|(a, b)| a.intersection(b).count()).sum();
        assert!(same * 1_000 < all, "{same} of {all}");
        assert!((9 * all..11 * all).contains(&(10 * common)), "{common} parts in common of {all} pairs");
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
    struct Store {
        hash_key: HashKey,
        places: HashMap<Place, (CacheKey, Occupant)>,
    }

    impl Store {
        fn new() -> Self {
            Self { hash_key: ours(), places: HashMap::new() }
        }

        fn put(&mut self, key: CacheKey, now_ms: u64) {
            let choices = Place::of_entry(&self.hash_key, &key);
            let occupants = choices.map(|place| self.places.get(&place).map(|(_, occupant)| *occupant));
            let chosen = choices[gives_way(&occupants, now_ms)];
            self.places.insert(chosen, (key, Occupant { until_ms: u64::MAX, used_ms: now_ms }));
        }

        fn find(&self, key: &CacheKey) -> Option<Place> {
            let choices = Place::of_entry(&self.hash_key, key);
            choices.into_iter().find(|place| self.places.get(place).is_some_and(|(of, _)| of == key))
        }
    }

    #[test]
    fn places_fill_evenly_and_what_is_used_stays() {
        let mut store = Store::new();
        let share = u64::from(CACHE_ENTRY_PLACES) / u64::from(CACHE_PARTS) * CACHE_SHARE_PARTS as u64;
        // Half as many entries as places: two choices lose next to none, where one would lose a fifth.
        let half = share / 2;
        (0..half).for_each(|number| store.put(key("acme", number), number + 1));
        let lost = (0..half).filter(|number| store.find(&key("acme", *number)).is_none()).count() as u64;
        assert!(lost < half / 10, "{lost} of {half} are lost");
        // Ten times as many as places pass by; what is used again and again stays.
        let used = (0..half).map(|number| key("acme", number));
        let used: Vec<_> = used.filter(|key| store.find(key).is_some()).take(50).collect();
        for (at_ms, number) in (half..half * 20).enumerate() {
            let now_ms = half + 1 + at_ms as u64;
            if at_ms % 25 == 0 {
                let there: Vec<_> = used.iter().filter_map(|key| store.find(key)).collect();
                for place in there {
                    store.places.entry(place).and_modify(|(_, occupant)| occupant.used_ms = now_ms);
                }
            }
            store.put(key("acme", number), now_ms);
        }
        let stayed = used.iter().filter(|key| store.find(key).is_some()).count();
        assert!(stayed > 37, "{stayed} of 50 stayed");
        assert!(store.places.len() as u64 <= share, "no tenant has more than its share");
    }

    #[test]
    fn a_flood_of_one_tenants_keys_displaces_nothing_outside_its_share() {
        let mut store = Store::new();
        for number in 0..2_000 {
            store.put(key(&format!("t{}", number % 40), number / 40), number + 1);
        }
        let before = store.places.clone();
        for number in 0..20_000 {
            store.put(key("flood", number), 10_000 + number);
        }
        let share = parts("flood");
        let (inside, outside): (Vec<_>, Vec<_>) =
            before.iter().partition(|(place, _)| share.contains(&part_of(**place)));
        assert!(outside.iter().all(|(place, occupant)| store.places.get(*place) == Some(*occupant)));
        assert!(inside.len() < before.len() / 2, "{} of {} displaced", inside.len(), before.len());
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
