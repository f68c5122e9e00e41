//! Which decisions are written down, and which new traces are followed.
//!
//! What is chosen is a pure function of the decision's random bits. Those that a share leaves count through those that it
//! keeps: each stands for a whole number of decisions whose mean is one by the share, so that sums stay unbiased.

use crate::decision::{Outcome, Participation, decision_bits};
use crate::ruleset::{SHARE_ALL, Sampling};

/// What becomes of the event of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Written down for itself.
    Whole,
    /// Written down for as many decisions.
    For(u32),
    /// Not written down.
    Out,
}

impl Kept {
    /// How many decisions the event stands for; 0 where there is none.
    #[must_use]
    pub fn weight(self) -> u32 {
        match self {
            Self::Whole => 1,
            Self::For(weight) => weight,
            Self::Out => 0,
        }
    }
}

/// Why a decision is written down whatever the share is, where it is.
#[must_use]
pub fn always(
    outcome: Outcome,
    status: u16,
    participation: &Participation,
    traced: bool,
) -> Option<&'static str> {
    let counts = !participation.exposures.is_empty() || !participation.conversions.is_empty();
    match outcome {
        Outcome::Denied | Outcome::Limited | Outcome::Failed => Some(outcome.as_str()),
        _ if status >= 500 => Some("a status of 500 or above"),
        _ if counts => Some("counts for an experiment"),
        _ if traced => Some("of a sampled trace"),
        _ => None,
    }
}

/// What a share keeps of a decision with these random bits.
#[must_use]
pub fn keep(rule: &Sampling, random: [u8; 16]) -> Kept {
    let share = rule.share.min(SHARE_ALL);
    if share == SHARE_ALL {
        return Kept::Whole;
    }
    if place(random, Use::Event) >= share {
        return Kept::Out;
    }
    // Whole numbers whose mean is `SHARE_ALL / share`.
    let (whole, rest) =
        (SHARE_ALL.checked_div(share).unwrap_or(1), SHARE_ALL.checked_rem(share).unwrap_or(0));
    let up = spread(random, Use::Weight) % u64::from(share.max(1)) < u64::from(rest);
    Kept::For(whole + u32::from(up))
}

/// Whether a trace that begins with this request is followed.
#[must_use]
pub fn follow(rule: &Sampling, random: [u8; 16]) -> bool {
    place(random, Use::Trace) < rule.traces
}

/// The least share, in hundredths of a per cent, that keeps the decision with this id; `None` where the text is no id.
#[must_use]
pub fn share_for(id: &str) -> Option<u32> {
    let random = decision_bits(id)?;
    Some(place(random.to_be_bytes(), Use::Event) + 1)
}

/// What the random bits are used for: choices must not depend on each other.
#[derive(Clone, Copy)]
enum Use {
    Event = 1,
    Weight = 2,
    Trace = 3,
}

/// From 0 to below [`SHARE_ALL`].
fn place(random: [u8; 16], of: Use) -> u32 {
    u32::try_from(spread(random, of) % u64::from(SHARE_ALL)).unwrap_or(0)
}

fn spread(random: [u8; 16], of: Use) -> u64 {
    // The low half alone: all of it shows in the decision's id.
    let bits = u128::from_be_bytes(random) as u64;
    crate::trace::mix(crate::trace::mix(bits) ^ of as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::decision_id;

    fn rule(share: u32, traces: u32) -> Sampling {
        Sampling { share, traces, when: None }
    }

    fn random(number: u64) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn the_weights_of_what_is_kept_add_up_to_what_there_was() {
        for share in [1, 7, 300, 2_500, 3_333, 6_000, 9_999] {
            let many = 400_000u64;
            let kept: Vec<u64> =
                (0..many).map(|number| u64::from(keep(&rule(share, 0), random(number)).weight())).collect();
            let (sum, count) = (kept.iter().sum::<u64>(), kept.iter().filter(|weight| **weight > 0).count());
            // Six standard deviations of a sum of so many.
            let p = f64::from(share) / f64::from(SHARE_ALL);
            let allowed = 6.0 * (many as f64 * (1.0 - p) / p).sqrt() + many as f64 * 0.001;
            assert!((sum as f64 - many as f64).abs() < allowed, "{share}: {sum}");
            let allowed = 6.0 * (many as f64 * p * (1.0 - p)).sqrt();
            assert!((count as f64 - many as f64 * p).abs() < allowed, "{share}: {count}");
        }
        assert_eq!(keep(&rule(SHARE_ALL, 0), random(1)), Kept::Whole);
        assert!((0..1_000).all(|number| keep(&rule(0, 0), random(number)) == Kept::Out));
    }

    #[test]
    fn a_larger_share_keeps_whatever_a_smaller_one_does() {
        let out = |share, number| keep(&rule(share, 0), random(number)) == Kept::Out;
        assert!((0..20_000).all(|number| out(100, number) || !out(2_000, number)));
    }

    #[test]
    fn an_id_tells_which_share_keeps_its_decision() {
        for number in 0..200 {
            let random = random(number << 57 | number);
            let share = share_for(&decision_id(1_767_225_600_000, random)).unwrap();
            assert_ne!(keep(&rule(share, 0), random), Kept::Out);
            assert_eq!(keep(&rule(share - 1, 0), random), Kept::Out);
        }
        assert_eq!((share_for("x"), share_for("01ARYZ6S41TSV4RRFFQ69G5FA!")), (None, None));
    }

    #[test]
    fn traces_are_chosen_apart_from_events() {
        let traced: Vec<u64> =
            (0..100_000).filter(|number| follow(&rule(0, 1_000), random(*number))).collect();
        assert!((9_400..10_600).contains(&traced.len()), "{}", traced.len());
        let both =
            traced.iter().filter(|number| keep(&rule(1_000, 0), random(**number)) != Kept::Out).count();
        assert!((800..1_200).contains(&both), "{both}");
    }

    #[test]
    fn what_somebody_will_ask_for_is_always_kept() {
        let none = Participation::default();
        for outcome in [Outcome::Denied, Outcome::Limited, Outcome::Failed] {
            assert_eq!(always(outcome, 403, &none, false), Some(outcome.as_str()));
        }
        assert_eq!(always(Outcome::Forwarded, 200, &none, false), None);
        assert!(always(Outcome::Forwarded, 502, &none, false).is_some());
        assert!(always(Outcome::Cached, 200, &none, true).is_some());
    }
}
