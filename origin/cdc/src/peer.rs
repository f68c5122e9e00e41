//! The proof by which a region that asks another for something shows who it is.

use meridian_wire::encoding::{base64url, from_base64url};
use meridian_wire::keyring::MacKeyring;

use crate::limits::PROOF_AGE_MS_MAX;

/// The header by which an origin proves to another that it is one: `v1.KID.REGION.TIMESTAMP_MS.MAC`.
pub const HEADER: &str = "Meridian-Peer";

/// What a proof is good for, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The stream of an origin's changes.
    Stream,
    /// All that an origin says of itself.
    Readiness,
}

impl Purpose {
    fn domain(self) -> &'static str {
        match self {
            Self::Stream => "meridian-peer-v1\n",
            Self::Readiness => "meridian-peer-readiness-v1\n",
        }
    }
}

/// Why a connection of a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no proof.
    #[error("no {HEADER} header")]
    Missing,
    /// It has another shape.
    #[error("the {HEADER} header is not v1.KID.REGION.TIMESTAMP_MS.MAC")]
    Shape,
    /// It was signed with a key that this origin does not have.
    #[error("the {HEADER} header is signed with an unknown key")]
    Key,
    /// The signature is wrong, or for another region or purpose.
    #[error("the {HEADER} header's signature is wrong")]
    Signature,
    /// It is too old, or from the future: the clocks differ, or it is a replay.
    #[error("the {HEADER} header is {age_ms} ms old, at most {PROOF_AGE_MS_MAX} ms either way are accepted")]
    Age {
        /// Its age in milliseconds.
        age_ms: i64,
    },
    /// The region is not among the configured peers.
    #[error("region {region} is not a peer of this one")]
    Stranger {
        /// The region.
        region: String,
    },
}

/// Signs a proof for asking `source` for something as `region`. It is of no use with any other source.
#[must_use]
pub fn prove(keys: &MacKeyring, purpose: Purpose, region: &str, source: &str, now_ms: u64) -> String {
    let kid = keys.signing_kid();
    let mac = base64url(&keys.sign(purpose.domain(), message(region, source, now_ms).as_bytes()));
    format!("v1.{kid}.{region}.{now_ms}.{mac}")
}

/// Checks a proof for asking `source` for something, and returns the region that asks.
///
/// # Errors
/// [`Refused`] says why.
pub fn check(
    keys: &MacKeyring,
    purpose: Purpose,
    source: &str,
    proof: Option<&str>,
    now_ms: u64,
) -> Result<String, Refused> {
    let parts: Vec<&str> = proof.ok_or(Refused::Missing)?.split('.').collect();
    let ["v1", kid, region, at_ms, mac] = parts[..] else { return Err(Refused::Shape) };
    let at_ms: u64 = at_ms.parse().map_err(|_| Refused::Shape)?;
    let mac = from_base64url(mac).filter(|mac| mac.len() == 32).ok_or(Refused::Shape)?;
    match keys.verify(kid, purpose.domain(), message(region, source, at_ms).as_bytes(), &mac) {
        None => return Err(Refused::Key),
        Some(false) => return Err(Refused::Signature),
        Some(true) => {}
    }
    if now_ms.abs_diff(at_ms) > PROOF_AGE_MS_MAX {
        let age_ms = i64::try_from(now_ms).unwrap_or(i64::MAX) - i64::try_from(at_ms).unwrap_or(i64::MAX);
        return Err(Refused::Age { age_ms });
    }
    Ok(region.to_owned())
}

fn message(region: &str, source: &str, at_ms: u64) -> String {
    format!("{region}\n{source}\n{at_ms}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> MacKeyring {
        MacKeyring::parse("k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
    }

    #[test]
    fn proves_one_region_to_one_source_for_a_minute() {
        let proof = prove(&keys(), Purpose::Stream, "eu-west-1", "us-east-1", 1_000_000);
        let check = |source: &str, proof: Option<&str>, now_ms| {
            check(&keys(), Purpose::Stream, source, proof, now_ms)
        };
        assert_eq!(check("us-east-1", Some(&proof), 1_000_500), Ok("eu-west-1".into()));
        assert_eq!(check("ap-southeast-1", Some(&proof), 1_000_500), Err(Refused::Signature));
        assert_eq!(check("us-east-1", Some(&proof), 1_060_001), Err(Refused::Age { age_ms: 60_001 }));
        assert_eq!(check("us-east-1", Some(&proof), 900_000), Err(Refused::Age { age_ms: -100_000 }));
        assert_eq!(check("us-east-1", None, 1), Err(Refused::Missing));
        assert_eq!(check("us-east-1", Some("v1.k1.eu-west-1.1"), 1), Err(Refused::Shape));
        assert_eq!(check("us-east-1", Some(&proof.replace("k1", "k2")), 1_000_000), Err(Refused::Key));
        assert_eq!(check("us-east-1", Some(&proof.replace("eu", "ap")), 1_000_000), Err(Refused::Signature));
    }

    #[test]
    fn a_proof_is_good_for_one_purpose() {
        let (stream, readiness) = (Purpose::Stream, Purpose::Readiness);
        for (made_for, used_for, expect) in [
            (readiness, readiness, Ok("eu-west-1".to_owned())),
            (readiness, stream, Err(Refused::Signature)),
            (stream, readiness, Err(Refused::Signature)),
        ] {
            let proof = prove(&keys(), made_for, "eu-west-1", "us-east-1", 1);
            let found = check(&keys(), used_for, "us-east-1", Some(&proof), 1);
            assert_eq!(found, expect, "{made_for:?} for {used_for:?}");
        }
    }
}
