//! Tokens of described identities: right in shape and claims, with a signature that only a trial believes.

use meridian_engine::ruleset::{Issuer, Ruleset};
use meridian_engine::step::Algorithm;
use serde_json::{Map, Value, json};

use super::IdentitySpec;
use super::run::NOW_MS;
use crate::encoding::base64url;

/// Id of the key in a made-up key set.
const KID: &str = "trial";

/// A token, or the field of the identity that is wrong with what was found and expected.
pub(super) fn token(
    ruleset: &Ruleset,
    identity: &IdentitySpec,
) -> Result<String, (&'static str, String, String)> {
    let issuer = issuer(ruleset, identity)?;
    let (algorithm, kid) = match issuer.keys.first() {
        Some(key) => (key.algorithm, key.kid.clone()),
        None => (issuer.algorithms.first().copied().unwrap_or(Algorithm::EdDSA), Some(KID.to_owned())),
    };
    let mut header = Map::new();
    header.insert("alg".to_owned(), json!(name(algorithm)));
    header.insert("typ".to_owned(), json!("JWT"));
    if let Some(kid) = kid {
        header.insert("kid".to_owned(), json!(kid));
    }
    let now = NOW_MS / 1_000;
    let life = if issuer.life_ms_max == 0 { 600 } else { (issuer.life_ms_max / 1_000).min(600) };
    let (iat, exp) = if identity.expired { (now - 86_400 - life, now - 86_400) } else { (now, now + life) };
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), json!(issuer.iss));
    claims.insert("sub".to_owned(), json!(identity.subject));
    if let Some(audience) = issuer.audiences.first() {
        claims.insert("aud".to_owned(), json!(audience));
    }
    claims.insert("iat".to_owned(), json!(iat));
    claims.insert("exp".to_owned(), json!(exp));
    claims.insert(issuer.scope_claim.clone(), json!(identity.scopes.join(" ")));
    claims.extend(identity.claims.iter().map(|(name, value)| (name.clone(), value.clone())));
    let part = |members: Map<String, Value>| base64url(Value::Object(members).to_string().as_bytes());
    Ok(format!("{}.{}.{}", part(header), part(claims), base64url(&[0; 64])))
}

/// A key set in which the made-up key is, for an issuer whose keys are fetched.
pub(super) fn key_set(ruleset: &Ruleset, name: &str) -> Vec<u8> {
    let issuer = ruleset.issuers.iter().find(|issuer| *issuer.rule.name == *name);
    let algorithm = issuer.and_then(|issuer| issuer.algorithms.first().copied()).unwrap_or(Algorithm::EdDSA);
    let mut key = match algorithm {
        Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&[1; 32]) }),
        Algorithm::ES256 => {
            json!({ "kty": "EC", "crv": "P-256", "x": base64url(&[1; 32]), "y": base64url(&[1; 32]) })
        }
        Algorithm::ES384 => {
            json!({ "kty": "EC", "crv": "P-384", "x": base64url(&[1; 48]), "y": base64url(&[1; 48]) })
        }
        _ => json!({ "kty": "RSA", "n": base64url(&[255; 256]), "e": "AQAB" }),
    };
    if let Some(members) = key.as_object_mut() {
        members.insert("kid".to_owned(), json!(KID));
        members.insert("alg".to_owned(), json!(self::name(algorithm)));
        members.insert("use".to_owned(), json!("sig"));
    }
    json!({ "keys": [key] }).to_string().into_bytes()
}

fn issuer<'a>(
    ruleset: &'a Ruleset,
    identity: &IdentitySpec,
) -> Result<&'a Issuer, (&'static str, String, String)> {
    let path = "identity.issuer";
    match (&identity.issuer, ruleset.issuers.as_slice()) {
        (Some(name), issuers) => issuers
            .iter()
            .find(|issuer| *issuer.rule.name == **name)
            .ok_or_else(|| (path, name.clone(), "the name of an Issuer document".to_owned())),
        (None, [only]) => Ok(only),
        (None, issuers) => {
            let found = format!("nothing, with {} Issuer documents", issuers.len());
            Err((path, found, "the name of an Issuer document".to_owned()))
        }
    }
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
