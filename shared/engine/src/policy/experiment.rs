//! Which variant a unit gets. Assignment is a pure function of the experiment and the unit, so that every edge says
//! the same without asking anybody.
//!
//! It is `SHA-256(tag ‖ length(name) as 32 bits ‖ name ‖ unit)`: with tag `e` and the salt for an experiment, where
//! the first eight bytes decide on the ramp and the next eight on the variant; with tag `l` and the layer's name for a
//! layer, and with tag `c` and the route's name for a canary, where the first eight bytes are the bucket. A number of 64 bits becomes one of `n` as `number × n ÷ 2⁶⁴`.
//! Growing the ramp therefore only adds units, and a new salt is independent of the old one.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::facts::{Facts, Scheme, cookie, query_parameter};
use crate::limits::EXPERIMENTS_GIVEN_MAX;
use crate::ruleset::{Canary, Experiment, Force, Newcomers, Unit, Variant};
use crate::secret::{Secret, SignedBy, Signing, hex};

/// Cookie that holds the unit of a client without a subject.
pub const UNIT_COOKIE: &str = "meridian_unit";
/// Cookie that holds what a new unit was given, until the client has shown that it keeps cookies: `NAME:VERSION` with `~`
/// between. It is signed for the unit: nobody gets in whom the audience leaves out.
pub const GIVEN_COOKIE: &str = "meridian_given";
/// Buckets of a layer and steps of a ramp.
pub const BUCKETS: u32 = 10_000;
const COOKIE_LIFE_S: u32 = 31_536_000;
/// How long a client may take to come back and be counted from its first request on.
const GIVEN_LIFE_S: u32 = 86_400;

/// Why a unit has no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Its bucket of the layer belongs to another experiment, or to none.
    Layer,
    /// The ramp has not come to it yet.
    Ramp,
    /// No variant has a weight.
    NoWeight,
}

impl Outside {
    /// In a few words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Layer => "not in its part of the layer",
            Self::Ramp => "not in the ramp",
            Self::NoWeight => "no variant has a weight",
        }
    }
}

/// The variant of a unit.
///
/// # Errors
/// Why it has none.
pub fn assign<'a>(experiment: &'a Experiment, unit: &str) -> Result<&'a Arc<str>, Outside> {
    if let Some(layer) = &experiment.layer {
        let bucket = scale(digest(b'l', &layer.name, unit).0, u64::from(BUCKETS));
        if !(u64::from(layer.from)..u64::from(layer.until)).contains(&bucket) {
            return Err(Outside::Layer);
        }
    }
    let (ramp, choice) = digest(b'e', &experiment.salt, unit);
    if scale(ramp, u64::from(BUCKETS)) >= u64::from(experiment.ramp) {
        return Err(Outside::Ramp);
    }
    let total = experiment.variants.iter().map(|variant| u64::from(variant.weight)).sum();
    let mut place = scale(choice, total);
    for variant in &experiment.variants {
        match place.checked_sub(u64::from(variant.weight)) {
            None => return Ok(&variant.name),
            Some(rest) => place = rest,
        }
    }
    Err(Outside::NoWeight)
}

/// The variant that a request asks for.
#[must_use]
pub fn asked_for<'a>(force: &Force, facts: &'a Facts) -> Option<Cow<'a, str>> {
    let header = || facts.headers.get(force.header.as_deref()?).map(Cow::Borrowed);
    let query = || query_parameter(facts.query.as_deref(), force.query.as_deref()?);
    let from_cookie = || cookie(&facts.headers, force.cookie.as_deref()?).map(Cow::Borrowed);
    header().or_else(query).or_else(from_cookie)
}

/// What decides which variant a unit gets and which units count, in 16 hexadecimal characters: salt, kind of unit, when
/// newcomers count, variants and weights. Those that count at once and those that came back can't be compared. Layer, ramp and
/// audience are no part of it: they say who takes part, and who takes part keeps the variant.
#[must_use]
pub fn version(salt: &str, unit: Unit, newcomers: Newcomers, variants: &[Variant]) -> String {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(text);
    };
    text(salt);
    text(if unit == Unit::Subject { "subject" } else { "cookie" });
    // Each variant is two texts, so that one more is never taken for a part of them.
    if newcomers == Newcomers::AtOnce {
        text("atOnce");
    }
    for variant in variants {
        text(&variant.name);
        text(&variant.weight.to_string());
    }
    hex(hash.finalize().get(..8).unwrap_or_default())
}

/// Tells units of an experiment apart without naming them, in 32 hexadecimal characters: HMAC-SHA256 with the platform's
/// secret, as subjects can be guessed.
#[must_use]
pub fn unit_hash(secret: &Secret, tenant: &str, experiment: &str, unit: &str) -> String {
    let parts = ["meridian-exposure-v1\n", tenant, "\n", experiment, "\n", unit];
    hex(&secret.short_tag(parts.map(str::as_bytes)))
}

/// Whether a unit goes to a route's canary: each for itself, and all that went still go when the share grows.
#[must_use]
pub fn is_canary(route: &str, canary: &Canary, unit: &str) -> bool {
    scale(digest(b'c', route, unit).0, u64::from(BUCKETS)) < u64::from(canary.share)
}

fn digest(tag: u8, name: &str, unit: &str) -> (u64, u64) {
    let mut hash = Sha256::new();
    hash.update([tag]);
    hash.update(u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(name);
    hash.update(unit);
    let bytes = hash.finalize();
    let number = |bytes: &[u8]| bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (first, rest) = bytes.split_at(8);
    (number(first), number(rest))
}

/// A number of `0..n` from 64 even bits.
fn scale(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// The unit that a client's cookie names and which key says so, if this platform signed it for this tenant.
#[must_use]
pub fn unit_of_cookie<'a>(facts: &'a Facts, signing: &Signing, tenant: &str) -> Option<(&'a str, SignedBy)> {
    let (unit, signature) = cookie(&facts.headers, UNIT_COOKIE)?.strip_prefix("u1.")?.split_once('.')?;
    Some((unit, signing.verify(signed_unit(tenant, unit), signature)?))
}

/// A new unit. Random bits are in other places as well: nobody without the secret learns the unit from them.
#[must_use]
pub fn new_unit(facts: &Facts, hashing: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(hashing.short_tag([b"meridian-unit-new-v1\n", &facts.random]))
}

/// The `Set-Cookie` value that makes the client keep its unit (RFC 6265).
#[must_use]
pub fn unit_cookie(facts: &Facts, signing: &Signing, tenant: &str, unit: &str) -> String {
    let signature = signing.sign(signed_unit(tenant, unit));
    set_cookie(facts, UNIT_COOKIE, format_args!("u1.{unit}.{signature}"), COOKIE_LIFE_S)
}

/// The `Set-Cookie` value by which a new unit's client keeps what it was given, at most [`EXPERIMENTS_GIVEN_MAX`]
/// experiments. What is beyond counts with the next request that it is given on.
#[must_use]
pub fn give(
    facts: &Facts,
    signing: &Signing,
    tenant: &str,
    unit: &str,
    experiments: &[&Experiment],
) -> String {
    let one = |experiment: &&Experiment| format!("{}:{}", experiment.rule.name, experiment.version);
    let given: Vec<String> = experiments.iter().take(EXPERIMENTS_GIVEN_MAX).map(one).collect();
    let given = given.join("~");
    let signature = signing.sign(signed_given(tenant, unit, &given));
    set_cookie(facts, GIVEN_COOKIE, format_args!("g1.{given}.{signature}"), GIVEN_LIFE_S)
}

/// What the client says that it was given while its unit was new, whatever that is worth.
#[derive(Clone, Debug)]
pub struct Given(String);

impl Given {
    /// `None` where the client says nothing of it.
    #[must_use]
    pub fn of(facts: &Facts) -> Option<Self> {
        cookie(&facts.headers, GIVEN_COOKIE).map(|value| Self(value.to_owned()))
    }

    /// Name and version of each experiment that the unit was given something of. What this platform did not sign for the tenant
    /// and the unit is nothing.
    #[must_use]
    pub fn experiments(&self, signing: &Signing, tenant: &str, unit: &str) -> Vec<(&str, &str)> {
        let said = self.0.strip_prefix("g1.").and_then(|value| value.rsplit_once('.'));
        let is_signed = |given: &str, signature: &str| {
            signing.verify(signed_given(tenant, unit, given), signature).is_some()
        };
        let signed = said.filter(|(given, signature)| is_signed(given, signature));
        let all = signed.into_iter().flat_map(|(given, _)| given.split('~'));
        all.take(EXPERIMENTS_GIVEN_MAX).filter_map(|one| one.split_once(':')).collect()
    }
}

/// The `Set-Cookie` value that makes the client forget what it was given: it is counted.
#[must_use]
pub fn forget_given(facts: &Facts) -> String {
    set_cookie(facts, GIVEN_COOKIE, format_args!(""), 0)
}

fn set_cookie(facts: &Facts, name: &str, value: Arguments<'_>, life_s: u32) -> String {
    let secure = if facts.scheme == Scheme::Https { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}")
}

fn signed_unit<'a>(tenant: &'a str, unit: &'a str) -> [&'a str; 4] {
    ["meridian-unit-v1\n", tenant, "\n", unit]
}

fn signed_given<'a>(tenant: &'a str, unit: &'a str, given: &'a str) -> [&'a str; 6] {
    ["meridian-given-v1\n", tenant, "\n", unit, "\n", given]
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::fixtures::request;
    use crate::fixtures::rule;
    use crate::headers::Headers;
    use crate::ruleset::Layer;
    use crate::secret::Secrets;

    const UNITS: u32 = 40_000;

    fn experiment(salt: &str, ramp: u32, weights: &[u32]) -> Experiment {
        let variant =
            |(number, weight): (usize, &u32)| Variant { name: format!("v{number}").into(), weight: *weight };
        Experiment {
            rule: rule("Experiment"),
            layer: None,
            salt: salt.to_owned(),
            audience: None,
            unit: Unit::Subject,
            newcomers: Newcomers::OnReturn,
            ramp,
            variants: weights.iter().enumerate().map(variant).collect(),
            version: "".into(),
            force: None,
            goals: vec![],
        }
    }

    /// The expected values were computed by another program from the description at the top of this file.
    #[test]
    fn an_assignment_never_changes() {
        let check = |salt, unit, expect| {
            let experiment = experiment(salt, BUCKETS, &[1, 1, 1]);
            assert_eq!(assign(&experiment, unit).map(|name| &**name), Ok(expect), "{salt} {unit}");
        };
        check("checkout-1", "user-1", "v1");
        check("checkout-1", "user-2", "v0");
        check("checkout-2", "user-1", "v0");
        check("", "", "v2");
    }

    /// How often each number of 0..`N` comes among so many units.
    fn counts<const N: usize>(units: u32, place: impl Fn(&str) -> usize + Sync) -> [f64; N] {
        let part = |parity: u32| {
            let mut counts = [0.0; N];
            (0..units / 2)
                .for_each(|number| counts[place(&format!("s:user-{}", 2 * number + parity))] += 1.0);
            counts
        };
        let (mut even, odd) = thread::scope(|scope| {
            let odd = scope.spawn(|| part(1));
            (part(0), odd.join().unwrap())
        });
        even.iter_mut().zip(odd).for_each(|(even, odd)| *even += odd);
        even
    }

    /// Pearson's statistic of counts against the shares that they should have.
    fn chi_square(counts: &[f64], shares: &[f64]) -> f64 {
        let all: f64 = counts.iter().sum();
        let cell = |(count, share): (&f64, &f64)| (count - share * all).powi(2) / (share * all);
        counts.iter().zip(shares).map(cell).sum()
    }

    fn place(experiment: &Experiment, unit: &str) -> usize {
        let name = assign(experiment, unit).unwrap();
        experiment.variants.iter().position(|variant| variant.name == *name).unwrap()
    }

    /// That all pairs of variants come as often as both weights say is both at once: each experiment follows its weights, and
    /// one tells nothing about the other. Critical values at p = 0.001: 16.266 with 3 degrees of freedom, 24.322 with 7
    /// (NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.4).
    #[test]
    fn a_million_units_follow_the_weights_of_two_experiments_independently() {
        let (first, second) =
            (experiment("one", BUCKETS, &[1, 1]), experiment("two", BUCKETS, &[1, 2, 5, 8]));
        let pairs = counts::<8>(1_000_000, |unit| 4 * place(&first, unit) + place(&second, unit));
        let shares: Vec<f64> = [1.0, 2.0, 5.0, 8.0].repeat(2).iter().map(|weight| weight / 32.0).collect();
        assert!(chi_square(&pairs, &shares) < 24.322, "{pairs:?}");
    }

    #[test]
    fn layer_ramp_and_variant_are_independent_of_one_another() {
        let layer = Some(Layer { name: "one".to_owned(), from: 0, until: BUCKETS / 2 });
        let layered = Experiment { layer, ..experiment("one", BUCKETS / 2, &[0, 1, 2]) };
        let outcomes = counts::<4>(UNITS, |unit| match assign(&layered, unit).map(|name| &**name) {
            Err(Outside::Layer) => 0,
            Err(_) => 1,
            Ok("v1") => 2,
            Ok(name) => usize::from(name == "v2") * 3,
        });
        assert!(chi_square(&outcomes, &[0.5, 0.25, 0.25 / 3.0, 0.5 / 3.0]) < 16.266, "{outcomes:?}");
    }

    #[test]
    fn a_version_changes_with_what_decides_and_nothing_else() {
        let of = |experiment: &Experiment| {
            version(&experiment.salt, experiment.unit, experiment.newcomers, &experiment.variants)
        };
        let plain = of(&experiment("s", BUCKETS, &[1, 1]));
        // SHA-256 as another program computes it.
        assert_eq!(plain, "5fff532093aa83a4");
        assert_eq!(plain, of(&experiment("s", 0, &[1, 1])));
        let cookie = Experiment { unit: Unit::Cookie, ..experiment("s", BUCKETS, &[1, 1]) };
        let at_once = Experiment { newcomers: Newcomers::AtOnce, ..experiment("s", BUCKETS, &[1, 1]) };
        for other in [experiment("t", BUCKETS, &[1, 1]), experiment("s", BUCKETS, &[1, 2]), cookie, at_once] {
            assert_ne!(plain, of(&other));
        }
    }

    #[test]
    fn a_unit_has_another_hash_in_each_experiment_and_tenant() {
        let hash =
            |secret, tenant, name| unit_hash(&Secret::new(&[secret; 32]), tenant, name, "s:ada@example.com");
        // HMAC-SHA256 as another program computes it.
        assert_eq!(hash(9, "acme", "checkout"), "1b870a4cbd6d573c1ecdbe6a2ba4e570");
        for other in [hash(8, "acme", "checkout"), hash(9, "globex", "checkout"), hash(9, "acme", "banner")] {
            assert_ne!(hash(9, "acme", "checkout"), other);
        }
    }

    #[test]
    fn a_growing_ramp_only_adds_units() {
        let (small, large) = (experiment("s", 1_000, &[1, 1]), experiment("s", 3_000, &[1, 1]));
        let mut taking_part = 0;
        for unit in (0..UNITS).map(|unit| format!("user-{unit}")) {
            if let Ok(variant) = assign(&small, &unit) {
                taking_part += 1;
                assert_eq!(assign(&large, &unit), Ok(variant));
            }
        }
        assert!((taking_part as f64 / f64::from(UNITS) - 0.1).abs() < 0.01, "{taking_part}");
        assert_eq!(assign(&experiment("s", 0, &[1]), "user-1"), Err(Outside::Ramp));
        assert_eq!(assign(&experiment("s", BUCKETS, &[0]), "user-1"), Err(Outside::NoWeight));
    }

    #[test]
    fn experiments_of_a_layer_exclude_one_another() {
        let layered = |salt, from, until| Experiment {
            layer: Some(Layer { name: "page".to_owned(), from, until }),
            ..experiment(salt, BUCKETS, &[1])
        };
        let (first, second) = (layered("one", 0, 5_000), layered("two", 5_000, 10_000));
        for unit in (0..2_000).map(|unit| format!("user-{unit}")) {
            assert_ne!(assign(&first, &unit).is_ok(), assign(&second, &unit).is_ok());
        }
    }

    #[test]
    fn a_unit_cookie_is_believed_only_as_signed_and_for_its_tenant() {
        let secrets = Secrets::new(&[1; 32], &[9; 32]);
        let signing = &secrets.signing;
        let mut facts = request("GET", "acme.example", "/");
        let unit = new_unit(&facts, &secrets.hashing);
        let set_cookie = unit_cookie(&facts, signing, "acme", &unit);
        assert!(set_cookie.ends_with("; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax; Secure"));
        let sent = set_cookie.split(';').next().unwrap().to_owned();
        let mut check = |cookie: String, signing: &Signing, tenant, expect: Option<SignedBy>| {
            facts.headers = Headers::from_iter([("cookie", cookie)]);
            let expect = expect.map(|by| (unit.as_str(), by));
            assert_eq!(unit_of_cookie(&facts, signing, tenant), expect);
        };
        check(sent.clone(), signing, "acme", Some(SignedBy::First));
        check(sent.clone(), signing, "globex", None);
        check(sent.replace("u1.", "u1.x"), signing, "acme", None);
        check(format!("{UNIT_COOKIE}=u1.a."), signing, "acme", None);
        let rotated = Secrets::new(&[1; 32], &[8; 32]);
        check(sent.clone(), &rotated.signing, "acme", None);
        check(sent, &rotated.with_older([[9; 32]]).signing, "acme", Some(SignedBy::Older));
    }

    #[test]
    fn what_was_given_is_believed_only_as_signed_and_for_its_unit() {
        let (ours, rotated) = (Secrets::new(&[1; 32], &[9; 32]), Secrets::new(&[1; 32], &[8; 32]));
        let named = |name: &str| {
            let mut experiment = experiment("s", BUCKETS, &[1]);
            (experiment.rule.name, experiment.version) = (name.into(), "v".into());
            experiment
        };
        let experiments = [named("one.of"), named("two")];
        let mut facts = request("GET", "acme.example", "/");
        let all: Vec<&Experiment> = experiments.iter().collect();
        let set_cookie = give(&facts, &ours.signing, "acme", "u", &all);
        let sent = set_cookie.split(';').next().unwrap().to_owned();
        let mut check = |cookie: String, signing: &Signing, tenant, unit, expect: bool| {
            facts.headers = Headers::from_iter([("cookie", cookie)]);
            let expect = if expect { vec![("one.of", "v"), ("two", "v")] } else { vec![] };
            let given = Given::of(&facts).unwrap();
            assert_eq!(given.experiments(signing, tenant, unit), expect);
        };
        check(sent.clone(), &ours.signing, "acme", "u", true);
        check(sent.clone(), &ours.signing, "globex", "u", false);
        check(sent.clone(), &ours.signing, "acme", "v", false);
        check(sent.replace("two", "all"), &ours.signing, "acme", "u", false);
        check(format!("{GIVEN_COOKIE}=one.of:v~two:v"), &ours.signing, "acme", "u", false);
        check(sent.clone(), &rotated.signing, "acme", "u", false);
        check(sent, &rotated.with_older([[9; 32]]).signing, "acme", "u", true);
        assert!(Given::of(&request("GET", "acme.example", "/")).is_none());
    }
}
