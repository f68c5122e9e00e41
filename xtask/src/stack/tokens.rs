//! Tokens of the demo tenants' end users, signed with the development keys (JWT, RFC 7519; EdDSA, RFC 8037).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

use super::keys::{Keys, SigningKey};

/// Demo tokens outlive a working day, so that a started stack stays usable.
const LIFETIME_S: i64 = 7 * 24 * 3600;

/// An issuer of demo tokens.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// The tenant's slug.
    pub tenant: &'static str,
    /// Its key.
    pub key: &'a SigningKey,
}

impl<'a> Issuer<'a> {
    /// The issuer of `acme`.
    pub fn acme(keys: &'a Keys) -> Self {
        Self { tenant: "acme", key: &keys.issuer_acme }
    }

    /// The issuer of `globex`.
    pub fn globex(keys: &'a Keys) -> Self {
        Self { tenant: "globex", key: &keys.issuer_globex }
    }

    /// A token that is valid from now for a week.
    pub fn token(&self, subject: &str, scope: &str) -> String {
        let now = now_s();
        self.sign(subject, scope, now, now + LIFETIME_S)
    }

    /// A token that was valid yesterday.
    pub fn expired(&self, subject: &str, scope: &str) -> String {
        let now = now_s();
        self.sign(subject, scope, now - 2 * 24 * 3600, now - 24 * 3600)
    }

    fn sign(&self, subject: &str, scope: &str, issued_s: i64, expires_s: i64) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.key.kid});
        let claims = json!({
            "iss": format!("https://issuer.{}.example", self.tenant),
            "aud": format!("https://api.{}.example", self.tenant),
            "sub": subject,
            "scope": scope,
            "iat": issued_s,
            "exp": expires_s,
        });
        let encode = |value: &Value| BASE64URL.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{signature}")
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_with_the_public_key() {
        let folder = std::env::temp_dir().join(format!("meridian-tokens-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let keys = Keys::load(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let token = Issuer::acme(&keys).token("reader-1", "orders:read");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key =
            ed25519_compact::PublicKey::from_slice(&BASE64URL.decode(keys.issuer_acme.public_x()).unwrap())
                .unwrap();
        let signature =
            ed25519_compact::Signature::from_slice(&BASE64URL.decode(signature).unwrap()).unwrap();
        key.verify(signed, &signature).unwrap();
        let claims: Value =
            serde_json::from_slice(&BASE64URL.decode(signed.split_once('.').unwrap().1).unwrap()).unwrap();
        assert_eq!(claims["iss"], "https://issuer.acme.example");
        assert!(claims["exp"].as_i64().unwrap() > now_s());
    }
}
