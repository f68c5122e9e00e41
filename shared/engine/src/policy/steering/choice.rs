//! Orders that don't come from places: by weight, by hash, and by what a client was given before.

use sha2::{Digest, Sha256};

use crate::facts::{Facts, Scheme, cookie};
use crate::secret::Signing;

/// Cookie that keeps a client at its region.
pub const REGION_COOKIE: &str = "meridian_region";
const COOKIE_LIFE_S: u32 = 86_400;

/// Where a region comes in an order by weight: the lower, the earlier. Drawn from a seed: the same seed always gives the same
/// order, and of all seeds each region is first for its share of the weights. When a region comes or goes, only the seeds
/// that had it first change (weighted rendezvous hashing). A weight of 0 is last.
pub(super) fn rank(seed: &[u8], region: &str, weight: u32) -> u64 {
    let hash = Sha256::new().chain_update(seed).chain_update([0]).chain_update(region).finalize();
    let bits = hash.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    // In (0, 1): neither logarithm nor quotient is infinite.
    let even = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    match weight {
        0 => u64::MAX,
        weight => (-even.ln() / f64::from(weight) * 1e12) as u64,
    }
}

/// The region that a client's cookie names, if this platform signed it for this tenant, by whichever key.
#[must_use]
pub fn region_of_cookie<'a>(facts: &'a Facts, signing: &Signing, tenant: &str) -> Option<&'a str> {
    let (region, signature) = cookie(&facts.headers, REGION_COOKIE)?.strip_prefix("r1.")?.split_once('.')?;
    signing.verify(signed(tenant, region), signature).map(|_| region)
}

/// The `Set-Cookie` value that keeps a client at a region (RFC 6265).
#[must_use]
pub fn region_cookie(facts: &Facts, signing: &Signing, tenant: &str, region: &str) -> String {
    let signature = signing.sign(signed(tenant, region));
    let secure = if facts.scheme == Scheme::Https { "; Secure" } else { "" };
    format!(
        "{REGION_COOKIE}=r1.{region}.{signature}; Path=/; Max-Age={COOKIE_LIFE_S}; HttpOnly; SameSite=Lax{secure}"
    )
}

fn signed<'a>(tenant: &'a str, region: &'a str) -> [&'a str; 4] {
    ["meridian-region-v1\n", tenant, "\n", region]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::request;
    use crate::secret::Secrets;

    const REGIONS: [(&str, u32); 3] = [("us", 6), ("eu", 3), ("ap", 1)];

    fn first(seed: u32, regions: &[(&'static str, u32)]) -> &'static str {
        let rank = |(region, weight): &(&str, u32)| rank(&seed.to_be_bytes(), region, *weight);
        regions.iter().min_by_key(|region| rank(region)).unwrap().0
    }

    #[test]
    fn each_region_is_first_for_its_share() {
        let seeds = 30_000;
        for (region, weight) in REGIONS {
            let share = (0..seeds).filter(|seed| first(*seed, &REGIONS) == region).count() as f64;
            let expected = f64::from(weight) / 10.0;
            // Four standard deviations.
            let slack = 4.0 * (expected * (1.0 - expected) / f64::from(seeds)).sqrt();
            assert!((share / f64::from(seeds) - expected).abs() < slack, "{region}: {share}");
        }
        assert_eq!(first(1, &[("us", 0), ("eu", 1)]), "eu");
    }

    #[test]
    fn when_a_region_goes_only_its_own_move() {
        for seed in 0..5_000 {
            let before = first(seed, &REGIONS);
            let after = first(seed, &REGIONS[..2]);
            assert!(before == "ap" || before == after);
        }
    }

    #[test]
    fn only_a_cookie_of_ours_for_this_tenant_counts() {
        let secrets = |signing| Secrets::new(&[0; 32], &[signing; 32]);
        let (ours, rotated) = (secrets(7).signing, secrets(8).with_older([[7; 32]]).signing);
        let mut facts = request("GET", "acme.example", "/");
        let cookie = region_cookie(&facts, &ours, "acme", "eu-west-1");
        let pair = cookie.split(';').next().unwrap().to_owned();
        facts.headers.append("cookie", &pair);
        assert_eq!(region_of_cookie(&facts, &ours, "acme"), Some("eu-west-1"));
        assert_eq!(region_of_cookie(&facts, &rotated, "acme"), Some("eu-west-1"));
        assert_eq!(region_of_cookie(&facts, &ours, "globex"), None);
        assert_eq!(region_of_cookie(&facts, &secrets(8).signing, "acme"), None);
        facts.headers.set("cookie", pair.replace("eu-west-1", "us-east-1"));
        assert_eq!(region_of_cookie(&facts, &ours, "acme"), None);
    }
}
