//! Which variant a unit gets. Assignment is a pure function of the experiment and the unit, so that every edge says
//! the same without asking anybody.
//!
//! It is `SHA-256(tag ‖ length(name) as 32 bits ‖ name ‖ unit)`: with tag `e` and the salt for an experiment, where
//! the first eight bytes decide on the ramp and the next eight on the variant; with tag `l` and the layer's name for a
//! layer, and with tag `c` and the route's name for a canary, where the first eight bytes are the bucket. A number of 64 bits becomes one of `n` as `number × n ÷ 2⁶⁴`.
//! Growing the ramp therefore only adds units, and a new salt is independent of the old one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::facts::{Facts, Scheme, cookie};
use crate::ruleset::{Canary, Experiment};

/// Cookie that holds the unit of a client without a subject.
pub const UNIT_COOKIE: &str = "meridian_unit";
/// Buckets of a layer and steps of a ramp.
pub const BUCKETS: u32 = 10_000;
const COOKIE_LIFE_S: u32 = 31_536_000;
const MAC_BYTES: usize = 16;

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
pub fn assign<'a>(experiment: &'a Experiment, unit: &str) -> Result<&'a str, Outside> {
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

/// The unit that a client's cookie names, if this platform signed it for this tenant.
#[must_use]
pub fn unit_of_cookie<'a>(facts: &'a Facts, secret: &[u8; 32], tenant: &str) -> Option<&'a str> {
    let (unit, signature) = cookie(&facts.headers, UNIT_COOKIE)?.strip_prefix("u1.")?.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let expected = sign(secret, tenant, unit)?;
    bool::from(signature.ct_eq(&expected)).then_some(unit)
}

/// A new unit, and the `Set-Cookie` value that makes the client keep it (RFC 6265).
#[must_use]
pub fn new_unit(facts: &Facts, secret: &[u8; 32], tenant: &str) -> Option<(String, String)> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
    mac.update(b"meridian-unit-new-v1\n");
    mac.update(&facts.random);
    let unit = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes().get(..16)?);
    let signature = URL_SAFE_NO_PAD.encode(sign(secret, tenant, &unit)?);
    let secure = if facts.scheme == Scheme::Https { "; Secure" } else { "" };
    let cookie = format!(
        "{UNIT_COOKIE}=u1.{unit}.{signature}; Path=/; Max-Age={COOKIE_LIFE_S}; HttpOnly; SameSite=Lax{secure}"
    );
    Some((unit, cookie))
}

fn sign(secret: &[u8; 32], tenant: &str, unit: &str) -> Option<Vec<u8>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
    for part in ["meridian-unit-v1\n", tenant, "\n", unit] {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().get(..MAC_BYTES).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::request;
    use crate::fixtures::rule;
    use crate::headers::Headers;
    use crate::ruleset::{Layer, Unit, Variant};

    const UNITS: u32 = 40_000;

    fn experiment(salt: &str, ramp: u32, weights: &[u32]) -> Experiment {
        let variant =
            |(number, weight): (usize, &u32)| Variant { name: format!("v{number}"), weight: *weight };
        Experiment {
            rule: rule("Experiment"),
            layer: None,
            salt: salt.to_owned(),
            audience: None,
            unit: Unit::Subject,
            ramp,
            variants: weights.iter().enumerate().map(variant).collect(),
        }
    }

    fn share(experiment: &Experiment, variant: &str, among: impl Iterator<Item = u32>) -> f64 {
        let (mut hits, mut all) = (0.0, 0.0);
        for unit in among {
            all += 1.0;
            if assign(experiment, &format!("user-{unit}")) == Ok(variant) {
                hits += 1.0;
            }
        }
        hits / all
    }

    /// The expected values were computed by another program from the description at the top of this file.
    #[test]
    fn an_assignment_never_changes() {
        let check = |salt, unit, expect| {
            assert_eq!(assign(&experiment(salt, BUCKETS, &[1, 1, 1]), unit), Ok(expect), "{salt} {unit}");
        };
        check("checkout-1", "user-1", "v1");
        check("checkout-1", "user-2", "v0");
        check("checkout-2", "user-1", "v0");
        check("", "", "v2");
    }

    #[test]
    fn shares_follow_the_weights_within_five_standard_errors() {
        let experiment = experiment("s", BUCKETS, &[1, 2, 0, 5]);
        for (variant, expect) in [("v0", 1.0 / 8.0), ("v1", 2.0 / 8.0), ("v2", 0.0), ("v3", 5.0 / 8.0)] {
            let error = (expect * (1.0 - expect) / f64::from(UNITS)).sqrt();
            let got = share(&experiment, variant, 0..UNITS);
            assert!((got - expect).abs() <= 5.0 * error, "{variant}: {got}, expected {expect} ± {error}");
        }
    }

    #[test]
    fn experiments_are_independent_of_one_another() {
        let (first, second) = (experiment("one", BUCKETS, &[1, 1]), experiment("two", BUCKETS, &[1, 1]));
        let in_first: Vec<u32> =
            (0..UNITS).filter(|unit| assign(&first, &format!("user-{unit}")) == Ok("v0")).collect();
        let got = share(&second, "v0", in_first.iter().copied());
        let error = (0.25 / in_first.len() as f64).sqrt();
        assert!((got - 0.5).abs() <= 5.0 * error, "{got}");
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
        let secret = [9; 32];
        let mut facts = request("GET", "acme.example", "/");
        let (unit, set_cookie) = new_unit(&facts, &secret, "acme").unwrap();
        assert!(set_cookie.ends_with("; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax; Secure"));
        let sent = set_cookie.split(';').next().unwrap().to_owned();
        let mut check = |cookie: String, secret: &[u8; 32], tenant, expect| {
            facts.headers = Headers::from_iter([("cookie", cookie)]);
            assert_eq!(unit_of_cookie(&facts, secret, tenant), expect);
        };
        check(sent.clone(), &secret, "acme", Some(unit.as_str()));
        check(sent.clone(), &secret, "globex", None);
        check(sent.clone(), &[8; 32], "acme", None);
        check(sent.replace("u1.", "u1.x"), &secret, "acme", None);
        check(format!("{UNIT_COOKIE}=u1.a."), &secret, "acme", None);
    }
}
