//! What the cache notes beside a stored head, as one line of printable text with a version in front. Text that can't be
//! read, or is of another version, is a miss.

use std::fmt::Write;

use super::key::escape;
use crate::facts::percent_decode;
use crate::limits::{CACHE_GROUPS_MAX, CACHE_SEEN_MAX, CACHE_TAGS_MAX, CACHE_VARY_MAX};

const VERSION: &str = "1";

/// What the engine wants to know of an entry again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// When the request for it was sent; what is purged after that is stale.
    pub(super) requested_ms: u64,
    /// When it came.
    pub(super) received_ms: u64,
    /// How old it was then (RFC 9111, section 4.2.3, `corrected_initial_age`).
    pub(super) age_ms: u64,
    /// How old it may be (section 4.2.1).
    pub(super) lifetime_ms: u64,
    /// How long it may be served stale while it is revalidated, and while the origin fails (RFC 5861).
    pub(super) stale_while_revalidate_ms: u64,
    pub(super) stale_if_error_ms: u64,
    /// Never without validation (`no-cache`).
    pub(super) no_cache: bool,
    /// Never stale (`must-revalidate`, `proxy-revalidate`).
    pub(super) must_revalidate: bool,
    /// Not stale at a client's wish either (`s-maxage`).
    pub(super) shared_lifetime: bool,
    /// Positions that it reflects, by the region's ordinal.
    pub(super) seen: Vec<(u16, u64)>,
    /// Tags that it goes stale by, those of its groups too.
    pub(super) tags: Vec<String>,
    /// Header fields that it varies by, with the hashes of their values.
    pub(super) vary: Vec<(String, Option<String>)>,
    /// Of an entry that varies, at a primary key: which variants go with it. Their keys hold it too.
    pub(super) generation: u64,
}

impl Notes {
    pub(super) fn write(&self) -> String {
        let mut text = format!(
            "{VERSION} {} {} {} {} {} {} {}{}{}",
            self.requested_ms,
            self.received_ms,
            self.age_ms,
            self.lifetime_ms,
            self.stale_while_revalidate_ms,
            self.stale_if_error_ms,
            u8::from(self.no_cache),
            u8::from(self.must_revalidate),
            u8::from(self.shared_lifetime),
        );
        for (source, position) in &self.seen {
            let _ = write!(text, " s{source}={position}");
        }
        for tag in &self.tags {
            text.push_str(" t");
            escape(&mut text, tag);
        }
        for (name, value) in &self.vary {
            text.push_str(" v");
            escape(&mut text, name);
            if let Some(value) = value {
                text.push('=');
                text.push_str(value);
            }
        }
        if !self.vary.is_empty() {
            let _ = write!(text, " g{}", self.generation);
        }
        text
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != VERSION {
            return None;
        }
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut notes = Self {
            requested_ms: number()?,
            received_ms: number()?,
            age_ms: number()?,
            lifetime_ms: number()?,
            stale_while_revalidate_ms: number()?,
            stale_if_error_ms: number()?,
            ..Self::default()
        };
        let flags: Vec<bool> = words.next()?.chars().map(|flag| flag == '1').collect();
        [notes.no_cache, notes.must_revalidate, notes.shared_lifetime] = flags.try_into().ok()?;
        for word in words {
            if let Some(seen) = word.strip_prefix('s') {
                let (source, position) = seen.split_once('=')?;
                notes.seen.push((source.parse().ok()?, position.parse().ok()?));
            } else if let Some(tag) = word.strip_prefix('t') {
                notes.tags.push(percent_decode(tag, false).into_owned());
            } else if let Some(vary) = word.strip_prefix('v') {
                let (name, value) =
                    vary.split_once('=').map_or((vary, None), |(name, value)| (name, Some(value)));
                notes.vary.push((percent_decode(name, false).into_owned(), value.map(str::to_owned)));
            } else if let Some(generation) = word.strip_prefix('g') {
                notes.generation = generation.parse().ok()?;
            } else {
                return None;
            }
        }
        let fits = notes.seen.len() <= CACHE_SEEN_MAX
            && notes.tags.len() <= CACHE_TAGS_MAX + CACHE_GROUPS_MAX
            && notes.vary.len() <= CACHE_VARY_MAX;
        fits.then_some(notes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_stored_by_this_version_stays_readable() {
        let stored =
            "1 100 250 3000 60000 30000 0 010 s1=77 s3=5 torders torders/a%20b vaccept=abc vcookie g9";
        let notes = Notes {
            requested_ms: 100,
            received_ms: 250,
            age_ms: 3_000,
            lifetime_ms: 60_000,
            stale_while_revalidate_ms: 30_000,
            stale_if_error_ms: 0,
            no_cache: false,
            must_revalidate: true,
            shared_lifetime: false,
            seen: vec![(1, 77), (3, 5)],
            tags: vec!["orders".to_owned(), "orders/a b".to_owned()],
            vary: vec![("accept".to_owned(), Some("abc".to_owned())), ("cookie".to_owned(), None)],
            generation: 9,
        };
        assert_eq!(Notes::read(stored), Some(notes.clone()));
        assert_eq!(notes.write(), stored);
        let without = stored.strip_suffix(" g9");
        assert_eq!(without.and_then(Notes::read), Some(Notes { generation: 0, ..notes }));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for odd in [
            "",
            "1",
            "2 1 1 1 1 1 1 000",
            "1 1 1 1 1 1 1 00",
            "1 1 1 1 1 1 x 000",
            "1 1 1 1 1 1 1 000 x",
            "1 1 1 1 1 1 1 000 s1",
            "1 1 1 1 1 1 1 000 g-1",
            "{}",
        ] {
            assert_eq!(Notes::read(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn notes_come_back_as_they_were(
            numbers in proptest::collection::vec(any::<u64>(), 7),
            flags in any::<[bool; 3]>(),
            seen in proptest::collection::vec(any::<(u16, u64)>(), 0..4),
            tags in proptest::collection::vec("\\PC{0,20}", 0..4),
            vary in proptest::collection::vec(("[a-z=% ]{0,10}", proptest::option::of("[A-Za-z0-9_-]{0,22}")), 0..4),
        ) {
            let notes = Notes {
                requested_ms: numbers[0],
                received_ms: numbers[1],
                age_ms: numbers[2],
                lifetime_ms: numbers[3],
                stale_while_revalidate_ms: numbers[4],
                stale_if_error_ms: numbers[5],
                no_cache: flags[0],
                must_revalidate: flags[1],
                shared_lifetime: flags[2],
                seen,
                tags,
                generation: if vary.is_empty() { 0 } else { numbers[6] },
                vary,
            };
            let text = notes.write();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(Notes::read(&text), Some(notes));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,100}") {
            let _ = Notes::read(&text);
        }
    }
}
