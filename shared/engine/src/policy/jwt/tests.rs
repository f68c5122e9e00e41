//! The whole way of a token, with the host's part (fetching, checking signatures) played by the test.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::limits::{KEY_FETCH_JOINED_MAX, KEY_FETCH_LOST_MS, KEY_FETCH_RETRY_MS};
use crate::ruleset::{IssuerKey, RuleRef};
use crate::step::{Algorithm, FetchFault};

mod shared;

pub(super) const NOW_MS: u64 = 1_800_000_000_000;
const REFRESH_MS: u64 = 600_000;
const STALE_MS: u64 = 3_600_000;
const INTERVAL_MS: u64 = 30_000;

/// An issuer with one Ed25519 key `k1` in its document.
pub(super) fn issuer() -> Issuer {
    Issuer {
        rule: RuleRef { kind: "Issuer", name: "main".into(), file: "issuer.yaml".into(), line: 1 },
        iss: "https://issuer.example".to_owned(),
        audiences: vec!["api".to_owned()],
        algorithms: vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
        keys: vec![inline("k1", Algorithm::EdDSA, VerificationKey::Ed25519(vec![1; 32]))],
        jwks: None,
        skew_ms: 0,
        life_ms_max: 0,
        required_claims: Vec::new(),
        scope_claim: "scope".to_owned(),
        attributes: BTreeMap::new(),
        revoked: Default::default(),
    }
}

fn inline(kid: &str, algorithm: Algorithm, key: VerificationKey) -> IssuerKey {
    IssuerKey { kid: (!kid.is_empty()).then(|| kid.to_owned()), algorithm, key: Arc::new(key) }
}

fn with_url() -> Issuer {
    let jwks = Jwks {
        url: "https://issuer.example/jwks".to_owned(),
        discovery: false,
        refresh_ms: REFRESH_MS,
        stale_ms: STALE_MS,
        refetch_interval_ms: INTERVAL_MS,
    };
    Issuer { keys: Vec::new(), jwks: Some(jwks), ..issuer() }
}

fn ruleset(issuers: Vec<Issuer>) -> Ruleset {
    Ruleset { issuers, ..crate::fixtures::ruleset(Vec::new()) }
}

fn token(header: Value, claims: Value, signature: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "api", "sub": "u-1", "scope": "a b", "exp": NOW_MS / 1000 + 60})
}

fn good(kid: &str) -> String {
    token(json!({"alg": "EdDSA", "kid": kid}), claims(), &[9; 64])
}

fn key_set(kids: &[&str]) -> Vec<u8> {
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| {
            let x = URL_SAFE_NO_PAD.encode(Sha256::digest(kid));
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig", "key_ops": ["verify"]})
        })
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

/// What `main` of `acme` has had asked for.
fn ask_for(url: &str) -> FetchKeys {
    FetchKeys {
        tenant: "acme".to_owned(),
        issuer: "main".to_owned(),
        url: url.to_owned(),
        metadata_of: None,
        timeout_ms: KEY_FETCH_TIMEOUT_MS,
        known_ms: 0,
        stale_ms: STALE_MS,
    }
}

fn memory() -> JwtMemory {
    JwtMemory::new(Keyed::default(), Secret::new(&[7; 32]))
}

/// Polls, with every signature right, and every key set asked for answered by `set`. Also how often one was.
fn drive(
    memory: &mut JwtMemory,
    rules: &Ruleset,
    token: &str,
    set: Option<&[u8]>,
    now_ms: u64,
) -> (String, u32) {
    let mut fetched = 0;
    loop {
        let verdict = match memory.poll(rules, token, false, now_ms) {
            Verdict::NeedSignature(_, pending) => memory.verified(*pending, true, now_ms),
            other => other,
        };
        match verdict {
            Verdict::Valid(_) => return ("valid".to_owned(), fetched),
            Verdict::Refused(refusal) => return (refusal.reason, fetched),
            Verdict::NeedKeys(ask) => {
                fetched += 1;
                let answer = set.map(<[u8]>::to_vec).ok_or(FetchFault::Unreachable);
                memory.keys_fetched(&ask, answer, now_ms);
            }
            Verdict::NeedSignature(..) | Verdict::Wait => panic!("one exchange at a time"),
        }
    }
}

#[test]
fn a_token_is_taken_from_the_header_alone() {
    let check = |fields: &[&str], expect: Result<Option<&str>, TokenError>| {
        let headers = fields.iter().map(|field| ("Authorization", *field)).collect::<Headers>();
        assert_eq!(bearer(&headers).map_err(|refusal| refusal.error), expect, "{fields:?}");
    };
    check(&[], Ok(None));
    check(&["Bearer abc.d-e_f~+/=="], Ok(Some("abc.d-e_f~+/==")));
    check(&["bEARER   abc"], Ok(Some("abc")));
    check(&["Basic dTpw"], Ok(None));
    check(&["Bearer"], Err(TokenError::InvalidRequest));
    check(&["Bearer "], Err(TokenError::InvalidRequest));
    check(&["Bearer a b"], Err(TokenError::InvalidRequest));
    check(&["Bearer a,b"], Err(TokenError::InvalidRequest));
    check(&["Bearer a=b"], Err(TokenError::InvalidRequest));
    check(&["Bearer a", "Bearer a"], Err(TokenError::InvalidRequest));
    check(&["Bearer a", "Basic dTpw"], Err(TokenError::InvalidRequest));
}

#[test]
fn challenges_say_what_rfc_6750_lets_them_say() {
    let check = |refusal: Refusal, status, challenge: Option<&str>| {
        assert_eq!((refusal.status(), refusal.challenge("ac\"me").as_deref()), (status, challenge));
    };
    check(Refusal::missing(), 401, Some("Bearer realm=\"acme\""));
    check(Refusal::token("secret"), 401, Some("Bearer realm=\"acme\", error=\"invalid_token\""));
    check(
        Refusal::new(TokenError::InvalidRequest, "x"),
        400,
        Some("Bearer realm=\"acme\", error=\"invalid_request\""),
    );
    check(Refusal::new(TokenError::KeysUnavailable, "x"), 503, None);
    let identity = Identity { scopes: vec!["a".to_owned()], ..Identity::default() };
    assert_eq!(require_scopes(&identity, &["a".to_owned()]), Ok(()));
    let refusal = require_scopes(&identity, &["a".to_owned(), "b".to_owned()]).unwrap_err();
    check(refusal, 403, Some("Bearer realm=\"acme\", error=\"insufficient_scope\", scope=\"a b\""));
}

#[test]
fn a_right_token_is_remembered_until_it_expires() {
    let (mut memory, rules) = (memory(), ruleset(vec![issuer()]));
    let token = good("k1");
    let Verdict::NeedSignature(verify, pending) = memory.poll(&rules, &token, false, NOW_MS) else {
        panic!()
    };
    assert_eq!((verify.algorithm, verify.token.as_str()), (Algorithm::EdDSA, token.as_str()));
    let Verdict::Valid(identity) = memory.verified(*pending, true, NOW_MS) else { panic!() };
    assert_eq!((&*identity.issuer, identity.subject.as_deref()), ("main", Some("u-1")));
    assert_eq!(identity.scopes, ["a", "b"]);
    assert!(matches!(memory.poll(&rules, &token, false, NOW_MS + 59_999), Verdict::Valid(_)));
    assert!(
        matches!(memory.poll(&rules, &token, false, NOW_MS + 60_000), Verdict::Refused(why) if why.reason == "expired")
    );
}

#[test]
fn a_wrong_signature_is_refused_and_not_remembered() {
    let (mut memory, rules) = (memory(), ruleset(vec![issuer()]));
    for _ in 0..2 {
        let Verdict::NeedSignature(_, pending) = memory.poll(&rules, &good("k1"), false, NOW_MS) else {
            panic!()
        };
        let Verdict::Refused(refusal) = memory.verified(*pending, false, NOW_MS) else { panic!() };
        assert_eq!(refusal.error, TokenError::InvalidToken);
    }
}

#[test]
fn other_tenants_and_other_versions_of_the_rules_remember_nothing() {
    let (mut memory, rules) = (memory(), ruleset(vec![issuer()]));
    assert_eq!(drive(&mut memory, &rules, &good("k1"), None, NOW_MS).0, "valid");
    let mut other = rules.clone();
    other.tenant.slug = "globex".to_owned();
    assert!(matches!(memory.poll(&other, &good("k1"), false, NOW_MS), Verdict::NeedSignature(..)));
    let mut newer = rules.clone();
    newer.version.sequence = 2;
    assert!(matches!(memory.poll(&newer, &good("k1"), false, NOW_MS), Verdict::NeedSignature(..)));
    let mut gone = rules;
    gone.version.hash = "bbbb".to_owned();
    gone.issuers.clear();
    assert!(matches!(memory.poll(&gone, &good("k1"), false, NOW_MS), Verdict::Refused(_)));
}

#[test]
fn the_algorithm_is_the_keys() {
    let rsa = VerificationKey::Rsa { n: vec![255; 256], e: vec![1, 0, 1] };
    let mut issuer = issuer();
    issuer.algorithms = vec![Algorithm::EdDSA, Algorithm::RS256, Algorithm::HS256];
    issuer.keys.push(inline("rsa", Algorithm::RS256, rsa.clone()));
    issuer.keys.push(inline("secret", Algorithm::HS256, VerificationKey::Secret(vec![3; 32])));
    issuer.keys.push(inline("short", Algorithm::HS256, VerificationKey::Secret(vec![3; 31])));
    issuer.keys.push(inline("confused", Algorithm::HS256, rsa));
    issuer.keys.push(inline("forbidden", Algorithm::ES384, VerificationKey::P384(vec![4; 97])));
    let rules = ruleset(vec![issuer]);
    let check = |rule: &str, algorithm: &str, kid: &str, signature_bytes: usize, asks: bool| {
        let token = token(json!({"alg": algorithm, "kid": kid}), claims(), &vec![1; signature_bytes]);
        let verdict = memory().poll(&rules, &token, false, NOW_MS);
        assert_eq!(matches!(verdict, Verdict::NeedSignature(..)), asks, "{rule}: {verdict:?}");
    };
    check("its own", "RS256", "rsa", 256, true);
    check("its own", "HS256", "secret", 32, true);
    check("RFC 8725 2.1, HS256 with an RSA key", "HS256", "rsa", 32, false);
    check("RFC 8725 2.1, the rules confuse it", "HS256", "confused", 32, false);
    check("RFC 8725 3.1, another of the same family", "RS512", "rsa", 256, false);
    check("RFC 8725 3.1, PSS with a PKCS #1 key", "PS256", "rsa", 256, false);
    check("RFC 8725 3.1, EdDSA with an RSA key", "EdDSA", "rsa", 64, false);
    check("RFC 7518 3.2, short secret", "HS256", "short", 32, false);
    check("not among the issuer's algorithms", "ES384", "forbidden", 96, false);
    check("RFC 8017 8.2.2, length", "RS256", "rsa", 384, false);
    check("unknown kid", "EdDSA", "nobody", 64, false);
}

#[test]
fn a_token_without_kid_is_for_the_only_key() {
    let without = token(json!({"alg": "EdDSA"}), claims(), &[1; 64]);
    let mut rules = ruleset(vec![issuer()]);
    assert!(matches!(memory().poll(&rules, &without, false, NOW_MS), Verdict::NeedSignature(..)));
    rules.issuers[0].keys[0].kid = None;
    assert!(matches!(memory().poll(&rules, &without, false, NOW_MS), Verdict::NeedSignature(..)));
    assert!(
        matches!(memory().poll(&rules, &good("k1"), false, NOW_MS), Verdict::Refused(_)),
        "a name that no key has"
    );
    rules.issuers[0].keys.push(inline("k2", Algorithm::EdDSA, VerificationKey::Ed25519(vec![2; 32])));
    assert!(matches!(memory().poll(&rules, &without, false, NOW_MS), Verdict::Refused(_)));
    let mut both = with_url();
    both.keys = issuer().keys;
    let verdict = memory().poll(&ruleset(vec![both]), &without, false, NOW_MS);
    assert!(matches!(verdict, Verdict::NeedSignature(..) | Verdict::NeedKeys(_)));
}

#[test]
fn the_issuer_is_chosen_by_its_exact_name() {
    let second = Issuer { iss: "https://two.example".to_owned(), keys: Vec::new(), ..issuer() };
    let rules = ruleset(vec![second, issuer()]);
    assert_eq!(drive(&mut memory(), &rules, &good("k1"), None, NOW_MS).0, "valid");
    let mut stranger = claims();
    stranger["iss"] = json!("https://evil.example");
    let token = token(json!({"alg": "EdDSA", "kid": "k1"}), stranger, &[9; 64]);
    assert!(drive(&mut memory(), &rules, &token, None, NOW_MS).0.contains("not one of"));
}

#[test]
fn an_unknown_kid_fetches_once_an_interval() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    let old = key_set(&["k1"]);
    let new = key_set(&["k1", "k2"]);
    let mut drive = |kid: &str, set: &[u8], now_ms| drive(&mut memory, &rules, &good(kid), Some(set), now_ms);
    assert_eq!(drive("k1", &old, NOW_MS), ("valid".to_owned(), 1));
    assert_eq!(drive("k1", &old, NOW_MS + 1), ("valid".to_owned(), 0));
    for later in [1, 1_000, INTERVAL_MS - 1] {
        assert_eq!(drive("evil", &old, NOW_MS + later), ("the issuer has no such key".to_owned(), 0));
    }
    assert_eq!(drive("k2", &new, NOW_MS + INTERVAL_MS), ("valid".to_owned(), 1), "rotated");
    assert_eq!(drive("evil", &new, NOW_MS + INTERVAL_MS + 1), ("the issuer has no such key".to_owned(), 0));
}

#[test]
fn exchanges_at_the_same_time_wait_for_one_fetch_up_to_a_bound() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    let mut poll = |has_waited, now_ms| memory.poll(&rules, &good("k1"), has_waited, now_ms);
    assert!(matches!(poll(false, NOW_MS), Verdict::NeedKeys(_)));
    let waiting = (0..1_000).filter(|_| matches!(poll(false, NOW_MS), Verdict::Wait)).count();
    assert_eq!(waiting, KEY_FETCH_JOINED_MAX as usize);
    assert!(matches!(poll(true, NOW_MS + KEY_FETCH_LOST_MS - 1), Verdict::Wait), "who waits goes on");
    assert!(matches!(poll(true, NOW_MS + KEY_FETCH_LOST_MS), Verdict::NeedKeys(_)), "it was lost");
    assert!(matches!(poll(true, NOW_MS + KEY_FETCH_LOST_MS), Verdict::Wait));
    let now_ms = NOW_MS + KEY_FETCH_LOST_MS + 5;
    memory.keys_fetched(&ask_for("https://issuer.example/jwks"), Ok(key_set(&["k1"])), now_ms);
    assert!(matches!(memory.poll(&rules, &good("k1"), true, now_ms), Verdict::NeedSignature(..)));
}

#[test]
fn the_last_good_set_serves_until_it_is_stale_and_garbage_keeps_it() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    let mut claims = claims();
    claims["exp"] = json!(NOW_MS / 1000 + 86_400);
    let token_of = |jti: u32| {
        let mut claims = claims.clone();
        claims["jti"] = json!(jti.to_string());
        token(json!({"alg": "EdDSA", "kid": "k1"}), claims, &[9; 64])
    };
    assert_eq!(drive(&mut memory, &rules, &token_of(0), Some(&key_set(&["k1"])), NOW_MS).1, 1);
    assert!(memory.due(&rules, NOW_MS + REFRESH_MS - 1).is_empty());
    let due = memory.due(&rules, NOW_MS + REFRESH_MS);
    assert_eq!(due.len(), 1);
    assert!(memory.due(&rules, NOW_MS + REFRESH_MS).is_empty(), "one at a time");
    for garbage in
        [b"oops".to_vec(), b"{\"keys\":[]}".to_vec(), b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}".to_vec()]
    {
        memory.keys_fetched(&ask_for("https://issuer.example/jwks"), Ok(garbage), NOW_MS + REFRESH_MS);
    }
    let almost = NOW_MS + STALE_MS - 1;
    assert_eq!(drive(&mut memory, &rules, &token_of(1), None, almost), ("valid".to_owned(), 0));
    let (reason, fetched) = drive(&mut memory, &rules, &token_of(2), None, NOW_MS + STALE_MS);
    assert_eq!((reason.as_str(), fetched), ("the issuer's keys can't be had", 1));
    let (_, fetched) = drive(&mut memory, &rules, &token_of(2), None, NOW_MS + STALE_MS + 1);
    assert_eq!(fetched, 0, "not for every request while the issuer is down");
    let back =
        drive(&mut memory, &rules, &token_of(2), Some(&key_set(&["k1"])), NOW_MS + STALE_MS + INTERVAL_MS);
    assert_eq!(back, ("valid".to_owned(), 1));
}

#[test]
fn a_key_that_leaves_the_set_takes_its_tokens_with_it() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    let both = key_set(&["k1", "k2"]);
    for kid in ["k1", "k2"] {
        assert_eq!(drive(&mut memory, &rules, &good(kid), Some(&both), NOW_MS).0, "valid");
    }
    memory.keys_fetched(&ask_for("https://issuer.example/jwks"), Ok(key_set(&["k2"])), NOW_MS + 1);
    assert!(!matches!(memory.poll(&rules, &good("k1"), false, NOW_MS + 1), Verdict::Valid(_)));
    assert!(matches!(memory.poll(&rules, &good("k2"), false, NOW_MS + 1), Verdict::Valid(_)));
}

#[test]
fn another_url_has_other_keys_and_the_old_ones_answer_does_not_count() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    assert!(matches!(memory.poll(&rules, &good("k1"), false, NOW_MS), Verdict::NeedKeys(_)));
    let mut moved = rules;
    moved.issuers[0].jwks.as_mut().unwrap().url = "https://issuer.example/new".to_owned();
    assert!(
        matches!(memory.poll(&moved, &good("k1"), false, NOW_MS), Verdict::Refused(why) if why.status() == 503)
    );
    memory.keys_fetched(&ask_for("https://issuer.example/jwks"), Ok(key_set(&["k1"])), NOW_MS + 1);
    let Verdict::NeedKeys(ask) = memory.poll(&moved, &good("k1"), false, NOW_MS + 1) else { panic!() };
    assert_eq!(ask.url, "https://issuer.example/new");
}

/// An issuer whose metadata say where its keys are.
fn with_metadata() -> Issuer {
    let mut issuer = with_url();
    let jwks = issuer.jwks.as_mut().unwrap();
    (jwks.url, jwks.discovery) = ("https://issuer.example/.well-known/openid-configuration".to_owned(), true);
    issuer
}

/// Polls with what is at each URL, and says what was fetched.
fn discover(
    memory: &mut JwtMemory,
    rules: &Ruleset,
    kid: &str,
    at: &[(&str, Vec<u8>)],
    now_ms: u64,
) -> (String, Vec<String>) {
    let mut fetched = Vec::new();
    let mut claims = claims();
    claims["exp"] = json!(NOW_MS / 1000 + 86_400);
    let token = token(json!({"alg": "EdDSA", "kid": kid}), claims, &[9; 64]);
    loop {
        match memory.poll(rules, &token, false, now_ms) {
            Verdict::NeedSignature(_, pending) => _ = memory.verified(*pending, true, now_ms),
            Verdict::Valid(_) => return ("valid".to_owned(), fetched),
            Verdict::Wait => panic!("one exchange at a time"),
            Verdict::Refused(refusal) => return (refusal.reason, fetched),
            Verdict::NeedKeys(ask) => {
                let found = at.iter().find(|(url, _)| *url == ask.url).map(|(_, bytes)| bytes.clone());
                fetched.push(ask.url.clone());
                memory.keys_fetched(&ask, found.ok_or(FetchFault::Status(404)), now_ms);
            }
        }
    }
}

#[test]
fn metadata_lead_to_the_keys_and_are_asked_again_when_those_have_moved() {
    const METADATA: &str = "https://issuer.example/.well-known/openid-configuration";
    let metadata =
        |uri: &str| json!({"issuer": "https://issuer.example", "jwks_uri": uri}).to_string().into_bytes();
    let (mut memory, rules) = (memory(), ruleset(vec![with_metadata()]));
    let at = [(METADATA, metadata("https://keys.example/a")), ("https://keys.example/a", key_set(&["k1"]))];
    let (outcome, fetched) = discover(&mut memory, &rules, "k1", &at, NOW_MS);
    assert_eq!(
        (outcome.as_str(), fetched),
        ("valid", vec![METADATA.to_owned(), "https://keys.example/a".to_owned()])
    );
    let moved =
        [(METADATA, metadata("https://keys.example/b")), ("https://keys.example/b", key_set(&["k2"]))];
    let (mut now_ms, mut fetched) = (NOW_MS, Vec::new());
    while now_ms < NOW_MS + 50 * INTERVAL_MS
        && fetched.last().is_none_or(|url| url != "https://keys.example/b")
    {
        now_ms += INTERVAL_MS;
        let outcome = discover(&mut memory, &rules, "k2", &moved, now_ms);
        fetched.extend(outcome.1);
    }
    assert_eq!(fetched.last().map(String::as_str), Some("https://keys.example/b"), "{fetched:?}");
    assert_eq!(
        fetched.iter().filter(|url| *url == "https://keys.example/a").count() as u32,
        crate::limits::KEY_FETCH_MOVED
    );
}

#[test]
fn metadata_of_somebody_else_lead_nowhere() {
    const METADATA: &str = "https://issuer.example/.well-known/openid-configuration";
    let (mut memory, rules) = (memory(), ruleset(vec![with_metadata()]));
    let evil = json!({"issuer": "https://evil.example", "jwks_uri": "https://keys.example/a"}).to_string();
    let at = [(METADATA, evil.into_bytes()), ("https://keys.example/a", key_set(&["k1"]))];
    let outcome = discover(&mut memory, &rules, "k1", &at, NOW_MS);
    assert_eq!(outcome, ("the issuer's keys can't be had".to_owned(), vec![METADATA.to_owned()]));
    assert_eq!(
        discover(&mut memory, &rules, "k1", &at, NOW_MS + 1).1,
        Vec::<String>::new(),
        "not for every token"
    );
}

#[test]
fn a_stale_set_is_fetched_again_however_long_the_interval() {
    let mut slow = with_url();
    slow.jwks.as_mut().unwrap().refetch_interval_ms = 10 * STALE_MS;
    let (mut memory, rules) = (memory(), ruleset(vec![slow]));
    let set = key_set(&["k1"]);
    assert_eq!(drive(&mut memory, &rules, &good("k1"), Some(&set), NOW_MS).1, 1);
    let mut later = claims();
    later["exp"] = json!(NOW_MS / 1000 + 86_400);
    let token = token(json!({"alg": "EdDSA", "kid": "k1"}), later, &[9; 64]);
    let outcome = drive(&mut memory, &rules, &token, Some(&set), NOW_MS + STALE_MS);
    assert_eq!(outcome, ("valid".to_owned(), 1));
}

#[test]
fn a_clock_set_back_does_not_freeze_the_keys() {
    let (mut memory, rules) = (memory(), ruleset(vec![with_url()]));
    let ahead = NOW_MS + 50_000;
    assert_eq!(drive(&mut memory, &rules, &good("k1"), Some(&key_set(&["k1"])), ahead).0, "valid");
    assert_eq!(memory.due(&rules, NOW_MS - 86_400_000).len(), 1);
}

#[test]
fn memory_is_bounded() {
    let mut memory = memory();
    let mut rules = ruleset(vec![issuer()]);
    for sequence in 0..TOKENS_REMEMBERED_MAX as u64 * 2 {
        rules.version.sequence = sequence;
        assert_eq!(drive(&mut memory, &rules, &good("k1"), None, NOW_MS).0, "valid");
    }
    assert!(memory.tokens.len() <= TOKENS_REMEMBERED_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_change_of_one_byte_passes_without_a_signature(at in 0usize..400, byte in 0x20u8..0x7f) {
        let (mut memory, rules) = (memory(), ruleset(vec![issuer()]));
        let token = good("k1");
        prop_assert_eq!(drive(&mut memory, &rules, &token, None, NOW_MS).0, "valid");
        let mut changed = token.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != token);
        prop_assert!(!matches!(memory.poll(&rules, &changed, false, NOW_MS), Verdict::Valid(_) | Verdict::NeedKeys(_)));
    }

    #[test]
    fn key_sets_never_panic(text in "\\PC{0,200}") {
        let _ = keys::parse_set(text.as_bytes());
        let _ = keys::parse_set(format!("{{\"keys\":[{{{text}}}]}}").as_bytes());
    }
}
