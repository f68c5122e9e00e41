//! What an edge signs and hashes with, for itself alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::bounded::Keyed;
use crate::limits::SIGNING_KEYS_MAX;

/// What an edge hashes with, and what it signs its own cookies with. One says nothing of the other: keys of cookies can be
/// changed while limits and experiments go on counting the same people.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Of the tables in memory.
    pub(crate) keyed: Keyed,
    /// Of whom limits and experiments count, of subjects, networks and paths.
    pub(crate) hashing: Secret,
    /// Of cookies.
    pub(crate) signing: Signing,
}

impl Secrets {
    /// Hashes with `hashing` and signs with `signing`.
    #[must_use]
    pub fn new(hashing: &[u8; 32], signing: &[u8; 32]) -> Self {
        let signing = Signing { first: Secret::new(signing), older: Vec::new() };
        Self { keyed: Keyed::new(hashing), hashing: Secret::new(hashing), signing }
    }

    /// The same, believing cookies that these keys signed as well. Of more than [`SIGNING_KEYS_MAX`] keys in all, the last
    /// are left out.
    #[must_use]
    pub fn with_older(mut self, keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        self.signing.older =
            keys.into_iter().take(SIGNING_KEYS_MAX - 1).map(|key| Secret::new(&key)).collect();
        self
    }
}

/// The keys of the edge's own cookies: the first signs, all verify.
#[derive(Clone, Debug)]
pub struct Signing {
    first: Secret,
    older: Vec<Secret>,
}

/// Which key a signature is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// The one that signs.
    First,
    /// One that only verifies any more.
    Older,
}

impl Signing {
    /// The signature of these parts, one after the other, in base64url.
    pub(crate) fn sign<const PARTS: usize>(&self, parts: [&str; PARTS]) -> String {
        URL_SAFE_NO_PAD.encode(self.first.short_tag(parts.map(str::as_bytes)))
    }

    /// Whose signature this is; `None` where it is nobody's. How long a key takes says nothing of its signature.
    pub(crate) fn verify<const PARTS: usize>(
        &self,
        parts: [&str; PARTS],
        signature: &str,
    ) -> Option<SignedBy> {
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let is_of = |key: &Secret| bool::from(signature.ct_eq(&key.short_tag(parts.map(str::as_bytes))));
        if is_of(&self.first) {
            return Some(SignedBy::First);
        }
        self.older.iter().any(is_of).then_some(SignedBy::Older)
    }
}

/// A key of HMAC-SHA256 (RFC 2104), made ready once; never shown.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        // A key that is shorter than a block is filled up with zeros (RFC 2104, section 2).
        let mut block = [0; 64];
        block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(Hmac::new(&block.into()))
    }

    /// The tag of these parts, one after the other.
    pub(crate) fn tag<const PARTS: usize>(&self, parts: [&[u8]; PARTS]) -> [u8; 32] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// The first half of the tag: 128 bits are more than anybody can guess or collide.
    pub(crate) fn short_tag<const PARTS: usize>(&self, parts: [&[u8]; PARTS]) -> [u8; 16] {
        let mut short = [0; 16];
        short.iter_mut().zip(self.tag(parts)).for_each(|(to, from)| *to = from);
        short
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| hex_digits(*byte)).map(char::from));
    text
}

/// The two lower-case hexadecimal digits of a byte.
pub(crate) fn hex_digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| digit + if digit < 10 { b'0' } else { b'a' - 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let key = |number| [number; 32];
        let signed = Secrets::new(&[0; 32], &key(1)).signing.sign(["d\n", "message"]);
        let check = |first, older: &[u8], expect| {
            let secrets = Secrets::new(&[9; 32], &key(first)).with_older(older.iter().copied().map(key));
            assert_eq!(secrets.signing.verify(["d\n", "message"], &signed), expect, "{first} {older:?}");
            assert_eq!(secrets.signing.verify(["e\n", "message"], &signed), None, "another domain");
        };
        check(1, &[], Some(SignedBy::First));
        check(1, &[1], Some(SignedBy::First));
        check(2, &[1], Some(SignedBy::Older));
        check(3, &[2, 1], Some(SignedBy::Older));
        check(2, &[], None);
        check(2, &[3; SIGNING_KEYS_MAX], None);
        let many: Vec<u8> = [[3_u8; SIGNING_KEYS_MAX - 1].as_slice(), &[1]].concat();
        check(2, &many, None);
        let signing = Secrets::new(&[9; 32], &key(1)).signing;
        for wrong in ["", "A", &signed[1..], "AAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(signing.verify(["d\n", "message"], wrong), None, "{wrong}");
        }
    }
}
