//! Tokens of clients: bearer fields, JSON Web Tokens and key sets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use meridian_engine::bounded::Keyed;
use meridian_engine::headers::Headers;
use meridian_engine::policy::jwt::{Identity, JwtMemory, Refusal, Verdict, bearer};
use meridian_engine::ruleset::Ruleset;
use meridian_engine::secret::Secret;
use meridian_engine::step::{Algorithm, VerificationKey, Verify};
use meridian_wire::signature::verify_token;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::edge::{START_MS, rules};
use crate::input::text;

/// Shared secret of the key `hs` in the corpus's rules.
const SECRET: &[u8; 32] = b"a secret of the corpus, 32 bytes";
/// `skew` of the issuer that has it, and what is between `exp` and the end of a token because of it.
const SKEW_S: f64 = 30.0;
/// More answers than a token can need.
const TURNS_MAX: usize = 8;

/// The first line says how it is signed (`sign`, `wrong`, or anything else for a token that is written out), then the token: its
/// header and claims as JSON in a line each, or its text; what is left is a key set.
pub fn jwt(data: &[u8]) {
    let text = text(data);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (how, header, claims, keys) = (line(), line(), line(), line());
    let token = match how {
        "sign" => mint(header, claims, SECRET),
        "wrong" => mint(header, claims, b"another secret"),
        _ => header.to_owned(),
    };
    bearers(&token, how);
    let rules = rules();
    let mut memory = JwtMemory::new(Keyed::new(&[7; 32]), Secret::new(&[7; 32]));
    let (ruleset, now_ms) = (&*rules.shop, START_MS);
    match poll(&mut memory, ruleset, &token, keys) {
        Verdict::Valid(identity) => {
            assert_eq!(how, "sign", "only what was signed by the right key: {token}");
            is_right(header, claims, &identity);
            let other = &rules.rival;
            assert!(
                !matches!(memory.poll(other, &token, false, now_ms), Verdict::Valid(_)),
                "nor for another tenant"
            );
            let ended = identity.expires_ms + 30_000;
            assert!(
                matches!(memory.poll(ruleset, &token, false, ended), Verdict::Refused(_)),
                "nor for ever"
            );
        }
        Verdict::Refused(refusal) => is_discreet(&refusal, &token),
        more => panic!("no end: {more:?}"),
    }
}

/// A compact token over two JSON texts, signed by HMAC-SHA256 whatever its header says.
pub(crate) fn mint(header: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac(signed.as_bytes(), secret)))
}

pub(crate) fn mint_right(header: &str, claims: &str) -> String {
    mint(header, claims, SECRET)
}

fn mac(message: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn bearers(token: &str, scheme: &str) {
    let headers = Headers::from_iter([("authorization", format!("Bearer {token}"))]);
    if let Ok(found) = bearer(&headers) {
        assert_eq!(found, Some(token.trim_matches([' ', '\t'])), "the token and nothing else");
    }
    let headers = Headers::from_iter([("authorization", scheme)]);
    if let Ok(Some(found)) = bearer(&headers) {
        assert!(!found.is_empty() && !found.contains([' ', ',', '"', '\t']), "{found:?}");
    }
}

fn poll(memory: &mut JwtMemory, ruleset: &Ruleset, token: &str, keys: &str) -> Verdict {
    let mut verdict = memory.poll(ruleset, token, false, START_MS);
    for _ in 0..TURNS_MAX {
        verdict = match verdict {
            Verdict::NeedKeys(asked) => {
                memory.keys_fetched(&asked, Ok(keys.as_bytes().to_vec()), START_MS);
                memory.poll(ruleset, token, false, START_MS)
            }
            Verdict::NeedSignature(verify, pending) => {
                fits(&verify);
                memory.verified(*pending, check(&verify), START_MS)
            }
            done => return done,
        };
    }
    verdict
}

/// The algorithm is one of the key's kind: a public key is never a shared secret (RFC 8725, section 3.1).
fn fits(verify: &Verify) {
    use Algorithm as A;
    use VerificationKey as K;
    let fits = match (&*verify.key, verify.algorithm) {
        (K::Secret(_), algorithm) => matches!(algorithm, A::HS256 | A::HS384 | A::HS512),
        (K::P256(_), algorithm) => algorithm == A::ES256,
        (K::P384(_), algorithm) => algorithm == A::ES384,
        (K::Ed25519(_), algorithm) => algorithm == A::EdDSA,
        (K::Rsa { .. }, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512) => true,
        (K::Rsa { .. }, _) => false,
    };
    assert!(fits, "{verify:?}");
}

/// The library's word on the signature. Where it is HMAC-SHA256, another computation says the same.
pub(crate) fn check(verify: &Verify) -> bool {
    let right = verify_token(verify);
    if let (Algorithm::HS256, VerificationKey::Secret(secret)) = (verify.algorithm, &*verify.key)
        && right
    {
        let (signed, signature) = verify.token.rsplit_once('.').expect("a compact token has dots");
        assert_eq!(URL_SAFE_NO_PAD.decode(signature).ok(), Some(mac(signed.as_bytes(), secret)));
    }
    right
}

/// What a token has to say to be right, read once more by other means.
fn is_right(header: &str, claims: &str, identity: &Identity) {
    let header: Map<String, Value> = serde_json::from_str(header).expect("its header is a JSON object");
    let claims: Map<String, Value> = serde_json::from_str(claims).expect("its claims are a JSON object");
    assert_eq!(header.get("alg"), Some(&Value::from("HS256")));
    assert!(
        ["crit", "jku", "jwk", "x5u", "x5c", "zip", "enc", "salt"]
            .iter()
            .all(|name| !header.contains_key(*name))
    );
    assert_eq!(claims.get("iss"), Some(&Value::from("https://issuer.shop.test")));
    let is_ours = |audience: &Value| matches!(audience.as_str(), Some("shop" | "shop-mobile"));
    let audience = claims.get("aud").expect("it has an audience");
    assert!(is_ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_ours)));
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    let now = START_MS as f64 / 1_000.0;
    assert!(time("exp").is_some_and(|exp| exp + SKEW_S > now), "not expired");
    assert!(time("nbf").is_none_or(|nbf| nbf <= now + SKEW_S + 1.0), "not for later");
    assert_eq!(identity.subject.as_deref(), claims.get("sub").and_then(Value::as_str));
    let revoked = claims.get("jti") == Some(&Value::from("stolen"))
        || claims.get("sub") == Some(&Value::from("mallory"));
    assert!(!revoked, "not revoked");
}

/// A refusal tells the client nothing of the token, in a field that is one.
fn is_discreet(refusal: &Refusal, token: &str) {
    let challenge = refusal.challenge("shop").unwrap_or_default();
    assert!(challenge.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{challenge:?}");
    // What has other letters is no part of a token, and may well be a part of what is said.
    let is_part = |part: &&str| {
        part.len() > 20 && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    for part in token.split('.').filter(is_part) {
        assert!(
            !challenge.contains(part) && !refusal.reason.contains(part),
            "{refusal:?} tells of the token"
        );
    }
}
