//! Names of addresses as an origin found them in DNS and confirmed them: what a crawler's claim is verified by. An edge
//! asks nobody itself. It notes the addresses whose names it would like to know, a few at a time, and hears of them with
//! the news.

use std::net::IpAddr;
use std::sync::Arc;

use crate::bounded::{Bounded, Keyed};
use crate::clock::{Since, Until};
use crate::limits::{NAME_ASK_MS, NAME_BYTES_MAX, NAME_KEEP_MS_MAX, NAMES_ASKED_MAX, NAMES_MAX};
use crate::step::AddressName;

/// What is known of the names of addresses.
#[derive(Debug)]
pub struct Names {
    known: Bounded<IpAddr, Held>,
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
    /// Not known; it is asked for.
    Unknown,
}

impl Names {
    /// Nothing is known.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self { known: Bounded::new(NAMES_MAX, keyed), asked: Vec::new() }
    }

    /// The name of an address. Where it is not known it will be asked for, as long as not too many are.
    pub fn of(&mut self, address: IpAddr, now_ms: u64) -> Name {
        if let Some(held) = self.known.get(&address).filter(|held| held.until.is_ahead(now_ms)) {
            return held.name.clone().map_or(Name::None, Name::Confirmed);
        }
        let is_asked = self.asked.iter().any(|(asked, _)| *asked == address);
        if !is_asked && self.asked.len() < NAMES_ASKED_MAX {
            self.asked.push((address, Since(now_ms)));
        }
        Name::Unknown
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
                let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
                self.known.insert(address, Held { name, until });
            }
        }
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
        assert_eq!(names.of(address(1), NOW), Name::Unknown);
        assert_eq!(names.of(address(1), NOW), Name::Unknown);
        assert_eq!(names.ask(NOW), [address(1)]);
        assert_eq!(names.ask(NOW), [address(1)], "until it is answered");
        names.heard(vec![answer(1, Some("Crawl-1.Googlebot.com.")), answer(2, Some("never.asked"))], NOW);
        assert_eq!(names.of(address(1), NOW), Name::Confirmed("crawl-1.googlebot.com".into()));
        assert!(names.ask(NOW).is_empty());
        assert_eq!(names.of(address(1), NOW + 60_000), Name::Unknown);
        assert_eq!(names.of(address(2), NOW), Name::Unknown, "nobody asked");
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
        assert_eq!(names.of(address(1), NOW - 3_600_000), Name::Unknown);
    }

    #[test]
    fn whoever_claims_a_lot_has_few_names_asked_for() {
        let mut names = Names::new(Keyed::default());
        for number in 0..100_000 {
            names.of(address(number), NOW);
        }
        assert_eq!(names.ask(NOW).len(), NAMES_ASKED_MAX);
        for number in 0..100_000 {
            names.of(address(number), NOW);
            names.heard(vec![answer(number, None)], NOW);
        }
        assert!(names.known.len() <= NAMES_MAX);
    }
}
