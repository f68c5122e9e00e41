//! Sets of addresses. However large one is, an address is found in it in a handful of comparisons.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// A set of addresses: networks merged into ranges in order, searched by halves. A million IPv4 networks that don't
/// touch take 8 MB and 20 comparisons, a million IPv6 networks of 64 bits or fewer 16 MB (longer ones 32 MB); networks side
/// by side become one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    four: Vec<(u32, u32)>,
    /// Ranges of IPv6 that begin and end with a network of 64 bits: these bits.
    wide: Vec<(u64, u64)>,
    /// The other ranges of IPv6.
    six: Vec<(u128, u128)>,
}

impl AddressSet {
    /// The addresses of these networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => four.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.broadcast().to_ipv4_mapped()) {
                    (Some(from), Some(until)) => four.push((from.to_bits(), until.to_bits())),
                    _ => six.push((net.network().to_bits(), net.broadcast().to_bits())),
                },
            }
        }
        Self::of_ranges(four, six)
    }

    /// The addresses of these ranges, each from its first to its last.
    #[must_use]
    pub fn of_ranges(four: Vec<(u32, u32)>, six: Vec<(u128, u128)>) -> Self {
        let six = merge(six, |last| last.checked_add(1));
        let mut wide: Vec<_> = six.iter().copied().filter_map(as_wide).collect();
        let mut six: Vec<_> = six.into_iter().filter(|range| as_wide(*range).is_none()).collect();
        wide.shrink_to_fit();
        six.shrink_to_fit();
        Self { four: merge(four, |last| last.checked_add(1)), wide, six }
    }

    /// The ranges of IPv4, in order and apart from one another.
    #[must_use]
    pub fn four(&self) -> &[(u32, u32)] {
        &self.four
    }

    /// The ranges of IPv6, in order and apart from one another.
    #[must_use]
    pub fn six(&self) -> Vec<(u128, u128)> {
        let wide = self.wide.iter().map(|(from, until)| (first_of(*from), last_of(*until)));
        let mut all: Vec<_> = self.six.iter().copied().chain(wide).collect();
        all.sort_unstable();
        all
    }

    /// The addresses of both sets.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        if other.is_empty() {
            return self;
        }
        let (six, other_six) = (self.six(), other.six());
        let (four, six) = ([self.four, other.four].concat(), [six, other_six].concat());
        Self::of_ranges(four, six)
    }

    /// Whether an address is in the set; an IPv4-mapped one counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.four, address.to_bits()),
            IpAddr::V6(address) => {
                is_within(&self.wide, (address.to_bits() >> 64) as u64)
                    || is_within(&self.six, address.to_bits())
            }
        }
    }

    /// Whether the set holds every address of IPv4 or every one of IPv6.
    #[must_use]
    pub fn holds_a_family(&self) -> bool {
        self.four.contains(&(Ipv4Addr::UNSPECIFIED.to_bits(), Ipv4Addr::BROADCAST.to_bits()))
            || self.wide.contains(&(0, u64::MAX))
    }

    /// Bytes that its ranges take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.four.capacity() * size_of::<(u32, u32)>()
            + self.wide.capacity() * size_of::<(u64, u64)>()
            + self.six.capacity() * size_of::<(u128, u128)>()
    }

    /// Whether no address is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.four.is_empty() && self.wide.is_empty() && self.six.is_empty()
    }
}

/// The 64 bits that a range begins and ends with, where it holds whole networks of 64 bits alone.
fn as_wide((from, until): (u128, u128)) -> Option<(u64, u64)> {
    let wide = ((from >> 64) as u64, (until >> 64) as u64);
    (first_of(wide.0) == from && last_of(wide.1) == until).then_some(wide)
}

/// The first address of a network of 64 bits.
fn first_of(network: u64) -> u128 {
    u128::from(network) << 64
}

/// The last one.
fn last_of(network: u64) -> u128 {
    first_of(network) | u128::from(u64::MAX)
}

/// Ranges in order, those that overlap or touch made one.
fn merge<N: Ord + Copy>(mut ranges: Vec<(N, N)>, next: impl Fn(N) -> Option<N>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let touches = next(earlier.1).is_none_or(|next| later.0 <= next);
        if touches {
            earlier.1 = earlier.1.max(later.1);
        }
        touches
    });
    ranges.shrink_to_fit();
    ranges
}

fn is_within<N: Ord + Copy>(ranges: &[(N, N)], number: N) -> bool {
    let after = ranges.partition_point(|(from, _)| *from <= number);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, until)| number <= *until)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(list: &[&str]) -> AddressSet {
        AddressSet::new(&list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_the_same_in_both_families() {
        assert!(set(&["::ffff:192.0.2.0/120"]).contains("192.0.2.1".parse().unwrap()));
        assert!(set(&["192.0.2.0/24"]).contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!set(&["192.0.2.0/24"]).contains("2001:db8::1".parse().unwrap()));
        assert!(set(&["::/0"]).contains("ffff::".parse().unwrap()));
    }

    #[test]
    fn halves_of_a_family_are_the_family() {
        assert!(set(&["0.0.0.0/1", "128.0.0.0/1"]).holds_a_family());
        assert!(set(&["::/0"]).holds_a_family());
        assert!(!set(&["0.0.0.0/1", "128.0.0.0/2"]).holds_a_family());
    }

    #[test]
    fn a_million_networks_take_eight_megabytes() {
        let networks: Vec<IpNet> = (0..1_000_000u32)
            .map(|number| ipnet::Ipv4Net::new((number << 8).into(), 25).unwrap().into())
            .collect();
        let set = AddressSet::new(&networks);
        assert_eq!(set.bytes(), 8_000_000);
        for number in [0u32, 1, 77_777, 999_999] {
            assert!(set.contains(IpAddr::V4((number << 8).into())));
            assert!(!set.contains(IpAddr::V4((number << 8 | 0x80).into())));
        }
    }

    #[test]
    fn a_million_networks_of_ipv6_take_sixteen_megabytes() {
        let networks: Vec<IpNet> = (0..1_000_000u128)
            .map(|number| ipnet::Ipv6Net::new((0x2001 << 112 | number << 81).into(), 48).unwrap().into())
            .collect();
        let set = AddressSet::new(&networks);
        assert_eq!(set.bytes(), 16_000_000);
        assert!(set.bytes() <= crate::limits::TENANT_LIST_BYTES_MAX);
        for number in [0u128, 1, 77_777, 999_999] {
            let first = 0x2001 << 112 | number << 81;
            assert!(set.contains(IpAddr::V6((first | 0xffff).into())));
            assert!(!set.contains(IpAddr::V6((first | 1 << 80).into())));
        }
        assert_eq!(set.six().len(), 1_000_000);
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_networks_holds(
            four in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            six in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..20),
            address: u32,
            long: u128,
            near in any::<prop::sample::Index>(),
        ) {
            let mut networks: Vec<IpNet> = Vec::new();
            networks.extend(four.iter().map(|(bits, length)| {
                IpNet::from(ipnet::Ipv4Net::new((*bits).into(), *length).unwrap())
            }));
            networks.extend(six.iter().map(|(bits, length)| {
                IpNet::from(ipnet::Ipv6Net::new((*bits | 1 << 127).into(), *length).unwrap())
            }));
            let set = AddressSet::new(&networks);
            let mut asked = vec![IpAddr::V4(address.into()), IpAddr::V6((long | 1 << 127).into())];
            if !networks.is_empty() {
                let net = near.get(&networks);
                asked.extend([net.network(), net.broadcast()]);
            }
            for address in asked {
                let expect = networks.iter().any(|net| net.contains(&address));
                prop_assert_eq!(set.contains(address), expect, "{}", address);
            }
        }
    }
}
