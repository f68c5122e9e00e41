//! Tokens of the corpus: right ones, and wrong in every way that a case needs.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use meridian_corpus::case::START_MS;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::root;

/// What is special about a token; `tokens.yaml` says what is not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenSpec {
    /// Key that signs: `ed`, `es`, `rs`, `hs`, or the Ed25519 keys of others.
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

impl TokenSpec {
    pub(super) fn mint(&self, name: &str) -> Result<String> {
        let start = i64::try_from(START_MS / 1000)?;
        let algorithm = match self.key.as_str() {
            "es" => "ES256",
            "rs" => "RS256",
            "hs" => "HS256",
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
        let random = SystemRandom::new();
        match self.key.as_str() {
            "hs" => Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()),
            "es" => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8()?, &random)?;
                Ok(pair.sign(&random, message)?.as_ref().to_vec())
            }
            "rs" => {
                let pair = RsaKeyPair::from_pkcs8(&self.pkcs8()?)?;
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            _ => Ok(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8()?)?
                .sign(message)
                .as_ref()
                .to_vec()),
        }
    }

    /// The private key of that name, in the form of PKCS #8 (RFC 5208).
    fn pkcs8(&self) -> Result<Vec<u8>> {
        let path = root().join("keys").join(format!("{}.pem", self.key));
        let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).with_context(|| path.display().to_string())
    }
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
