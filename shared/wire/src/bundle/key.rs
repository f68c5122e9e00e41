//! Keys of issuers: JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037) and public keys in PEM (RFC 7468, RFC 5280).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meridian_engine::limits::{RSA_BITS_MAX, RSA_BITS_MIN, RSA_EXPONENT};
use meridian_engine::step::{Algorithm, VerificationKey};

use crate::document::KeySpec;
use crate::encoding::from_base64url;
use crate::limits::KEY_BYTES_MAX;

/// What is wrong with a key: the member, and what was expected of it. Never holds any part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidKey {
    pub(super) member: &'static str,
    pub(super) expected: &'static str,
}

/// The key of a document. It must fit its algorithm (RFC 8725, section 3.1) and be strong enough for it.
pub(super) fn key(spec: &KeySpec) -> Result<VerificationKey, InvalidKey> {
    if spec.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(InvalidKey { member: "use", expected: "sig" });
    }
    let algorithm = Algorithm::from(spec.alg);
    if let Some(pem) = &spec.pem {
        let members = [&spec.kty, &spec.crv, &spec.n, &spec.e, &spec.x, &spec.y];
        if members.iter().any(|member| member.is_some()) || spec.k.is_some() {
            return Err(InvalidKey { member: "pem", expected: "the only form in which the key is given" });
        }
        return from_pem(pem, algorithm);
    }
    match algorithm {
        Algorithm::HS256 => secret(spec, 32),
        Algorithm::HS384 => secret(spec, 48),
        Algorithm::HS512 => secret(spec, 64),
        Algorithm::ES256 => point(spec, "P-256", 32).map(VerificationKey::P256),
        Algorithm::ES384 => point(spec, "P-384", 48).map(VerificationKey::P384),
        Algorithm::EdDSA => {
            fits(spec, "OKP", Some("Ed25519"))?;
            bytes(spec.x.as_deref(), "x", 32, "an Ed25519 public key: 32 bytes in base64url")
                .map(VerificationKey::Ed25519)
        }
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => {
            fits(spec, "RSA", None)?;
            let n = spec.n.as_deref().and_then(from_base64url).unwrap_or_default();
            let e = spec.e.as_deref().and_then(from_base64url).unwrap_or_default();
            rsa(&n, &e)
        }
    }
}

fn fits(spec: &KeySpec, kty: &'static str, crv: Option<&'static str>) -> Result<(), InvalidKey> {
    if spec.kty.as_deref() != Some(kty) {
        return Err(InvalidKey { member: "kty", expected: kty });
    }
    match crv {
        Some(crv) if spec.crv.as_deref() != Some(crv) => Err(InvalidKey { member: "crv", expected: crv }),
        _ => Ok(()),
    }
}

fn secret(spec: &KeySpec, least: usize) -> Result<VerificationKey, InvalidKey> {
    fits(spec, "oct", None)?;
    let secret = spec.k.as_ref().and_then(|secret| from_base64url(&secret.0)).unwrap_or_default();
    if (least..=KEY_BYTES_MAX).contains(&secret.len()) {
        Ok(VerificationKey::Secret(secret))
    } else {
        // RFC 7518, section 3.2: as long as the hash or longer.
        Err(InvalidKey {
            member: "k",
            expected: "a secret in base64url, as long as the hash of its algorithm or longer",
        })
    }
}

fn point(spec: &KeySpec, crv: &'static str, side: usize) -> Result<Vec<u8>, InvalidKey> {
    fits(spec, "EC", Some(crv))?;
    let x = bytes(spec.x.as_deref(), "x", side, "a coordinate in base64url, as long as the curve's field")?;
    let y = bytes(spec.y.as_deref(), "y", side, "a coordinate in base64url, as long as the curve's field")?;
    Ok([vec![4], x, y].concat())
}

fn bytes(
    text: Option<&str>,
    member: &'static str,
    length: usize,
    expected: &'static str,
) -> Result<Vec<u8>, InvalidKey> {
    text.and_then(from_base64url).filter(|bytes| bytes.len() == length).ok_or(InvalidKey { member, expected })
}

fn rsa(n: &[u8], e: &[u8]) -> Result<VerificationKey, InvalidKey> {
    let strip = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let (n, e) = (strip(n), strip(e));
    let zeros = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&(n.len() * 8 - zeros)) {
        return Err(InvalidKey { member: "n", expected: "a modulus of 2048 to 4096 bits in base64url" });
    }
    if e != RSA_EXPONENT {
        return Err(InvalidKey { member: "e", expected: "the public exponent AQAB (65537)" });
    }
    Ok(VerificationKey::Rsa { n, e })
}

/// Object identifiers of the keys that are read, as DER holds them.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

fn from_pem(pem: &str, algorithm: Algorithm) -> Result<VerificationKey, InvalidKey> {
    let invalid =
        InvalidKey { member: "pem", expected: "a public key in PEM (BEGIN PUBLIC KEY) that fits alg" };
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .ok_or(invalid)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok().filter(|der| der.len() <= 2 * KEY_BYTES_MAX).ok_or(invalid)?;
    from_der(&der, algorithm).ok_or(invalid)?
}

/// `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
fn from_der(der: &[u8], algorithm: Algorithm) -> Option<Result<VerificationKey, InvalidKey>> {
    let (info, rest) = take(der, 0x30)?;
    let (identifier, info) = take(info, 0x30)?;
    let (oid, parameters) = take(identifier, 0x06)?;
    let (key, end) = take(info, 0x03)?;
    let (unused, key) = key.split_first()?;
    if !rest.is_empty() || !end.is_empty() || *unused != 0 {
        return None;
    }
    let curve = || take(parameters, 0x06).map(|(curve, _)| curve);
    match algorithm {
        Algorithm::EdDSA if oid == ED25519 && key.len() == 32 => {
            Some(Ok(VerificationKey::Ed25519(key.to_vec())))
        }
        Algorithm::ES256 if oid == EC_PUBLIC_KEY && curve()? == P256 && key.len() == 65 => {
            Some(Ok(VerificationKey::P256(key.to_vec())))
        }
        Algorithm::ES384 if oid == EC_PUBLIC_KEY && curve()? == P384 && key.len() == 97 => {
            Some(Ok(VerificationKey::P384(key.to_vec())))
        }
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512
            if oid == RSA_ENCRYPTION =>
        {
            let (numbers, _) = take(key, 0x30)?;
            let (n, numbers) = take(numbers, 0x02)?;
            let (e, _) = take(numbers, 0x02)?;
            Some(rsa(n, e))
        }
        _ => None,
    }
}

/// One DER element with this tag: its content and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (high, rest) = rest.split_first()?;
            let (low, rest) = rest.split_first()?;
            (usize::from(*high) << 8 | usize::from(*low), rest)
        }
        _ => return None,
    };
    if *first == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::AlgorithmSpec;
    use crate::encoding::base64url;

    fn spec(json: serde_json::Value) -> KeySpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_key_must_fit_its_algorithm() {
        let x = base64url(&[5; 32]);
        let ed = spec(serde_json::json!({"alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": x}));
        assert_eq!(key(&ed), Ok(VerificationKey::Ed25519(vec![5; 32])));
        let confused = KeySpec { alg: AlgorithmSpec::HS256, ..ed.clone() };
        assert_eq!(key(&confused), Err(InvalidKey { member: "kty", expected: "oct" }));
        let p256 = spec(serde_json::json!({"alg": "ES256", "kty": "EC", "crv": "P-256", "x": x, "y": x}));
        assert!(matches!(key(&p256), Ok(VerificationKey::P256(point)) if point.len() == 65));
        let weak = spec(serde_json::json!({"alg": "HS256", "kty": "oct", "k": base64url(&[1; 31])}));
        assert_eq!(key(&weak).unwrap_err().member, "k");
        let small =
            spec(serde_json::json!({"alg": "RS256", "kty": "RSA", "n": base64url(&[255; 128]), "e": "AQAB"}));
        assert_eq!(key(&small).unwrap_err().member, "n");
    }

    #[test]
    fn rsa_keys_are_those_that_every_host_takes() {
        let check = |n: &[u8], e: &[u8], expect: Option<&str>| {
            let (bits, n, e) = (n.len() * 8, base64url(n), base64url(e));
            let spec = spec(serde_json::json!({"alg": "RS256", "kty": "RSA", "n": n, "e": e}));
            assert_eq!(key(&spec).err().map(|invalid| invalid.member), expect, "{bits} bits, {e}");
        };
        let exponent = [1, 0, 1];
        check(&[0x80; 256], &exponent, None);
        check(&[0x7f; 256], &exponent, Some("n"));
        check(&[&[0][..], &[0x80; 256]].concat(), &exponent, None);
        check(&[0xff; 512], &exponent, None);
        check(&[&[1][..], &[0xff; 512]].concat(), &exponent, Some("n"));
        check(&[], &exponent, Some("n"));
        for odd in [&[0_u8; 0][..], &[1], &[2], &[3], &[1, 0, 0, 0, 0, 0, 0, 1], &[1, 0, 0]] {
            check(&[0x80; 256], odd, Some("e"));
        }
    }

    #[test]
    fn public_keys_are_read_from_pem() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let ed = spec(serde_json::json!({"alg": "EdDSA", "pem": pem}));
        assert!(matches!(key(&ed), Ok(VerificationKey::Ed25519(_))));
        let other = spec(serde_json::json!({"alg": "ES256", "pem": pem}));
        assert_eq!(key(&other).unwrap_err().member, "pem");
        let cut = spec(serde_json::json!({"alg": "EdDSA", "pem": pem.replace("MCow", "MCoA")}));
        assert_eq!(key(&cut).unwrap_err().member, "pem");
    }
}
