//! Signatures of clients' tokens, by `jwt-simple`.

use jwt_simple::algorithms::{
    ECDSAP256PublicKeyLike as _, ECDSAP384PublicKeyLike as _, ES256PublicKey, ES384PublicKey,
    Ed25519PublicKey, EdDSAPublicKeyLike as _, HS256Key, HS384Key, HS512Key, MACLike as _, PS256PublicKey,
    PS384PublicKey, PS512PublicKey, RS256PublicKey, RS384PublicKey, RS512PublicKey, RSAPublicKeyLike as _,
};
use jwt_simple::claims::JWTClaims;
use jwt_simple::common::VerificationOptions;
use jwt_simple::prelude::UnixTimeStamp;
use jwt_simple::token::Token;
use meridian_engine::limits::TOKEN_BYTES_MAX;
use meridian_engine::step::{Algorithm, VerificationKey, Verify};
use serde_json::{Map, Value};

/// Whether the signature of a token is right: the answer to the engine's [`Verify`] step.
///
/// The engine has checked header and claims before it asks, with the issuer's own skew; here only the signature has a say.
/// The library reads header and claims as well, so the check is made at the epoch, when nothing has expired yet, with the
/// future accepted, and for the very `typ` that the token has; no clock is read. What else the library refuses (a `salt`,
/// members of another type than theirs, keys beyond 4096 bits or of another exponent than 65537) the engine has refused.
#[must_use]
pub fn verify_token(verify: &Verify) -> bool {
    let token = verify.token.as_str();
    let typ = || Some(Token::decode_metadata(token).ok()?.signature_type()?.to_owned());
    let options = || {
        Some(VerificationOptions {
            accept_future: true,
            time_tolerance: None,
            max_token_length: Some(TOKEN_BYTES_MAX),
            max_header_length: Some(TOKEN_BYTES_MAX),
            artificial_time: Some(UnixTimeStamp::from_secs(0)),
            required_signature_type: typ(),
            ..VerificationOptions::default()
        })
    };
    type Claims = JWTClaims<Map<String, Value>>;
    macro_rules! right {
        ($key:expr) => {
            $key.is_ok_and(|key| {
                matches!(key.verify_token::<Map<String, Value>>(token, options()), Ok(Claims { .. }))
            })
        };
    }
    match (verify.algorithm, verify.key.as_ref()) {
        (Algorithm::HS256, VerificationKey::Secret(secret)) => right!(ok(HS256Key::from_bytes(secret))),
        (Algorithm::HS384, VerificationKey::Secret(secret)) => right!(ok(HS384Key::from_bytes(secret))),
        (Algorithm::HS512, VerificationKey::Secret(secret)) => right!(ok(HS512Key::from_bytes(secret))),
        (Algorithm::RS256, VerificationKey::Rsa { n, e }) => right!(RS256PublicKey::from_components(n, e)),
        (Algorithm::RS384, VerificationKey::Rsa { n, e }) => right!(RS384PublicKey::from_components(n, e)),
        (Algorithm::RS512, VerificationKey::Rsa { n, e }) => right!(RS512PublicKey::from_components(n, e)),
        (Algorithm::PS256, VerificationKey::Rsa { n, e }) => right!(PS256PublicKey::from_components(n, e)),
        (Algorithm::PS384, VerificationKey::Rsa { n, e }) => right!(PS384PublicKey::from_components(n, e)),
        (Algorithm::PS512, VerificationKey::Rsa { n, e }) => right!(PS512PublicKey::from_components(n, e)),
        (Algorithm::ES256, VerificationKey::P256(point)) => right!(ES256PublicKey::from_bytes(point)),
        (Algorithm::ES384, VerificationKey::P384(point)) => right!(ES384PublicKey::from_bytes(point)),
        (Algorithm::EdDSA, VerificationKey::Ed25519(key)) => right!(Ed25519PublicKey::from_bytes(key)),
        // A key of another family than its algorithm verifies nothing (RFC 8725, section 2.1).
        _ => false,
    }
}

fn ok<K>(key: K) -> Result<K, std::convert::Infallible> {
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jwt_simple::prelude::*;
    use std::sync::Arc;

    fn claims() -> JWTClaims<NoCustomClaims> {
        // Long expired and made in the future: not for the signature's check to judge.
        let mut claims = Claims::create(Duration::from_secs(1)).with_issuer("i").with_audience("a");
        claims.expires_at = Some(UnixTimeStamp::from_secs(10));
        claims.invalid_before = Some(UnixTimeStamp::from_secs(4_000_000_000));
        claims
    }

    fn check(algorithm: Algorithm, key: VerificationKey, token: String) {
        let verify = |token: &str| Verify { algorithm, key: Arc::new(key.clone()), token: token.to_owned() };
        assert!(verify_token(&verify(&token)), "{algorithm:?}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", crate::encoding::base64url(br#"{"sub":"root"}"#));
        assert!(!verify_token(&verify(&forged)), "{algorithm:?}: forged");
        assert!(!verify_token(&verify(signed)), "{algorithm:?}: unsigned");
        assert!(!verify_token(&verify("")));
        let other = Verify { algorithm, key: Arc::new(VerificationKey::Secret(vec![])), token };
        assert!(!verify_token(&other), "{algorithm:?}: no key");
    }

    #[test]
    fn every_algorithm_is_checked() {
        let secret = [7_u8; 64];
        let hs = || VerificationKey::Secret(secret.to_vec());
        check(Algorithm::HS256, hs(), HS256Key::from_bytes(&secret).authenticate(claims()).unwrap());
        check(Algorithm::HS384, hs(), HS384Key::from_bytes(&secret).authenticate(claims()).unwrap());
        check(Algorithm::HS512, hs(), HS512Key::from_bytes(&secret).authenticate(claims()).unwrap());
        let ed = Ed25519KeyPair::generate();
        let key = VerificationKey::Ed25519(ed.public_key().to_bytes());
        check(Algorithm::EdDSA, key, ed.sign(claims()).unwrap());
        let p256 = ES256KeyPair::generate();
        let point = p256.public_key().public_key().to_bytes_uncompressed();
        check(Algorithm::ES256, VerificationKey::P256(point), p256.sign(claims()).unwrap());
        let p384 = ES384KeyPair::generate();
        let point = p384.public_key().public_key().to_bytes_uncompressed();
        check(Algorithm::ES384, VerificationKey::P384(point), p384.sign(claims()).unwrap());
    }

    #[test]
    fn the_type_is_not_judged() {
        let secret = [7_u8; 64];
        for typ in ["application/jwt", "at+jwt", "JWT", "other"] {
            let options = HeaderOptions { signature_type: Some(typ.to_owned()), ..HeaderOptions::default() };
            let token = HS256Key::from_bytes(&secret).authenticate_with_options(claims(), &options).unwrap();
            check(Algorithm::HS256, VerificationKey::Secret(secret.to_vec()), token);
        }
    }

    #[test]
    fn rsa_is_checked() {
        let pem = include_str!("../../tests/stored/rsa-test-key.pem");
        let rsa =
            |components: RSAPublicKeyComponents| VerificationKey::Rsa { n: components.n, e: components.e };
        let key = RS256KeyPair::from_pem(pem).unwrap();
        check(Algorithm::RS256, rsa(key.public_key().to_components()), key.sign(claims()).unwrap());
        let key = RS512KeyPair::from_pem(pem).unwrap();
        check(Algorithm::RS512, rsa(key.public_key().to_components()), key.sign(claims()).unwrap());
        let key = PS256KeyPair::from_pem(pem).unwrap();
        check(Algorithm::PS256, rsa(key.public_key().to_components()), key.sign(claims()).unwrap());
        let key = PS384KeyPair::from_pem(pem).unwrap();
        check(Algorithm::PS384, rsa(key.public_key().to_components()), key.sign(claims()).unwrap());
    }
}
