//! Tokens of the corpus: right ones, and wrong in every way that a case needs.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use meridian_corpus::case::START_MS;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::root;

/// What is special about a token; `tokens.yaml` says what is not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenSpec {
    /// Key that signs: `ed`, `es`, `rs`, `hs`, one named as its algorithm is (`ps384`), or the Ed25519 keys of others.
    key: String,
    /// Header members in place of the usual ones; null leaves one out.
    #[serde(default)]
    header: Map<String, Value>,
    /// Claims in place of the usual ones; null leaves one out.
    #[serde(default)]
    claims: Map<String, Value>,
    /// Claims in seconds after the first request; null leaves one out.
    #[serde(default)]
    times: Map<String, Value>,
    /// `none` or `wrong`.
    #[serde(default)]
    signature: Option<String>,
}

/// Shared secret of the key `hs`.
const SECRET: &[u8; 32] = b"a secret of the corpus, 32 bytes";
/// Shared secret of the other `hs` keys, as long as the longest hash (RFC 7518, section 3.2).
const LONG_SECRET: &[u8; 64] = b"the longer secret of the corpus, as long as SHA-512 makes hashes";

impl TokenSpec {
    pub(super) fn mint(&self, name: &str) -> Result<String> {
        let start = i64::try_from(START_MS / 1000)?;
        let algorithm = match self.key.as_str() {
            "es" => "ES256",
            "rs" => "RS256",
            "hs" => "HS256",
            "es384" => "ES384",
            "rs384" => "RS384",
            "rs512" => "RS512",
            "ps256" => "PS256",
            "ps384" => "PS384",
            "ps512" => "PS512",
            "hs384" => "HS384",
            "hs512" => "HS512",
            _ => "EdDSA",
        };
        let mut header = object(json!({ "alg": algorithm, "kid": self.key, "typ": "JWT" }));
        change(&mut header, &self.header);
        let mut claims = object(json!({
            "iss": "https://issuer.shop.test", "aud": "shop", "sub": name, "iat": start, "exp": start + 3600,
            "scope": "orders:read orders:write",
        }));
        change(&mut claims, &self.claims);
        for (claim, seconds) in &self.times {
            let time = seconds.as_i64().map_or(Value::Null, |seconds| json!(start + seconds));
            change(&mut claims, &object(json!({ claim: time })));
        }
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = match self.signature.as_deref() {
            Some("none") => Vec::new(),
            Some("wrong") => {
                let mut signature = self.sign(signed.as_bytes())?;
                if let Some(byte) = signature.get_mut(20) {
                    *byte ^= 1;
                }
                signature
            }
            _ => self.sign(signed.as_bytes())?,
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self.key.as_str() {
            "hs" => Ok(authenticate(hmac::HMAC_SHA256, SECRET, message)),
            "hs384" => Ok(authenticate(hmac::HMAC_SHA384, LONG_SECRET, message)),
            "hs512" => Ok(authenticate(hmac::HMAC_SHA512, LONG_SECRET, message)),
            "es" => self.sign_by_curve(&ECDSA_P256_SHA256_FIXED_SIGNING, message),
            "es384" => self.sign_by_curve(&ECDSA_P384_SHA384_FIXED_SIGNING, message),
            "rs" => sign_by_rsa(&RSA_PKCS1_SHA256, message),
            "rs384" => sign_by_rsa(&RSA_PKCS1_SHA384, message),
            "rs512" => sign_by_rsa(&RSA_PKCS1_SHA512, message),
            "ps256" => sign_by_rsa(&RSA_PSS_SHA256, message),
            "ps384" => sign_by_rsa(&RSA_PSS_SHA384, message),
            "ps512" => sign_by_rsa(&RSA_PSS_SHA512, message),
            name => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8(name)?)?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
        }
    }

    fn sign_by_curve(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8(&self.key)?, &random)?;
        Ok(pair.sign(&random, message)?.as_ref().to_vec())
    }
}

fn authenticate(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

/// All RSA keys of the corpus are one, which has to say for each token what it is used for.
fn sign_by_rsa(padding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>> {
    let pair = RsaKeyPair::from_pkcs8(&pkcs8("rs")?)?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature)?;
    Ok(signature)
}

/// The private key of that name, in the form of PKCS #8 (RFC 5208).
fn pkcs8(name: &str) -> Result<Vec<u8>> {
    let path = root().join("keys").join(format!("{name}.pem"));
    let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).with_context(|| path.display().to_string())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn change(object: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        match value {
            Value::Null => drop(object.remove(name)),
            _ => drop(object.insert(name.clone(), value.clone())),
        }
    }
}

fn part(object: &Map<String, Value>) -> String {
    URL_SAFE_NO_PAD.encode(Value::Object(object.clone()).to_string())
}
