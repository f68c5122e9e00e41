//! Comparison of two shares that may be looked at at any time, and the test of how units are spread.
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

use statrs::distribution::{ChiSquared, ContinuousCDF as _};

/// Units of each share that must have reached the goal, and that must not have, before shares are compared.
const COUNTED_MIN: u64 = 20;
/// Standard deviation of the effects that the test is made for: a tenth more or less is usual. Any value is valid; one
/// that is far off makes the test slower to see a difference.
const EFFECT_DEVIATION: f64 = 0.1;
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

/// P-value of the units of each variant against its weight (Pearson's chi-square test); nothing where there is no choice
/// or nobody yet. For its use as an alarm see A. Fabijan and others, "Diagnosing sample ratio mismatch in online controlled
/// experiments", KDD 2019.
pub(super) fn sample_ratio(spread: &[(u64, u32)]) -> Option<f64> {
    let units: u64 = spread.iter().map(|(units, _)| units).sum();
    let weights: f64 = spread.iter().map(|(_, weight)| f64::from(*weight)).sum();
    if spread.len() < 2 || units == 0 || weights == 0.0 {
        return None;
    }
    let cell = |(count, weight): &(u64, u32)| {
        let expected = units as f64 * f64::from(*weight) / weights;
        (*count as f64 - expected).powi(2) / expected
    };
    let statistic = spread.iter().map(cell).sum();
    Some(ChiSquared::new((spread.len() - 1) as f64).ok()?.sf(statistic))
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

    /// Critical values at p = 0.001 and 0.05 (NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.4), each met
    /// by moving units from one variant to another.
    #[test]
    fn the_sample_ratio_is_that_of_the_published_tables() {
        let check = |spread: &[(u64, u32)], statistic: f64, expect: f64| {
            let p_value = sample_ratio(spread).unwrap();
            let exact = ChiSquared::new((spread.len() - 1) as f64).unwrap().sf(statistic);
            assert!((exact - expect).abs() < expect * 0.01, "{exact} at {statistic}");
            assert!((p_value - expect).abs() < expect * 0.05, "{p_value} of {spread:?}");
        };
        // With d units moved from one half to the other of n, the statistic is 4 d²/n.
        check(&[(501_645, 1), (498_355, 1)], 10.828, 0.001);
        check(&[(500_980, 50), (499_020, 50)], 3.841, 0.05);
        // With d moved from one third of n to another, it is 6 d²/n.
        check(&[(100_831, 1), (99_169, 1), (100_000, 1)], 13.816, 0.001);
        assert_eq!(sample_ratio(&[(5, 1)]), None);
        assert_eq!(sample_ratio(&[(0, 1), (0, 1)]), None);
        assert!(sample_ratio(&[(900, 1), (100, 9)]).unwrap() < 1e-12);
    }
}
