//! Signatures of tokens: by WebCrypto, which is native code here; the HS algorithms in Wasm, which is cheaper than asking.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use meridian_engine::bounded::Bounded;
use meridian_engine::step::{Algorithm, VerificationKey, Verify};
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsValue;

use crate::host;
use crate::isolate::Isolate;

/// Imported keys, by algorithm and the address of the engine's key. An entry holds that key, so that the address stays
/// its own.
pub type ImportedKeys = Bounded<(Algorithm, usize), (Arc<VerificationKey>, JsValue)>;

/// Whether the token's signature is right. Anything that goes wrong counts as a wrong signature.
pub async fn verify(isolate: &Isolate, ask: &Verify) -> bool {
    let Some((signed, signature)) = ask.token.rsplit_once('.') else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    if let VerificationKey::Secret(secret) = ask.key.as_ref() {
        return verify_secret(ask.algorithm, secret, signed.as_bytes(), &signature);
    }
    let Some(key) = imported(isolate, ask).await else { return false };
    let Ok(answer) = host::verify(name(ask.algorithm), &key, &signature, signed.as_bytes()) else {
        return false;
    };
    host::wait(answer).await.is_ok_and(|right| right == JsValue::TRUE)
}

fn verify_secret(algorithm: Algorithm, secret: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    macro_rules! right {
        ($hash:ty) => {
            Hmac::<$hash>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(signed).verify_slice(signature).is_ok())
        };
    }
    match algorithm {
        Algorithm::HS256 => right!(sha2::Sha256),
        Algorithm::HS384 => right!(sha2::Sha384),
        Algorithm::HS512 => right!(sha2::Sha512),
        _ => false,
    }
}

async fn imported(isolate: &Isolate, ask: &Verify) -> Option<JsValue> {
    let id = (ask.algorithm, Arc::as_ptr(&ask.key) as usize);
    if let Some((_, key)) = isolate.keys.borrow_mut().get(&id) {
        return Some(key.clone());
    }
    let bytes = |bytes: &[u8]| JsValue::from(Uint8Array::from(bytes));
    let material = match ask.key.as_ref() {
        VerificationKey::Secret(_) => return None,
        VerificationKey::Rsa { n, e } => {
            JsValue::from_str(&format!("{}\n{}", URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e)))
        }
        VerificationKey::P256(point) | VerificationKey::P384(point) => bytes(point),
        VerificationKey::Ed25519(key) => bytes(key),
    };
    let importing = host::import_key(name(ask.algorithm), &material).ok()?;
    let key = host::wait(importing).await.ok()?;
    isolate.keys.borrow_mut().insert(id, (Arc::clone(&ask.key), key.clone()));
    Some(key)
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_check_the_algorithm_that_they_are_for() {
        let secret = [7; 64];
        let tag = Hmac::<sha2::Sha384>::new_from_slice(&secret)
            .unwrap()
            .chain_update("a.b")
            .finalize()
            .into_bytes();
        assert!(verify_secret(Algorithm::HS384, &secret, b"a.b", &tag));
        assert!(!verify_secret(Algorithm::HS256, &secret, b"a.b", &tag));
        assert!(!verify_secret(Algorithm::HS384, &secret, b"a.c", &tag));
        assert!(!verify_secret(Algorithm::HS384, &secret, b"a.b", &tag[..16]));
        assert!(!verify_secret(Algorithm::ES256, &secret, b"a.b", &tag));
    }
}
