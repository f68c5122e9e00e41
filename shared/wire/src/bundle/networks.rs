//! Large sets of addresses in a bundle: base64url of the ranges of IPv4 and then those of IPv6, each family with their
//! number first, each range as the distance from the end of the one before and its length less one. All numbers are
//! variable-length: seven bits a byte, the lowest first, the highest bit set where more follow (LEB128). A million
//! scattered IPv4 addresses take about 4 MB.
//!
//! Long lists of numbers are written alike: how many there are, and each as the distance from the one before. A million
//! scattered numbers of 32 bits take about 3 MB.

use meridian_engine::policy::security::AddressSet;

#[cfg(any(feature = "documents", test))]
use crate::encoding::base64url;
use crate::encoding::from_base64url;

/// A set as text.
#[cfg(any(feature = "documents", test))]
#[must_use]
pub fn pack(set: &AddressSet) -> String {
    let (four, six) = (set.four(), set.six());
    let mut bytes = Vec::with_capacity(4 * four.len() + 16 * six.len());
    write_ranges(&mut bytes, four.iter().map(|(from, until)| (u128::from(*from), u128::from(*until))));
    write_ranges(&mut bytes, six.into_iter());
    base64url(&bytes)
}

/// The set of a text; `None` where it is none.
#[must_use]
pub fn unpack(text: &str) -> Option<AddressSet> {
    let bytes = from_base64url(text)?;
    let mut rest = bytes.as_slice();
    let four = read_ranges(&mut rest)?;
    let six = read_ranges(&mut rest)?;
    rest.is_empty().then(|| AddressSet::of_ranges(four, six))
}

/// Numbers, which have to be in order, as text.
#[cfg(any(feature = "documents", test))]
#[must_use]
pub fn pack_numbers(numbers: &[u32]) -> String {
    let mut bytes = Vec::with_capacity(2 * numbers.len() + 4);
    write_number(&mut bytes, numbers.len() as u128);
    let mut last = 0;
    for number in numbers {
        write_number(&mut bytes, number.saturating_sub(last).into());
        last = *number;
    }
    base64url(&bytes)
}

/// The numbers of a text, in order; `None` where it is none.
#[must_use]
pub fn unpack_numbers(text: &str) -> Option<Vec<u32>> {
    let bytes = from_base64url(text)?;
    let mut rest = bytes.as_slice();
    let count = usize::try_from(read_number(&mut rest)?).ok()?;
    // Each takes a byte at the least.
    let mut numbers = Vec::with_capacity(count.min(rest.len()));
    let mut last = 0_u32;
    for _ in 0..count {
        last = last.checked_add(u32::try_from(read_number(&mut rest)?).ok()?)?;
        numbers.push(last);
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(any(feature = "documents", test))]
fn write_ranges(bytes: &mut Vec<u8>, ranges: impl ExactSizeIterator<Item = (u128, u128)>) {
    write_number(bytes, ranges.len() as u128);
    let mut end = 0;
    for (from, until) in ranges {
        write_number(bytes, from.saturating_sub(end));
        write_number(bytes, until.saturating_sub(from));
        end = until;
    }
}

fn read_ranges<N: TryFrom<u128>>(bytes: &mut &[u8]) -> Option<Vec<(N, N)>> {
    let count = usize::try_from(read_number(bytes)?).ok()?;
    // Each takes two bytes at the least, so that no text asks for more memory than it has earned.
    let mut ranges = Vec::with_capacity(count.min(bytes.len() / 2));
    let mut end: u128 = 0;
    for _ in 0..count {
        let from = end.checked_add(read_number(bytes)?)?;
        end = from.checked_add(read_number(bytes)?)?;
        ranges.push((N::try_from(from).ok()?, N::try_from(end).ok()?));
    }
    Some(ranges)
}

#[cfg(any(feature = "documents", test))]
fn write_number(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0;
    for shift in (0..u128::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u128::from(byte & 0x7f);
        if part.leading_zeros() < shift {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_families_and_none_are_sets_too() {
        for networks in [&[][..], &["0.0.0.0/0", "::/0"], &["255.255.255.255/32", "ffff::/16"]] {
            let networks: Vec<_> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let set = AddressSet::new(&networks);
            assert_eq!(unpack(&pack(&set)), Some(set));
        }
    }

    #[test]
    fn a_million_scattered_addresses_fit_a_bundle() {
        let scattered = (0..1_000_000u32).map(|number| number.wrapping_mul(2_654_435_761));
        let set = AddressSet::of_ranges(scattered.map(|address| (address, address)).collect(), Vec::new());
        let text = pack(&set);
        assert!(text.len() < 5_000_000, "{}", text.len());
        assert_eq!(unpack(&text), Some(set));
    }

    #[test]
    fn a_million_scattered_numbers_fit_a_bundle() {
        let mut numbers: Vec<u32> =
            (0..1_000_000u32).map(|number| number.wrapping_mul(2_654_435_761)).collect();
        numbers.sort_unstable();
        let text = pack_numbers(&numbers);
        assert!(text.len() < 3_500_000, "{}", text.len());
        assert!(unpack_numbers(&text) == Some(numbers));
        for numbers in [&[][..], &[0], &[u32::MAX], &[0, 1, u32::MAX]] {
            assert_eq!(unpack_numbers(&pack_numbers(numbers)).as_deref(), Some(numbers));
        }
    }

    proptest! {
        #[test]
        fn a_set_comes_back_as_it_was(
            four in proptest::collection::vec((any::<u32>(), any::<u16>()), 0..20),
            six in proptest::collection::vec((any::<u128>(), any::<u64>()), 0..20),
        ) {
            let four = four.iter().map(|(from, length)| (*from, from.saturating_add((*length).into()))).collect();
            let six = six.iter().map(|(from, length)| (*from, from.saturating_add((*length).into()))).collect();
            let set = AddressSet::of_ranges(four, six);
            prop_assert_eq!(unpack(&pack(&set)), Some(set));
        }

        #[test]
        fn whatever_else_comes_is_no_set_or_one(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = base64url(&bytes);
            let _set = unpack(&text);
            if let Some(numbers) = unpack_numbers(&text) {
                prop_assert!(numbers.is_sorted());
            }
        }
    }
}
