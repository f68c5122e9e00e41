//! Comparison of two shares and the test of how units are spread, both of which may be looked at at any time.
//!
//! Who looks at a common p-value again and again, and stops when it is small, is wrong far more often than it says. The
//! mixture sequential probability ratio test (H. Robbins, "Statistical methods related to the law of the iterated
//! logarithm", Annals of Mathematical Statistics 41, 1970; for experiments R. Johari, L. Pekelis and D. Walsh, "Always
//! valid inference: continuous monitoring of A/B tests", Operations Research 70, 2022) has no such fault: the chance
//! that its p-value is ever below `a` where there is no difference is at most `a`. Its statistic is the likelihood ratio of
//! an effect drawn from a normal distribution against none; the effects that it does not reject at 5% are the interval.
//!
//! The effect is the logarithm of the ratio of the shares, which is close to normal for counts that are not small
//! ([`COUNTED_MIN`]). Each variant is compared by itself: who looks at many should expect less of each.
//!
//! How units are spread is tested alike (M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data",
//! NeurIPS 2022): the likelihood ratio of shares drawn from a Dirichlet distribution around the weights against the weights
//! themselves. It is exact for counts of any size, so that few units and small weights need no exception.

use statrs::function::gamma::ln_gamma;

/// Units of each share that must have reached the goal, and that must not have, before shares are compared.
const COUNTED_MIN: u64 = 20;
/// Standard deviation of the effects that the test is made for: a tenth more or less is usual. Any value is valid; one
/// that is far off makes the test slower to see a difference.
const EFFECT_DEVIATION: f64 = 0.1;
/// How close to the weights the shares are that the test of the spread is made for, as if so many units had been seen. Any
/// value is valid; with this one, a variant of two that lacks 5% of its units is seen after some 20,000 units, and one that
/// gets none after some 130.
const SPREAD_CONCENTRATION: f64 = 1_000.0;
/// One minus the confidence of the interval.
const ALPHA: f64 = 0.05;

/// Units with a variant, and how many of them reached a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub units: u64,
    pub conversions: u64,
}

/// A share compared with the control's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Compared {
    /// Ratio of the shares, less one.
    pub lift: f64,
    /// Ends of its confidence interval.
    pub low: f64,
    pub high: f64,
    pub p_value: f64,
}

impl Counted {
    pub(super) fn rate(self) -> Option<f64> {
        (self.units > 0).then(|| self.conversions as f64 / self.units as f64)
    }

    /// Logarithm of the share and the variance of that (delta method).
    fn log_rate(self) -> Option<(f64, f64)> {
        let others = self.units.checked_sub(self.conversions)?;
        if self.conversions < COUNTED_MIN || others < COUNTED_MIN {
            return None;
        }
        let rate = self.rate()?;
        Some((rate.ln(), (1.0 - rate) / self.conversions as f64))
    }
}

/// Compares a share with the control's, once there is enough of both.
pub(super) fn compare(control: Counted, variant: Counted) -> Option<Compared> {
    let ((control, control_variance), (variant, variant_variance)) =
        (control.log_rate()?, variant.log_rate()?);
    let (effect, variance) = (variant - control, control_variance + variant_variance);
    let ratio = log_likelihood_ratio(effect, variance);
    let reach = reach(variance);
    Some(Compared {
        lift: effect.exp() - 1.0,
        low: (effect - reach).exp() - 1.0,
        high: (effect + reach).exp() - 1.0,
        p_value: (-ratio).exp().min(1.0),
    })
}

/// Logarithm of the mixture likelihood ratio of an effect that was seen with this variance.
fn log_likelihood_ratio(effect: f64, variance: f64) -> f64 {
    let mixture = EFFECT_DEVIATION.powi(2);
    let both = variance + mixture;
    0.5 * (variance / both).ln() + mixture * effect.powi(2) / (2.0 * variance * both)
}

/// Half the width of the interval: the effect at which the likelihood ratio is `1 / ALPHA`.
fn reach(variance: f64) -> f64 {
    let mixture = EFFECT_DEVIATION.powi(2);
    let both = variance + mixture;
    (variance * both / mixture * (2.0 * (1.0 / ALPHA).ln() + (both / variance).ln())).sqrt()
}

/// P-value of the units of each variant against its weight; nothing where there is no choice or nobody yet. The chance that it
/// is ever `a` or less, however often it is looked at, is at most `a` where the units follow the weights. Why it is an alarm:
/// A. Fabijan and others, "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
pub(super) fn sample_ratio(spread: &[(u64, u32)]) -> Option<f64> {
    let is_choice = spread.iter().filter(|(_, weight)| *weight > 0).count() > 1;
    let units: u64 = spread.iter().map(|(units, _)| units).sum();
    (is_choice && units > 0).then(|| (-spread_ratio(spread)).exp().min(1.0))
}

/// Logarithm of the likelihood ratio of shares around the weights against the weights. Variants without weight are left out.
fn spread_ratio(spread: &[(u64, u32)]) -> f64 {
    let weighted = || spread.iter().filter(|(_, weight)| *weight > 0);
    let weights: f64 = weighted().map(|(_, weight)| f64::from(*weight)).sum();
    let units: f64 = weighted().map(|(units, _)| *units as f64).sum();
    let one = |(units, weight): &(u64, u32)| {
        let (units, share) = (*units as f64, f64::from(*weight) / weights);
        let prior = SPREAD_CONCENTRATION * share;
        ln_gamma(prior + units) - ln_gamma(prior) - units * share.ln()
    };
    ln_gamma(SPREAD_CONCENTRATION) - ln_gamma(SPREAD_CONCENTRATION + units) + weighted().map(one).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(units: u64, conversions: u64) -> Counted {
        Counted { units, conversions }
    }

    #[test]
    fn little_is_not_compared() {
        let enough = counted(1_000, 100);
        assert!(compare(enough, enough).is_some());
        for few in [counted(0, 0), counted(1_000, 19), counted(100, 81), counted(10, 11)] {
            assert_eq!(compare(enough, few), None, "{few:?}");
            assert_eq!(compare(few, enough), None, "{few:?}");
        }
    }

    #[test]
    fn the_interval_holds_no_lift_just_when_the_p_value_is_above_one_in_twenty() {
        for conversions in (600..1_500).step_by(7) {
            let compared = compare(counted(10_000, 1_000), counted(10_000, conversions)).unwrap();
            assert!(compared.low < compared.lift && compared.lift < compared.high, "{compared:?}");
            assert_eq!(
                compared.low <= 0.0 && compared.high >= 0.0,
                compared.p_value >= 0.05,
                "{conversions}: {compared:?}"
            );
        }
    }

    /// The closed form against the integral that it is of: likelihoods of all effects by how likely each is.
    #[test]
    fn the_likelihood_ratio_is_that_of_the_mixture() {
        let density = |x: f64, deviation: f64| {
            (-0.5 * (x / deviation).powi(2)).exp() / (deviation * std::f64::consts::TAU.sqrt())
        };
        for (effect, variance) in [(0.05_f64, 0.001_f64), (-0.2, 0.01), (0.0, 0.0004)] {
            let seen = |of: f64| density(effect - of, variance.sqrt());
            let step = 1e-4;
            let integral: f64 = (-10_000..10_000)
                .map(|place| f64::from(place) * step)
                .map(|of| seen(of) * density(of, EFFECT_DEVIATION) * step)
                .sum();
            let ratio = log_likelihood_ratio(effect, variance);
            assert!((ratio - (integral / seen(0.0)).ln()).abs() < 1e-6, "{effect} {variance}: {ratio}");
        }
    }

    /// An even random number from 0 to 1 (Sebastiano Vigna's SplitMix64, its 53 highest bits).
    fn random(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Share of experiments that are ever called different by one of 100 looks.
    fn ever_different(shares: [f64; 2], is_different: impl Fn([Counted; 2]) -> bool) -> f64 {
        const EXPERIMENTS: u32 = 400;
        let mut state = 7;
        let mut different = 0;
        for _ in 0..EXPERIMENTS {
            let mut both = [counted(0, 0); 2];
            different += u32::from((0..100).any(|_| {
                for (counted, share) in both.iter_mut().zip(shares) {
                    counted.units += 100;
                    counted.conversions +=
                        (0..100).map(|_| u64::from(random(&mut state) < share)).sum::<u64>();
                }
                is_different(both)
            }));
        }
        f64::from(different) / f64::from(EXPERIMENTS)
    }

    #[test]
    fn looking_a_hundred_times_does_not_find_what_is_not_there() {
        let always_valid = |[control, variant]: [Counted; 2]| {
            compare(control, variant).is_some_and(|compared| compared.p_value < 0.05)
        };
        let none = ever_different([0.2, 0.2], always_valid);
        assert!(none <= 0.05, "{none} of experiments without a difference");
        let found = ever_different([0.2, 0.24], always_valid);
        assert!(found > 0.9, "{found} of experiments with a difference");
        // The z-test of a fixed number of units, which is what not to look at again and again.
        let fixed = ever_different([0.2, 0.2], |[control, variant]| {
            let (a, b) = (control.rate().unwrap(), variant.rate().unwrap());
            let both = (a + b) / 2.0;
            let deviation = (2.0 * both * (1.0 - both) / control.units as f64).sqrt();
            (a - b).abs() > 1.96 * deviation
        });
        assert!(fixed > 0.25, "{fixed}");
    }

    /// Counts as they come, one unit after the other: how many of so many runs are ever called odd, with a look every `every`
    /// units.
    fn ever_odd(weights: &[u32], shares: &[f64], [runs, units, every]: [u32; 3], alarm: f64) -> u32 {
        let mut state = 11;
        let mut run = || {
            let mut spread: Vec<(u64, u32)> = weights.iter().map(|weight| (0, *weight)).collect();
            (1..=units).any(|seen| {
                let mut place = random(&mut state);
                let found = shares.iter().position(|share| {
                    place -= share;
                    place < 0.0
                });
                spread[found.unwrap_or(shares.len() - 1)].0 += 1;
                seen % every == 0 && sample_ratio(&spread).is_some_and(|p_value| p_value < alarm)
            })
        };
        (0..runs).map(|_| u32::from(run())).sum()
    }

    #[test]
    fn looking_after_every_unit_finds_no_odd_spread_that_is_not_there() {
        for weights in [&[1, 1][..], &[1, 99], &[1, 999], &[1, 2, 5]] {
            let all = f64::from(weights.iter().sum::<u32>());
            let shares: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) / all).collect();
            let odd = ever_odd(weights, &shares, [300, 400, 1], 0.05);
            assert!(odd <= 15, "{weights:?}: {odd} of 300 runs");
        }
    }

    #[test]
    fn a_variant_that_lacks_one_in_twenty_is_seen() {
        let shares = [1.0 / 1.95, 0.95 / 1.95];
        let seen = ever_odd(&[1, 1], &shares, [20, 80_000, 100], 0.001);
        assert!(seen >= 18, "{seen} of 20 runs");
        assert_eq!(ever_odd(&[1, 1], &[1.0, 0.0], [1, 150, 1], 0.001), 1, "nobody gets the other");
    }

    #[test]
    fn a_spread_is_odd_for_what_it_is_and_not_for_being_small() {
        let of = |spread: &[(u64, u32)]| sample_ratio(spread).unwrap();
        // Pearson's test of fixed counts would raise the alarm at the first of these.
        assert!(of(&[(1, 1), (4, 999)]) > 0.9);
        assert!(of(&[(500_300, 1), (499_700, 1)]) > 0.9);
        assert!(of(&[(900, 1), (100, 9)]) < 1e-12);
        assert!(of(&[(80_500, 80), (19_500, 20)]) > 0.001 && of(&[(81_000, 80), (19_000, 20)]) < 1e-6);
        for none in [&[(5, 1)][..], &[(0, 1), (0, 1)], &[(5, 1), (3, 0)], &[]] {
            assert_eq!(sample_ratio(none), None, "{none:?}");
        }
    }

    /// The closed form against the product of what each unit was expected by: it goes to a variant by how many went there
    /// before, with the weights as those that went there before all.
    #[test]
    fn the_ratio_of_a_spread_is_that_of_its_units_one_by_one() {
        let mut state = 5;
        let mut spread: [(u64, u32); 3] = [(0, 3), (0, 1), (0, 6)];
        let mut ratio = 0.0;
        for seen in 0..3_000_u32 {
            let place = (random(&mut state) * 3.0) as usize % 3;
            let (units, weight) = spread[place];
            let share = f64::from(weight) / 10.0;
            let expected =
                (SPREAD_CONCENTRATION * share + units as f64) / (SPREAD_CONCENTRATION + f64::from(seen));
            ratio += (expected / share).ln();
            spread[place].0 += 1;
        }
        assert!((spread_ratio(&spread) - ratio).abs() < 1e-6, "{} {ratio}", spread_ratio(&spread));
    }
}
