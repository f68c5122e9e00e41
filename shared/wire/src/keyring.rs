//! Keys with ids, as the processes are given them: `KID:BASE64URL[,KID:BASE64URL…]`. The first signs, all verify, so
//! that a key rotates by putting the new one first and taking the old one away when nothing signed by it is left. The secret
//! of hashes does not rotate and has no id.

use ed25519_compact::{KeyPair, PublicKey, SecretKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::encoding::from_base64url;
use crate::limits::{KEY_ID_CHARS_MAX, KEYS_MAX};

/// Why a keyring could not be read. Never holds any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyring {
    /// There is no key.
    #[error("a keyring needs at least one key, written KID:BASE64URL")]
    Empty,
    /// More keys than allowed.
    #[error("a keyring has at most {KEYS_MAX} keys")]
    TooMany,
    /// An entry without a colon.
    #[error("key {position} of the keyring is not written KID:BASE64URL")]
    Shape {
        /// Position of the entry, from 1.
        position: usize,
    },
    /// A key id with other characters than letters, digits, `-` and `_`, or a long or empty one.
    #[error(
        "the id of key {position} of the keyring must be 1 to {KEY_ID_CHARS_MAX} letters, digits, '-' or '_'"
    )]
    Id {
        /// Position of the entry, from 1.
        position: usize,
    },
    /// Two keys with one id.
    #[error("two keys of the keyring have the id {kid:?}")]
    Duplicate {
        /// The id.
        kid: String,
    },
    /// Not base64url, or not as long as the key must be.
    #[error("key {kid:?} must be {expected} bytes in base64url without padding")]
    Key {
        /// The id.
        kid: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A key for which anybody can sign: a point of small order, such as the one that is all zeros, or a secret of zeros.
    #[error("key {kid:?} protects nothing: it is all zeros or of small order")]
    Weak {
        /// The id.
        kid: String,
    },
}

/// Why the secret of hashes could not be read. Never holds any part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {0}, expected 32 random bytes in base64url without padding")]
pub struct InvalidHashKey(String);

/// Secrets of 32 bytes for HMAC-SHA256 (RFC 2104).
#[derive(Clone)]
pub struct MacKeyring(Vec<(String, MacKey)>);

#[derive(Clone)]
struct MacKey {
    bytes: [u8; 32],
    /// Made ready once: two blocks less for every message.
    ready: Hmac<Sha256>,
}

impl MacKeyring {
    /// Reads `KID:BASE64URL[,…]` with keys of 32 bytes.
    ///
    /// # Errors
    /// Where the text is anything else; the error never shows a key.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyring> {
        let key = |kid: &str, bytes: Vec<u8>| {
            MacKey::new(&bytes).ok_or_else(|| InvalidKeyring::Key { kid: kid.to_owned(), expected: "32" })
        };
        entries(text, key).map(Self)
    }

    /// The keyring, unless a key of it is all zeros.
    ///
    /// # Errors
    /// The id of the first such key.
    pub fn without_zeros(self) -> Result<Self, InvalidKeyring> {
        match self.0.iter().find(|(_, key)| key.bytes == [0; 32]) {
            Some((kid, _)) => Err(InvalidKeyring::Weak { kid: kid.clone() }),
            None => Ok(self),
        }
    }

    /// Id of the key that signs.
    #[must_use]
    pub fn signing_kid(&self) -> &str {
        self.0.first().map_or("", |(kid, _)| kid)
    }

    /// MAC of the message by the first key. The domain keeps messages of different purposes apart and ends in a line
    /// feed, `"meridian-context-v1\n"`.
    #[must_use]
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 32] {
        self.0.first().map_or([0; 32], |(_, key)| key.mac(domain, message))
    }

    /// Whether `tag` is the MAC of the message, or a prefix of it of at least 16 bytes, by the key with this id.
    /// `None` where there is no such key. Takes as long for a wrong tag as for a right one.
    #[must_use]
    pub fn verify(&self, kid: &str, domain: &str, message: &[u8], tag: &[u8]) -> Option<bool> {
        let (_, key) = self.0.iter().find(|(have, _)| have == kid)?;
        let right = key.mac(domain, message);
        let right = right.get(..tag.len()).filter(|right| right.len() >= 16);
        Some(right.is_some_and(|right| right.ct_eq(tag).into()))
    }

    /// A secret for another purpose of each key, in their order, the same wherever the key is the same.
    pub fn derive(&self, domain: &str) -> impl Iterator<Item = [u8; 32]> {
        self.0.iter().map(move |(_, key)| key.mac(domain, b"derive"))
    }
}

impl MacKey {
    /// `None` where there are not 32 bytes.
    fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = <[u8; 32]>::try_from(bytes).ok()?;
        // HMAC takes keys of any length (RFC 2104, section 2), so that this never fails.
        let ready = Hmac::new_from_slice(&bytes).ok()?;
        Some(Self { bytes, ready })
    }

    fn mac(&self, domain: &str, message: &[u8]) -> [u8; 32] {
        let mut mac = self.ready.clone();
        mac.update(domain.as_bytes());
        mac.update(message);
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for MacKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(kid, _)| kid)).finish()
    }
}

/// The secret of keyed hashes, HMAC-SHA256 (RFC 2104) with 32 bytes: of whom limits and experiments count, of subjects and
/// networks. With another one all of them are somebody else.
#[derive(Clone)]
pub struct HashKey(MacKey);

impl HashKey {
    /// Reads 32 bytes in base64url.
    ///
    /// # Errors
    /// Where the text is anything else, or all of it is zeros; the error never shows the key.
    pub fn parse(text: &str) -> Result<Self, InvalidHashKey> {
        let bytes = from_base64url(text.trim())
            .ok_or_else(|| InvalidHashKey("a text that is no base64url".to_owned()))?;
        if bytes == [0; 32] {
            return Err(InvalidHashKey("zeros alone".to_owned()));
        }
        MacKey::new(&bytes).map(Self).ok_or_else(|| InvalidHashKey(format!("{} bytes", bytes.len())))
    }

    /// Hash of the message. The domain keeps messages of different purposes apart and ends in a line feed.
    #[must_use]
    pub fn hash(&self, domain: &str, message: &[u8]) -> [u8; 32] {
        self.0.mac(domain, message)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// Ed25519 public keys (RFC 8032) that may sign bundles.
#[derive(Clone)]
pub struct PublicKeyring(Vec<(String, PublicKey)>);

impl PublicKeyring {
    /// Reads `KID:BASE64URL[,…]` with public keys of 32 bytes.
    ///
    /// # Errors
    /// Where the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyring> {
        let key = |kid: &str, bytes: Vec<u8>| {
            let invalid =
                || InvalidKeyring::Key { kid: kid.to_owned(), expected: "32 (a point of the curve)" };
            let key = PublicKey::from_slice(&bytes).map_err(|_| invalid())?;
            match key.validate() {
                Ok(()) => Ok(key),
                Err(ed25519_compact::Error::WeakPublicKey) => {
                    Err(InvalidKeyring::Weak { kid: kid.to_owned() })
                }
                Err(_) => Err(invalid()),
            }
        };
        entries(text, key).map(Self)
    }

    /// The keyring that trusts this signing key alone.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self(vec![(key.kid.clone(), key.pair.pk)])
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|(have, _)| have == kid).map(|(_, key)| key)
    }
}

impl std::fmt::Debug for PublicKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(kid, _)| kid)).finish()
    }
}

/// An Ed25519 key pair with its id, that signs bundles or, in development, tokens.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    /// Reads `KID:BASE64URL` with seed and public key, 64 bytes together.
    ///
    /// # Errors
    /// Where the text is anything else, or the two halves don't belong together; the error never shows the key.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyring> {
        let key = |kid: &str, bytes: Vec<u8>| {
            let invalid =
                || InvalidKeyring::Key { kid: kid.to_owned(), expected: "64 (seed and public key)" };
            let pair = KeyPair::from_slice(&bytes).map_err(|_| invalid())?;
            let again = KeyPair::try_from_seed(pair.sk.seed()).map_err(|_| invalid())?;
            if again.pk == pair.pk { Ok(pair) } else { Err(invalid()) }
        };
        let mut all = entries(text, key)?;
        match (all.pop(), all.len()) {
            (Some((kid, pair)), 0) => Ok(Self { kid, pair }),
            _ => Err(InvalidKeyring::Shape { position: 2 }),
        }
    }

    /// Id of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key, 32 bytes.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        *self.pair.pk
    }

    /// The key pair as `jwt-simple` takes it: seed and public key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        *self.pair.sk
    }

    pub(crate) fn secret(&self) -> &SecretKey {
        &self.pair.sk
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.kid).finish()
    }
}

fn entries<K>(
    text: &str,
    key: impl Fn(&str, Vec<u8>) -> Result<K, InvalidKeyring>,
) -> Result<Vec<(String, K)>, InvalidKeyring> {
    if text.trim().is_empty() {
        return Err(InvalidKeyring::Empty);
    }
    let mut keys: Vec<(String, K)> = Vec::new();
    for (index, entry) in text.trim().split(',').enumerate() {
        let position = index + 1;
        if position > KEYS_MAX {
            return Err(InvalidKeyring::TooMany);
        }
        let (kid, encoded) = entry.trim().split_once(':').ok_or(InvalidKeyring::Shape { position })?;
        if !is_kid(kid) {
            return Err(InvalidKeyring::Id { position });
        }
        if keys.iter().any(|(have, _)| have == kid) {
            return Err(InvalidKeyring::Duplicate { kid: kid.to_owned() });
        }
        keys.push((kid.to_owned(), key(kid, from_base64url(encoded).unwrap_or_default())?));
    }
    Ok(keys)
}

/// Whether a key's id can stand in a token: it must hold no dot, colon or comma.
fn is_kid(kid: &str) -> bool {
    !kid.is_empty()
        && kid.len() <= KEY_ID_CHARS_MAX
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64url;

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let (old, new) = (base64url(&[1; 32]), base64url(&[2; 32]));
        let before = MacKeyring::parse(&format!("old:{old}")).unwrap();
        let after = MacKeyring::parse(&format!("new:{new},old:{old}")).unwrap();
        let tag = before.sign("d\n", b"message");
        assert_eq!(after.verify("old", "d\n", b"message", &tag), Some(true));
        assert_eq!(after.verify("old", "d\n", b"message", &tag[..16]), Some(true));
        assert_eq!(
            after.verify("old", "d\n", b"message", &tag[..15]),
            Some(false),
            "too short to mean anything"
        );
        assert_eq!(after.verify("old", "e\n", b"message", &tag), Some(false), "another domain");
        assert_eq!(after.verify("new", "d\n", b"message", &tag), Some(false), "another key");
        assert_eq!(after.verify("none", "d\n", b"message", &tag), None);
        assert_eq!(after.signing_kid(), "new");
        let derived = |ring: &MacKeyring| ring.derive("d\n").collect::<Vec<_>>();
        assert_eq!(derived(&after)[1..], derived(&before)[..]);
        assert_ne!(derived(&after)[0], derived(&before)[0]);
    }

    #[test]
    fn errors_and_debug_never_show_a_key() {
        let key = base64url(&[7; 32]);
        let ring = MacKeyring::parse(&format!("a:{key}")).unwrap();
        assert_eq!(format!("{ring:?}"), r#"["a"]"#);
        for wrong in
            [&key, "", "a:", &format!("a:{key},a:{key}"), &format!("a.b:{key}"), &format!("a:{key}AA")]
        {
            let error = MacKeyring::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains(&key), "{error}");
        }
    }

    #[test]
    fn the_secret_of_hashes_is_32_bytes_and_never_shown() {
        let text = base64url(&[7; 32]);
        let key = HashKey::parse(&text).unwrap();
        let ring = MacKeyring::parse(&format!("a:{text}")).unwrap();
        assert_eq!(key.hash("d\n", b"message"), ring.sign("d\n", b"message"), "HMAC-SHA256 as well");
        assert_ne!(key.hash("e\n", b"message"), key.hash("d\n", b"message"));
        assert_eq!(format!("{key:?}"), "HashKey(…)");
        let expect = |wrong: &str, found: &str| {
            let error = HashKey::parse(wrong).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("found {found}, expected 32 random bytes in base64url without padding")
            );
        };
        expect(&format!("k1:{text}"), "a text that is no base64url");
        expect(&format!("{text}="), "a text that is no base64url");
        expect("c2VjcmV0", "6 bytes");
        expect(&base64url(&[7; 64]), "64 bytes");
        expect(&base64url(&[0; 32]), "zeros alone");
    }

    #[test]
    fn keys_that_everybody_has_are_refused() {
        // Points whose order divides 8 (RFC 7748, section 6): 0, 1, p - 1, and two of order 8.
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let order_8 = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        for weak in [[0; 32], one, minus_one, order_8] {
            let error = PublicKeyring::parse(&format!("a:{}", base64url(&weak))).unwrap_err();
            assert_eq!(error, InvalidKeyring::Weak { kid: "a".into() }, "{weak:?}");
        }
        assert!(
            PublicKeyring::parse(&format!("a:{}", base64url(&[2; 32]))).is_err(),
            "no point of the curve"
        );
        let zero = MacKeyring::parse(&format!("a:{}", base64url(&[0; 32]))).unwrap();
        assert_eq!(zero.without_zeros().unwrap_err(), InvalidKeyring::Weak { kid: "a".into() });
    }

    #[test]
    fn a_signing_key_is_checked_against_its_public_half() {
        let pair = KeyPair::from_seed(ed25519_compact::Seed::new([3; 32]));
        let text = format!("k:{}", base64url(pair.as_ref()));
        let key = SigningKey::parse(&text).unwrap();
        assert_eq!(key.public(), *pair.pk);
        let mut bytes = *pair;
        bytes[63] ^= 1;
        assert!(SigningKey::parse(&format!("k:{}", base64url(&bytes))).is_err());
        assert_eq!(format!("{key:?}"), r#"SigningKey("k")"#);
    }
}
