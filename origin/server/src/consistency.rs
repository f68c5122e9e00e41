//! What a client has seen, and that it never sees less: session tokens in, waiting, session tokens out.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use meridian_replica::Cursor;
use meridian_wire::session::{self, COOKIE, Positions, Session};

use crate::context::Signed;
use crate::limits::SESSION_WAIT;
use crate::problem::Problem;
use crate::state::Origin;

/// Name of the header field that carries the token.
pub const SESSION: HeaderName = HeaderName::from_static(session::HEADER);
/// Name of the header field that tells an edge what an answer reflects.
pub const SEEN: HeaderName = HeaderName::from_static("meridian-seen");

/// The session of one request.
pub struct Visit {
    session: Session,
}

impl Visit {
    /// The session that the request says it continues, or a new one. A token that is not right counts as none.
    #[must_use]
    pub fn of(origin: &Origin, tenant: &str, headers: &HeaderMap) -> Self {
        let new = || Session { tenant: tenant.to_owned(), positions: Positions::new() };
        let Some(token) = token(headers) else { return Self { session: new() } };
        match Session::verify(token, &origin.config.context_keys, tenant) {
            Ok(session) => Self { session },
            Err(_) => {
                origin.metrics.ignored_sessions.inc();
                Self { session: new() }
            }
        }
    }

    /// Waits, where the context asks for it, until this region has applied what the session has seen of the others.
    ///
    /// # Errors
    /// 503 `behind` with the ordinal of the region whose changes are missing.
    pub async fn caught_up(&self, origin: &Origin, signed: &Signed) -> Result<(), Problem> {
        if signed.consistency == "session" { self.arrived(origin, SESSION_WAIT).await } else { Ok(()) }
    }

    /// Waits until this region has applied what the session has seen of the others.
    ///
    /// # Errors
    /// 503 `behind` with the ordinal of the region whose changes are missing.
    pub async fn arrived(&self, origin: &Origin, wait: Duration) -> Result<(), Problem> {
        let own = origin.config.identity.region_ordinal;
        let others = self.session.positions.iter().filter(|(ordinal, _)| **ordinal != own);
        let wanted: Cursor = others.map(|(ordinal, position)| (*ordinal, *position)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let progress = origin.replication.progress();
        progress.wait_until(&wanted, wait).await.map_err(|behind| {
            origin.metrics.behind.inc();
            Problem::behind(behind.ordinal, "This region has not yet applied what the session has seen")
        })
    }

    /// The token for the answer: what the session had seen and what it sees now.
    #[must_use]
    pub fn continued(mut self, origin: &Origin, seen: &Positions) -> String {
        self.session.merge(seen);
        self.session.sign(&origin.config.context_keys)
    }
}

/// What this region has applied of every region, its own commits as far as the purge journal has them. An answer
/// that is read after this was taken reflects at least as much.
#[must_use]
pub fn applied(origin: &Arc<Origin>) -> Positions {
    origin.replication.progress().vector().iter().collect()
}

/// What a client has seen that got an answer read before this: taken after the read, so that it is never too little.
///
/// # Errors
/// 503 where the database is away.
pub async fn reflected(origin: &Arc<Origin>) -> Result<Positions, Problem> {
    let mut reflected = applied(origin);
    let own = origin.store.position().await?;
    reflected.insert(origin.config.identity.region_ordinal, own);
    Ok(reflected)
}

fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = headers.get(SESSION) {
        return token.to_str().ok();
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_before_the_cookie() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; meridian_session=s1.c".parse().unwrap());
        assert_eq!(token(&headers), Some("s1.c"));
        headers.insert(SESSION, "s1.h".parse().unwrap());
        assert_eq!(token(&headers), Some("s1.h"));
    }
}
