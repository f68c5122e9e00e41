//! Lists of countries and autonomous systems.

use std::fmt;

use crate::ruleset::Mode;

/// A country by its ISO 3166-1 alpha-2 code, in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// The country of a code; none where the code is not two upper-case letters, or is `XX`, by which hosts say that they
    /// don't know.
    #[must_use]
    pub fn known(code: &str) -> Option<Self> {
        let code: [u8; 2] = code.as_bytes().try_into().ok()?;
        (code.iter().all(u8::is_ascii_uppercase) && code != *b"XX").then_some(Self(code))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

/// Those that alone may come, or those that may not. In order, searched by halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// What a hit does.
    pub mode: Mode,
    entries: Vec<T>,
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Deny,
    Allow { denies_unknown: bool },
}

impl<T: Ord> Listing<T> {
    /// A list of those that may not come. Where it is not known who comes, they may.
    #[must_use]
    pub fn deny(mode: Mode, entries: Vec<T>) -> Self {
        Self::new(mode, entries, Side::Deny)
    }

    /// A list of those that alone may come. Where it is not known who comes, they may unless `denies_unknown`.
    #[must_use]
    pub fn allow(mode: Mode, entries: Vec<T>, denies_unknown: bool) -> Self {
        Self::new(mode, entries, Side::Allow { denies_unknown })
    }

    fn new(mode: Mode, mut entries: Vec<T>, side: Side) -> Self {
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Self { mode, entries, side }
    }

    /// Bytes that its entries take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<T>()
    }

    /// What is wrong with one, if anything is.
    pub(super) fn hit(&self, value: Option<&T>) -> Option<&'static str> {
        let is_listed = value.map(|value| self.entries.binary_search(value).is_ok());
        match (self.side, is_listed) {
            (Side::Deny, Some(true)) => Some("in the deny list"),
            (Side::Allow { .. }, Some(false)) => Some("not in the allow list"),
            (Side::Allow { denies_unknown: true }, None) => Some("unknown"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_that_name_no_country_are_unknown() {
        assert_eq!(Country::known("DE").map(|country| country.to_string()).as_deref(), Some("DE"));
        for code in ["", "XX", "T1", "de", "DEU", "Ä"] {
            assert_eq!(Country::known(code), None, "{code}");
        }
    }

    #[test]
    fn the_unknown_is_denied_only_where_that_is_said() {
        assert_eq!(Listing::deny(Mode::Block, vec![1]).hit(None), None);
        assert_eq!(Listing::allow(Mode::Block, vec![1], false).hit(None), None);
        assert_eq!(Listing::allow(Mode::Block, vec![1], true).hit(None), Some("unknown"));
    }

    #[test]
    fn a_million_numbers_take_four_megabytes() {
        let scattered = |number: u32| number.wrapping_mul(2_654_435_761);
        let listing = Listing::deny(Mode::Block, (0..1_000_000).map(scattered).collect());
        assert_eq!(listing.bytes(), 4_000_000);
        for number in [0, 1, 77_777, 999_999] {
            assert!(listing.hit(Some(&scattered(number))).is_some(), "{number}");
            assert!(listing.hit(Some(&scattered(number + 1_000_000))).is_none(), "{number}");
        }
    }

    proptest! {
        #[test]
        fn a_list_says_what_a_search_from_end_to_end_says(entries in proptest::collection::vec(0u32..50, 0..30), asked in 0u32..50) {
            let is_listed = entries.contains(&asked);
            prop_assert_eq!(Listing::deny(Mode::Block, entries.clone()).hit(Some(&asked)).is_some(), is_listed);
            prop_assert_eq!(Listing::allow(Mode::Block, entries, true).hit(Some(&asked)).is_some(), !is_listed);
        }
    }
}
