//! Names of addresses as an origin found them in DNS and confirmed them: what a crawler's claim is verified by. An edge
//! asks nobody itself. It notes the addresses whose names it would like to know, a few at a time, and hears of them with
//! the news.

use std::net::IpAddr;
use std::sync::Arc;

use crate::bounded::{Bounded, Keyed};
use crate::clock::{Since, Until};
use crate::facts::network_of;
use crate::limits::{
    NAME_ASK_MS, NAME_BYTES_MAX, NAME_KEEP_MS_MAX, NAMES_ASKED_AROUND_MAX, NAMES_ASKED_MAX, NAMES_MAX,
};
use crate::step::AddressName;

/// What is known of the names of addresses.
#[derive(Debug)]
pub struct Names {
    known: Bounded<IpAddr, Held>,
    /// What was heard last of any address of a network: who has one address of a /64 has all of them.
    of_networks: Bounded<IpAddr, Option<Arc<str>>>,
    /// Asked for, with the time of the first question.
    asked: Vec<(IpAddr, Since)>,
}

#[derive(Debug)]
struct Held {
    name: Option<Arc<str>>,
    until: Until,
}

/// What is known of the name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// It has this name, in lower case, and the name has the address.
    Confirmed(Arc<str>),
    /// It has none that is confirmed.
    None,
    /// Not known, and asked for.
    Asked,
    /// Not known, and not asked for: too many others are, of its network or altogether.
    Unasked,
}

impl Names {
    /// Nothing is known.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        let of_networks = Bounded::new(NAMES_MAX, keyed);
        Self { known: Bounded::new(NAMES_MAX, keyed), of_networks, asked: Vec::new() }
    }

    /// The name of an address. Where it is not known it will be asked for, as long as not too many are: one of a network, and a
    /// few of those around it.
    pub fn of(&mut self, address: IpAddr, now_ms: u64) -> Name {
        if let Some(held) = self.known.get(&address).filter(|held| held.until.is_ahead(now_ms)) {
            return held.name.clone().map_or(Name::None, Name::Confirmed);
        }
        if self.asked.iter().any(|(asked, _)| *asked == address) {
            return Name::Asked;
        }
        let asked_within = |within: fn(IpAddr) -> IpAddr| {
            let here = within(address);
            self.asked.iter().filter(|(asked, _)| within(*asked) == here).count()
        };
        let has_room = self.asked.len() < NAMES_ASKED_MAX
            && asked_within(network_of) == 0
            && asked_within(around) < NAMES_ASKED_AROUND_MAX;
        if !has_room {
            return Name::Unasked;
        }
        self.asked.push((address, Since(now_ms)));
        Name::Asked
    }

    /// The name that was heard last of any address of an address's network, of late or before; `Some(None)` where that had none.
    pub fn of_network(&self, address: IpAddr) -> Option<Option<&str>> {
        self.of_networks.peek(&network_of(address)).map(Option::as_deref)
    }

    /// The addresses to ask for: each until it is answered, or for [`NAME_ASK_MS`].
    pub(crate) fn ask(&mut self, now_ms: u64) -> Vec<IpAddr> {
        self.asked.retain(|(_, since)| since.is_within(NAME_ASK_MS, now_ms));
        self.asked.iter().map(|(address, _)| *address).collect()
    }

    /// Takes answers to what was asked.
    pub(crate) fn heard(&mut self, names: Vec<AddressName>, now_ms: u64) {
        for AddressName { address, name, keep_ms } in names.into_iter().take(NAMES_ASKED_MAX) {
            let asked = self.asked.len();
            self.asked.retain(|(asked, _)| *asked != address);
            let name = name.filter(|name| name.len() <= NAME_BYTES_MAX);
            if self.asked.len() < asked {
                let until = Until::after(now_ms, keep_ms.min(NAME_KEEP_MS_MAX));
                let name: Option<Arc<str>> =
                    name.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
                self.of_networks.insert(network_of(address), name.clone());
                self.known.insert(address, Held { name, until });
            }
        }
    }
}

/// The networks around one: those of its /24, or of its /48 of IPv6, which is about what one customer has (RFC 6177).
fn around(address: IpAddr) -> IpAddr {
    match network_of(address) {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) & (u32::MAX << 8)).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) & (u128::MAX << 80)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn answer(number: u32, name: Option<&str>) -> AddressName {
        AddressName { address: address(number), name: name.map(str::to_owned), keep_ms: 60_000 }
    }

    #[test]
    fn a_name_is_asked_for_once_known_for_a_while_and_asked_for_again() {
        let mut names = Names::new(Keyed::default());
        assert_eq!(names.of(address(1), NOW), Name::Asked);
        assert_eq!(names.of(address(1), NOW), Name::Asked);
        assert_eq!(names.ask(NOW), [address(1)]);
        assert_eq!(names.ask(NOW), [address(1)], "until it is answered");
        names.heard(vec![answer(1, Some("Crawl-1.Googlebot.com.")), answer(2, Some("never.asked"))], NOW);
        assert_eq!(names.of(address(1), NOW), Name::Confirmed("crawl-1.googlebot.com".into()));
        assert!(names.ask(NOW).is_empty());
        assert_eq!(names.of(address(1), NOW + 60_000), Name::Asked);
        assert_eq!(names.of(address(2), NOW), Name::Asked, "nobody asked");
        assert!(names.ask(NOW + 60_000 + NAME_ASK_MS).is_empty(), "nobody answers");
    }

    #[test]
    fn a_clock_set_back_ends_questions_and_beliefs() {
        let mut names = Names::new(Keyed::default());
        names.of(address(1), NOW);
        names.heard(vec![answer(1, Some("crawl.example"))], NOW);
        names.of(address(2), NOW);
        assert_eq!(names.ask(NOW), [address(2)]);
        assert!(names.ask(NOW - 3_600_000).is_empty(), "nobody answers");
        assert_eq!(names.of(address(1), NOW - 3_600_000), Name::Asked);
    }

    #[test]
    fn whoever_claims_a_lot_has_few_names_asked_for() {
        let mut names = Names::new(Keyed::default());
        for number in 0..100_000 {
            names.of(address(number), NOW);
        }
        assert_eq!(names.ask(NOW).len(), NAMES_ASKED_MAX);
        assert_eq!(names.of(address(99_999), NOW), Name::Unasked);
        for number in 0..100_000 {
            names.of(address(number), NOW);
            names.heard(vec![answer(number, None)], NOW);
        }
        assert!(names.known.len() <= NAMES_MAX);
    }

    #[test]
    fn one_network_has_one_name_asked_for_and_leaves_room_for_others() {
        let of = |network: u128, host: u128| {
            IpAddr::from(((0x2001_0db8 << 96) | (network << 64) | host).to_be_bytes())
        };
        let mut names = Names::new(Keyed::default());
        for host in 0..1_000 {
            names.of(of(1, host), NOW);
        }
        assert_eq!(names.ask(NOW), [of(1, 0)], "a /64 is one network");
        for network in 0..1_000 {
            names.of(of(network, 0), NOW);
        }
        assert_eq!(names.ask(NOW).len(), NAMES_ASKED_AROUND_MAX, "and a /48 about one customer");
        assert_eq!(names.of(address(1), NOW), Name::Asked, "there is room for another");
    }

    #[test]
    fn what_is_heard_of_one_address_is_remembered_of_its_network() {
        let of = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        let mut names = Names::new(Keyed::default());
        assert_eq!(names.of_network(of(1)), None);
        names.of(of(1), NOW);
        names.heard(vec![AddressName { address: of(1), name: None, keep_ms: 60_000 }], NOW);
        assert_eq!(names.of(of(2), NOW), Name::Asked, "each is verified by its own name");
        assert_eq!(names.of_network(of(2)), Some(None));
        let name = Some("crawl.example".to_owned());
        names.heard(vec![AddressName { address: of(2), name, keep_ms: 60_000 }], NOW);
        assert_eq!(names.of_network(of(3)), Some(Some("crawl.example")));
    }
}
