//! What a token says, held against what the issuer's rules want (RFC 7519, section 4.1; RFC 8725, sections 3.8 and 3.9).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Identity, Refusal};
use crate::ruleset::{Issuer, Revoked};

/// The last second that a date of a token may name: the end of the year 9999.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// The rules' issuer whose `iss` is exactly that of the claims.
pub(super) fn issuer<'a>(issuers: &'a [Issuer], claims: &Map<String, Value>) -> Result<&'a Issuer, Refusal> {
    let Some(Value::String(iss)) = claims.get("iss") else {
        return Err(Refusal::token("no `iss`"));
    };
    issuers
        .iter()
        .find(|issuer| issuer.iss == *iss)
        .ok_or_else(|| Refusal::token("`iss` is not one of the tenant's"))
}

/// Checks all claims; `Ok` holds the identity that they give, once the signature is found right too.
pub(super) fn check(issuer: &Issuer, claims: Map<String, Value>, now_ms: u64) -> Result<Identity, Refusal> {
    check_audience(issuer, &claims)?;
    let expires_ms = check_times(issuer, &claims, now_ms)?;
    let subject: Option<Arc<str>> = match claims.get("sub") {
        None => None,
        Some(Value::String(sub)) if !sub.is_empty() => Some(sub.as_str().into()),
        Some(_) => return Err(Refusal::token("`sub` is not a string or empty")),
    };
    // RFC 7519, section 4.1.7; OpenID Connect Core 1.0, section 2. A `jti` of another type is on no list of revoked ones.
    for name in ["jti", "nonce"] {
        if !matches!(claims.get(name), None | Some(Value::Null | Value::String(_))) {
            return Err(Refusal::token(format!("`{name}` is not a string")));
        }
    }
    for name in &issuer.required_claims {
        if matches!(claims.get(name), None | Some(Value::Null)) {
            return Err(Refusal::token(format!("`{name}` is required and not there")));
        }
    }
    check_revoked(issuer, &claims, subject.as_deref())?;
    let scopes = scopes(claims.get(&issuer.scope_claim)).ok_or_else(|| {
        Refusal::token(format!("`{}` is neither a string nor a list of strings", issuer.scope_claim))
    })?;
    let mut attributes: Vec<_> = issuer
        .attributes
        .iter()
        .filter_map(|(claim, attribute)| Some((attribute.clone(), claims.get(claim)?.to_string())))
        .collect();
    attributes.sort();
    Ok(Identity {
        issuer: issuer.rule.name.clone(),
        iss: issuer.iss.clone(),
        subject,
        subject_hash: None,
        scopes,
        claims: claims.into_iter().collect(),
        attributes,
        expires_ms,
    })
}

/// Whether the issuer's rules say that the token no longer counts.
fn check_revoked(issuer: &Issuer, claims: &Map<String, Value>, subject: Option<&str>) -> Result<(), Refusal> {
    let Revoked { tokens, subjects, before_ms } = &issuer.revoked;
    let jti = claims.get("jti").and_then(Value::as_str);
    if jti.is_some_and(|jti| tokens.contains(jti)) {
        return Err(Refusal::token("revoked (`jti`)"));
    }
    let before_ms =
        subject.and_then(|subject| subjects.get(subject)).max(Some(before_ms)).copied().unwrap_or(0);
    // A token that does not say when it was issued may have been before.
    let issued_ms = date(claims, "iat")?.unwrap_or(0);
    if issued_ms < before_ms {
        return Err(Refusal::token("revoked (`iat`)"));
    }
    Ok(())
}

/// RFC 7519, section 4.1.3: a string or a list of strings, one of which has to be ours.
fn check_audience(issuer: &Issuer, claims: &Map<String, Value>) -> Result<(), Refusal> {
    let ours = |audience: &str| issuer.audiences.iter().any(|wanted| wanted == audience);
    let (found, fits) = match claims.get("aud") {
        None => (false, false),
        Some(Value::String(audience)) => (true, ours(audience)),
        Some(Value::Array(list)) => {
            if !list.iter().all(Value::is_string) {
                return Err(Refusal::token("`aud` is not a string or a list of strings"));
            }
            (true, list.iter().filter_map(Value::as_str).any(ours))
        }
        Some(_) => return Err(Refusal::token("`aud` is not a string or a list of strings")),
    };
    match (issuer.audiences.is_empty() || fits, found) {
        (true, _) => Ok(()),
        (false, true) => Err(Refusal::token("`aud` is for somebody else")),
        (false, false) => Err(Refusal::token("no `aud`")),
    }
}

/// RFC 7519, sections 4.1.4 to 4.1.6: `exp` is required, `nbf` and `iat` count where they are there.
fn check_times(issuer: &Issuer, claims: &Map<String, Value>, now_ms: u64) -> Result<u64, Refusal> {
    let expires_ms = date(claims, "exp")?.ok_or_else(|| Refusal::token("no `exp`"))?;
    if now_ms >= expires_ms.saturating_add(issuer.skew_ms) {
        return Err(Refusal::token("expired"));
    }
    let latest = now_ms.saturating_add(issuer.skew_ms);
    if date(claims, "nbf")?.is_some_and(|not_before_ms| not_before_ms > latest) {
        return Err(Refusal::token("not valid yet (`nbf`)"));
    }
    let issued_ms = date(claims, "iat")?;
    if issued_ms.is_some_and(|issued_ms| issued_ms > latest) {
        return Err(Refusal::token("issued in the future (`iat`)"));
    }
    if issuer.life_ms_max > 0 {
        let issued_ms =
            issued_ms.ok_or_else(|| Refusal::token("no `iat`, and the life of tokens is limited"))?;
        if expires_ms.saturating_sub(issued_ms) > issuer.life_ms_max {
            return Err(Refusal::token("lives longer than allowed"));
        }
    }
    Ok(expires_ms)
}

/// A NumericDate (RFC 7519, section 2) in milliseconds; seconds may have a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Some((seconds * 1000.0) as u64)),
        _ => Err(Refusal::token(format!("`{name}` is not a date"))),
    }
}

/// Scopes as RFC 8693, section 4.2 (one string, separated by spaces) or as a list of strings. `None`: neither.
fn scopes(claim: Option<&Value>) -> Option<Vec<String>> {
    match claim {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(scopes)) => {
            Some(scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
        Some(Value::Array(scopes)) => scopes.iter().map(|scope| scope.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{NOW_MS, issuer as rules};
    use super::*;

    const NOW_S: u64 = NOW_MS / 1000;

    fn outcome(rules: &Issuer, claims: Value) -> Result<Identity, String> {
        let Value::Object(claims) = claims else { panic!("an object") };
        let found = issuer(std::slice::from_ref(rules), &claims).map_err(|refusal| refusal.reason)?;
        check(found, claims, NOW_MS).map_err(|refusal| refusal.reason)
    }

    /// Claims that pass, with `changes` made (`null` removes).
    fn claims(changes: Value) -> Value {
        let mut claims =
            json!({"iss": "https://issuer.example", "aud": "api", "exp": NOW_S + 60, "sub": "u-1"});
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    #[test]
    fn what_is_revoked_no_longer_counts() {
        let mut rules = rules();
        rules.revoked = Revoked {
            tokens: ["t-1".to_owned()].into(),
            subjects: [("u-2".to_owned(), NOW_MS - 10_000), ("u-3".to_owned(), u64::MAX)].into(),
            before_ms: NOW_MS - 60_000,
        };
        let check = |changes: Value, right: bool| {
            let got = outcome(&rules, claims(changes.clone())).map(|_| ());
            assert_eq!(got.is_ok(), right, "{changes}: {got:?}");
        };
        check(json!({"iat": NOW_S - 60}), true);
        check(json!({"iat": NOW_S - 61}), false);
        check(json!({}), false);
        check(json!({"iat": NOW_S, "jti": "t-1"}), false);
        check(json!({"iat": NOW_S, "jti": "t-2"}), true);
        check(json!({"iat": NOW_S - 11, "sub": "u-2"}), false);
        check(json!({"iat": NOW_S - 10, "sub": "u-2"}), true);
        check(json!({"iat": NOW_S, "sub": "u-3"}), false);
    }

    #[test]
    fn claims_are_taken_or_refused_by_the_rule() {
        let mut rules = rules();
        rules.skew_ms = 5_000;
        let check = |rule: &str, changes: Value, expect: Option<&str>| {
            let got = outcome(&rules, claims(changes.clone())).map(|_| ());
            match expect {
                None => assert_eq!(got, Ok(()), "{rule}: {changes}"),
                Some(part) => {
                    assert!(got.as_ref().is_err_and(|why| why.contains(part)), "{rule}: {changes}: {got:?}");
                }
            }
        };
        check("RFC 7519 4.1", json!({}), None);
        check("RFC 7519 4.1.1", json!({"iss": null}), Some("no `iss`"));
        check("RFC 8725 3.8", json!({"iss": "https://issuer.example/"}), Some("`iss` is not one"));
        check("RFC 8725 3.8", json!({"iss": ["https://issuer.example"]}), Some("no `iss`"));
        check("RFC 8725 3.9", json!({"aud": null}), Some("no `aud`"));
        check("RFC 7519 4.1.3", json!({"aud": "web"}), Some("somebody else"));
        check("RFC 7519 4.1.3", json!({"aud": ["web", "api"]}), None);
        check("RFC 7519 4.1.3", json!({"aud": ["web"]}), Some("somebody else"));
        check("RFC 7519 4.1.3", json!({"aud": ["api", 7]}), Some("list of strings"));
        check("RFC 7519 4.1.3", json!({"aud": {"a": 1}}), Some("list of strings"));
        check("RFC 7519 4.1.3 case", json!({"aud": "API"}), Some("somebody else"));
        check("RFC 7519 4.1.4", json!({"exp": null}), Some("no `exp`"));
        check("RFC 7519 4.1.4", json!({"exp": NOW_S - 4}), None);
        check("RFC 7519 4.1.4, on or after", json!({"exp": NOW_S - 5}), Some("expired"));
        check("RFC 7519 2, fraction", json!({"exp": (NOW_S - 5) as f64 + 0.5}), None);
        check("RFC 7519 2", json!({"exp": "never"}), Some("`exp` is not a date"));
        check("RFC 7519 2", json!({"exp": -1}), Some("`exp` is not a date"));
        check("RFC 7519 2", json!({"exp": 1e300}), Some("`exp` is not a date"));
        check("RFC 7519 4.1.5", json!({"nbf": NOW_S + 5}), None);
        check("RFC 7519 4.1.5", json!({"nbf": NOW_S + 6}), Some("`nbf`"));
        check("RFC 7519 4.1.5", json!({"nbf": true}), Some("`nbf` is not a date"));
        check("RFC 7519 4.1.6", json!({"iat": NOW_S + 5}), None);
        check("RFC 7519 4.1.6", json!({"iat": NOW_S + 6}), Some("`iat`"));
        check("RFC 7519 4.1.2", json!({"sub": null}), None);
        check("RFC 7519 4.1.2", json!({"sub": ""}), Some("`sub`"));
        check("RFC 7519 4.1.2", json!({"sub": 7}), Some("`sub`"));
        check("RFC 7519 4.1.7", json!({"jti": "a"}), None);
        check("RFC 7519 4.1.7", json!({"jti": 7}), Some("`jti`"));
        check("OIDC Core 2", json!({"nonce": "a"}), None);
        check("OIDC Core 2", json!({"nonce": ["a"]}), Some("`nonce`"));
        check("RFC 8693 4.2", json!({"scope": {"a": 1}}), Some("`scope`"));
        check("RFC 8693 4.2", json!({"scope": ["a", 1]}), Some("`scope`"));
    }

    #[test]
    fn the_life_of_tokens_can_be_limited() {
        let mut rules = rules();
        rules.life_ms_max = 60_000;
        let check =
            |changes: Value, expect: bool| assert_eq!(outcome(&rules, claims(changes)).is_ok(), expect);
        check(json!({"iat": NOW_S}), true);
        check(json!({"iat": NOW_S - 1}), false);
        check(json!({}), false);
    }

    #[test]
    fn required_claims_must_be_there_and_mapped_ones_go_to_the_origin() {
        let mut rules = rules();
        rules.required_claims = vec!["plan".to_owned()];
        rules.attributes =
            [("plan", "tier"), ("org", "company")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert!(outcome(&rules, claims(json!({}))).unwrap_err().contains("`plan` is required"));
        let mut nothing = claims(json!({}));
        nothing["plan"] = Value::Null;
        assert!(outcome(&rules, nothing).unwrap_err().contains("`plan` is required"));
        let identity = outcome(&rules, claims(json!({"plan": "gold", "org": {"id": 7}}))).unwrap();
        let expect =
            [("company", r#"{"id":7}"#), ("tier", r#""gold""#)].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(identity.attributes, expect);
    }

    #[test]
    fn scopes_are_a_string_or_a_list() {
        let check = |scope: Value, expect: &[&str]| {
            assert_eq!(outcome(&rules(), claims(json!({"scope": scope}))).unwrap().scopes, expect);
        };
        check(json!("orders:read orders:write"), &["orders:read", "orders:write"]);
        check(json!(["orders:read", "b"]), &["orders:read", "b"]);
        check(json!(" a  b "), &["a", "b"]);
        check(json!(""), &[]);
    }

    #[test]
    fn any_audience_will_do_only_where_the_rules_name_none() {
        let mut rules = rules();
        rules.audiences.clear();
        assert!(outcome(&rules, claims(json!({"aud": "web"}))).is_ok());
        assert!(outcome(&rules, claims(json!({"aud": null}))).is_ok());
        assert!(outcome(&rules, claims(json!({"aud": 7}))).is_err());
    }
}
