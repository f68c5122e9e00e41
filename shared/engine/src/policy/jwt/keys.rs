//! Keys of an issuer: those in its document and those of its key set (RFC 7517, RFC 7518, RFC 8037), the choice of the
//! one that a token is for, and when to fetch a set.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jws::{self, Parsed};
use super::{Refusal, json};
use crate::limits::{
    JWKS_BYTES_MAX, JWKS_KEYS_MAX, KEY_FETCH_JOINED_MAX, KEY_FETCH_LOST_MS, KEY_FETCH_MOVED,
    KEY_FETCH_RETRY_MS, KEYS_URL_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN, RSA_EXPONENT, TOKEN_DEPTH_MAX,
};
use crate::ruleset::{Issuer, Jwks};
use crate::step::{Algorithm, VerificationKey};

/// A key of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetKey {
    kid: Option<String>,
    /// `alg`, or what the type of the key leaves no choice about; `None` for RSA keys that don't say.
    algorithm: Option<Algorithm>,
    pub(super) key: Arc<VerificationKey>,
}

impl SetKey {
    /// The one algorithm that the key is for: its own, or else the only one that the issuer allows for such a key. Where
    /// there are several the key is not used: RFC 8725, section 3.1 wants one.
    fn pinned(&self, issuer: &Issuer) -> Option<Algorithm> {
        self.algorithm.or_else(|| {
            let mut fitting =
                issuer.algorithms.iter().copied().filter(|algorithm| fits(*algorithm, &self.key));
            fitting.next().filter(|_| fitting.next().is_none())
        })
    }
}

/// Whether a key is of the type that an algorithm takes.
fn fits(algorithm: Algorithm, key: &VerificationKey) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match key {
        // RFC 7518, section 3.2: a secret is at least as long as the hash.
        VerificationKey::Secret(secret) => match algorithm {
            HS256 => secret.len() >= 32,
            HS384 => secret.len() >= 48,
            HS512 => secret.len() >= 64,
            _ => false,
        },
        VerificationKey::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
        VerificationKey::P256(_) => algorithm == ES256,
        VerificationKey::P384(_) => algorithm == ES384,
        VerificationKey::Ed25519(_) => algorithm == EdDSA,
    }
}

/// The outcome of looking for a token's key.
pub(super) enum Choice {
    /// This one; whether it is from the key set.
    Key(Arc<VerificationKey>, bool),
    /// None of this `kid`: a newer key set may have it.
    Unknown,
    /// None will ever do.
    Refused(Refusal),
}

/// The key that a token is for: by `kid`, with the algorithm pinned to the key (RFC 8725, section 3.1). A token
/// without `kid` has to be for the only key that there is.
pub(super) fn choose(issuer: &Issuer, set: &[SetKey], token: &Parsed) -> Choice {
    let inline = issuer.keys.iter().map(|key| (key.kid.as_deref(), Some(key.algorithm), &key.key, false));
    let fetched = set.iter().map(|key| (key.kid.as_deref(), key.pinned(issuer), &key.key, true));
    let mut keys = inline.chain(fetched);
    let kid = token.kid.as_deref();
    let mut named = keys.clone().filter(|(have, ..)| kid.is_some() && *have == kid);
    let candidates: Vec<_> = match kid {
        Some(_) => named.by_ref().collect(),
        None => match (keys.next(), keys.next()) {
            (Some(only), None) => vec![only],
            (None, _) => Vec::new(),
            (Some(_), Some(_)) => {
                return Choice::Refused(Refusal::token("no `kid`, and the issuer has several keys"));
            }
        },
    };
    if candidates.is_empty() {
        return Choice::Unknown;
    }
    let found = candidates.into_iter().find(|(_, pinned, key, _)| {
        *pinned == Some(token.algorithm)
            && issuer.algorithms.contains(&token.algorithm)
            && fits(token.algorithm, key)
            && rsa_bytes(key).is_none_or(|bytes| bytes == token.signature_bytes)
    });
    match found {
        Some((_, _, key, fetched)) => Choice::Key(key.clone(), fetched),
        None => Choice::Refused(Refusal::token("the key is not for this algorithm (RFC 8725, section 3.1)")),
    }
}

/// Length of an RSA key's signatures (RFC 8017, section 8.2.2).
fn rsa_bytes(key: &VerificationKey) -> Option<usize> {
    match key {
        VerificationKey::Rsa { n, .. } => Some(n.len()),
        _ => None,
    }
}

/// The usable keys of a key set; `None` where it is no key set or has none. Keys that are odd, private, symmetric, for
/// encryption or of an algorithm that is not supported are left out (RFC 7517, section 5).
pub(super) fn parse_set(bytes: &[u8]) -> Option<Vec<SetKey>> {
    if bytes.len() > JWKS_BYTES_MAX {
        return None;
    }
    let set = json::object(bytes, TOKEN_DEPTH_MAX).ok()?;
    let Some(Value::Array(keys)) = set.get("keys") else { return None };
    let keys: Vec<_> =
        keys.iter().take(JWKS_KEYS_MAX).filter_map(Value::as_object).filter_map(parse_key).collect();
    (!keys.is_empty()).then_some(keys)
}

/// Where the key set of a provider is, by its metadata (OpenID Connect Discovery 1.0, section 4.2; RFC 8414, section 3.2).
/// Metadata of another issuer are none (RFC 8414, section 3.3).
pub(super) fn parse_metadata(bytes: &[u8], iss: &str) -> Option<String> {
    if bytes.len() > JWKS_BYTES_MAX {
        return None;
    }
    let metadata = json::object(bytes, TOKEN_DEPTH_MAX).ok()?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    let place = text("jwks_uri").filter(|_| text("issuer") == Some(iss))?;
    is_guarded(place).then(|| place.to_owned())
}

/// Whether keys may be fetched from a URL: whoever can change what comes over plain HTTP could put in keys of their own, so
/// that it is https, or http to this very machine.
#[must_use]
pub fn is_guarded(url: &str) -> bool {
    let rest_is_no_name = |rest: &str| rest.is_empty() || rest.starts_with([':', '/', '?']);
    let is_here = ["http://127.0.0.1", "http://[::1]", "http://localhost"]
        .iter()
        .any(|host| url.strip_prefix(host).is_some_and(rest_is_no_name));
    let authority = url.split("://").nth(1).unwrap_or_default().split(['/', '?']).next().unwrap_or_default();
    let is_plain = url.len() <= KEYS_URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain && !authority.is_empty() && !authority.contains('@') && (url.starts_with("https://") || is_here)
}

fn parse_key(jwk: &Map<String, Value>) -> Option<SetKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    // RFC 7517, sections 4.2 and 4.3: what a key is for, where it says so.
    let is_for_signatures = jwk.get("use").is_none_or(|value| value.as_str() == Some("sig"))
        && jwk.get("key_ops").is_none_or(|ops| {
            ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
        });
    // A private key that its owner published proves nothing any more.
    if !is_for_signatures || jwk.contains_key("d") {
        return None;
    }
    let kid = match jwk.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str()?.to_owned()),
    };
    let bytes = |name: &str| text(name).and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
    let key = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa_key(bytes("n")?, bytes("e")?)?,
        ("EC", Some("P-256")) => VerificationKey::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
        ("EC", Some("P-384")) => VerificationKey::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
        ("OKP", Some("Ed25519")) => VerificationKey::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    let implied = match key {
        VerificationKey::P256(_) => Some(Algorithm::ES256),
        VerificationKey::P384(_) => Some(Algorithm::ES384),
        VerificationKey::Ed25519(_) => Some(Algorithm::EdDSA),
        VerificationKey::Rsa { .. } | VerificationKey::Secret(_) => None,
    };
    let algorithm = match jwk.get("alg") {
        None => implied,
        // RFC 9864 names the curve; it is the same algorithm.
        Some(Value::String(name)) if name == "Ed25519" => Some(Algorithm::EdDSA),
        Some(name) => Some(jws::algorithm(name.as_str()?)?),
    };
    if algorithm.is_some_and(|algorithm| !fits(algorithm, &key)) {
        return None;
    }
    Some(SetKey { kid, algorithm, key: Arc::new(key) })
}

/// RFC 7518, sections 3.3 and 6.3.1: at least 2048 bits, no leading zeros; and what every host's library takes: at most 4096
/// bits, and the exponent 65537.
fn rsa_key(n: Vec<u8>, e: Vec<u8>) -> Option<VerificationKey> {
    let first = *n.first()?;
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    let fine = first != 0 && (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) && e == RSA_EXPONENT;
    fine.then_some(VerificationKey::Rsa { n, e })
}

/// A point in uncompressed form (SEC 1, section 2.3.3); coordinates have their full length (RFC 7518, section 6.2.1.2).
fn point(x: &[u8], y: &[u8], coordinate_bytes: usize) -> Option<Vec<u8>> {
    (x.len() == coordinate_bytes && y.len() == coordinate_bytes).then(|| [&[4], x, y].concat())
}

/// Why a key set is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// There is none that may be used. Waits for a fetch that is on its way, up to a bound, rather than fail for it.
    Keys,
    /// A token names a key that it has not. Waits for one too.
    UnknownKey,
    /// It grows old.
    Refresh,
}

/// What to do for keys that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Fetch them.
    Fetch,
    /// Wait for whoever fetches them.
    Wait,
    /// Do without: it is too early for another fetch, or too many wait.
    No,
}

/// Whose an answer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// It came now, to this node.
    Own,
    /// It came to another node before.
    Shared {
        /// When.
        answered_ms: u64,
        /// When the last one that was good came.
        content_ms: u64,
        /// Answers that were not, since.
        failures: u32,
    },
}

/// What is known of one issuer's key set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    /// URL of the rule.
    url: String,
    /// Where the provider's metadata say that the key set is.
    found: Option<String>,
    /// When the last answer to a question for the metadata came.
    found_ms: u64,
    /// No fetch more often than this.
    interval_ms: u64,
    /// The last good keys.
    pub(super) keys: Vec<SetKey>,
    /// When they came.
    fetched_ms: Option<u64>,
    /// When the last answer came, good or not.
    answered_ms: u64,
    /// When a fetch that has not been answered was asked for.
    asked_ms: Option<u64>,
    /// That fetch is for another URL: the rule has changed since.
    outdated: bool,
    /// Exchanges that wait for that fetch.
    joined: u32,
    /// No fetch before this.
    wait_until_ms: u64,
    /// Fetches that failed in a row.
    failures: u32,
}

impl KeySet {
    /// Follows the rule: another URL has other keys.
    pub(super) fn follow(&mut self, rule: &Jwks) {
        if self.url != rule.url {
            let asked_ms = self.asked_ms;
            *self = Self { url: rule.url.clone(), asked_ms, outdated: asked_ms.is_some(), ..Self::default() };
        }
        self.interval_ms = rule.refetch_interval_ms.max(KEY_FETCH_RETRY_MS);
        // A key set that can't be had for long may have moved.
        if !rule.discovery || self.failures >= KEY_FETCH_MOVED {
            self.found = None;
        }
    }

    /// What to fetch next: the key set, or the metadata that say where it is.
    pub(super) fn next_url(&self) -> &str {
        self.found.as_deref().unwrap_or(&self.url)
    }

    /// When the last answer came that is known here: to a question for the metadata, or for the keys themselves.
    pub(super) fn known_ms(&self, of_metadata: bool) -> u64 {
        if of_metadata { self.found_ms } else { self.answered_ms }
    }

    /// Takes the place of the key set from the metadata; `None`: there was none.
    pub(super) fn discovered(&mut self, place: Option<String>, news: News, now_ms: u64) {
        if !self.outdated {
            self.found_ms = match news {
                News::Own => now_ms,
                News::Shared { answered_ms, .. } => answered_ms,
            };
        }
        match (place, news) {
            (Some(place), News::Own | News::Shared { failures: 0, .. }) if !self.outdated => {
                self.asked_ms = None;
                self.failures = 0;
                self.found = Some(place);
            }
            _ => _ = self.answered(None, news, now_ms),
        }
    }

    /// Whether there are keys that may still be used.
    pub(super) fn is_usable(&self, rule: &Jwks, now_ms: u64) -> bool {
        self.fetched_ms.is_some_and(|fetched_ms| now_ms.saturating_sub(fetched_ms) < rule.stale_ms)
    }

    /// Whether it should be refreshed. A set from the future, after the clock was set back, counts as old.
    pub(super) fn is_due(&self, rule: &Jwks, now_ms: u64) -> bool {
        self.fetched_ms
            .is_some_and(|fetched_ms| fetched_ms > now_ms || now_ms - fetched_ms >= rule.refresh_ms)
    }

    /// Whether to fetch now: at most once an interval, or after failures with a growing pause.
    pub(super) fn ask(&mut self, need: Need, has_waited: bool, now_ms: u64) -> Turn {
        if self.asked_ms.is_some_and(|asked_ms| now_ms.abs_diff(asked_ms) < KEY_FETCH_LOST_MS) {
            let may_join = has_waited || self.joined < KEY_FETCH_JOINED_MAX;
            if need == Need::Refresh || self.outdated || !may_join {
                return Turn::No;
            }
            self.joined += u32::from(!has_waited);
            return Turn::Wait;
        }
        let wait_ms = self.wait_until_ms.saturating_sub(now_ms);
        let is_pause = wait_ms > 0 && wait_ms <= self.interval_ms;
        if is_pause && (need != Need::Keys || self.failures > 0) {
            return Turn::No;
        }
        self.asked_ms = Some(now_ms);
        self.outdated = false;
        self.joined = 0;
        Turn::Fetch
    }

    /// Takes the answer of a fetch; `None` and garbage keep the last good keys. Whether the keys are others now.
    pub(super) fn answered(&mut self, keys: Option<Vec<SetKey>>, news: News, now_ms: u64) -> bool {
        self.asked_ms = None;
        if self.outdated {
            return false;
        }
        let (answered_ms, content_ms, failures) = match news {
            News::Shared { answered_ms, content_ms, failures } => (answered_ms, content_ms, failures),
            News::Own if keys.is_some() => (now_ms, now_ms, 0),
            News::Own => (now_ms, 0, self.failures.saturating_add(1)),
        };
        let pause_ms = match failures.checked_sub(1) {
            Some(before) => KEY_FETCH_RETRY_MS.saturating_mul(1 << before.min(10)).min(self.interval_ms),
            None => self.interval_ms,
        };
        self.failures = failures;
        self.answered_ms = answered_ms;
        self.wait_until_ms = answered_ms.saturating_add(pause_ms);
        let is_news = |keys: &Vec<SetKey>| {
            let replaces =
                matches!(news, News::Own) || self.fetched_ms.is_none_or(|at_ms| at_ms < content_ms);
            replaces && !keys.is_empty()
        };
        let Some(keys) = keys.filter(is_news) else { return false };
        self.fetched_ms = Some(content_ms);
        let changed = self.keys != keys;
        self.keys = keys;
        changed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn metadata_say_where_the_keys_are_for_their_own_issuer_only() {
        let check = |metadata: Value, expect: Option<&str>| {
            let got = parse_metadata(metadata.to_string().as_bytes(), "https://id.example");
            assert_eq!(got.as_deref(), expect, "{metadata}");
        };
        let of =
            |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri, "claims_supported": ["sub"]});
        check(of("https://id.example", "https://keys.example/set"), Some("https://keys.example/set"));
        check(of("https://id.example", "http://localhost:81/set"), Some("http://localhost:81/set"));
        check(of("https://id.example/", "https://keys.example/set"), None);
        check(of("https://id.example", "http://keys.example/set"), None);
        check(of("https://id.example", "http://localhost.evil.example/"), None);
        check(of("https://id.example", "https://u:p@keys.example/"), None);
        check(of("https://id.example", "https://"), None);
        check(json!({"issuer": "https://id.example"}), None);
        check(json!([]), None);
    }

    #[test]
    fn keys_are_taken_or_left_out_by_the_rule() {
        let check = |rule: &str, base: &Value, changes: Value, expect: Option<Option<Algorithm>>| {
            let mut jwk = base.clone();
            for (name, value) in changes.as_object().unwrap() {
                jwk[name] = value.clone();
            }
            let got = parse_key(jwk.as_object().unwrap()).map(|key| key.algorithm);
            assert_eq!(got, expect, "{rule}: {changes}");
        };
        let rsa = json!({"kty": "RSA", "n": b64(&[200; 256]), "e": "AQAB"});
        check("RFC 7517 4.4, no alg", &rsa, json!({}), Some(None));
        check("RFC 7517 4.4", &rsa, json!({"alg": "PS384"}), Some(Some(Algorithm::PS384)));
        check("RFC 7517 4.4, not its type", &rsa, json!({"alg": "ES256"}), None);
        check("RFC 8725 2.1, not its type", &rsa, json!({"alg": "HS256"}), None);
        check("RFC 7517 4.4, for encryption", &rsa, json!({"alg": "RSA-OAEP"}), None);
        check("RFC 7517 4.2", &rsa, json!({"use": "sig"}), Some(None));
        check("RFC 7517 4.2", &rsa, json!({"use": "enc"}), None);
        check("RFC 7517 4.3", &rsa, json!({"key_ops": ["verify"]}), Some(None));
        check("RFC 7517 4.3", &rsa, json!({"key_ops": ["encrypt"]}), None);
        check("RFC 7517 4.3", &rsa, json!({"key_ops": "verify"}), None);
        check("RFC 7517 4.5", &rsa, json!({"kid": 7}), None);
        check("RFC 7518 3.3, 1024 bits", &rsa, json!({"n": b64(&[200; 128])}), None);
        check("RFC 7518 3.3, 2047 bits", &rsa, json!({"n": b64(&[100; 256])}), None);
        check(
            "RFC 7518 6.3.1.1, leading zero",
            &rsa,
            json!({"n": b64(&[&[0][..], &[200; 256]].concat())}),
            None,
        );
        check("4096 bits", &rsa, json!({"n": b64(&[200; 512])}), Some(None));
        check("4097 bits", &rsa, json!({"n": b64(&[&[1][..], &[200; 512]].concat())}), None);
        check("even exponent", &rsa, json!({"e": b64(&[2])}), None);
        check("exponent of three", &rsa, json!({"e": b64(&[3])}), None);
        check("exponent of one", &rsa, json!({"e": b64(&[1])}), None);
        check("exponent of five bytes", &rsa, json!({"e": b64(&[1, 0, 0, 0, 1])}), None);
        check("published private key", &rsa, json!({"d": "AQ"}), None);
        check("RFC 7515 2, padding", &rsa, json!({"e": "AQAB="}), None);
        let ec = json!({"kty": "EC", "crv": "P-256", "x": b64(&[1; 32]), "y": b64(&[2; 32])});
        check("RFC 7518 6.2", &ec, json!({}), Some(Some(Algorithm::ES256)));
        check("RFC 7518 6.2.1.2, short coordinate", &ec, json!({"x": b64(&[1; 31])}), None);
        check("RFC 7518 6.2.1.1, other curve", &ec, json!({"crv": "secp256k1"}), None);
        check("RFC 7518 3.4, other curve's alg", &ec, json!({"alg": "ES384"}), None);
        let p384 = json!({"kty": "EC", "crv": "P-384", "x": b64(&[1; 48]), "y": b64(&[2; 48])});
        check("RFC 7518 6.2", &p384, json!({"alg": "ES384"}), Some(Some(Algorithm::ES384)));
        let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[1; 32])});
        check("RFC 8037 2", &okp, json!({}), Some(Some(Algorithm::EdDSA)));
        check("RFC 9864 2.2", &okp, json!({"alg": "Ed25519"}), Some(Some(Algorithm::EdDSA)));
        check("RFC 8037 2", &okp, json!({"x": b64(&[1; 31])}), None);
        check("RFC 8037 2, key agreement", &okp, json!({"crv": "X25519"}), None);
        check("a secret at a URL", &json!({"kty": "oct", "k": b64(&[1; 64])}), json!({"alg": "HS256"}), None);
    }

    #[test]
    fn a_set_is_read_with_its_odd_keys_left_out() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[1; 32]), "kid": "a"});
        let set = |keys: Value| parse_set(json!({ "keys": keys, "more": 1 }).to_string().as_bytes());
        assert_eq!(set(json!([{"kty": "odd"}, 7, good])).map(|keys| keys.len()), Some(1));
        assert_eq!(set(json!([])), None);
        assert_eq!(set(json!({})), None);
        assert_eq!(set(json!(vec![good.clone(); 500])).map(|keys| keys.len()), Some(JWKS_KEYS_MAX));
        assert_eq!(parse_set(b"[]"), None);
        assert_eq!(
            parse_set(format!("{{\"keys\":[{good}],\"keys\":[]}}").as_bytes()),
            None,
            "RFC 7517 4: a member twice"
        );
        let huge = format!("{{\"keys\":[{good}],\"x\":\"{}\"}}", "x".repeat(JWKS_BYTES_MAX));
        assert_eq!(parse_set(huge.as_bytes()), None);
    }

    #[test]
    fn an_rsa_key_without_alg_is_for_the_only_algorithm_that_the_issuer_allows_for_it() {
        let key = parse_key(json!({"kty": "RSA", "n": b64(&[200; 256]), "e": "AQAB"}).as_object().unwrap())
            .unwrap();
        let check = |algorithms: &[Algorithm], expect| {
            let issuer = Issuer { algorithms: algorithms.to_vec(), ..super::super::tests::issuer() };
            assert_eq!(key.pinned(&issuer), expect, "{algorithms:?}");
        };
        check(&[Algorithm::ES256, Algorithm::RS256], Some(Algorithm::RS256));
        check(&[Algorithm::PS256, Algorithm::RS256], None);
        check(&[Algorithm::ES256], None);
    }
}
