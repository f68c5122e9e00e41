//! The search for the rules of one target: origins one after the other, and what the edge has stored. One bad bundle ends
//! nothing; what is good wherever it lies is found.

use std::ops::ControlFlow;

use meridian_engine::ruleset::{Target, Version};
use meridian_engine::step::Loaded;

use crate::bundle::{InvalidBundle, Rules};
use crate::encoding::version;
use crate::event::Fault;
use crate::keyring::PublicKeyring;
use crate::signature::{Have, accept};

/// Which origin to call next, and how long it may take: the one that answered last, then the others; each but the last
/// gets half of the time that is left.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    first: usize,
    count: usize,
    turn: usize,
    deadline_ms: u64,
}

impl Turns {
    /// Turns of `count` origins within the time; `first` is the index of the one that answered last.
    #[must_use]
    pub fn new(first: usize, count: usize, now_ms: u64, timeout_ms: u32) -> Self {
        Self { first, count, turn: 0, deadline_ms: now_ms.saturating_add(timeout_ms.into()) }
    }

    /// The index of the next origin and its time in milliseconds; `None` where all had their turn or no time is left.
    pub fn next_at(&mut self, now_ms: u64) -> Option<(usize, u32)> {
        let left_ms = u32::try_from(self.deadline_ms.saturating_sub(now_ms)).unwrap_or(u32::MAX);
        let index = self.first.checked_add(self.turn)?.checked_rem(self.count)?;
        if left_ms == 0 || self.turn >= self.count {
            return None;
        }
        self.turn += 1;
        Some((index, if self.turn == self.count { left_ms } else { left_ms.div_ceil(2) }))
    }
}

/// What came of asking an origin for a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer<'a> {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// The ticket, where it has one.
        ticket: &'a str,
        /// The bytes of the bundle, where there is one.
        bytes: &'a [u8],
    },
    /// A bundle that is longer than any may be, so that it was not read.
    Oversized,
    /// No answer, and why.
    Nothing(String),
}

/// A search under way.
#[derive(Debug)]
pub struct Search<'a> {
    target: &'a Target,
    keys: &'a PublicKeyring,
    have: Option<Version>,
    newest: u64,
    missing: bool,
    why: String,
    faults: Vec<Fault>,
}

impl<'a> Search<'a> {
    /// A search for rules of this target, signed by one of the keys, and newer than those that are in force. `newest` is
    /// the newest sequence that there is, as far as that is known: as long as it is not found, no origin that has none
    /// newer ends the search.
    #[must_use]
    pub fn new(
        target: &'a Target,
        keys: &'a PublicKeyring,
        in_force: Option<Version>,
        newest: Option<u64>,
    ) -> Self {
        let why = "no origin answered in time".to_owned();
        let newest = newest.unwrap_or_default();
        Self { target, keys, have: in_force, newest, missing: false, why, faults: Vec::new() }
    }

    /// The newest release that is in force or was found.
    #[must_use]
    pub fn have(&self) -> Option<&Version> {
        self.have.as_ref()
    }

    /// Weighs what an origin says. The search is over with rules that are good and newer than [`Search::have`], and with
    /// `None` where there are no newer ones; otherwise the next origin is to be asked.
    pub fn offered(&mut self, offer: Offer<'_>, now_ms: u64) -> ControlFlow<Option<Rules>> {
        let before = self.have.as_ref().map(|have| have.sequence);
        match offer {
            Offer::Answer { status: 200, ticket, bytes } => match self.accept(ticket, bytes) {
                Ok(rules) if Some(rules.version().sequence) == before => return self.none_newer(),
                Ok(rules) => return ControlFlow::Break(Some(rules)),
                Err(error) => self.fault(Some(version(bytes)), error.to_string(), now_ms),
            },
            Offer::Answer { status: 304, .. } if before.is_some() => return self.none_newer(),
            Offer::Answer { status: 404, .. } => self.missing = self.faults.is_empty(),
            Offer::Answer { status, .. } => self.why = format!("an origin answered with status {status}"),
            Offer::Oversized => {
                let what = "the bundle is longer than any may be (BUNDLE_BYTES_MAX)";
                self.fault(None, what.to_owned(), now_ms);
            }
            Offer::Nothing(why) => self.why = why,
        }
        ControlFlow::Continue(())
    }

    /// Weighs what the edge has stored, a ticket and a bundle: the rules, if they are good and not in force already.
    pub fn stored(&mut self, ticket: &str, bytes: &[u8], now_ms: u64) -> Option<Rules> {
        let hash = version(bytes);
        if self.have.as_ref().is_some_and(|have| have.hash == hash) {
            return None;
        }
        match self.accept(ticket, bytes) {
            Ok(rules) => Some(rules),
            // Whoever was behind may have written last.
            Err(InvalidBundle::Older { .. }) => None,
            Err(error) => {
                self.fault(Some(hash), format!("in the edge's store: {error}"), now_ms);
                None
            }
        }
    }

    /// What to tell the engine where nothing good was found, and everything that could not be accepted on the way.
    #[must_use]
    pub fn end(self) -> (Loaded, Vec<Fault>) {
        let loaded = if self.missing { Loaded::Missing } else { Loaded::Unavailable(self.why) };
        (loaded, self.faults)
    }

    fn none_newer(&mut self) -> ControlFlow<Option<Rules>> {
        "no origin has a newer one".clone_into(&mut self.why);
        let is_newest = self.have.as_ref().is_some_and(|have| have.sequence >= self.newest);
        if is_newest { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
    }

    fn accept(&mut self, ticket: &str, bytes: &[u8]) -> Result<Rules, InvalidBundle> {
        let have = self.have.as_ref();
        let have = have.map(|have| Have { sequence: have.sequence, version: &have.hash });
        let rules = accept(ticket, bytes, self.target, self.keys, have)?.rules;
        self.have = Some(rules.version().clone());
        Ok(rules)
    }

    fn fault(&mut self, version: Option<String>, what: String, now_ms: u64) {
        self.missing = false;
        self.why.clone_from(&what);
        self.faults.push(Fault { at_ms: now_ms, target: self.target.to_string(), version, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64url;
    use crate::keyring::SigningKey;
    use crate::signature::Ticket;

    fn key(seed: u8) -> SigningKey {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([seed; 32]));
        SigningKey::parse(&format!("b1:{}", base64url(pair.as_ref()))).unwrap()
    }

    fn bytes() -> &'static [u8] {
        include_str!("../../tests/stored/bundle-platform-1.json").trim().as_bytes()
    }

    fn ticket(sequence: u64, bytes: &[u8], seed: u8) -> String {
        Ticket::of(&Target::Platform, sequence, bytes, None, 5_000).sign(&key(seed))
    }

    fn search<R>(in_force: Option<Version>, run: impl FnOnce(Search<'_>) -> R) -> R {
        run(Search::new(&Target::Platform, &PublicKeyring::of(&key(1)), in_force, Some(7)))
    }

    fn bundle<'a>(ticket: &'a str, bytes: &'a [u8]) -> Offer<'a> {
        Offer::Answer { status: 200, ticket, bytes }
    }

    fn status(status: u16) -> Offer<'static> {
        Offer::Answer { status, ticket: "", bytes: b"" }
    }

    fn sequence(found: ControlFlow<Option<Rules>>) -> Option<u64> {
        found.break_value().flatten().map(|rules| rules.version().sequence)
    }

    #[test]
    fn a_bad_bundle_ends_nothing() {
        let good = ticket(7, bytes(), 1);
        let (truncated, forged) = (&bytes()[..99], ticket(8, bytes(), 2));
        let other = br#"{"tenants":[]}"#;
        let other_ticket = ticket(9, other, 1);
        let bad = [
            bundle(&good, truncated),
            bundle(&forged, bytes()),
            bundle("", bytes()),
            bundle(&other_ticket, other),
            Offer::Oversized,
            status(304),
            status(404),
            status(500),
            Offer::Nothing("no answer in time".to_owned()),
        ];
        // An origin's good one after all of them; else what the store has.
        search(None, |mut search| {
            assert!(bad.iter().all(|offer| search.offered(offer.clone(), 1).is_continue()));
            assert_eq!(sequence(search.offered(bundle(&good, bytes()), 1)), Some(7));
            assert_eq!(search.have().unwrap().sequence, 7);
            assert_eq!(search.end().1.len(), 5, "each of those that are bundles is told of");
        });
        search(None, |mut search| {
            assert!(bad.iter().all(|offer| search.offered(offer.clone(), 1).is_continue()));
            assert_eq!(search.stored(&good, bytes(), 1).unwrap().version().sequence, 7);
        });
        // A bad one in the store, a good one at an origin.
        search(None, |mut search| {
            assert!(search.stored(&good, truncated, 1).is_none());
            assert_eq!(sequence(search.offered(bundle(&good, bytes()), 1)), Some(7));
        });
    }

    #[test]
    fn an_origin_that_is_behind_the_store_ends_nothing() {
        let (kept, older, newest) = (ticket(7, bytes(), 1), ticket(6, bytes(), 1), ticket(8, bytes(), 1));
        search(None, |mut search| {
            assert!(search.stored(&kept, bytes(), 1).is_some());
            assert!(search.offered(bundle(&older, bytes()), 1).is_continue());
            assert_eq!(sequence(search.offered(bundle(&newest, bytes()), 1)), Some(8));
        });
        search(None, |mut search| {
            assert!(search.stored(&kept, bytes(), 1).is_some());
            assert_eq!(search.offered(status(304), 1).break_value().map(|rules| rules.is_none()), Some(true));
        });
    }

    #[test]
    fn an_origin_without_the_newest_ends_nothing() {
        let in_force = Version { sequence: 6, hash: version(bytes()) };
        let (same, newest) = (ticket(6, bytes(), 1), ticket(7, bytes(), 1));
        search(Some(in_force.clone()), |mut search| {
            assert!(search.offered(bundle(&same, bytes()), 1).is_continue());
            assert!(search.offered(status(304), 1).is_continue());
            assert_eq!(sequence(search.offered(bundle(&newest, bytes()), 1)), Some(7));
        });
        search(Some(Version { sequence: 7, ..in_force }), |mut search| {
            assert!(search.offered(bundle(&newest, bytes()), 1).is_break(), "it is the newest");
        });
    }

    #[test]
    fn nothing_good_anywhere_is_told_apart_from_nothing_at_all() {
        let end = |offers: &[Offer<'_>]| {
            search(None, |mut search| {
                assert!(offers.iter().all(|offer| search.offered(offer.clone(), 1).is_continue()));
                search.end().0
            })
        };
        let away = || Offer::Nothing("away".to_owned());
        assert!(matches!(end(&[]), Loaded::Unavailable(_)));
        assert!(matches!(end(&[away(), status(404), away()]), Loaded::Missing));
        assert!(matches!(end(&[status(404), Offer::Oversized]), Loaded::Unavailable(_)));
        assert!(matches!(end(&[Offer::Oversized, status(404)]), Loaded::Unavailable(_)));
    }

    #[test]
    fn what_is_older_or_in_force_is_not_taken_from_the_store() {
        let in_force = Version { sequence: 7, hash: version(bytes()) };
        let (older, same) = (ticket(6, b"{}", 1), ticket(7, bytes(), 1));
        search(Some(in_force), |mut search| {
            assert!(search.stored(&older, b"{}", 1).is_none());
            assert!(search.stored(&same, bytes(), 1).is_none());
            assert!(search.end().1.is_empty(), "neither is a fault");
        });
    }

    #[test]
    fn origins_have_their_turns_within_the_time() {
        let mut turns = Turns::new(1, 3, 1_000, 800);
        assert_eq!(turns.next_at(1_000), Some((1, 400)));
        assert_eq!(turns.next_at(1_400), Some((2, 200)));
        assert_eq!(turns.next_at(1_500), Some((0, 300)));
        assert_eq!(turns.next_at(1_500), None);
        assert_eq!(Turns::new(0, 2, 0, 5).next_at(5), None);
        assert_eq!(Turns::new(0, 0, 0, 5).next_at(0), None);
    }
}
