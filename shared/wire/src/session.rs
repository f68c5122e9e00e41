//! The session token: what a client has seen of each region's history, so that it never sees less.
//!
//! `s1.KID.BASE64URL(JSON).BASE64URL(first 16 bytes of HMAC-SHA256)`, with the JSON
//! `{"t": TENANT, "p": {ORDINAL: POSITION}}`. A position is that of a commit in the write-ahead log of the region with the
//! ordinal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{base64url, from_base64url};
use crate::keyring::MacKeyring;
use crate::limits::{SESSION_BYTES_MAX, SESSION_REGIONS_MAX};

/// Name of the header field that carries a session token, in requests and responses.
pub const HEADER: &str = "meridian-session";
/// Name of the cookie that carries one.
pub const COOKIE: &str = meridian_engine::exchange::SESSION_COOKIE;

const DOMAIN: &str = "meridian-session-v1\n";
const TAG_BYTES: usize = 16;

/// Position seen of each region's history, by the region's ordinal. An absent one is 0.
pub type Positions = BTreeMap<u16, u64>;

/// What a client of a tenant has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Tenant.
    #[serde(rename = "t")]
    pub tenant: String,
    /// What it has seen.
    #[serde(rename = "p", with = "positions")]
    pub positions: Positions,
}

/// Why a session token counts as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSession {
    /// It is not written as a session token is.
    #[error("the session token is not of the form s1.KID.JSON.MAC")]
    Malformed,
    /// Nobody knows its key.
    #[error("the session token is signed by an unknown key")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature of the session token is wrong")]
    BadSignature,
    /// It is another tenant's.
    #[error("the session token is of another tenant")]
    OtherTenant,
}

impl Session {
    /// The token.
    #[must_use]
    pub fn sign(&self, keys: &MacKeyring) -> String {
        let json = base64url(&serde_json::to_vec(self).unwrap_or_default());
        let tag = keys.sign(DOMAIN, json.as_bytes());
        let tag = tag.get(..TAG_BYTES).unwrap_or(&tag);
        format!("s1.{}.{json}.{}", keys.signing_kid(), base64url(tag))
    }

    /// Reads a token of this tenant.
    ///
    /// # Errors
    /// Says why it counts as none.
    pub fn verify(token: &str, keys: &MacKeyring, tenant: &str) -> Result<Self, InvalidSession> {
        if token.len() > SESSION_BYTES_MAX {
            return Err(InvalidSession::Malformed);
        }
        let mut parts = token.split('.');
        let (Some("s1"), Some(kid), Some(json), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidSession::Malformed);
        };
        let tag =
            from_base64url(tag).filter(|tag| tag.len() == TAG_BYTES).ok_or(InvalidSession::Malformed)?;
        match keys.verify(kid, DOMAIN, json.as_bytes(), &tag) {
            None => return Err(InvalidSession::UnknownKey),
            Some(false) => return Err(InvalidSession::BadSignature),
            Some(true) => {}
        }
        let json = from_base64url(json).ok_or(InvalidSession::Malformed)?;
        let session: Self = serde_json::from_slice(&json).map_err(|_| InvalidSession::Malformed)?;
        if session.tenant == tenant { Ok(session) } else { Err(InvalidSession::OtherTenant) }
    }

    /// Adds what was seen besides: of each region the later position stays. Never goes back, and keeps at most
    /// [`SESSION_REGIONS_MAX`] regions.
    pub fn merge(&mut self, seen: &Positions) {
        merge(&mut self.positions, seen);
    }

    /// The first region, by ordinal, of which `applied` has not reached what this session has seen.
    #[must_use]
    pub fn behind(&self, applied: &Positions) -> Option<u16> {
        let lags =
            |(ordinal, position): &(&u16, &u64)| applied.get(ordinal).copied().unwrap_or(0) < **position;
        self.positions.iter().find(lags).map(|(ordinal, _)| *ordinal)
    }
}

/// Of each region the later of the two positions.
pub fn merge(into: &mut Positions, seen: &Positions) {
    for (ordinal, position) in seen {
        if let Some(have) = into.get_mut(ordinal) {
            *have = (*have).max(*position);
        } else if into.len() < SESSION_REGIONS_MAX {
            into.insert(*ordinal, *position);
        }
    }
}

/// Positions as the value of a `Meridian-Seen` field: `1=7;2=9`.
#[must_use]
pub fn seen_text(positions: &Positions) -> String {
    positions.iter().map(|(ordinal, position)| format!("{ordinal}={position}")).collect::<Vec<_>>().join(";")
}

/// Reads the value of a `Meridian-Seen` field. Entries that are not `ORDINAL=POSITION` are left out.
#[must_use]
pub fn from_seen_text(text: &str) -> Positions {
    let entry = |part: &str| {
        let (ordinal, position) = part.trim().split_once('=')?;
        Some((ordinal.parse().ok()?, position.parse().ok()?))
    };
    text.split(';').take(SESSION_REGIONS_MAX).filter_map(entry).collect()
}

mod positions {
    //! Ordinals are the names of a JSON object, which are text.
    use super::{Positions, SESSION_REGIONS_MAX};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(positions: &Positions, serializer: S) -> Result<S::Ok, S::Error> {
        positions.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Positions, D::Error> {
        let positions = Positions::deserialize(deserializer)?;
        if positions.len() > SESSION_REGIONS_MAX {
            return Err(D::Error::custom("too many regions"));
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> MacKeyring {
        MacKeyring::parse(&format!("k1:{}", base64url(&[9; 32]))).unwrap()
    }

    fn session() -> Session {
        Session { tenant: "acme".into(), positions: [(1, 23_456_789), (3, u64::MAX)].into() }
    }

    #[test]
    fn what_was_signed_is_what_is_read() {
        let token = session().sign(&keys());
        assert_eq!(Session::verify(&token, &keys(), "acme"), Ok(session()));
        assert_eq!(Session::verify(&token, &keys(), "globex"), Err(InvalidSession::OtherTenant));
        let forged = token.replacen("s1.k1.e", "s1.k1.f", 1);
        assert_eq!(Session::verify(&forged, &keys(), "acme"), Err(InvalidSession::BadSignature));
        for wrong in ["", "s1.k1", "s1.k1.e30.AA", &format!("{token}.x"), &"s".repeat(SESSION_BYTES_MAX + 1)]
        {
            assert_eq!(Session::verify(wrong, &keys(), "acme"), Err(InvalidSession::Malformed), "{wrong}");
        }
    }

    #[test]
    fn a_session_never_goes_back() {
        let mut session = session();
        session.merge(&[(1, 5), (2, 7)].into());
        assert_eq!(session.positions, [(1, 23_456_789), (2, 7), (3, u64::MAX)].into());
        assert_eq!(session.behind(&[(1, 23_456_789), (2, 6), (3, u64::MAX)].into()), Some(2));
        assert_eq!(session.behind(&session.positions.clone()), None);
        assert_eq!(session.behind(&Positions::new()), Some(1));
    }

    #[test]
    fn seen_is_read_as_written() {
        let positions: Positions = [(1, 7), (2, 9)].into();
        assert_eq!(seen_text(&positions), "1=7;2=9");
        assert_eq!(from_seen_text("1=7; 2=9;x;3=y"), positions);
    }

    #[test]
    fn an_old_token_keeps_decoding() {
        let old = include_str!("../tests/stored/session-s1.txt").trim();
        assert_eq!(Session::verify(old, &keys(), "acme"), Ok(session()));
    }
}
