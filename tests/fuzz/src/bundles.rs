//! Bundles as edges get them, and the tickets that make them acceptable.

use std::sync::OnceLock;

use meridian_engine::ruleset::Target;
use meridian_wire::bundle::{Bundle, InvalidBundle};
use meridian_wire::encoding::version;
use meridian_wire::keyring::{PublicKeyring, SigningKey};
use meridian_wire::signature::{Have, Ticket, accept};

/// A key of tests: the pair of the seed of 32 ones.
pub(crate) const SIGNING_KEY: &str =
    "b1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA";

pub(crate) fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::parse(SIGNING_KEY).expect("the key of tests is a key"))
}

/// Bytes are refused, or rules that are the same each time; whatever they are, an older release never takes the place of a newer
/// one, nor another content that of the same, nor anything that was signed for another content.
pub fn bundles(data: &[u8]) {
    let (sequence, bytes) = data.split_first().map_or((0, data), |(first, rest)| (u64::from(*first), rest));
    let target = if bytes.windows(8).any(|part| part == b"platform") {
        Target::Platform
    } else {
        Target::Tenant("acme".to_owned())
    };
    let parsed = Bundle::parse(bytes, &target, sequence);
    if parsed.is_ok() {
        let bundle = Bundle::read(bytes, &target).expect("what was parsed can be read");
        let written = bundle.to_bytes();
        let again = Bundle::read(&written, &target).expect("what was written can be read");
        assert_eq!(again.to_bytes(), written, "the bytes of a bundle are its own");
        Bundle::parse(&written, &target, sequence).expect("what was parsed is taken again");
    }
    let keys = PublicKeyring::of(key());
    let ticket = Ticket::of(&target, sequence, bytes, None, 0).sign(key());
    let fresh = accept(&ticket, bytes, &target, &keys, None);
    assert_eq!(fresh.as_ref().err(), parsed.as_ref().err(), "a right ticket changes nothing of the content");
    let own = version(bytes);
    let newer = Have { sequence: sequence + 1, version: &own };
    let refused = accept(&ticket, bytes, &target, &keys, Some(newer)).err();
    assert_eq!(refused, Some(InvalidBundle::Older { found: sequence, have: sequence + 1 }));
    let other = Have { sequence, version: "0000000000000000" };
    let refused = accept(&ticket, bytes, &target, &keys, Some(other)).err();
    assert_eq!(refused, Some(InvalidBundle::SameSequence { sequence }));
    let elsewhere = Target::Tenant("globex".to_owned());
    assert!(matches!(accept(&ticket, bytes, &elsewhere, &keys, None), Err(InvalidBundle::Target { .. })));
    let mut changed = bytes.to_vec();
    changed.push(b' ');
    assert_eq!(accept(&ticket, &changed, &target, &keys, None).err(), Some(InvalidBundle::Hash));
}
