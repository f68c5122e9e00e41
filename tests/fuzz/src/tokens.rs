//! The tokens of the platform's own parts: tickets of bundles, signed contexts, session tokens, and the keyrings for them.

use std::sync::OnceLock;

use meridian_engine::ruleset::Target;
use meridian_wire::context::Context;
use meridian_wire::encoding::base64url;
use meridian_wire::keyring::{MacKeyring, PublicKeyring, SigningKey};
use meridian_wire::session::{Positions, Session};
use meridian_wire::signature::Ticket;

use crate::bundles::key;
use crate::edge::START_MS;
use crate::input::text;

const REQUEST: (&str, &str, &str) = ("GET", "origin.test:1", "/v1/a?b");

/// Everything that was ever signed with the keys of this target.
struct Signed {
    keys: MacKeyring,
    public: PublicKeyring,
    ticket: (String, Ticket),
    context: (String, Context),
    session: (String, Session),
}

fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let ring = format!("k1:{},k2:{}", base64url(&[5; 32]), base64url(&[6; 32]));
        let keys = MacKeyring::parse(&ring).expect("a keyring");
        let ticket = Ticket::of(&Target::Platform, 7, b"{}", Some("0011223344556677"), START_MS);
        let context = Context::of_edge("edge-1", "0123456789abcdef", START_MS);
        let session = Session { tenant: "acme".to_owned(), positions: Positions::from([(1, 10), (2, 20)]) };
        Signed {
            ticket: (ticket.sign(key()), ticket),
            context: (context.sign(&keys, REQUEST.0, REQUEST.1, REQUEST.2), context),
            session: (session.sign(&keys), session),
            public: PublicKeyring::of(key()),
            keys,
        }
    })
}

/// What was signed, to begin with.
pub(crate) fn examples() -> Vec<String> {
    let signed = signed();
    vec![signed.ticket.0.clone(), signed.context.0.clone(), signed.session.0.clone()]
}

/// No text is taken for a token but those that were signed, and they say what was signed.
pub fn tokens(data: &[u8]) {
    let text = text(data);
    let signed = signed();
    let (method, authority, path) = REQUEST;
    if let Ok(ticket) = Ticket::verify(&text, &signed.public) {
        assert_eq!((&*text, &ticket), (&*signed.ticket.0, &signed.ticket.1), "a forged ticket");
    }
    let verify = |method, path| Context::verify(Some(&text), &signed.keys, method, authority, path, START_MS);
    if let Ok(context) = verify(method, path) {
        assert_eq!((&*text, &context), (&*signed.context.0, &signed.context.1), "a forged context");
    }
    assert!(verify("POST", path).is_err() && verify(method, "/v1/a?c").is_err(), "of another request");
    if let Ok(session) = Session::verify(&text, &signed.keys, "acme") {
        assert_eq!((&*text, &session), (&*signed.session.0, &signed.session.1), "a forged session");
    }
    assert!(Session::verify(&text, &signed.keys, "globex").is_err(), "of another tenant");
    keyrings(&text);
}

/// A keyring is one or not; it never shows what it holds.
fn keyrings(text: &str) {
    let secrets =
        || text.split(',').filter_map(|entry| entry.split_once(':')).map(|(_, secret)| secret.trim());
    // What has other letters is no key, and may well be a part of what is said.
    let is_key = |secret: &&str| {
        secret.len() > 40 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // An id is no secret, whatever it looks like.
    let is_id = |secret: &str| {
        text.split(',').any(|entry| entry.split(':').next().is_some_and(|id| id.contains(secret)))
    };
    let hidden = |shown: String| {
        secrets().filter(|secret| is_key(secret) && !is_id(secret)).all(|secret| !shown.contains(secret))
    };
    match MacKeyring::parse(text) {
        Ok(ring) => {
            let tag = ring.sign("d", b"m");
            assert_eq!(ring.verify(ring.signing_kid(), "d", b"m", &tag), Some(true));
            assert_eq!(ring.verify(ring.signing_kid(), "e", b"m", &tag), Some(false));
            assert!(hidden(format!("{ring:?}")));
        }
        Err(error) => assert!(hidden(error.to_string())),
    }
    if let Err(error) = SigningKey::parse(text) {
        assert!(hidden(error.to_string()));
    }
    let _ = PublicKeyring::parse(text);
}
