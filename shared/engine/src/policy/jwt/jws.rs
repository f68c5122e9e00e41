//! The shape of a token: JWS compact serialisation (RFC 7515, section 7.1) with the refusals of RFC 8725 and its revision.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Refusal;
use super::json;
use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN, TOKEN_BYTES_MAX, TOKEN_DEPTH_MAX};
use crate::step::Algorithm;

/// A token whose shape is right. Nothing in it is verified yet.
#[derive(Debug)]
pub(super) struct Parsed {
    /// `alg`: has to be the one that the key is for.
    pub(super) algorithm: Algorithm,
    /// `kid`.
    pub(super) kid: Option<String>,
    /// The payload.
    pub(super) claims: Map<String, Value>,
    /// Length of the signature.
    pub(super) signature_bytes: usize,
}

/// Header parameters that carry a key or say where one is. Keys come from the issuer's rules alone (RFC 8725, section
/// 3.10), so a token that brings its own is refused.
const KEY_PARAMETERS: [&str; 4] = ["jku", "jwk", "x5u", "x5c"];

/// Header parameters that are texts and change nothing (RFC 7515, sections 4.1.7, 4.1.8 and 4.1.10): the thumbprints are mere
/// names of a key, and what is in the payload its claims say.
const TEXT_PARAMETERS: [&str; 3] = ["x5t", "x5t#S256", "cty"];

/// Media types that an access token may call itself (RFC 8725, section 3.11; RFC 9068, section 2.1).
const TYPES: [&str; 4] = ["jwt", "application/jwt", "at+jwt", "application/at+jwt"];

/// Takes a compact token apart.
pub(super) fn parse(token: &str) -> Result<Parsed, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::token(format!("longer than {TOKEN_BYTES_MAX} bytes")));
    }
    let mut segments = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return Err(Refusal::token("not of three segments"));
    };
    let header = object(header, "header")?;
    let algorithm = check_header(&header)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(Refusal::token("`kid` is not a string")),
    };
    let signature = decode(signature, "signature")?;
    check_signature_length(algorithm, signature.len())?;
    let claims = object(payload, "payload")?;
    Ok(Parsed { algorithm, kid, claims, signature_bytes: signature.len() })
}

/// Base64url without padding, stray bits or line breaks (RFC 7515, section 2).
fn decode(segment: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Refusal::token(format!("{name} is not base64url")))
}

fn object(segment: &str, name: &str) -> Result<Map<String, Value>, Refusal> {
    let text = decode(segment, name)?;
    json::object(&text, TOKEN_DEPTH_MAX).map_err(|fault| {
        let why = match fault.classify() {
            serde_json::error::Category::Data => "has a member twice, is nested too deeply or is no object",
            _ => "is not JSON",
        };
        Refusal::token(format!("{name} {why}"))
    })
}

fn check_header(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    if header.contains_key("crit") {
        return Err(Refusal::token("`crit`: no extension is understood (RFC 7515, section 4.1.11)"));
    }
    if header.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
        return Err(Refusal::token("`b64` is not true (RFC 7797, section 7)"));
    }
    if let Some(parameter) = KEY_PARAMETERS.iter().find(|parameter| header.contains_key(**parameter)) {
        return Err(Refusal::token(format!("`{parameter}`: keys come from the issuer's rules alone")));
    }
    if header.contains_key("zip") || header.contains_key("enc") {
        return Err(Refusal::token("`zip` or `enc`: not a signed token"));
    }
    // No registered parameter: some libraries mix it with the secret, others leave it out.
    if header.contains_key("salt") {
        return Err(Refusal::token("`salt`: no algorithm takes one"));
    }
    let is_odd = |name: &&&str| header.get(**name).is_some_and(|value| !value.is_string());
    if let Some(parameter) = TEXT_PARAMETERS.iter().find(is_odd) {
        return Err(Refusal::token(format!("`{parameter}` is not a string")));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)) => {}
        Some(_) => {
            return Err(Refusal::token("`typ` is not that of an access token (RFC 8725, section 3.11)"));
        }
    }
    match header.get("alg") {
        Some(Value::String(alg)) => {
            algorithm(alg).ok_or_else(|| Refusal::token("`alg` is `none` or not one that is supported"))
        }
        _ => Err(Refusal::token("no `alg`")),
    }
}

/// The algorithm of this name (RFC 7518, section 3.1; RFC 8037, section 3.1). Names are case-sensitive.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// Signatures of a fixed length have it; RSA's depends on the key.
fn check_signature_length(algorithm: Algorithm, found: usize) -> Result<(), Refusal> {
    let fits = match algorithm {
        Algorithm::HS256 => found == 32,
        Algorithm::HS384 => found == 48,
        Algorithm::HS512 | Algorithm::ES256 | Algorithm::EdDSA => found == 64,
        Algorithm::ES384 => found == 96,
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => (RSA_BITS_MIN / 8..=RSA_BITS_MAX / 8).contains(&found),
    };
    if fits { Ok(()) } else { Err(Refusal::token(format!("signature of {found} bytes"))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str, signature: &[u8]) -> String {
        let [header, payload, signature] =
            [header.as_bytes(), payload.as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{payload}.{signature}")
    }

    #[test]
    fn headers_are_taken_or_refused_by_the_rule() {
        let check = |rule: &str, header: &str, expect: Option<&str>| {
            let got = parse(&token(header, r#"{"iss":"i"}"#, &[1; 64]))
                .map(|_| ())
                .map_err(|refusal| refusal.reason);
            match expect {
                None => assert_eq!(got, Ok(()), "{rule}: {header}"),
                Some(part) => {
                    assert!(got.as_ref().is_err_and(|why| why.contains(part)), "{rule}: {header}: {got:?}");
                }
            }
        };
        check("RFC 7515 4.1.1", r#"{"alg":"ES256"}"#, None);
        check("RFC 7515 4.1.4", r#"{"alg":"ES256","kid":"k"}"#, None);
        check("RFC 7515 4.1.4", r#"{"alg":"ES256","kid":7}"#, Some("`kid`"));
        check("RFC 7515 4.1.1", r#"{"kid":"k"}"#, Some("no `alg`"));
        check("RFC 7515 4.1.1", r#"{"alg":1}"#, Some("no `alg`"));
        check("RFC 8725 3.1", r#"{"alg":"none"}"#, Some("`none`"));
        check("RFC 8725 3.1", r#"{"alg":"None"}"#, Some("`none`"));
        check("RFC 8725bis 2.11", r#"{"alg":"noNE"}"#, Some("`none`"));
        check("RFC 8725bis 3.13", r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483647}"#, Some("not one"));
        check("RFC 8725bis 3.15", r#"{"alg":"ES256","zip":"DEF"}"#, Some("not a signed"));
        check("RFC 8725 3.1", r#"{"alg":""}"#, Some("`none`"));
        check("RFC 7518 3.1 case", r#"{"alg":"es256"}"#, Some("not one"));
        check("RFC 7518 4 (JWE)", r#"{"alg":"dir","enc":"A128GCM"}"#, Some("not a signed"));
        check("RFC 7515 4.1.11", r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, Some("`crit`"));
        check("RFC 7515 4.1.11", r#"{"alg":"ES256","crit":[]}"#, Some("`crit`"));
        check("RFC 7797 3", r#"{"alg":"ES256","b64":false}"#, Some("`b64`"));
        check("RFC 7797 3", r#"{"alg":"ES256","b64":true}"#, None);
        check("RFC 8725 3.10", r#"{"alg":"ES256","jku":"https://evil.example"}"#, Some("`jku`"));
        check("RFC 8725 3.10", r#"{"alg":"ES256","x5u":"https://evil.example"}"#, Some("`x5u`"));
        check("RFC 8725 3.10", r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#, Some("`jwk`"));
        check("RFC 8725 3.10", r#"{"alg":"ES256","x5c":["MII"]}"#, Some("`x5c`"));
        check("RFC 7515 4.1.7", r#"{"alg":"ES256","x5t":"AA"}"#, None);
        check("RFC 7515 4.1.7", r#"{"alg":"ES256","x5t":7}"#, Some("`x5t`"));
        check("RFC 7515 4.1.8", r#"{"alg":"ES256","x5t#S256":["AA"]}"#, Some("`x5t#S256`"));
        check("RFC 7515 4.1.10", r#"{"alg":"ES256","cty":"json"}"#, None);
        check("RFC 7515 4.1.10", r#"{"alg":"ES256","cty":null}"#, Some("`cty`"));
        check("not registered", r#"{"alg":"ES256","salt":"AA"}"#, Some("`salt`"));
        check("not registered", r#"{"alg":"ES256","salt":7}"#, Some("`salt`"));
        check("RFC 8725 3.11", r#"{"alg":"ES256","typ":"JWT"}"#, None);
        check("RFC 7515 4.1.9", r#"{"alg":"ES256","typ":"application/jwt"}"#, None);
        check("RFC 9068 2.1", r#"{"alg":"ES256","typ":"at+jwt"}"#, None);
        check("RFC 9068 2.1", r#"{"alg":"ES256","typ":"application/AT+JWT"}"#, None);
        check("RFC 8725 3.11", r#"{"alg":"ES256","typ":"dpop+jwt"}"#, Some("`typ`"));
        check("RFC 8725 3.11", r#"{"alg":"ES256","typ":"logout+jwt"}"#, Some("`typ`"));
        check("RFC 8725 3.11", r#"{"alg":"ES256","typ":1}"#, Some("`typ`"));
        check("RFC 7515 4 twice", r#"{"alg":"ES256","alg":"none"}"#, Some("twice"));
        check("RFC 7515 5.2", "{", Some("not JSON"));
        check("RFC 7515 5.2", "[]", Some("no object"));
        check("RFC 7518 3.4 length", r#"{"alg":"ES384"}"#, Some("64 bytes"));
        check("RFC 7518 3.2 length", r#"{"alg":"HS256"}"#, Some("64 bytes"));
        check("RFC 7518 3.3 length", r#"{"alg":"RS256"}"#, Some("64 bytes"));
        check("RFC 8037 3.1", r#"{"alg":"EdDSA"}"#, None);
    }

    /// The same in JSON (RFC 7515, section 7.2.1).
    fn general(token: &str) -> String {
        let parts: Vec<&str> = token.split('.').collect();
        let (protected, payload, signature) = (parts[0], parts[1], parts[2]);
        let signatures = serde_json::json!([{"protected": protected, "signature": signature}]);
        serde_json::json!({"payload": payload, "signatures": signatures}).to_string()
    }

    fn utf_16(header: &str) -> String {
        let bytes: Vec<u8> = header.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let rest = token("{}", r#"{"iss":"i"}"#, &[1; 64]);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(bytes), rest.split_once('.').unwrap().1)
    }

    #[test]
    fn serialisations_are_taken_or_refused_by_the_rule() {
        let good = token(r#"{"alg":"EdDSA"}"#, r#"{"iss":"i"}"#, &[1; 64]);
        assert!(parse(&good).is_ok());
        let signed = good.rsplit_once('.').unwrap().0;
        for (rule, odd) in [
            ("RFC 7515 7.1, two segments", signed.to_owned()),
            ("RFC 7515 7.1, four segments", format!("{good}.")),
            ("RFC 7516 7.1, five segments", format!("{good}.a.b")),
            ("no signature", format!("{signed}.")),
            ("RFC 7515 2, padding", format!("{good}=")),
            ("RFC 7515 2, line break", format!("{good}\n")),
            (
                "RFC 7515 2, other alphabet",
                good.replace('_', "/").replace('-', "+").replacen("AQEB", "AQ+B", 1),
            ),
            ("empty", String::new()),
            ("dots", "..".to_owned()),
            ("RFC 8725bis 3.14, JSON serialisation", general(&good)),
            ("RFC 8725bis 3.14, JSON serialisation with two dots", format!("{{{good}}}")),
            ("RFC 8725bis 3.14, both serialisations", format!("{}.{good}", general(&good))),
            ("RFC 8725 3.7, UTF-16", utf_16(r#"{"alg":"EdDSA"}"#)),
            ("payload no object", token(r#"{"alg":"EdDSA"}"#, "1", &[1; 64])),
            ("payload twice", token(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a","sub":"b"}"#, &[1; 64])),
            (
                "too deep",
                token(
                    r#"{"alg":"EdDSA"}"#,
                    &format!("{{\"a\":{}{}}}", "[".repeat(20), "]".repeat(20)),
                    &[1; 64],
                ),
            ),
            (
                "too long",
                token(r#"{"alg":"EdDSA"}"#, &format!("{{\"a\":\"{}\"}}", "x".repeat(9000)), &[1; 64]),
            ),
        ] {
            assert!(parse(&odd).is_err(), "{rule}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[ -~]{0,200}(\\.[ -~]{0,60}){0,4}") {
            let _ = parse(&text);
        }
    }
}
